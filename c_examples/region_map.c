/*
 * Maps ranges of a file to device memory, as a loader of tensors does: each range is read once,
 * found again as long as there is room, and makes room when there is none. Then changes a copy of
 * the first bytes through a mapping.
 *
 *   region_map [FILE]        without FILE it maps its own program file
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
#define PIECE ((uint64_t)1000)
#define COUNT ((uint64_t)8)

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

/* What a region holds, by way of a scratch file: it needs no CUDA here. */
static void fetch(const gds_context_t *context, const gds_region_t *region, void *into,
                  uint64_t size)
{
    gds_file_t *scratch = open_scratch_file(context);
    gds_buffer_t *memory, *host;
    void *address;
    GDS_CHECK(gds_region_address(region, &address));
    GDS_CHECK(gds_buffer_wrap(context, address, size, &memory));
    GDS_CHECK(gds_buffer_wrap(context, into, size, &host));
    GDS_CHECK(gds_write(scratch, 0, memory, 0, size, NULL));
    GDS_CHECK(gds_read(scratch, 0, host, 0, size, NULL));
    gds_buffer_free(host);
    gds_buffer_free(memory);
    gds_file_close(scratch);
}

static int is_file(const gds_context_t *context, const gds_region_t *region, int plain)
{
    static unsigned char mapped[PIECE], wanted[PIECE];
    gds_region_info_t info = GDS_REGION_INFO_INIT;
    GDS_CHECK(gds_region_info(region, &info));
    fetch(context, region, mapped, info.size);
    ssize_t got = pread(plain, wanted, info.size, (off_t)info.offset);
    return got == (ssize_t)info.size && memcmp(mapped, wanted, info.size) == 0;
}

/* Changes a scratch file through a mapping: only what is marked is written. */
static int change(const gds_context_t *context, const gds_region_set_t *set)
{
    char before[12] = "hello world", after[12] = "";
    gds_file_t *file = open_scratch_file(context);
    gds_buffer_t *host, *device;
    gds_region_t *region;
    void *address;
    uint64_t bytes;

    GDS_CHECK(gds_buffer_wrap(context, before, sizeof before, &host));
    GDS_CHECK(gds_write(file, 0, host, 0, sizeof before, NULL));
    GDS_CHECK(gds_region_map(set, file, 0, sizeof before, &region));
    /* A program would have a kernel write; here a read of "HELLO" lands in the region. */
    gds_file_t *upper = open_scratch_file(context);
    memcpy(before, "HELLO", 5);
    GDS_CHECK(gds_write(upper, 0, host, 0, 5, NULL));
    GDS_CHECK(gds_region_address(region, &address));
    GDS_CHECK(gds_buffer_wrap(context, address, sizeof before, &device));
    GDS_CHECK(gds_read(upper, 0, device, 0, 5, NULL));
    GDS_CHECK(gds_region_mark_dirty(region, 0, 5));
    GDS_CHECK(gds_region_set_flush(set, file, &bytes));
    gds_buffer_free(host);

    GDS_CHECK(gds_buffer_wrap(context, after, sizeof after, &host));
    GDS_CHECK(gds_read(file, 0, host, 0, sizeof after, NULL));
    printf("%llu dirty bytes written: %s\n", (unsigned long long)bytes, after);
    gds_buffer_free(host);
    gds_buffer_free(device);
    gds_region_unmap(region);
    gds_file_close(upper);
    gds_file_close(file);
    return bytes == 5 && strcmp(after, "HELLO world") == 0;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_region_t *regions[COUNT];
    gds_region_config_t config = GDS_REGION_CONFIG_INIT;
    gds_region_stats_t stats = GDS_REGION_STATS_INIT;
    gds_context_t *context;
    gds_region_set_t *set;
    gds_file_t *file;
    uint64_t size;
    int good = 1;

    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_file_size(file, &size));
    if (size < 2 * COUNT * PIECE) {
        printf("skipped: %s is smaller than %llu bytes\n", path,
               (unsigned long long)(2 * COUNT * PIECE));
        return SKIPPED;
    }
    /* Room for eight pieces, not for sixteen: 1,000 bytes take one or two pages of 4,096. */
    config.limit_bytes = 12 * 4096;
    GDS_CHECK(gds_region_set_open(context, &config, &set));

    int plain = open(path, O_RDONLY | O_CLOEXEC);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < COUNT; i++) {
            uint64_t offset = (round == 2 ? COUNT + i : i) * PIECE;
            GDS_CHECK(gds_region_map(set, file, offset, PIECE, &regions[i]));
            good &= is_file(context, regions[i], plain);
        }
        for (uint64_t i = 0; i < COUNT; i++) {
            gds_region_unmap(regions[i]);
        }
    }
    close(plain);
    GDS_CHECK(gds_region_set_stats(set, &stats));
    printf("%llu read, %llu found, %llu made room; %llu of %llu bytes in use\n",
           (unsigned long long)stats.loads, (unsigned long long)stats.hits,
           (unsigned long long)stats.evictions, (unsigned long long)stats.mapped_bytes,
           (unsigned long long)stats.limit_bytes);
    good &= stats.loads == 2 * COUNT && stats.hits == COUNT && stats.evictions > 0 &&
            stats.mapped_bytes <= stats.limit_bytes;
    good &= change(context, set);
    puts(good ? "verified: every region holds the bytes of the file" : "WRONG BYTES");

    gds_region_set_close(set);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
