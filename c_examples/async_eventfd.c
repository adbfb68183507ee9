/*
 * Reads a file in pieces from an event loop: each ticket has a descriptor that poll(2) waits on,
 * beside sockets, timers and whatever else the loop serves.
 *
 *   async_eventfd [FILE]        without FILE it reads its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gds_rs.h"

#define SKIPPED 77
#define PIECES 8
#define LIMIT ((uint64_t)64 * 1024 * 1024)

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* What a ticket has to say when it failed: never the thread's last error. */
static void tell_failure(const gds_ticket_t *ticket)
{
    gds_error_info_t info;
    if (gds_ticket_error(ticket, &info, sizeof info) == GDS_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", gds_status_string(info.status), info.message);
    }
}

/* Reads `size` bytes in PIECES tickets at once; returns how many bytes came. */
static uint64_t read_in_loop(const gds_file_t *file, const gds_buffer_t *buffer, uint64_t size)
{
    gds_ticket_t *tickets[PIECES];
    struct pollfd waits[PIECES];
    uint64_t piece = (size + PIECES - 1) / PIECES, moved = 0;
    int open_tickets = PIECES;

    for (uint64_t i = 0; i < PIECES; i++) {
        uint64_t from = i * piece < size ? i * piece : size;
        uint64_t part = size - from < piece ? size - from : piece;
        GDS_CHECK(gds_read_start(file, from, buffer, from, part, NULL, &tickets[i]));
        /* The descriptor belongs to the ticket: it is not ours to close. */
        GDS_CHECK(gds_ticket_eventfd(tickets[i], &waits[i].fd));
        waits[i].events = POLLIN;
    }
    while (open_tickets > 0) {
        if (poll(waits, PIECES, 60 * 1000) <= 0) {
            fputs("nothing finished within a minute\n", stderr);
            exit(1);
        }
        for (int i = 0; i < PIECES; i++) {
            int32_t is_done = 0;
            if (waits[i].fd < 0 || !(waits[i].revents & POLLIN)) {
                continue;
            }
            GDS_CHECK(gds_ticket_poll(tickets[i], &is_done));
            if (!is_done) {
                continue;
            }
            gds_completion_t done = GDS_COMPLETION_INIT;
            if (gds_ticket_wait(tickets[i], 0, &done) == GDS_STATUS_OK) {
                printf("piece %d: %llu bytes in %.3f ms\n", i, (unsigned long long)done.bytes,
                       (double)done.latency_ns / 1e6);
                moved += done.bytes;
            } else {
                tell_failure(tickets[i]);
            }
            waits[i].fd = -1; /* poll(2) passes over negative descriptors */
            open_tickets--;
            gds_ticket_destroy(tickets[i]);
        }
    }
    return moved;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";

    gds_context_t *context;
    gds_file_t *file, *back;
    gds_buffer_t *buffer, *host;
    uint64_t size;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_file_size(file, &size));
    size = size < LIMIT ? size : LIMIT;
    unsigned char *moved = calloc(1, (size_t)size + 1), *wanted = calloc(1, (size_t)size + 1);
    FILE *scratch = tmpfile();
    int plain = open(path, O_RDONLY | O_CLOEXEC);
    if (size == 0 || !moved || !wanted || !scratch || plain < 0) {
        printf("skipped: %s is empty, or there is no memory or no place for a scratch file\n",
               path);
        return SKIPPED;
    }

    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
    uint64_t bytes = read_in_loop(file, buffer, size);

    /* Device memory goes through a scratch file to where this program can compare it. */
    GDS_CHECK(gds_file_from_fd(context, fileno(scratch), &back));
    GDS_CHECK(gds_buffer_wrap(context, moved, size, &host));
    GDS_CHECK(gds_write(back, 0, buffer, 0, size, NULL));
    GDS_CHECK(gds_read(back, 0, host, 0, size, NULL));
    uint64_t at = 0;
    for (ssize_t got = 1; at < size && got > 0; at += got > 0 ? (uint64_t)got : 0) {
        got = pread(plain, wanted + at, (size_t)(size - at), (off_t)at);
    }
    int good = bytes == size && at == size && memcmp(moved, wanted, (size_t)size) == 0;
    puts(good ? "verified: device memory holds the bytes of the file" : "WRONG BYTES");

    close(plain);
    fclose(scratch);
    gds_buffer_free(host);
    gds_buffer_free(buffer);
    gds_file_close(back);
    gds_file_close(file);
    gds_context_close(context);
    free(moved);
    free(wanted);
    return good ? 0 : 1;
}
