/* A stranger's program: opens a context, reads a file into its own memory, compares. */

#include <stdio.h>
#include <string.h>

#include <gds_rs.h>

#define SIZE 10000

int main(int argc, char **argv)
{
    static unsigned char moved[SIZE], wanted[SIZE];
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_context_t *context = NULL;
    gds_file_t *file = NULL;
    gds_buffer_t *buffer = NULL;
    uint64_t bytes = 0;
    FILE *plain = fopen(path, "rb");

    int good = plain && gds_check_abi(GDS_RS_VERSION_NUMBER) == GDS_STATUS_OK &&
               gds_context_open(NULL, &context) == GDS_STATUS_OK &&
               gds_file_open(context, path, GDS_FILE_READ, &file) == GDS_STATUS_OK &&
               gds_buffer_wrap(context, moved, SIZE, &buffer) == GDS_STATUS_OK &&
               gds_read(file, 1, buffer, 0, SIZE, &bytes) == GDS_STATUS_OK;
    if (!good) {
        fprintf(stderr, "%s: %s\n", path, gds_last_error_message());
        return 1;
    }
    good = fseek(plain, 1, SEEK_SET) == 0 && fread(wanted, 1, SIZE, plain) == bytes &&
           bytes > 0 && memcmp(moved, wanted, SIZE) == 0;
    printf("gds_rs %s: %llu bytes %s\n", gds_version_string(), (unsigned long long)bytes,
           good ? "verified" : "WRONG");

    gds_buffer_free(buffer);
    gds_file_close(file);
    gds_context_close(context);
    fclose(plain);
    return good ? 0 : 1;
}
