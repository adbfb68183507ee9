/*
 * Reads many small pieces of a file in one batch, in random order, as a loader of samples or
 * columns does, and looks at the result of each.
 *
 *   batch_read [FILE]        without FILE it reads its own program file
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
#define PIECE ((uint64_t)4096)
#define COUNT 1000

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

/* What device memory holds, by way of a scratch file: it needs no CUDA here. */
static void fetch(const gds_context_t *context, const gds_buffer_t *buffer, void *into,
                  uint64_t size)
{
    gds_file_t *scratch = open_scratch_file(context);
    gds_buffer_t *host;
    GDS_CHECK(gds_buffer_wrap(context, into, size, &host));
    GDS_CHECK(gds_write(scratch, 0, buffer, 0, size, NULL));
    GDS_CHECK(gds_read(scratch, 0, host, 0, size, NULL));
    gds_buffer_free(host);
    gds_file_close(scratch);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    static gds_batch_entry_t entries[COUNT];
    static gds_completion_t results[COUNT];
    static unsigned char moved[COUNT * PIECE], wanted[PIECE];

    gds_context_t *context;
    gds_file_t *file;
    gds_buffer_t *buffer;
    uint64_t size;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_file_size(file, &size));
    if (size < 2 * PIECE) {
        printf("skipped: %s is smaller than two pieces\n", path);
        return SKIPPED;
    }
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, COUNT * PIECE, &buffer));

    uint32_t state = 7;
    for (uint64_t i = 0; i < COUNT; i++) {
        state = state * 1664525u + 1013904223u;
        entries[i] = (gds_batch_entry_t){
            .file = file,
            .buffer = buffer,
            .file_offset = (state >> 8) % (size / PIECE) * PIECE,
            .buffer_offset = i * PIECE,
            .size = PIECE,
            .operation = GDS_OPERATION_READ,
        };
        results[i] = (gds_completion_t)GDS_COMPLETION_INIT;
    }

    /* One call hands all of them over; the program could work meanwhile. */
    gds_ticket_t *ticket;
    gds_completion_t all = GDS_COMPLETION_INIT;
    GDS_CHECK(gds_batch_submit(context, entries, COUNT, NULL, &ticket));
    GDS_CHECK(gds_ticket_wait(ticket, -1, &all));
    GDS_CHECK(gds_batch_results(ticket, 0, COUNT, results));
    printf("%d reads of %llu bytes in %.3f ms\n", COUNT, (unsigned long long)PIECE,
           (double)all.latency_ns / 1e6);

    fetch(context, buffer, moved, COUNT * PIECE);
    int plain = open(path, O_RDONLY | O_CLOEXEC);
    int good = all.bytes == COUNT * PIECE;
    for (uint64_t i = 0; good && i < COUNT; i++) {
        good = results[i].status == GDS_STATUS_OK && results[i].bytes == PIECE &&
               pread(plain, wanted, PIECE, (off_t)entries[i].file_offset) == (ssize_t)PIECE &&
               memcmp(wanted, moved + i * PIECE, PIECE) == 0;
        if (!good) {
            printf("piece %llu is wrong\n", (unsigned long long)i);
        }
    }
    puts(good ? "verified: every piece holds the bytes of the file" : "WRONG BYTES");

    close(plain);
    gds_ticket_destroy(ticket);
    gds_buffer_free(buffer);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
