// Columns, tensors and sections in device memory: what a file is, every codec and encoding beside
// the host device's own decoding, sums by kernels, exported arrays, several loads at once, damaged
// files, and figures. The files are written by make_format_files.py, which needs pyarrow
// (GDS_FORMATS_PYTHON, else python3); without it the program ends with 77. GDS_TEST_SMALL=1 shrinks
// the tables for compute-sanitizer.

#include <dirent.h>

#include <fstream>
#include <thread>

#include "columns.cuh"

namespace {

uint64_t rows() { return small_sizes() ? 20003 : 600011; }

std::string folder;

// ---- files ---------------------------------------------------------------------------------

std::vector<std::string> files(const char *ending) {
    std::vector<std::string> found;
    DIR *dir = opendir(folder.c_str());
    CHECK(dir != nullptr, "%s: %s", folder.c_str(), strerror(errno));
    while (dirent *entry = readdir(dir)) {
        std::string name = entry->d_name;
        std::string end = ending;
        if (name.size() <= end.size()) continue;
        if (name.compare(name.size() - end.size(), end.size(), end) == 0) {
            found.push_back(folder + "/" + name);
        }
    }
    closedir(dir);
    std::sort(found.begin(), found.end());
    CHECK(!found.empty(), "no %s in %s", ending, folder.c_str());
    return found;
}

std::vector<std::string> tables() {
    std::vector<std::string> all = files(".parquet");
    for (const char *ending : {".arrow", ".arrows"}) {
        for (const std::string &path : files(ending)) all.push_back(path);
    }
    return all;
}

// ---- values --------------------------------------------------------------------------------

// What row `n` of the tables holds; false for a null.
bool known(const std::string &name, uint64_t n, std::string *value) {
    auto bytes = [&](auto number) { value->assign((const char *)&number, sizeof number); };
    if (name == "id") bytes((int64_t)(3 * n + 1));
    if (name == "small") bytes((int32_t)(n % 1000));
    if (name == "price") bytes((double)n / 2);
    if (name == "flag") value->assign(1, (char)(n % 3 == 0));
    if (name == "name") *value = "name-" + std::to_string(n % 97);
    if (name == "text") *value = "row " + std::to_string(n);
    if (name == "day") bytes((int32_t)(n % 20000));
    return !(name == "price" && n % 7 == 3) && !(name == "name" && n % 11 == 5);
}

void check_values(const gds_columns_t *columns, const std::string &path) {
    gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
    GDS_OK(gds_columns_info(columns, &info));
    CHECK(info.columns == 7 && info.rows == rows(), "%s: %u columns of %llu rows", path.c_str(),
          info.columns, (unsigned long long)info.rows);
    for (uint32_t number = 0; number < info.columns; number++) {
        uint64_t row = 0;
        for (uint64_t batch = 0; batch < info.batches; batch++) {
            Column column = column_of(columns, batch, number);
            for (uint64_t n = 0; n < column.about.length; n++, row++) {
                std::string wanted;
                bool there = known(column.about.name, row, &wanted);
                CHECK(column.valid(n) == there, "%s, %s: row %llu", path.c_str(),
                      column.about.name, (unsigned long long)row);
                CHECK(!there || column.value(n) == wanted, "%s, %s: row %llu differs",
                      path.c_str(), column.about.name, (unsigned long long)row);
            }
        }
        CHECK(row == rows(), "%s: column %u has %llu rows", path.c_str(), number,
              (unsigned long long)row);
    }
}

void every_codec_and_encoding_gives_what_was_written(gds_context_t *context) {
    for (const std::string &path : tables()) {
        Loaded loaded(context, path);
        CHECK(loaded.status == GDS_STATUS_OK, "%s: %s", path.c_str(), gds_last_error_message());
        check_values(loaded.columns, path);
    }
}

void the_host_device_gives_the_same(gds_context_t *context) {
    gds_context_t *host = open_host();
    for (const std::string &path : tables()) {
        Loaded here(context, path), there(host, path);
        CHECK(here.status == GDS_STATUS_OK && there.status == GDS_STATUS_OK, "%s", path.c_str());
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
        GDS_OK(gds_columns_info(here.columns, &info));
        for (uint64_t batch = 0; batch < info.batches; batch++) {
            for (uint32_t number = 0; number < info.columns; number++) {
                same_below(here.columns, there.columns, batch, {number}, {});
            }
        }
    }
    gds_context_close(host);
}

void lists_and_structs_are_the_same_as_on_the_host(gds_context_t *context) {
    gds_context_t *host = open_host();
    for (const std::string &path : files(".pq")) {
        Loaded here(context, path), there(host, path);
        CHECK(here.status == GDS_STATUS_OK && there.status == GDS_STATUS_OK, "%s: %s", path.c_str(),
              gds_last_error_message());
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
        GDS_OK(gds_columns_info(here.columns, &info));
        CHECK(info.batches == 1 && info.columns == 6 && info.rows == rows() / 5, "%s",
              path.c_str());
        for (uint32_t number = 0; number < info.columns; number++) {
            same_below(here.columns, there.columns, 0, {number}, {});
        }
    }
    gds_context_close(host);
}

// ---- kernels over columns ------------------------------------------------------------------

__global__ void sum_valid(const double *values, const uint32_t *validity, uint64_t count,
                          double *total) {
    double mine = 0;
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t n = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count; n += step) {
        if (validity == nullptr || (validity[n / 32] >> (n % 32) & 1)) mine += values[n];
    }
    atomicAdd(total, mine);
}

