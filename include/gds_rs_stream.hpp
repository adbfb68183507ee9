/*
 * gds_rs_stream.hpp - C++ over the readers, writers and pipelines of gds_rs.h.
 *
 *     gds::reader reader(file);
 *     reader.each([&](gds::chunk &chunk) { ... chunk.address(), chunk.size() ... });
 *
 * gds_rs.hpp says what holds for all classes, and includes this.
 */

#ifndef GDS_RS_STREAM_HPP
#define GDS_RS_STREAM_HPP

#include "gds_rs.hpp"

#include <memory>
#include <utility>
#include <vector>

namespace gds {

/** A chunk that a reader delivered. Its end gives it back, unless that was done. */
class chunk {
public:
    chunk(chunk &&other) noexcept : owner_(other.owner_), chunk_(other.chunk_)
    {
        other.owner_ = nullptr;
    }
    chunk(const chunk &) = delete;
    chunk &operator=(const chunk &) = delete;
    chunk &operator=(chunk &&) = delete;

    ~chunk()
    {
        if (owner_) {
            /* A reader that failed or was cancelled takes it as well. */
            gds_status_t ignored = gds_reader_release(owner_, &chunk_);
            static_cast<void>(ignored);
        }
    }

    /** False: there was none, or it was given back. */
    explicit operator bool() const noexcept { return owner_ != nullptr; }

    const gds_chunk_t *operator->() const noexcept { return &chunk_; }

    /** A device pointer for device memory. */
    const void *address() const noexcept
    {
        return reinterpret_cast<const void *>(static_cast<uintptr_t>(chunk_.address));
    }

    uint64_t size() const noexcept { return chunk_.size; }

    /** Gives it back now. */
    void release()
    {
        check(gds_reader_release(owner_, &chunk_));
        owner_ = nullptr;
    }

    /** Gives it back after the work that is in a CUDA stream now. */
    void release_on(gds_cuda_stream_t stream)
    {
        check(gds_reader_release_on(owner_, &chunk_, stream));
        owner_ = nullptr;
    }

private:
    friend class reader;
    chunk(const gds_reader_t *owner, const gds_chunk_t &given)
        : owner_(owner), chunk_(given)
    {
    }

    const gds_reader_t *owner_;
    gds_chunk_t chunk_;
};

/** Streams a file or ranges of files through a few buffers. Outlives its chunks. */
class reader : public detail::handle<gds_reader_t> {
public:
    using detail::handle<gds_reader_t>::handle;

    explicit reader(const file &from, const gds_reader_config_t *config = nullptr)
        : handle(open(from, config))
    {
    }

    explicit reader(const std::vector<gds_range_t> &ranges,
                    const gds_reader_config_t *config = nullptr)
        : handle(open(ranges, config))
    {
    }

    /** Waits for the next chunk. One that is false: that was the last. */
    chunk next() const
    {
        gds_chunk_t given = GDS_CHUNK_INIT;
        gds_status_t status = gds_reader_next(get(), -1, &given);
        if (status == GDS_STATUS_END) {
            return chunk(nullptr, given);
        }
        check(status);
        return chunk(get(), given);
    }

    /** Calls back with each chunk that is left, which is given back at its end. */
    template <typename F> void each(F &&call) const
    {
        for (;;) {
            chunk given = next();
            if (!given) {
                return;
            }
            call(given);
        }
    }

    void cancel() const { check(gds_reader_cancel(get())); }

    gds_reader_info_t info() const
    {
        gds_reader_info_t info = GDS_READER_INFO_INIT;
        check(gds_reader_info(get(), &info));
        return info;
    }

private:
    static gds_reader_t *open(const file &from, const gds_reader_config_t *config)
    {
        gds_reader_t *made = nullptr;
        check(gds_reader_open(from.get(), config, &made));
        return made;
    }

    static gds_reader_t *open(const std::vector<gds_range_t> &ranges,
                              const gds_reader_config_t *config)
    {
        gds_reader_t *made = nullptr;
        check(gds_reader_open_ranges(ranges.data(), ranges.size(), config, &made));
        return made;
    }
};

/** A buffer of a writer, to be filled. Its end gives it back unwritten. */
class space {
public:
    space(space &&other) noexcept : owner_(other.owner_), space_(other.space_)
    {
        other.owner_ = nullptr;
    }
    space(const space &) = delete;
    space &operator=(const space &) = delete;
    space &operator=(space &&) = delete;

    ~space()
    {
        if (owner_) {
            /* No bytes: nothing is written. A writer that failed takes it as well. */
            gds_status_t ignored = gds_writer_submit(owner_, &space_, 0, nullptr);
            static_cast<void>(ignored);
        }
    }

    /** False: there was none, or it was submitted. */
    explicit operator bool() const noexcept { return owner_ != nullptr; }

    /** A device pointer for device memory. */
    void *address() const noexcept
    {
        return reinterpret_cast<void *>(static_cast<uintptr_t>(space_.address));
    }

    /** Bytes that it holds. */
    uint64_t size() const noexcept { return space_.size; }

