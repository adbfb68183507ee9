/*
 * A key-value store in one file: single keys, atomic batches, scans, snapshots, and what is
 * there when it is opened again.
 *
 *   kv_basic [STORE]          STORE is made, and removed at the end
 *
 * Without STORE a scratch file in TMPDIR (or /tmp). No GPU is needed.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* A store of moderate size: the defaults suit servers. */
static gds_kv_t *open_store(const char *path)
{
    gds_kv_config_t config = GDS_KV_CONFIG_INIT;
    config.wal_bytes = 4u << 20;
    config.segment_bytes = 4u << 20;
    gds_kv_t *kv;
    GDS_CHECK(gds_kv_open(path, &config, &kv));
    return kv;
}

static void put_text(const gds_kv_t *kv, const char *key, const char *value)
{
    GDS_CHECK(gds_kv_put(kv, key, strlen(key), value, strlen(value), NULL));
}

static int is_text(const gds_kv_t *kv, const char *key, const char *value)
{
    char found[64];
    uint64_t size;
    GDS_CHECK(gds_kv_get(kv, key, strlen(key), found, sizeof found, &size));
    return size == strlen(value) && memcmp(found, value, size) == 0;
}

static void single_keys(const gds_kv_t *kv)
{
    put_text(kv, "city/paris", "2.1 million");
    put_text(kv, "city/oslo", "0.7 million");
    put_text(kv, "city/oslo", "709,000");
    REQUIRE(is_text(kv, "city/oslo", "709,000"));

    uint32_t found, existed;
    GDS_CHECK(gds_kv_delete(kv, "city/paris", 10, &existed));
    GDS_CHECK(gds_kv_contains(kv, "city/paris", 10, &found));
    REQUIRE(existed == 1 && found == 0);
    char value[8];
    REQUIRE(gds_kv_get(kv, "city/paris", 10, value, sizeof value, NULL) ==
            GDS_STATUS_NOT_FOUND);

    /* A value of any size; its size first, then a part of it. */
    uint64_t size = (3u << 20) + 5, told, copied;
    char *large = malloc((size_t)size);
    REQUIRE(large != NULL);
    for (uint64_t i = 0; i < size; i++) {
        large[i] = (char)(i * 7 + i / 251);
    }
    GDS_CHECK(gds_kv_put(kv, "large", 5, large, size, NULL));
    GDS_CHECK(gds_kv_get(kv, "large", 5, NULL, 0, &told));
    REQUIRE(told == size);
    GDS_CHECK(gds_kv_get_range(kv, "large", 5, size - 3, value, sizeof value, &copied));
    REQUIRE(copied == 3 && memcmp(value, large + size - 3, 3) == 0);
    /* The same piece by piece, for values that no memory holds. */
    gds_kv_writer_t *writer;
    GDS_CHECK(gds_kv_writer_open(kv, "pieces", 6, size, &writer));
    for (uint64_t at = 0; at < size; at += 100000) {
        uint64_t now = size - at < 100000 ? size - at : 100000;
        GDS_CHECK(gds_kv_writer_append(writer, large + at, now));
    }
    GDS_CHECK(gds_kv_writer_commit(writer, NULL));
    gds_kv_writer_close(writer);
    char *back = malloc((size_t)size);
    REQUIRE(back != NULL);
    GDS_CHECK(gds_kv_get(kv, "pieces", 6, back, size, &told));
    REQUIRE(told == size && memcmp(back, large, (size_t)size) == 0);
    free(back);
    free(large);
}

/* All of it or nothing, whatever happens in between. */
static void accounts(const gds_kv_t *kv)
{
    gds_kv_batch_t *batch;
    GDS_CHECK(gds_kv_batch_create(&batch));
    GDS_CHECK(gds_kv_batch_put(batch, "account/ann", 11, "90", 2));
    GDS_CHECK(gds_kv_batch_put(batch, "account/bob", 11, "110", 3));
    GDS_CHECK(gds_kv_batch_delete(batch, "city/oslo", 9));
    GDS_CHECK(gds_kv_write(kv, batch, NULL));
    gds_kv_batch_destroy(batch);
}

