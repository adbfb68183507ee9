// Arrays for kernels (gds_rs.cuh) on a GPU: what kernels read and write through the page table in
// device memory is what the file holds, with working sets far larger than the frames, and every
// fault is an answer. GDS_TEST_SMALL=1 shrinks the sizes for compute-sanitizer.

#include "check.cuh"
#include "gds_rs.cuh"

namespace {

std::string folder() {
    for (const char *name : {"GDS_TEST_DIR", "TMPDIR"}) {
        const char *value = getenv(name);
        if (value != nullptr && value[0] != '\0') return value;
    }
    return "/tmp";
}

constexpr uint64_t SEED = 77;

// Element i is hash_word(SEED, i).
std::string make_numbers(const char *name, uint64_t bytes) {
    const std::string path = folder() + "/" + name + "." + std::to_string(getpid());
    FILE *file = fopen(path.c_str(), "wb");
    CHECK(file != nullptr, "%s: %s", path.c_str(), strerror(errno));
    std::vector<uint64_t> block(1 << 16);
    for (uint64_t at = 0; at < bytes / 8; at += block.size()) {
        const uint64_t count = std::min<uint64_t>(block.size(), bytes / 8 - at);
        for (uint64_t i = 0; i < count; i++) block[i] = hash_word(SEED, at + i);
        CHECK(fwrite(block.data(), 8, count, file) == count, "%s", strerror(errno));
    }
    // On the device, and nowhere else: a direct read would write a dirty page out first.
    CHECK(fflush(file) == 0 && fsync(fileno(file)) == 0, "%s", strerror(errno));
    if (environment_says("GDS_TEST_DIRECT")) {
        CHECK(posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED) == 0, "%s", path.c_str());
    }
    CHECK(fclose(file) == 0, "%s", strerror(errno));
    return path;
}

struct Opened {
    std::string path;
    gds_file_t *file = nullptr;
    gds_array_t *array = nullptr;

    Opened(gds_context_t *context, const std::string &name, uint32_t page, uint64_t frames,
           bool writable, uint32_t wait_ms = 30000)
        : path(name) {
        const uint32_t flags = writable ? GDS_FILE_READ | GDS_FILE_WRITE : GDS_FILE_READ;
        GDS_OK(gds_file_open(context, path.c_str(), flags, &file));
        gds_array_config_t config = GDS_ARRAY_CONFIG_INIT;
        config.page_bytes = page;
        config.device_bytes = page * frames;
        config.writable = writable;
        config.wait_ms = wait_ms;
        GDS_OK(gds_array_open(file, &config, &array));
    }
    ~Opened() {
        gds_array_close(array);
        gds_file_close(file);
    }
    gds_array_view_t acquire() {
        gds_array_view_t view = GDS_ARRAY_VIEW_INIT;
        GDS_OK(gds_array_acquire(array, &view));
        return view;
    }
    gds_array_stats_t stats() {
        gds_array_stats_t stats = GDS_ARRAY_STATS_INIT;
        GDS_OK(gds_array_stats(array, &stats));
        return stats;
    }
};

typedef unsigned long long counter_t;

__device__ uint64_t scramble(uint64_t x) { return hash_word(0xABCDEF, x); }

__global__ void read_random(gds::cached_array<uint64_t> array, uint64_t reads, counter_t *wrong) {
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (uint64_t i = 0; i < reads; i++) {
        const uint64_t index = scramble(thread * reads + i) % array.size();
        if (array[index] != hash_word(SEED, index)) atomicAdd(wrong, 1ull);
    }
}

// Neighbouring lanes read neighbouring elements.
__global__ void read_in_order(gds::cached_array<uint64_t> array, counter_t *wrong) {
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t start = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (uint64_t i = start; i < array.size(); i += step) {
        if (array[i] != hash_word(SEED, i)) atomicAdd(wrong, 1ull);
    }
}

__global__ void check_pages(gds::cached_array<uint64_t> array, counter_t *wrong) {
    const uint64_t warps = (uint64_t)gridDim.x * blockDim.x / 32;
    const uint64_t warp = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const uint64_t each = (1ull << array.view().page_shift) / 8;
    for (uint64_t first = warp * each; first < array.size(); first += warps * each) {
        gds::warp_page<uint64_t> page(array, first);
        for (uint64_t i = threadIdx.x % 32; i < page.count(); i += 32) {
            if (page.data() == nullptr || page.data()[i] != hash_word(SEED, first + i)) {
                atomicAdd(wrong, 1ull);
            }
        }
    }
}

__global__ void add_all(gds::cached_array<uint64_t> array, uint64_t delta) {
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t start = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (uint64_t i = start; i < array.size(); i += step) {
        array.write(i, array[i] + delta);
    }
}

__global__ void read_one(gds::cached_array<uint64_t> array, uint64_t index, uint64_t *to) {
    *to = array[index];
}

