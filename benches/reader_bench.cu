// The streaming reader with a kernel that sums each chunk, beside the engine's own read of the same
// file and the machine's pinned copies; the ways take turns, and take turns in who begins.
//
//   reader_bench FILE [--runs 5] [--cold] [--chunk BYTES,...] [--buffers N,...] [--ways WAY,...]
//
// Ways, all of them left out; sizes take K, M and G, and a chunk of 0 is the reader's default:
//   whole    one gds_read() of the file into one allocation; left out where that does not fit
//   blocks   gds_read_start() of 64 MiB, two under way, into two buffers that are used in turn
//   stream   gds_reader_next(), a kernel in the caller's stream, gds_reader_release_on(): the host
//            waits for no kernel
//   sync     the same with cudaStreamSynchronize() and gds_reader_release() after each kernel
//   only     gds_reader_next() and gds_reader_release(): no kernel
//   copy     cudaMemcpyAsync() from pinned memory, the limit of what is in host memory
// --chunk and --buffers are combined with each other. Without them a few settings are tried.
//
// The time of a run begins before the reader is opened, its memory included, and ends when the last
// kernel is done. Every sum of kernels is compared with one that the host made of the file.

#include "bench.cuh"

namespace {

const char USAGE[] =
    "usage: reader_bench FILE [--runs N] [--cold] [--chunk BYTES,...] [--buffers N,...]\n"
    "                    [--ways whole,blocks,stream,sync,only,copy]\n";

constexpr uint64_t BLOCK = 64 * MiB;

// ---- sums ----------------------------------------------------------------------------------

// Adds the little-endian 64-bit words of [data, data + size) to `sum`; what is left of the last
// one counts as if zeros came after it. `data` is aligned to 16 bytes.
__global__ void sum_words(const unsigned char *data, uint64_t size, unsigned long long *sum) {
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t self = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const ulonglong2 *pairs = (const ulonglong2 *)data;
    unsigned long long mine = 0;
    for (uint64_t i = self; i < size / 16; i += step) {
        const ulonglong2 pair = __ldcs(pairs + i);
        mine += pair.x + pair.y;
    }
    if (self == 0) {
        for (uint64_t i = size / 16 * 16; i < size; i++) {
            mine += (unsigned long long)data[i] << (8 * (i % 8));
        }
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        mine += __shfl_down_sync(0xFFFFFFFFu, mine, lanes);
    }
    if (threadIdx.x % 32 == 0 && mine != 0) atomicAdd(sum, mine);
}

uint64_t host_sum(const unsigned char *data, uint64_t size) {
    uint64_t sum = 0, word;
    for (uint64_t at = 0; at < size; at += 8) {
        word = 0;
        memcpy(&word, data + at, std::min<uint64_t>(8, size - at));
        sum += word;
    }
    return sum;
}

// The sum of each block of the file.
std::vector<uint64_t> host_sums(const std::string &path, uint64_t size) {
    std::vector<uint64_t> sums((size + BLOCK - 1) / BLOCK);
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0, path + ": " + strerror(errno));
    in_parts(size, [&](uint64_t begin, uint64_t end) {
        std::vector<unsigned char> piece(4 * MiB);
        for (uint64_t at = begin; at < end; at += piece.size()) {
            const uint64_t count = std::min<uint64_t>(piece.size(), end - at);
            read_exactly(fd, piece.data(), count, at);
            sums[at / BLOCK] += host_sum(piece.data(), count);
        }
    });
    close(fd);
    return sums;
}

// ---- ways ----------------------------------------------------------------------------------

// Everything that runs share.
struct Bench {
    std::string path;
    uint64_t size = 0;
    bool cold = false;
    gds_context_t *context = nullptr;
    cudaStream_t stream = nullptr;
    unsigned blocks_of_grid = 0;
    unsigned long long *sum = nullptr;
    std::vector<uint64_t> expected;
    uint64_t expected_sum = 0;
    gds_buffer_t *whole = nullptr;
    gds_buffer_t *block[2] = {nullptr, nullptr};
    char *pinned = nullptr, *copied = nullptr;
    uint64_t pinned_size = 0;

