// What the CUDA tests share: checks, a file of known bytes, and kernels that write and count them.
//
// Byte p of a test file is a hash of (seed, p), so a byte that landed in the wrong place is seen,
// and a kernel needs no copy of the file to know what is right. A failed check prints where and
// what, and ends the program with 1. Without a GPU the program ends with 77 and the reason;
// GDS_TEST_REQUIRE_GPU=1 makes that a failure. GDS_TEST_SMALL=1 shrinks the sizes for
// compute-sanitizer. GDS_TEST_DIR is where test files go (default: TMPDIR, then /tmp).

#ifndef GDS_CUDA_TESTS_CHECK_CUH
#define GDS_CUDA_TESTS_CHECK_CUH

#include <cuda_runtime.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "gds_rs.h"

#define CHECK(condition, ...)                                                     \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                         \
            fprintf(stderr, "\n");                                                \
            fflush(nullptr);                                                      \
            _exit(1);                                                             \
        }                                                                         \
    } while (0)

#define CUDA_OK(call)                                                              \
    do {                                                                           \
        cudaError_t cuda_ok = (call);                                              \
        CHECK(cuda_ok == cudaSuccess, "%s: %s", #call, cudaGetErrorString(cuda_ok)); \
    } while (0)

#define GDS_IS(expected, call)                                                     \
    do {                                                                           \
        gds_status_t gds_is = (call);                                              \
        CHECK(gds_is == (expected), "%s: answered %d (%s): %s", #call, (int)gds_is, \
              gds_status_string(gds_is), gds_last_error_message());                \
    } while (0)

#define GDS_OK(call) GDS_IS(GDS_STATUS_OK, call)

constexpr uint64_t KiB = 1024;
constexpr uint64_t MiB = 1024 * KiB;
constexpr uint8_t POISON = 0xA5;

inline bool environment_says(const char *name) {
    const char *value = getenv(name);
    return value != nullptr && value[0] != '\0' && value[0] != '0';
}

inline bool small_sizes() { return environment_says("GDS_TEST_SMALL"); }

// ---- known bytes ---------------------------------------------------------------------------

// The finaliser of splitmix64: every input bit reaches every output bit.
__host__ __device__ inline uint64_t hash_word(uint64_t seed, uint64_t word) {
    uint64_t x = word * 0x9E3779B97F4A7C15ull + seed;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

__host__ __device__ inline uint8_t known_byte(uint64_t seed, uint64_t position) {
    return (uint8_t)(hash_word(seed, position / 8) >> (8 * (position % 8)));
}

// CRC32C (Castagnoli) by table, a byte a step.
inline uint32_t crc32c(const uint8_t *data, uint64_t size) {
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) {
            table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0x82F63B78u : 0);
        }
    }
    for (uint64_t i = 0; i < size; i++) crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xFF];
    return ~crc;
}

__global__ void fill_known(uint8_t *data, uint64_t size, uint64_t seed, uint64_t position) {
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        data[i] = known_byte(seed, position + i);
    }
}

// Adds the number of bytes that differ from the known ones to `wrong[0]`, and keeps the smallest
// index that differs in `wrong[1]`.
__global__ void count_wrong(const uint8_t *data, uint64_t size, uint64_t seed,
                                   uint64_t position, unsigned long long *wrong) {
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        if (data[i] != known_byte(seed, position + i)) {
            atomicAdd(&wrong[0], 1ull);
            atomicMin(&wrong[1], (unsigned long long)i);
        }
    }
}

// The same for bytes that must all be `value`.
__global__ void count_other(const uint8_t *data, uint64_t size, uint8_t value,
                                   unsigned long long *wrong) {
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        if (data[i] != value) {
            atomicAdd(&wrong[0], 1ull);
            atomicMin(&wrong[1], (unsigned long long)i);
        }
    }
}

// Fills after `gate` became 1, or gives up after `limit_ns` and sets `*gave_up`. One block: what
// it fills is filled long after a transfer that failed to wait would have been done.
__global__ void fill_value_gated(uint8_t *data, uint64_t size, uint8_t value,
                                        const volatile int *gate, uint64_t limit_ns,
                                        int *gave_up) {
    if (gate != nullptr) {
        uint64_t begin, now;
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
        while (*gate == 0) {
            asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
            if (now - begin > limit_ns) {
                *gave_up = 1;
                break;
            }
        }
        __syncthreads();
    }
    for (uint64_t i = threadIdx.x; i < size; i += blockDim.x) {
        data[i] = value;
    }
}

