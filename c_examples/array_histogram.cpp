// A histogram of a file that is 64 times larger than the memory for it: a kernel takes elements of
// the file as of an array, and pages come and go as it needs them.
//
//   array_histogram
//
// One source for both kinds of kernel:
//
//   nvcc -x cu -std=c++17 array_histogram.cpp -lgds_rs      kernels on CUDA device 0
//   c++ -std=c++17 -pthread array_histogram.cpp -lgds_rs    threads of this program, each for a
//                                                           warp, over memory of the host device

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include "gds_rs.cuh"
#include "gds_rs.hpp"

namespace {

using numbers_t = gds::cached_array<uint32_t>;

constexpr uint64_t file_bytes = 8 << 20;
constexpr uint64_t memory_bytes = file_bytes / 64;
constexpr unsigned bin_count = 256;

// The first byte of a number is its bin.
GDS_BOTH unsigned bin_of(uint32_t number) { return number >> 24; }

} // namespace

// ---- kernels ------------------------------------------------------------------------------

#ifdef __CUDACC__

#include <cuda_runtime.h>

#define DEVICE __device__
using counter = unsigned long long;
DEVICE void add_one(counter *bin) { atomicAdd(bin, 1ull); }

#else

#include <atomic>
#include <thread>

#define DEVICE inline
using counter = std::atomic<unsigned long long>;
DEVICE void add_one(counter *bin) { bin->fetch_add(1, std::memory_order_relaxed); }

#endif

