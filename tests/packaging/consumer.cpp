// A stranger's program in C++: the C header is enough, and it compiles as C++.

#include <cstdio>
#include <vector>

#include <gds_rs.h>

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    std::vector<unsigned char> moved(10000), wanted(moved.size());
    gds_context_t *context = nullptr;
    gds_file_t *file = nullptr;
    gds_buffer_t *buffer = nullptr;
    uint64_t bytes = 0;

    bool good = gds_context_open(nullptr, &context) == GDS_STATUS_OK &&
                gds_file_open(context, path, GDS_FILE_READ, &file) == GDS_STATUS_OK &&
                gds_buffer_wrap(context, moved.data(), moved.size(), &buffer) == GDS_STATUS_OK &&
                gds_read(file, 0, buffer, 0, moved.size(), &bytes) == GDS_STATUS_OK;
    if (!good) {
        std::fprintf(stderr, "%s: %s\n", path, gds_last_error_message());
        return 1;
    }
    std::FILE *plain = std::fopen(path, "rb");
    good = plain && std::fread(wanted.data(), 1, wanted.size(), plain) == bytes && bytes > 0 &&
           moved == wanted;
    std::printf("gds_rs %s: %llu bytes %s\n", gds_version_string(),
                static_cast<unsigned long long>(bytes), good ? "verified" : "WRONG");

    if (plain) {
        std::fclose(plain);
    }
    gds_buffer_free(buffer);
    gds_file_close(file);
    gds_context_close(context);
    return good ? 0 : 1;
}
