// Columns of every file below GDS_TEST_CORPUS (Parquet and Arrow; parquet-testing and arrow-testing
// are meant): the same answer from the GPU and from the host device, value by value, and an answer
// to each file with bytes changed. Meant for compute-sanitizer too. Without GDS_TEST_CORPUS the
// program ends with 77. GDS_TEST_DAMAGED is how many damaged copies of each file are tried (8).

#include <ftw.h>

#include <fstream>

#include "columns.cuh"

namespace {

std::vector<std::string> corpus;

int found_file(const char *path, const struct stat *, int kind) {
    if (kind == FTW_F) corpus.push_back(path);
    return 0;
}

bool of_columns(gds_context_t *context, const std::string &path) {
    gds_file_t *file = nullptr;
    int32_t format = 0;
    GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file));
    GDS_OK(gds_format_detect(file, &format));
    gds_file_close(file);
    return format == GDS_FORMAT_PARQUET || format == GDS_FORMAT_ARROW_FILE ||
           format == GDS_FORMAT_ARROW_STREAM;
}

// A fault of ours is one whatever the file holds.
void check_answer(const Loaded &loaded, const std::string &path) {
    const gds_status_t status = loaded.status;
    CHECK(status != GDS_STATUS_PANIC && status != GDS_STATUS_INTERNAL &&
              status != GDS_STATUS_CUDA && status != GDS_STATUS_POISONED,
          "%s: %s", path.c_str(), gds_last_error_message());
    CUDA_OK(cudaDeviceSynchronize());
}

void each_file_is_the_same_as_on_the_host(gds_context_t *context) {
    gds_context_t *host = open_host();
    uint64_t same = 0, refused = 0, differ = 0;
    for (const std::string &path : corpus) {
        if (!of_columns(context, path)) continue;
        Loaded here(context, path);
        check_answer(here, path);
        const std::string why = here.status == GDS_STATUS_OK ? "" : gds_last_error_message();
        Loaded there(host, path);
        check_answer(there, path);
        if ((here.status == GDS_STATUS_OK) != (there.status == GDS_STATUS_OK)) {
            printf("\n    %s: %s on the GPU (%s), %s on the host (%s)", path.c_str(),
                   gds_status_string(here.status), why.c_str(), gds_status_string(there.status),
                   there.status == GDS_STATUS_OK ? "" : gds_last_error_message());
            differ++;
        }
        if (here.status != GDS_STATUS_OK || there.status != GDS_STATUS_OK) {
            refused++;
            continue;
        }
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT, other = GDS_COLUMNS_INFO_INIT;
        GDS_OK(gds_columns_info(here.columns, &info));
        GDS_OK(gds_columns_info(there.columns, &other));
        CHECK(info.batches == other.batches && info.columns == other.columns &&
                  info.rows == other.rows,
              "%s", path.c_str());
        for (uint64_t batch = 0; batch < info.batches; batch++) {
            for (uint32_t number = 0; number < info.columns; number++) {
                same_below(here.columns, there.columns, batch, {number}, {});
            }
        }
        same++;
    }
    gds_context_close(host);
    printf("\n    %llu files are the same, %llu are refused\n%-44s", (unsigned long long)same,
           (unsigned long long)refused, "files");
    CHECK(differ == 0 && same > 0, "%llu files have two answers", (unsigned long long)differ);
}

void each_damaged_file_is_answered(gds_context_t *context) {
    const char *amount = getenv("GDS_TEST_DAMAGED");
    const uint64_t copies = amount != nullptr ? strtoull(amount, nullptr, 10) : 8;
    const std::string path = test_directory() + "/gds_corpus_" + std::to_string(getpid());
    std::mt19937_64 random(11);
    uint64_t answered = 0, refused = 0;
    for (const std::string &one : corpus) {
        if (!of_columns(context, one)) continue;
        std::ifstream in(one, std::ios::binary);
        const std::string whole((std::istreambuf_iterator<char>(in)),
                                std::istreambuf_iterator<char>());
        for (uint64_t copy = 0; copy < copies; copy++) {
            std::string bytes = whole;
            for (uint64_t flips = between(random, 1, 6); flips > 0; flips--) {
                bytes[between(random, 0, bytes.size() - 1)] ^= (char)(1 << between(random, 0, 7));
            }
            std::ofstream(path, std::ios::binary) << bytes;
            if (!of_columns(context, path)) continue;
            Loaded loaded(context, path);
            check_answer(loaded, one);
            refused += loaded.status != GDS_STATUS_OK;
            answered++;
        }
    }
    unlink(path.c_str());
    printf("\n    %llu of %llu damaged files are refused\n%-44s", (unsigned long long)refused,
           (unsigned long long)answered, "damaged files");
    CHECK(refused > 0, "no damage was seen");
}

const Case CASES[] = {
    {"each_file_is_the_same_as_on_the_host", each_file_is_the_same_as_on_the_host},
    {"each_damaged_file_is_answered", each_damaged_file_is_answered},
};

} // namespace

int main() {
    const char *root = getenv("GDS_TEST_CORPUS");
    if (root == nullptr || root[0] == 0) {
        printf("skipped: GDS_TEST_CORPUS names no folder\n");
        return 77;
    }
    CHECK(ftw(root, found_file, 16) == 0, "%s: %s", root, strerror(errno));
    std::sort(corpus.begin(), corpus.end());
    return run_cases(CASES, sizeof CASES / sizeof *CASES);
}
