/*
 * kv_misuse - everything that a program can do wrong with a key-value store, and the answers.
 *
 *     kv_misuse
 *
 * Runs on the host device. Exit 0: all answered as the header says.
 */

#define _GNU_SOURCE

#include "gds_rs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

#define KEY "key", (uint64_t)3
#define BLOCK 4096u

static char folder[512];
static char path[600];
static gds_context_t *context;
static gds_buffer_t *buffer;
static gds_kv_t *kv;
static gds_kv_device_t *device;
static uint64_t n;

/* A store as small as it goes. */
static gds_kv_config_t small(void)
{
    gds_kv_config_t config = GDS_KV_CONFIG_INIT;
    config.wal_bytes = 128 * 1024;
    config.segment_bytes = 128 * 1024;
    config.superblock_spacing_bytes = BLOCK;
    config.memtable_bytes = 64 * 1024;
    config.max_batch_bytes = 16 * 1024;
    config.stall_ms = 300;
    return config;
}

static const char *in_folder(const char *name)
{
    static char full[700];
    snprintf(full, sizeof full, "%s/%s", folder, name);
    return full;
}

static int open_all(void)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.400s/gds_kv_misuse.XXXXXX",
             temporary ? temporary : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 0;
    }
    snprintf(path, sizeof path, "%s/store", folder);
    gds_config_t host = GDS_CONFIG_INIT;
    host.gpu_device = GDS_DEVICE_HOST;
    EXPECT(OK, gds_context_open(&host, &context));
    EXPECT(OK, gds_buffer_alloc(context, GDS_MEMORY_PINNED, 64 * 1024, &buffer));
    gds_kv_config_t config = small();
    EXPECT(OK, gds_kv_open(path, &config, &kv));
    gds_kv_device_config_t cache = GDS_KV_DEVICE_CONFIG_INIT;
    cache.cache_bytes = 16 * 1024;
    EXPECT(OK, gds_kv_device_open(kv, context, &cache, &device));
    EXPECT(OK, gds_kv_put(kv, KEY, "value", 5, NULL));
    return failures == 0;
}

static void wrong_configurations(void)
{
    gds_kv_t *other = NULL;
    gds_kv_config_t config;
    const char *absent = in_folder("absent");
    EXPECT(OK, gds_kv_config_init(&config, sizeof config));
    gds_kv_config_t initial = GDS_KV_CONFIG_INIT;
    TRUE(memcmp(&config, &initial, sizeof config) == 0);
    EXPECT(INVALID_ARGUMENT, gds_kv_config_init(NULL, sizeof config));
    EXPECT(STRUCT_SIZE, gds_kv_config_init(&config, 3));
    EXPECT(INVALID_ARGUMENT, gds_kv_open(NULL, NULL, &other));
    EXPECT(INVALID_ARGUMENT, gds_kv_open("", NULL, &other));
    EXPECT(INVALID_ARGUMENT, gds_kv_open(absent, NULL, NULL));
#define WRONG(field, value)                                                              \
    do {                                                                                 \
        config = small();                                                                \
        config.field = (value);                                                          \
        EXPECT(INVALID_CONFIG, gds_kv_open(absent, &config, &other));                    \
        TRUE(access(absent, F_OK) != 0);                                                 \
    } while (0)
    WRONG(inline_max_bytes, 16385);
    WRONG(inline_max_bytes, UINT32_MAX);
    WRONG(wal_bytes, 5000);
    WRONG(wal_bytes, BLOCK);
    WRONG(wal_bytes, UINT64_MAX);
    WRONG(segment_bytes, 3u << 20);
    WRONG(segment_bytes, BLOCK);
    WRONG(segment_bytes, UINT64_MAX);
    WRONG(superblock_spacing_bytes, 1);
    WRONG(superblock_spacing_bytes, UINT64_MAX);
    WRONG(memtable_bytes, 1);
    WRONG(pending_bytes, 1);
    WRONG(max_batch_bytes, 5000);
    WRONG(create, 3);
    WRONG(create, -1);
    WRONG(exclusive, 3);
    WRONG(ordered, -1);
    WRONG(reserved, 1);
    config = small();
    config.size_bytes = 1;
    EXPECT(NO_SPACE, gds_kv_open(absent, &config, &other));
    unlink(absent);
    config = small();
    config.struct_size = 7;
    EXPECT(STRUCT_SIZE, gds_kv_open(absent, &config, &other));
    /* An older program: what it does not know has its default. */
    config = small();
    config.struct_size = 32;
    config.ordered = 99;
    EXPECT(OK, gds_kv_open(absent, &config, &other));
    gds_kv_close(other);
    EXPECT(OK, gds_kv_destroy(absent));

    gds_kv_device_config_t cache = GDS_KV_DEVICE_CONFIG_INIT;
    gds_kv_device_t *more = NULL;
    cache.reserved = 1;
    EXPECT(INVALID_CONFIG, gds_kv_device_open(kv, context, &cache, &more));
    cache.reserved = 0;
    cache.cache_bytes = 1;
    EXPECT(INVALID_CONFIG, gds_kv_device_open(kv, context, &cache, &more));
    cache.struct_size = 0;
    EXPECT(STRUCT_SIZE, gds_kv_device_open(kv, context, &cache, &more));
}

