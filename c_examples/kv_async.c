/*
 * Commits that do not wait: each gives a number, the log makes many of them durable with one
 * write, and whoever needs to know waits for a number or is called back.
 *
 *   kv_async
 *
 * Writes a scratch store in TMPDIR (or /tmp). No GPU is needed.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gds_rs.h"

#define COMMITS 100000u
#define CALLBACKS 100u

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

struct told {
    atomic_uint calls;
    atomic_uint failures;
    atomic_uint releases;
};

/* On the log's thread: short, and never into the store. */
static void on_durable(uint64_t lsn, int32_t status, void *user_data)
{
    struct told *told = user_data;
    atomic_fetch_add(&told->calls, 1);
    if (lsn == 0 || status != GDS_STATUS_OK) {
        atomic_fetch_add(&told->failures, 1);
    }
}

static void on_release(void *user_data)
{
    struct told *told = user_data;
    atomic_fetch_add(&told->releases, 1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(void)
{
    char path[4096];
    const char *directory = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/gds_kv_async.%ld", directory ? directory : "/tmp",
             (long)getpid());
    gds_kv_t *kv;
    GDS_CHECK(gds_kv_open(path, NULL, &kv));

    struct told told = { 0 };
    uint64_t last = 0, before = 0, durable;
    double begin = now();
    for (uint32_t i = 0; i < COMMITS; i++) {
        uint64_t key = i, value[8] = { i, i * 3u };
        GDS_CHECK(gds_kv_put_async(kv, &key, sizeof key, value, sizeof value, &last));
        if (last <= before) {
            fprintf(stderr, "numbers must grow: %llu after %llu\n",
                    (unsigned long long)last, (unsigned long long)before);
            return 1;
        }
        before = last;
        if (i % (COMMITS / CALLBACKS) == 0) {
            GDS_CHECK(gds_kv_on_durable(kv, last, on_durable, &told, on_release));
        }
    }
    double visible = now();
    /* Only looks; most likely the last ones are on their way. */
    gds_status_t state = gds_kv_wait(kv, last, 0);
    if (state != GDS_STATUS_OK && state != GDS_STATUS_PENDING) {
        GDS_CHECK(state);
    }
    GDS_CHECK(gds_kv_wait(kv, last, -1));
    double end = now();
    GDS_CHECK(gds_kv_durable_lsn(kv, &durable));

    gds_kv_stats_t stats = GDS_KV_STATS_INIT;
    GDS_CHECK(gds_kv_stats(kv, &stats));
    printf("%u commits: visible after %.3f s, durable after %.3f s, in %llu writes of the log\n",
           COMMITS, visible - begin, end - begin, (unsigned long long)stats.wal_batches);
    int good = durable >= last && stats.keys == COMMITS && stats.wal_batches < COMMITS;

    /* A callback for what is durable already comes at once, on this thread. */
    unsigned calls = atomic_load(&told.calls);
    GDS_CHECK(gds_kv_on_durable(kv, 1, on_durable, &told, on_release));
    good = good && atomic_load(&told.calls) > calls - 1;

    /* Closing ends the log's thread: nothing calls back after it. */
    gds_kv_close(kv);
    good = good && atomic_load(&told.calls) == CALLBACKS + 1 &&
           atomic_load(&told.releases) == CALLBACKS + 1 && atomic_load(&told.failures) == 0;

    GDS_CHECK(gds_kv_open(path, NULL, &kv));
    for (uint64_t key = 0; key < COMMITS; key += 997) {
        uint64_t value[8], size;
        GDS_CHECK(gds_kv_get(kv, &key, sizeof key, value, sizeof value, &size));
        good = good && size == sizeof value && value[0] == key && value[1] == key * 3u;
    }
    gds_kv_close(kv);
    GDS_CHECK(gds_kv_destroy(path));
    puts(good ? "every commit was there" : "WRONG");
    return good ? 0 : 1;
}
