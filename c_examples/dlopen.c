/*
 * Uses the library without linking it: found at run time, as plug-ins and other languages do.
 * Nothing but the types of the header is needed, and nothing at all when the library is missing.
 *
 *   dlopen [FILE]        without FILE it reads its own program file
 *
 * GDS_RS_LIBRARY is the path of the library; without it, the loader looks for its name.
 */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gds_rs.h"

#define SKIPPED 77
#define SIZE 4096

/* The calls that this program makes, by the names of the header. */
static struct {
    gds_status_t (*check_abi)(uint32_t header_version);
    const char *(*version_string)(void);
    const char *(*last_error_message)(void);
    gds_status_t (*config_init)(void *config, size_t size);
    gds_status_t (*config_environment)(gds_config_t *config);
    gds_status_t (*context_open)(const gds_config_t *config, gds_context_t **context_out);
    void (*context_close)(gds_context_t *context);
    gds_status_t (*file_open)(const gds_context_t *context, const char *path, uint32_t flags,
                              gds_file_t **file_out);
    void (*file_close)(gds_file_t *file);
    gds_status_t (*buffer_wrap)(const gds_context_t *context, void *address, uint64_t size,
                                gds_buffer_t **buffer_out);
    void (*buffer_free)(gds_buffer_t *buffer);
    gds_status_t (*read)(const gds_file_t *file, uint64_t file_offset,
                         const gds_buffer_t *buffer, uint64_t buffer_offset, uint64_t size,
                         uint64_t *bytes_out);
} gds;

static int find(void *library, const char *name, void *function)
{
    /* POSIX: a data pointer from dlsym holds a function's address. */
    void *address = dlsym(library, name);
    if (!address) {
        fprintf(stderr, "%s is not in the library: %s\n", name, dlerror());
        return 0;
    }
    memcpy(function, &address, sizeof address);
    return 1;
}

static int find_all(void *library)
{
    return find(library, "gds_check_abi", &gds.check_abi) &&
           find(library, "gds_version_string", &gds.version_string) &&
           find(library, "gds_last_error_message", &gds.last_error_message) &&
           find(library, "gds_config_init", &gds.config_init) &&
           find(library, "gds_config_environment", &gds.config_environment) &&
           find(library, "gds_context_open", &gds.context_open) &&
           find(library, "gds_context_close", &gds.context_close) &&
           find(library, "gds_file_open", &gds.file_open) &&
           find(library, "gds_file_close", &gds.file_close) &&
           find(library, "gds_buffer_wrap", &gds.buffer_wrap) &&
           find(library, "gds_buffer_free", &gds.buffer_free) &&
           find(library, "gds_read", &gds.read);
}

static int check(gds_status_t status, const char *what)
{
    if (status != GDS_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", what, gds.last_error_message());
    }
    return status == GDS_STATUS_OK;
}

/* Reads the first bytes of a file and compares them with what fread gives. */
static int use(const char *path)
{
    static unsigned char moved[SIZE], wanted[SIZE];
    gds_config_t config;
    gds_context_t *context = NULL;
    gds_file_t *file = NULL;
    gds_buffer_t *buffer = NULL;
    uint64_t bytes = 0;

    int good = check(gds.config_init(&config, sizeof config), "gds_config_init") &&
               check(gds.config_environment(&config), "gds_config_environment") &&
               check(gds.context_open(&config, &context), "gds_context_open") &&
               check(gds.file_open(context, path, GDS_FILE_READ, &file), path) &&
               check(gds.buffer_wrap(context, moved, SIZE, &buffer), "gds_buffer_wrap") &&
               check(gds.read(file, 0, buffer, 0, SIZE, &bytes), "gds_read");
    FILE *plain = fopen(path, "rb");
    if (good) {
        good = plain && bytes > 0 && fread(wanted, 1, SIZE, plain) == bytes &&
               memcmp(moved, wanted, SIZE) == 0;
        printf("%llu bytes of %s: %s\n", (unsigned long long)bytes, path,
               good ? "verified" : "WRONG BYTES");
    }
    if (plain) {
        fclose(plain);
    }
    gds.buffer_free(buffer); /* NULL is fine: nothing to give back */
    gds.file_close(file);
    gds.context_close(context);
    return good;
}

int main(int argc, char **argv)
{
    const char *name = getenv("GDS_RS_LIBRARY");
    name = name ? name : GDS_RS_SONAME;

    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("skipped: %s (set GDS_RS_LIBRARY to the path of the library)\n", dlerror());
        return SKIPPED;
    }
    if (!find_all(library)) {
        return 1;
    }
    printf("%s, version %s\n", name, gds.version_string());
    if (!check(gds.check_abi(GDS_RS_VERSION_NUMBER), "gds_check_abi")) {
        return 1;
    }
    int good = use(argc > 1 ? argv[1] : "/proc/self/exe");
    dlclose(library);

    /* It may be closed and opened again: its code stays in the process. */
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    good = good && library && find_all(library) && use(argc > 1 ? argv[1] : "/proc/self/exe");
    if (library) {
        dlclose(library);
    }
    return good ? 0 : 1;
}
