/*
 * Times transfers through the C ABI, one command a line on stdin, one JSON object a line on stdout.
 * scripts/bench-gpu drives it beside the peers, so that runs can be interleaved without paying for
 * CUDA's start each time. The peers' programs (peers/) take the same commands.
 *
 *   config [key=value ...]                         open a context (fields of gds_config_t)
 *   read   path= size= [threads=1] [block=size]    file to device memory
 *   write  path= size= [threads=1] [block=size]    device memory to file, then sync
 *   latency path= size= count= [block=4096]        random aligned reads, one at a time
 *   batch  path= size= count= [submit=count]       random 4 KiB reads to distinct addresses
 *   plain  path= size= [block=] [direct=0]         pread loop to host memory, no library;
 *          [write=0]                               1: a pwrite loop from it, then fsync
 *   host   path= size= [block=]                    gds_read loop to the same host memory
 *   check  path= size=                             what the last read left is what the file holds
 *
 * Times are wall-clock seconds of the transfer alone: files and memory are opened before.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gds_rs.h"

#define MAX_THREADS 64

static char line[4096];
static gds_context_t *context;
static gds_buffer_t *device_buffer;
static uint64_t device_size;
static uint8_t *host_memory;
static gds_buffer_t *host_buffer;
static uint64_t host_size;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a command's words ------------------------------------------------------------------- */

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

static int fail(const char *what, const char *why) {
    printf("{\"error\": \"%s: ", what);
    for (; *why != '\0'; why++) putchar(*why == '"' || *why == '\\' || *why < ' ' ? ' ' : *why);
    printf("\"}\n");
    return -1;
}

#define TRY(call)                                                       \
    do {                                                                \
        if ((call) != GDS_STATUS_OK) return fail(#call, gds_last_error_message()); \
    } while (0)

/* ---- memory ------------------------------------------------------------------------------ */

static int need_device(uint64_t size) {
    if (device_size >= size) return 0;
    gds_buffer_free(device_buffer);
    device_buffer = NULL;
    device_size = 0;
    TRY(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &device_buffer));
    device_size = size;
    return 0;
}

static int need_host(uint64_t size) {
    if (host_size >= size) return 0;
    gds_buffer_free(host_buffer);
    host_buffer = NULL;
    if (host_memory != NULL) munmap(host_memory, host_size);
    host_size = 0;
    host_memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host_memory == MAP_FAILED) return fail("mmap", strerror(errno));
    memset(host_memory, 1, size);
    host_size = size;
    return 0;
}

static int open_context(void) {
    gds_config_t config = GDS_CONFIG_INIT;
    gds_buffer_free(device_buffer);
    gds_buffer_free(host_buffer);
    gds_context_close(context);
    device_buffer = host_buffer = NULL;
    device_size = 0;
    context = NULL;
    TRY(gds_config_environment(&config));
    config.gpu_device = (int32_t)strtol(word("device") ? word("device") : "0", NULL, 0);
    config.buffer_size = number("buffer_size", config.buffer_size);
    config.alignment = number("alignment", config.alignment);
    config.poll_interval_us = number("poll_interval_us", config.poll_interval_us);
    config.max_outstanding_io =
        (uint32_t)number("max_outstanding_io", config.max_outstanding_io);
    config.max_batch_size = (uint32_t)number("max_batch_size", config.max_batch_size);
    config.io_threads = (uint32_t)number("io_threads", config.io_threads);
    config.path = (int32_t)number("path_policy", (uint64_t)config.path);
    config.double_buffering = (uint32_t)number("double_buffering", config.double_buffering);
    TRY(gds_context_open(&config, &context));
    gds_device_info_t info = GDS_DEVICE_INFO_INIT;
    TRY(gds_context_device(context, &info));
    printf("{\"device\": \"%s\", \"version\": \"%s\"}\n", info.name, gds_version_string());
    return 0;
}

/* ---- sequential -------------------------------------------------------------------------- */