// Each warp of the block keeps a page of its own.
__global__ void pin_and_meet(gds::cached_array<uint64_t> array, counter_t *had) {
    const uint64_t each = (1ull << array.view().page_shift) / 8;
    gds::warp_page<uint64_t> page(array, threadIdx.x / 32 * each);
    if (page.data() != nullptr && threadIdx.x % 32 == 0) atomicAdd(had, 1ull);
    __syncthreads();
}

struct Counter {
    counter_t *value;
    Counter() {
        CUDA_OK(cudaMallocManaged(&value, sizeof *value));
        *value = 0;
    }
    ~Counter() { cudaFree(value); }
};

void done() {
    CUDA_OK(cudaGetLastError());
    CUDA_OK(cudaDeviceSynchronize());
}

void working_set_of_a_hundred_caches(gds_context_t *context, const std::string &path,
                                     uint64_t bytes) {
    for (uint32_t page : {4096u, 65536u}) {
        const uint64_t frames = std::max<uint64_t>(bytes / page / 100, 2);
        Opened opened(context, path, page, frames, false);
        Counter wrong;
        const gds::cached_array<uint64_t> array(opened.acquire());
        read_random<<<small_sizes() ? 8 : 264, 256>>>(array, small_sizes() ? 2 : 8, wrong.value);
        done();
        GDS_OK(gds_array_release(opened.array, nullptr));
        CHECK(*wrong.value == 0, "%llu wrong elements, page %u", *wrong.value, page);
        CHECK(opened.stats().evictions > 0, "the working set does not fit");
    }
}

void everything_in_order(gds_context_t *context, const std::string &path, uint64_t bytes) {
    Opened opened(context, path, 4096, bytes / 4096 / 4, false);
    Counter wrong;
    for (int way = 0; way < 2; way++) {
        const gds::cached_array<uint64_t> array(opened.acquire());
        if (way == 0) read_in_order<<<64, 256>>>(array, wrong.value);
        if (way == 1) check_pages<<<64, 256>>>(array, wrong.value);
        done();
        GDS_OK(gds_array_release(opened.array, nullptr));
        CHECK(*wrong.value == 0, "%llu wrong elements, way %d", *wrong.value, way);
    }
}

void writes_reach_the_file(gds_context_t *context, uint64_t bytes) {
    const std::string path = make_numbers("gds_cache_write", bytes);
    {
        Opened opened(context, path, 4096, std::max<uint64_t>(bytes / 4096 / 10, 2), true);
        add_all<<<32, 256>>>(gds::cached_array<uint64_t>(opened.acquire()), 5);
        done();
        GDS_OK(gds_array_release(opened.array, nullptr));
        CHECK(opened.stats().write_backs > 0, "dirty pages make room");
        GDS_OK(gds_array_flush(opened.array, nullptr));
        CHECK(opened.stats().dirty == 0, "what is written is clean");
    }
    FILE *file = fopen(path.c_str(), "rb");
    CHECK(file != nullptr, "%s", strerror(errno));
    for (uint64_t i = 0, value; i < bytes / 8; i++) {
        CHECK(fread(&value, 8, 1, file) == 1, "element %llu", (unsigned long long)i);
        CHECK(value == hash_word(SEED, i) + 5, "element %llu", (unsigned long long)i);
    }
    fclose(file);
    unlink(path.c_str());
}

void faults_are_answers(gds_context_t *context, const std::string &path, uint64_t bytes) {
    uint64_t *value;
    CUDA_OK(cudaMallocManaged(&value, 8));
    {
        Opened opened(context, path, 4096, 4, false, 50);
        *value = 1;
        read_one<<<1, 1>>>(gds::cached_array<uint64_t>(opened.acquire()), bytes / 8, value);
        done();
        GDS_IS(GDS_STATUS_OUT_OF_RANGE, gds_array_release(opened.array, nullptr));
        CHECK(*value == 0, "past the end is zero");
        Counter had;
        pin_and_meet<<<1, 6 * 32>>>(gds::cached_array<uint64_t>(opened.acquire()), had.value);
        done();
        GDS_IS(GDS_STATUS_ALL_PINNED, gds_array_release(opened.array, nullptr));
        CHECK(*had.value == 4, "%llu pages were had", *had.value);
    }
    const std::string shorter = make_numbers("gds_cache_short", 64 * KiB);
    {
        Opened opened(context, shorter, 4096, 4, false);
        CHECK(truncate(shorter.c_str(), 10000) == 0, "%s", strerror(errno));
        read_one<<<1, 1>>>(gds::cached_array<uint64_t>(opened.acquire()), 8000, value);
        done();
        GDS_IS(GDS_STATUS_FILE_CHANGED, gds_array_release(opened.array, nullptr));
    }
    unlink(shorter.c_str());
    CUDA_OK(cudaFree(value));
}

// ---- figures -------------------------------------------------------------------------------

__global__ void plain_random(const uint64_t *data, uint64_t count, uint64_t reads, counter_t *sum) {
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t mine = 0;
    for (uint64_t i = 0; i < reads; i++) mine += data[scramble(thread * reads + i) % count];
    if (mine == 1) atomicAdd(sum, 1ull);
}

