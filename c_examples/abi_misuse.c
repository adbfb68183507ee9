/*
 * abi_misuse - everything that a program can do wrong, and what the library answers.
 *
 *     abi_misuse
 *
 * NULL everywhere, handles that are closed, foreign or of another type, structs that are too
 * short, too long or of a newer version, unknown flags and numbers, sizes that overflow, and a
 * fork. Each answers a status and a message; none crashes. Runs on the host device. Exit 0: all
 * answered as the header says.
 */

#define _GNU_SOURCE

#include "gds_rs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE ((uint64_t)8192)

static int failures;
static int checks;

static void expect_at(int line, const char *call, gds_status_t got, gds_status_t wanted)
{
    checks++;
    if (got != wanted) {
        failures++;
        fprintf(stderr, "line %d: %s answered \"%s\", not \"%s\": %s\n", line, call,
                gds_status_string(got), gds_status_string(wanted), gds_last_error_message());
    } else if (got != GDS_STATUS_OK && gds_last_error_message()[0] == '\0') {
        failures++;
        fprintf(stderr, "line %d: %s failed without a message\n", line, call);
    }
}

static void true_at(int line, const char *what, int is_true)
{
    checks++;
    if (!is_true) {
        failures++;
        fprintf(stderr, "line %d: not so: %s\n", line, what);
    }
}

#define EXPECT(status, call) expect_at(__LINE__, #call, (call), GDS_STATUS_##status)
#define TRUE(condition) true_at(__LINE__, #condition, (condition))
#define NULL_IS_REFUSED(call) EXPECT(INVALID_ARGUMENT, call)
#define CLOSED(call) EXPECT(INVALID_HANDLE, call)

/* What the well-behaved part of the program made. */
struct things {
    gds_context_t *context;
    gds_file_t *file;
    gds_buffer_t *buffer;
    gds_ticket_t *ticket;
    char path[64];
};

/* A handle of one type passed as another; the cast is the misuse. */
static const gds_file_t *as_file(const void *handle) { return handle; }
static const gds_buffer_t *as_buffer(const void *handle) { return handle; }
static const gds_context_t *as_context(const void *handle) { return handle; }
static const gds_ticket_t *as_ticket(const void *handle) { return handle; }