    gds_file_t *open_file() const {
        gds_file_t *file = nullptr;
        GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file));
        return file;
    }
    void add(const void *data, uint64_t bytes) const {
        sum_words<<<blocks_of_grid, 256, 0, stream>>>((const unsigned char *)data, bytes, sum);
        CUDA_OK(cudaGetLastError());
    }
    void clear_sum() const {
        CUDA_OK(cudaMemsetAsync(sum, 0, sizeof *sum, stream));
        CUDA_OK(cudaStreamSynchronize(stream));
    }
    // Waits for the stream.
    uint64_t take_sum() const {
        unsigned long long value = 0;
        CUDA_OK(cudaMemcpyAsync(&value, sum, sizeof value, cudaMemcpyDeviceToHost, stream));
        CUDA_OK(cudaStreamSynchronize(stream));
        return value;
    }
    void check(uint64_t want, const char *what) const {
        const uint64_t got = take_sum();
        NEED(got == want, std::string(what) + ": WRONG BYTES: the sum is " + std::to_string(got) +
                              ", of the file it is " + std::to_string(want));
    }
};

struct Case {
    std::string way;
    uint64_t chunk = 0;
    uint32_t buffers = 0;
    std::vector<double> rates;
    int path = 0;
    uint64_t chunks = 0, waits = 0;
};

double run_whole(Bench &bench, Case &self) {
    gds_file_t *file = bench.open_file();
    gds_completion_t done = GDS_COMPLETION_INIT;
    const double begin = now();
    GDS_OK(gds_read_with(file, 0, bench.whole, 0, bench.size, nullptr, &done));
    const double seconds = now() - begin;
    NEED(done.bytes == bench.size, "whole: the read was short");
    self.path = done.path;
    void *address = nullptr;
    GDS_OK(gds_buffer_address(bench.whole, &address));
    bench.clear_sum();
    bench.add(address, bench.size);
    bench.check(bench.expected_sum, "whole");
    gds_file_close(file);
    return seconds;
}

double run_blocks(Bench &bench, Case &self) {
    gds_file_t *file = bench.open_file();
    gds_ticket_t *tickets[2] = {nullptr, nullptr};
    const uint64_t count = (bench.size + BLOCK - 1) / BLOCK;
    const double begin = now();
    for (uint64_t i = 0; i < count + 2; i++) {
        gds_ticket_t **slot = &tickets[i % 2];
        if (*slot != nullptr) {
            gds_completion_t done = GDS_COMPLETION_INIT;
            GDS_OK(gds_ticket_wait(*slot, -1, &done));
            NEED(done.bytes == std::min(BLOCK, bench.size - (i - 2) * BLOCK), "blocks: short");
            self.path = done.path;
            gds_ticket_destroy(*slot);
            *slot = nullptr;
        }
        if (i < count) {
            const uint64_t left = std::min(BLOCK, bench.size - i * BLOCK);
            GDS_OK(gds_read_start(file, i * BLOCK, bench.block[i % 2], 0, left, nullptr, slot));
        }
    }
    const double seconds = now() - begin;
    // The last block of each buffer is still there.
    bench.clear_sum();
    uint64_t want = 0;
    for (uint64_t i = count > 2 ? count - 2 : 0; i < count; i++) {
        void *address = nullptr;
        GDS_OK(gds_buffer_address(bench.block[i % 2], &address));
        bench.add(address, std::min(BLOCK, bench.size - i * BLOCK));
        want += bench.expected[i];
    }
    bench.check(want, "blocks");
    gds_file_close(file);
    return seconds;
}

