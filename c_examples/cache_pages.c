/*
 * Looks records up in a file that is larger than the memory it may take: pages stay in device
 * memory while they are used, and changes are written behind the program's back.
 *
 *   cache_pages [FILE]        FILE is read, not changed; without it, scratch records
 *
 * Only a scratch file in TMPDIR (or /tmp) is written. GDS_DEVICE chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define SKIPPED 77
#define PAGE ((uint64_t)16384)
#define PAGES ((uint64_t)256)
#define LOOKUPS 20000

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* A scratch file of the context, without a name, gone when it is closed. */
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

/* Copies the first record of a page to the host, as a kernel would use it in place. */
static uint64_t first_record(const gds_cache_t *cache, const gds_file_t *file,
                             const gds_buffer_t *pinned, uint64_t page)
{
    void *address;
    uint64_t bytes, record = 0;
    GDS_CHECK(gds_cache_read(cache, file, page * PAGE, pinned, 0, sizeof record, &bytes));
    GDS_CHECK(gds_buffer_address(pinned, &address));
    memcpy(&record, address, bytes < sizeof record ? bytes : sizeof record);
    return record;
}

/* Writes each page's number into its first record, page by page and through the cache. */
static void write_records(const gds_cache_t *cache, const gds_file_t *file,
                          const gds_buffer_t *pinned)
{
    void *address;
    GDS_CHECK(gds_buffer_address(pinned, &address));
    for (uint64_t page = 0; page < PAGES; page++) {
        memset(address, 0, (size_t)PAGE);
        memcpy(address, &page, sizeof page);
        GDS_CHECK(gds_cache_put(cache, file, page * PAGE, pinned, 0, PAGE));
    }
    uint64_t bytes;
    GDS_CHECK(gds_cache_flush(cache, file, &bytes));
    GDS_CHECK(gds_file_sync(file));
}

/* Most lookups go to a sixteenth of the pages. 1: every record is what it should be. */
static int look_up(const gds_cache_t *cache, const gds_file_t *file,
                   const gds_buffer_t *pinned)
{
    uint32_t state = 1;
    for (int i = 0; i < LOOKUPS; i++) {
        state = state * 1664525u + 1013904223u;
        uint64_t page = (state >> 8) % (i % 20 == 0 ? PAGES : PAGES / 16);
        if (i % 100 == 0 && first_record(cache, file, pinned, page) != page) {
            return 0;
        }
        gds_page_t held;
        GDS_CHECK(gds_cache_get(cache, file, page * PAGE, &held));
        /* held.address is device memory of held.size_bytes: kernels use it from here ... */
        int good = held.address != NULL && held.size_bytes == PAGE;
        /* ... until it is released, when they are done. */
        GDS_CHECK(gds_cache_release(cache, &held));
        if (!good) {
            return 0;
        }
    }
    return 1;
}

/* What was hot is saved as ranges, and brings a new cache back to speed. */
static int warm_up(const gds_context_t *context, const gds_cache_t *cache,
                   const gds_cache_config_t *config, const gds_file_t *file)
{
    uint64_t count, pages, started;
    GDS_CHECK(gds_cache_hot_ranges(cache, file, 0, NULL, &count));
    gds_cache_range_t *ranges = calloc((size_t)count + 1, sizeof *ranges);
    if (!ranges) {
        exit(SKIPPED);
    }
    GDS_CHECK(gds_cache_hot_ranges(cache, file, count, ranges, &count));
    gds_cache_t *next;
    GDS_CHECK(gds_cache_open(context, config, &next));
    GDS_CHECK(gds_cache_warm(next, file, ranges, count, &pages));
    GDS_CHECK(gds_cache_prefetch(next, file, ranges[0].offset, PAGE, &started));
    printf("%llu pages in %llu ranges were read into a new cache\n",
           (unsigned long long)pages, (unsigned long long)count);
    gds_cache_close(next);
    free(ranges);
    return pages > 0 && started == 0;
}

int main(int argc, char **argv)
{
    gds_context_t *context;
    GDS_CHECK(gds_context_open(NULL, &context));

    /* Room for a quarter of the pages; 4 MiB more in pinned host memory. */
    gds_cache_config_t config = GDS_CACHE_CONFIG_INIT;
    config.page_bytes = (uint32_t)PAGE;
    config.device_bytes = PAGES / 4 * PAGE;
    config.host_bytes = PAGES / 4 * PAGE;
    gds_cache_t *cache;
    GDS_CHECK(gds_cache_open(context, &config, &cache));

    gds_buffer_t *pinned;
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, PAGE, &pinned));
    gds_file_t *file = open_scratch_file(context);
    write_records(cache, file, pinned);
    int good = look_up(cache, file, pinned) && warm_up(context, cache, &config, file);

    if (argc > 1) {
        gds_file_t *other;
        gds_page_t page;
        GDS_CHECK(gds_file_open(context, argv[1], GDS_FILE_READ, &other));
        GDS_CHECK(gds_cache_get(cache, other, 0, &page));
        printf("%llu bytes of %s are at %p\n", (unsigned long long)page.size_bytes, argv[1],
               page.address);
        GDS_CHECK(gds_cache_release(cache, &page));
        gds_file_close(other);
    }

    gds_cache_stats_t stats = GDS_CACHE_STATS_INIT;
    GDS_CHECK(gds_cache_stats(cache, &stats));
    printf("%llu hits, %llu misses (%llu served by host memory), %llu pages written\n",
           (unsigned long long)stats.hits, (unsigned long long)stats.misses,
           (unsigned long long)stats.host_hits, (unsigned long long)stats.write_backs);
    good = good && stats.hits > stats.misses && stats.pinned == 0;
    puts(good ? "every record was what it should be" : "WRONG");

    gds_file_close(file);
    gds_buffer_free(pinned);
    gds_cache_close(cache);
    gds_context_close(context);
    return good ? 0 : 1;
}