static int open_all(struct things *t)
{
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = GDS_DEVICE_HOST;
    EXPECT(OK, gds_context_open(&config, &t->context));
    const char *folder = getenv("TMPDIR");
    snprintf(t->path, sizeof t->path, "%.40s/gds_misuse.XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(t->path);
    if (fd < 0 || close(fd) != 0) {
        perror(t->path);
        return 0;
    }
    uint32_t flags = GDS_FILE_READ | GDS_FILE_WRITE;
    EXPECT(OK, gds_file_open(t->context, t->path, flags, &t->file));
    EXPECT(OK, gds_file_set_size(t->file, SIZE));
    EXPECT(OK, gds_buffer_alloc(t->context, GDS_MEMORY_DEVICE, SIZE, &t->buffer));
    EXPECT(OK, gds_read_start(t->file, 0, t->buffer, 0, SIZE, NULL, &t->ticket));
    EXPECT(OK, gds_ticket_wait(t->ticket, -1, NULL));
    return failures == 0;
}

static void null_everywhere(const struct things *t)
{
    gds_device_info_t device = GDS_DEVICE_INFO_INIT;
    gds_completion_t done = GDS_COMPLETION_INIT;
    gds_error_info_t info;
    gds_file_t *file = NULL;
    gds_buffer_t *buffer = NULL;
    gds_ticket_t *ticket = NULL;
    char memory[64];
    uint64_t size;
    int fd;
    int32_t flag;

    NULL_IS_REFUSED(gds_config_init(NULL, sizeof(gds_config_t)));
    NULL_IS_REFUSED(gds_config_profile(GDS_PROFILE_BALANCED, NULL));
    NULL_IS_REFUSED(gds_config_environment(NULL));
    NULL_IS_REFUSED(gds_config_validate(NULL));
    TRUE(gds_last_error(NULL, sizeof info) == GDS_STATUS_INVALID_ARGUMENT);
    NULL_IS_REFUSED(gds_device_count(NULL));
    NULL_IS_REFUSED(gds_device_info(GDS_DEVICE_HOST, NULL));
    NULL_IS_REFUSED(gds_context_open(NULL, NULL));
    NULL_IS_REFUSED(gds_context_device(NULL, &device));
    NULL_IS_REFUSED(gds_context_device(t->context, NULL));
    NULL_IS_REFUSED(gds_context_metrics(NULL, NULL));
    NULL_IS_REFUSED(gds_context_metrics(t->context, NULL));
    NULL_IS_REFUSED(gds_context_performance(NULL, NULL));
    NULL_IS_REFUSED(gds_context_performance(t->context, NULL));
    NULL_IS_REFUSED(gds_file_open(NULL, t->path, GDS_FILE_READ, &file));
    NULL_IS_REFUSED(gds_file_open(t->context, NULL, GDS_FILE_READ, &file));
    NULL_IS_REFUSED(gds_file_open(t->context, t->path, GDS_FILE_READ, NULL));
    NULL_IS_REFUSED(gds_file_from_fd(NULL, 0, &file));
    NULL_IS_REFUSED(gds_file_from_fd(t->context, 0, NULL));
    NULL_IS_REFUSED(gds_file_size(NULL, &size));
    NULL_IS_REFUSED(gds_file_size(t->file, NULL));
    NULL_IS_REFUSED(gds_file_info(NULL, NULL));
    NULL_IS_REFUSED(gds_file_info(t->file, NULL));
    NULL_IS_REFUSED(gds_file_sync(NULL));
    NULL_IS_REFUSED(gds_file_set_size(NULL, 0));
    NULL_IS_REFUSED(gds_buffer_alloc(NULL, GDS_MEMORY_DEVICE, 1, &buffer));
    NULL_IS_REFUSED(gds_buffer_alloc(t->context, GDS_MEMORY_DEVICE, 1, NULL));
    NULL_IS_REFUSED(gds_buffer_wrap(NULL, memory, sizeof memory, &buffer));
    NULL_IS_REFUSED(gds_buffer_wrap(t->context, NULL, sizeof memory, &buffer));
    NULL_IS_REFUSED(gds_buffer_wrap(t->context, memory, sizeof memory, NULL));
    NULL_IS_REFUSED(gds_buffer_register(NULL, memory, sizeof memory, &buffer));
    NULL_IS_REFUSED(gds_buffer_register(t->context, NULL, sizeof memory, &buffer));
    NULL_IS_REFUSED(gds_buffer_register(t->context, memory, sizeof memory, NULL));
    NULL_IS_REFUSED(gds_buffer_address(NULL, NULL));
    NULL_IS_REFUSED(gds_buffer_address(t->buffer, NULL));
    uint32_t crc = 0;
    NULL_IS_REFUSED(gds_crc32c(NULL, t->buffer, 0, 1, 4096, &crc, 1));
    NULL_IS_REFUSED(gds_crc32c(t->context, NULL, 0, 1, 4096, &crc, 1));
    NULL_IS_REFUSED(gds_crc32c(t->context, t->buffer, 0, 1, 4096, NULL, 1));
    NULL_IS_REFUSED(gds_buffer_info(NULL, NULL));
    NULL_IS_REFUSED(gds_buffer_info(t->buffer, NULL));
    NULL_IS_REFUSED(gds_read(NULL, 0, t->buffer, 0, 1, NULL));
    NULL_IS_REFUSED(gds_read(t->file, 0, NULL, 0, 1, NULL));
    NULL_IS_REFUSED(gds_write(NULL, 0, t->buffer, 0, 1, NULL));
    NULL_IS_REFUSED(gds_write(t->file, 0, NULL, 0, 1, NULL));
    NULL_IS_REFUSED(gds_read_with(NULL, 0, t->buffer, 0, 1, NULL, &done));
    NULL_IS_REFUSED(gds_write_with(t->file, 0, NULL, 0, 1, NULL, &done));
    NULL_IS_REFUSED(gds_readv(t->file, 0, NULL, 1, NULL, &done));
    NULL_IS_REFUSED(gds_writev(t->file, 0, NULL, 1, NULL, &done));
    NULL_IS_REFUSED(gds_readv(NULL, 0, NULL, 0, NULL, NULL));
    NULL_IS_REFUSED(gds_read_start(NULL, 0, t->buffer, 0, 1, NULL, &ticket));
    NULL_IS_REFUSED(gds_read_start(t->file, 0, t->buffer, 0, 1, NULL, NULL));
    NULL_IS_REFUSED(gds_write_start(t->file, 0, NULL, 0, 1, NULL, &ticket));
    NULL_IS_REFUSED(gds_read_async(t->file, 0, t->buffer, 0, 1, NULL, NULL));
    NULL_IS_REFUSED(gds_write_async(NULL, 0, t->buffer, 0, 1, NULL, &ticket));
    NULL_IS_REFUSED(gds_batch_submit(t->context, NULL, 1, NULL, &ticket));
    NULL_IS_REFUSED(gds_batch_submit(NULL, NULL, 0, NULL, NULL));
    NULL_IS_REFUSED(gds_batch_results(NULL, 0, 1, &done));
    NULL_IS_REFUSED(gds_batch_results(t->ticket, 0, 1, NULL));
    NULL_IS_REFUSED(gds_ticket_poll(NULL, &flag));
    NULL_IS_REFUSED(gds_ticket_poll(t->ticket, NULL));
    NULL_IS_REFUSED(gds_ticket_wait(NULL, 0, &done));
    NULL_IS_REFUSED(gds_ticket_cancel(NULL));
    NULL_IS_REFUSED(gds_ticket_eventfd(NULL, &fd));
    NULL_IS_REFUSED(gds_ticket_eventfd(t->ticket, NULL));
    NULL_IS_REFUSED(gds_ticket_error(NULL, &info, sizeof info));
    NULL_IS_REFUSED(gds_ticket_error(t->ticket, NULL, sizeof info));
    NULL_IS_REFUSED(gds_explain(NULL, t->path, NULL, 0, &size));
    NULL_IS_REFUSED(gds_explain(t->context, NULL, NULL, 0, &size));
    NULL_IS_REFUSED(gds_explain(t->context, t->path, NULL, 1, &size));
    NULL_IS_REFUSED(gds_set_log_callback(NULL, memory, NULL));
    TRUE(file == NULL && buffer == NULL && ticket == NULL);

    /* What gives back takes NULL. */
    gds_context_close(NULL);
    gds_file_close(NULL);
    gds_buffer_free(NULL);
    gds_buffer_unregister(NULL);
    gds_ticket_destroy(NULL);
}

static void handles_of_another_kind(const struct things *t)
{
    uint64_t size;
    int32_t flag;
    uint64_t foreign[16] = {0};
    gds_file_t *file = NULL;
    gds_ticket_t *ticket = NULL;

    CLOSED(gds_file_size(as_file(t->buffer), &size));
    CLOSED(gds_file_size(as_file(t->context), &size));
    CLOSED(gds_read(t->file, 0, as_buffer(t->file), 0, 1, NULL));
    CLOSED(gds_ticket_poll(as_ticket(t->buffer), &flag));
    CLOSED(gds_file_open(as_context(t->ticket), t->path, GDS_FILE_READ, &file));
    /* Memory that is no handle at all, inside a handle, and nowhere. */
    CLOSED(gds_file_size(as_file(foreign), &size));
    CLOSED(gds_file_size(as_file((const char *)t->file + 8), &size));
    CLOSED(gds_file_size(as_file((const void *)(uintptr_t)64), &size));
    gds_file_close((gds_file_t *)(void *)foreign);
    gds_file_close((gds_file_t *)(void *)t->buffer);
    TRUE(file == NULL);

    gds_batch_entry_t entry = {t->file, as_buffer(t->file), 0, 0, 1, GDS_OPERATION_READ, 0};
    CLOSED(gds_batch_submit(t->context, &entry, 1, NULL, &ticket));
    TRUE(strstr(gds_last_error_message(), "entries[0].buffer") != NULL);
    gds_segment_t segments[2] = {{t->buffer, 0, 1}, {as_buffer(t->ticket), 0, 1}};
    CLOSED(gds_readv(t->file, 0, segments, 2, NULL, NULL));
    TRUE(strstr(gds_last_error_message(), "segments[1].buffer") != NULL);
    TRUE(ticket == NULL);
    EXPECT(OK, gds_read(t->file, 0, t->buffer, 0, 1, NULL));
}

static void structs_of_other_sizes(const struct things *t)
{
    /* Older: 16 bytes are known to the caller, the rest is as by default. */
    gds_config_t config = GDS_CONFIG_INIT, wide_default = GDS_CONFIG_INIT, made;
    config.struct_size = 16;
    config.checksum = 77;
    EXPECT(OK, gds_config_validate(&config));
    /* Newer: a tail that this library does not know, zero and not. */
    struct { gds_config_t known; uint64_t unknown[2]; } newer = {GDS_CONFIG_INIT, {0, 0}};
    newer.known.struct_size = sizeof newer;
    EXPECT(OK, gds_config_validate(&newer.known));
    newer.unknown[1] = 1;
    EXPECT(STRUCT_SIZE, gds_config_validate(&newer.known));
    const uint32_t no_size[] = {0, 1, 4, 7, 20, 87, 5000, UINT32_MAX};
    for (size_t i = 0; i < sizeof no_size / sizeof no_size[0]; i++) {
        gds_device_info_t device = GDS_DEVICE_INFO_INIT;
        gds_options_t options = GDS_OPTIONS_INIT;
        gds_completion_t done = GDS_COMPLETION_INIT;
        config.struct_size = device.struct_size = no_size[i];
        options.struct_size = done.struct_size = no_size[i];
        EXPECT(STRUCT_SIZE, gds_config_validate(&config));
        EXPECT(STRUCT_SIZE, gds_config_profile(0, &config));
        EXPECT(STRUCT_SIZE, gds_config_environment(&config));
        EXPECT(STRUCT_SIZE, gds_context_device(t->context, &device));
        EXPECT(STRUCT_SIZE, gds_read_with(t->file, 0, t->buffer, 0, 1, &options, NULL));
        EXPECT(STRUCT_SIZE, gds_read_with(t->file, 0, t->buffer, 0, 1, NULL, &done));
        EXPECT(STRUCT_SIZE, gds_batch_results(t->ticket, 0, 1, &done));
        EXPECT(STRUCT_SIZE, gds_ticket_wait(t->ticket, 0, &done));
    }
    /* An older caller's struct is not written past its end. */
    gds_device_info_t device = GDS_DEVICE_INFO_INIT;
    device.struct_size = 16;
    memset(device.name, '#', sizeof device.name);
    EXPECT(OK, gds_context_device(t->context, &device));
    TRUE(device.struct_size == 16 && device.ordinal == GDS_DEVICE_HOST);
    TRUE(device.memory_bytes > 0 && device.name[0] == '#');
    /* The macro and the function agree. */
    memset(&made, 0xFF, sizeof made);
    EXPECT(OK, gds_config_init(&made, sizeof made));
    TRUE(memcmp(&made, &wide_default, sizeof made) == 0);
    EXPECT(STRUCT_SIZE, gds_config_init(&made, 12));
    EXPECT(INVALID_ARGUMENT, gds_config_init((char *)&made + 1, 80));
}

static void numbers_without_a_meaning(const struct things *t)
{
    gds_config_t config = GDS_CONFIG_INIT;
    gds_options_t options = GDS_OPTIONS_INIT;
    gds_file_t *file = NULL;
    gds_buffer_t *buffer = NULL;
    gds_ticket_t *ticket = NULL;
    char *memory = (char *)t->path;

    EXPECT(INVALID_ARGUMENT, gds_config_profile(3, &config));
    EXPECT(INVALID_ARGUMENT, gds_config_profile(-1, &config));
    config.path = 9;
    EXPECT(INVALID_CONFIG, gds_config_validate(&config));
    config.path = GDS_PATH_POLICY_AUTO;
    config.buffer_size = 3;
    EXPECT(INVALID_CONFIG, gds_config_validate(&config));
    TRUE(strstr(gds_last_error_message(), "buffer_size is 3") != NULL);
    EXPECT(INVALID_CONFIG, gds_context_open(&config, &(gds_context_t *){NULL}));
    EXPECT(NO_DEVICE, gds_device_info(-7, &(gds_device_info_t)GDS_DEVICE_INFO_INIT));
    const uint32_t flags[] = {0, GDS_FILE_CREATE, GDS_FILE_READ | GDS_FILE_TRUNCATE,
                              GDS_FILE_WRITE | GDS_FILE_EXCLUSIVE, GDS_FILE_READ | 1u << 20};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        EXPECT(INVALID_ARGUMENT, gds_file_open(t->context, t->path, flags[i], &file));
    }
    EXPECT(INVALID_ARGUMENT, gds_file_open(t->context, "", GDS_FILE_READ, &file));
    EXPECT(NOT_FOUND, gds_file_open(t->context, "/nonexistent/x", GDS_FILE_READ, &file));
    TRUE(strstr(gds_last_error_message(), "/nonexistent/x") != NULL);
    EXPECT(UNSUPPORTED_FILE, gds_file_open(t->context, "/", GDS_FILE_READ, &file));
    EXPECT(UNSUPPORTED_FILE, gds_file_open(t->context, "/dev/null", GDS_FILE_READ, &file));
    EXPECT(INVALID_ARGUMENT, gds_file_from_fd(t->context, -1, &file));
    EXPECT(INVALID_ARGUMENT, gds_file_from_fd(t->context, 1 << 30, &file));
    EXPECT(INVALID_ARGUMENT, gds_buffer_alloc(t->context, 0, 1, &buffer));
    EXPECT(INVALID_ARGUMENT, gds_buffer_alloc(t->context, GDS_MEMORY_MANAGED, 1, &buffer));
    EXPECT(INVALID_ARGUMENT, gds_buffer_alloc(t->context, GDS_MEMORY_DEVICE, 0, &buffer));
    EXPECT(INVALID_ARGUMENT, gds_buffer_wrap(t->context, memory, 0, &buffer));
    uint32_t crcs[2] = {7, 7};
    EXPECT(INVALID_ARGUMENT, gds_crc32c(t->context, t->buffer, 0, 1, 0, crcs, 2));
    EXPECT(INVALID_ARGUMENT, gds_crc32c(t->context, t->buffer, 0, 1, 4095, crcs, 2));
    EXPECT(INVALID_ARGUMENT, gds_crc32c(t->context, t->buffer, 0, 1, 1 << 21, crcs, 2));
    EXPECT(BUFFER_TOO_SMALL, gds_crc32c(t->context, t->buffer, 0, 513, 512, crcs, 1));
    EXPECT(OUT_OF_RANGE, gds_crc32c(t->context, t->buffer, 0, SIZE + 1, 1 << 20, crcs, 2));
    TRUE(crcs[0] == 7 && crcs[1] == 7);
    EXPECT(INVALID_ARGUMENT, gds_ticket_wait(t->ticket, -2, NULL));
    EXPECT(INVALID_ARGUMENT, gds_ticket_wait(t->ticket, INT64_MIN, NULL));
    options.checksum = 3;
    EXPECT(INVALID_ARGUMENT, gds_read_with(t->file, 0, t->buffer, 0, 1, &options, NULL));
    options.checksum = GDS_SWITCH_ON;
    options.reserved = 1;
    EXPECT(INVALID_ARGUMENT, gds_read_start(t->file, 0, t->buffer, 0, 1, &options, &ticket));
    gds_batch_entry_t entry = {t->file, t->buffer, 0, 0, 1, 3, 0};
    EXPECT(INVALID_ARGUMENT, gds_batch_submit(t->context, &entry, 1, NULL, &ticket));
    entry.operation = GDS_OPERATION_READ;
    entry.reserved = 1;
    EXPECT(INVALID_ARGUMENT, gds_batch_submit(t->context, &entry, 1, NULL, &ticket));
    EXPECT(INVALID_ARGUMENT, gds_batch_submit(t->context, &entry, 0, NULL, &ticket));
    EXPECT(INVALID_ARGUMENT, gds_readv(t->file, 0, NULL, 0, NULL, NULL));
    EXPECT(ABI_MISMATCH, gds_check_abi(GDS_RS_VERSION_NUMBER + 10000));
    TRUE(strcmp(gds_status_string(12345), "unknown status") == 0);
    TRUE(file == NULL && buffer == NULL && ticket == NULL);
}

