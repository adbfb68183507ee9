/*
 * Loads the tensors of a safetensors or GGUF file into device memory and hands one of them on by
 * DLPack, as a binding of another language would.
 *
 *   tensors_load [FILE]      without a file of tensors it makes a small one
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
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* Two tensors: f32 [3, 4] and u8 [5]. */
static void make_sample(const char *path)
{
    static const char header[] =
        "{\"weights\":{\"dtype\":\"F32\",\"shape\":[3,4],\"data_offsets\":[0,48]},"
        "\"bytes\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[48,53]}}";
    unsigned char length[8] = { (unsigned char)(sizeof(header) - 1) };
    float weights[12];
    for (int i = 0; i < 12; i++) {
        weights[i] = (float)i / 4;
    }
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(length, 1, 8, file) != 8 ||
        fwrite(header, 1, sizeof(header) - 1, file) != sizeof(header) - 1 ||
        fwrite(weights, 1, 48, file) != 48 || fwrite("hello", 1, 5, file) != 5 ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* Whether bytes in host memory are those of the file, by the C library. */
static int is_same(const char *path, const gds_tensor_info_t *tensor, const void *memory)
{
    FILE *file = fopen(path, "rb");
    void *plain = malloc(tensor->size_bytes ? (size_t)tensor->size_bytes : 1);
    int same = file && plain && fseek(file, (long)tensor->file_offset, SEEK_SET) == 0 &&
               fread(plain, 1, (size_t)tensor->size_bytes, file) == tensor->size_bytes &&
               memcmp(plain, memory, (size_t)tensor->size_bytes) == 0;
    free(plain);
    if (file) {
        fclose(file);
    }
    return same;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "";
    const char *sample = "tensors_load.safetensors";
    gds_context_t *context;
    gds_file_t *file = NULL;
    gds_tensors_t *tensors;
    int32_t format = GDS_FORMAT_UNKNOWN;
    GDS_CHECK(gds_context_open(NULL, &context));
    if (*path) {
        GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
        GDS_CHECK(gds_format_detect(file, &format));
        printf("%s: %s\n", path, gds_format_name(format));
    }
    if (format != GDS_FORMAT_SAFETENSORS && format != GDS_FORMAT_GGUF) {
        path = sample;
        make_sample(path);
        gds_file_close(file);
        GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    }
    GDS_CHECK(gds_tensors_open(file, &tensors));
    gds_tensors_info_t info = GDS_TENSORS_INFO_INIT;
    GDS_CHECK(gds_tensors_info(tensors, &info));
    gds_tensor_place_t *places = calloc(info.tensors + 1, sizeof(*places));
    if (!places || info.bytes == 0) {
        puts("skipped: no memory, or no bytes to load");
        return 77;
    }

    /* One call: new device memory that holds everything. */
    gds_buffer_t *loaded;
    GDS_CHECK(gds_tensors_load(tensors, NULL, 0, 0, places, &loaded));
    printf("%" PRIu64 " tensors, %" PRIu64 " bytes in device memory\n", info.tensors,
           info.bytes);

    /* Two steps: a plan, read into memory of one's own; pinned, so that it can be compared. */
    gds_plan_t *plan;
    gds_buffer_t *pinned;
    void *memory;
    gds_plan_info_t planned = GDS_PLAN_INFO_INIT;
    gds_completion_t done = GDS_COMPLETION_INIT;
    GDS_CHECK(gds_tensors_plan(tensors, NULL, 0, 0, places, &plan));
    GDS_CHECK(gds_plan_info(plan, &planned));
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, planned.size_bytes, &pinned));
    GDS_CHECK(gds_plan_read(plan, pinned, 0, NULL, &done));
    GDS_CHECK(gds_buffer_address(pinned, &memory));
    int good = done.bytes == info.bytes;
    for (uint64_t i = 0; i < info.tensors; i++) {
        gds_tensor_info_t tensor = GDS_TENSOR_INFO_INIT;
        GDS_CHECK(gds_tensors_get(tensors, i, &tensor));
        if (i < 8) {
            printf("  %s: %s, %u dimensions, %" PRIu64 " bytes at %" PRIu64 "\n", tensor.name,
                   tensor.dtype_name, tensor.dimensions, tensor.size_bytes, places[i].offset);
        }
        good &= is_same(path, &tensor, (const char *)memory + places[i].offset);
    }

    /* Handed on: it stays valid when everything here is closed. Whatever its type is, its bytes
     * can be shown; without the flag it has its own type and shape. */
    gds_tensor_part_t first = { 0, GDS_PART_WHOLE, 0, 0, 0 };
    gds_dlpack_t *shown;
    GDS_CHECK(gds_tensors_dlpack(tensors, &first, loaded, places[0].offset, GDS_DLPACK_BYTES,
                                 &shown));
    gds_plan_destroy(plan);
    gds_buffer_free(pinned);
    gds_buffer_free(loaded);
    gds_tensors_close(tensors);
    gds_file_close(file);
    gds_context_close(context);
    good &= shown->version_major == 1 && shown->tensor.ndim == 1;
    printf("DLPack %u.%u: %" PRId64 " bytes on device type %d\n", shown->version_major,
           shown->version_minor, shown->tensor.shape[0], (int)shown->tensor.device_type);
    shown->deleter(shown);

    free(places);
    if (path == sample) {
        remove(sample);
    }
    puts(good ? "verified: every tensor is as the file has it" : "WRONG BYTES");
    return good ? 0 : 1;
}
