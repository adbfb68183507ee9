/*
 * gds_rs_detail.cuh: how gds_rs.cuh finds pages, and asks the host for those that are not there.
 *
 * Include gds_rs.cuh instead: what is in here may change with every version.
 *
 * A page has one word in device memory: pins, flags, frame. Whoever finds it invalid and not busy
 * makes it busy and brings the page: claims a frame by the clock, asks the host through a ring in
 * pinned memory, copies the page from a pinned slot. All others wait for the word. Nobody waits for
 * a frame while holding a page, but for those who hold a gds::warp_page.
 */
#ifndef GDS_RS_DETAIL_CUH
#define GDS_RS_DETAIL_CUH

#include <stdint.h>

#include "gds_rs.h"

#ifdef __CUDACC__
#define GDS_DEVICE static __device__ __forceinline__
#define GDS_DEVICE_SLOW static __device__ __noinline__
#define GDS_METHOD __device__ __forceinline__
#define GDS_BOTH __host__ __device__ __forceinline__
#else
#include <string.h>
#include <time.h>
#define GDS_DEVICE static inline
#define GDS_DEVICE_SLOW static inline
#define GDS_METHOD inline
#define GDS_BOTH inline
#endif

/* ---- what device code and the library share (src/cache/array/layout.rs) ----------------- */

typedef unsigned long long gds_u64;
typedef unsigned int gds_u32;

/* A page's word: pins, flags, and the frame where the page is. */
#define GDS_ARRAY_PINS 0xFFFFFFull
#define GDS_ARRAY_BUSY (1ull << 24)   /* a warp reads it, or writes it back */
#define GDS_ARRAY_VALID (1ull << 25)  /* the frame holds it */
#define GDS_ARRAY_REF (1ull << 26)    /* used since the hand came by */
#define GDS_ARRAY_FAILED (1ull << 27) /* could not be read; until the next gds_array_acquire() */
#define GDS_ARRAY_FRAME_SHIFT 32

/* An owner: 0 for a free frame, a page plus 1, or this while it changes hands. */
#define GDS_ARRAY_CHANGING (~0ull)

/* A request: page, slot of its ring, what to do, and the round of the ring. */
#define GDS_ARRAY_PAGE_MASK ((1ull << 40) - 1)
#define GDS_ARRAY_SLOT_SHIFT 40
#define GDS_ARRAY_WRITE (1ull << 56)
#define GDS_ARRAY_PHASE_SHIFT 57
#define GDS_ARRAY_PHASES 127ull

/* A completion: slot in the low 16 bits, a gds_status_t above, and the round of the ring. */
#define GDS_ARRAY_STATUS_SHIFT 16

#define GDS_ARRAY_RINGS_MAX 16

/* One ring's state in device memory, a cache line apart from the next. */
struct gds_array_ring {
    gds_u64 tail;  /* requests made */
    gds_u64 head;  /* completions seen */
    gds_u32 lock;  /* a warp looks for completions */
    gds_u32 hint;  /* where to look for a free slot */
    gds_u64 unused[5];
};

struct gds_array_control {
    gds_u64 hand;         /* of the clock */
    gds_u64 error_offset; /* bytes, of the first error */
    gds_u32 error;        /* the first gds_status_t that is not 0 */
    gds_u32 fatal;        /* nobody answers any more */
    gds_u64 hits;         /* counted with GDS_ARRAY_COUNT_HITS only */
    gds_u64 misses;       /* pages that were asked for from the host */
    gds_u64 waits;        /* look-ups that found another warp at it */
    gds_u64 evictions;
    gds_u64 write_backs;
    gds_array_ring ring[GDS_ARRAY_RINGS_MAX];
};

/* ---- the machine ------------------------------------------------------------------------ */