static void wrong_files(void)
{
    gds_kv_t *other = NULL;
    gds_kv_config_t config = small();
    EXPECT(IO, gds_kv_open(path, &config, &other));
    TRUE(strstr(gds_last_error_message(), path) != NULL);
    EXPECT(IO, gds_kv_destroy(path));
    gds_kv_repair_report_t repaired = GDS_KV_REPAIR_REPORT_INIT;
    EXPECT(IO, gds_kv_repair(path, NULL, NULL, &repaired));
    EXPECT(NOT_FOUND, gds_kv_repair(in_folder("absent"), NULL, NULL, &repaired));
    EXPECT(INVALID_ARGUMENT, gds_kv_repair(NULL, NULL, NULL, &repaired));
    EXPECT(INVALID_ARGUMENT, gds_kv_repair(path, NULL, NULL, NULL));
    EXPECT(UNSUPPORTED_FILE, gds_kv_open(folder, &config, &other));
    EXPECT(NOT_FOUND, gds_kv_open(in_folder("no/such/folder"), &config, &other));
    config.create = GDS_SWITCH_OFF;
    EXPECT(NOT_FOUND, gds_kv_open(in_folder("absent"), &config, &other));
    EXPECT(NOT_FOUND, gds_kv_destroy(in_folder("absent")));

    /* A file that is no store is neither opened nor overwritten nor removed. */
    char text[2 * BLOCK], back[2 * BLOCK];
    memset(text, 'x', sizeof text);
    const char *foreign = in_folder("foreign");
    int fd = open(foreign, O_CREAT | O_RDWR, 0600);
    TRUE(fd >= 0 && write(fd, text, sizeof text) == (ssize_t)sizeof text);
    EXPECT(UNSUPPORTED_FILE, gds_kv_open(foreign, &config, &other));
    config = small();
    EXPECT(UNSUPPORTED_FILE, gds_kv_open(foreign, &config, &other));
    EXPECT(UNSUPPORTED_FILE, gds_kv_destroy(foreign));
    EXPECT(UNSUPPORTED_FILE, gds_kv_repair(foreign, NULL, NULL, &repaired));
    TRUE(pread(fd, back, sizeof back, 0) == (ssize_t)sizeof back);
    TRUE(memcmp(text, back, sizeof text) == 0);
    config.exclusive = GDS_SWITCH_ON;
    EXPECT(IO, gds_kv_open(foreign, &config, &other));
    TRUE(fchmod(fd, 0400) == 0);
    /* Root may write it all the same. */
    if (geteuid() != 0) {
        config = small();
        EXPECT(PERMISSION_DENIED, gds_kv_open(foreign, &config, &other));
        EXPECT(PERMISSION_DENIED, gds_kv_destroy(foreign));
    }
    close(fd);
    unlink(foreign);
    TRUE(other == NULL);
}

