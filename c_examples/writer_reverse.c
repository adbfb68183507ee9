/*
 * Writes the chunks of a file in reverse order to a new file, through device memory: while one
 * chunk is being written the next one is produced.
 *
 *   writer_reverse [FILE]        without FILE it takes its own program file
 *
 * Here a chunk is produced by a read into the writer's buffer. A program with kernels launches
 * its kernel on the buffer and calls gds_writer_submit_on(writer, &space, size, stream, NULL)
 * at once, without waiting for the stream.
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gds_rs.h"

#define CHUNK ((uint64_t)65536)

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* Puts `size` bytes of a file into a writer's buffer, wherever that is. */
static void produce(const gds_context_t *context, const gds_file_t *from, uint64_t offset,
                    const gds_space_t *space, uint64_t size)
{
    gds_buffer_t *memory;
    uint64_t bytes;
    void *address = (void *)(uintptr_t)space->address;
    GDS_CHECK(gds_buffer_wrap(context, address, space->size, &memory));
    GDS_CHECK(gds_read(from, offset, memory, 0, size, &bytes));
    gds_buffer_free(memory);
    if (bytes != size) {
        fprintf(stderr, "the file became shorter\n");
        exit(1);
    }
}

/* Plain C: whether each chunk is where it belongs. */
static int is_reversed(FILE *result, const char *path, uint64_t size)
{
    static unsigned char got[CHUNK], wanted[CHUNK];
    FILE *source = fopen(path, "rb");
    int good = source && fseek(result, 0, SEEK_END) == 0 && (uint64_t)ftell(result) == size &&
               fseek(result, 0, SEEK_SET) == 0;
    for (uint64_t end = size; good && end > 0;) {
        size_t part = (size_t)(end % CHUNK ? end % CHUNK : CHUNK);
        end -= part;
        good = fseek(source, (long)end, SEEK_SET) == 0 &&
               fread(wanted, 1, part, source) == part && fread(got, 1, part, result) == part &&
               memcmp(got, wanted, part) == 0;
    }
    if (source) {
        fclose(source);
    }
    return good;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_context_t *context;
    gds_file_t *from, *to;
    gds_writer_t *writer;
    uint64_t size, written, submitted = 0;
    FILE *result = tmpfile();
    if (!result) {
        perror("a temporary file");
        return 1;
    }
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &from));
    GDS_CHECK(gds_file_from_fd(context, fileno(result), &to));
    GDS_CHECK(gds_file_size(from, &size));

    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = CHUNK;
    config.buffers = 4;
    GDS_CHECK(gds_writer_open(to, 0, &config, &writer));
    for (uint64_t end = size; end > 0;) {
        uint64_t part = end % CHUNK ? end % CHUNK : CHUNK, offset;
        gds_space_t space;
        end -= part;
        /* Waits while all four are being written. */
        GDS_CHECK(gds_writer_acquire(writer, -1, &space));
        produce(context, from, end, &space, part);
        GDS_CHECK(gds_writer_submit(writer, &space, part, &offset));
        if (offset != submitted) {
            fprintf(stderr, "a chunk went to %" PRIu64 "\n", offset);
            return 1;
        }
        submitted += part;
    }
    /* Closing waits too, but cannot say what went wrong. */
    GDS_CHECK(gds_writer_finish(writer, &written));
    GDS_CHECK(gds_file_sync(to));
    gds_writer_close(writer);

    gds_file_close(to);
    gds_file_close(from);
    gds_context_close(context);
    int good = written == size && is_reversed(result, path, size);
    fclose(result);
    printf("%" PRIu64 " bytes through 4 buffers of %" PRIu64 ": %s\n", written, CHUNK,
           good ? "verified" : "WRONG BYTES");
    return good ? 0 : 1;
}
