/*
 * LZ4 blocks, LZ4 frames and Snappy, many chunks of memory in one launch.
 *
 * A chunk, or a block of one (snappy.cuh), belongs to one warp. Of Snappy each lane looks at a byte
 * as if it were a tag, and then the warp finds out which ones are; of LZ4 all lanes read the same
 * tokens. Elements are put out many at once (decompress.cuh). What is long, or wrong, is done for
 * itself by what stands here: a match that overlaps itself repeats the bytes before it, so every
 * byte of it has a source that was written before the match began, and the lanes wait for each
 * other once a match, never within one.
 *
 * Nothing of a chunk is believed: every read stays in the input, every write in the output, every
 * match in what was written. A chunk that breaks a rule has a status and the place in its input,
 * and its output up to there is unspecified; the other chunks are not concerned.
 *
 * Formats: github.com/lz4/lz4 doc/lz4_Block_format.md and doc/lz4_Frame_format.md;
 * github.com/google/snappy format_description.txt. Checksums of LZ4 frames are not verified here:
 * a frame that has some is answered with GDS_DECOMPRESS_UNSUPPORTED, and so is a dictionary.
 *
 * Compiled as PTX that the library embeds (scripts/build-kernels), and for the processor, where a
 * loop stands for the lanes of a warp (tests/device_kernel_decompress.rs).
 */

#include "decompress.cuh"

enum gds_decompress_codec {
    GDS_DECOMPRESS_LZ4_BLOCK = 1,
    GDS_DECOMPRESS_LZ4_FRAME = 2,
    GDS_DECOMPRESS_SNAPPY = 3,
    /* Snappy that shall be taken apart into `at` parts, from number `status` on: see snappy.cuh. */
    GDS_DECOMPRESS_SNAPPY_WHOLE = 16,
    /* What came of it: tags, without a length. */
    GDS_DECOMPRESS_SNAPPY_PART = 17,
};

enum gds_decompress_status {
    GDS_DECOMPRESS_OK = 0,
    /* The input ends in the middle of something. */
    GDS_DECOMPRESS_TRUNCATED = 1,
    /* A match reaches before the first byte. */
    GDS_DECOMPRESS_OFFSET = 2,
    /* There is more output than was promised. */
    GDS_DECOMPRESS_TOO_LONG = 3,
    /* There is less output than was promised. */
    GDS_DECOMPRESS_TOO_SHORT = 4,
    /* The frame's header, or Snappy's length, is not one. */
    GDS_DECOMPRESS_HEADER = 5,
    /* Right, but not for this kernel. */
    GDS_DECOMPRESS_UNSUPPORTED = 6,
    /* There is input behind the end. */
    GDS_DECOMPRESS_TRAILING = 7,
};

/* One chunk. The layout is `device::DecompressChunk` of the Rust side. */
struct gds_decompress_chunk {
    gds_u64 from;
    gds_u64 from_size;
    gds_u64 to;
    /* Bytes that must come out. */
    gds_u64 to_size;
    unsigned codec;
    /* Written: what became of it. */
    unsigned status;
    /* Written: where in the input it went wrong. */
    gds_u64 at;
};

/* What is to be done. The layout is `device::DecompressWork` of the Rust side. */
struct gds_decompress_work {
    /* Address of `count` chunks. */
    gds_u64 chunks;
    gds_u64 count;
    /* Address of two words that are 0: the next chunk that nobody has, one a kernel. */
    gds_u64 next;
    /* Chunks that come first and are GDS_DECOMPRESS_SNAPPY_WHOLE. */
    gds_u64 wholes;
};

static_assert(sizeof(gds_decompress_chunk) == 48, "shared with Rust");
static_assert(sizeof(gds_decompress_work) == 32, "shared with Rust");

/* A match that was checked, for itself. */
GDS_FN_FAR void gds_repeat(unsigned char *to, gds_u64 offset, gds_u64 size)
{
    constexpr unsigned AT_ONCE = 4;
    const unsigned char *back = to - offset;
    /* What the other lanes wrote is there. */
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 first = lane; first < size; first += AT_ONCE * GDS_LANES) {
            unsigned char bytes[AT_ONCE];
            GDS_UNROLL
            for (unsigned i = 0; i < AT_ONCE; i++) {
                const gds_u64 place = first + i * GDS_LANES;
                bytes[i] = place >= size ? 0 : back[place < offset ? place : place % offset];
            }
            GDS_UNROLL
            for (unsigned i = 0; i < AT_ONCE; i++) {
                const gds_u64 place = first + i * GDS_LANES;
                if (place < size) {
                    to[place] = bytes[i];
                }
            }
        }
    }
}

#include "snappy.cuh"

