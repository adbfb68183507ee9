/*
 * gds_rs.cuh: files as arrays that kernels read and write.
 *
 * gds_array_acquire() (gds_rs.h) gives a gds_array_view_t, which goes to the kernel by value. A
 * page that is in device memory is found there by the kernel itself; for any other page the kernel
 * writes a request into pinned memory, a thread of the library reads the page, and the warp that
 * asked copies it into a frame. Pages that are not pinned make room (CLOCK); dirty ones are written
 * to the file first.
 *
 *   gds::cached_array<T>  a[i] and a.write(i, value), from any thread, in any divergence; equal
 *                         pages of a warp are one look-up and one request. Nothing is held between
 *                         calls, so any number of threads may use any number of pages.
 *   gds::warp_page<T>     pins a page for a whole warp and gives its address: for many accesses to
 *                         one page. A warp that holds a page and wants another may find all frames
 *                         pinned; it is told so after gds_array_config_t.wait_ms.
 *   gds_array_load() and its like are the same in the manner of C.
 *
 * Nothing here traps or hangs. What goes wrong (an index past the end, a failed read, all frames
 * pinned, a dead service thread) gives zeros to the reader, drops the write, and is told by
 * gds_array_release() on the host, with the offset.
 *
 * Needs compute capability 7.0. Compiled as C++ without CUDA, the same code runs on the processor
 * over arrays of the host device; there a thread is a warp of one lane.
 */
#ifndef GDS_RS_CUH
#define GDS_RS_CUH

#include <stdint.h>
#include <string.h>

#include "gds_rs.h"
#include "gds_rs_detail.cuh"

namespace gds {

/* ---- elements --------------------------------------------------------------------------- */

namespace detail {

/* One element of device memory, past this multiprocessor's own cache, which may hold an earlier
 * page of the same frame. */
template <class T> GDS_METHOD T take(gds_u64 address) {
    T value;
#ifdef __CUDACC__
    if constexpr (sizeof(T) == 16) {
        const uint4 raw = __ldcg((const uint4 *)address);
        memcpy(&value, &raw, 16);
    } else if constexpr (sizeof(T) == 8) {
        const gds_u64 raw = __ldcg((const gds_u64 *)address);
        memcpy(&value, &raw, 8);
    } else if constexpr (sizeof(T) == 4) {
        const gds_u32 raw = __ldcg((const gds_u32 *)address);
        memcpy(&value, &raw, 4);
    } else if constexpr (sizeof(T) == 2) {
        const unsigned short raw = __ldcg((const unsigned short *)address);
        memcpy(&value, &raw, 2);
    } else {
        const unsigned char raw = __ldcg((const unsigned char *)address);
        memcpy(&value, &raw, 1);
    }
#else
    memcpy(&value, (const void *)address, sizeof(T));
#endif
    return value;
}

/* 0, known only once the value has arrived: what is computed from it cannot run ahead of the load.
 * A fence would do, and would wait for every other load too. */
template <class T> GDS_METHOD gds_u64 once_here(const T &value) {
#ifdef __CUDACC__
    gds_u32 part = 0;
    memcpy(&part, &value, sizeof(T) < 4 ? sizeof(T) : 4);
    return __shfl_sync(__activemask(), part, (int)lane()) ^ part;
#else
    (void)value;
    return 0;
#endif
}

} /* namespace detail */

/* A range of a file as an array of T, whose size is 1, 2, 4, 8 or 16 bytes. Pass it to kernels by
 * value. The file is little-endian, as the device is. */
template <class T> class cached_array {
    static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 ||
                      sizeof(T) == 16,
                  "an element has 1, 2, 4, 8 or 16 bytes");

    gds_array_view_t view_;

  public:
    GDS_BOTH explicit cached_array(const gds_array_view_t &view) : view_(view) {}

    GDS_METHOD const gds_array_view_t &view() const { return view_; }

    /* Elements. A last part that is less than one does not count. */
    GDS_METHOD gds_u64 size() const { return view_.size_bytes / sizeof(T); }

    /* One element; T() where it cannot be had. */
    GDS_METHOD T operator[](gds_u64 index) const {
        using namespace detail;
        const gds_u64 offset = index * sizeof(T);
        if (index >= size()) {
            fail(view_, GDS_STATUS_OUT_OF_RANGE, offset);
            return T();
        }
        const gds_u64 page = offset >> view_.page_shift;
        const gds_u64 within = offset & ((1ull << view_.page_shift) - 1);
        const gds_u64 w = add(word_of(view_, page), 1ull);
        if (w & GDS_ARRAY_VALID) {
            note_use(view_, page, w);
            const T value = take<T>(frame_at(view_, w >> GDS_ARRAY_FRAME_SHIFT) + within);
            add(word_of(view_, page), ~0ull + once_here(value));
            return value;
        }
        add(word_of(view_, page), ~0ull);
        return missing(page, within);
    }

    /* Writes one element; nothing where it cannot be had. Writes of one element by several threads
     * leave one of them. */
    GDS_METHOD void write(gds_u64 index, const T &value) const {
        using namespace detail;
        const gds_u64 offset = index * sizeof(T);
        if (index >= size() || !(view_.flags & GDS_ARRAY_WRITABLE)) {
            fail(view_, index >= size() ? GDS_STATUS_OUT_OF_RANGE : GDS_STATUS_READ_ONLY, offset);
            return;
        }
        const gds_u64 page = offset >> view_.page_shift;
        const gds_u64 within = offset & ((1ull << view_.page_shift) - 1);
        each_page(page, [&](gds_u32 mask, gds_u64 address) {
            put(dirty_of(view_, (address - view_.frames) >> view_.page_shift), 1u);
            memcpy((void *)(address + within), &value, sizeof(T));
            (void)mask;
        });
    }

