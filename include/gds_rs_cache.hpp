/*
 * gds_rs_cache.hpp - C++ over the page cache, reading ahead, mapped regions and arrays for
 * kernels of gds_rs.h.
 *
 *     gds::cache cache(context);
 *     gds::page page = cache.get(file, offset);
 *     work<<<blocks, threads>>>(page.address(), page.size());
 *
 * gds_rs.hpp says what holds for all classes, and includes this.
 */

#ifndef GDS_RS_CACHE_HPP
#define GDS_RS_CACHE_HPP

#include "gds_rs.hpp"

#include <utility>
#include <vector>

namespace gds {

/**
 * A page that is held: it stays where it is until it is released, which its end does.
 * Kernels that use it must be done by then.
 */
class page {
public:
    /** No page. */
    page() noexcept : owner_(nullptr), page_() {}

    page(page &&other) noexcept : owner_(other.owner_), page_(other.page_)
    {
        other.owner_ = nullptr;
        other.page_ = gds_page_t();
    }

    page &operator=(page &&other) noexcept
    {
        std::swap(owner_, other.owner_);
        std::swap(page_, other.page_);
        if (this != &other) {
            other.drop();
        }
        return *this;
    }

    page(const page &) = delete;
    page &operator=(const page &) = delete;

    ~page() { drop(); }

    /** False: no page. */
    explicit operator bool() const noexcept { return owner_ != nullptr; }

    /** Its first byte, a device address. */
    void *address() const noexcept { return page_.address; }
    /** Where it is in the file, bytes. */
    uint64_t offset() const noexcept { return page_.offset_bytes; }
    /** Bytes of it that are the file's; the rest is zero. */
    uint64_t size() const noexcept { return page_.size_bytes; }

    /** Its bytes were changed, or will be while it is held. */
    void mark_dirty() const { check(gds_cache_mark_dirty(owner_, &page_)); }

    /** Releases it now. */
    void release()
    {
        const gds_cache_t *owner = owner_;
        owner_ = nullptr;
        if (owner) {
            check(gds_cache_release(owner, &page_));
        }
    }

private:
    friend class cache;
    friend class prefetch;
    page(const gds_cache_t *owner, const gds_page_t &given) noexcept
        : owner_(given.address ? owner : nullptr), page_(given)
    {
    }

    void drop() noexcept
    {
        if (owner_) {
            gds_cache_release(owner_, &page_);
            owner_ = nullptr;
        }
    }

    const gds_cache_t *owner_;
    gds_page_t page_;
};

/**
 * Pages of files in device memory. Outlives its pages. Its end writes what is dirty; only
 * flush() tells whether that went well.
 */
class cache : public detail::handle<gds_cache_t> {
public:
    using detail::handle<gds_cache_t>::handle;
    using detail::handle<gds_cache_t>::get;

    explicit cache(const context &owner, const gds_cache_config_t *config = nullptr)
        : handle(open(owner, config))
    {
    }

    /** The page of a file that has the byte at an offset; read where it is absent. */
    page get(const file &from, uint64_t offset) const
    {
        gds_page_t held = gds_page_t();
        check(gds_cache_get(get(), from.get(), offset, &held));
        return page(get(), held);
    }

    /** As get, for a page that will be overwritten whole: nothing is read. */
    page get_new(const file &of, uint64_t offset) const
    {
        gds_page_t held = gds_page_t();
        check(gds_cache_get_new(get(), of.get(), offset, &held));
        return page(get(), held);
    }

    /** As get, but no page (false) where it is absent. */
    page try_get(const file &from, uint64_t offset) const
    {
        gds_page_t held = gds_page_t();
        check(gds_cache_try_get(get(), from.get(), offset, &held));
        return page(get(), held);
    }

    /** Copies bytes of a buffer into pages, which are dirty then. */
    void put(const file &to, uint64_t offset, const buffer &from, uint64_t from_offset,
             uint64_t size) const
    {
        check(gds_cache_put(get(), to.get(), offset, from.get(), from_offset, size));
    }

    /** Bytes that arrived; fewer than size at the end of the file. */
    uint64_t read(const file &from, uint64_t offset, const buffer &to, uint64_t to_offset,
                  uint64_t size) const
    {
        uint64_t bytes = 0;
        check(gds_cache_read(get(), from.get(), offset, to.get(), to_offset, size, &bytes));
        return bytes;
    }

    /** Starts to read absent pages; how many. */
    uint64_t prefetch(const file &from, uint64_t offset, uint64_t size) const
    {
        uint64_t pages = 0;
        check(gds_cache_prefetch(get(), from.get(), offset, size, &pages));
        return pages;
    }