void kernels_read_columns_where_they_are(gds_context_t *context) {
    double wanted = 0;
    for (uint64_t n = 0; n < rows(); n++) wanted += n % 7 == 3 ? 0 : (double)n / 2;
    double *total = nullptr;
    CUDA_OK(cudaMalloc(&total, sizeof *total));
    for (const std::string &path : tables()) {
        Loaded loaded(context, path);
        GDS_OK(loaded.status);
        uint32_t price = 0;
        GDS_OK(gds_columns_find(loaded.columns, "price", &price));
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
        GDS_OK(gds_columns_info(loaded.columns, &info));
        CUDA_OK(cudaMemset(total, 0, sizeof *total));
        for (uint64_t batch = 0; batch < info.batches; batch++) {
            gds_column_t column = GDS_COLUMN_INIT;
            gds_column_buffer_t validity, values;
            GDS_OK(gds_columns_column(loaded.columns, batch, &price, 1, &column));
            GDS_OK(gds_columns_buffer(loaded.columns, batch, &price, 1, 0, &validity));
            GDS_OK(gds_columns_buffer(loaded.columns, batch, &price, 1, 1, &values));
            CHECK(column.offset == 0, "a column begins with its buffers");
            sum_valid<<<128, 256>>>((const double *)values.address,
                                    (const uint32_t *)validity.address, column.length, total);
            CUDA_OK(cudaGetLastError());
        }
        double sum = 0;
        CUDA_OK(cudaMemcpy(&sum, total, sizeof sum, cudaMemcpyDeviceToHost));
        // Halves of integers: every partial sum is exact.
        CHECK(sum == wanted, "%s: %.1f, not %.1f", path.c_str(), sum, wanted);
    }
    CUDA_OK(cudaFree(total));
}

void exported_arrays_are_the_same_memory_and_outlive_the_columns(gds_context_t *context) {
    for (const std::string &path : tables()) {
        ArrowDeviceArray array;
        gds_column_buffer_t id;
        {
            Loaded loaded(context, path);
            GDS_OK(loaded.status);
            uint32_t number = 0;
            GDS_OK(gds_columns_find(loaded.columns, "id", &number));
            GDS_OK(gds_columns_buffer(loaded.columns, 0, &number, 1, 1, &id));
            GDS_OK(gds_columns_export(loaded.columns, 0, &array));
            CHECK(array.array.children[number]->buffers[1] == (const void *)id.address,
                  "an export is no copy");
        }
        CHECK(array.device_type == ARROW_DEVICE_CUDA && array.device_id == 0, "%d",
              (int)array.device_type);
        int64_t first[2];
        CUDA_OK(cudaMemcpy(first, (const void *)id.address, sizeof first, cudaMemcpyDeviceToHost));
        CHECK(first[0] == 1 && first[1] == 4, "%lld, %lld", (long long)first[0],
              (long long)first[1]);
        array.array.release(&array.array);
        CHECK(array.array.release == nullptr, "it is released");
    }
}

