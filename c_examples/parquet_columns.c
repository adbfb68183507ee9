/*
 * Tells what a Parquet file holds, loads columns of it into device memory, decoded, and looks at
 * them by plain pointers and row group after row group.
 *
 *   parquet_columns [FILE [COLUMN...]]    without FILE it writes a small one and reads that
 *
 * Only the pages of the columns are read.
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
 * Three columns, "price" (1.5, 2.25, null, 4.0), "count" (10, 20, 30, 40) and "name" (pear, fig,
 * pear, kiwi), made by pyarrow: write_table(table, compression="NONE", write_statistics=False,
 * store_schema=False, use_dictionary=False, write_page_checksum=True)
 */
static const unsigned char example[] = {
    0x50, 0x41, 0x52, 0x31, 0x15, 0x00, 0x15, 0x3c, 0x15, 0x3c, 0x15, 0xd5, 0xac, 0x80, 0x5d,
    0x1c, 0x15, 0x08, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x00, 0x00, 0x00, 0x02, 0x00,
    0x00, 0x00, 0x03, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf8, 0x3f, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x02, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x40, 0x15, 0x00,
    0x15, 0x4c, 0x15, 0x4c, 0x15, 0xfd, 0xbc, 0xef, 0xf7, 0x09, 0x1c, 0x15, 0x08, 0x15, 0x00,
    0x15, 0x06, 0x15, 0x06, 0x1c, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x08, 0x01, 0x0a,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x1e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x15, 0x00, 0x15, 0x4a, 0x15, 0x4a, 0x15, 0xa1, 0xd1, 0xe2, 0xf8, 0x06, 0x1c, 0x15,
    0x08, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x08, 0x01, 0x04, 0x00, 0x00, 0x00, 0x70, 0x65, 0x61, 0x72, 0x03, 0x00, 0x00, 0x00, 0x66,
    0x69, 0x67, 0x04, 0x00, 0x00, 0x00, 0x70, 0x65, 0x61, 0x72, 0x04, 0x00, 0x00, 0x00, 0x6b,
    0x69, 0x77, 0x69, 0x15, 0x04, 0x19, 0x4c, 0x35, 0x00, 0x18, 0x06, 0x73, 0x63, 0x68, 0x65,
    0x6d, 0x61, 0x15, 0x06, 0x00, 0x15, 0x0a, 0x25, 0x02, 0x18, 0x05, 0x70, 0x72, 0x69, 0x63,
    0x65, 0x00, 0x15, 0x04, 0x25, 0x02, 0x18, 0x05, 0x63, 0x6f, 0x75, 0x6e, 0x74, 0x00, 0x15,
    0x0c, 0x25, 0x02, 0x18, 0x04, 0x6e, 0x61, 0x6d, 0x65, 0x25, 0x00, 0x4c, 0x1c, 0x00, 0x00,
    0x00, 0x16, 0x08, 0x19, 0x1c, 0x19, 0x3c, 0x26, 0x00, 0x1c, 0x15, 0x0a, 0x19, 0x25, 0x06,
    0x00, 0x19, 0x18, 0x05, 0x70, 0x72, 0x69, 0x63, 0x65, 0x15, 0x00, 0x16, 0x08, 0x16, 0x6c,
    0x16, 0x6c, 0x26, 0x08, 0x49, 0x1c, 0x15, 0x00, 0x15, 0x00, 0x15, 0x02, 0x00, 0x3c, 0x29,
    0x06, 0x19, 0x26, 0x02, 0x06, 0x00, 0x00, 0x00, 0x26, 0x00, 0x1c, 0x15, 0x04, 0x19, 0x25,
    0x06, 0x00, 0x19, 0x18, 0x05, 0x63, 0x6f, 0x75, 0x6e, 0x74, 0x15, 0x00, 0x16, 0x08, 0x16,
    0x7e, 0x16, 0x7e, 0x26, 0x74, 0x49, 0x1c, 0x15, 0x00, 0x15, 0x00, 0x15, 0x02, 0x00, 0x3c,
    0x29, 0x06, 0x19, 0x26, 0x00, 0x08, 0x00, 0x00, 0x00, 0x26, 0x00, 0x1c, 0x15, 0x0c, 0x19,
    0x25, 0x06, 0x00, 0x19, 0x18, 0x04, 0x6e, 0x61, 0x6d, 0x65, 0x15, 0x00, 0x16, 0x08, 0x16,
    0x7c, 0x16, 0x7c, 0x26, 0xf2, 0x01, 0x49, 0x1c, 0x15, 0x00, 0x15, 0x00, 0x15, 0x02, 0x00,
    0x3c, 0x16, 0x1e, 0x19, 0x06, 0x19, 0x26, 0x00, 0x08, 0x00, 0x00, 0x00, 0x16, 0xe6, 0x02,
    0x16, 0x08, 0x26, 0x08, 0x16, 0xe6, 0x02, 0x00, 0x28, 0x20, 0x70, 0x61, 0x72, 0x71, 0x75,
    0x65, 0x74, 0x2d, 0x63, 0x70, 0x70, 0x2d, 0x61, 0x72, 0x72, 0x6f, 0x77, 0x20, 0x76, 0x65,
    0x72, 0x73, 0x69, 0x6f, 0x6e, 0x20, 0x32, 0x36, 0x2e, 0x30, 0x2e, 0x31, 0x19, 0x3c, 0x1c,
    0x00, 0x00, 0x1c, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x00, 0x05, 0x01, 0x00, 0x00, 0x50, 0x41,
    0x52, 0x31,
};

static const char *write_example(void)
{
    static const char *path = "parquet_columns_example.parquet";
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(example, 1, sizeof example, file) != sizeof example || fclose(file)) {
        perror(path);
        exit(1);
    }
    return path;
}