    /** Has its first bytes written, and answers where in the file. */
    uint64_t submit(uint64_t bytes)
    {
        uint64_t offset = 0;
        check(gds_writer_submit(owner_, &space_, bytes, &offset));
        owner_ = nullptr;
        return offset;
    }

    /** The same, after the work that is in a CUDA stream now. */
    uint64_t submit_on(uint64_t bytes, gds_cuda_stream_t stream)
    {
        uint64_t offset = 0;
        check(gds_writer_submit_on(owner_, &space_, bytes, stream, &offset));
        owner_ = nullptr;
        return offset;
    }

private:
    friend class writer;
    space(const gds_writer_t *owner, const gds_space_t &given)
        : owner_(owner), space_(given)
    {
    }

    const gds_writer_t *owner_;
    gds_space_t space_;
};

/**
 * Streams a few buffers into a file. Outlives its spaces. Its end waits for what was
 * submitted; only finish() tells whether that went well.
 */
class writer : public detail::handle<gds_writer_t> {
public:
    using detail::handle<gds_writer_t>::handle;

    explicit writer(const file &to, uint64_t offset = 0,
                    const gds_reader_config_t *config = nullptr)
        : handle(open(to, offset, config))
    {
    }

    /** Waits for a buffer that is idle. */
    space acquire() const
    {
        gds_space_t given = gds_space_t();
        check(gds_writer_acquire(get(), -1, &given));
        return space(get(), given);
    }

    /** Waits timeout_ms at most. A space that is false: none is idle yet. */
    space acquire_for(int64_t timeout_ms) const
    {
        gds_space_t given = gds_space_t();
        gds_status_t status = gds_writer_acquire(get(), timeout_ms, &given);
        if (status == GDS_STATUS_PENDING) {
            return space(nullptr, given);
        }
        check(status);
        return space(get(), given);
    }

    /** Waits until all that was submitted is written: bytes so far. */
    uint64_t finish() const
    {
        uint64_t bytes = 0;
        check(gds_writer_finish(get(), &bytes));
        return bytes;
    }

private:
    static gds_writer_t *open(const file &to, uint64_t offset,
                              const gds_reader_config_t *config)
    {
        gds_writer_t *made = nullptr;
        check(gds_writer_open(to.get(), offset, config, &made));
        return made;
    }
};

/** Moves single requests, a bounded number at a time. */
class pipeline : public detail::handle<gds_pipeline_t> {
public:
    using detail::handle<gds_pipeline_t>::handle;

    explicit pipeline(const context &owner, const gds_pipeline_config_t *config = nullptr)
        : handle(open(owner, config))
    {
    }

    /** Hands a request over, and answers its number; wait_one() tells how it went. */
    uint64_t submit(const gds_batch_entry_t &request) const
    {
        uint64_t id = 0;
        check(gds_pipeline_submit(get(), &request, -1, nullptr, nullptr, &id));
        return id;
    }

    /**
     * Hands a request over whose end is told by call(uint64_t id, const gds_completion_t &)
     * on the pipeline's own thread. It must not throw.
     */
    template <typename F> uint64_t submit(const gds_batch_entry_t &request, F call) const
    {
        uint64_t id = 0;
        std::unique_ptr<F> kept(new F(std::move(call)));
        check(gds_pipeline_submit(get(), &request, -1, called<F>, kept.get(), &id));
        /* The call has it: it may be gone by now. */
        static_cast<void>(kept.release());
        return id;
    }

    /**
     * Takes the result of a request without a callback. False: none is left. Does not throw
     * what went wrong with the request: see its status.
     */
    bool wait_one(gds_completion_t &completion, uint64_t *id = nullptr) const
    {
        gds_completion_t taken = GDS_COMPLETION_INIT;
        gds_status_t status = gds_pipeline_wait_one(get(), -1, id, &taken);
        if (status == GDS_STATUS_END) {
            return false;
        }
        check(status);
        completion = taken;
        return true;
    }

    /** Until every request is over and every callback has returned. */
    void wait_all() const { check(gds_pipeline_wait_all(get())); }

    gds_pipeline_info_t info() const
    {
        gds_pipeline_info_t info = GDS_PIPELINE_INFO_INIT;
        check(gds_pipeline_info(get(), &info));
        return info;
    }

private:
    template <typename F>
    static void called(uint64_t id, const gds_completion_t *completion,
                       void *user_data) noexcept
    {
        std::unique_ptr<F> call(static_cast<F *>(user_data));
        (*call)(id, *completion);
    }

    static gds_pipeline_t *open(const context &owner, const gds_pipeline_config_t *config)
    {
        gds_pipeline_t *made = nullptr;
        check(gds_pipeline_open(owner.get(), config, &made));
        return made;
    }
};

static_assert(sizeof(reader) == sizeof(void *), "a reader is one pointer");
static_assert(sizeof(writer) == sizeof(void *), "a writer is one pointer");
static_assert(sizeof(pipeline) == sizeof(void *), "a pipeline is one pointer");

} // namespace gds

#endif /* GDS_RS_STREAM_HPP */
