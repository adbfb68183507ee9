/*
 * Times cuFile and plain PCIe copies, by the commands of ../gds_bench.c:
 *
 *   config                                           nothing to choose
 *   read    path= size= [threads=1] [block=size]     cuFileRead, each thread its part of the file
 *   write   path= size= [threads=1] [block=size]     cuFileWrite, then fdatasync
 *   latency path= size= count= [block=4096]          random aligned cuFileRead, one at a time
 *   batch   path= size= count= [threads=16]          random 4 KiB cuFileRead from many threads
 *   pcie    size=                                    pinned copies, host to device and back
 *
 * argv[1] is libcufile.so.0. The prototypes are declared here, so no header of it is needed.
 * Build: nvcc -O2 -o cufile_bench cufile_bench.c -ldl -lpthread
 */

#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64

typedef struct {
    int err, cu_err;
} cufile_error;

typedef struct {
    int type;
    union {
        int fd;
        void *handle;
    } file;
    const void *operations;
} cufile_description;

static cufile_error (*handle_register)(void **, cufile_description *);
static void (*handle_deregister)(void *);
static ssize_t (*cufile_read)(void *, void *, size_t, off_t, off_t);
static ssize_t (*cufile_write)(void *, const void *, size_t, off_t, off_t);
static cufile_error (*buffer_register)(const void *, size_t, int);
static cufile_error (*buffer_deregister)(const void *);
static cufile_error (*get_version)(int *);

static char line[4096];
static char *device;
static uint64_t device_size;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *word(const char *key) {
    static char value[1024];
    size_t length = strlen(key);
    for (const char *at = strchr(line, ' '); at != NULL; at = strchr(at + 1, ' ')) {
        if (strncmp(at + 1, key, length) == 0 && at[1 + length] == '=') {
            snprintf(value, sizeof value, "%.*s", (int)strcspn(at + length + 2, " "),
                     at + length + 2);
            return value;
        }
    }
    return NULL;
}

static uint64_t number(const char *key, uint64_t fallback) {
    const char *value = word(key);
    return value != NULL ? strtoull(value, NULL, 0) : fallback;
}

static int fail(const char *what, long code) {
    printf("{\"error\": \"%s: %ld\"}\n", what, code);
    return -1;
}

static int need_device(uint64_t size) {
    if (device_size >= size) return 0;
    if (device != NULL) {
        buffer_deregister(device);
        cudaFree(device);
        device = NULL;
        device_size = 0;
    }
    cudaError_t error = cudaMalloc((void **)&device, size);
    if (error != cudaSuccess) return fail("cudaMalloc", error);
    device_size = size;
    /* Registration can be refused without nvidia-fs; transfers work all the same. */
    buffer_register(device, size, 0);
    return 0;
}

struct opened {
    int fd;
    void *handle;
};

static int open_handle(struct opened *opened, int flags) {
    opened->fd = open(word("path") ? word("path") : "", flags | O_DIRECT | O_CLOEXEC);
    if (opened->fd < 0) return fail("open", errno);
    cufile_description description;
    memset(&description, 0, sizeof description);
    description.type = 1;
    description.file.fd = opened->fd;
    cufile_error error = handle_register(&opened->handle, &description);
    if (error.err != 0) {
        close(opened->fd);
        return fail("cuFileHandleRegister", error.err);
    }
    return 0;
}

static void close_handle(struct opened *opened) {
    handle_deregister(opened->handle);
    close(opened->fd);
}

struct part {
    void *handle;
    uint64_t begin, end, block;
    int writing;
    long failed;
};

static void *move_part(void *argument) {
    struct part *part = argument;
    cudaSetDevice(0);
    for (uint64_t at = part->begin; at < part->end;) {
        uint64_t size = part->end - at < part->block ? part->end - at : part->block;
        ssize_t got = part->writing
                          ? cufile_write(part->handle, device, size, (off_t)at, (off_t)at)
                          : cufile_read(part->handle, device, size, (off_t)at, (off_t)at);
        if (got <= 0) {
            part->failed = got == 0 ? -1 : got;
            break;
        }
        at += (uint64_t)got;
    }
    return NULL;
}

static int sequential(int writing) {
    uint64_t size = number("size", 0), threads = number("threads", 1);
    if (threads < 1 || threads > MAX_THREADS || size == 0) return fail("threads, size", 0);
    if (need_device(size) != 0) return -1;
    uint64_t share = (size / threads + 4095) / 4096 * 4096;
    uint64_t block = number("block", share);
    struct opened opened;
    if (open_handle(&opened, writing ? O_RDWR : O_RDONLY) != 0) return -1;
    struct part parts[MAX_THREADS];
    pthread_t running[MAX_THREADS];
    double begin = now();
    for (uint64_t t = 0; t < threads; t++) {
        uint64_t first = t * share < size ? t * share : size;
        uint64_t last = t + 1 == threads || first + share > size ? size : first + share;
        parts[t] = (struct part){opened.handle, first, last, block, writing, 0};
        if (pthread_create(&running[t], NULL, move_part, &parts[t]) != 0) abort();
    }
    long failed = 0;
    for (uint64_t t = 0; t < threads; t++) {
        pthread_join(running[t], NULL);
        if (parts[t].failed != 0) failed = parts[t].failed;
    }
    if (writing && fdatasync(opened.fd) != 0) failed = -errno;
    double seconds = now() - begin;
    close_handle(&opened);
    if (failed != 0) return fail(writing ? "cuFileWrite" : "cuFileRead", failed);
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", seconds, size);
    return 0;
}