static void tell_file(const gds_parquet_t *parquet)
{
    gds_parquet_info_t info = GDS_PARQUET_INFO_INIT;
    GDS_CHECK(gds_parquet_info(parquet, &info));
    printf("%" PRIu64 " rows, %" PRIu64 " row groups, %" PRIu32 " columns, by %s\n", info.rows,
           info.row_groups, info.columns, info.created_by);
    for (uint64_t i = 0; i < info.columns; i++) {
        gds_parquet_column_t column = GDS_PARQUET_COLUMN_INIT;
        GDS_CHECK(gds_parquet_column(parquet, i, &column));
        printf("  %s: %s %s\n", column.name, column.physical, column.logical);
        if (info.row_groups == 0) {
            continue;
        }
        gds_parquet_chunk_t chunk = GDS_PARQUET_CHUNK_INIT;
        GDS_CHECK(gds_parquet_chunk(parquet, 0, i, &chunk));
        printf("    first row group: %s, %s, %" PRIu64 " bytes of %" PRIu64 "\n", chunk.codec,
               chunk.encodings, chunk.compressed_bytes, chunk.bytes);
    }
}

/* Plain pointers: what a kernel would get. */
static void tell_buffers(const gds_columns_t *columns)
{
    gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
    GDS_CHECK(gds_columns_info(columns, &info));
    printf("%" PRIu64 " rows, %" PRIu64 " bytes of device memory\n", info.rows, info.bytes);
    for (uint32_t i = 0; i < info.columns; i++) {
        gds_column_t column = GDS_COLUMN_INIT;
        GDS_CHECK(gds_columns_column(columns, 0, &i, 1, &column));
        printf("  %s: format %s, %" PRId64 " nulls\n", column.name, column.format,
               column.null_count);
        for (uint32_t b = 0; b < column.buffers; b++) {
            gds_column_buffer_t buffer;
            GDS_CHECK(gds_columns_buffer(columns, 0, &i, 1, b, &buffer));
            if (buffer.address % 64 != 0) {
                fprintf(stderr, "a buffer is not aligned\n");
                exit(1);
            }
        }
    }
}

/* Row group after row group: memory for one of them at a time. */
static uint64_t count_rows(const gds_parquet_t *parquet,
                           const gds_parquet_selection_t *selection)
{
    struct ArrowDeviceArrayStream stream;
    uint64_t rows = 0;
    GDS_CHECK(gds_parquet_stream(parquet, selection, &stream));
    for (;;) {
        struct ArrowDeviceArray array;
        if (stream.get_next(&stream, &array) != 0) {
            fprintf(stderr, "%s\n", stream.get_last_error(&stream));
            exit(1);
        }
        if (!array.array.release) {
            break;
        }
        rows += (uint64_t)array.array.length;
        array.array.release(&array.array);
    }
    stream.release(&stream);
    return rows;
}

/* The example's own values, where the processor can see them. */
static void check_example(const gds_parquet_t *parquet)
{
    const char *names[] = { "count", "price" };
    gds_parquet_condition_t condition = { "count", GDS_PARQUET_GREATER, GDS_PARQUET_INTEGER,
                                          15, 0, NULL, 0 };
    gds_parquet_rows_t rows = { 1, 3 };
    gds_parquet_selection_t selection = GDS_PARQUET_SELECTION_INIT;
    selection.columns = names;
    selection.column_count = 2;
    selection.rows = &rows;
    selection.row_range_count = 1;
    selection.conditions = &condition;
    selection.condition_count = 1;
    gds_parquet_outline_t outline = GDS_PARQUET_OUTLINE_INIT;
    GDS_CHECK(gds_parquet_outline(parquet, &selection, &outline));
    gds_columns_t *columns;
    GDS_CHECK(gds_parquet_load(parquet, &selection, &columns));
    struct ArrowDeviceArray array;
    GDS_CHECK(gds_columns_export(columns, 0, &array));
    gds_columns_close(columns);
    int good = outline.rows == 3 && outline.row_groups == 1 && array.array.length == 3 &&
               array.array.children[1]->null_count == 1;
    if (good && array.device_type == ARROW_DEVICE_CPU) {
        const int64_t *counts = array.array.children[0]->buffers[1];
        good = counts[0] == 20 && counts[1] == 30 && counts[2] == 40;
    }
    array.array.release(&array.array);
    if (!good) {
        fprintf(stderr, "these are not the values of the example\n");
        exit(1);
    }
    puts("verified: rows 1 to 3 of two columns");
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : write_example();
    gds_context_t *context;
    gds_file_t *file;
    gds_parquet_t *parquet;
    gds_columns_t *columns;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_parquet_open(file, NULL, &parquet));
    tell_file(parquet);

    gds_parquet_selection_t selection = GDS_PARQUET_SELECTION_INIT;
    if (argc > 2) {
        selection.columns = (const char *const *)(argv + 2);
        selection.column_count = (uint64_t)(argc - 2);
    }
    GDS_CHECK(gds_parquet_load(parquet, &selection, &columns));
    tell_buffers(columns);
    gds_columns_info_t info = GDS_COLUMNS_INFO_INIT;
    GDS_CHECK(gds_columns_info(columns, &info));
    if (count_rows(parquet, &selection) != info.rows) {
        fprintf(stderr, "row group by row group there are other rows\n");
        return 1;
    }
    if (argc <= 1) {
        check_example(parquet);
        remove(path);
    }

    /* What was loaded outlives its file. */
    gds_parquet_close(parquet);
    gds_file_close(file);
    gds_columns_close(columns);
    gds_context_close(context);
    return 0;
}