// ---- counting on a stream ------------------------------------------------------------------

// Two counters in device memory, filled by the kernels above and read once the stream is done.
class Counter {
  public:
    explicit Counter(cudaStream_t stream = nullptr) : stream_(stream) {
        CUDA_OK(cudaMalloc(&device_, sizeof(unsigned long long) * 2));
        const unsigned long long start[2] = {0, ~0ull};
        CUDA_OK(cudaMemcpy(device_, start, sizeof start, cudaMemcpyHostToDevice));
    }
    ~Counter() { cudaFree(device_); }
    Counter(const Counter &) = delete;
    Counter &operator=(const Counter &) = delete;

    void known(const void *data, uint64_t size, uint64_t seed, uint64_t position) {
        if (size == 0) return;
        count_wrong<<<256, 256, 0, stream_>>>((const uint8_t *)data, size, seed, position, device_);
        CUDA_OK(cudaGetLastError());
    }
    void all(const void *data, uint64_t size, uint8_t value) {
        if (size == 0) return;
        count_other<<<256, 256, 0, stream_>>>((const uint8_t *)data, size, value, device_);
        CUDA_OK(cudaGetLastError());
    }
    // Waits for the stream; `what` says what was looked at when a byte is wrong.
    void expect_none(const char *what) {
        unsigned long long wrong[2];
        CUDA_OK(cudaMemcpyAsync(wrong, device_, sizeof wrong, cudaMemcpyDeviceToHost, stream_));
        CUDA_OK(cudaStreamSynchronize(stream_));
        CHECK(wrong[0] == 0, "%s: %llu wrong bytes, the first at index %llu", what, wrong[0],
              wrong[1]);
    }

  private:
    cudaStream_t stream_;
    unsigned long long *device_ = nullptr;
};

// A word that a kernel waits for and the host sets. Both sides see it without a copy.
class Gate {
  public:
    Gate() {
        CUDA_OK(cudaHostAlloc((void **)&words_, 2 * sizeof(int), cudaHostAllocMapped));
        words_[0] = words_[1] = 0;
    }
    ~Gate() { cudaFreeHost(words_); }
    Gate(const Gate &) = delete;
    Gate &operator=(const Gate &) = delete;

    // Fills device memory with `value` on `stream` once open() was called.
    void fill_when_open(void *data, uint64_t size, uint8_t value, cudaStream_t stream) {
        fill_value_gated<<<1, 256, 0, stream>>>((uint8_t *)data, size, value, words_,
                                                60ull * 1000 * 1000 * 1000, words_ + 1);
        CUDA_OK(cudaGetLastError());
    }
    void open() { *(volatile int *)words_ = 1; }
    // After the stream is done: whether the kernel saw the gate open.
    void expect_passed() {
        CHECK(words_[1] == 0, "the kernel waited 60 s for the gate: a call blocked on its stream");
    }

  private:
    int *words_ = nullptr;
};

// ---- files ---------------------------------------------------------------------------------

inline std::string test_directory() {
    for (const char *name : {"GDS_TEST_DIR", "TMPDIR"}) {
        const char *value = getenv(name);
        if (value != nullptr && value[0] != '\0') return value;
    }
    return "/tmp";
}

// A file of known bytes, removed when the object goes.
class TestFile {
  public:
    TestFile(uint64_t size, uint64_t seed) : size_(size), seed_(seed) {
        path_ = test_directory() + "/gds_cuda_test_XXXXXX";
        fd_ = mkostemp(&path_[0], O_CLOEXEC);
        CHECK(fd_ >= 0, "cannot make %s: %s", path_.c_str(), strerror(errno));
        std::vector<uint8_t> piece(size < 4 * MiB ? size : 4 * MiB);
        for (uint64_t at = 0; at < size; at += piece.size()) {
            uint64_t count = size - at < piece.size() ? size - at : piece.size();
            for (uint64_t i = 0; i < count; i++) piece[i] = known_byte(seed, at + i);
            CHECK(pwrite(fd_, piece.data(), count, (off_t)at) == (ssize_t)count, "%s: %s",
                  path_.c_str(), strerror(errno));
        }
        CHECK(fsync(fd_) == 0, "%s: %s", path_.c_str(), strerror(errno));
    }
    ~TestFile() {
        close(fd_);
        unlink(path_.c_str());
    }
    TestFile(const TestFile &) = delete;
    TestFile &operator=(const TestFile &) = delete;

