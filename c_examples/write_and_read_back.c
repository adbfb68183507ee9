/*
 * Saves device memory to a file and loads it again, as a checkpoint does, at offsets and sizes
 * that no disk likes.
 *
 *   write_and_read_back [FILE]        FILE gives the bytes to save; without it, a pattern
 *
 * Only scratch files in TMPDIR (or /tmp) are written. GDS_DEVICE chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define SKIPPED 77

/* Neither is a multiple of any block size. */
#define SIZE ((uint64_t)5 * 1024 * 1024 + 777)
#define OFFSET ((uint64_t)12345)

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
    close(fd); /* the library keeps a descriptor of its own */
    return file;
}

static void fill(unsigned char *bytes, uint64_t size, const char *path)
{
    uint32_t state = 1;
    for (uint64_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(state >> 24);
    }
    FILE *source = path ? fopen(path, "rb") : NULL;
    if (source) {
        /* A shorter file leaves the pattern in the rest. */
        size_t taken = fread(bytes, 1, (size_t)size, source);
        printf("%zu bytes of %s\n", taken, path);
        fclose(source);
    }
}

int main(int argc, char **argv)
{
    gds_context_t *context;
    GDS_CHECK(gds_context_open(NULL, &context));

    unsigned char *saved = malloc((size_t)SIZE);
    unsigned char *loaded = calloc(1, (size_t)SIZE);
    if (!saved || !loaded) {
        puts("skipped: out of memory");
        return SKIPPED;
    }
    fill(saved, SIZE, argc > 1 ? argv[1] : NULL);

    /* The program's own memory takes part in transfers once it is wrapped. */
    gds_buffer_t *from_host, *on_device, *to_host;
    GDS_CHECK(gds_buffer_wrap(context, saved, SIZE, &from_host));
    GDS_CHECK(gds_buffer_wrap(context, loaded, SIZE, &to_host));
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, SIZE, &on_device));

    /* host memory -> file -> device memory */
    uint64_t bytes;
    gds_file_t *first = open_scratch_file(context);
    GDS_CHECK(gds_write(first, OFFSET, from_host, 0, SIZE, &bytes));
    GDS_CHECK(gds_read(first, OFFSET, on_device, 0, SIZE, &bytes));

    /* device memory -> file, durable -> host memory */
    gds_file_t *second = open_scratch_file(context);
    GDS_CHECK(gds_write(second, OFFSET, on_device, 0, SIZE, &bytes));
    GDS_CHECK(gds_file_sync(second));
    GDS_CHECK(gds_read(second, OFFSET, to_host, 0, SIZE, &bytes));

    uint64_t length;
    GDS_CHECK(gds_file_size(second, &length));
    int good = bytes == SIZE && length == OFFSET + SIZE &&
               memcmp(saved, loaded, (size_t)SIZE) == 0;
    printf("%llu bytes at offset %llu: %s\n", (unsigned long long)SIZE,
           (unsigned long long)OFFSET, good ? "came back the same" : "WRONG BYTES");

    gds_file_close(first);
    gds_file_close(second);
    gds_buffer_free(on_device);
    gds_buffer_free(from_host);
    gds_buffer_free(to_host);
    gds_context_close(context);
    free(saved);
    free(loaded);
    return good ? 0 : 1;
}
