/*
 * gds_rs_kv.hpp - C++ over the key-value store of gds_rs.h.
 *
 *     gds::kv store("/data/store");
 *     store.put("key", "value");
 *     gds::kv_device device(store, context);
 *     uint64_t size = device.get("key", buffer, 0, buffer.size());
 *
 * gds_rs.hpp says what holds for all classes, and includes this.
 */

#ifndef GDS_RS_KV_HPP
#define GDS_RS_KV_HPP

#include "gds_rs.hpp"

#include <string>
#include <utility>
#include <vector>

namespace gds {

/** Bytes of somebody else: a key or a value. Valid as long as these are. */
class bytes {
public:
    bytes(const void *data, uint64_t size) noexcept : data_(data), size_(size) {}
    bytes(const std::string &text) noexcept : data_(text.data()), size_(text.size()) {}
    /** A text without its NUL. */
    bytes(const char *text) noexcept
        : data_(text), size_(std::char_traits<char>::length(text))
    {
    }
    template <typename T>
    bytes(const std::vector<T> &all) noexcept
        : data_(all.data()), size_(all.size() * sizeof(T))
    {
    }

    const void *data() const noexcept { return data_; }
    uint64_t size() const noexcept { return size_; }
    /** A copy. */
    std::string text() const
    {
        return std::string(static_cast<const char *>(data_), static_cast<size_t>(size_));
    }

private:
    const void *data_;
    uint64_t size_;
};

/** Changes that will be one commit. */
class kv_batch : public detail::handle<gds_kv_batch_t> {
public:
    using detail::handle<gds_kv_batch_t>::handle;

    kv_batch() : handle(make()) {}

    void put(const bytes &key, const bytes &value)
    {
        check(gds_kv_batch_put(get(), key.data(), key.size(), value.data(), value.size()));
    }
    void erase(const bytes &key)
    {
        check(gds_kv_batch_delete(get(), key.data(), key.size()));
    }
    void clear() { check(gds_kv_batch_clear(get())); }

private:
    static gds_kv_batch_t *make()
    {
        gds_kv_batch_t *made = nullptr;
        check(gds_kv_batch_create(&made));
        return made;
    }
};

/** Keys in order. Pointers of an entry are valid until the next one. */
class kv_scan : public detail::handle<gds_kv_scan_t> {
public:
    using detail::handle<gds_kv_scan_t>::handle;

    /** False: no further key. */
    bool next(gds_kv_entry_t &entry) { return is_there(gds_kv_scan_next(get(), &entry)); }
    /** As next, without reading the value. */
    bool next_key(gds_kv_entry_t &entry)
    {
        return is_there(gds_kv_scan_next_key(get(), &entry));
    }

private:
    static bool is_there(gds_status_t status)
    {
        if (status == GDS_STATUS_END) {
            return false;
        }
        check(status);
        return true;
    }
};

/** A store as it was at one moment. */
class kv_snapshot : public detail::handle<gds_kv_snapshot_t> {
public:
    using detail::handle<gds_kv_snapshot_t>::handle;
    using detail::handle<gds_kv_snapshot_t>::get;

    /** The value; false where there is none. */
    bool get(const bytes &key, std::string &value) const
    {
        uint64_t size = 0;
        gds_status_t status =
            gds_kv_snapshot_get(get(), key.data(), key.size(), nullptr, 0, &size);
        if (status == GDS_STATUS_NOT_FOUND) {
            return false;
        }
        check(status);
        value.resize(static_cast<size_t>(size));
        if (size > 0) {
            check(gds_kv_snapshot_get(get(), key.data(), key.size(), &value[0], size,
                                      &size));
        }
        return true;
    }

    /** Keys from `start` to before `end`; empty: all. */
    kv_scan scan(const bytes &start = bytes(nullptr, 0),
                 const bytes &end = bytes(nullptr, 0), uint64_t limit = 0) const
    {
        gds_kv_scan_t *made = nullptr;
        check(gds_kv_snapshot_scan(get(), start.data(), start.size(), end.data(),
                                   end.size(), limit, &made));
        return kv_scan(made);
    }

    uint64_t lsn() const
    {
        uint64_t lsn = 0;
        check(gds_kv_snapshot_lsn(get(), &lsn));
        return lsn;
    }
};

/** A value that comes piece by piece. Its end before commit() leaves the key as it was. */
class kv_writer : public detail::handle<gds_kv_writer_t> {
public:
    using detail::handle<gds_kv_writer_t>::handle;

    void append(const bytes &more)
    {
        check(gds_kv_writer_append(get(), more.data(), more.size()));
    }
    /** Durable when it returns; the number of the change. */
    uint64_t commit()
    {
        uint64_t lsn = 0;
        check(gds_kv_writer_commit(get(), &lsn));
        return lsn;
    }
    /** Visible when it returns, durable when kv::wait() of the result does. */
    uint64_t commit_async()
    {
        uint64_t lsn = 0;
        check(gds_kv_writer_commit_async(get(), &lsn));
        return lsn;
    }
};

/** A store. Its end makes a checkpoint; sync() and checkpoint() tell whether that works. */
class kv : public detail::handle<gds_kv_t> {
public:
    using detail::handle<gds_kv_t>::handle;
    using detail::handle<gds_kv_t>::get;

