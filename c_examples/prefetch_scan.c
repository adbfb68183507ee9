/*
 * Scans a file through a page cache that holds a part of it: forward, then every third page
 * backward. A prefetcher watches and has the pages in device memory before they are asked for.
 *
 *   prefetch_scan [FILE]     without FILE it scans its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define SKIPPED 77
#define PAGE ((uint64_t)4096)
#define PAGES_MAX ((uint64_t)1024)

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static gds_file_t *open_scratch_file(const gds_context_t *context)
{
    const char *directory = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/gds_rs_example.XXXXXX", directory ? directory : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) {
        perror(path);
        exit(SKIPPED);
    }
    gds_file_t *file;
    GDS_CHECK(gds_file_from_fd(context, fd, &file));
    unlink(path);
    close(fd);
    return file;
}

/* Whether a page holds the bytes of the file, by way of a scratch file: it needs no CUDA here. */
static int is_file(const gds_context_t *context, gds_file_t *scratch, const gds_page_t *page,
                   int plain)
{
    static unsigned char moved[PAGE], wanted[PAGE];
    gds_buffer_t *device, *host;
    GDS_CHECK(gds_buffer_wrap(context, page->address, PAGE, &device));
    GDS_CHECK(gds_buffer_wrap(context, moved, PAGE, &host));
    GDS_CHECK(gds_write(scratch, 0, device, 0, PAGE, NULL));
    GDS_CHECK(gds_read(scratch, 0, host, 0, PAGE, NULL));
    gds_buffer_free(host);
    gds_buffer_free(device);
    ssize_t got = pread(plain, wanted, PAGE, (off_t)page->offset_bytes);
    return got == (ssize_t)page->size_bytes && memcmp(moved, wanted, page->size_bytes) == 0;
}

static const char *pattern_name(int32_t pattern)
{
    switch (pattern) {
    case GDS_PATTERN_SEQUENTIAL:
        return "sequential";
    case GDS_PATTERN_STRIDED:
        return "strided";
    case GDS_PATTERN_RANDOM:
        return "random";
    default:
        return "unknown";
    }
}

static void report(const gds_prefetch_t *prefetch, const char *what)
{
    gds_prefetch_stats_t stats = GDS_PREFETCH_STATS_INIT;
    GDS_CHECK(gds_prefetch_stats(prefetch, &stats));
    printf("%s: %s (stride %lld), %llu accesses: %llu there, %llu on their way, %llu missed; "
           "%llu bytes read ahead, %llu of them for nothing\n",
           what, pattern_name(stats.pattern), (long long)stats.stride,
           (unsigned long long)stats.accesses, (unsigned long long)stats.hits,
           (unsigned long long)stats.late, (unsigned long long)stats.misses,
           (unsigned long long)stats.prefetched_bytes, (unsigned long long)stats.wasted_bytes);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_cache_config_t cache_config = GDS_CACHE_CONFIG_INIT;
    gds_prefetch_config_t config = GDS_PREFETCH_CONFIG_INIT;
    gds_prefetch_stats_t stats = GDS_PREFETCH_STATS_INIT;
    gds_context_t *context;
    gds_file_t *file;
    gds_cache_t *cache;
    gds_prefetch_t *prefetch;
    gds_page_t page;
    uint64_t size;
    int good = 1;

    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_file_size(file, &size));
    uint64_t pages = size / PAGE < PAGES_MAX ? size / PAGE : PAGES_MAX;
    if (pages < 4) {
        printf("skipped: %s is smaller than four pages\n", path);
        return SKIPPED;
    }
    cache_config.page_bytes = (uint32_t)PAGE;
    cache_config.device_bytes = 512 * PAGE;
    GDS_CHECK(gds_cache_open(context, &cache_config, &cache));
    config.distance_bytes = 32 * PAGE;
    config.chunk_bytes = 4 * PAGE;
    GDS_CHECK(gds_prefetch_open(cache, file, &config, &prefetch));

    int plain = open(path, O_RDONLY | O_CLOEXEC);
    gds_file_t *scratch = open_scratch_file(context);
    /* What is known to come: the first pages, before all that is predicted. */
    GDS_CHECK(gds_prefetch_hint(prefetch, 0, 4 * PAGE, 1000, 0));
    for (uint64_t i = 0; i < pages; i++) {
        GDS_CHECK(gds_prefetch_get(prefetch, i * PAGE, &page));
        good &= is_file(context, scratch, &page, plain);
        GDS_CHECK(gds_cache_release(cache, &page));
    }
    report(prefetch, "forward");
    for (uint64_t i = pages; i >= 3; i -= 3) {
        GDS_CHECK(gds_prefetch_get(prefetch, (i - 1) * PAGE, &page));
        good &= is_file(context, scratch, &page, plain);
        GDS_CHECK(gds_cache_release(cache, &page));
    }
    report(prefetch, "backward");
    GDS_CHECK(gds_prefetch_stats(prefetch, &stats));
    good &= stats.hits + stats.late + stats.misses == stats.accesses;
    good &= stats.prefetched_bytes > 0;
    puts(good ? "verified: every page holds the bytes of the file" : "WRONG BYTES");

    close(plain);
    gds_prefetch_close(prefetch);
    gds_cache_close(cache);
    gds_file_close(scratch);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