namespace {

/* How far ahead of what is read the input is asked for, bytes. */
constexpr unsigned GDS_AHEAD = 512;
/* Where a byte is not the tag of an element for a batch. */
constexpr unsigned GDS_NO_TAG = 0xFFFFFFFFu;

/* Whether `size` bytes of the input, up to `end`, go behind the output. */
GDS_FN unsigned gds_check_literals(const gds_decompress_state &s, gds_u64 end, gds_u64 size)
{
    if (size > end - s.at) {
        return GDS_DECOMPRESS_TRUNCATED;
    }
    return size > s.to_size - s.done - s.size ? GDS_DECOMPRESS_TOO_LONG : GDS_DECOMPRESS_OK;
}

/* Puts `size` bytes of the input behind the output. */
GDS_FN unsigned gds_literals(gds_decompress_state &s, gds_u64 end, gds_u64 size)
{
    const unsigned status = gds_check_literals(s, end, size);
    if (status != GDS_DECOMPRESS_OK || size == 0) {
        return status;
    }
    const unsigned char *from = s.from + s.at;
    s.at += size;
    if (size < GDS_LONG) {
        gds_add(s, from, 0, (unsigned)size);
        return GDS_DECOMPRESS_OK;
    }
    gds_flush(s);
    gds_copy_long(s.to + s.done, from, size);
    s.done += size;
    return GDS_DECOMPRESS_OK;
}

/* Repeats what lies `offset` bytes back, not before `first`. */
GDS_FN unsigned gds_match(gds_decompress_state &s, gds_u64 first, gds_u64 offset, gds_u64 size)
{
    const gds_u64 done = s.done + s.size;
    if (offset == 0 || offset > done - first) {
        return GDS_DECOMPRESS_OFFSET;
    }
    if (size > s.to_size - done) {
        return GDS_DECOMPRESS_TOO_LONG;
    }
    if (size <= GDS_BATCH && offset <= 0xFFFFFFFFull) {
        gds_add(s, nullptr, (unsigned)offset, (unsigned)size);
        return GDS_DECOMPRESS_OK;
    }
    gds_flush(s);
    gds_repeat(s.to + s.done, offset, size);
    s.done += size;
    return GDS_DECOMPRESS_OK;
}

/* Adds the bytes of a long length of LZ4. */
GDS_FN unsigned gds_lz4_length(gds_decompress_state &s, gds_u64 end, gds_u64 &size)
{
    unsigned byte;
    do {
        if (s.at >= end) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        byte = s.from[s.at++];
        size += byte;
    } while (byte == 255);
    return GDS_DECOMPRESS_OK;
}

/* A block that ends at `end` of the input; matches reach back to `first` of the output. */
GDS_FN unsigned gds_lz4_block(gds_decompress_state &s, gds_u64 end, gds_u64 first)
{
    for (;;) {
        if (s.at >= end) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        gds_ask(s.from + s.at + GDS_AHEAD, s.from + s.from_size);
        const unsigned token = s.from[s.at++];
        gds_u64 size = token >> 4;
        unsigned status = GDS_DECOMPRESS_OK;
        if (size == 15) {
            status = gds_lz4_length(s, end, size);
        }
        if (status == GDS_DECOMPRESS_OK) {
            status = gds_literals(s, end, size);
        }
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
        /* The last sequence has literals only. */
        if (s.at == end) {
            return GDS_DECOMPRESS_OK;
        }
        if (end - s.at < 2) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        const unsigned offset = s.from[s.at] | (unsigned)s.from[s.at + 1] << 8;
        s.at += 2;
        size = token & 15;
        if (size == 15) {
            status = gds_lz4_length(s, end, size);
        }
        if (status == GDS_DECOMPRESS_OK) {
            status = gds_match(s, first, offset, size + 4);
        }
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
    }
}

GDS_FN unsigned gds_word(const unsigned char *p)
{
    return p[0] | (unsigned)p[1] << 8 | (unsigned)p[2] << 16 | (unsigned)p[3] << 24;
}

/* One frame and nothing behind it. */
GDS_FN unsigned gds_lz4_frame(gds_decompress_state &s)
{
    if (s.from_size < 7) {
        return GDS_DECOMPRESS_TRUNCATED;
    }
    const unsigned flags = s.from[4], sizes = s.from[5];
    if (gds_word(s.from) != 0x184D2204u || (flags & 0xC0) != 0x40 || (flags & 0x02) != 0 ||
        (sizes & 0x8F) != 0 || sizes >> 4 < 4) {
        return GDS_DECOMPRESS_HEADER;
    }
    /* Checksums of blocks or of the content, a dictionary. */
    if ((flags & 0x15) != 0) {
        return GDS_DECOMPRESS_UNSUPPORTED;
    }
    const bool independent = (flags & 0x20) != 0;
    const gds_u64 block_max = 1ull << (8 + 2 * (sizes >> 4));
    /* Its own size, which is checked with the output, and the header's checksum. */
    s.at = 7 + ((flags & 0x08) != 0 ? 8 : 0);
    for (;;) {
        if (s.at > s.from_size || s.from_size - s.at < 4) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        const unsigned word = gds_word(s.from + s.at);
        s.at += 4;
        if (word == 0) {
            return GDS_DECOMPRESS_OK;
        }
        const gds_u64 size = word & 0x7FFFFFFFu;
        if (size > block_max) {
            return GDS_DECOMPRESS_HEADER;
        }
        if (size > s.from_size - s.at) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        const gds_u64 end = s.at + size;
        const gds_u64 first = independent ? s.done + s.size : 0;
        const unsigned status = (word & 0x80000000u) != 0 ? gds_literals(s, end, size)
                                                          : gds_lz4_block(s, end, first);
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
    }
}

/* One tag, whatever it is. */
GDS_FN unsigned gds_snappy_tag(gds_decompress_state &s)
{
    const gds_tag made = gds_tag_at(s.from, s.from_size, s.at, false);
    if (s.from_size - s.at < made.head) {
        s.at++;
        return GDS_DECOMPRESS_TRUNCATED;
    }
    s.at += made.head;
    return made.is_literal ? gds_literals(s, s.from_size, gds_size_of(made))
                           : gds_match(s, 0, made.offset, gds_size_of(made));
}

/* Adds the tags that begin in the next 32 bytes to the batch, as many as fit. False when the next
 * one is not for a batch: it is long, or it is wrong. */
GDS_FN bool gds_window(gds_decompress_state &s)
{
    /* Less than there are, where there are many: what is far goes for itself. */
    constexpr gds_u64 FAR = 0xFFFF0000ull;
    const gds_u64 input = s.from_size - s.at, output = s.done + s.size;
    const unsigned left = (unsigned)(input < FAR ? input : FAR);
    const unsigned done = (unsigned)(output < FAR ? output : FAR);
    const unsigned room = (unsigned)(s.to_size - output < FAR ? s.to_size - output : FAR);
    gds_each<gds_tag> tags;
    gds_each<unsigned> next, sizes, before;
    gds_ask(s.from + s.at + GDS_AHEAD, s.from + s.from_size);
    GDS_FOR_LANES(lane)
    {
        const gds_tag tag = gds_tag_at(s.from, s.from_size, s.at + lane, left >= GDS_LANES + 8);
        const unsigned size = tag.more + 1;
        const unsigned behind = lane + tag.head + (tag.is_literal ? size : 0);
        const bool is_short = tag.more < GDS_LONG - 1;
        /* Nothing follows what is not for a batch, nor the end. */
        next[lane] = is_short && behind <= left ? behind : GDS_NO_TAG;
        sizes[lane] = is_short ? size : 0;
        tags[lane] = tag;
    }
    const unsigned all = left < GDS_LANES ? gds_below(left) : 0xFFFFFFFFu;
    const unsigned chain = gds_chain(next) & all;
    GDS_FOR_LANES(lane)
    {
        sizes[lane] = (chain >> lane & 1) != 0 ? sizes[lane] : 0;
    }
    gds_sums_before(sizes, before);
    gds_each<bool> is_good, is_taken;
    GDS_FOR_LANES(lane)
    {
        const gds_tag &tag = tags[lane];
        const unsigned rank = gds_count(chain & gds_below(lane));
        is_good[lane] =
            next[lane] != GDS_NO_TAG && before[lane] + sizes[lane] <= room &&
            (tag.is_literal || (tag.offset != 0 && tag.offset <= done + before[lane]));
        is_taken[lane] = is_good[lane] && s.count + rank < GDS_ELEMENTS &&
                         s.size + before[lane] + sizes[lane] <= GDS_BATCH;
    }
    const unsigned good = gds_ballot(is_good), refused = chain & ~gds_ballot(is_taken);
    const unsigned taken = refused == 0 ? chain : chain & gds_below(gds_lowest(refused));
    GDS_FOR_LANES(lane)
    {
        if ((taken >> lane & 1) != 0) {
            const gds_tag &tag = tags[lane];
            const unsigned element = s.count + gds_count(taken & gds_below(lane));
            const unsigned begin = s.size + before[lane];
            gds_own(s.batch).literal[element] =
                reinterpret_cast<gds_u64>(s.from + s.at + lane + tag.head) - begin;
            gds_own(s.batch).offset[element] = tag.is_literal ? 0 : tag.offset;
            gds_own(s.batch).begin[element] = begin;
        }
    }
    if (taken != 0) {
        const unsigned last = gds_highest(taken);
        s.count += gds_count(taken);
        s.size += gds_of_lane(before, last) + gds_of_lane(sizes, last);
        s.at += gds_of_lane(next, last);
    }
    if (refused != 0 && (good >> gds_lowest(refused) & 1) != 0) {
        gds_flush(s);
        return true;
    }
    return refused == 0;
}

/* Tags up to the end. */
GDS_FN unsigned gds_snappy_tags(gds_decompress_state &s)
{
    while (s.at < s.from_size) {
        if (gds_window(s)) {
            continue;
        }
        const unsigned status = gds_snappy_tag(s);
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
    }
    return GDS_DECOMPRESS_OK;
}

/* A length and tags. */
GDS_FN unsigned gds_snappy(gds_decompress_state &s)
{
    gds_u64 promised;
    const unsigned status = gds_snappy_length(s.from, s.from_size, s.at, promised);
    if (status != GDS_DECOMPRESS_OK) {
        return status;
    }
    if (promised != s.to_size) {
        return promised > s.to_size ? GDS_DECOMPRESS_TOO_LONG : GDS_DECOMPRESS_TOO_SHORT;
    }
    return gds_snappy_tags(s);
}

/* A chunk, by all lanes of a warp. */
GDS_FN void gds_decompress_one(gds_decompress_chunk &chunk, gds_batch *batch)
{
    gds_decompress_state s;
    s.from = reinterpret_cast<const unsigned char *>(chunk.from);
    s.to = reinterpret_cast<unsigned char *>(chunk.to);
    s.from_size = chunk.from_size;
    s.to_size = chunk.to_size;
    s.at = 0;
    s.done = 0;
    s.batch = batch;
    s.count = 0;
    s.size = 0;
    unsigned status = GDS_DECOMPRESS_UNSUPPORTED;
    if (chunk.codec == GDS_DECOMPRESS_LZ4_BLOCK) {
        status = gds_lz4_block(s, s.from_size, 0);
    } else if (chunk.codec == GDS_DECOMPRESS_LZ4_FRAME) {
        status = gds_lz4_frame(s);
    } else if (chunk.codec == GDS_DECOMPRESS_SNAPPY) {
        status = gds_snappy(s);
    } else if (chunk.codec == GDS_DECOMPRESS_SNAPPY_PART) {
        status = gds_snappy_tags(s);
    }
    if (status == GDS_DECOMPRESS_OK) {
        gds_flush(s);
    }
    if (status == GDS_DECOMPRESS_OK && s.done < s.to_size) {
        status = GDS_DECOMPRESS_TOO_SHORT;
    }
    if (status == GDS_DECOMPRESS_OK && s.at < s.from_size) {
        status = GDS_DECOMPRESS_TRAILING;
    }
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            chunk.status = status;
            chunk.at = s.at;
        }
    }
}

} // namespace