struct part {
    gds_file_t *file;
    uint64_t begin, end, block;
    int writing, failed, path;
};

static void *move_part(void *argument) {
    struct part *part = argument;
    for (uint64_t at = part->begin; at < part->end && !part->failed; at += part->block) {
        uint64_t size = part->end - at < part->block ? part->end - at : part->block;
        gds_completion_t done = GDS_COMPLETION_INIT;
        gds_status_t status =
            part->writing ? gds_write_with(part->file, at, device_buffer, at, size, NULL, &done)
                          : gds_read_with(part->file, at, device_buffer, at, size, NULL, &done);
        part->failed = status != GDS_STATUS_OK || done.bytes != size;
        part->path = done.path;
        if (part->failed) fprintf(stderr, "gds_bench: %s\n", gds_last_error_message());
    }
    return NULL;
}

static int sequential(int writing) {
    uint64_t size = number("size", 0), threads = number("threads", 1);
    uint64_t block = number("block", size);
    if (threads < 1 || threads > MAX_THREADS || size == 0) return fail("threads, size", "range");
    if (need_device(size) != 0) return -1;
    gds_file_t *file = NULL;
    const char *path = word("path") ? word("path") : "";
    TRY(gds_file_open(context, path, writing ? GDS_FILE_READ | GDS_FILE_WRITE : GDS_FILE_READ,
                      &file));
    struct part parts[MAX_THREADS];
    pthread_t running[MAX_THREADS];
    uint64_t share = (size / threads + 4095) / 4096 * 4096;
    double begin = now();
    for (uint64_t t = 0; t < threads; t++) {
        uint64_t first = t * share < size ? t * share : size;
        uint64_t last = t + 1 == threads || first + share > size ? size : first + share;
        parts[t] = (struct part){file, first, last, block < size ? block : share, writing, 0, 0};
        if (threads == 1) {
            parts[t].block = block;
            move_part(&parts[t]);
        } else if (pthread_create(&running[t], NULL, move_part, &parts[t]) != 0) {
            abort();
        }
    }
    int failed = 0;
    for (uint64_t t = 0; t < threads; t++) {
        if (threads > 1) pthread_join(running[t], NULL);
        failed |= parts[t].failed;
    }
    if (writing && gds_file_sync(file) != GDS_STATUS_OK) failed = 1;
    double seconds = now() - begin;
    gds_file_close(file);
    if (failed) return fail("transfer", "failed or short; see stderr");
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 ", \"path\": %d}\n", seconds, size,
           parts[0].path);
    return 0;
}

/* The device buffer, written out in a few places, must equal the file. */
static int check(void) {
    uint64_t size = number("size", 0);
    static uint8_t expected[1 << 20], got[1 << 20];
    char source[1024];
    snprintf(source, sizeof source, "%s", word("path") ? word("path") : "");
    int fd = open(source, O_RDONLY | O_CLOEXEC), copy = memfd_create("gds_bench", MFD_CLOEXEC);
    if (fd < 0 || copy < 0) return fail("open", strerror(errno));
    gds_file_t *file = NULL;
    TRY(gds_file_from_fd(context, copy, &file));
    if (ftruncate(copy, sizeof got) != 0) return fail("ftruncate", strerror(errno));
    for (uint64_t i = 0; i < 32 && size >= sizeof got; i++) {
        uint64_t at = (size - sizeof got) / 31 * i, bytes = 0;
        TRY(gds_write(file, 0, device_buffer, at, sizeof got, &bytes));
        if (pread(copy, got, sizeof got, 0) != (ssize_t)sizeof got ||
            pread(fd, expected, sizeof got, (off_t)at) != (ssize_t)sizeof got) {
            return fail("pread", "short");
        }
        if (memcmp(got, expected, sizeof got) != 0) return fail("check", "wrong bytes");
    }
    gds_file_close(file);
    close(copy);
    close(fd);
    printf("{\"checked\": 32}\n");
    return 0;
}