// ---- tensors and sections ------------------------------------------------------------------

void tensors_land_as_they_lie_in_the_file(gds_context_t *context) {
    const std::string path = folder + "/model.safetensors";
    gds_file_t *file = nullptr;
    gds_tensors_t *tensors = nullptr;
    GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file));
    int32_t format = 0;
    GDS_OK(gds_format_detect(file, &format));
    CHECK(format == GDS_FORMAT_SAFETENSORS, "%d", format);
    GDS_OK(gds_tensors_open(file, &tensors));
    uint64_t index = 0;
    GDS_OK(gds_tensors_find(tensors, "id", &index));
    gds_tensor_info_t about = GDS_TENSOR_INFO_INIT;
    GDS_OK(gds_tensors_get(tensors, index, &about));
    CHECK(about.dtype == GDS_DTYPE_I64 && about.size_bytes == 8 * rows(), "%s of %llu bytes",
          about.dtype_name, (unsigned long long)about.size_bytes);
    std::ifstream in(path, std::ios::binary);
    in.seekg((std::streamoff)about.file_offset);
    std::vector<int64_t> wanted(rows()), found(rows());
    in.read((char *)wanted.data(), (std::streamsize)(8 * rows()));
    CHECK(in.good() && wanted[1] == 4, "the file holds what was written");
    gds_tensor_part_t part = {index, GDS_PART_WHOLE, 0, 0, 0};
    gds_tensor_place_t place;
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_tensors_load(tensors, &part, 1, 256, &place, &buffer));
    CUDA_OK(cudaMemcpy(found.data(), address_of(buffer) + place.offset, place.size_bytes,
                       cudaMemcpyDeviceToHost));
    CHECK(found == wanted, "a tensor differs");
    gds_buffer_free(buffer);
    // One rank's share of four.
    part = {index, GDS_PART_SHARE, 0, 1, 4};
    GDS_OK(gds_tensors_load(tensors, &part, 1, 256, &place, &buffer));
    CHECK(place.cut_elements * 8 == place.size_bytes && place.cut_elements * 4 >= rows() - 4 &&
              place.cut_elements * 4 <= rows() + 4,
          "%llu elements", (unsigned long long)place.cut_elements);
    std::vector<int64_t> share(place.cut_elements);
    CUDA_OK(cudaMemcpy(share.data(), address_of(buffer) + place.offset, place.size_bytes,
                       cudaMemcpyDeviceToHost));
    uint64_t first = (uint64_t)(share[0] - 1) / 3;
    CHECK(std::equal(share.begin(), share.end(), wanted.begin() + (std::ptrdiff_t)first),
          "a share differs");
    gds_buffer_free(buffer);
    gds_tensors_close(tensors);
    gds_file_close(file);
}

void what_a_file_is(gds_context_t *context) {
    auto is = [&](const std::string &path, int32_t wanted) {
        gds_file_t *file = nullptr;
        int32_t format = -1;
        GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file));
        GDS_OK(gds_format_detect(file, &format));
        CHECK(format == wanted, "%s is %d, not %d", path.c_str(), format, wanted);
        gds_file_close(file);
    };
    for (const std::string &path : files(".parquet")) is(path, GDS_FORMAT_PARQUET);
    for (const std::string &path : files(".arrow")) is(path, GDS_FORMAT_ARROW_FILE);
    for (const std::string &path : files(".arrows")) is(path, GDS_FORMAT_ARROW_STREAM);
    is("/proc/self/exe", GDS_FORMAT_ELF);
}

// ---- many at once, damage, figures ---------------------------------------------------------

