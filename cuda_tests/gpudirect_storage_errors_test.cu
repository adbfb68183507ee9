// What goes wrong is answered with a status and a message, the caller's CUDA context stays what it
// was, and the library works on afterwards.

#include <dlfcn.h>

#include "check.cuh"

namespace {

// A pointer may be refused when it is wrapped or when it is used; never used.
bool is_refusal(gds_status_t status) {
    return status == GDS_STATUS_INVALID_POINTER || status == GDS_STATUS_INVALID_ARGUMENT ||
           status == GDS_STATUS_OUT_OF_RANGE || status == GDS_STATUS_BUFFER_TOO_SMALL ||
           status == GDS_STATUS_IO;
}

void expect_pointer_refused(gds_context_t *context, const gds_file_t *opened, void *memory,
                            uint64_t size, const char *what) {
    for (int use_register = 0; use_register < 2; use_register++) {
        gds_buffer_t *buffer = nullptr;
        gds_status_t status = use_register ? gds_buffer_register(context, memory, size, &buffer)
                                           : gds_buffer_wrap(context, memory, size, &buffer);
        if (status == GDS_STATUS_OK) {
            uint64_t bytes = 0;
            status = gds_read(opened, 0, buffer, 0, size, &bytes);
            gds_buffer_free(buffer);
        } else {
            CHECK(buffer == nullptr, "%s: an output was written by a call that failed", what);
        }
        CHECK(is_refusal(status), "%s: answered %d (%s)", what, (int)status,
              gds_status_string(status));
        CHECK(gds_last_error_message()[0] != '\0', "%s: no message", what);
    }
    CHECK(cudaDeviceSynchronize() == cudaSuccess, "%s: the device took harm", what);
}

void pointers_that_cannot_be_used(gds_context_t *context) {
    const TestFile file(MiB, 201);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *none = nullptr;
    CHECK(gds_buffer_wrap(context, nullptr, 4096, &none) != GDS_STATUS_OK && none == nullptr,
          "NULL was wrapped");
    int on_stack = 0;
    CHECK(gds_buffer_wrap(context, &on_stack, 0, &none) != GDS_STATUS_OK && none == nullptr,
          "no bytes were wrapped");

    void *unmapped = mmap(nullptr, MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(unmapped != MAP_FAILED, "%s", strerror(errno));
    expect_pointer_refused(context, opened, unmapped, MiB, "memory without access");
    CHECK(munmap(unmapped, MiB) == 0, "%s", strerror(errno));

    void *device = nullptr;
    CUDA_OK(cudaMalloc(&device, 4 * MiB));
    expect_pointer_refused(context, opened, device, 256 * MiB, "device memory that is too small");
    expect_pointer_refused(context, opened, (uint8_t *)device + 3 * MiB, 2 * MiB,
                           "a range that leaves its device memory");
    expect_pointer_refused(context, opened, device, UINT64_MAX - 4096, "a huge size");
    CUDA_OK(cudaFree(device));
    expect_pointer_refused(context, opened, device, MiB, "device memory that was freed");
    gds_file_close(opened);
}

void ranges_that_do_not_fit(gds_context_t *context) {
    const TestFile file(MiB, 211);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 8192, &buffer));
    CUDA_OK(cudaMemset(address_of(buffer), POISON, 8192));
    CUDA_OK(cudaDeviceSynchronize());
    const struct {
        uint64_t file_offset, buffer_offset, size;
    } wrong[] = {{0, 0, 8193},
                 {0, 8192, 1},
                 {0, 4097, 4096},
                 {0, UINT64_MAX, 2},
                 {0, 1, UINT64_MAX},
                 {UINT64_MAX, 0, 4096},
                 {UINT64_MAX - 10, 0, 11},
                 {(uint64_t)INT64_MAX, 0, 4096},
                 {0, (uint64_t)-4096, 8192}};
    for (const auto &range : wrong) {
        uint64_t bytes = 4242;
        for (int writing = 0; writing < 2; writing++) {
            gds_status_t status =
                writing ? gds_write(opened, range.file_offset, buffer, range.buffer_offset,
                                    range.size, &bytes)
                        : gds_read(opened, range.file_offset, buffer, range.buffer_offset,
                                   range.size, &bytes);
            CHECK(status == GDS_STATUS_OUT_OF_RANGE || status == GDS_STATUS_INVALID_ARGUMENT ||
                      status == GDS_STATUS_BUFFER_TOO_SMALL,
                  "%llu at %llu to %llu answered %d", (unsigned long long)range.size,
                  (unsigned long long)range.file_offset, (unsigned long long)range.buffer_offset,
                  (int)status);
            CHECK(bytes == 4242, "an output was written by a call that failed");
        }
        gds_ticket_t *ticket = nullptr;
        gds_status_t status = gds_read_async(opened, range.file_offset, buffer,
                                             range.buffer_offset, range.size, nullptr, &ticket);
        CHECK(status != GDS_STATUS_OK && ticket == nullptr, "a stream read took the range");
    }
    Counter counter;
    counter.all(address_of(buffer), 8192, POISON);
    counter.expect_none("the buffer of calls that failed");
    file.expect_known(0, MiB, 211);
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void arguments_that_are_null(gds_context_t *context) {
    const TestFile file(8192, 221);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 8192, &buffer));
    uint64_t bytes = 0;
    gds_ticket_t *ticket = nullptr;
    gds_completion_t completion = GDS_COMPLETION_INIT;
    gds_batch_entry_t entry;
    memset(&entry, 0, sizeof entry);
    const gds_status_t answers[] = {
        gds_context_open(nullptr, nullptr),
        gds_read(nullptr, 0, buffer, 0, 4096, &bytes),
        gds_read(opened, 0, nullptr, 0, 4096, &bytes),
        gds_read_async(nullptr, 0, buffer, 0, 4096, nullptr, &ticket),
        gds_read_async(opened, 0, buffer, 0, 4096, nullptr, nullptr),
        gds_read_start(opened, 0, nullptr, 0, 4096, nullptr, &ticket),
        gds_readv(opened, 0, nullptr, 2, nullptr, &completion),
        gds_batch_submit(context, nullptr, 2, nullptr, &ticket),
        gds_batch_submit(context, &entry, 1, nullptr, &ticket),
        gds_ticket_wait(nullptr, -1, &completion),
        gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 0, &buffer),
        gds_buffer_alloc(context, 77, 4096, &buffer),
        gds_file_open(context, nullptr, GDS_FILE_READ, &opened),
        gds_file_open(context, file.path(), 0x8000, &opened),
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        CHECK(answers[i] == GDS_STATUS_INVALID_ARGUMENT || answers[i] == GDS_STATUS_INVALID_HANDLE,
              "call %zu answered %d (%s)", i, (int)answers[i], gds_status_string(answers[i]));
    }
    CHECK(ticket == nullptr, "an output was written by a call that failed");
    gds_buffer_free(nullptr);
    gds_file_close(nullptr);
    gds_ticket_destroy(nullptr);
    gds_context_close(nullptr);
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void files_that_cannot_be_used(gds_context_t *context) {
    gds_file_t *opened = nullptr;
    GDS_IS(GDS_STATUS_NOT_FOUND,
           gds_file_open(context, "/nonexistent/file", GDS_FILE_READ, &opened));
    CHECK(strstr(gds_last_error_message(), "/nonexistent/file") != nullptr,
          "the message does not name the file: %s", gds_last_error_message());
    GDS_IS(GDS_STATUS_UNSUPPORTED_FILE, gds_file_open(context, "/", GDS_FILE_READ, &opened));
    CHECK(opened == nullptr, "an output was written by a call that failed");

    const TestFile file(MiB, 231);
    opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, MiB, &buffer));
    uint64_t bytes = 0;
    GDS_IS(GDS_STATUS_READ_ONLY, gds_write(opened, 0, buffer, 0, 4096, &bytes));
    file.expect_known(0, MiB, 231);

    // One bad entry refuses the batch whole; the same batch put right works.
    gds_file_close(opened);
    opened = open_file(context, file, GDS_FILE_READ);
    gds_batch_entry_t entries[3];
    memset(entries, 0, sizeof entries);
    for (uint64_t i = 0; i < 3; i++) {
        entries[i].file = opened;
        entries[i].buffer = buffer;
        entries[i].file_offset = entries[i].buffer_offset = i * 4096;
        entries[i].size = 4096;
        entries[i].operation = GDS_OPERATION_READ;
    }
    entries[1].operation = 7;
    gds_ticket_t *ticket = nullptr;
    GDS_IS(GDS_STATUS_INVALID_ARGUMENT, gds_batch_submit(context, entries, 3, nullptr, &ticket));
    CHECK(ticket == nullptr, "an output was written by a call that failed");
    entries[1].operation = GDS_OPERATION_READ;
    GDS_OK(gds_batch_submit(context, entries, 3, nullptr, &ticket));
    gds_completion_t completion = GDS_COMPLETION_INIT;
    GDS_OK(gds_ticket_wait(ticket, -1, &completion));
    gds_ticket_destroy(ticket);
    Counter counter;
    counter.known(address_of(buffer), 3 * 4096, 231, 0);
    counter.expect_none("a batch after one that was refused");
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void children_outlive_their_context(gds_context_t *) {
    const TestFile file(MiB + 5, 241);
    gds_context_t *context = open_context();
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, MiB, &buffer));
    gds_context_close(context);
    gds_ticket_t *ticket = nullptr;
    GDS_OK(gds_read_start(opened, 5, buffer, 0, MiB, nullptr, &ticket));
    gds_file_close(opened);
    uint8_t *address = address_of(buffer);
    gds_completion_t completion = GDS_COMPLETION_INIT;
    GDS_OK(gds_ticket_wait(ticket, -1, &completion));
    Counter counter;
    counter.known(address, MiB, 241, 5);
    counter.expect_none("a read whose context and file were closed");
    gds_ticket_destroy(ticket);
    gds_buffer_free(buffer);
}