/* ---- small reads ------------------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int latency(void) {
    uint64_t size = number("size", 0), count = number("count", 10000);
    uint64_t block = number("block", 4096);
    if (need_device(64 << 20) != 0) return -1;
    gds_file_t *file = NULL;
    TRY(gds_file_open(context, word("path") ? word("path") : "", GDS_FILE_READ, &file));
    double *times = malloc(count * sizeof *times), sum = 0;
    if (times == NULL) return fail("malloc", "no memory");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = random_below(size / block) * block, bytes = 0;
        uint64_t to = random_below((64 << 20) / block) * block;
        double begin = now();
        TRY(gds_read(file, at, device_buffer, to, block, &bytes));
        times[i] = (now() - begin) * 1e6;
        sum += times[i];
    }
    qsort(times, count, sizeof *times, by_value);
    printf("{\"p50_us\": %.3f, \"p99_us\": %.3f, \"mean_us\": %.3f, \"count\": %" PRIu64 "}\n",
           times[count / 2], times[count * 99 / 100], sum / (double)count, count);
    free(times);
    gds_file_close(file);
    return 0;
}

/* Every page of the file at most once, in random order. */
static uint32_t *shuffled_pages(uint64_t pages) {
    uint32_t *order = malloc(pages * sizeof *order);
    for (uint64_t i = 0; order != NULL && i < pages; i++) {
        uint64_t other = random_below(i + 1);
        order[i] = order[other];
        order[other] = (uint32_t)i;
    }
    return order;
}

/* The first, the last and some entries between hold what the file holds. */
static int check_pages(const char *path, const uint32_t *order, uint64_t count) {
    static uint8_t expected[4096], got[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC), copy = memfd_create("gds_bench", MFD_CLOEXEC);
    if (fd < 0 || copy < 0) return fail("open", strerror(errno));
    if (ftruncate(copy, sizeof got) != 0) return fail("ftruncate", strerror(errno));
    gds_file_t *file = NULL;
    TRY(gds_file_from_fd(context, copy, &file));
    for (uint64_t i = 0; i < count; i += i + 1 < count && count > 64 ? (count - 1) / 63 : 1) {
        uint64_t bytes = 0;
        TRY(gds_write(file, 0, device_buffer, i * 4096, 4096, &bytes));
        if (pread(copy, got, 4096, 0) != 4096 ||
            pread(fd, expected, 4096, (off_t)order[i] * 4096) != 4096) {
            return fail("pread", "short");
        }
        if (memcmp(got, expected, 4096) != 0) return fail("batch", "WRONG BYTES");
    }
    gds_file_close(file);
    close(copy);
    close(fd);
    return 0;
}