static void sizes_that_overflow(const struct things *t)
{
    const uint64_t huge[] = {UINT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 100};
    gds_completion_t done = GDS_COMPLETION_INIT;
    gds_ticket_t *ticket = NULL;
    gds_buffer_t *buffer = NULL;
    uint32_t crc;
    char memory[64];

    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        gds_segment_t segment = {t->buffer, 0, huge[i]};
        gds_batch_entry_t entry = {t->file, t->buffer, huge[i], 0, 1, GDS_OPERATION_READ, 0};
        EXPECT(OUT_OF_RANGE, gds_read(t->file, huge[i], t->buffer, 0, 1, NULL));
        EXPECT(OUT_OF_RANGE, gds_crc32c(t->context, t->buffer, huge[i], 1, 512, &crc, 1));
        EXPECT(OUT_OF_RANGE, gds_read(t->file, 0, t->buffer, huge[i], 1, NULL));
        EXPECT(OUT_OF_RANGE, gds_read(t->file, 0, t->buffer, 0, huge[i], NULL));
        EXPECT(OUT_OF_RANGE, gds_write(t->file, 1, t->buffer, 1, huge[i], NULL));
        EXPECT(OUT_OF_RANGE, gds_readv(t->file, 0, &segment, 1, NULL, NULL));
        EXPECT(OUT_OF_RANGE, gds_read_start(t->file, huge[i], t->buffer, 0, 1, NULL, &ticket));
        EXPECT(OUT_OF_RANGE, gds_batch_submit(t->context, &entry, 1, NULL, &ticket));
        EXPECT(OUT_OF_RANGE, gds_batch_submit(t->context, &entry, huge[i], NULL, &ticket));
        EXPECT(OUT_OF_RANGE, gds_readv(t->file, 0, &segment, huge[i], NULL, NULL));
        EXPECT(OUT_OF_RANGE, gds_batch_results(t->ticket, huge[i], 1, &done));
        EXPECT(OUT_OF_RANGE, gds_batch_results(t->ticket, 1, huge[i], &done));
        EXPECT(OUT_OF_RANGE, gds_file_set_size(t->file, huge[i]));
        TRUE(gds_buffer_alloc(t->context, GDS_MEMORY_DEVICE, huge[i], &buffer) != GDS_STATUS_OK);
        TRUE(gds_buffer_wrap(t->context, memory, huge[i], &buffer) != GDS_STATUS_OK);
    }
    /* One byte past the buffer's end. */
    EXPECT(OUT_OF_RANGE, gds_read(t->file, 0, t->buffer, 0, SIZE + 1, NULL));
    EXPECT(OUT_OF_RANGE, gds_write(t->file, 0, t->buffer, SIZE, 1, NULL));
    EXPECT(OUT_OF_RANGE, gds_batch_results(t->ticket, 0, 2, &done));
    TRUE(ticket == NULL && buffer == NULL);
    /* Past the file's end is no mistake. */
    uint64_t bytes = 7;
    EXPECT(OK, gds_read(t->file, SIZE * 10, t->buffer, 0, SIZE, &bytes));
    TRUE(bytes == 0);
}

