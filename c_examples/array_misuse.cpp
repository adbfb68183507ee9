// array_misuse - everything that a program and its kernels can do wrong with an array, what can
// happen to the file meanwhile, and the answers.
//
//     array_misuse
//
// Runs on the host device, where a kernel is a function. Exit 0: all answered as the header says,
// and nothing hung.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "gds_rs.cuh"

namespace {

constexpr uint64_t page = 4096;
constexpr uint64_t pages = 64;
constexpr uint64_t frames = 8;

int failures;
int checks;

// What reads and writes of one byte of any file answer: an errno, or 0 for the truth.
volatile uint64_t bad_offset;
volatile int bad_read;
volatile int bad_write;

bool is_bad(off_t offset, size_t size)
{
    const uint64_t begin = static_cast<uint64_t>(offset);
    return begin <= bad_offset && bad_offset < begin + size;
}

void expect_at(int line, const char *call, gds_status_t got, gds_status_t wanted)
{
    checks++;
    if (got != wanted) {
        failures++;
        std::fprintf(stderr, "line %d: %s answered \"%s\", not \"%s\": %s\n", line, call,
                     gds_status_string(got), gds_status_string(wanted),
                     gds_last_error_message());
    } else if (got != GDS_STATUS_OK && gds_last_error_message()[0] == '\0') {
        failures++;
        std::fprintf(stderr, "line %d: %s failed without a message\n", line, call);
    }
}

void true_at(int line, const char *what, bool is_true)
{
    checks++;
    if (!is_true) {
        failures++;
        std::fprintf(stderr, "line %d: not so: %s\n", line, what);
    }
}

#define EXPECT(status, call) expect_at(__LINE__, #call, (call), GDS_STATUS_##status)
#define TRUE(condition) true_at(__LINE__, #condition, (condition))

} // namespace

// The library's reads and writes come through here, since a program's own symbols go before those
// of the C library.
extern "C" ssize_t pread(int fd, void *to, size_t size, off_t offset)
{
    if (bad_read != 0 && is_bad(offset, size)) {
        errno = bad_read;
        return -1;
    }
    return syscall(SYS_pread64, fd, to, size, offset);
}

extern "C" ssize_t pwrite(int fd, const void *from, size_t size, off_t offset)
{
    if (bad_write != 0 && is_bad(offset, size)) {
        errno = bad_write;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, from, size, offset);
}

