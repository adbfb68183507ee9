/*
 * What a warp needs to put many short copies of a decompressor out at once.
 *
 * Copies of a few bytes that wait for each other take the time of a trip to memory each. So the
 * elements of a chunk (literals and matches) are collected until there are many, and then put out
 * together: bytes that come from the input or from what was written before go first, all at once;
 * bytes that come from the same batch follow in order, within shared memory.
 *
 * On the processor a loop stands for the lanes of a warp, upwards or downwards, so that a byte that
 * needs another lane's byte of the same step comes out wrong.
 */
#ifndef GDS_DECOMPRESS_CUH
#define GDS_DECOMPRESS_CUH

#include "warp.cuh"

/* Elements of a batch: one a lane. */
constexpr unsigned GDS_ELEMENTS = 32;
/* Bytes that a batch puts out, at most, and in words of 32. */
constexpr unsigned GDS_BATCH = 512;
constexpr unsigned GDS_ROUNDS = GDS_BATCH / GDS_LANES;
/* Literals from here on are copied for themselves, as fast as memory allows. */
constexpr unsigned GDS_LONG = 192;
/* A byte of a batch that comes from outside of it. */
constexpr unsigned short GDS_OUTSIDE = 0xFFFF;

static_assert(GDS_LONG <= GDS_BATCH && GDS_ROUNDS <= GDS_LANES, "a batch takes any short element");

/* Elements that wait to be put out; in the shared memory of a warp. */
struct gds_batch {
    /* Addresses of the bytes of literals, less where they go in the batch. */
    gds_u64 literal[GDS_ELEMENTS];
    /* How far back matches reach; 0: a literal. */
    unsigned offset[GDS_ELEMENTS];
    /* Where elements begin. */
    unsigned begin[GDS_ELEMENTS];
    /* The same as bits, and how many there are before each word. */
    unsigned bits[GDS_ROUNDS];
    unsigned before[GDS_ROUNDS];
    /* Where each byte comes from in the batch. */
    unsigned short source[GDS_BATCH];
    unsigned char bytes[GDS_BATCH];
};

#ifdef __CUDACC__
__shared__ gds_batch gds_batches[GDS_THREADS / GDS_LANES];
#endif

namespace {

/* The batch of the warp: named, so that the compiler knows what memory it is in. */
GDS_FN gds_batch &gds_own(gds_batch *batch)
{
#ifdef __CUDACC__
    (void)batch;
    return gds_batches[threadIdx.x / GDS_LANES];
#else
    return *batch;
#endif
}

/* The lanes that one comes to from lane 0, when each names one at least two on; names from 32 on
 * end it. */
GDS_FN unsigned gds_chain(gds_each<unsigned> &next)
{
#ifdef __CUDACC__
    unsigned reached = 1u << GDS_LANE, end = next.own;
    for (unsigned doubled = 1; doubled < 16; doubled *= 2) {
        const unsigned more = __shfl_sync(0xFFFFFFFFu, reached, end % GDS_LANES);
        const unsigned beyond = __shfl_sync(0xFFFFFFFFu, end, end % GDS_LANES);
        if (end < GDS_LANES) {
            reached |= more;
            end = beyond;
        }
    }
    return __shfl_sync(0xFFFFFFFFu, reached, 0);
#else
    unsigned reached = 0;
    for (unsigned at = 0; at < GDS_LANES; at = next[at]) {
        reached |= 1u << at;
    }
    return reached;
#endif
}

/* Marks where elements begin. */
GDS_FN void gds_mark(gds_batch &b, unsigned count)
{
    GDS_FOR_LANES(lane)
    {
        if (lane < GDS_ROUNDS) {
            b.bits[lane] = 0;
        }
    }
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        if (lane < count) {
            const unsigned begin = b.begin[lane];
#ifdef __CUDACC__
            atomicOr(&b.bits[begin / 32], 1u << begin % 32);
#else
            b.bits[begin / 32] |= 1u << begin % 32;
#endif
        }
    }
    GDS_SYNC();
    gds_each<unsigned> counts, sums;
    GDS_FOR_LANES(lane)
    {
        counts[lane] = lane < GDS_ROUNDS ? gds_count(b.bits[lane]) : 0;
    }
    gds_sums_before(counts, sums);
    GDS_FOR_LANES(lane)
    {
        if (lane < GDS_ROUNDS) {
            b.before[lane] = sums[lane];
        }
    }
    GDS_SYNC();
}