static void a_failure_is_told_whole(const struct things *t)
{
    gds_error_info_t info;
    gds_file_t *file = NULL;
    EXPECT(NOT_FOUND, gds_file_open(t->context, "/nonexistent/y", GDS_FILE_READ, &file));
    TRUE(gds_last_error(&info, sizeof info) == GDS_STATUS_OK);
    TRUE(info.struct_size == sizeof info && info.status == GDS_STATUS_NOT_FOUND);
    TRUE(info.os_error == 2 && strcmp(info.message, gds_last_error_message()) == 0);
    /* A success leaves it alone, and so does asking wrongly. */
    EXPECT(OK, gds_file_sync(t->file));
    TRUE(gds_last_error(&info, 13) == GDS_STATUS_STRUCT_SIZE);
    TRUE(gds_last_error(&info, sizeof info) == GDS_STATUS_OK);
    TRUE(info.status == GDS_STATUS_NOT_FOUND);
    TRUE(gds_ticket_error(t->ticket, &info, sizeof info) == GDS_STATUS_OK);
    TRUE(info.status == GDS_STATUS_OK && info.message[0] == '\0' && info.path == NULL);
}

static void count_calls(int32_t level, const char *message, void *user_data)
{
    (void)level;
    *(int *)user_data += message[0] != '\0';
    /* A failing call inside the callback is dropped from the log. */
    if (gds_file_sync(NULL) == GDS_STATUS_OK) {
        *(int *)user_data += 1000000;
    }
}

