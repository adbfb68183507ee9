/*
 * cache_misuse - everything that a program can do wrong with a page cache, and the answers.
 *
 *     cache_misuse
 *
 * Runs on the host device. Exit 0: all answered as the header says.
 */

#define _GNU_SOURCE

#include "gds_rs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE ((uint64_t)4096)
#define PAGES ((uint64_t)8)

static int failures;
static int checks;

static void expect_at(int line, const char *call, gds_status_t got, gds_status_t wanted)
{
    checks++;
    if (got != wanted) {
        failures++;
        fprintf(stderr, "line %d: %s answered \"%s\", not \"%s\": %s\n", line, call,
                gds_status_string(got), gds_status_string(wanted), gds_last_error_message());
    } else if (got != GDS_STATUS_OK && gds_last_error_message()[0] == '\0') {
        failures++;
        fprintf(stderr, "line %d: %s failed without a message\n", line, call);
    }
}

static void true_at(int line, const char *what, int is_true)
{
    checks++;
    if (!is_true) {
        failures++;
        fprintf(stderr, "line %d: not so: %s\n", line, what);
    }
}

#define EXPECT(status, call) expect_at(__LINE__, #call, (call), GDS_STATUS_##status)
#define TRUE(condition) true_at(__LINE__, #condition, (condition))

static gds_context_t *context;
static gds_cache_t *cache;
static gds_file_t *file;
static gds_file_t *read_only;
static gds_buffer_t *buffer;

static gds_cache_config_t small(void)
{
    gds_cache_config_t config = GDS_CACHE_CONFIG_INIT;
    config.page_bytes = (uint32_t)PAGE;
    config.device_bytes = PAGES * PAGE;
    return config;
}

static int open_all(void)
{
    char path[64];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.40s/gds_misuse.XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0) {
        perror(path);
        return 0;
    }
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = GDS_DEVICE_HOST;
    EXPECT(OK, gds_context_open(&config, &context));
    EXPECT(OK, gds_file_open(context, path, GDS_FILE_READ | GDS_FILE_WRITE, &file));
    EXPECT(OK, gds_file_set_size(file, 64 * PAGE));
    EXPECT(OK, gds_file_open(context, path, GDS_FILE_READ, &read_only));
    unlink(path);
    EXPECT(OK, gds_buffer_alloc(context, GDS_MEMORY_PINNED, PAGE, &buffer));
    gds_cache_config_t sizes = small();
    EXPECT(OK, gds_cache_open(context, &sizes, &cache));
    return failures == 0;
}

static void wrong_configurations(void)
{
    gds_cache_t *other = NULL;
    gds_cache_config_t config;
    EXPECT(OK, gds_cache_config_init(&config, sizeof config));
    gds_cache_config_t initial = GDS_CACHE_CONFIG_INIT;
    TRUE(memcmp(&config, &initial, sizeof config) == 0);
    EXPECT(INVALID_ARGUMENT, gds_cache_config_init(NULL, sizeof config));
    EXPECT(STRUCT_SIZE, gds_cache_config_init(&config, 3));
    EXPECT(INVALID_ARGUMENT, gds_cache_open(NULL, NULL, &other));
    EXPECT(INVALID_ARGUMENT, gds_cache_open(context, NULL, NULL));
    EXPECT(INVALID_HANDLE, gds_cache_open((const gds_context_t *)(const void *)cache, NULL,
                                          &other));
#define WRONG(field, value)                                                              \
    do {                                                                                 \
        config = small();                                                                \
        config.field = (value);                                                          \
        EXPECT(INVALID_CONFIG, gds_cache_open(context, &config, &other));                \
    } while (0)
    WRONG(page_bytes, 4097);
    WRONG(page_bytes, 2048);
    WRONG(page_bytes, 1u << 22);
    WRONG(device_bytes, 1);
    WRONG(device_bytes, UINT64_MAX);
    WRONG(host_bytes, 1);
    WRONG(file_limit_bytes, 1);
    WRONG(flush_delay_ms, UINT32_MAX);
    WRONG(dirty_percent, 101);
    WRONG(policy, 3);
    WRONG(policy, -1);
    WRONG(reserved, 1);
    config = small();
    config.struct_size = 7;
    EXPECT(STRUCT_SIZE, gds_cache_open(context, &config, &other));
    /* An older program: what it does not know has its default. */
    config = small();
    config.struct_size = 16;
    config.policy = 99;
    EXPECT(OK, gds_cache_open(context, &config, &other));
    gds_cache_close(other);
}