/* Where a byte of the batch, which goes to `to`, comes from: an address outside of it, else
 * `source` is a place in it. Without branches but one that is seldom taken. */
GDS_FN const unsigned char *gds_origin(const gds_batch &b, const unsigned char *to, unsigned place,
                                       unsigned short &source)
{
    const unsigned word = place / 32;
    const unsigned upto = b.bits[word] & (0xFFFFFFFFu >> (31 - place % 32));
    const unsigned element = b.before[word] + gds_count(upto) - 1;
    const unsigned offset = b.offset[element], begin = b.begin[element];
    const gds_u64 literal = b.literal[element] + place;
    unsigned within = place - begin;
    /* A match that overlaps itself repeats what is before it. */
    if (offset - 1 < within) {
        within %= offset;
    }
    const unsigned from = begin + within - offset;
    const bool is_literal = offset == 0, is_inside = !is_literal && begin + within >= offset;
    source = is_inside ? (unsigned short)from : GDS_OUTSIDE;
    const gds_u64 before = reinterpret_cast<gds_u64>(to) + (gds_u64)begin + within - offset;
    return reinterpret_cast<const unsigned char *>(is_literal ? literal : before);
}

/* Bytes that come from outside of the batch, and where the others come from. A bit a round that has
 * such. */
GDS_FN unsigned gds_put_outside(gds_batch &b, const unsigned char *to, unsigned size)
{
    constexpr unsigned AT_ONCE = 4;
    unsigned inside = 0;
    GDS_FOR_LANES(lane)
    {
        for (unsigned first = 0; first < size; first += AT_ONCE * GDS_LANES) {
            const unsigned char *origins[AT_ONCE];
            unsigned char bytes[AT_ONCE];
            unsigned short sources[AT_ONCE];
            GDS_UNROLL
            for (unsigned i = 0; i < AT_ONCE; i++) {
                const unsigned place = first + i * GDS_LANES + lane;
                /* Behind the end the last byte comes once more, and goes nowhere. */
                origins[i] = gds_origin(b, to, place < size ? place : size - 1, sources[i]);
            }
            GDS_UNROLL
            for (unsigned i = 0; i < AT_ONCE; i++) {
                bytes[i] = sources[i] == GDS_OUTSIDE ? *origins[i] : 0;
            }
            GDS_UNROLL
            for (unsigned i = 0; i < AT_ONCE; i++) {
                const unsigned place = first + i * GDS_LANES + lane;
                bool waits = place < size && sources[i] != GDS_OUTSIDE;
                if (place < size) {
                    b.source[place] = sources[i];
                    b.bytes[place] = bytes[i];
                }
#ifdef __CUDACC__
                waits = __any_sync(0xFFFFFFFFu, waits);
#endif
                inside |= (waits ? 1u : 0u) << (first / GDS_LANES + i);
            }
        }
    }
    return inside;
}

} // namespace

/* Puts a batch out, whose elements were checked. */
GDS_FN_FAR void gds_put_batch(gds_batch *batch, unsigned char *to, unsigned count, unsigned size)
{
    gds_batch &b = gds_own(batch);
    /* The lanes wrote elements, and what was put out before. */
    GDS_SYNC();
    gds_mark(b, count);
    unsigned inside = gds_put_outside(b, to, size);
    for (; inside != 0; inside &= inside - 1) {
        const unsigned first = GDS_LANES * gds_lowest(inside);
        GDS_SYNC();
        GDS_FOR_LANES_DOWN(lane)
        {
            const unsigned place = first + lane;
            unsigned short source = place < size ? b.source[place] : GDS_OUTSIDE;
            if (source != GDS_OUTSIDE) {
                /* Until it is one that is there: of an earlier round, or from outside. */
                while (source >= first && b.source[source] != GDS_OUTSIDE) {
                    source = b.source[source];
                }
                b.bytes[place] = b.bytes[source];
            }
        }
    }
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        for (unsigned i = lane; i < size; i += GDS_LANES) {
            to[i] = b.bytes[i];
        }
    }
    GDS_SYNC();
}