    explicit kv(const std::string &path, const gds_kv_config_t *config = nullptr)
        : handle(open(path, config))
    {
    }

    /** Removes a store that is not open. */
    static void destroy(const std::string &path) { check(gds_kv_destroy(path.c_str())); }

    /** Makes a store usable again that cannot be opened or has damaged values. */
    static gds_kv_repair_report_t repair(const std::string &path)
    {
        gds_kv_repair_report_t report = GDS_KV_REPAIR_REPORT_INIT;
        check(gds_kv_repair(path.c_str(), nullptr, nullptr, &report));
        return report;
    }

    /** Durable when it returns; the number of the change. */
    uint64_t put(const bytes &key, const bytes &value) const
    {
        uint64_t lsn = 0;
        check(gds_kv_put(get(), key.data(), key.size(), value.data(), value.size(), &lsn));
        return lsn;
    }
    /** Visible when it returns, durable when wait() of the result does. */
    uint64_t put_async(const bytes &key, const bytes &value) const
    {
        uint64_t lsn = 0;
        check(gds_kv_put_async(get(), key.data(), key.size(), value.data(), value.size(),
                               &lsn));
        return lsn;
    }
    /** Whether the key was there. */
    bool erase(const bytes &key) const
    {
        uint32_t existed = 0;
        check(gds_kv_delete(get(), key.data(), key.size(), &existed));
        return existed != 0;
    }
    /** All changes or none; durable when it returns. */
    uint64_t write(const kv_batch &batch) const
    {
        uint64_t lsn = 0;
        check(gds_kv_write(get(), batch.get(), &lsn));
        return lsn;
    }
    /** As write; durable when wait() of the result returns. */
    uint64_t write_async(const kv_batch &batch) const
    {
        uint64_t lsn = 0;
        check(gds_kv_write_async(get(), batch.get(), &lsn));
        return lsn;
    }

    uint64_t durable_lsn() const
    {
        uint64_t lsn = 0;
        check(gds_kv_durable_lsn(get(), &lsn));
        return lsn;
    }
    /** False: not durable within the time. */
    bool wait(uint64_t lsn, int64_t timeout_ms = -1) const
    {
        gds_status_t status = gds_kv_wait(get(), lsn, timeout_ms);
        if (status == GDS_STATUS_PENDING) {
            return false;
        }
        check(status);
        return true;
    }

    /** The value; false where there is none. */
    bool get(const bytes &key, std::string &value) const
    {
        /* It may become longer between the two questions. */
        for (;;) {
            uint64_t size = 0;
            gds_status_t status =
                gds_kv_get(get(), key.data(), key.size(), nullptr, 0, &size);
            if (status == GDS_STATUS_OK && size > 0) {
                value.resize(static_cast<size_t>(size));
                status =
                    gds_kv_get(get(), key.data(), key.size(), &value[0], size, &size);
            }
            if (status == GDS_STATUS_NOT_FOUND) {
                return false;
            }
            if (status != GDS_STATUS_BUFFER_TOO_SMALL) {
                check(status);
                value.resize(static_cast<size_t>(size));
                return true;
            }
        }
    }
    /** Bytes that were copied; fewer than size at the value's end. */
    uint64_t get_range(const bytes &key, uint64_t offset, void *to, uint64_t size) const
    {
        uint64_t copied = 0;
        check(gds_kv_get_range(get(), key.data(), key.size(), offset, to, size, &copied));
        return copied;
    }
    uint64_t value_size(const bytes &key) const
    {
        uint64_t size = 0;
        check(gds_kv_value_size(get(), key.data(), key.size(), &size));
        return size;
    }
    bool contains(const bytes &key) const
    {
        uint32_t found = 0;
        check(gds_kv_contains(get(), key.data(), key.size(), &found));
        return found != 0;
    }

    /** A value that comes piece by piece; size_hint 0: no guess. */
    kv_writer writer(const bytes &key, uint64_t size_hint = 0) const
    {
        gds_kv_writer_t *made = nullptr;
        check(gds_kv_writer_open(get(), key.data(), key.size(), size_hint, &made));
        return kv_writer(made);
    }
    kv_snapshot snapshot() const
    {
        gds_kv_snapshot_t *made = nullptr;
        check(gds_kv_snapshot_open(get(), &made));
        return kv_snapshot(made);
    }
    /** Keys from `start` to before `end`; empty: all. */
    kv_scan scan(const bytes &start = bytes(nullptr, 0),
                 const bytes &end = bytes(nullptr, 0), uint64_t limit = 0) const
    {
        gds_kv_scan_t *made = nullptr;
        check(gds_kv_scan_open(get(), start.data(), start.size(), end.data(), end.size(),
                               limit, &made));
        return kv_scan(made);
    }

