/*
 * Puts a file into device memory, tells how fast and which way the bytes went, and checks them.
 *
 *   read_file_to_device [FILE]        without FILE it reads its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device; by default CUDA when it works, else the host.
 */

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define SKIPPED 77

/* Ends the program with what the library has to say. */
#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static const char *path_name(int32_t path)
{
    switch (path) {
    case GDS_PATH_HOST: return "page cache to host memory";
    case GDS_PATH_HOST_DIRECT: return "O_DIRECT to host memory";
    case GDS_PATH_BOUNCE: return "O_DIRECT through pinned memory";
    case GDS_PATH_PAGE_CACHE: return "page cache through pinned memory";
    case GDS_PATH_CUFILE: return "cuFile";
    default: return "none";
    }
}

/* An open file without a name, gone when it is closed. */
static int open_scratch_file(void)
{
    const char *directory = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/gds_rs_example.XXXXXX", directory ? directory : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) {
        perror(path);
        exit(SKIPPED);
    }
    unlink(path);
    return fd;
}

/* Whether the first `size` bytes of both files are the same, by plain reads. */
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
    gds_status_t status = gds_context_open(NULL, &context);
    if (status == GDS_STATUS_NO_DEVICE || status == GDS_STATUS_DRIVER_MISSING) {
        printf("skipped: %s\n", gds_last_error_message());
        return SKIPPED;
    }
    GDS_CHECK(status);

    gds_device_info_t device = GDS_DEVICE_INFO_INIT;
    GDS_CHECK(gds_context_device(context, &device));

    gds_file_t *file;
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    uint64_t size;
    GDS_CHECK(gds_file_size(file, &size));
    if (size == 0) {
        printf("skipped: %s is empty\n", path);
        return SKIPPED;
    }

    gds_buffer_t *buffer;
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));

    gds_completion_t done = GDS_COMPLETION_INIT;
    GDS_CHECK(gds_read_with(file, 0, buffer, 0, size, NULL, &done));
    printf("%s: %llu bytes to %s in %.3f ms, %.2f GB/s, by %s\n", path,
           (unsigned long long)done.bytes, device.name, (double)done.latency_ns / 1e6,
           (double)done.bytes / (double)done.latency_ns, path_name(done.path));

    /* What lies in device memory goes back to a file that a plain read can compare. */
    int scratch = open_scratch_file();
    gds_file_t *copy;
    uint64_t written;
    GDS_CHECK(gds_file_from_fd(context, scratch, &copy));
    GDS_CHECK(gds_write(copy, 0, buffer, 0, size, &written));

    int original = open(path, O_RDONLY | O_CLOEXEC);
    int good = done.bytes == size && written == size && original >= 0 &&
               same_bytes(original, scratch, size);
    puts(good ? "verified: device memory holds the bytes of the file" : "WRONG BYTES");

    close(original);
    gds_file_close(copy);
    close(scratch);
    gds_buffer_free(buffer);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