static uint64_t count(gds_kv_scan_t *scan, const char *prefix)
{
    gds_kv_entry_t entry;
    uint64_t keys = 0;
    gds_status_t status;
    while ((status = gds_kv_scan_next(scan, &entry)) == GDS_STATUS_OK) {
        REQUIRE(entry.key_size >= strlen(prefix) &&
                memcmp(entry.key, prefix, strlen(prefix)) == 0);
        printf("  %.*s = %.*s\n", (int)entry.key_size, (const char *)entry.key,
               (int)entry.value_size, (const char *)entry.value);
        keys++;
    }
    REQUIRE(status == GDS_STATUS_END);
    gds_kv_scan_close(scan);
    return keys;
}

static void scans_and_snapshots(const gds_kv_t *kv)
{
    gds_kv_snapshot_t *before;
    GDS_CHECK(gds_kv_snapshot_open(kv, &before));
    put_text(kv, "account/cid", "5");
    put_text(kv, "account/ann", "95");

    gds_kv_scan_t *scan;
    puts("accounts now:");
    GDS_CHECK(gds_kv_scan_open(kv, "account/", 8, "account0", 8, 0, &scan));
    REQUIRE(count(scan, "account/") == 3);
    puts("accounts before:");
    GDS_CHECK(gds_kv_snapshot_scan(before, "account/", 8, "account0", 8, 0, &scan));
    REQUIRE(count(scan, "account/") == 2);
    char value[8];
    uint64_t size;
    GDS_CHECK(gds_kv_snapshot_get(before, "account/ann", 11, value, sizeof value, &size));
    REQUIRE(size == 2 && memcmp(value, "90", 2) == 0);
    gds_kv_snapshot_close(before);

    /* Keys alone, and at most two of them. */
    gds_kv_entry_t entry;
    GDS_CHECK(gds_kv_scan_open(kv, NULL, 0, NULL, 0, 2, &scan));
    GDS_CHECK(gds_kv_scan_next_key(scan, &entry));
    GDS_CHECK(gds_kv_scan_next_key(scan, &entry));
    REQUIRE(entry.value == NULL && entry.value_size == 3);
    REQUIRE(gds_kv_scan_next_key(scan, &entry) == GDS_STATUS_END);
    gds_kv_scan_close(scan);
}

int main(int argc, char **argv)
{
    char path[4096];
    const char *directory = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/gds_kv_basic.%ld", directory ? directory : "/tmp",
             (long)getpid());
    /* ctest gives a library as the argument: a store is not made over that. */
    if (argc > 1 && access(argv[1], F_OK) != 0) {
        snprintf(path, sizeof path, "%s", argv[1]);
    }

    gds_kv_t *kv = open_store(path);
    single_keys(kv);
    accounts(kv);
    scans_and_snapshots(kv);
    gds_kv_close(kv);

    kv = open_store(path);
    REQUIRE(is_text(kv, "account/ann", "95"));
    uint64_t size;
    REQUIRE(gds_kv_value_size(kv, "city/oslo", 9, &size) == GDS_STATUS_NOT_FOUND);
    GDS_CHECK(gds_kv_value_size(kv, "large", 5, &size));
    REQUIRE(size == (3u << 20) + 5);
    GDS_CHECK(gds_kv_checkpoint(kv));
    GDS_CHECK(gds_kv_compact(kv, NULL));
    gds_kv_report_t report = GDS_KV_REPORT_INIT;
    GDS_CHECK(gds_kv_verify(kv, NULL, NULL, &report));
    gds_kv_stats_t stats = GDS_KV_STATS_INIT;
    GDS_CHECK(gds_kv_stats(kv, &stats));
    printf("%llu keys, %llu bytes verified, %llu problems; %llu of %llu segments free\n",
           (unsigned long long)report.keys, (unsigned long long)report.bytes,
           (unsigned long long)report.problems, (unsigned long long)stats.segments_free,
           (unsigned long long)stats.segments);
    REQUIRE(report.problems == 0 && report.keys == stats.keys && stats.poisoned == 0);
    gds_kv_close(kv);
    GDS_CHECK(gds_kv_destroy(path));
    REQUIRE(access(path, F_OK) != 0);
    return 0;
}