void several_threads_load_at_once(gds_context_t *context) {
    const std::vector<std::string> all = tables();
    std::vector<std::thread> threads;
    for (size_t t = 0; t < (small_sizes() ? 2 : 6); t++) {
        threads.emplace_back([&, t] {
            for (size_t n = 0; n < all.size(); n++) {
                Loaded loaded(context, all[(n + 3 * t) % all.size()]);
                GDS_OK(loaded.status);
                uint32_t number = 0;
                gds_column_buffer_t id;
                GDS_OK(gds_columns_find(loaded.columns, "id", &number));
                GDS_OK(gds_columns_buffer(loaded.columns, 0, &number, 1, 1, &id));
                int64_t values[2];
                CUDA_OK(cudaMemcpy(values, (const void *)id.address, sizeof values,
                                   cudaMemcpyDeviceToHost));
                CHECK(values[0] == 1 && values[1] == 4, "thread %zu", t);
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
}

// Flipped and cut files give an answer; what they answer with OK may hold anything.
void damaged_files_are_answered(gds_context_t *context) {
    std::mt19937_64 random(7);
    const std::string path = folder + "/damaged";
    uint64_t refused = 0, rounds = small_sizes() ? 40 : 300;
    const std::vector<std::string> all = tables();
    for (uint64_t round = 0; round < rounds; round++) {
        std::ifstream in(all[round % all.size()], std::ios::binary);
        std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        for (uint64_t flips = between(random, 1, 8); flips > 0; flips--) {
            bytes[between(random, 0, bytes.size() - 1)] ^= (char)(1 << between(random, 0, 7));
        }
        if (round % 5 == 4) bytes.resize(between(random, 12, bytes.size()));
        std::ofstream(path, std::ios::binary) << bytes;
        gds_file_t *file = nullptr;
        int32_t format = 0;
        GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file));
        GDS_OK(gds_format_detect(file, &format));
        gds_file_close(file);
        if (format != GDS_FORMAT_PARQUET && format != GDS_FORMAT_ARROW_FILE &&
            format != GDS_FORMAT_ARROW_STREAM) {
            refused++;
            continue;
        }
        Loaded loaded(context, path);
        refused += loaded.status != GDS_STATUS_OK;
        CHECK(loaded.status != GDS_STATUS_PANIC && loaded.status != GDS_STATUS_CUDA, "%s",
              gds_last_error_message());
        CUDA_OK(cudaDeviceSynchronize());
    }
    unlink(path.c_str());
    CHECK(refused > 0, "no damage was seen in %llu files", (unsigned long long)rounds);
}

void rates(gds_context_t *context) {
    printf("\n");
    for (const std::string &path : tables()) {
        double best = 1e9;
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
        for (int n = 0; n < (small_sizes() ? 1 : 3); n++) {
            auto begin = std::chrono::steady_clock::now();
            Loaded loaded(context, path);
            best = std::min(best, seconds_since(begin));
            GDS_OK(gds_columns_info(loaded.columns, &info));
        }
        const double rate = (double)info.bytes / best / 1e9;
        printf("    %-30s %8.2f ms %8.2f GB/s of columns\n",
               path.substr(path.rfind('/') + 1).c_str(), best * 1e3, rate);
    }
    printf("%-44s", "rates");
}

// ---- nvCOMP --------------------------------------------------------------------------------

// The library's own word for what decompresses Zstandard.
std::string who_decompresses(gds_context_t *context, const std::string &path) {
    char text[4096];
    GDS_OK(gds_explain(context, path.c_str(), text, sizeof text, nullptr));
    std::string all = text;
    const size_t at = all.find("Zstandard");
    if (at == std::string::npos) return "";
    return all.substr(at, all.find('\n', at) - at);
}

bool by_library(const std::string &path) {
    return path.find("zstd") != std::string::npos;
}

// In a process of its own, where GDS_NVCOMP_LIBRARY is set: it is read once. The files are those
// of the other cases, and none is damaged: nvCOMP does not check.
void nvcomp_gives_what_was_written(gds_context_t *context) {
    std::string said;
    uint64_t seen = 0;
    for (const std::string &path : tables()) {
        if (!by_library(path)) continue;
        said = who_decompresses(context, path);
        if (said.find("on the device") == std::string::npos) break;
        double best = 1e9;
        gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
        for (int n = 0; n < 3; n++) {
            auto begin = std::chrono::steady_clock::now();
            Loaded loaded(context, path);
            best = std::min(best, seconds_since(begin));
            CHECK(loaded.status == GDS_STATUS_OK, "%s: %s", path.c_str(), gds_last_error_message());
            GDS_OK(gds_columns_info(loaded.columns, &info));
            if (n == 0) check_values(loaded.columns, path);
        }
        printf("\n    %-30s %8.2f ms %8.2f GB/s of columns",
               path.substr(path.rfind('/') + 1).c_str(), best * 1e3,
               (double)info.bytes / best / 1e9);
        seen++;
    }
    printf("\n    %s\n%-44s", seen > 0 ? said.c_str() : ("absent: " + said).c_str(), "nvcomp");
}

const Case NVCOMP_CASES[] = {{"nvcomp_gives_what_was_written", nvcomp_gives_what_was_written}};

std::string nvcomp_library;

void nvcomp_in_a_process_of_its_own(gds_context_t *) {
    char self[4096];
    const ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(size > 0, "/proc/self/exe: %s", strerror(errno));
    self[size] = 0;
    fflush(stdout);
    const std::string command = "GDS_NVCOMP_LIBRARY='" + nvcomp_library + "' '" + self +
                                "' nvcomp '" + folder + "'";
    CHECK(system(command.c_str()) == 0, "%s", command.c_str());
}

const Case CASES[] = {
    {"what_a_file_is", what_a_file_is},
    {"every_codec_and_encoding_gives_what_was_written",
     every_codec_and_encoding_gives_what_was_written},
    {"the_host_device_gives_the_same", the_host_device_gives_the_same},
    {"lists_and_structs_are_the_same_as_on_the_host",
     lists_and_structs_are_the_same_as_on_the_host},
    {"kernels_read_columns_where_they_are", kernels_read_columns_where_they_are},
    {"exported_arrays_are_the_same_memory",
     exported_arrays_are_the_same_memory_and_outlive_the_columns},
    {"tensors_land_as_they_lie_in_the_file", tensors_land_as_they_lie_in_the_file},
    {"several_threads_load_at_once", several_threads_load_at_once},
    {"damaged_files_are_answered", damaged_files_are_answered},
    {"rates", rates},
    {"nvcomp_in_a_process_of_its_own", nvcomp_in_a_process_of_its_own},
};

bool make_files() {
    const char *python = getenv("GDS_FORMATS_PYTHON");
    std::string source = __FILE__;
    source = source.substr(0, source.rfind('/') + 1) + "make_format_files.py";
    std::string command = std::string(python != nullptr ? python : "python3") + " '" + source +
                          "' '" + folder + "' " + std::to_string(rows());
    return system(command.c_str()) == 0;
}

} // namespace

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "nvcomp") == 0) {
        folder = words[2];
        return run_cases(NVCOMP_CASES, 1);
    }
    // All but one case are of the library without nvCOMP: damaged files are among them.
    const char *named = getenv("GDS_NVCOMP_LIBRARY");
    nvcomp_library = named != nullptr ? named : "auto";
    unsetenv("GDS_NVCOMP_LIBRARY");
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        return run_cases(CASES, 0);
    }
    folder = test_directory() + "/gds_formats_test_XXXXXX";
    CHECK(mkdtemp(&folder[0]) != nullptr, "%s: %s", folder.c_str(), strerror(errno));
    int result = environment_says("GDS_TEST_REQUIRE_GPU") ? 1 : 77;
    if (make_files()) {
        result = run_cases(CASES, sizeof CASES / sizeof *CASES);
    } else {
        printf("%s: make_format_files.py needs pyarrow and NumPy\n",
               result == 1 ? "FAILED" : "skipped");
    }
    std::string clean = "rm -rf '" + folder + "'";
    if (system(clean.c_str()) != 0) printf("%s stays\n", folder.c_str());
    return result;
}
