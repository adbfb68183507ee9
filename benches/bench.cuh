// What the CUDA benchmarks share: arguments, checks, the page cache's state, and rates.
//
// They print one JSON object a case on stdout, as gds_bench.c does, every run in it; what they are
// about to do goes to stderr. Whatever goes wrong is an object with "error", and exit status 1.

#ifndef GDS_BENCHES_BENCH_CUH
#define GDS_BENCHES_BENCH_CUH

#include <cuda_runtime.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "gds_rs.h"

[[noreturn]] inline void give_up(const std::string &why) {
    std::string text = why;
    for (char &c : text) c = c == '"' || c == '\\' || c < ' ' ? ' ' : c;
    printf("{\"error\": \"%s\"}\n", text.c_str());
    fflush(nullptr);
    _exit(1);
}

#define NEED(condition, why)                \
    do {                                    \
        if (!(condition)) give_up(why);     \
    } while (0)

#define CUDA_OK(call)                                                                     \
    do {                                                                                  \
        cudaError_t cuda_ok = (call);                                                     \
        NEED(cuda_ok == cudaSuccess, std::string(#call ": ") + cudaGetErrorString(cuda_ok)); \
    } while (0)

#define GDS_OK(call)                                                                      \
    do {                                                                                  \
        gds_status_t gds_ok = (call);                                                     \
        NEED(gds_ok == GDS_STATUS_OK, std::string(#call ": ") + gds_last_error_message()); \
    } while (0)

constexpr uint64_t KiB = 1024;
constexpr uint64_t MiB = 1024 * KiB;
constexpr uint64_t GiB = 1024 * MiB;

inline double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// ---- arguments -----------------------------------------------------------------------------

inline uint64_t size_of_text(const std::string &text) {
    char *end = nullptr;
    uint64_t value = strtoull(text.c_str(), &end, 10);
    const std::string unit = end;
    if (unit == "K") return value * KiB;
    if (unit == "M") return value * MiB;
    if (unit == "G") return value * GiB;
    NEED(unit.empty() && end != text.c_str(), "not a size: " + text);
    return value;
}

// `--name value` pairs, `--flag`s, and the rest.
class Arguments {
  public:
    Arguments(int argc, char **argv, const char *usage, const std::vector<std::string> &flags,
              const std::vector<std::string> &names) {
        const auto has = [](const std::vector<std::string> &list, const std::string &word) {
            return std::find(list.begin(), list.end(), word) != list.end();
        };
        for (int i = 1; i < argc; i++) {
            const std::string word = argv[i];
            if (word.compare(0, 2, "--") != 0) {
                plain.push_back(word);
            } else if (has(flags, word)) {
                named_[word] = "1";
            } else if (has(names, word) && i + 1 < argc) {
                named_[word] = argv[++i];
            } else {
                fprintf(stderr, "%s", usage);
                exit(2);
            }
        }
    }
    bool flag(const char *name) const { return named_.count(name) != 0; }
    std::string text(const char *name, const std::string &fallback) const {
        const auto found = named_.find(name);
        return found == named_.end() ? fallback : found->second;
    }
    uint64_t size(const char *name, uint64_t fallback) const {
        return flag(name) ? size_of_text(text(name, "")) : fallback;
    }
    // Words between commas.
    std::vector<std::string> words(const char *name, const std::string &fallback) const {
        std::vector<std::string> found(1);
        for (char c : text(name, fallback)) {
            if (c == ',') {
                found.emplace_back();
            } else {
                found.back() += c;
            }
        }
        return found;
    }
    std::vector<uint64_t> sizes(const char *name, const std::string &fallback) const {
        std::vector<uint64_t> found;
        for (const std::string &word : words(name, fallback)) found.push_back(size_of_text(word));
        return found;
    }

    std::vector<std::string> plain;

  private:
    std::map<std::string, std::string> named_;
};

// ---- the page cache ------------------------------------------------------------------------

inline uint64_t size_of_file(const std::string &path) {
    struct stat about;
    NEED(stat(path.c_str(), &about) == 0, path + ": " + strerror(errno));
    return (uint64_t)about.st_size;
}

// Runs work(begin, end) on shares of `size` bytes, side by side; shares begin at multiples of
// 64 MiB.
inline void in_parts(uint64_t size, const std::function<void(uint64_t, uint64_t)> &work) {
    const uint64_t workers = std::max(1u, std::min(16u, std::thread::hardware_concurrency()));
    const uint64_t share = (size / workers / (64 * MiB) + 1) * (64 * MiB);
    std::vector<std::thread> threads;
    for (uint64_t at = 0; at < size; at += share) {
        threads.emplace_back(work, at, std::min(at + share, size));
    }
    for (std::thread &thread : threads) thread.join();
}

inline void read_exactly(int fd, void *to, uint64_t size, uint64_t offset) {
    for (uint64_t done = 0; done < size;) {
        const ssize_t got = pread(fd, (char *)to + done, size - done, (off_t)(offset + done));
        NEED(got > 0, got == 0 ? "the file ends too early" : std::string("pread: ") +
                                                                 strerror(errno));
        done += (uint64_t)got;
    }
}

inline void write_exactly(int fd, const void *from, uint64_t size, uint64_t offset) {
    for (uint64_t done = 0; done < size;) {
        const ssize_t put =
            pwrite(fd, (const char *)from + done, size - done, (off_t)(offset + done));
        NEED(put > 0, std::string("pwrite: ") + strerror(errno));
        done += (uint64_t)put;
    }
}

// Pages of a file that are in the page cache: by cachestat(2), or mincore(2) where that is
// missing.
inline uint64_t cached_pages(int fd, uint64_t size) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t span[2] = {0, size}, found[5] = {0, 0, 0, 0, 0};
    if (syscall(451, fd, span, found, 0) == 0) return found[0];
    void *mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    NEED(mapping != MAP_FAILED, std::string("mmap: ") + strerror(errno));
    std::vector<unsigned char> in((size + page - 1) / page);
    NEED(mincore(mapping, size, in.data()) == 0, std::string("mincore: ") + strerror(errno));
    munmap(mapping, size);
    uint64_t count = 0;
    for (unsigned char byte : in) count += byte & 1;
    return count;
}

// Drops the file from the page cache, or reads all of it into it, and makes sure of that.
inline void set_cached(const std::string &path, bool cold) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0, path + ": " + strerror(errno));
    const uint64_t size = size_of_file(path);
    const uint64_t pages = (size + 4095) / 4096;
    uint64_t cached = 0;
    for (int tries = 0; tries < 5; tries++) {
        cached = cached_pages(fd, size);
        if (cold ? cached <= pages / 1000 : cached >= pages) {
            close(fd);
            return;
        }
        if (cold) {
            fsync(fd);
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            if (tries > 0) usleep(200 * 1000);
        } else {
            in_parts(size, [&](uint64_t begin, uint64_t end) {
                std::vector<char> piece(4 * MiB);
                for (uint64_t at = begin; at < end; at += piece.size()) {
                    read_exactly(fd, piece.data(), std::min<uint64_t>(piece.size(), end - at), at);
                }
            });
        }
    }
    give_up(path + ": " + std::to_string(cached) + " of " + std::to_string(pages) +
            " pages are in the page cache; that cannot be changed here");
}

// ---- objects and rates ---------------------------------------------------------------------

// A context on GPU 0 with the environment's GDS_* variables.
inline gds_context_t *open_context() {
    gds_config_t config = GDS_CONFIG_INIT;
    GDS_OK(gds_config_environment(&config));
    config.gpu_device = 0;
    gds_context_t *context = nullptr;
    GDS_OK(gds_context_open(&config, &context));
    return context;
}

// Prints the first line: what runs where. Ends with 77 where there is no GPU.
inline cudaDeviceProp say_machine(const char *program) {
    // A kernel that is loaded at its first launch can wait for one that waits for the host.
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("{\"error\": \"no CUDA device\"}\n");
        exit(77);
    }
    setvbuf(stdout, nullptr, _IOLBF, 0);
    cudaDeviceProp about;
    CUDA_OK(cudaGetDeviceProperties(&about, 0));
    CUDA_OK(cudaSetDevice(0));
    printf("{\"program\": \"%s\", \"device\": \"%s\", \"version\": \"%s\"}\n", program, about.name,
           gds_version_string());
    return about;
}

inline double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// "[1.00, 2.00]"
inline std::string list_of(const std::vector<double> &values, const char *format = "%.3f") {
    std::string text = "[";
    for (size_t i = 0; i < values.size(); i++) {
        char number[64];
        snprintf(number, sizeof number, format, values[i]);
        text += (i ? ", " : "") + std::string(number);
    }
    return text + "]";
}

#endif