#ifdef __CUDACC__

/* The number that this warp shall do next. */
static __device__ gds_u64 gds_take(gds_u64 next)
{
    gds_u64 mine = 0;
    if (GDS_LANE == 0) {
        mine = atomicAdd(reinterpret_cast<gds_u64 *>(next), 1ull);
    }
    return __shfl_sync(0xffffffffu, mine, 0);
}

/* Any grid; blocks of whole warps. */
extern "C" __global__ void __launch_bounds__(GDS_THREADS)
    gds_decompress_chunks(gds_decompress_work work)
{
    gds_decompress_chunk *chunks = reinterpret_cast<gds_decompress_chunk *>(work.chunks);
    for (gds_u64 mine = gds_take(work.next); mine < work.count - work.wholes;
         mine = gds_take(work.next)) {
        gds_decompress_one(chunks[work.wholes + mine], nullptr);
    }
}

/* The same; before that, where there are chunks to be taken apart. */
extern "C" __global__ void __launch_bounds__(GDS_THREADS)
    gds_decompress_split(gds_decompress_work work)
{
    gds_decompress_chunk *chunks = reinterpret_cast<gds_decompress_chunk *>(work.chunks);
    for (gds_u64 mine = gds_take(work.next + 8); mine < work.wholes;
         mine = gds_take(work.next + 8)) {
        gds_split(chunks, work.count, mine);
    }
}

#else

extern "C" void gds_decompress_chunks_on_host(const gds_decompress_work *work)
{
    gds_decompress_chunk *chunks = reinterpret_cast<gds_decompress_chunk *>(work->chunks);
    for (gds_u64 i = 0; i < work->wholes; i++) {
        gds_split(chunks, work->count, i);
    }
    for (gds_u64 i = work->wholes; i < work->count; i++) {
        gds_batch batch;
        gds_decompress_one(chunks[i], &batch);
    }
}

#endif