double run_reader(Bench &bench, Case &self) {
    const bool kernel = self.way != "only", waits = self.way == "sync";
    gds_file_t *file = bench.open_file();
    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = self.chunk;
    config.buffers = self.buffers;
    bench.clear_sum();
    gds_reader_t *reader = nullptr;
    uint64_t bytes = 0;
    const double begin = now();
    GDS_OK(gds_reader_open(file, &config, &reader));
    for (;;) {
        gds_chunk_t chunk = GDS_CHUNK_INIT;
        const gds_status_t status = gds_reader_next(reader, -1, &chunk);
        if (status == GDS_STATUS_END) break;
        NEED(status == GDS_STATUS_OK, std::string("next: ") + gds_last_error_message());
        bytes += chunk.size;
        self.path = chunk.path;
        if (kernel) bench.add((const void *)chunk.address, chunk.size);
        if (kernel && !waits) {
            GDS_OK(gds_reader_release_on(reader, &chunk, bench.stream));
        } else {
            if (waits) CUDA_OK(cudaStreamSynchronize(bench.stream));
            GDS_OK(gds_reader_release(reader, &chunk));
        }
    }
    CUDA_OK(cudaStreamSynchronize(bench.stream));
    const double seconds = now() - begin;
    gds_reader_info_t info = GDS_READER_INFO_INIT;
    GDS_OK(gds_reader_info(reader, &info));
    self.chunks = info.chunks;
    self.waits = info.waits;
    self.chunk = info.chunk_bytes;
    gds_reader_close(reader);
    gds_file_close(file);
    NEED(bytes == bench.size, "the reader delivered " + std::to_string(bytes) + " bytes");
    if (kernel) bench.check(bench.expected_sum, self.way.c_str());
    return seconds;
}

double run_copy(Bench &bench, Case &) {
    const double begin = now();
    for (uint64_t at = 0; at < bench.size; at += bench.pinned_size) {
        const uint64_t count = std::min(bench.pinned_size, bench.size - at);
        CUDA_OK(cudaMemcpyAsync(bench.copied, bench.pinned, count, cudaMemcpyHostToDevice,
                                bench.stream));
    }
    CUDA_OK(cudaStreamSynchronize(bench.stream));
    return now() - begin;
}

double run(Bench &bench, Case &self) {
    if (self.way == "copy") return run_copy(bench, self);
    set_cached(bench.path, bench.cold);
    if (self.way == "whole") return run_whole(bench, self);
    if (self.way == "blocks") return run_blocks(bench, self);
    return run_reader(bench, self);
}

// ---- cases ---------------------------------------------------------------------------------

std::vector<std::pair<uint64_t, uint32_t>> settings(const Arguments &arguments) {
    std::vector<std::pair<uint64_t, uint32_t>> found;
    if (!arguments.flag("--chunk") && !arguments.flag("--buffers")) {
        found = {{0, 2}, {0, 4}, {0, 8}, {4 * MiB, 16}, {64 * MiB, 2}, {64 * MiB, 4}};
        if (arguments.flag("--cold")) found = {{0, 2}, {64 * MiB, 2}};
        return found;
    }
    for (uint64_t chunk : arguments.sizes("--chunk", "0")) {
        for (uint64_t buffers : arguments.sizes("--buffers", "2")) {
            found.emplace_back(chunk, (uint32_t)buffers);
        }
    }
    return found;
}

// Takes what the ways need; a whole file that does not fit is left out.
std::vector<Case> make_cases(Bench &bench, const Arguments &arguments) {
    std::vector<Case> cases;
    for (const std::string &way : arguments.words("--ways", "whole,blocks,stream,sync,only,copy")) {
        if (way == "whole") {
            size_t left = 0, all = 0;
            CUDA_OK(cudaMemGetInfo(&left, &all));
            if (left < bench.size + 4 * GiB) continue;
            GDS_OK(gds_buffer_alloc(bench.context, GDS_MEMORY_DEVICE, bench.size, &bench.whole));
            cases.push_back({way, bench.size, 1, {}, 0, 0, 0});
        } else if (way == "blocks") {
            for (gds_buffer_t *&block : bench.block) {
                GDS_OK(gds_buffer_alloc(bench.context, GDS_MEMORY_DEVICE, BLOCK, &block));
            }
            cases.push_back({way, BLOCK, 2, {}, 0, 0, 0});
        } else if (way == "copy") {
            bench.pinned_size = std::min(bench.size, GiB);
            CUDA_OK(cudaHostAlloc((void **)&bench.pinned, bench.pinned_size, cudaHostAllocDefault));
            memset(bench.pinned, 1, bench.pinned_size);
            CUDA_OK(cudaMalloc((void **)&bench.copied, bench.pinned_size));
            cases.push_back({way, bench.pinned_size, 1, {}, 0, 0, 0});
        } else {
            NEED(way == "stream" || way == "sync" || way == "only", "unknown way: " + way);
            for (const auto &[chunk, buffers] : settings(arguments)) {
                cases.push_back({way, chunk, buffers, {}, 0, 0, 0});
            }
        }
    }
    return cases;
}

