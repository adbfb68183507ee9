/*
 * Asks which way the bytes of a file would take, and why not a better one.
 *
 *   explain [FILE]        without FILE it asks about its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

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

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";

    gds_context_t *context;
    GDS_CHECK(gds_context_open(NULL, &context));

    /* Ask for the size, then for the text. */
    uint64_t needed = 0;
    GDS_CHECK(gds_explain(context, path, NULL, 0, &needed));
    char *text = malloc((size_t)needed);
    if (!text) {
        fputs("out of memory\n", stderr);
        return 1;
    }
    GDS_CHECK(gds_explain(context, path, text, needed, &needed));
    puts(text);
    int good = strlen(text) + 1 == needed && needed > 1;
    free(text);

    /* A file that is not there is a status and a message that names it, not an empty answer. */
    gds_status_t missing = gds_explain(context, "/nonexistent/file", NULL, 0, &needed);
    printf("for /nonexistent/file: %s: %s\n", gds_status_string(missing),
           gds_last_error_message());
    good = good && missing == GDS_STATUS_NOT_FOUND &&
           strstr(gds_last_error_message(), "/nonexistent/file") != NULL;

    gds_context_close(context);
    return good ? 0 : 1;
}