static void null_everywhere(void)
{
    gds_page_t page = { NULL, 0, 0, 0 };
    gds_cache_range_t range = { 0, PAGE };
    gds_cache_stats_t stats = GDS_CACHE_STATS_INIT;
    uint64_t n;

    EXPECT(INVALID_ARGUMENT, gds_cache_get(NULL, file, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_get(cache, NULL, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_get(cache, file, 0, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_get(cache, file, 0, (gds_page_t *)((char *)&page + 1)));
    EXPECT(INVALID_ARGUMENT, gds_cache_get_new(NULL, file, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_get_new(cache, NULL, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_get_new(cache, file, 0, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_try_get(NULL, file, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_try_get(cache, NULL, 0, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_try_get(cache, file, 0, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_release(NULL, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_release(cache, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_mark_dirty(NULL, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_mark_dirty(cache, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_put(NULL, file, 0, buffer, 0, 1));
    EXPECT(INVALID_ARGUMENT, gds_cache_put(cache, NULL, 0, buffer, 0, 1));
    EXPECT(INVALID_ARGUMENT, gds_cache_put(cache, file, 0, NULL, 0, 1));
    EXPECT(INVALID_ARGUMENT, gds_cache_read(NULL, file, 0, buffer, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_read(cache, NULL, 0, buffer, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_read(cache, file, 0, NULL, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_prefetch(NULL, file, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_prefetch(cache, NULL, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_flush(NULL, file, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_invalidate(NULL, file, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_invalidate(cache, NULL, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_warm(NULL, file, &range, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_warm(cache, NULL, &range, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_warm(cache, file, NULL, 1, NULL));
    EXPECT(OUT_OF_RANGE, gds_cache_warm(cache, file, &range, UINT64_MAX, NULL));
    EXPECT(OK, gds_cache_warm(cache, file, NULL, 0, &n));
    EXPECT(INVALID_ARGUMENT, gds_cache_hot_ranges(NULL, file, 0, NULL, &n));
    EXPECT(INVALID_ARGUMENT, gds_cache_hot_ranges(cache, NULL, 0, NULL, &n));
    EXPECT(INVALID_ARGUMENT, gds_cache_hot_ranges(cache, file, 1, NULL, &n));
    EXPECT(INVALID_ARGUMENT, gds_cache_hot_ranges(cache, file, 0, NULL, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_stats(NULL, &stats));
    EXPECT(INVALID_ARGUMENT, gds_cache_stats(cache, NULL));
    stats.struct_size = 0;
    EXPECT(STRUCT_SIZE, gds_cache_stats(cache, &stats));
    TRUE(page.token == 0);
    gds_cache_close(NULL);
}

static void pages_released_wrongly(void)
{
    gds_page_t page, copy, wrong = { NULL, 0, 0, 12345 };
    EXPECT(OK, gds_cache_get(cache, read_only, 3 * PAGE + 1, &page));
    TRUE(page.address != NULL && page.offset_bytes == 3 * PAGE && page.size_bytes == PAGE);
    EXPECT(READ_ONLY, gds_cache_mark_dirty(cache, &page));
    copy = page;
    EXPECT(OK, gds_cache_release(cache, &page));
    TRUE(page.token == 0 && page.address == NULL);
    EXPECT(OK, gds_cache_release(cache, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_release(cache, &copy));
    EXPECT(INVALID_ARGUMENT, gds_cache_mark_dirty(cache, &copy));
    EXPECT(INVALID_ARGUMENT, gds_cache_mark_dirty(cache, &page));
    EXPECT(INVALID_ARGUMENT, gds_cache_release(cache, &wrong));
    wrong.token = UINT64_MAX;
    EXPECT(INVALID_ARGUMENT, gds_cache_release(cache, &wrong));
    EXPECT(OK, gds_cache_try_get(cache, file, 50 * PAGE, &page));
    TRUE(page.address == NULL && page.token == 0);
    EXPECT(OK, gds_cache_try_get(cache, file, 3 * PAGE, &page));
    TRUE(page.address == copy.address);
    EXPECT(OK, gds_cache_mark_dirty(cache, &page));
    EXPECT(OK, gds_cache_release(cache, &page));
    EXPECT(READ_ONLY, gds_cache_get_new(cache, read_only, 0, &page));
    EXPECT(READ_ONLY, gds_cache_put(cache, read_only, 0, buffer, 0, 1));
}

static void everything_held(void)
{
    gds_page_t held[PAGES], page;
    uint64_t n = 99;
    EXPECT(OK, gds_cache_flush(cache, NULL, NULL));
    for (uint64_t i = 0; i < PAGES; i++) {
        EXPECT(OK, gds_cache_get(cache, file, i * PAGE, &held[i]));
    }
    EXPECT(ALL_PINNED, gds_cache_get(cache, file, 20 * PAGE, &page));
    EXPECT(ALL_PINNED, gds_cache_get_new(cache, file, 20 * PAGE, &page));
    EXPECT(ALL_PINNED, gds_cache_put(cache, file, 20 * PAGE, buffer, 0, 1));
    EXPECT(OK, gds_cache_prefetch(cache, file, 20 * PAGE, PAGE, &n));
    TRUE(n == 0);
    EXPECT(ALL_PINNED, gds_cache_invalidate(cache, file, 0, UINT64_MAX, &n));
    for (uint64_t i = 0; i < PAGES; i++) {
        EXPECT(OK, gds_cache_release(cache, &held[i]));
    }
    EXPECT(OK, gds_cache_invalidate(cache, file, 0, UINT64_MAX, &n));
    TRUE(n == PAGES);
}

static void ranges_that_pass_the_end(void)
{
    gds_page_t page;
    uint64_t n;
    EXPECT(OUT_OF_RANGE, gds_cache_get(cache, file, UINT64_MAX, &page));
    EXPECT(OUT_OF_RANGE, gds_cache_get_new(cache, file, UINT64_MAX, &page));
    EXPECT(OUT_OF_RANGE, gds_cache_read(cache, file, 0, buffer, 1, PAGE, &n));
    EXPECT(OUT_OF_RANGE, gds_cache_read(cache, file, UINT64_MAX, buffer, 0, 1, &n));
    EXPECT(OUT_OF_RANGE, gds_cache_put(cache, file, 0, buffer, UINT64_MAX, 2));
    EXPECT(OUT_OF_RANGE, gds_cache_prefetch(cache, file, UINT64_MAX, 1, &n));
    EXPECT(OK, gds_cache_prefetch(cache, file, 64 * PAGE, UINT64_MAX, &n));
    TRUE(n == 0);
    EXPECT(OK, gds_cache_read(cache, file, 64 * PAGE - 3, buffer, 0, 100, &n));
    TRUE(n == 3);
}

static void another_context(void)
{
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = GDS_DEVICE_HOST;
    gds_context_t *other;
    gds_buffer_t *foreign;
    EXPECT(OK, gds_context_open(&config, &other));
    EXPECT(OK, gds_buffer_alloc(other, GDS_MEMORY_PINNED, PAGE, &foreign));
    EXPECT(INVALID_ARGUMENT, gds_cache_read(cache, file, 0, foreign, 0, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_cache_put(cache, file, 0, foreign, 0, PAGE));
    gds_buffer_free(foreign);
    gds_context_close(other);
}

static void closed_handles(void)
{
    gds_page_t page, kept;
    EXPECT(INVALID_HANDLE, gds_cache_get((const gds_cache_t *)(const void *)file, file, 0,
                                         &page));
    EXPECT(INVALID_HANDLE, gds_cache_get(cache, (const gds_file_t *)(const void *)cache, 0,
                                         &page));
    EXPECT(OK, gds_cache_get(cache, file, 0, &kept));
    /* The order does not matter, and a page that is still held stays. */
    gds_file_close(read_only);
    gds_file_close(file);
    gds_context_close(context);
    EXPECT(INVALID_HANDLE, gds_cache_get(cache, file, 0, &page));
    EXPECT(OK, gds_cache_release(cache, &kept));
    gds_cache_close(cache);
    gds_cache_close(cache);
    EXPECT(INVALID_HANDLE, gds_cache_release(cache, &kept));
    EXPECT(INVALID_HANDLE, gds_cache_flush(cache, NULL, NULL));
    gds_buffer_free(buffer);
}

int main(void)
{
    if (!open_all()) {
        return 1;
    }
    wrong_configurations();
    null_everywhere();
    pages_released_wrongly();
    everything_held();
    ranges_that_pass_the_end();
    another_context();
    closed_handles();
    printf("%d answers checked, %d wrong\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