    /** Writes the dirty pages of all files; bytes written. */
    uint64_t flush() const { return flush(nullptr); }
    /** Writes the dirty pages of a file; bytes written. */
    uint64_t flush(const file &of) const { return flush(of.get()); }

    /** Drops the pages of a range, dirty ones after writing them; how many. */
    uint64_t invalidate(const file &of, uint64_t offset = 0,
                        uint64_t size = UINT64_MAX) const
    {
        uint64_t pages = 0;
        check(gds_cache_invalidate(get(), of.get(), offset, size, &pages));
        return pages;
    }

    /** Reads the absent pages of ranges and waits; how many. */
    uint64_t warm(const file &from, const std::vector<gds_cache_range_t> &ranges) const
    {
        uint64_t pages = 0;
        check(gds_cache_warm(get(), from.get(), ranges.data(), ranges.size(), &pages));
        return pages;
    }

    /** Which ranges of a file are in device memory now. */
    std::vector<gds_cache_range_t> hot_ranges(const file &of) const
    {
        std::vector<gds_cache_range_t> ranges;
        /* There may be more of them at the next question. */
        for (;;) {
            uint64_t count = 0;
            check(gds_cache_hot_ranges(get(), of.get(), ranges.size(), ranges.data(),
                                       &count));
            bool all = count <= ranges.size();
            ranges.resize(static_cast<size_t>(count));
            if (all) {
                return ranges;
            }
        }
    }

    gds_cache_stats_t stats() const
    {
        gds_cache_stats_t stats = GDS_CACHE_STATS_INIT;
        check(gds_cache_stats(get(), &stats));
        return stats;
    }

private:
    uint64_t flush(const gds_file_t *of) const
    {
        uint64_t bytes = 0;
        check(gds_cache_flush(get(), of, &bytes));
        return bytes;
    }

    static gds_cache_t *open(const context &owner, const gds_cache_config_t *config)
    {
        gds_cache_t *made = nullptr;
        check(gds_cache_open(owner.get(), config, &made));
        return made;
    }
};

/** Watches the accesses of one file and reads pages ahead. The cache outlives it. */
class prefetch : public detail::handle<gds_prefetch_t> {
public:
    using detail::handle<gds_prefetch_t>::get;

    prefetch(const cache &into, const file &from,
             const gds_prefetch_config_t *config = nullptr)
        : handle(open(into, from, config)), cache_(into.get())
    {
    }

    /** As cache::get, and tells of the access. */
    page get(uint64_t offset) const
    {
        gds_page_t held = gds_page_t();
        check(gds_prefetch_get(get(), offset, &held));
        return page(cache_, held);
    }

    /** Tells of an access of pages that come from elsewhere. */
    void record(uint64_t offset, uint64_t size) const
    {
        check(gds_prefetch_record(get(), offset, size));
    }

    /** Asks for a range. deadline_ms 0: that of the configuration. */
    void hint(uint64_t offset, uint64_t size, uint32_t priority = 50,
              uint64_t deadline_ms = 0) const
    {
        check(gds_prefetch_hint(get(), offset, size, priority, deadline_ms));
    }

    gds_prefetch_stats_t stats() const
    {
        gds_prefetch_stats_t stats = GDS_PREFETCH_STATS_INIT;
        check(gds_prefetch_stats(get(), &stats));
        return stats;
    }

private:
    static gds_prefetch_t *open(const cache &into, const file &from,
                                const gds_prefetch_config_t *config)
    {
        gds_prefetch_t *made = nullptr;
        check(gds_prefetch_open(into.get(), from.get(), config, &made));
        return made;
    }

    const gds_cache_t *cache_;
};

/** A range of a file in device memory. Its end lets go of it: unmaps it. */
class region : public detail::handle<gds_region_t> {
public:
    using detail::handle<gds_region_t>::handle;

    /** Its first byte, a device address. */
    void *address() const
    {
        void *address = nullptr;
        check(gds_region_address(get(), &address));
        return address;
    }

    gds_region_info_t info() const
    {
        gds_region_info_t info = GDS_REGION_INFO_INIT;
        check(gds_region_info(get(), &info));
        return info;
    }

    uint64_t size() const { return info().size; }

    /** Counts as a use. */
    void touch() const { check(gds_region_touch(get())); }

    /** Bytes were changed; `offset` is in the region. */
    void mark_dirty(uint64_t offset, uint64_t size) const
    {
        check(gds_region_mark_dirty(get(), offset, size));
    }

    /** Writes what is dirty; bytes written. */
    uint64_t flush() const
    {
        uint64_t bytes = 0;
        check(gds_region_flush(get(), &bytes));
        return bytes;
    }