__global__ void array_random(gds::cached_array<uint64_t> array, uint64_t reads, counter_t *sum) {
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t mine = 0;
    for (uint64_t i = 0; i < reads; i++) mine += array[scramble(thread * reads + i) % array.size()];
    if (mine == 1) atomicAdd(sum, 1ull);
}

__global__ void plain_pages(const uint4 *data, uint64_t bytes, counter_t *sum) {
    const uint64_t warps = (uint64_t)gridDim.x * blockDim.x / 32;
    const uint64_t warp = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    uint32_t mine = 0;
    for (uint64_t page = warp; page < bytes / 4096; page += warps) {
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint4 v = data[page * 256 + i * 32 + threadIdx.x % 32];
            mine += v.x ^ v.y ^ v.z ^ v.w;
        }
    }
    if (mine == 1) atomicAdd(sum, 1ull);
}

__global__ void array_pages(gds::cached_array<uint4> array, counter_t *sum) {
    const uint64_t warps = (uint64_t)gridDim.x * blockDim.x / 32;
    const uint64_t warp = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    uint32_t mine = 0;
    for (uint64_t page = warp; page < array.size() / 256; page += warps) {
        gds::warp_page<uint4> held(array, page * 256);
        if (held.data() == nullptr) continue;
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint4 v = held.data()[i * 32 + threadIdx.x % 32];
            mine += v.x ^ v.y ^ v.z ^ v.w;
        }
    }
    if (mine == 1) atomicAdd(sum, 1ull);
}

template <class F> double seconds(F f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    done();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void figures(gds_context_t *context, const std::string &path, uint64_t bytes) {
    Counter sum;
    uint64_t *plain;
    CUDA_OK(cudaMalloc(&plain, bytes));
    constexpr int BLOCKS = 132 * 8, THREADS = 256;
    constexpr uint64_t READS = 200;
    Opened opened(context, path, 4096, bytes / 4096, false);
    for (int round = 0; round < 3; round++) {
        gds_array_view_t view = opened.acquire();
        const double all = seconds([&] {
            array_pages<<<BLOCKS, THREADS>>>(gds::cached_array<uint4>(view), sum.value);
        });
        const double random = seconds([&] {
            array_random<<<BLOCKS, THREADS>>>(gds::cached_array<uint64_t>(view), READS, sum.value);
        });
        const double random_plain = seconds([&] {
            plain_random<<<BLOCKS, THREADS>>>(plain, bytes / 8, READS, sum.value);
        });
        const double hit = seconds([&] {
            for (int i = 0; i < 10; i++) {
                array_pages<<<BLOCKS, THREADS>>>(gds::cached_array<uint4>(view), sum.value);
            }
        });
        const double hit_plain = seconds([&] {
            for (int i = 0; i < 10; i++) {
                plain_pages<<<BLOCKS, THREADS>>>((uint4 *)plain, bytes, sum.value);
            }
        });
        GDS_OK(gds_array_release(opened.array, nullptr));
        const double reads = (double)BLOCKS * THREADS * READS;
        printf("  %s: %.2f M pages/s of 4 KiB (%.2f GB/s)\n", round == 0 ? "first pass, misses" :
               "pass, hits", bytes / 4096 / all / 1e6, bytes / all / 1e9);
        printf("  random 8-byte reads: %.0f M/s, plain loads %.0f M/s\n", reads / random / 1e6,
               reads / random_plain / 1e6);
        printf("  4 KiB-local: %.0f GB/s, plain loads %.0f GB/s\n", 10.0 * bytes / hit / 1e9,
               10.0 * bytes / hit_plain / 1e9);
    }
    CUDA_OK(cudaFree(plain));
}

} // namespace

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        CHECK(!environment_says("GDS_TEST_REQUIRE_GPU"), "no CUDA device");
        printf("skipped: no CUDA device\n");
        return 77;
    }
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = 0;
    // Figures of the storage device instead of the page cache.
    if (environment_says("GDS_TEST_DIRECT")) config.path = GDS_PATH_POLICY_DIRECT;
    gds_context_t *context;
    GDS_OK(gds_context_open(&config, &context));
    const uint64_t bytes = (small_sizes() ? 2 : 64) * MiB;
    const std::string path = make_numbers("gds_cache_read", bytes);
    working_set_of_a_hundred_caches(context, path, bytes);
    printf("working set of a hundred caches: ok\n");
    everything_in_order(context, path, bytes);
    printf("everything in order: ok\n");
    writes_reach_the_file(context, small_sizes() ? MiB : 16 * MiB);
    printf("writes reach the file: ok\n");
    faults_are_answers(context, path, bytes);
    printf("faults are answers: ok\n");
    unlink(path.c_str());
    if (!small_sizes()) {
        const std::string large = make_numbers("gds_cache_large", 1024 * MiB);
        figures(context, large, 1024 * MiB);
        unlink(large.c_str());
    }
    gds_context_close(context);
    return 0;
}
