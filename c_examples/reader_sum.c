/*
 * Sums the bytes of a file that may be larger than memory, chunk by chunk: while one chunk is
 * summed the next ones are read. Once by asking for chunks, once by a callback.
 *
 *   reader_sum [FILE]        without FILE it reads its own program file
 *
 * The chunks go to pinned host memory, where a plain loop can sum them; a program with kernels
 * would leave `memory` alone, launch its kernel and give the chunk back by
 * gds_reader_release_on(reader, &chunk, stream), without waiting for the stream.
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

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

static uint64_t sum_of(const gds_chunk_t *chunk)
{
    const unsigned char *bytes = (const unsigned char *)(uintptr_t)chunk->address;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < chunk->size; i++) {
        sum += bytes[i];
    }
    return sum;
}

static int32_t add_chunk(const gds_chunk_t *chunk, void *user_data)
{
    *(uint64_t *)user_data += sum_of(chunk);
    return 0;
}

/* The same by the C library, to compare with. */
static uint64_t sum_plainly(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    uint64_t sum = 0;
    for (int byte; (byte = getc(file)) != EOF;) {
        sum += (uint64_t)byte;
    }
    fclose(file);
    return sum;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_context_t *context;
    gds_file_t *file;
    gds_reader_t *reader;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));

    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = 65536;
    config.buffers = 4;
    config.memory = GDS_MEMORY_PINNED;

    /* Chunk by chunk. */
    uint64_t sum = 0, position = 0;
    GDS_CHECK(gds_reader_open(file, &config, &reader));
    for (;;) {
        gds_chunk_t chunk = GDS_CHUNK_INIT;
        gds_status_t status = gds_reader_next(reader, -1, &chunk);
        if (status == GDS_STATUS_END) {
            break;
        }
        GDS_CHECK(status);
        if (chunk.file_offset != position) {
            printf("chunk %" PRIu64 " is out of order\n", chunk.index);
            return 1;
        }
        sum += sum_of(&chunk);
        position += chunk.size;
        GDS_CHECK(gds_reader_release(reader, &chunk));
    }
    gds_reader_info_t info = GDS_READER_INFO_INIT;
    GDS_CHECK(gds_reader_info(reader, &info));
    printf("%" PRIu64 " bytes in %" PRIu64 " chunks, waited for %" PRIu64 " of them\n",
           info.bytes_delivered, info.chunks_delivered, info.waits);
    gds_reader_close(reader);

    /* By a callback, the file as two ranges. */
    uint64_t again = 0, bytes = 0;
    gds_range_t halves[2] = {
        { file, 0, position / 2 },
        { file, position / 2, GDS_RANGE_TO_END },
    };
    GDS_CHECK(gds_reader_open_ranges(halves, 2, &config, &reader));
    GDS_CHECK(gds_reader_run(reader, add_chunk, &again, &bytes));
    gds_reader_close(reader);

    gds_file_close(file);
    gds_context_close(context);
    uint64_t wanted = sum_plainly(path);
    int good = sum == wanted && again == wanted && bytes == position;
    puts(good ? "verified: both sums are those of the file" : "WRONG SUM");
    return good ? 0 : 1;
}