    /** Gives up what is dirty: it will not be written. */
    void discard() const { check(gds_region_discard(get())); }
};

/** Ranges of files that are kept in device memory, up to a limit. May end before them. */
class region_set : public detail::handle<gds_region_set_t> {
public:
    using detail::handle<gds_region_set_t>::handle;

    explicit region_set(const context &owner, const gds_region_config_t *config = nullptr)
        : handle(open(owner, config))
    {
    }

    /** Maps a range of a file and waits until it is read. */
    region map(const file &from, uint64_t offset, uint64_t size) const
    {
        gds_region_t *made = nullptr;
        check(gds_region_map(get(), from.get(), offset, size, &made));
        return region(made);
    }

    /** Writes what is dirty of all files; bytes written. */
    uint64_t flush() const { return flush(nullptr); }
    /** Writes what is dirty of a file; bytes written. */
    uint64_t flush(const file &of) const { return flush(of.get()); }

    gds_region_stats_t stats() const
    {
        gds_region_stats_t stats = GDS_REGION_STATS_INIT;
        check(gds_region_set_stats(get(), &stats));
        return stats;
    }

private:
    uint64_t flush(const gds_file_t *of) const
    {
        uint64_t bytes = 0;
        check(gds_region_set_flush(get(), of, &bytes));
        return bytes;
    }

    static gds_region_set_t *open(const context &owner, const gds_region_config_t *config)
    {
        gds_region_set_t *made = nullptr;
        check(gds_region_set_open(owner.get(), config, &made));
        return made;
    }
};

/**
 * A time in which kernels of one stream may use an array. Its end waits for the stream, and
 * drops what went wrong in kernels: release() tells.
 */
class array_use {
public:
    array_use(array_use &&other) noexcept
        : owner_(other.owner_), stream_(other.stream_), view_(other.view_)
    {
        other.owner_ = nullptr;
    }
    array_use(const array_use &) = delete;
    array_use &operator=(const array_use &) = delete;
    array_use &operator=(array_use &&) = delete;

    ~array_use()
    {
        if (owner_) {
            gds_status_t ignored = gds_array_release(owner_, stream_);
            static_cast<void>(ignored);
        }
    }

    /** Goes to kernels by value, as gds::cached_array<T>(view) of gds_rs.cuh. */
    const gds_array_view_t &view() const noexcept { return view_; }

    /** Waits for the stream, and throws the first thing that went wrong in kernels. */
    void release()
    {
        const gds_array_t *owner = owner_;
        owner_ = nullptr;
        if (owner) {
            check(gds_array_release(owner, stream_));
        }
    }

private:
    friend class array;
    array_use(const gds_array_t *owner, gds_cuda_stream_t stream,
              const gds_array_view_t &view) noexcept
        : owner_(owner), stream_(stream), view_(view)
    {
    }

    const gds_array_t *owner_;
    gds_cuda_stream_t stream_;
    gds_array_view_t view_;
};

/**
 * A file as an array for kernels. Outlives its uses. Its end writes what kernels changed;
 * only flush() tells whether that went well.
 */
class array : public detail::handle<gds_array_t> {
public:
    using detail::handle<gds_array_t>::handle;

    explicit array(const file &of, const gds_array_config_t *config = nullptr)
        : handle(open(of, config))
    {
    }

    /** Lets kernels of a stream use it; NULL is the default stream. */
    array_use acquire(gds_cuda_stream_t stream = nullptr) const
    {
        gds_array_view_t view = GDS_ARRAY_VIEW_INIT;
        check(gds_array_acquire(get(), &view));
        return array_use(get(), stream, view);
    }

    /** Writes what kernels changed; bytes written. Between uses only. */
    uint64_t flush() const
    {
        uint64_t bytes = 0;
        check(gds_array_flush(get(), &bytes));
        return bytes;
    }

    /** Flushes and forgets every page. Between uses only. */
    void invalidate() const { check(gds_array_invalidate(get())); }

    gds_array_stats_t stats() const
    {
        gds_array_stats_t stats = GDS_ARRAY_STATS_INIT;
        check(gds_array_stats(get(), &stats));
        return stats;
    }

private:
    static gds_array_t *open(const file &of, const gds_array_config_t *config)
    {
        gds_array_t *made = nullptr;
        check(gds_array_open(of.get(), config, &made));
        return made;
    }
};

static_assert(sizeof(cache) == sizeof(void *), "a cache is one pointer");
static_assert(sizeof(region_set) == sizeof(void *), "a set of regions is one pointer");
static_assert(sizeof(region) == sizeof(void *), "a region is one pointer");
static_assert(sizeof(array) == sizeof(void *), "an array is one pointer");

} // namespace gds

#endif /* GDS_RS_CACHE_HPP */
