/*
 * gds_rs.hpp - C++ over gds_rs.h: handles that close themselves, failures that throw.
 *
 *     gds::context context;
 *     gds::file file(context, "model.bin");
 *     gds::buffer buffer(context, GDS_MEMORY_DEVICE, file.size());
 *     uint64_t bytes = file.read(0, buffer, 0, buffer.size());
 *
 * Header only, C++11 and later; none of it is in the shared library. A class over a handle
 * moves, does not copy, and closes with the call that gds_rs.h names. get() is the handle
 * for calls of gds_rs.h, release() gives it up. A moved-from object holds NULL, and calls
 * on it throw GDS_STATUS_INVALID_ARGUMENT. What each function does is said in gds_rs.h.
 *
 * Contexts, files, buffers and transfers are here; gds_rs_stream.hpp (readers, writers,
 * pipelines), gds_rs_cache.hpp (page cache, reading ahead, regions, arrays for kernels) and
 * gds_rs_kv.hpp (key-value store) come with it.
 */

#ifndef GDS_RS_HPP
#define GDS_RS_HPP

#include "gds_rs.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace gds {

/** A failed call. what() is the library's message. */
class error : public std::runtime_error {
public:
    error(gds_status_t status, const std::string &message)
        : std::runtime_error(message), status_(status)
    {
    }

    /** What a struct of the library says. */
    explicit error(const gds_error_info_t &info)
        : std::runtime_error(info.message), status_(static_cast<gds_status_t>(info.status)),
          os_error_(info.os_error), cuda_error_(info.cuda_error),
          cufile_error_(info.cufile_error), path_(info.path ? info.path : ""),
          has_offset_(info.has_file_offset != 0), offset_(info.file_offset)
    {
    }

    gds_status_t status() const noexcept { return status_; }
    /** errno, or 0. */
    int os_error() const noexcept { return os_error_; }
    /** CUresult, or 0. */
    int cuda_error() const noexcept { return cuda_error_; }
    /** CUfileOpError, or 0. */
    int cufile_error() const noexcept { return cufile_error_; }
    /** The file, or "". */
    const std::string &path() const noexcept { return path_; }
    /** Whether offset() is known. */
    bool has_offset() const noexcept { return has_offset_; }
    /** Where in the file, bytes. */
    uint64_t offset() const noexcept { return offset_; }

private:
    gds_status_t status_;
    int os_error_ = 0;
    int cuda_error_ = 0;
    int cufile_error_ = 0;
    std::string path_;
    bool has_offset_ = false;
    uint64_t offset_ = 0;
};

/** Throws what the thread's last error says, unless `status` is GDS_STATUS_OK. */
inline void check(gds_status_t status)
{
    if (status == GDS_STATUS_OK) {
        return;
    }
    gds_error_info_t info;
    if (gds_last_error(&info, sizeof info) == GDS_STATUS_OK && info.status == status) {
        throw error(info);
    }
    throw error(status, gds_status_string(status));
}