static int batch(void) {
    uint64_t size = number("size", 0), count = number("count", 100000);
    uint64_t submit = number("submit", count), flight = number("flight", 4);
    if (submit == 0 || submit > count) submit = count;
    if (flight < 1 || flight > 16) return fail("flight", "1 to 16");
    if (count > size / 4096) return fail("count", "more than the file's pages");
    if (need_device(count * 4096) != 0) return -1;
    char path[1024];
    snprintf(path, sizeof path, "%s", word("path") ? word("path") : "");
    gds_file_t *file = NULL;
    TRY(gds_file_open(context, path, GDS_FILE_READ, &file));
    gds_batch_entry_t *entries = calloc(count, sizeof *entries);
    uint32_t *order = shuffled_pages(size / 4096);
    if (entries == NULL || order == NULL) return fail("calloc", "no memory");
    for (uint64_t i = 0; i < count; i++) {
        entries[i].file = file;
        entries[i].buffer = device_buffer;
        entries[i].buffer_offset = i * 4096;
        entries[i].file_offset = (uint64_t)order[i] * 4096;
        entries[i].size = 4096;
        entries[i].operation = GDS_OPERATION_READ;
    }
    gds_ticket_t *tickets[16] = {0};
    uint64_t sent = 0, bytes = 0;
    int path_taken = 0;
    double begin = now();
    /* A turn waits for what its slot holds; after the last submission, every slot gets one. */
    for (uint64_t turn = 0, last = 0; turn < last + flight; turn++) {
        gds_ticket_t **slot = &tickets[turn % flight];
        if (*slot != NULL) {
            gds_completion_t completion = GDS_COMPLETION_INIT;
            TRY(gds_ticket_wait(*slot, -1, &completion));
            bytes += completion.bytes;
            path_taken = completion.path;
            gds_ticket_destroy(*slot);
            *slot = NULL;
        }
        if (sent < count) {
            uint64_t next = count - sent < submit ? count - sent : submit;
            TRY(gds_batch_submit(context, entries + sent, next, NULL, slot));
            sent += next;
            last = turn + 1;
        }
    }
    double seconds = now() - begin;
    gds_file_close(file);
    int wrong = bytes != count * 4096 ? fail("batch", "not every byte arrived")
                                      : check_pages(path, order, count);
    free(entries);
    free(order);
    if (wrong != 0) return -1;
    printf("{\"seconds\": %.6f, \"iops\": %.0f, \"count\": %" PRIu64 ", \"path\": %d}\n",
           seconds, (double)count / seconds, count, path_taken);
    return 0;
}

/* ---- host memory ------------------------------------------------------------------------- */

static int plain(void) {
    uint64_t size = number("size", 0), block = number("block", size);
    if (need_host(size) != 0) return -1;
    int writing = number("write", 0) != 0;
    int fd = open(word("path") ? word("path") : "",
                  (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | (number("direct", 0) ? O_DIRECT : 0));
    if (fd < 0) return fail("open", strerror(errno));
    double begin = now();
    for (uint64_t at = 0; at < size;) {
        uint64_t left = size - at < block ? size - at : block;
        ssize_t got = writing ? pwrite(fd, host_memory + at, left, (off_t)at)
                              : pread(fd, host_memory + at, left, (off_t)at);
        if (got <= 0) return fail("plain", got == 0 ? "end of file" : strerror(errno));
        at += (uint64_t)got;
    }
    if (writing && fsync(fd) != 0) return fail("fsync", strerror(errno));
    double seconds = now() - begin;
    close(fd);
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", seconds, size);
    return 0;
}

static int host(void) {
    uint64_t size = number("size", 0), block = number("block", size);
    if (need_host(size) != 0) return -1;
    if (host_buffer == NULL) TRY(gds_buffer_wrap(context, host_memory, host_size, &host_buffer));
    gds_file_t *file = NULL;
    TRY(gds_file_open(context, word("path") ? word("path") : "", GDS_FILE_READ, &file));
    double begin = now();
    for (uint64_t at = 0; at < size; at += block) {
        uint64_t bytes = 0, left = size - at < block ? size - at : block;
        TRY(gds_read(file, at, host_buffer, at, left, &bytes));
        if (bytes != left) return fail("gds_read", "short");
    }
    double seconds = now() - begin;
    gds_file_close(file);
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", seconds, size);
    return 0;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        size_t verb = strcspn(line, " ");
#define IS(name) (verb == strlen(name) && strncmp(line, name, verb) == 0)
        if (IS("config")) {
            open_context();
        } else if (IS("plain")) {
            plain();
        } else if (context == NULL) {
            fail(line, "config comes first");
        } else if (IS("read")) {
            sequential(0);
        } else if (IS("write")) {
            sequential(1);
        } else if (IS("latency")) {
            latency();
        } else if (IS("batch")) {
            batch();
        } else if (IS("host")) {
            host();
        } else if (IS("check")) {
            check();
        } else {
            fail(line, "unknown command");
        }
    }
    gds_buffer_free(host_buffer);
    gds_buffer_free(device_buffer);
    gds_context_close(context);
    return 0;
}
