/*
 * Values of a store in device memory: put from it, brought back to it, verified where they
 * land, and kept there for kernels.
 *
 *   kv_device
 *
 * Writes a scratch store in TMPDIR (or /tmp). GDS_DEVICE chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define VALUES ((uint64_t)16)
#define SIZE ((uint64_t)300000)

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

static unsigned char byte_of(uint64_t value, uint64_t at)
{
    return (unsigned char)(value * 31 + at * 7 + at / 253);
}

int main(void)
{
    char path[4096];
    const char *directory = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/gds_kv_device.%ld", directory ? directory : "/tmp",
             (long)getpid());
    gds_context_t *context;
    GDS_CHECK(gds_context_open(NULL, &context));
    gds_kv_config_t config = GDS_KV_CONFIG_INIT;
    config.wal_bytes = 4u << 20;
    config.segment_bytes = 4u << 20;
    gds_kv_t *kv;
    GDS_CHECK(gds_kv_open(path, &config, &kv));

    /* 1 MiB of device memory for values that kernels use in place. */
    gds_kv_device_config_t cache = GDS_KV_DEVICE_CONFIG_INIT;
    cache.cache_bytes = 1u << 20;
    gds_kv_device_t *device;
    GDS_CHECK(gds_kv_device_open(kv, context, &cache, &device));

    gds_buffer_t *memory, *pinned;
    void *bytes;
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, VALUES * SIZE, &memory));
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, VALUES * SIZE, &pinned));
    GDS_CHECK(gds_buffer_address(pinned, &bytes));
    unsigned char *host = bytes;

    /* Values from host memory, and one that a device would have made. */
    for (uint64_t v = 0; v < VALUES; v++) {
        for (uint64_t i = 0; i < SIZE; i++) {
            host[v * SIZE + i] = byte_of(v, i);
        }
        GDS_CHECK(gds_kv_put_async(kv, &v, sizeof v, host + v * SIZE, SIZE - v, &(uint64_t){ 0 }));
    }
    GDS_CHECK(gds_kv_sync(kv));
    uint64_t size, arrived;
    GDS_CHECK(gds_kv_device_get(device, &(uint64_t){ 3 }, 8, memory, 0, SIZE, &size));
    REQUIRE(size == SIZE - 3);
    GDS_CHECK(gds_kv_device_put(device, "copy", 4, memory, 0, size, NULL));

    /* All of them at once, into device memory; each has its own answer. */
    uint64_t keys[VALUES];
    gds_kv_get_t gets[VALUES];
    gds_kv_got_t gots[VALUES];
    for (uint64_t v = 0; v < VALUES; v++) {
        keys[v] = v == VALUES - 1 ? 999 : v;
        gets[v] = (gds_kv_get_t){ &keys[v], 8, 0, UINT64_MAX, memory, v * SIZE };
    }
    GDS_CHECK(gds_kv_device_get_many(device, gets, VALUES, gots));
    for (uint64_t v = 0; v + 1 < VALUES; v++) {
        REQUIRE(gots[v].status == GDS_STATUS_OK && gots[v].bytes == SIZE - v);
    }
    REQUIRE(gots[VALUES - 1].status == GDS_STATUS_NOT_FOUND);

    /* Ranges into pinned memory, where this program can look. */
    memset(host, 0, (size_t)(VALUES * SIZE));
    GDS_CHECK(gds_kv_device_get_range(device, "copy", 4, 4095, pinned, 1, 100000, &arrived));
    REQUIRE(arrived == 100000 && host[0] == 0 && host[arrived + 1] == 0);
    for (uint64_t i = 0; i < arrived; i++) {
        REQUIRE(host[i + 1] == byte_of(3, 4095 + i));
    }
    GDS_CHECK(gds_kv_device_get_range(device, "copy", 4, size - 2, pinned, 0, 50, &arrived));
    REQUIRE(arrived == 2);

    /* A value that stays in device memory: kernels use the address until it is released. */
    gds_kv_pointer_t held, again;
    GDS_CHECK(gds_kv_device_cache(device, "copy", 4));
    GDS_CHECK(gds_kv_device_get_ptr(device, "copy", 4, &held));
    GDS_CHECK(gds_kv_device_get_ptr(device, "copy", 4, &again));
    REQUIRE(held.address == again.address && held.size_bytes == size);
    GDS_CHECK(gds_kv_device_release(device, &held));
    GDS_CHECK(gds_kv_device_release(device, &again));
    REQUIRE(held.address == NULL);

    gds_kv_device_stats_t stats = GDS_KV_DEVICE_STATS_INIT;
    GDS_CHECK(gds_kv_device_stats(device, &stats));
    printf("%llu values, %llu bytes in %llu transfers, %llu checksums compared where they "
           "landed; %llu hits, %llu misses\n",
           (unsigned long long)stats.gets, (unsigned long long)stats.bytes_read,
           (unsigned long long)stats.transfers, (unsigned long long)stats.chunks_verified,
           (unsigned long long)stats.hits, (unsigned long long)stats.misses);
    REQUIRE(stats.rereads == 0 && stats.hits == 2 && stats.misses == 1 && stats.held == 0);

    /* The order does not matter: the device keeps the store and the context. */
    gds_kv_close(kv);
    gds_context_close(context);
    GDS_CHECK(gds_kv_device_get(device, "copy", 4, memory, 0, SIZE, &size));
    gds_kv_device_close(device);
    gds_buffer_free(memory);
    gds_buffer_free(pinned);
    GDS_CHECK(gds_kv_destroy(path));
    puts("every value was what it should be");
    return 0;
}