namespace detail {

struct closer {
    void operator()(gds_context_t *handle) const noexcept { gds_context_close(handle); }
    void operator()(gds_file_t *handle) const noexcept { gds_file_close(handle); }
    void operator()(gds_buffer_t *handle) const noexcept { gds_buffer_free(handle); }
    void operator()(gds_ticket_t *handle) const noexcept { gds_ticket_destroy(handle); }
    void operator()(gds_cache_t *handle) const noexcept { gds_cache_close(handle); }
    void operator()(gds_array_t *handle) const noexcept { gds_array_close(handle); }
    void operator()(gds_reader_t *handle) const noexcept { gds_reader_close(handle); }
    void operator()(gds_writer_t *handle) const noexcept { gds_writer_close(handle); }
    void operator()(gds_pipeline_t *handle) const noexcept { gds_pipeline_close(handle); }
    void operator()(gds_prefetch_t *handle) const noexcept { gds_prefetch_close(handle); }
    void operator()(gds_region_set_t *handle) const noexcept
    {
        gds_region_set_close(handle);
    }
    void operator()(gds_region_t *handle) const noexcept { gds_region_unmap(handle); }
    void operator()(gds_kv_t *handle) const noexcept { gds_kv_close(handle); }
    void operator()(gds_kv_batch_t *handle) const noexcept { gds_kv_batch_destroy(handle); }
    void operator()(gds_kv_scan_t *handle) const noexcept { gds_kv_scan_close(handle); }
    void operator()(gds_kv_writer_t *handle) const noexcept { gds_kv_writer_close(handle); }
    void operator()(gds_kv_device_t *handle) const noexcept { gds_kv_device_close(handle); }
    void operator()(gds_kv_snapshot_t *handle) const noexcept
    {
        gds_kv_snapshot_close(handle);
    }
};

/** A handle that closes itself. */
template <typename T> class handle {
public:
    /** Takes a handle of gds_rs.h over. */
    explicit handle(T *raw) noexcept : handle_(raw) {}

    T *get() const noexcept { return handle_.get(); }
    /** Gives the handle up; the caller closes it. */
    T *release() noexcept { return handle_.release(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    std::unique_ptr<T, closer> handle_;
};

} // namespace detail

/** The balanced configuration, to be changed as needed. */
inline gds_config_t config()
{
    gds_config_t config;
    check(gds_config_init(&config, sizeof config));
    return config;
}

/** Options that leave all to the context. */
inline gds_options_t options()
{
    gds_options_t options = GDS_OPTIONS_INIT;
    return options;
}

/** One device with its transfer threads and staging memory. */
class context : public detail::handle<gds_context_t> {
public:
    using detail::handle<gds_context_t>::handle;

    /** The balanced profile with the environment's GDS_* variables. */
    context() : handle(open(nullptr)) {}
    explicit context(const gds_config_t &config) : handle(open(&config)) {}

    gds_device_info_t device() const
    {
        gds_device_info_t info = GDS_DEVICE_INFO_INIT;
        check(gds_context_device(get(), &info));
        return info;
    }

    gds_metrics_t metrics() const
    {
        gds_metrics_t metrics = GDS_METRICS_INIT;
        check(gds_context_metrics(get(), &metrics));
        return metrics;
    }

    gds_performance_t performance() const
    {
        gds_performance_t performance = GDS_PERFORMANCE_INIT;
        check(gds_context_performance(get(), &performance));
        return performance;
    }

    /** Which way a large read of the file would take, and why not a better one. */
    std::string explain(const std::string &path) const
    {
        uint64_t needed = 0;
        check(gds_explain(get(), path.c_str(), nullptr, 0, &needed));
        std::vector<char> text(static_cast<size_t>(needed));
        /* The file may change between the two questions, and the text with it. */
        for (;;) {
            gds_status_t status =
                gds_explain(get(), path.c_str(), text.data(), text.size(), &needed);
            if (status != GDS_STATUS_BUFFER_TOO_SMALL) {
                check(status);
                break;
            }
            text.resize(static_cast<size_t>(needed));
        }
        return std::string(text.data());
    }

private:
    static gds_context_t *open(const gds_config_t *config)
    {
        gds_context_t *made = nullptr;
        check(gds_context_open(config, &made));
        return made;
    }
};

/** Memory that transfers read from and write to. */
class buffer : public detail::handle<gds_buffer_t> {
public:
    using detail::handle<gds_buffer_t>::handle;

    /** Allocates device or pinned memory. */
    buffer(const context &owner, gds_memory_kind_t kind, uint64_t size)
        : handle(alloc(owner, kind, size))
    {
    }

    /** The caller's memory of any kind; it outlives the buffer and its tickets. */
    static buffer wrap(const context &owner, void *address, uint64_t size)
    {
        gds_buffer_t *made = nullptr;
        check(gds_buffer_wrap(owner.get(), address, size, &made));
        return buffer(made);
    }

    /** As wrap, and pins host memory. */
    static buffer registered(const context &owner, void *address, uint64_t size)
    {
        gds_buffer_t *made = nullptr;
        check(gds_buffer_register(owner.get(), address, size, &made));
        return buffer(made);
    }

    gds_buffer_info_t info() const
    {
        gds_buffer_info_t info = GDS_BUFFER_INFO_INIT;
        check(gds_buffer_info(get(), &info));
        return info;
    }

    /** A device pointer for device memory. */
    void *address() const
    {
        void *address = nullptr;
        check(gds_buffer_address(get(), &address));
        return address;
    }

    uint64_t size() const { return info().size; }

    /** CRC32C of each chunk of a range, the last of which may be shorter. */
    std::vector<uint32_t> crc32c(const context &owner, uint64_t offset, uint64_t bytes,
                                 uint64_t chunk_bytes) const
    {
        const uint64_t chunks = chunk_bytes == 0 ? 0 : bytes / chunk_bytes + 1;
        std::vector<uint32_t> crcs(static_cast<size_t>(chunks + 1));
        check(gds_crc32c(owner.get(), get(), offset, bytes, chunk_bytes, crcs.data(),
                         crcs.size()));
        crcs.resize(static_cast<size_t>(bytes / chunk_bytes + (bytes % chunk_bytes != 0)));
        return crcs;
    }

private:
    static gds_buffer_t *alloc(const context &owner, gds_memory_kind_t kind, uint64_t size)
    {
        gds_buffer_t *made = nullptr;
        check(gds_buffer_alloc(owner.get(), kind, size, &made));
        return made;
    }
};

/** A transfer that goes on by itself. Its end cancels it and waits for it. */
class ticket : public detail::handle<gds_ticket_t> {
public:
    using detail::handle<gds_ticket_t>::handle;

    bool done() const
    {
        int32_t done = 0;
        check(gds_ticket_poll(get(), &done));
        return done != 0;
    }

    /** Waits for ever, and throws what went wrong. */
    gds_completion_t wait() const
    {
        gds_completion_t completion = GDS_COMPLETION_INIT;
        check(gds_ticket_wait(get(), -1, &completion));
        return completion;
    }

    /** Waits timeout_ms at most. False: not done yet. Throws what went wrong. */
    bool wait_for(int64_t timeout_ms, gds_completion_t *completion = nullptr) const
    {
        gds_status_t status = gds_ticket_wait(get(), timeout_ms, completion);
        if (status == GDS_STATUS_PENDING) {
            return false;
        }
        check(status);
        return true;
    }

    void cancel() const { check(gds_ticket_cancel(get())); }

    /** Becomes readable when done. Belongs to the ticket. */
    int eventfd() const
    {
        int fd = -1;
        check(gds_ticket_eventfd(get(), &fd));
        return fd;
    }

    /** How each transfer of a batch went. */
    std::vector<gds_completion_t> results(uint64_t first, uint64_t count) const
    {
        gds_completion_t empty = GDS_COMPLETION_INIT;
        std::vector<gds_completion_t> results(static_cast<size_t>(count), empty);
        check(gds_batch_results(get(), first, count, results.data()));
        return results;
    }
};

/** An open file. */
class file : public detail::handle<gds_file_t> {
public:
    using detail::handle<gds_file_t>::handle;

    file(const context &owner, const std::string &path, uint32_t flags = GDS_FILE_READ)
        : handle(open(owner, path, flags))
    {
    }

    /** A duplicate of the caller's descriptor. */
    static file from_fd(const context &owner, int fd)
    {
        gds_file_t *made = nullptr;
        check(gds_file_from_fd(owner.get(), fd, &made));
        return file(made);
    }

    uint64_t size() const
    {
        uint64_t size = 0;
        check(gds_file_size(get(), &size));
        return size;
    }

    gds_file_info_t info() const
    {
        gds_file_info_t info = GDS_FILE_INFO_INIT;
        check(gds_file_info(get(), &info));
        return info;
    }

    void sync() const { check(gds_file_sync(get())); }
    void set_size(uint64_t size) const { check(gds_file_set_size(get(), size)); }

    /** Bytes that arrived; fewer than size at the end of the file. */
    uint64_t read(uint64_t file_offset, const buffer &to, uint64_t to_offset,
                  uint64_t size) const
    {
        uint64_t bytes = 0;
        check(gds_read(get(), file_offset, to.get(), to_offset, size, &bytes));
        return bytes;
    }

    uint64_t write(uint64_t file_offset, const buffer &from, uint64_t from_offset,
                   uint64_t size) const
    {
        uint64_t bytes = 0;
        check(gds_write(get(), file_offset, from.get(), from_offset, size, &bytes));
        return bytes;
    }

    gds_completion_t read(uint64_t file_offset, const buffer &to, uint64_t to_offset,
                          uint64_t size, const gds_options_t &options) const
    {
        gds_completion_t done = GDS_COMPLETION_INIT;
        check(gds_read_with(get(), file_offset, to.get(), to_offset, size, &options,
                            &done));
        return done;
    }

    gds_completion_t write(uint64_t file_offset, const buffer &from, uint64_t from_offset,
                           uint64_t size, const gds_options_t &options) const
    {
        gds_completion_t done = GDS_COMPLETION_INIT;
        check(gds_write_with(get(), file_offset, from.get(), from_offset, size, &options,
                             &done));
        return done;
    }

    ticket read_start(uint64_t file_offset, const buffer &to, uint64_t to_offset,
                      uint64_t size, const gds_options_t *options = nullptr) const
    {
        gds_ticket_t *made = nullptr;
        check(gds_read_start(get(), file_offset, to.get(), to_offset, size, options,
                             &made));
        return ticket(made);
    }

    ticket write_start(uint64_t file_offset, const buffer &from, uint64_t from_offset,
                       uint64_t size, const gds_options_t *options = nullptr) const
    {
        gds_ticket_t *made = nullptr;
        check(gds_write_start(get(), file_offset, from.get(), from_offset, size, options,
                              &made));
        return ticket(made);
    }

    /** In the order of a CUDA stream. */
    ticket read_async(uint64_t file_offset, const buffer &to, uint64_t to_offset,
                      uint64_t size, gds_cuda_stream_t stream) const
    {
        gds_ticket_t *made = nullptr;
        check(gds_read_async(get(), file_offset, to.get(), to_offset, size, stream, &made));
        return ticket(made);
    }

    /** In the order of a CUDA stream. */
    ticket write_async(uint64_t file_offset, const buffer &from, uint64_t from_offset,
                       uint64_t size, gds_cuda_stream_t stream) const
    {
        gds_ticket_t *made = nullptr;
        check(gds_write_async(get(), file_offset, from.get(), from_offset, size, stream,
                              &made));
        return ticket(made);
    }

private:
    static gds_file_t *open(const context &owner, const std::string &path, uint32_t flags)
    {
        gds_file_t *made = nullptr;
        check(gds_file_open(owner.get(), path.c_str(), flags, &made));
        return made;
    }
};

/** Starts many transfers with one ticket. */
inline ticket submit(const context &owner, const std::vector<gds_batch_entry_t> &entries,
                     const gds_options_t *options = nullptr)
{
    gds_ticket_t *made = nullptr;
    check(gds_batch_submit(owner.get(), entries.data(), entries.size(), options, &made));
    return ticket(made);
}

static_assert(sizeof(context) == sizeof(void *), "a context is one pointer");
static_assert(sizeof(file) == sizeof(void *), "a file is one pointer");
static_assert(sizeof(buffer) == sizeof(void *), "a buffer is one pointer");
static_assert(sizeof(ticket) == sizeof(void *), "a ticket is one pointer");

} // namespace gds

#include "gds_rs_cache.hpp"
#include "gds_rs_kv.hpp"
#include "gds_rs_stream.hpp"

#endif /* GDS_RS_HPP */