static void count_release(void *user_data)
{
    ((int *)user_data)[1]++;
}

static void the_log_callback_is_given_back(void)
{
    int counts[2] = {0, 0};
    EXPECT(OK, gds_set_log_callback(count_calls, counts, count_release));
    NULL_IS_REFUSED(gds_file_sync(NULL));
    TRUE(counts[0] == 1 && counts[1] == 0);
    EXPECT(OK, gds_set_log_callback(NULL, NULL, NULL));
    TRUE(counts[1] == 1);
    NULL_IS_REFUSED(gds_file_sync(NULL));
    TRUE(counts[0] == 1 && counts[1] == 1);
}

/* In a forked child every handle answers, and closing does nothing. */
static void a_forked_child_is_told(struct things *t)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        uint64_t size;
        int before = failures;
        gds_context_t *context = NULL;
        EXPECT(FORKED, gds_file_size(t->file, &size));
        EXPECT(FORKED, gds_read(t->file, 0, t->buffer, 0, 1, NULL));
        EXPECT(FORKED, gds_ticket_wait(t->ticket, -1, NULL));
        EXPECT(FORKED, gds_context_open(NULL, &context));
        EXPECT(FORKED, gds_set_log_callback(NULL, NULL, NULL));
        NULL_IS_REFUSED(gds_file_size(NULL, &size));
        gds_ticket_destroy(t->ticket);
        gds_buffer_free(t->buffer);
        gds_file_close(t->file);
        gds_context_close(t->context);
        /* exec is what is left to a forked child; leak checkers stop looking there as well:
           the memory of threads that fork did not take along is no leak. */
        const char *answer = failures == before ? "true" : "false";
        execlp(answer, answer, (char *)NULL);
        _exit(1);
    }
    int status = 1;
    TRUE(child > 0 && waitpid(child, &status, 0) == child);
    TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent goes on. */
    EXPECT(OK, gds_read(t->file, 0, t->buffer, 0, SIZE, NULL));
}