/* Copies bytes of the input to the output: any number, as many at once as memory wants. */
GDS_FN_FAR void gds_copy_long(unsigned char *to, const unsigned char *from, gds_u64 size)
{
#ifdef __CUDACC__
    constexpr unsigned AT_ONCE = 4;
    const unsigned lane = GDS_LANE;
    /* Words of the output, each of the two words of the input that its bytes lie in. The last one
     * is left out: its second word may pass the end. */
    const gds_u64 lead = (0 - reinterpret_cast<gds_u64>(to)) & 3;
    const gds_u64 head = lead < size ? lead : size;
    const gds_u64 words = (size - head) / 4 > 1 ? (size - head) / 4 - 1 : 0;
    const gds_u64 address = reinterpret_cast<gds_u64>(from + head);
    const unsigned *in = reinterpret_cast<const unsigned *>(address & ~3ull);
    const unsigned skip = 8 * (unsigned)(address & 3);
    unsigned *out = reinterpret_cast<unsigned *>(to + head);
    if (lane < head) {
        to[lane] = from[lane];
    }
    for (gds_u64 first = lane; first < words; first += AT_ONCE * GDS_LANES) {
        unsigned low[AT_ONCE], high[AT_ONCE];
        GDS_UNROLL
        for (unsigned i = 0; i < AT_ONCE; i++) {
            const gds_u64 word = first + i * GDS_LANES;
            low[i] = word < words ? in[word] : 0;
            high[i] = word < words ? in[word + 1] : 0;
        }
        GDS_UNROLL
        for (unsigned i = 0; i < AT_ONCE; i++) {
            const gds_u64 word = first + i * GDS_LANES;
            if (word < words) {
                out[word] = __funnelshift_r(low[i], high[i], skip);
            }
        }
    }
    for (gds_u64 i = head + 4 * words + lane; i < size; i += GDS_LANES) {
        to[i] = from[i];
    }
#else
    for (gds_u64 i = 0; i < size; i++) {
        to[i] = from[i];
    }
#endif
}

namespace {

/* A chunk in work. */
struct gds_decompress_state {
    const unsigned char *from;
    unsigned char *to;
    gds_u64 from_size;
    gds_u64 to_size;
    /* Bytes read and written so far; those of the batch are not written. */
    gds_u64 at;
    gds_u64 done;
    gds_batch *batch;
    /* Elements of the batch, and their bytes. */
    unsigned count;
    unsigned size;
};

/* Puts the batch out. */
GDS_FN void gds_flush(gds_decompress_state &s)
{
    if (s.count != 0) {
        gds_put_batch(s.batch, s.to + s.done, s.count, s.size);
    }
    s.done += s.size;
    s.count = 0;
    s.size = 0;
}

/* Adds an element that was checked and fits. `literal` is a literal's address, with offset 0. */
GDS_FN void gds_add(gds_decompress_state &s, const unsigned char *literal, unsigned offset,
                    unsigned size)
{
    if (s.count == GDS_ELEMENTS || size > GDS_BATCH - s.size) {
        gds_flush(s);
    }
    GDS_FOR_LANES(lane)
    {
        if (lane == s.count % GDS_LANES) {
            gds_own(s.batch).literal[s.count] = reinterpret_cast<gds_u64>(literal) - s.size;
            gds_own(s.batch).offset[s.count] = offset;
            gds_own(s.batch).begin[s.count] = s.size;
        }
    }
    s.count++;
    s.size += size;
}

} // namespace

#endif
