/*
 * Copies many pieces in one launch: pinned host memory to device memory (scatter) or device
 * memory to pinned host memory (gather). One copy call a piece would cost the host more than the
 * bus does for pieces of a few KiB.
 *
 * `gds_copy_pieces` copies pieces that are known at the launch; `gds_stream_move` copies what the
 * host publishes while it runs. A piece is copied by one warp, or by `split` warps when there are
 * fewer pieces than warps. Each lane keeps LOADS vectors of 16 bytes in flight, so a warp has a
 * 4 KiB page on the bus at once.
 * Any address and any size work. No byte outside source and destination is read or written.
 *
 * Compiled three ways: nvcc makes the PTX that the library embeds (scripts/build-kernels), and a
 * C++ compiler makes the same functions for the processor (tests/device_kernel_host.rs), where a
 * loop stands for the lanes of a warp.
 */

#ifdef __CUDACC__
#define GDS_FN static __device__ __forceinline__
#define GDS_UNROLL _Pragma("unroll")
#else
#include <stdint.h>
#define GDS_FN static inline
#define GDS_UNROLL
#endif

typedef unsigned long long gds_u64;

/* One piece. The layout is `device::CopyPiece` of the Rust side. */
struct gds_copy_piece {
    gds_u64 source;
    gds_u64 destination;
    gds_u64 size;
};

static_assert(sizeof(gds_copy_piece) == 24, "shared with Rust");

/* 16 bytes, moved by one load and one store. */
struct alignas(16) gds_vector {
    unsigned int word[4];
};

namespace {

#ifndef __CUDACC__
/* The piece in work. The page tables would not notice a vector that sticks out of it. */
thread_local gds_copy_piece gds_bounds;

GDS_FN void gds_inside(gds_u64 address, gds_u64 start)
{
    if (address < start || address + 16 > start + gds_bounds.size) {
        __builtin_trap();
    }
}
#endif

constexpr unsigned WARP = 32;
/* Vectors a lane has in flight: 8 * 32 lanes * 16 bytes = 4 KiB a warp. */
constexpr unsigned LOADS = 8;
/* Vectors that a warp takes at a time. */
constexpr gds_u64 STRIDE = (gds_u64)LOADS * WARP;

GDS_FN gds_vector gds_load(gds_u64 address)
{
#ifdef __CUDACC__
    /* Read once: do not displace what other kernels keep in the caches. */
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(address));
    return gds_vector{{v.x, v.y, v.z, v.w}};
#else
    gds_inside(address, gds_bounds.source);
    return *reinterpret_cast<const gds_vector *>(address);
#endif
}

GDS_FN void gds_store(gds_u64 address, const gds_vector &v)
{
#ifdef __CUDACC__
    *reinterpret_cast<uint4 *>(address) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
#else
    gds_inside(address, gds_bounds.destination);
    *reinterpret_cast<gds_vector *>(address) = v;
#endif
}

GDS_FN void gds_copy_byte(gds_u64 destination, gds_u64 source)
{
    *reinterpret_cast<unsigned char *>(destination) =
        *reinterpret_cast<const unsigned char *>(source);
}

/* The low word of (high:low) >> bits, bits below 32. */
GDS_FN unsigned gds_funnel(unsigned low, unsigned high, unsigned bits)
{
#ifdef __CUDACC__
    return __funnelshift_r(low, high, bits);
#else
    return (unsigned)((((gds_u64)high << 32) | low) >> bits);
#endif
}

/* Where the parts of a piece begin and end. */
struct gds_layout {
    /* Bytes before the first vector, copied one by one. */
    gds_u64 head;
    /* Vectors of 16 bytes: destination aligned, source aligned after `shift` is taken off. */
    gds_u64 vectors;
    /* Source address modulo 16 at the first vector. */
    unsigned shift;
};

GDS_FN gds_layout gds_plan(const gds_copy_piece &piece)
{
    gds_layout plan;
    plan.vectors = 0;
    plan.head = (16 - (piece.destination & 15)) & 15;
    plan.shift = (unsigned)((piece.source + plan.head) & 15);
    /* A shifted vector is cut from two aligned ones. The first must not begin before the source,
     * the second must not end after it. */
    if (plan.shift > plan.head) {
        plan.head += 16;
    }
    const gds_u64 beyond = plan.shift == 0 ? 0 : 16 - plan.shift;
    if (piece.size >= plan.head + 16 + beyond) {
        plan.vectors = (piece.size - plan.head - beyond) / 16;
    }
    return plan;
}

/* Vectors at an equal alignment: a copy. */
GDS_FN void gds_copy_equal(gds_u64 destination, gds_u64 source, gds_u64 vectors, gds_u64 first)
{
    gds_vector v[LOADS];
    GDS_UNROLL
    for (unsigned i = 0; i < LOADS; i++) {
        if (first + i * WARP < vectors) {
            v[i] = gds_load(source + (first + i * WARP) * 16);
        }
    }
    GDS_UNROLL
    for (unsigned i = 0; i < LOADS; i++) {
        if (first + i * WARP < vectors) {
            gds_store(destination + (first + i * WARP) * 16, v[i]);
        }
    }
}

