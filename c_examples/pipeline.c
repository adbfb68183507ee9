/*
 * Reads the blocks of a file through a pipeline: at most eight requests are under way, adjacent
 * ones become one transfer, and a callback tells of each. Then without callbacks.
 *
 *   pipeline [FILE]        without FILE it reads its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gds_rs.h"

#define SKIPPED 77
#define BLOCK ((uint64_t)4096)
#define BLOCKS_MAX ((uint64_t)256)

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* Touched by the pipeline's thread alone until gds_pipeline_wait_all() has returned. */
struct tally {
    uint64_t calls, bytes, failures;
};

static void count(uint64_t id, const gds_completion_t *completion, void *user_data)
{
    struct tally *tally = user_data;
    tally->calls++;
    if (completion->status == GDS_STATUS_OK) {
        tally->bytes += completion->bytes;
    } else {
        fprintf(stderr, "request %" PRIu64 ": %s\n", id, gds_last_error_message());
        tally->failures++;
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    static unsigned char wanted[BLOCK * BLOCKS_MAX];
    FILE *plain = fopen(path, "rb");
    if (!plain) {
        perror(path);
        return 1;
    }
    uint64_t blocks = fread(wanted, BLOCK, BLOCKS_MAX, plain), total = blocks * BLOCK;
    fclose(plain);
    if (blocks == 0) {
        printf("skipped: %s is smaller than a block\n", path);
        return SKIPPED;
    }

    gds_context_t *context;
    gds_file_t *file;
    gds_buffer_t *buffer;
    gds_pipeline_t *pipeline;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, total, &buffer));
    gds_pipeline_config_t config = GDS_PIPELINE_CONFIG_INIT;
    config.max_outstanding = 8;
    GDS_CHECK(gds_pipeline_open(context, &config, &pipeline));

    struct tally tally = { 0, 0, 0 };
    gds_batch_entry_t request = {
        .file = file, .buffer = buffer, .size = BLOCK, .operation = GDS_OPERATION_READ,
    };
    for (uint64_t i = 0; i < blocks; i++) {
        request.file_offset = request.buffer_offset = i * BLOCK;
        GDS_CHECK(gds_pipeline_submit(pipeline, &request, -1, count, &tally, NULL));
    }
    GDS_CHECK(gds_pipeline_wait_all(pipeline));
    gds_pipeline_info_t info = GDS_PIPELINE_INFO_INIT;
    GDS_CHECK(gds_pipeline_info(pipeline, &info));
    printf("%" PRIu64 " requests in %" PRIu64 " transfers\n", info.submitted, info.transfers);
    void *address;
    GDS_CHECK(gds_buffer_address(buffer, &address));
    int good = tally.calls == blocks && tally.bytes == total && tally.failures == 0 &&
               memcmp(address, wanted, total) == 0;

    /* Without callbacks the results wait to be taken, in the order in which they come. */
    memset(address, 0, total);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < blocks; i++) {
        request.file_offset = request.buffer_offset = (blocks - 1 - i) * BLOCK;
        GDS_CHECK(gds_pipeline_submit(pipeline, &request, -1, NULL, NULL, NULL));
    }
    for (;;) {
        uint64_t id;
        gds_completion_t completion = GDS_COMPLETION_INIT;
        gds_status_t status = gds_pipeline_wait_one(pipeline, -1, &id, &completion);
        if (status == GDS_STATUS_END) {
            break;
        }
        GDS_CHECK(status);
        taken += completion.status == GDS_STATUS_OK && completion.bytes == BLOCK && id > blocks;
    }
    good = good && taken == blocks && memcmp(address, wanted, total) == 0;
    puts(good ? "verified: every block holds the bytes of the file" : "WRONG BYTES");

    gds_pipeline_close(pipeline);
    gds_buffer_free(buffer);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