    void sync() const { check(gds_kv_sync(get())); }
    void checkpoint() const { check(gds_kv_checkpoint(get())); }
    /** Segments that became free. */
    uint64_t compact() const
    {
        uint64_t segments = 0;
        check(gds_kv_compact(get(), &segments));
        return segments;
    }
    gds_kv_report_t verify() const
    {
        gds_kv_report_t report = GDS_KV_REPORT_INIT;
        check(gds_kv_verify(get(), nullptr, nullptr, &report));
        return report;
    }
    gds_kv_stats_t stats() const
    {
        gds_kv_stats_t stats = GDS_KV_STATS_INIT;
        check(gds_kv_stats(get(), &stats));
        return stats;
    }

private:
    static gds_kv_t *open(const std::string &path, const gds_kv_config_t *config)
    {
        gds_kv_t *made = nullptr;
        check(gds_kv_open(path.c_str(), config, &made));
        return made;
    }
};

/** A value held in device memory until this ends. Kernels that use it are done by then. */
class kv_pointer {
public:
    kv_pointer(kv_pointer &&other) noexcept : owner_(other.owner_), held_(other.held_)
    {
        other.owner_ = nullptr;
    }
    kv_pointer(const kv_pointer &) = delete;
    kv_pointer &operator=(const kv_pointer &) = delete;
    kv_pointer &operator=(kv_pointer &&) = delete;

    ~kv_pointer()
    {
        if (owner_) {
            gds_kv_device_release(owner_, &held_);
        }
    }

    /** Its first byte, a device address. */
    void *address() const noexcept { return held_.address; }
    uint64_t size() const noexcept { return held_.size_bytes; }

private:
    friend class kv_device;
    kv_pointer(const gds_kv_device_t *owner, const gds_kv_pointer_t &held) noexcept
        : owner_(owner), held_(held)
    {
    }

    const gds_kv_device_t *owner_;
    gds_kv_pointer_t held_;
};

/** A store beside a context. Outlives its pointers. */
class kv_device : public detail::handle<gds_kv_device_t> {
public:
    using detail::handle<gds_kv_device_t>::handle;
    using detail::handle<gds_kv_device_t>::get;

    /** `cache_bytes` of device memory are for pointers. */
    kv_device(const kv &store, const context &owner, uint64_t cache_bytes = 0)
        : handle(open(store, owner, cache_bytes))
    {
    }

    /** Bytes of the value, which is in the buffer then. */
    uint64_t get(const bytes &key, const buffer &to, uint64_t to_offset,
                 uint64_t capacity) const
    {
        uint64_t size = 0;
        check(gds_kv_device_get(get(), key.data(), key.size(), to.get(), to_offset,
                                capacity, &size));
        return size;
    }
    /** Bytes that arrived; fewer than size at the value's end. */
    uint64_t get_range(const bytes &key, uint64_t offset, const buffer &to,
                       uint64_t to_offset, uint64_t size) const
    {
        uint64_t arrived = 0;
        check(gds_kv_device_get_range(get(), key.data(), key.size(), offset, to.get(),
                                      to_offset, size, &arrived));
        return arrived;
    }
    /** Many at once; each with its own status. */
    std::vector<gds_kv_got_t> get_many(const std::vector<gds_kv_get_t> &gets) const
    {
        std::vector<gds_kv_got_t> gots(gets.size());
        check(gds_kv_device_get_many(get(), gets.data(), gets.size(), gots.data()));
        return gots;
    }
    /** Durable when it returns; the number of the change. */
    uint64_t put(const bytes &key, const buffer &from, uint64_t from_offset,
                 uint64_t size) const
    {
        uint64_t lsn = 0;
        check(gds_kv_device_put(get(), key.data(), key.size(), from.get(), from_offset,
                                size, &lsn));
        return lsn;
    }

    /** Brings a value into device memory for later. */
    void cache(const bytes &key) const
    {
        check(gds_kv_device_cache(get(), key.data(), key.size()));
    }
    /** Holds a value in device memory. */
    kv_pointer pointer(const bytes &key) const
    {
        gds_kv_pointer_t held = gds_kv_pointer_t();
        check(gds_kv_device_get_ptr(get(), key.data(), key.size(), &held));
        return kv_pointer(get(), held);
    }

    gds_kv_device_stats_t stats() const
    {
        gds_kv_device_stats_t stats = GDS_KV_DEVICE_STATS_INIT;
        check(gds_kv_device_stats(get(), &stats));
        return stats;
    }

private:
    static gds_kv_device_t *open(const kv &store, const context &owner,
                                 uint64_t cache_bytes)
    {
        gds_kv_device_config_t config = GDS_KV_DEVICE_CONFIG_INIT;
        config.cache_bytes = cache_bytes;
        gds_kv_device_t *made = nullptr;
        check(gds_kv_device_open(store.get(), owner.get(), &config, &made));
        return made;
    }
};

static_assert(sizeof(kv) == sizeof(void *), "a store is one pointer");
static_assert(sizeof(kv_scan) == sizeof(void *), "a scan is one pointer");
static_assert(sizeof(kv_device) == sizeof(void *), "a store's device is one pointer");

} // namespace gds

#endif /* GDS_RS_KV_HPP */
