/*
 * Takes a file apart in one request: its first bytes to memory that the program reads, the rest
 * to device memory. Model files are loaded this way: the header is parsed on the host, the
 * tensors are wanted on the device. Then both are written to one file again and compared.
 *
 *   scatter_gather [FILE]        without FILE it reads its own program file
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
#define HEADER ((uint64_t)1000)

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static int same_bytes(int a, int b, uint64_t size)
{
    static unsigned char left[1 << 20], right[1 << 20];
    uint64_t at = 0;
    while (at < size) {
        size_t part = size - at < sizeof left ? (size_t)(size - at) : sizeof left;
        ssize_t from_a = pread(a, left, part, (off_t)at);
        ssize_t from_b = pread(b, right, part, (off_t)at);
        if (from_a <= 0 || from_a != from_b || memcmp(left, right, (size_t)from_a) != 0) {
            return 0;
        }
        at += (uint64_t)from_a;
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";

    gds_context_t *context;
    gds_file_t *file, *copy;
    uint64_t size;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_file_size(file, &size));
    FILE *scratch = tmpfile();
    int plain = open(path, O_RDONLY | O_CLOEXEC);
    if (size < 3 * HEADER || !scratch || plain < 0) {
        printf("skipped: %s is too small, or there is no place for a scratch file\n", path);
        return SKIPPED;
    }
    GDS_CHECK(gds_file_from_fd(context, fileno(scratch), &copy));

    /* Pinned memory: readable here, and the device can copy from it without a detour. */
    gds_buffer_t *header, *body;
    void *header_bytes;
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, HEADER, &header));
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size - HEADER, &body));
    GDS_CHECK(gds_buffer_address(header, &header_bytes));

    gds_segment_t parts[] = {
        {.buffer = header, .offset = 0, .size = HEADER},
        {.buffer = body, .offset = 0, .size = size - HEADER},
    };
    gds_completion_t in = GDS_COMPLETION_INIT, out = GDS_COMPLETION_INIT;
    GDS_CHECK(gds_readv(file, 0, parts, 2, NULL, &in));
    GDS_CHECK(gds_writev(copy, 0, parts, 2, NULL, &out));

    unsigned char first[HEADER];
    int good = in.bytes == size && out.bytes == size &&
               pread(plain, first, sizeof first, 0) == (ssize_t)sizeof first &&
               memcmp(first, header_bytes, sizeof first) == 0 &&
               same_bytes(plain, fileno(scratch), size);
    printf("%llu bytes to host memory, %llu to the device: %s\n", (unsigned long long)HEADER,
           (unsigned long long)(size - HEADER), good ? "verified" : "WRONG BYTES");

    close(plain);
    fclose(scratch);
    gds_buffer_free(header);
    gds_buffer_free(body);
    gds_file_close(copy);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