/* Vectors at an unequal alignment: cut from two neighbours. WORDS = shift / 4, bits = the rest. */
template <unsigned WORDS>
GDS_FN void gds_copy_shifted(gds_u64 destination, gds_u64 aligned_source, gds_u64 vectors,
                             gds_u64 first, unsigned bits)
{
    constexpr unsigned HALF = LOADS / 2;
    for (unsigned half = 0; half < 2; half++) {
        const gds_u64 start = first + half * HALF * WARP;
        gds_vector low[HALF], high[HALF];
        GDS_UNROLL
        for (unsigned i = 0; i < HALF; i++) {
            if (start + i * WARP < vectors) {
                low[i] = gds_load(aligned_source + (start + i * WARP) * 16);
                high[i] = gds_load(aligned_source + (start + i * WARP) * 16 + 16);
            }
        }
        GDS_UNROLL
        for (unsigned i = 0; i < HALF; i++) {
            if (start + i * WARP < vectors) {
                gds_vector out;
                GDS_UNROLL
                for (unsigned j = 0; j < 4; j++) {
                    /* WORDS + j + 1 is 7 at most: inside the two vectors. */
                    const unsigned at = WORDS + j, next = at + 1;
                    const unsigned a = at < 4 ? low[i].word[at & 3] : high[i].word[at & 3];
                    const unsigned b = next < 4 ? low[i].word[next & 3] : high[i].word[next & 3];
                    out.word[j] = gds_funnel(a, b, bits);
                }
                gds_store(destination + (start + i * WARP) * 16, out);
            }
        }
    }
}

/* What one lane of the warp that has `part` of `split` does for a piece. */
GDS_FN void gds_copy_piece_lane(const gds_copy_piece &piece, gds_u64 part, gds_u64 split,
                                unsigned lane)
{
    const gds_layout plan = gds_plan(piece);
    const gds_u64 destination = piece.destination + plan.head;
    const gds_u64 source = piece.source + plan.head;
    const unsigned bits = (plan.shift & 3) * 8;
    for (gds_u64 i = part * STRIDE + lane; i < plan.vectors; i += split * STRIDE) {
        if (plan.shift == 0) {
            gds_copy_equal(destination, source, plan.vectors, i);
            continue;
        }
        const gds_u64 aligned = source - plan.shift;
        switch (plan.shift / 4) {
        case 0: gds_copy_shifted<0>(destination, aligned, plan.vectors, i, bits); break;
        case 1: gds_copy_shifted<1>(destination, aligned, plan.vectors, i, bits); break;
        case 2: gds_copy_shifted<2>(destination, aligned, plan.vectors, i, bits); break;
        default: gds_copy_shifted<3>(destination, aligned, plan.vectors, i, bits); break;
        }
    }
    if (part != 0) {
        return;
    }
    if (plan.vectors == 0) {
        /* No room for a vector: under 48 bytes. */
        for (gds_u64 i = lane; i < piece.size; i += WARP) {
            gds_copy_byte(piece.destination + i, piece.source + i);
        }
        return;
    }
    /* Head and tail are at most 31 bytes each: a lane a byte. */
    if (lane < plan.head) {
        gds_copy_byte(piece.destination + lane, piece.source + lane);
    }
    const gds_u64 tail = plan.head + plan.vectors * 16 + lane;
    if (tail < piece.size) {
        gds_copy_byte(piece.destination + tail, piece.source + tail);
    }
}

/* Warps that share a piece: more than one when there are fewer pieces than warps. */
GDS_FN gds_u64 gds_split(gds_u64 warps, gds_u64 count)
{
    return warps > count ? warps / count : 1;
}

} // namespace

#ifdef __CUDACC__

/* One read of the three words of a piece for the whole warp: it comes over the bus. */
GDS_FN gds_copy_piece gds_read_piece(const gds_copy_piece *pieces, gds_u64 index, unsigned lane)
{
    gds_u64 word = 0;
    if (lane < 3) {
        word = __ldcs(reinterpret_cast<const gds_u64 *>(pieces + index) + lane);
    }
    gds_copy_piece piece;
    piece.source = __shfl_sync(0xffffffffu, word, 0);
    piece.destination = __shfl_sync(0xffffffffu, word, 1);
    piece.size = __shfl_sync(0xffffffffu, word, 2);
    return piece;
}