static void wrong_keys_and_values(void)
{
    char value[8];
    char *longest = calloc(1, 70000);
    TRUE(longest != NULL);
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, NULL, 3, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, "", 0, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, longest, 65537, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, longest, 65536, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, "k", UINT64_MAX, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, KEY, NULL, 1, NULL));
    EXPECT(OUT_OF_RANGE, gds_kv_put(kv, KEY, "v", UINT64_MAX, NULL));
    EXPECT(OUT_OF_RANGE, gds_kv_put_async(kv, KEY, "v", (1ull << 40) + 1, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_put_async(kv, KEY, "v", 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_put(kv, KEY, "v", 1, (uint64_t *)(value + 1)));
    EXPECT(INVALID_ARGUMENT, gds_kv_delete(kv, "", 0, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_delete(kv, NULL, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_delete_async(kv, KEY, NULL, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_get(kv, KEY, NULL, 5, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_get(kv, NULL, 1, value, 5, &n));
    EXPECT(NOT_FOUND, gds_kv_get(kv, "absent", 6, value, 5, &n));
    n = 99;
    EXPECT(BUFFER_TOO_SMALL, gds_kv_get(kv, KEY, value, 4, &n));
    TRUE(n == 99 && strstr(gds_last_error_message(), "5 bytes") != NULL);
    EXPECT(OK, gds_kv_get(kv, KEY, NULL, 0, &n));
    TRUE(n == 5);
    EXPECT(OK, gds_kv_get(kv, KEY, value, sizeof value, &n));
    TRUE(n == 5 && memcmp(value, "value", 5) == 0);
    EXPECT(NOT_FOUND, gds_kv_get_range(kv, "absent", 6, 0, value, 1, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_get_range(kv, KEY, 0, NULL, 1, &n));
    EXPECT(OK, gds_kv_get_range(kv, KEY, UINT64_MAX, value, 1, &n));
    TRUE(n == 0);
    EXPECT(NOT_FOUND, gds_kv_value_size(kv, "absent", 6, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_value_size(kv, KEY, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_contains(kv, KEY, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_contains(kv, "", 0, &(uint32_t){ 0 }));
    free(longest);
}

static void never(uint64_t lsn, int32_t status, void *user_data)
{
    (void)lsn, (void)status, (void)user_data;
    TRUE(0);
}

static void never_release(void *user_data)
{
    (void)user_data;
    TRUE(0);
}

static void batches_and_waiting(void)
{
    gds_kv_batch_t *batch = NULL;
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_create(NULL));
    EXPECT(OK, gds_kv_batch_create(&batch));
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_put(NULL, KEY, "v", 1));
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_put(batch, "", 0, "v", 1));
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_put(batch, KEY, NULL, 1));
    EXPECT(OUT_OF_RANGE, gds_kv_batch_put(batch, KEY, "v", UINT64_MAX));
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_delete(batch, NULL, 1));
    EXPECT(INVALID_ARGUMENT, gds_kv_batch_clear(NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_write(kv, NULL, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_write(NULL, batch, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_write_async(kv, batch, NULL));
    EXPECT(OK, gds_kv_write(kv, batch, &n));
    /* More than one commit can have changes nothing. */
    char value[1000];
    memset(value, 1, sizeof value);
    for (uint64_t i = 0; i < 200; i++) {
        EXPECT(OK, gds_kv_batch_put(batch, &i, sizeof i, value, sizeof value));
    }
    EXPECT(OUT_OF_RANGE, gds_kv_write(kv, batch, &n));
    EXPECT(NOT_FOUND, gds_kv_value_size(kv, &(uint64_t){ 0 }, 8, &n));
    EXPECT(OK, gds_kv_batch_clear(batch));
    gds_kv_batch_destroy(batch);
    gds_kv_batch_destroy(batch);
    gds_kv_batch_destroy(NULL);
    EXPECT(INVALID_HANDLE, gds_kv_batch_put(batch, KEY, "v", 1));
    EXPECT(INVALID_HANDLE, gds_kv_write(kv, batch, NULL));

    EXPECT(INVALID_ARGUMENT, gds_kv_durable_lsn(kv, NULL));
    EXPECT(OUT_OF_RANGE, gds_kv_wait(kv, UINT64_MAX, -1));
    EXPECT(INVALID_ARGUMENT, gds_kv_wait(kv, 1, -2));
    EXPECT(OK, gds_kv_wait(kv, 0, 0));
    EXPECT(INVALID_ARGUMENT, gds_kv_on_durable(kv, 1, NULL, NULL, NULL));
    /* Refused: neither is called. */
    EXPECT(OUT_OF_RANGE, gds_kv_on_durable(kv, UINT64_MAX, never, NULL, never_release));
}

static void writers_scans_and_snapshots(void)
{
    gds_kv_writer_t *writer = NULL;
    gds_kv_scan_t *scan = NULL;
    gds_kv_snapshot_t *snapshot = NULL;
    gds_kv_entry_t entry;
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_open(kv, "", 0, 0, &writer));
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_open(kv, KEY, 0, NULL));
    EXPECT(OK, gds_kv_writer_open(kv, KEY, UINT64_MAX, &writer));
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_append(writer, NULL, 1));
    EXPECT(OUT_OF_RANGE, gds_kv_writer_append(writer, "v", UINT64_MAX));
    EXPECT(OK, gds_kv_writer_append(writer, "other", 5));
    gds_kv_writer_close(writer);
    EXPECT(OK, gds_kv_value_size(kv, KEY, &n));
    TRUE(n == 5);
    EXPECT(OK, gds_kv_writer_open(kv, "written", 7, 0, &writer));
    EXPECT(OK, gds_kv_writer_append(writer, NULL, 0));
    EXPECT(OK, gds_kv_writer_commit(writer, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_commit(writer, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_append(writer, "v", 1));
    EXPECT(INVALID_ARGUMENT, gds_kv_writer_commit_async(writer, NULL));
    gds_kv_writer_close(writer);
    EXPECT(INVALID_HANDLE, gds_kv_writer_append(writer, "v", 1));
    gds_kv_writer_close(NULL);

    EXPECT(INVALID_ARGUMENT, gds_kv_snapshot_open(kv, NULL));
    EXPECT(OK, gds_kv_snapshot_open(kv, &snapshot));
    EXPECT(NOT_FOUND, gds_kv_snapshot_get(snapshot, "absent", 6, NULL, 0, &n));
    EXPECT(BUFFER_TOO_SMALL, gds_kv_snapshot_get(snapshot, KEY, &entry, 1, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_snapshot_get(snapshot, KEY, NULL, 1, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_snapshot_lsn(snapshot, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_snapshot_scan(snapshot, NULL, 1, NULL, 0, 0, &scan));
    EXPECT(INVALID_ARGUMENT, gds_kv_scan_open(kv, NULL, 0, NULL, 1, 0, &scan));
    EXPECT(OUT_OF_RANGE, gds_kv_scan_open(kv, "a", UINT64_MAX, NULL, 0, 0, &scan));
    EXPECT(INVALID_ARGUMENT, gds_kv_scan_open(kv, NULL, 0, NULL, 0, 0, NULL));
    /* An end before the start has no keys. */
    EXPECT(OK, gds_kv_scan_open(kv, "z", 1, "a", 1, 0, &scan));
    EXPECT(END, gds_kv_scan_next(scan, &entry));
    EXPECT(END, gds_kv_scan_next_key(scan, &entry));
    EXPECT(INVALID_ARGUMENT, gds_kv_scan_next(scan, NULL));
    gds_kv_scan_close(scan);
    gds_kv_scan_close(scan);
    gds_kv_scan_close(NULL);
    EXPECT(INVALID_HANDLE, gds_kv_scan_next(scan, &entry));
    gds_kv_snapshot_close(snapshot);
    EXPECT(INVALID_HANDLE, gds_kv_snapshot_get(snapshot, KEY, NULL, 0, &n));
    gds_kv_snapshot_close(NULL);
}

static void reports(void)
{
    gds_kv_stats_t stats = GDS_KV_STATS_INIT;
    gds_kv_report_t report = GDS_KV_REPORT_INIT;
    gds_kv_device_stats_t counted = GDS_KV_DEVICE_STATS_INIT;
    EXPECT(INVALID_ARGUMENT, gds_kv_stats(kv, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_verify(kv, NULL, NULL, NULL));
    stats.struct_size = report.struct_size = counted.struct_size = 4;
    EXPECT(STRUCT_SIZE, gds_kv_stats(kv, &stats));
    EXPECT(STRUCT_SIZE, gds_kv_verify(kv, NULL, NULL, &report));
    EXPECT(STRUCT_SIZE, gds_kv_device_stats(device, &counted));
    EXPECT(INVALID_ARGUMENT, gds_kv_sync(NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_checkpoint(NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_compact(NULL, NULL));
    report.struct_size = sizeof report;
    EXPECT(OK, gds_kv_verify(kv, NULL, NULL, &report));
    TRUE(report.problems == 0 && report.keys == 2);
}

static void device_memory(void)
{
    gds_kv_device_t *other = NULL;
    gds_kv_pointer_t held = { NULL, 0, 0 };
    gds_kv_got_t got[2];
    EXPECT(INVALID_ARGUMENT, gds_kv_device_open(NULL, context, NULL, &other));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_open(kv, NULL, NULL, &other));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_open(kv, context, NULL, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get(device, KEY, NULL, 0, 5, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get(NULL, KEY, buffer, 0, 5, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get(device, "", 0, buffer, 0, 5, &n));
    EXPECT(NOT_FOUND, gds_kv_device_get(device, "absent", 6, buffer, 0, 5, &n));
    EXPECT(BUFFER_TOO_SMALL, gds_kv_device_get(device, KEY, buffer, 0, 4, &n));
    EXPECT(OUT_OF_RANGE, gds_kv_device_get(device, KEY, buffer, 0, 65537, &n));
    EXPECT(OUT_OF_RANGE, gds_kv_device_get(device, KEY, buffer, UINT64_MAX, 5, &n));
    EXPECT(OUT_OF_RANGE, gds_kv_device_get_range(device, KEY, 0, buffer, 65536, 1, &n));
    EXPECT(OK, gds_kv_device_get_range(device, KEY, 9, buffer, 0, 9, &n));
    TRUE(n == 0);
    EXPECT(OUT_OF_RANGE, gds_kv_device_put(device, KEY, buffer, 0, UINT64_MAX, NULL));
    EXPECT(OUT_OF_RANGE, gds_kv_device_put(device, KEY, buffer, 65536, 1, NULL));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_put_async(device, KEY, buffer, 0, 1, NULL));
    gds_kv_get_t gets[2] = { { KEY, 0, UINT64_MAX, buffer, 0 },
                             { "absent", 6, 0, 1, buffer, 100 } };
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get_many(device, NULL, 2, got));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get_many(device, gets, 2, NULL));
    EXPECT(OUT_OF_RANGE, gds_kv_device_get_many(device, gets, UINT64_MAX, got));
    EXPECT(OK, gds_kv_device_get_many(device, NULL, 0, NULL));
    EXPECT(OK, gds_kv_device_get_many(device, gets, 2, got));
    TRUE(got[0].status == GDS_STATUS_OK && got[0].bytes == 5);
    TRUE(got[1].status == GDS_STATUS_NOT_FOUND);
    gets[1].key_size = 0;
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get_many(device, gets, 2, got));
    gets[1].buffer = (const gds_buffer_t *)(const void *)kv;
    EXPECT(INVALID_HANDLE, gds_kv_device_get_many(device, gets, 2, got));

    EXPECT(INVALID_ARGUMENT, gds_kv_device_get_ptr(device, KEY, NULL));
    EXPECT(NOT_FOUND, gds_kv_device_get_ptr(device, "absent", 6, &held));
    EXPECT(NOT_FOUND, gds_kv_device_cache(device, "absent", 6));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_release(device, NULL));
    EXPECT(OK, gds_kv_device_release(device, &held));
    EXPECT(OK, gds_kv_device_get_ptr(device, KEY, &held));
    gds_kv_pointer_t copy = held, large;
    EXPECT(OK, gds_kv_device_release(device, &held));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_release(device, &copy));
    EXPECT(OK, gds_kv_device_put(device, "large", 5, buffer, 0, 20000, NULL));
    EXPECT(OUT_OF_DEVICE_MEMORY, gds_kv_device_get_ptr(device, "large", 5, &large));
    EXPECT(OK, gds_kv_device_put(device, "large", 5, buffer, 0, 16000, NULL));
    EXPECT(OK, gds_kv_device_get_ptr(device, "large", 5, &large));
    EXPECT(ALL_PINNED, gds_kv_device_get_ptr(device, KEY, &held));
    EXPECT(OK, gds_kv_device_release(device, &large));
    EXPECT(OK, gds_kv_device_open(kv, context, NULL, &other));
    EXPECT(NOT_SUPPORTED, gds_kv_device_get_ptr(other, KEY, &held));
    gds_kv_device_close(other);
    gds_kv_device_close(other);
    EXPECT(INVALID_HANDLE, gds_kv_device_get(other, KEY, buffer, 0, 5, &n));

    gds_config_t host = GDS_CONFIG_INIT;
    host.gpu_device = GDS_DEVICE_HOST;
    gds_context_t *second;
    gds_buffer_t *foreign;
    EXPECT(OK, gds_context_open(&host, &second));
    EXPECT(OK, gds_buffer_alloc(second, GDS_MEMORY_PINNED, BLOCK, &foreign));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_get(device, KEY, foreign, 0, 5, &n));
    EXPECT(INVALID_ARGUMENT, gds_kv_device_put(device, KEY, foreign, 0, 5, NULL));
    gds_buffer_free(foreign);
    gds_context_close(second);
}

/* A store that may not grow is filled: the answer is a status, and what was put is there. */
static void full(void)
{
    gds_kv_t *tiny;
    gds_kv_config_t config = small();
    char file[700], value[10000];
    snprintf(file, sizeof file, "%s", in_folder("full"));
    config.size_bytes = 2u << 20;
    EXPECT(OK, gds_kv_open(file, &config, &tiny));
    memset(value, 7, sizeof value);
    uint64_t put = 0;
    gds_status_t status = GDS_STATUS_OK;
    while (put < 1000) {
        status = gds_kv_put(tiny, &put, sizeof put, value, sizeof value, NULL);
        if (status != GDS_STATUS_OK) {
            break;
        }
        put++;
    }
    TRUE(put > 50 && put < 210);
    TRUE(status == GDS_STATUS_NO_SPACE || status == GDS_STATUS_TIMED_OUT);
    TRUE(gds_last_error_message()[0] != '\0');
    for (uint64_t key = 0; key < put; key++) {
        EXPECT(OK, gds_kv_get(tiny, &key, sizeof key, value, sizeof value, &n));
        TRUE(n == sizeof value && value[9999] == 7);
    }
    /* Deleting makes room. */
    for (uint64_t key = 0; key < put; key++) {
        EXPECT(OK, gds_kv_delete(tiny, &key, sizeof key, NULL));
    }
    EXPECT(OK, gds_kv_put(tiny, KEY, value, sizeof value, NULL));
    gds_kv_close(tiny);
    gds_kv_repair_report_t report = GDS_KV_REPAIR_REPORT_INIT;
    EXPECT(OK, gds_kv_repair(file, NULL, NULL, &report));
    TRUE(report.was_clean == 1 && report.keys == 1 && report.lost == 0);
    EXPECT(OK, gds_kv_destroy(file));
}

static void closed_handles(void)
{
    gds_kv_scan_t *scan;
    gds_kv_entry_t entry;
    gds_kv_t *again;
    EXPECT(INVALID_HANDLE, gds_kv_put((gds_kv_t *)(void *)buffer, KEY, "v", 1, NULL));
    EXPECT(INVALID_HANDLE, gds_kv_sync((gds_kv_t *)(void *)&entry));
    EXPECT(OK, gds_kv_scan_open(kv, NULL, 0, NULL, 0, 0, &scan));
    gds_kv_close(kv);
    gds_kv_close(kv);
    gds_kv_close(NULL);
    EXPECT(INVALID_HANDLE, gds_kv_put(kv, KEY, "v", 1, NULL));
    EXPECT(INVALID_HANDLE, gds_kv_get(kv, KEY, NULL, 0, &n));
    EXPECT(INVALID_HANDLE, gds_kv_sync(kv));
    EXPECT(INVALID_HANDLE, gds_kv_wait(kv, 1, 0));
    /* The order does not matter: the device and the scan go on. */
    EXPECT(OK, gds_kv_device_put(device, "late", 4, buffer, 0, 9000, NULL));
    EXPECT(OK, gds_kv_scan_next(scan, &entry));
    gds_kv_config_t config = small();
    EXPECT(IO, gds_kv_open(path, &config, &again));
    gds_kv_device_close(device);
    gds_kv_device_close(NULL);
    EXPECT(OK, gds_kv_scan_next_key(scan, &entry));
    gds_kv_scan_close(scan);
    EXPECT(OK, gds_kv_open(path, &config, &again));
    EXPECT(OK, gds_kv_value_size(again, "late", 4, &n));
    TRUE(n == 9000);
    gds_kv_close(again);
    gds_buffer_free(buffer);
    gds_context_close(context);
    EXPECT(OK, gds_kv_destroy(path));
}

int main(void)
{
    if (!open_all()) {
        return 1;
    }
    wrong_configurations();
    wrong_files();
    wrong_keys_and_values();
    batches_and_waiting();
    writers_scans_and_snapshots();
    reports();
    device_memory();
    full();
    closed_handles();
    TRUE(rmdir(folder) == 0);
    printf("%d answers checked, %d wrong\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