static void closed_handles(struct things *t)
{
    uint64_t size;
    int32_t flag;
    int fd;
    gds_file_t *file = NULL;
    gds_error_info_t info;

    /* Parents first: children hold them. */
    gds_context_close(t->context);
    gds_context_close(t->context);
    CLOSED(gds_file_open(t->context, t->path, GDS_FILE_READ, &file));
    CLOSED(gds_crc32c(t->context, t->buffer, 0, 1, 512, &(uint32_t){0}, 1));
    CLOSED(gds_explain(t->context, t->path, NULL, 0, &size));
    EXPECT(OK, gds_read(t->file, 0, t->buffer, 0, SIZE, NULL));
    gds_file_close(t->file);
    gds_file_close(t->file);
    CLOSED(gds_file_size(t->file, &size));
    CLOSED(gds_read(t->file, 0, t->buffer, 0, 1, NULL));
    gds_buffer_unregister(t->buffer);
    gds_buffer_free(t->buffer);
    CLOSED(gds_buffer_info(t->buffer, NULL));
    EXPECT(OK, gds_ticket_poll(t->ticket, &flag));
    gds_ticket_destroy(t->ticket);
    gds_ticket_destroy(t->ticket);
    CLOSED(gds_ticket_poll(t->ticket, &flag));
    CLOSED(gds_ticket_wait(t->ticket, -1, NULL));
    CLOSED(gds_ticket_cancel(t->ticket));
    CLOSED(gds_ticket_eventfd(t->ticket, &fd));
    CLOSED(gds_ticket_error(t->ticket, &info, sizeof info));
    TRUE(file == NULL);
}

int main(void)
{
    struct things t;
    memset(&t, 0, sizeof t);
    TRUE(gds_last_error_message()[0] == '\0');
    if (!open_all(&t)) {
        return 1;
    }
    null_everywhere(&t);
    handles_of_another_kind(&t);
    structs_of_other_sizes(&t);
    numbers_without_a_meaning(&t);
    sizes_that_overflow(&t);
    a_failure_is_told_whole(&t);
    the_log_callback_is_given_back();
    a_forked_child_is_told(&t);
    closed_handles(&t);
    unlink(t.path);
    printf("%d answers checked, %d wrong\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