  private:
    GDS_METHOD T missing(gds_u64 page, gds_u64 within) const {
        T value = T();
        each_page(page, [&](gds_u32, gds_u64 address) {
            value = detail::take<T>(address + within);
        });
        return value;
    }

    /* Runs `use` for each lane with its page pinned, one page of the warp after the other: nobody
     * holds a page while waiting for another. */
    template <class F> GDS_METHOD void each_page(gds_u64 page, F use) const {
        using namespace detail;
        for (bool done = false; !done;) {
            const gds_u32 all = active();
            if (page == from_lane(all, page, first_of(all))) {
                const gds_u32 mask = active();
                const gds_u64 address = pin(mask, view_, page, true);
                if (address != 0) {
                    use(mask, address);
                    unpin(mask, view_, page);
                }
                done = true;
            }
        }
    }
};

/* A page, pinned for a whole warp, while this object lives. All lanes of the warp make it together,
 * with the same `index`, and end it together. Do not keep it across a wait for other warps. */
template <class T> class warp_page {
    gds_array_view_t const *view_;
    gds_u64 page_, address_;
    gds_u32 mask_;

  public:
    /* Pins the page that holds element `index`. `waits` false: does not wait for a frame. */
    GDS_METHOD warp_page(const cached_array<T> &array, gds_u64 index, bool waits = true)
        : view_(&array.view()), page_(index * sizeof(T) >> view_->page_shift), address_(0),
          mask_(detail::active()) {
        if (index >= array.size()) {
            detail::fail(*view_, GDS_STATUS_OUT_OF_RANGE, index * sizeof(T));
            return;
        }
        address_ = detail::pin(mask_, *view_, page_, waits);
        detail::fence();
    }
    GDS_METHOD ~warp_page() {
        if (address_ != 0) detail::unpin(mask_, *view_, page_);
    }
    warp_page(const warp_page &) = delete;
    warp_page &operator=(const warp_page &) = delete;

    /* The page's elements, or NULL when it could not be had. */
    GDS_METHOD const T *data() const { return (const T *)address_; }
    /* The same, to be written to: the page goes to the file before its frame is used again. NULL
     * also when the array is read-only. */
    GDS_METHOD T *writable() const {
        if (address_ == 0 || !(view_->flags & GDS_ARRAY_WRITABLE)) {
            detail::fail(*view_, GDS_STATUS_READ_ONLY, page_ << view_->page_shift);
            return nullptr;
        }
        detail::put(detail::dirty_of(*view_, (address_ - view_->frames) >> view_->page_shift), 1u);
        return (T *)address_;
    }
    /* Index of its first element in the array, and how many it has. */
    GDS_METHOD gds_u64 first() const { return (page_ << view_->page_shift) / sizeof(T); }
    GDS_METHOD gds_u64 count() const {
        const gds_u64 left = (view_->size_bytes - (page_ << view_->page_shift)) / sizeof(T);
        const gds_u64 whole = (1ull << view_->page_shift) / sizeof(T);
        return left < whole ? left : whole;
    }
};

} /* namespace gds */

/* ---- the same in the manner of C -------------------------------------------------------- */

/* Reads bytes of the array, from any thread. 0 when all were there, else bytes are zero and
 * gds_array_release() tells why. */
GDS_DEVICE int gds_array_load(const gds_array_view_t *view, uint64_t offset, void *to,
                              uint64_t size) {
    gds::cached_array<unsigned char> array(*view);
    const bool inside = offset <= view->size_bytes && size <= view->size_bytes - offset;
    for (uint64_t i = 0; i < size; i++) ((unsigned char *)to)[i] = array[offset + i];
    return inside ? 0 : 1;
}

/* Writes bytes of the array, from any thread. */
GDS_DEVICE void gds_array_store(const gds_array_view_t *view, uint64_t offset, const void *from,
                                uint64_t size) {
    gds::cached_array<unsigned char> array(*view);
    for (uint64_t i = 0; i < size; i++) array.write(offset + i, ((const unsigned char *)from)[i]);
}

/* Pins the page at `offset` for a whole warp, whose lanes all call with the same offset: the
 * address of the byte at `offset`, or NULL. gds_array_unpin_warp() gives it back. */
GDS_DEVICE void *gds_array_pin_warp(const gds_array_view_t *view, uint64_t offset) {
    if (offset >= view->size_bytes) {
        gds::detail::fail(*view, GDS_STATUS_OUT_OF_RANGE, offset);
        return 0;
    }
    const gds_u64 page = offset >> view->page_shift;
    const gds_u64 address = gds::detail::pin(gds::detail::active(), *view, page, true);
    gds::detail::fence();
    return address == 0 ? 0 : (void *)(address + (offset & ((1ull << view->page_shift) - 1)));
}

GDS_DEVICE void gds_array_unpin_warp(const gds_array_view_t *view, uint64_t offset) {
    gds::detail::unpin(gds::detail::active(), *view, offset >> view->page_shift);
}

#endif /* GDS_RS_CUH */