static uint64_t random_below(uint64_t *state, uint64_t limit) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % limit;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int latency(void) {
    uint64_t size = number("size", 0), count = number("count", 10000);
    uint64_t block = number("block", 4096), state = 88172645463325252u;
    if (need_device(64 << 20) != 0) return -1;
    struct opened opened;
    if (open_handle(&opened, O_RDONLY) != 0) return -1;
    double *times = malloc(count * sizeof *times), sum = 0;
    if (times == NULL) return fail("malloc", errno);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = random_below(&state, size / block) * block;
        uint64_t to = random_below(&state, (64 << 20) / block) * block;
        double begin = now();
        ssize_t got = cufile_read(opened.handle, device, block, (off_t)at, (off_t)to);
        times[i] = (now() - begin) * 1e6;
        if (got != (ssize_t)block) return fail("cuFileRead", got);
        sum += times[i];
    }
    qsort(times, count, sizeof *times, by_value);
    printf("{\"p50_us\": %.3f, \"p99_us\": %.3f, \"mean_us\": %.3f, \"count\": %" PRIu64 "}\n",
           times[count / 2], times[count * 99 / 100], sum / (double)count, count);
    free(times);
    close_handle(&opened);
    return 0;
}

struct pages {
    void *handle;
    uint64_t first, count, file_pages, seed;
    long failed;
};

static void *read_pages(void *argument) {
    struct pages *pages = argument;
    cudaSetDevice(0);
    for (uint64_t i = 0; i < pages->count && pages->failed == 0; i++) {
        uint64_t at = random_below(&pages->seed, pages->file_pages) * 4096;
        ssize_t got = cufile_read(pages->handle, device, 4096, (off_t)at,
                                  (off_t)((pages->first + i) * 4096));
        if (got != 4096) pages->failed = got == 0 ? -1 : got;
    }
    return NULL;
}

static int batch(void) {
    uint64_t size = number("size", 0), count = number("count", 100000);
    uint64_t threads = number("threads", 16);
    if (threads < 1 || threads > MAX_THREADS) return fail("threads", 0);
    if (need_device(count * 4096) != 0) return -1;
    struct opened opened;
    if (open_handle(&opened, O_RDONLY) != 0) return -1;
    struct pages pages[MAX_THREADS];
    pthread_t running[MAX_THREADS];
    uint64_t share = count / threads;
    double begin = now();
    for (uint64_t t = 0; t < threads; t++) {
        pages[t] = (struct pages){opened.handle, t * share, share, size / 4096, 7919 + t, 0};
        if (pthread_create(&running[t], NULL, read_pages, &pages[t]) != 0) abort();
    }
    long failed = 0;
    for (uint64_t t = 0; t < threads; t++) {
        pthread_join(running[t], NULL);
        if (pages[t].failed != 0) failed = pages[t].failed;
    }
    double seconds = now() - begin;
    close_handle(&opened);
    if (failed != 0) return fail("cuFileRead", failed);
    printf("{\"seconds\": %.6f, \"iops\": %.0f}\n", seconds, (double)(share * threads) / seconds);
    return 0;
}

static int pcie(void) {
    uint64_t size = number("size", 1 << 30);
    void *pinned = NULL, *memory = NULL;
    if (cudaHostAlloc(&pinned, size, 0) != cudaSuccess) return fail("cudaHostAlloc", 0);
    if (cudaMalloc(&memory, size) != cudaSuccess) return fail("cudaMalloc", 0);
    memset(pinned, 3, size);
    double best[2] = {0, 0};
    for (int run = 0; run < 10; run++) {
        double begin = now();
        cudaError_t error =
            run % 2 == 0 ? cudaMemcpy(memory, pinned, size, cudaMemcpyHostToDevice)
                         : cudaMemcpy(pinned, memory, size, cudaMemcpyDeviceToHost);
        if (error == cudaSuccess) error = cudaDeviceSynchronize();
        if (error != cudaSuccess) return fail("cudaMemcpy", error);
        double speed = (double)size / (now() - begin) / 1e9;
        if (run >= 2 && speed > best[run % 2]) best[run % 2] = speed;
    }
    cudaFree(memory);
    cudaFreeHost(pinned);
    printf("{\"to_device\": %.3f, \"from_device\": %.3f}\n", best[0], best[1]);
    return 0;
}

static int find(void *library, const char *name, void *function) {
    *(void **)function = dlsym(library, name);
    if (*(void **)function == NULL) fprintf(stderr, "libcufile has no %s\n", name);
    return *(void **)function == NULL;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *name = count > 1 ? arguments[1] : "libcufile.so.0";
    void *library = dlopen(name, RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
    } else if (find(library, "cuFileHandleRegister", &handle_register) |
               find(library, "cuFileHandleDeregister", &handle_deregister) |
               find(library, "cuFileRead", &cufile_read) |
               find(library, "cuFileWrite", &cufile_write) |
               find(library, "cuFileBufRegister", &buffer_register) |
               find(library, "cuFileBufDeregister", &buffer_deregister) |
               find(library, "cuFileGetVersion", &get_version)) {
        library = NULL;
    }
    cudaSetDevice(0);
    cudaFree(NULL);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        size_t verb = strcspn(line, " ");
#define IS(name) (verb == strlen(name) && strncmp(line, name, verb) == 0)
        if (IS("pcie")) {
            pcie();
        } else if (library == NULL) {
            printf("{\"error\": \"libcufile cannot be used\"}\n");
        } else if (IS("config")) {
            int version = 0;
            get_version(&version);
            printf("{\"version\": \"%d\"}\n", version);
        } else if (IS("read")) {
            sequential(0);
        } else if (IS("write")) {
            sequential(1);
        } else if (IS("latency")) {
            latency();
        } else if (IS("batch")) {
            batch();
        } else {
            printf("{\"error\": \"unknown command\"}\n");
        }
    }
    /* No clean-up: older libraries crash in their own at exit. */
    _exit(0);
}