namespace {

// Element by element: thread `self` of `all` takes every `all`-th.
DEVICE void count_elements(const numbers_t &numbers, uint64_t self, uint64_t all, counter *bins)
{
    for (uint64_t i = self; i < numbers.size(); i += all) {
        add_one(&bins[bin_of(numbers[i])]);
    }
}

// Page by page: warp `self` of `all`, of which this is lane `lane` of `lanes`. A page is pinned
// while its elements are read, so that each costs no more than a load.
DEVICE void count_pages(const numbers_t &numbers, uint64_t self, uint64_t all, unsigned lane,
                        unsigned lanes, counter *bins)
{
    const uint64_t each = (1ull << numbers.view().page_shift) / sizeof(uint32_t);
    for (uint64_t first = self * each; first < numbers.size(); first += all * each) {
        gds::warp_page<uint32_t> page(numbers, first);
        // NULL: it cannot be had, and the release of the array will tell.
        for (uint64_t i = lane; page.data() && i < page.count(); i += lanes) {
            add_one(&bins[bin_of(page.data()[i])]);
        }
    }
}

#ifdef __CUDACC__

__global__ void element_kernel(numbers_t numbers, counter *bins)
{
    const uint64_t self = blockIdx.x * blockDim.x + threadIdx.x;
    count_elements(numbers, self, static_cast<uint64_t>(gridDim.x) * blockDim.x, bins);
}

__global__ void page_kernel(numbers_t numbers, counter *bins)
{
    const uint64_t self = (blockIdx.x * blockDim.x + threadIdx.x) / warpSize;
    const uint64_t all = static_cast<uint64_t>(gridDim.x) * blockDim.x / warpSize;
    count_pages(numbers, self, all, threadIdx.x % warpSize, warpSize, bins);
}

void cuda(cudaError_t status)
{
    if (status != cudaSuccess) {
        throw std::runtime_error(cudaGetErrorString(status));
    }
}

std::vector<uint64_t> histogram(const gds::array &array, bool by_pages)
{
    counter *bins = nullptr;
    cuda(cudaMalloc(&bins, bin_count * sizeof(counter)));
    cuda(cudaMemset(bins, 0, bin_count * sizeof(counter)));
    gds::array_use use = array.acquire();
    // 32 frames: fewer warps than that, so that each finds one for the page that it holds.
    if (by_pages) {
        page_kernel<<<4, 128>>>(numbers_t(use.view()), bins);
    } else {
        element_kernel<<<64, 256>>>(numbers_t(use.view()), bins);
    }
    cuda(cudaGetLastError());
    use.release();
    counter counts[bin_count];
    cuda(cudaMemcpy(counts, bins, sizeof counts, cudaMemcpyDeviceToHost));
    cuda(cudaFree(bins));
    return std::vector<uint64_t>(counts, counts + bin_count);
}

constexpr int device = 0;

bool has_device()
{
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#else

std::vector<uint64_t> histogram(const gds::array &array, bool by_pages)
{
    const unsigned thread_count = 8;
    std::vector<counter> bins(bin_count);
    gds::array_use use = array.acquire();
    const numbers_t numbers(use.view());
    std::vector<std::thread> threads;
    for (unsigned self = 0; self < thread_count; self++) {
        threads.emplace_back([&bins, &numbers, self, by_pages] {
            if (by_pages) {
                count_pages(numbers, self, thread_count, 0, 1, bins.data());
            } else {
                count_elements(numbers, self, thread_count, bins.data());
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    use.release();
    return std::vector<uint64_t>(bins.begin(), bins.end());
}

constexpr int device = GDS_DEVICE_HOST;

bool has_device() { return true; }

#endif

// ---- the program --------------------------------------------------------------------------

// A file of numbers, some bins of which are fuller than others; gone at the end.
class number_file {
public:
    number_file() : path_(folder() + "/gds_histogram.XXXXXX")
    {
        int fd = mkstemp(&path_[0]);
        std::FILE *file = fd < 0 ? nullptr : fdopen(fd, "wb");
        std::vector<uint32_t> numbers(file_bytes / sizeof(uint32_t));
        uint64_t state = 1;
        for (uint32_t &number : numbers) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const uint64_t low = state >> 40, high = state >> 48 & 0xFF;
            number = static_cast<uint32_t>(high * high / 256 << 24 | low);
        }
        const bool good = file && std::fwrite(numbers.data(), 4, numbers.size(), file) ==
                                      numbers.size();
        if (!file || std::fclose(file) != 0 || !good) {
            throw std::runtime_error("cannot write " + path_);
        }
    }
    ~number_file() { unlink(path_.c_str()); }
    number_file(const number_file &) = delete;
    number_file &operator=(const number_file &) = delete;

    const std::string &path() const { return path_; }

    // The same by the C library, to compare with.
    std::vector<uint64_t> histogram() const
    {
        std::vector<uint64_t> bins(bin_count);
        std::FILE *file = std::fopen(path_.c_str(), "rb");
        uint32_t number = 0;
        while (file && std::fread(&number, sizeof number, 1, file) == 1) {
            bins[bin_of(number)]++;
        }
        if (!file || std::fclose(file) != 0) {
            throw std::runtime_error("cannot read " + path_);
        }
        return bins;
    }

private:
    static std::string folder()
    {
        const char *folder = std::getenv("TMPDIR");
        return folder && *folder ? folder : "/tmp";
    }

    std::string path_;
};

bool counts_right(const gds::file &file, const std::vector<uint64_t> &wanted, bool by_pages)
{
    gds_array_config_t config = GDS_ARRAY_CONFIG_INIT;
    config.device_bytes = memory_bytes;
    gds::array array(file, &config);
    const bool good = histogram(array, by_pages) == wanted;
    const gds_array_stats_t stats = array.stats();
    std::cout << (by_pages ? "pages:    " : "elements: ") << stats.misses << " pages of "
              << file.size() / config.page_bytes << " came through " << stats.frames
              << " frames: " << (good ? "verified" : "WRONG COUNTS") << '\n';
    return good && stats.misses >= file.size() / config.page_bytes;
}

} // namespace

int main()
{
    if (!has_device()) {
        std::cout << "skipped: there is no CUDA device\n";
        return 77;
    }
    try {
        gds_config_t config = gds::config();
        config.gpu_device = device;
        gds::context context(config);
        number_file numbers;
        gds::file file(context, numbers.path());
        const std::vector<uint64_t> wanted = numbers.histogram();
        const bool good = counts_right(file, wanted, false);
        return counts_right(file, wanted, true) && good ? 0 : 1;
    } catch (const std::exception &problem) {
        std::cerr << problem.what() << '\n';
        return 1;
    }
}