void print(const Bench &bench, const std::vector<Case> &cases) {
    double bulk = 0;
    for (const Case &c : cases) {
        if (c.way == "whole" || c.way == "blocks") bulk = std::max(bulk, median(c.rates));
    }
    for (const Case &c : cases) {
        const double rate = median(c.rates);
        printf("{\"case\": \"%s\", \"chunk\": %llu, \"buffers\": %u, \"cache\": \"%s\", "
               "\"bytes\": %llu, \"gb_per_second\": %.3f, \"of_bulk\": %.4f, \"path\": %d, "
               "\"chunks\": %llu, \"waits\": %llu, \"runs\": %s}\n",
               c.way.c_str(), (unsigned long long)c.chunk, c.buffers, bench.cold ? "cold" : "warm",
               (unsigned long long)bench.size, rate, bulk > 0 ? rate / bulk : 0.0, c.path,
               (unsigned long long)c.chunks, (unsigned long long)c.waits,
               list_of(c.rates).c_str());
    }
}

} // namespace

int main(int argc, char **argv) {
    const Arguments arguments(argc, argv, USAGE, {"--cold"},
                              {"--runs", "--chunk", "--buffers", "--ways"});
    if (arguments.plain.size() != 1) {
        fprintf(stderr, "%s", USAGE);
        return 2;
    }
    const cudaDeviceProp about = say_machine("reader_bench");
    Bench bench;
    bench.path = arguments.plain[0];
    bench.size = size_of_file(bench.path);
    NEED(bench.size > 0, bench.path + " is empty");
    bench.cold = arguments.flag("--cold");
    bench.context = open_context();
    bench.blocks_of_grid = (unsigned)about.multiProcessorCount * 8;
    CUDA_OK(cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking));
    CUDA_OK(cudaMalloc((void **)&bench.sum, sizeof *bench.sum));
    fprintf(stderr, "summing %s on the host\n", bench.path.c_str());
    bench.expected = host_sums(bench.path, bench.size);
    for (uint64_t sum : bench.expected) bench.expected_sum += sum;
    std::vector<Case> cases = make_cases(bench, arguments);

    const uint64_t runs = arguments.size("--runs", 5);
    // A round before the first one counts for nothing: pools are set up, memory is touched.
    for (uint64_t round = 0; round <= runs; round++) {
        for (size_t turn = 0; turn < cases.size(); turn++) {
            Case &c = cases[(turn + round) % cases.size()];
            const double rate = (double)bench.size / run(bench, c) / 1e9;
            fprintf(stderr, "%s %s, %llu x %u: %.2f GB/s\n", round == 0 ? "unmeasured" : "measured",
                    c.way.c_str(), (unsigned long long)c.chunk, c.buffers, rate);
            if (round > 0) c.rates.push_back(rate);
        }
    }
    print(bench, cases);
    gds_buffer_free(bench.whole);
    for (gds_buffer_t *block : bench.block) gds_buffer_free(block);
    CUDA_OK(cudaFreeHost(bench.pinned));
    CUDA_OK(cudaFree(bench.copied));
    CUDA_OK(cudaFree(bench.sum));
    CUDA_OK(cudaStreamDestroy(bench.stream));
    gds_context_close(bench.context);
    return 0;
}