// ---- the caller's CUDA context -------------------------------------------------------------

struct Driver {
    int (*device_get)(int *device, int ordinal);
    int (*context_create)(void **context, unsigned flags, int device);
    int (*context_destroy)(void *context);
    int (*context_current)(void **context);
    int (*context_set)(void *context);
};

template <typename Function>
void find(void *library, const char *name, Function *function) {
    *(void **)function = dlsym(library, name);
    CHECK(*function != nullptr, "libcuda.so.1 has no %s", name);
}

void *current(const Driver &driver) {
    void *context = nullptr;
    CHECK(driver.context_current(&context) == 0, "cuCtxGetCurrent failed");
    return context;
}

#define UNCHANGED(call)                                                            \
    do {                                                                           \
        GDS_OK(call);                                                              \
        CHECK(current(driver) == mine, "%s left another CUDA context current", #call); \
    } while (0)

void callers_context_is_restored(gds_context_t *) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(library != nullptr, "%s", dlerror());
    Driver driver;
    find(library, "cuDeviceGet", &driver.device_get);
    find(library, "cuCtxCreate_v2", &driver.context_create);
    find(library, "cuCtxDestroy_v2", &driver.context_destroy);
    find(library, "cuCtxGetCurrent", &driver.context_current);
    find(library, "cuCtxSetCurrent", &driver.context_set);
    int device = 0;
    CHECK(driver.device_get(&device, 0) == 0, "cuDeviceGet failed");
    void *primary = current(driver), *other = nullptr;
    CHECK(driver.context_create(&other, 0, device) == 0, "cuCtxCreate failed");
    CHECK(other != primary, "the driver gave the primary context");

    const TestFile file(MiB, 251);
    const uint64_t size = MiB;
    for (void *mine : {other, (void *)nullptr, primary}) {
        CHECK(driver.context_set(mine) == 0, "cuCtxSetCurrent failed");
        gds_config_t config = GDS_CONFIG_INIT;
        config.gpu_device = 0;
        gds_context_t *context = nullptr;
        UNCHANGED(gds_context_open(&config, &context));
        gds_device_info_t info = GDS_DEVICE_INFO_INIT;
        UNCHANGED(gds_device_info(0, &info));
        UNCHANGED(gds_context_device(context, &info));
        gds_file_t *opened = nullptr;
        UNCHANGED(gds_file_open(context, file.path(), GDS_FILE_READ | GDS_FILE_WRITE, &opened));
        gds_buffer_t *buffer = nullptr, *pinned = nullptr;
        UNCHANGED(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
        UNCHANGED(gds_buffer_alloc(context, GDS_MEMORY_PINNED, size, &pinned));
        uint64_t bytes = 0;
        for (int warm = 0; warm < 2; warm++) {
            warm ? file.make_warm() : file.make_cold();
            UNCHANGED(gds_read(opened, 3, buffer, 1, size - 3, &bytes));
            UNCHANGED(gds_read(opened, 3, pinned, 1, size - 3, &bytes));
        }
        gds_completion_t completion = GDS_COMPLETION_INIT;
        gds_ticket_t *ticket = nullptr;
        UNCHANGED(gds_read_start(opened, 0, buffer, 0, size, nullptr, &ticket));
        UNCHANGED(gds_ticket_wait(ticket, -1, &completion));
        gds_ticket_destroy(ticket);
        CHECK(current(driver) == mine, "gds_ticket_destroy left another CUDA context current");
        gds_batch_entry_t entry;
        memset(&entry, 0, sizeof entry);
        entry.file = opened;
        entry.buffer = buffer;
        entry.size = size;
        entry.operation = GDS_OPERATION_READ;
        UNCHANGED(gds_batch_submit(context, &entry, 1, nullptr, &ticket));
        UNCHANGED(gds_ticket_wait(ticket, -1, &completion));
        gds_ticket_destroy(ticket);
        UNCHANGED(gds_write(opened, 0, buffer, 0, size, &bytes));
        void *address = nullptr;
        UNCHANGED(gds_buffer_address(buffer, &address));
        gds_buffer_t *wrapped = nullptr;
        UNCHANGED(gds_buffer_wrap(context, address, size, &wrapped));
        UNCHANGED(gds_read(opened, 0, wrapped, 0, size, &bytes));
        gds_buffer_free(wrapped);
        UNCHANGED(gds_buffer_register(context, address, size, &wrapped));
        gds_buffer_unregister(wrapped);
        CHECK(current(driver) == mine, "gds_buffer_unregister left another context current");
        // A call that fails restores it as well.
        CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 1ull << 50, &wrapped) ==
                  GDS_STATUS_OUT_OF_DEVICE_MEMORY,
              "a petabyte of device memory was given out: %s", gds_last_error_message());
        CHECK(current(driver) == mine, "a failed allocation left another context current");

        CHECK(driver.context_set(primary) == 0, "cuCtxSetCurrent failed");
        {
            Counter counter;
            counter.known(address, size, file.seed(), 0);
            counter.expect_none("a read with the caller's own context current");
        }
        CHECK(driver.context_set(mine) == 0, "cuCtxSetCurrent failed");
        gds_buffer_free(pinned);
        gds_buffer_free(buffer);
        gds_file_close(opened);
        gds_context_close(context);
        CHECK(current(driver) == mine, "closing left another CUDA context current");
    }
    CHECK(driver.context_set(primary) == 0, "cuCtxSetCurrent failed");
    CHECK(driver.context_destroy(other) == 0, "cuCtxDestroy failed");
    CHECK(driver.context_set(primary) == 0, "cuCtxSetCurrent failed");
    file.expect_known(0, size, 251);
}

const Case CASES[] = {
    {"pointers_that_cannot_be_used", pointers_that_cannot_be_used},
    {"ranges_that_do_not_fit", ranges_that_do_not_fit},
    {"arguments_that_are_null", arguments_that_are_null},
    {"files_that_cannot_be_used", files_that_cannot_be_used},
    {"children_outlive_their_context", children_outlive_their_context},
    {"callers_context_is_restored", callers_context_is_restored},
};

}  // namespace

int main() { return run_cases(CASES, sizeof CASES / sizeof CASES[0]); }