namespace gds {
namespace detail {

#ifdef __CUDACC__

GDS_DEVICE gds_u32 active() { return __activemask(); }
GDS_DEVICE gds_u32 lane() {
    gds_u32 id;
    asm("mov.u32 %0, %%laneid;" : "=r"(id));
    return id;
}
/* The lanes of `mask` that have the same value. */
GDS_DEVICE gds_u32 alike(gds_u32 mask, gds_u64 value) { return __match_any_sync(mask, value); }
GDS_DEVICE gds_u64 from_lane(gds_u32 mask, gds_u64 value, gds_u32 source) {
    return __shfl_sync(mask, value, (int)source);
}
GDS_DEVICE void together(gds_u32 mask) { __syncwarp(mask); }
GDS_DEVICE gds_u32 first_of(gds_u32 mask) { return (gds_u32)__ffs((int)mask) - 1; }
GDS_DEVICE gds_u32 count_of(gds_u32 mask) { return (gds_u32)__popc(mask); }
GDS_DEVICE gds_u32 rank_in(gds_u32 mask) { return count_of(mask & ((1u << lane()) - 1)); }

GDS_DEVICE gds_u64 add(gds_u64 *p, gds_u64 v) { return atomicAdd(p, v); }
GDS_DEVICE gds_u32 add(gds_u32 *p, gds_u32 v) { return atomicAdd(p, v); }
GDS_DEVICE gds_u64 clear(gds_u64 *p, gds_u64 bits) { return atomicAnd(p, ~bits); }
GDS_DEVICE gds_u64 set(gds_u64 *p, gds_u64 bits) { return atomicOr(p, bits); }
GDS_DEVICE gds_u64 swap_if(gds_u64 *p, gds_u64 is, gds_u64 v) { return atomicCAS(p, is, v); }
GDS_DEVICE gds_u32 swap_if(gds_u32 *p, gds_u32 is, gds_u32 v) { return atomicCAS(p, is, v); }
/* Loads and stores that other warps and the host see, each whole. */
GDS_DEVICE gds_u64 look(const gds_u64 *p) { return *(const volatile gds_u64 *)p; }
GDS_DEVICE gds_u32 look(const gds_u32 *p) { return *(const volatile gds_u32 *)p; }
GDS_DEVICE void put(gds_u64 *p, gds_u64 v) { *(volatile gds_u64 *)p = v; }
GDS_DEVICE void put(gds_u32 *p, gds_u32 v) { *(volatile gds_u32 *)p = v; }
/* What was done before is seen before what is done after. Drops stale lines of this
 * multiprocessor's own cache. */
GDS_DEVICE void fence() { __threadfence(); }
GDS_DEVICE void fence_host() { __threadfence_system(); }
GDS_DEVICE void pause(gds_u32 ns) { __nanosleep(ns); }
GDS_DEVICE gds_u64 now_ns() {
    gds_u64 ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}
GDS_DEVICE gds_u32 here() {
    gds_u32 id;
    asm("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

#else

GDS_DEVICE gds_u32 active() { return 1; }
GDS_DEVICE gds_u32 lane() { return 0; }
GDS_DEVICE gds_u32 alike(gds_u32 mask, gds_u64) { return mask; }
GDS_DEVICE gds_u64 from_lane(gds_u32, gds_u64 value, gds_u32) { return value; }
GDS_DEVICE void together(gds_u32) {}
GDS_DEVICE gds_u32 first_of(gds_u32) { return 0; }
GDS_DEVICE gds_u32 count_of(gds_u32) { return 1; }
GDS_DEVICE gds_u32 rank_in(gds_u32) { return 0; }

template <class U> U add(U *p, U v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
GDS_DEVICE gds_u64 clear(gds_u64 *p, gds_u64 bits) {
    return __atomic_fetch_and(p, ~bits, __ATOMIC_SEQ_CST);
}
GDS_DEVICE gds_u64 set(gds_u64 *p, gds_u64 bits) {
    return __atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
}
template <class U> U swap_if(U *p, U is, U v) {
    __atomic_compare_exchange_n(p, &is, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return is;
}
template <class U> U look(const U *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
template <class U> void put(U *p, U v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
GDS_DEVICE void fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
GDS_DEVICE void fence_host() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
GDS_DEVICE void pause(gds_u32 ns) {
    timespec t = {0, (long)ns};
    nanosleep(&t, nullptr);
}
GDS_DEVICE gds_u64 now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (gds_u64)t.tv_sec * 1000000000ull + (gds_u64)t.tv_nsec;
}
GDS_DEVICE gds_u32 here() {
    static thread_local char place;
    return (gds_u32)((uintptr_t)&place >> 6);
}

#endif

/* ---- moving bytes ----------------------------------------------------------------------- */

struct alignas(16) vector16 {
    gds_u32 word[4];
};

/* 16 bytes of memory that the host or another multiprocessor has just written. */
GDS_DEVICE vector16 fresh(const vector16 *p) {
#ifdef __CUDACC__
    const uint4 v = __ldcv((const uint4 *)p);
    return vector16{{v.x, v.y, v.z, v.w}};
#else
    return *p;
#endif
}

/* A page, by the lanes of `mask` together: each keeps eight vectors on the bus. */
GDS_DEVICE void copy_page(gds_u32 mask, gds_u64 to, gds_u64 from, gds_u32 size) {
    constexpr gds_u32 AHEAD = 8;
    const gds_u32 lanes = count_of(mask), vectors = size / 16;
    const vector16 *source = (const vector16 *)from;
    vector16 *target = (vector16 *)to;
    for (gds_u32 at = rank_in(mask); at < vectors; at += lanes * AHEAD) {
        vector16 v[AHEAD];
#ifdef __CUDACC__
#pragma unroll
#endif
        for (gds_u32 i = 0; i < AHEAD; i++) {
            if (at + i * lanes < vectors) v[i] = fresh(source + at + i * lanes);
        }
#ifdef __CUDACC__
#pragma unroll
#endif
        for (gds_u32 i = 0; i < AHEAD; i++) {
            if (at + i * lanes < vectors) target[at + i * lanes] = v[i];
        }
    }
}

/* ---- a view's parts --------------------------------------------------------------------- */

typedef gds_array_view_t view_t;
constexpr gds_u64 NOTHING = ~0ull;

GDS_DEVICE gds_array_control *control(const view_t &v) { return (gds_array_control *)v.control; }
GDS_DEVICE gds_u64 *word_of(const view_t &v, gds_u64 page) { return (gds_u64 *)v.words + page; }
GDS_DEVICE gds_u64 *owner_of(const view_t &v, gds_u64 frame) {
    return (gds_u64 *)v.owners + frame;
}
GDS_DEVICE gds_u32 *dirty_of(const view_t &v, gds_u64 frame) { return (gds_u32 *)v.dirty + frame; }
GDS_DEVICE gds_u32 *slot_of(const view_t &v, gds_u64 slot) { return (gds_u32 *)v.slots + slot; }
GDS_DEVICE gds_u64 frame_at(const view_t &v, gds_u64 frame) {
    return v.frames + (frame << v.page_shift);
}
GDS_DEVICE bool is_fatal(const view_t &v) { return look(&control(v)->fatal) != 0; }

/* Keeps the first error for the host. */
GDS_DEVICE_SLOW void fail(const view_t &v, gds_u32 status, gds_u64 offset) {
    if (swap_if(&control(v)->error, 0u, status) == 0) {
        put(&control(v)->error_offset, (gds_u64)offset);
    }
}

/* ---- asking the host -------------------------------------------------------------------- */

/* A slot's state: free, asked, or the answer's status plus ANSWERED. */
constexpr gds_u32 FREE = 0, ASKED = 1, ANSWERED = 2;

GDS_DEVICE gds_u64 phase_of(const view_t &v, gds_u64 ticket) {
    return (ticket >> v.ring_shift) % GDS_ARRAY_PHASES + 1;
}

/* Takes completions out of pinned memory, on behalf of all who wait: one warp a ring at a time,
 * because a thousand warps that look across the bus would leave no room for pages on it. */
GDS_DEVICE_SLOW void drain(const view_t &v, gds_u32 ring) {
    constexpr gds_u32 AHEAD = 4;
    gds_array_ring *r = &control(v)->ring[ring];
    if (look(&r->lock) != 0 || swap_if(&r->lock, 0u, 1u) != 0) return;
    fence();
    const gds_u64 first = (gds_u64)ring << v.ring_shift, mask = (1ull << v.ring_shift) - 1;
    const gds_u64 *entries = (const gds_u64 *)v.completions + first;
    gds_u64 head = look(&r->head);
    bool more = true;
    while (more) {
        gds_u64 entry[AHEAD];
        const gds_u64 dead = look((const gds_u64 *)v.host);
#ifdef __CUDACC__
#pragma unroll
#endif
        for (gds_u32 i = 0; i < AHEAD; i++) entry[i] = look(entries + ((head + i) & mask));
        fence_host();
#ifdef __CUDACC__
#pragma unroll
#endif
        for (gds_u32 i = 0; i < AHEAD; i++) {
            more = more && (entry[i] >> GDS_ARRAY_PHASE_SHIFT) == phase_of(v, head);
            if (more) {
                const gds_u32 status = (gds_u32)(entry[i] >> GDS_ARRAY_STATUS_SHIFT) & 0xFFFF;
                put(slot_of(v, first + (entry[i] & 0xFFFF)), ANSWERED + status);
                head++;
            }
        }
        if (dead != 0) {
            fail(v, (gds_u32)dead, NOTHING);
            put(&control(v)->fatal, 1u);
            more = false;
        }
    }
    put(&r->head, head);
    fence();
    put(&r->lock, 0u);
}

/* A slot of staging memory, or NOTHING when nobody answers any more. */
GDS_DEVICE_SLOW gds_u64 take_slot(const view_t &v) {
    const gds_u32 mask = (1u << v.ring_shift) - 1;
    gds_u32 ring = here() % v.ring_count;
    for (gds_u32 tries = 1;; tries++) {
        const gds_u32 index = add(&control(v)->ring[ring].hint, 1u) & mask;
        gds_u32 *slot = slot_of(v, ((gds_u64)ring << v.ring_shift) + index);
        if (look(slot) == FREE && swap_if(slot, FREE, ASKED) == FREE) {
            return ((gds_u64)ring << v.ring_shift) + index;
        }
        if (tries % 16 == 0) {
            if (is_fatal(v)) return NOTHING;
            drain(v, ring);
            ring = (ring + 1) % v.ring_count;
            pause(200);
        }
    }
}

/* Asks for a page to be read into a slot, or written from it, and waits for the answer. */
GDS_DEVICE_SLOW gds_u32 ask(const view_t &v, gds_u64 slot, gds_u64 page, gds_u64 what) {
    const gds_u32 ring = (gds_u32)(slot >> v.ring_shift);
    const gds_u64 mask = (1ull << v.ring_shift) - 1;
    put(slot_of(v, slot), ASKED);
    /* The state is reset, and a page to write has left, before the host can answer. */
    fence_host();
    const gds_u64 ticket = add(&control(v)->ring[ring].tail, 1ull);
    put((gds_u64 *)v.requests + ((gds_u64)ring << v.ring_shift) + (ticket & mask),
        page | (slot & mask) << GDS_ARRAY_SLOT_SHIFT | what |
            phase_of(v, ticket) << GDS_ARRAY_PHASE_SHIFT);
    for (;;) {
        const gds_u32 state = look(slot_of(v, slot));
        if (state >= ANSWERED) return state - ANSWERED;
        if (is_fatal(v)) return GDS_STATUS_POISONED;
        drain(v, ring);
        pause(200);
    }
}

/* ---- frames ----------------------------------------------------------------------------- */

/* Claims a frame by the clock: a free one, or one whose page nobody pins or has used since the hand
 * came by. `victim` is its page, which stays busy, or NOTHING. NOTHING when all are pinned for too
 * long, or at once for those who do not wait. */
GDS_DEVICE_SLOW gds_u64 find_frame(const view_t &v, gds_u64 &victim, bool waits) {
    const gds_u64 round = 2 * (gds_u64)v.frame_count + 64;
    gds_u64 since = 0;
    victim = NOTHING;
    for (gds_u64 tries = 1;; tries++) {
        const gds_u64 frame = add(&control(v)->hand, 1ull) % v.frame_count;
        const gds_u64 owner = look(owner_of(v, frame));
        if (owner == 0) {
            if (swap_if(owner_of(v, frame), 0ull, GDS_ARRAY_CHANGING) == 0) return frame;
        } else if (owner != GDS_ARRAY_CHANGING) {
            gds_u64 *word = word_of(v, owner - 1);
            const gds_u64 w = look(word);
            const bool idle = (w & (GDS_ARRAY_VALID | GDS_ARRAY_BUSY | GDS_ARRAY_PINS)) ==
                              GDS_ARRAY_VALID;
            if (idle && w >> GDS_ARRAY_FRAME_SHIFT == frame) {
                if (w & GDS_ARRAY_REF) {
                    clear(word, GDS_ARRAY_REF);
                } else if (swap_if(word, w, GDS_ARRAY_BUSY) == w) {
                    put(owner_of(v, frame), GDS_ARRAY_CHANGING);
                    victim = owner - 1;
                    return frame;
                }
            }
        }
        if (tries % round == 0) {
            if (!waits || is_fatal(v)) return NOTHING;
            const gds_u64 now = now_ns();
            if (since == 0) since = now;
            if (now - since > v.wait_ns) return NOTHING;
            pause(1000);
        }
    }
}

/* Gives a claimed frame back to the page that was in it. */
GDS_DEVICE void give_back(const view_t &v, gds_u64 frame, gds_u64 victim) {
    put(owner_of(v, frame), victim == NOTHING ? 0 : victim + 1);
    fence();
    if (victim != NOTHING) {
        add(word_of(v, victim),
            (frame << GDS_ARRAY_FRAME_SHIFT) + GDS_ARRAY_VALID - GDS_ARRAY_BUSY);
    }
}

/* Brings a page, whose word this warp has made busy, into a frame. All lanes of `mask` take part.
 * Where it is, or the status in `status` and NOTHING. */
GDS_DEVICE_SLOW gds_u64 bring(gds_u32 mask, const view_t &v, gds_u64 page, bool waits,
                              gds_u32 &status) {
    const gds_u32 first = first_of(mask), size = 1u << v.page_shift;
    const bool leads = lane() == first;
    gds_u64 frame = NOTHING, victim = NOTHING, slot = NOTHING;
    if (leads) {
        add(&control(v)->misses, 1ull);
        frame = find_frame(v, victim, waits);
        if (frame != NOTHING) {
            slot = take_slot(v);
            if (slot == NOTHING) give_back(v, frame, victim);
        }
    }
    frame = from_lane(mask, frame, first);
    slot = from_lane(mask, slot, first);
    if (slot == NOTHING) {
        status = frame == NOTHING && !is_fatal(v) ? GDS_STATUS_ALL_PINNED : GDS_STATUS_POISONED;
        return NOTHING;
    }
    victim = from_lane(mask, victim, first);
    const gds_u64 address = frame_at(v, frame), staging = v.staging + (slot << v.page_shift);
    gds_u64 answer = 0;
    if (victim != NOTHING) {
        fence();
        const gds_u64 dirty = leads ? look(dirty_of(v, frame)) : 0;
        if (from_lane(mask, dirty, first) != 0) {
            copy_page(mask, staging, address, size);
            fence_host();
            together(mask);
            if (leads) answer = ask(v, slot, victim, GDS_ARRAY_WRITE);
            answer = from_lane(mask, answer, first);
            if (answer != 0) {
                /* The page stays, dirty: nothing is lost, and flushing tries again. */
                if (leads) {
                    fail(v, (gds_u32)answer, victim << v.page_shift);
                    give_back(v, frame, victim);
                    if (answer != GDS_STATUS_POISONED) put(slot_of(v, slot), FREE);
                }
                status = (gds_u32)answer;
                return NOTHING;
            }
            if (leads) {
                put(dirty_of(v, frame), 0u);
                add(&control(v)->write_backs, 1ull);
            }
        }
        if (leads) {
            add(&control(v)->evictions, 1ull);
            fence();
            clear(word_of(v, victim), GDS_ARRAY_BUSY);
        }
    }
    if (leads) answer = ask(v, slot, page, 0);
    answer = from_lane(mask, answer, first);
    fence();
    if (answer == 0) copy_page(mask, address, staging, size);
    fence();
    together(mask);
    if (leads) {
        put(owner_of(v, frame), answer == 0 ? page + 1 : 0);
        /* A slot that was not answered may still be read into. */
        if (answer != GDS_STATUS_POISONED) put(slot_of(v, slot), FREE);
    }
    status = (gds_u32)answer;
    return answer == 0 ? frame : NOTHING;
}

/* ---- pages ------------------------------------------------------------------------------ */

/* What a look-up found: the page is there, has to be brought, or cannot be had. */
enum found_t { READY, BRING, GONE };

/* Follows a page's word, of which `w` was seen, until one of the three holds. */
GDS_DEVICE_SLOW found_t settle(const view_t &v, gds_u64 page, gds_u64 &w) {
    gds_u64 *word = word_of(v, page);
    bool counted = false;
    for (;;) {
        if (w & GDS_ARRAY_VALID) return READY;
        if (w & GDS_ARRAY_FAILED) return GONE;
        if (!(w & GDS_ARRAY_BUSY)) {
            const gds_u64 is = swap_if(word, w, w | GDS_ARRAY_BUSY);
            if (is == w) return BRING;
            w = is;
            continue;
        }
        if (!counted) add(&control(v)->waits, 1ull);
        counted = true;
        if (is_fatal(v)) return GONE;
        pause(500);
        w = look(word);
    }
}

GDS_DEVICE void note_use(const view_t &v, gds_u64 page, gds_u64 w) {
    if (!(w & GDS_ARRAY_REF)) set(word_of(v, page), GDS_ARRAY_REF);
    if (v.flags & GDS_ARRAY_COUNT_HITS) add(&control(v)->hits, 1ull);
}

/* Pins a page once for all lanes of `mask`, which ask for the same. Its address, or 0. */
GDS_DEVICE_SLOW gds_u64 pin(gds_u32 mask, const view_t &v, gds_u64 page, bool waits) {
    const gds_u32 first = first_of(mask);
    const bool leads = lane() == first;
    gds_u64 w = 0, found = READY;
    if (leads) {
        w = add(word_of(v, page), 1ull);
        const bool there = (w & GDS_ARRAY_VALID) != 0;
        found = settle(v, page, w);
        if (there) note_use(v, page, w);
    }
    found = from_lane(mask, found, first);
    gds_u64 frame = from_lane(mask, w >> GDS_ARRAY_FRAME_SHIFT, first);
    if (found == BRING) {
        gds_u32 status = 0;
        frame = bring(mask, v, page, waits, status);
        if (leads && frame != NOTHING) {
            add(word_of(v, page),
                (frame << GDS_ARRAY_FRAME_SHIFT) + GDS_ARRAY_VALID - GDS_ARRAY_BUSY);
        } else if (leads) {
            fail(v, status, page << v.page_shift);
            /* What was read badly stays so; what lacked a frame may be had later. */
            const bool passing = status == GDS_STATUS_ALL_PINNED || is_fatal(v);
            add(word_of(v, page), (passing ? 0 : GDS_ARRAY_FAILED) - GDS_ARRAY_BUSY);
        }
        if (frame == NOTHING) found = GONE;
    }
    if (found == GONE) {
        if (leads) add(word_of(v, page), ~0ull);
        return 0;
    }
    return frame_at(v, frame);
}

/* Undoes pin(). What the lanes did to the page is seen by whoever takes it next. */
GDS_DEVICE void unpin(gds_u32 mask, const view_t &v, gds_u64 page) {
    fence();
    together(mask);
    if (lane() == first_of(mask)) add(word_of(v, page), ~0ull);
}

} /* namespace detail */

} /* namespace gds */
#endif /* GDS_RS_DETAIL_CUH */