/* `pieces` has `count` entries, count > 0. Any grid; blocks of a multiple of 32 threads. */
extern "C" __global__ void __launch_bounds__(256)
    gds_copy_pieces(const gds_copy_piece *pieces, unsigned long long count)
{
    const unsigned lane = threadIdx.x % WARP;
    const gds_u64 warps = (gds_u64)gridDim.x * (blockDim.x / WARP);
    const gds_u64 warp = (gds_u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const gds_u64 split = gds_split(warps, count);
    for (gds_u64 unit = warp; unit < count * split; unit += warps) {
        const gds_copy_piece piece = gds_read_piece(pieces, unit / split, lane);
        gds_copy_piece_lane(piece, unit % split, split, lane);
    }
}

/* What the host and `gds_stream_move` tell each other. The layout is `device::StreamControl` of the
 * Rust side. It lies in pinned memory. */
struct gds_stream_control {
    /* Set by the device: the stream has come to the kernel. */
    unsigned int started;
    /* Set by the host: nothing comes after what is published. */
    unsigned int closed;
    /* Set by the host: entries of the ring that may be copied. */
    gds_u64 published;
    /* Entries of the ring, a power of two. */
    gds_u64 capacity;
    /* Address of the ring. */
    gds_u64 ring;
    /* Address of a word a block: entries that the block has copied its share of, or all bits set
     * when the block has ended and will not look here again. */
    gds_u64 progress;
};

struct gds_stream_entry {
    /* Address of the pieces. */
    gds_u64 pieces;
    gds_u64 count;
};

static_assert(sizeof(gds_stream_control) == 40, "shared with Rust");
static_assert(sizeof(gds_stream_entry) == 16, "shared with Rust");

GDS_FN unsigned gds_acquire(const unsigned *address)
{
    unsigned value;
    asm volatile("ld.acquire.sys.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

GDS_FN gds_u64 gds_acquire(const gds_u64 *address)
{
    gds_u64 value;
    asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
}

GDS_FN void gds_release(unsigned *address, unsigned value)
{
    asm volatile("st.release.sys.u32 [%0], %1;" : : "l"(address), "r"(value) : "memory");
}

GDS_FN void gds_release(gds_u64 *address, gds_u64 value)
{
    asm volatile("st.release.sys.u64 [%0], %1;" : : "l"(address), "l"(value) : "memory");
}

/* The place of a transfer in the caller's stream: copies what the host publishes until the host
 * closes. A stream that waited for copies of other streams instead could wait for ever, because
 * streams share the hardware's queues; this kernel waits for the host alone. */
extern "C" __global__ void __launch_bounds__(256) gds_stream_move(gds_stream_control *control)
{
    __shared__ gds_stream_entry entry;
    __shared__ bool over;
    const unsigned lane = threadIdx.x % WARP;
    const gds_u64 warps = (gds_u64)gridDim.x * (blockDim.x / WARP);
    const gds_u64 warp = (gds_u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    gds_u64 *progress = reinterpret_cast<gds_u64 *>(control->progress) + blockIdx.x;
    const gds_u64 mask = control->capacity - 1;
    const gds_stream_entry *ring = reinterpret_cast<const gds_stream_entry *>(control->ring);
    if (warp == 0 && lane == 0) {
        gds_release(&control->started, 1u);
    }
    for (gds_u64 at = 0;; at++) {
        if (threadIdx.x == 0) {
            for (;;) {
                /* Closed is read first: what was published before closing is never missed. */
                const bool closed = gds_acquire(&control->closed) != 0;
                over = gds_acquire(&control->published) <= at;
                if (!over || closed) {
                    break;
                }
                __nanosleep(500);
            }
            if (!over) {
                const volatile gds_stream_entry *next = ring + (at & mask);
                entry.pieces = next->pieces;
                entry.count = next->count;
            }
        }
        __syncthreads();
        if (over) {
            break;
        }
        const gds_copy_piece *pieces = reinterpret_cast<const gds_copy_piece *>(entry.pieces);
        const gds_u64 count = entry.count;
        const gds_u64 split = gds_split(warps, count);
        for (gds_u64 unit = warp; unit < count * split; unit += warps) {
            const gds_copy_piece piece = gds_read_piece(pieces, unit / split, lane);
            gds_copy_piece_lane(piece, unit % split, split, lane);
        }
        __threadfence_system();
        __syncthreads();
        if (threadIdx.x == 0) {
            gds_release(progress, at + 1);
        }
    }
    if (threadIdx.x == 0) {
        gds_release(progress, ~0ull);
    }
}

#else

/* The same work on the processor, for `warps` warps one after the other. */
extern "C" void gds_copy_pieces_on_host(const gds_copy_piece *pieces, gds_u64 count,
                                        gds_u64 warps)
{
    const gds_u64 split = gds_split(warps, count);
    for (gds_u64 warp = 0; warp < warps; warp++) {
        for (gds_u64 unit = warp; unit < count * split; unit += warps) {
            gds_bounds = pieces[unit / split];
            for (unsigned lane = 0; lane < WARP; lane++) {
                gds_copy_piece_lane(gds_bounds, unit % split, split, lane);
            }
        }
    }
}

#endif
