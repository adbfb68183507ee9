/*
 * Loads columns of an Arrow IPC file or stream into device memory, and looks at them three ways:
 * by plain pointers, as an ArrowDeviceArray, and batch after batch for what is larger than memory.
 *
 *   arrow_columns [FILE [COLUMN...]]    without FILE it writes a small one and reads that
 *
 * Bodies go from the file straight to the device; only the buffers of the columns are read.
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gds_rs.h"

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ == GDS_STATUS_NOT_SUPPORTED) {                                       \
            printf("skipped: %s\n", gds_last_error_message());                           \
            exit(77);                                                                    \
        }                                                                                \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/*
 * An IPC stream of one column "number" of int32 and one batch of 3, 1, 4; made by pyarrow:
 * batch = pa.record_batch({"number": pa.array([3, 1, 4], pa.int32())})
 */
static const unsigned char example[] = {
    0xff, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00,
    0x0c, 0x00, 0x06, 0x00, 0x05, 0x00, 0x08, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x01, 0x04, 0x00,
    0x0c, 0x00, 0x00, 0x00, 0x08, 0x00, 0x08, 0x00, 0x00, 0x00, 0x04, 0x00, 0x08, 0x00, 0x00, 0x00,
    0x04, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x10, 0x00, 0x14, 0x00,
    0x08, 0x00, 0x06, 0x00, 0x07, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x10, 0x00, 0x10, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x02, 0x10, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x6e, 0x75, 0x6d, 0x62, 0x65, 0x72, 0x00, 0x00,
    0x08, 0x00, 0x0c, 0x00, 0x08, 0x00, 0x07, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01,
    0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x88, 0x00, 0x00, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x16, 0x00, 0x06, 0x00, 0x05, 0x00,
    0x08, 0x00, 0x0c, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x03, 0x04, 0x00, 0x18, 0x00, 0x00, 0x00,
    0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x18, 0x00, 0x0c, 0x00,
    0x04, 0x00, 0x08, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00,
    0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
};

static const char *write_example(void)
{
    static const char *path = "arrow_columns_example.arrows";
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(example, 1, sizeof example, file) != sizeof example || fclose(file)) {
        perror(path);
        exit(1);
    }
    return path;
}

/* Plain pointers: what a kernel would get. */
static void tell_buffers(const gds_columns_t *columns)
{
    gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
    GDS_CHECK(gds_columns_info(columns, &info));
    printf("%" PRIu64 " rows in %" PRIu64 " batches, %" PRIu64 " bytes of device memory\n",
           info.rows, info.batches, info.bytes);
    for (uint32_t i = 0; info.batches > 0 && i < info.columns; i++) {
        gds_column_t column = GDS_COLUMN_INIT;
        GDS_CHECK(gds_columns_column(columns, 0, &i, 1, &column));
        printf("  %s: format %s, %" PRId64 " nulls in the first batch\n", column.name,
               column.format, column.null_count);
        for (uint32_t b = 0; b < column.buffers; b++) {
            gds_column_buffer_t buffer;
            GDS_CHECK(gds_columns_buffer(columns, 0, &i, 1, b, &buffer));
            if (buffer.address % 64 != 0) {
                fprintf(stderr, "a buffer is not aligned\n");
                exit(1);
            }
            printf("    buffer %" PRIu32 ": %" PRIu64 " bytes%s\n", b, buffer.size,
                   buffer.address ? "" : ", left out");
        }
    }
}

/* An ArrowDeviceArray: what cuDF, pyarrow or nanoarrow would get. */
static void hand_over(const gds_columns_t *columns)
{
    struct ArrowDeviceArray array;
    GDS_CHECK(gds_columns_export(columns, 0, &array));
    printf("exported: %" PRId64 " rows, %" PRId64 " columns, device type %d, number %" PRId64 "\n",
           array.array.length, array.array.n_children, (int)array.device_type,
           array.device_id);
    array.array.release(&array.array);
}

/* Batch after batch: memory for a few of them at a time. */
static int64_t count_rows(const gds_arrow_t *arrow, const gds_arrow_selection_t *selection)
{
    struct ArrowDeviceArrayStream stream;
    int64_t rows = 0;
    GDS_CHECK(gds_arrow_stream(arrow, selection, &stream));
    for (;;) {
        struct ArrowDeviceArray array;
        if (stream.get_next(&stream, &array) != 0) {
            fprintf(stderr, "%s\n", stream.get_last_error(&stream));
            exit(1);
        }
        if (!array.array.release) {
            break;
        }
        rows += array.array.length;
        array.array.release(&array.array);
    }
    stream.release(&stream);
    return rows;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : write_example();
    gds_context_t *context;
    gds_file_t *file;
    gds_arrow_t *arrow;
    gds_columns_t *columns;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_arrow_open(file, &arrow));

    gds_arrow_info_t info = GDS_ARROW_INFO_INIT;
    GDS_CHECK(gds_arrow_info(arrow, &info));
    printf("%s: %s, %" PRIu32 " columns, %" PRIu64 " batches\n", path,
           info.form == GDS_ARROW_FORM_FILE ? "file" : "stream", info.columns, info.batches);

    gds_arrow_selection_t selection = GDS_ARROW_SELECTION_INIT;
    if (argc > 2) {
        selection.columns = (const char *const *)(argv + 2);
        selection.column_count = (uint64_t)(argc - 2);
    }
    GDS_CHECK(gds_arrow_load(arrow, &selection, &columns));
    tell_buffers(columns);
    if (info.batches > 0) {
        hand_over(columns);
    }
    int64_t rows = count_rows(arrow, &selection);
    gds_columns_info_t all = GDS_COLUMNS_INFO_INIT;
    GDS_CHECK(gds_columns_info(columns, &all));
    if ((uint64_t)rows != all.rows) {
        fprintf(stderr, "%" PRId64 " rows came one by one\n", rows);
        return 1;
    }

    gds_columns_close(columns);
    gds_arrow_close(arrow);
    gds_file_close(file);
    gds_context_close(context);
    if (argc <= 1) {
        remove(path);
    }
    return 0;
}