    const char *path() const { return path_.c_str(); }
    uint64_t size() const { return size_; }
    uint64_t seed() const { return seed_; }
    int fd() const { return fd_; }

    // Asks the kernel to drop the file's pages, so that the next read comes from the disk.
    void make_cold() const {
        CHECK(fsync(fd_) == 0, "%s", strerror(errno));
        CHECK(posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED) == 0, "%s", strerror(errno));
    }
    void make_warm() const { read_all(0, size_); }

    // Bytes by plain pread, the reference that the library must agree with.
    std::vector<uint8_t> read_all(uint64_t offset, uint64_t size) const {
        std::vector<uint8_t> bytes(size);
        for (uint64_t done = 0; done < size;) {
            ssize_t n = pread(fd_, bytes.data() + done, size - done, (off_t)(offset + done));
            CHECK(n > 0, "%s at %llu: %s", path_.c_str(), (unsigned long long)(offset + done),
                  n == 0 ? "end of file" : strerror(errno));
            done += (uint64_t)n;
        }
        return bytes;
    }
    // The file holds the known bytes of `seed` in [offset, offset + size), by plain read.
    void expect_known(uint64_t offset, uint64_t size, uint64_t seed) const {
        std::vector<uint8_t> bytes = read_all(offset, size);
        for (uint64_t i = 0; i < size; i++) {
            CHECK(bytes[i] == known_byte(seed, offset + i), "%s: byte %llu is %02x, not %02x",
                  path_.c_str(), (unsigned long long)(offset + i), bytes[i],
                  known_byte(seed, offset + i));
        }
    }

  private:
    std::string path_;
    uint64_t size_;
    uint64_t seed_;
    int fd_ = -1;
};

// ---- objects -------------------------------------------------------------------------------

inline gds_context_t *open_context() {
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = 0;
    gds_context_t *context = nullptr;
    GDS_OK(gds_context_open(&config, &context));
    return context;
}

inline gds_file_t *open_file(const gds_context_t *context, const TestFile &file, uint32_t flags) {
    gds_file_t *opened = nullptr;
    GDS_OK(gds_file_open(context, file.path(), flags, &opened));
    return opened;
}

inline uint8_t *address_of(const gds_buffer_t *buffer) {
    void *address = nullptr;
    GDS_OK(gds_buffer_address(buffer, &address));
    return (uint8_t *)address;
}

// A random number in [low, high].
template <typename Random>
uint64_t between(Random &random, uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random);
}

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// ---- running -------------------------------------------------------------------------------

struct Case {
    const char *name;
    void (*run)(gds_context_t *context);
};

// Runs every case in one context, or ends with 77 where there is no GPU.
inline int run_cases(const Case *cases, size_t count) {
    // A kernel that is loaded at its first launch can wait for one that waits for the host.
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    int devices = 0;
    cudaError_t found = cudaGetDeviceCount(&devices);
    if (found != cudaSuccess || devices == 0) {
        const char *reason = found != cudaSuccess ? cudaGetErrorString(found) : "no CUDA device";
        bool required = environment_says("GDS_TEST_REQUIRE_GPU");
        printf("%s: %s\n", required ? "FAILED" : "skipped", reason);
        return required ? 1 : 77;
    }
    setvbuf(stdout, nullptr, _IOLBF, 0);
    // A call that waits for ever must end as a failure that names its case.
    alarm(small_sizes() ? 540 : 240);
    CUDA_OK(cudaSetDevice(0));
    gds_context_t *context = open_context();
    for (size_t i = 0; i < count; i++) {
        printf("%-44s", cases[i].name);
        fflush(stdout);
        auto begin = std::chrono::steady_clock::now();
        cases[i].run(context);
        CUDA_OK(cudaDeviceSynchronize());
        printf(" ok %6.2f s\n", seconds_since(begin));
    }
    gds_context_close(context);
    printf("%zu passed, 0 failed\n", count);
    return 0;
}

#endif