namespace {

char path[64];
gds_context_t *context;
gds_file_t *file;
gds_file_t *read_only;

// Byte p of the file.
unsigned char known(uint64_t p) { return static_cast<unsigned char>(p / page * 3 + p % 251); }

gds_array_config_t small(uint32_t writable)
{
    gds_array_config_t config = GDS_ARRAY_CONFIG_INIT;
    config.device_bytes = frames * page;
    config.service_threads = 2;
    config.slots = 8;
    config.wait_ms = 50;
    config.writable = writable;
    return config;
}

gds_array_t *open_small(uint32_t writable)
{
    gds_array_t *array = nullptr;
    const gds_array_config_t config = small(writable);
    EXPECT(OK, gds_array_open(writable ? file : read_only, &config, &array));
    return array;
}

gds_array_view_t acquire(gds_array_t *array)
{
    gds_array_view_t view = GDS_ARRAY_VIEW_INIT;
    EXPECT(OK, gds_array_acquire(array, &view));
    return view;
}

gds_error_info_t last_error()
{
    gds_error_info_t info;
    EXPECT(OK, gds_last_error(&info, sizeof info));
    return info;
}

// A kernel that reads one byte of every page; how many are not those of the file.
uint64_t wrong_pages(const gds_array_view_t &view)
{
    const gds::cached_array<unsigned char> bytes(view);
    uint64_t wrong = 0;
    for (uint64_t i = 7; i < bytes.size(); i += page) {
        wrong += bytes[i] != known(i);
    }
    return wrong;
}

bool open_all()
{
    const char *folder = std::getenv("TMPDIR");
    std::snprintf(path, sizeof path, "%.40s/gds_misuse.XXXXXX", folder ? folder : "/tmp");
    std::vector<unsigned char> bytes(pages * page);
    for (uint64_t p = 0; p < bytes.size(); p++) {
        bytes[p] = known(p);
    }
    const int fd = mkstemp(path);
    if (fd < 0 || write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
        close(fd) != 0) {
        std::perror(path);
        return false;
    }
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = GDS_DEVICE_HOST;
    config.max_retries = 0;
    EXPECT(OK, gds_context_open(&config, &context));
    EXPECT(OK, gds_file_open(context, path, GDS_FILE_READ | GDS_FILE_WRITE, &file));
    EXPECT(OK, gds_file_open(context, path, GDS_FILE_READ, &read_only));
    return failures == 0;
}

void wrong_configurations()
{
    gds_array_t *array = nullptr;
    gds_array_config_t config;
    const gds_array_config_t initial = GDS_ARRAY_CONFIG_INIT;
    EXPECT(OK, gds_array_config_init(&config, sizeof config));
    TRUE(config.page_bytes == initial.page_bytes && config.wait_ms == initial.wait_ms &&
         config.device_bytes == initial.device_bytes && config.writable == 0);
    EXPECT(INVALID_ARGUMENT, gds_array_config_init(nullptr, sizeof config));
    EXPECT(STRUCT_SIZE, gds_array_config_init(&config, 3));
#define WRONG(status, field, value)                                                      \
    do {                                                                                 \
        config = small(1);                                                               \
        config.field = (value);                                                          \
        EXPECT(status, gds_array_open(file, &config, &array));                           \
    } while (0)
    WRONG(INVALID_CONFIG, page_bytes, 4097);
    WRONG(INVALID_CONFIG, page_bytes, 2048);
    WRONG(INVALID_CONFIG, page_bytes, 1u << 22);
    WRONG(INVALID_CONFIG, device_bytes, page - 1);
    WRONG(INVALID_CONFIG, service_threads, 17);
    WRONG(INVALID_CONFIG, slots, UINT32_MAX);
    WRONG(INVALID_CONFIG, wait_ms, UINT32_MAX);
    WRONG(INVALID_ARGUMENT, writable, 2);
    WRONG(INVALID_ARGUMENT, count_hits, 2);
    WRONG(INVALID_ARGUMENT, reserved, 1);
    WRONG(STRUCT_SIZE, struct_size, 0);
    WRONG(STRUCT_SIZE, struct_size, 7);
    config = small(1);
    EXPECT(READ_ONLY, gds_array_open(read_only, &config, &array));
    // A newer program asks for something that this library does not know.
    struct {
        gds_array_config_t known;
        uint64_t more;
    } newer = {small(0), 1};
    newer.known.struct_size = sizeof newer;
    EXPECT(STRUCT_SIZE, gds_array_open(file, &newer.known, &array));
    TRUE(array == nullptr);
    // An older one: what it does not know has its default.
    config = small(0);
    config.struct_size = 16;
    config.wait_ms = UINT32_MAX;
    EXPECT(OK, gds_array_open(file, &config, &array));
    gds_array_close(array);
}

void null_and_foreign()
{
    gds_array_t *array = open_small(0), *other = nullptr;
    gds_array_view_t view = GDS_ARRAY_VIEW_INIT;
    gds_array_stats_t stats = GDS_ARRAY_STATS_INIT;
    void *const odd = reinterpret_cast<char *>(&view) + 1;
    EXPECT(INVALID_ARGUMENT, gds_array_open(nullptr, nullptr, &other));
    EXPECT(INVALID_ARGUMENT, gds_array_open(file, nullptr, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_acquire(nullptr, &view));
    EXPECT(INVALID_ARGUMENT, gds_array_acquire(array, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_acquire(array, static_cast<gds_array_view_t *>(odd)));
    EXPECT(INVALID_ARGUMENT, gds_array_release(nullptr, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_flush(nullptr, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_flush(array, static_cast<uint64_t *>(odd)));
    EXPECT(INVALID_ARGUMENT, gds_array_invalidate(nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_stats(nullptr, &stats));
    EXPECT(INVALID_ARGUMENT, gds_array_stats(array, nullptr));
    stats.struct_size = 0;
    EXPECT(STRUCT_SIZE, gds_array_stats(array, &stats));
    view.struct_size = 4;
    EXPECT(STRUCT_SIZE, gds_array_acquire(array, &view));
    // None of these acquired it.
    EXPECT(INVALID_ARGUMENT, gds_array_release(array, nullptr));

    const void *const as_file = file, *const as_array = array;
    EXPECT(INVALID_HANDLE, gds_array_open(static_cast<const gds_file_t *>(as_array), nullptr,
                                          &other));
    EXPECT(INVALID_HANDLE, gds_array_flush(static_cast<const gds_array_t *>(as_file), nullptr));
    view.struct_size = sizeof view;
    gds_array_close(nullptr);
    gds_array_close(array);
    gds_array_close(array);
    EXPECT(INVALID_HANDLE, gds_array_acquire(array, &view));
    EXPECT(INVALID_HANDLE, gds_array_release(array, nullptr));
    EXPECT(INVALID_HANDLE, gds_array_flush(array, nullptr));
    EXPECT(INVALID_HANDLE, gds_array_invalidate(array));
    stats.struct_size = sizeof stats;
    EXPECT(INVALID_HANDLE, gds_array_stats(array, &stats));
}

void uses_that_do_not_match()
{
    gds_array_t *array = open_small(1);
    EXPECT(INVALID_ARGUMENT, gds_array_release(array, nullptr));
    const gds_array_view_t view = acquire(array);
    EXPECT(INVALID_ARGUMENT, gds_array_flush(array, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_invalidate(array));
    gds::cached_array<unsigned char>(view).write(1, known(1));
    EXPECT(OK, gds_array_release(array, nullptr));
    EXPECT(INVALID_ARGUMENT, gds_array_release(array, nullptr));
    uint64_t bytes = 0;
    EXPECT(OK, gds_array_flush(array, &bytes));
    TRUE(bytes == page);
    // Closed while in use: its threads end, and what was changed is written.
    gds::cached_array<unsigned char>(acquire(array)).write(page + 5, 250);
    gds_array_close(array);
    gds_array_t *again = open_small(0);
    TRUE(gds::cached_array<unsigned char>(acquire(again))[page + 5] == 250);
    gds_array_close(again);
    array = open_small(1);
    gds::cached_array<unsigned char>(acquire(array)).write(page + 5, known(page + 5));
    EXPECT(OK, gds_array_release(array, nullptr));
    gds_array_close(array);
}

void kernels_that_do_wrong()
{
    gds_array_t *array = open_small(0);
    gds_array_view_t view = acquire(array);
    const gds::cached_array<unsigned char> bytes(view);
    TRUE(bytes[pages * page - 1] == known(pages * page - 1) && bytes[pages * page] == 0);
    TRUE(bytes[UINT64_MAX] == 0);
    EXPECT(OUT_OF_RANGE, gds_array_release(array, nullptr));
    gds_error_info_t info = last_error();
    TRUE(info.file_offset == pages * page && info.path && std::strcmp(info.path, path) == 0);

    view = acquire(array);
    bytes.write(3 * page + 2, 1);
    TRUE(gds_array_pin_warp(&view, pages * page) == nullptr);
    EXPECT(READ_ONLY, gds_array_release(array, nullptr));
    info = last_error();
    TRUE(info.file_offset == 3 * page + 2);

    // More pages at once than there are frames.
    view = acquire(array);
    void *held[frames + 1];
    for (uint64_t i = 0; i <= frames; i++) {
        held[i] = gds_array_pin_warp(&view, i * page);
    }
    TRUE(held[frames - 1] != nullptr && held[frames] == nullptr);
    for (uint64_t i = 0; i < frames; i++) {
        gds_array_unpin_warp(&view, i * page);
    }
    EXPECT(ALL_PINNED, gds_array_release(array, nullptr));

    // Each was told once, and nothing is left of it.
    TRUE(wrong_pages(acquire(array)) == 0);
    EXPECT(OK, gds_array_release(array, nullptr));
    EXPECT(OK, gds_array_flush(array, nullptr));
    gds_array_close(array);
}

void disks_that_fail()
{
    gds_array_t *array = open_small(1);
    bad_offset = 20 * page;
    bad_read = EIO;
    TRUE(wrong_pages(acquire(array)) == 1);
    EXPECT(IO, gds_array_release(array, nullptr));
    gds_error_info_t info = last_error();
    TRUE(info.os_error == EIO && info.file_offset == 20 * page);
    bad_read = 0;
    TRUE(wrong_pages(acquire(array)) == 0);
    EXPECT(OK, gds_array_release(array, nullptr));

    // A page that must make room and cannot be written stays, until it can.
    gds::cached_array<unsigned char>(acquire(array)).write(20 * page + 7, 99);
    EXPECT(OK, gds_array_release(array, nullptr));
    bad_write = ENOSPC;
    wrong_pages(acquire(array));
    EXPECT(NO_SPACE, gds_array_release(array, nullptr));
    EXPECT(NO_SPACE, gds_array_flush(array, nullptr));
    EXPECT(NO_SPACE, gds_array_invalidate(array));
    gds_array_stats_t stats = GDS_ARRAY_STATS_INIT;
    EXPECT(OK, gds_array_stats(array, &stats));
    TRUE(stats.dirty == 1);
    TRUE(gds::cached_array<unsigned char>(acquire(array))[20 * page + 7] == 99);
    EXPECT(OK, gds_array_release(array, nullptr));
    bad_write = 0;
    uint64_t bytes = 0;
    EXPECT(OK, gds_array_flush(array, &bytes));
    TRUE(bytes == page);
    EXPECT(OK, gds_array_invalidate(array));
    TRUE(gds::cached_array<unsigned char>(acquire(array))[20 * page + 7] == 99);
    gds_array_close(array);
}

void a_file_that_becomes_shorter()
{
    gds_array_t *array = open_small(0);
    EXPECT(OK, gds_file_set_size(file, 40 * page));
    TRUE(wrong_pages(acquire(array)) >= pages - 40);
    EXPECT(FILE_CHANGED, gds_array_release(array, nullptr));
    TRUE(last_error().file_offset >= 40 * page);
    TRUE(gds::cached_array<unsigned char>(acquire(array))[39 * page] == known(39 * page));
    EXPECT(OK, gds_array_release(array, nullptr));
    gds_array_close(array);
}

// The order of closing does not matter.
void an_array_outlives_its_file_and_context()
{
    gds_array_t *array = open_small(1);
    gds_file_close(read_only);
    gds_file_close(file);
    gds_context_close(context);
    EXPECT(INVALID_HANDLE, gds_array_open(file, nullptr, &array));
    const gds_array_view_t view = acquire(array);
    TRUE(gds::cached_array<unsigned char>(view)[39 * page] == known(39 * page));
    EXPECT(OK, gds_array_release(array, nullptr));
    EXPECT(OK, gds_array_flush(array, nullptr));
    gds_array_close(array);
}

} // namespace

int main()
{
    if (!open_all()) {
        return 1;
    }
    wrong_configurations();
    null_and_foreign();
    uses_that_do_not_match();
    kernels_that_do_wrong();
    disks_that_fail();
    a_file_that_becomes_shorter();
    an_array_outlives_its_file_and_context();
    unlink(path);
    std::printf("%d answers checked, %d wrong\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
