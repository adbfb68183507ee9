/*
 * LZ4 blocks, LZ4 frames and Snappy, many chunks of memory in one launch.
 *
 * A chunk belongs to one warp. All lanes read the same tokens, so they agree on what comes next
 * without asking each other, and share the bytes of each copy. A match that overlaps itself repeats
 * the bytes before it, so every byte of it has a source that was written before the match began:
 * the lanes need to wait for each other once a match, never within one.
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

#ifdef __CUDACC__
#define GDS_FN static __device__ __forceinline__
#else
#define GDS_FN static inline
#endif

typedef unsigned long long gds_u64;

enum gds_decompress_codec {
    GDS_DECOMPRESS_LZ4_BLOCK = 1,
    GDS_DECOMPRESS_LZ4_FRAME = 2,
    GDS_DECOMPRESS_SNAPPY = 3,
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
    /* Address of a word that is 0: the next chunk that nobody has. */
    gds_u64 next;
};

static_assert(sizeof(gds_decompress_chunk) == 48, "shared with Rust");
static_assert(sizeof(gds_decompress_work) == 24, "shared with Rust");

namespace {

constexpr unsigned GDS_LANES = 32;

/* A chunk in work. */
struct gds_decompress_state {
    const unsigned char *from;
    unsigned char *to;
    gds_u64 from_size;
    gds_u64 to_size;
    /* Bytes read and written so far. */
    gds_u64 at;
    gds_u64 done;
    unsigned lane;
};

#ifdef __CUDACC__
#define GDS_FOR_LANES(state) const unsigned lane = (state).lane;
#else
#define GDS_FOR_LANES(state) for (unsigned lane = 0; lane < GDS_LANES; lane++)
#endif

/* Puts `size` bytes of the input behind the output. */
GDS_FN unsigned gds_literals(gds_decompress_state &s, gds_u64 end, gds_u64 size)
{
    if (size > end - s.at) {
        return GDS_DECOMPRESS_TRUNCATED;
    }
    if (size > s.to_size - s.done) {
        return GDS_DECOMPRESS_TOO_LONG;
    }
    const unsigned char *from = s.from + s.at;
    unsigned char *to = s.to + s.done;
    GDS_FOR_LANES(s)
    {
        for (gds_u64 i = lane; i < size; i += GDS_LANES) {
            to[i] = from[i];
        }
    }
    s.at += size;
    s.done += size;
    return GDS_DECOMPRESS_OK;
}

/* Repeats what lies `offset` bytes back, not before `first`. */
GDS_FN unsigned gds_match(gds_decompress_state &s, gds_u64 first, gds_u64 offset, gds_u64 size)
{
    if (offset == 0 || offset > s.done - first) {
        return GDS_DECOMPRESS_OFFSET;
    }
    if (size > s.to_size - s.done) {
        return GDS_DECOMPRESS_TOO_LONG;
    }
    unsigned char *to = s.to + s.done;
    const unsigned char *back = to - offset;
#ifdef __CUDACC__
    /* What the other lanes wrote is there. */
    __syncwarp();
#endif
    GDS_FOR_LANES(s)
    {
        if (offset >= size) {
            for (gds_u64 i = lane; i < size; i += GDS_LANES) {
                to[i] = back[i];
            }
        } else {
            const unsigned period = (unsigned)offset;
            unsigned place = lane % period;
            const unsigned step = GDS_LANES % period;
            for (gds_u64 i = lane; i < size; i += GDS_LANES) {
                to[i] = back[place];
                place += step;
                place -= place >= period ? period : 0;
            }
        }
    }
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
        const gds_u64 first = independent ? s.done : 0;
        const unsigned status = (word & 0x80000000u) != 0 ? gds_literals(s, end, size)
                                                          : gds_lz4_block(s, end, first);
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
    }
}

GDS_FN unsigned gds_snappy(gds_decompress_state &s)
{
    gds_u64 promised = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (s.at >= s.from_size) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        const unsigned byte = s.from[s.at++];
        promised |= (gds_u64)(byte & 127) << shift;
        if (byte < 128) {
            break;
        }
        if (shift == 28) {
            return GDS_DECOMPRESS_HEADER;
        }
    }
    if (promised != s.to_size) {
        return promised > s.to_size ? GDS_DECOMPRESS_TOO_LONG : GDS_DECOMPRESS_TOO_SHORT;
    }
    while (s.at < s.from_size) {
        const unsigned tag = s.from[s.at++];
        const gds_u64 left = s.from_size - s.at;
        const unsigned kind = tag & 3, upper = tag >> 2;
        const unsigned long_bytes = kind == 0 && upper >= 60 ? upper - 59 : 0;
        /* Bytes behind the tag, before literals: 1 << (kind - 1) of a match's offset. */
        const unsigned extra = kind == 0 ? long_bytes : kind == 3 ? 4 : kind;
        if (left < extra) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        gds_u64 value = 0;
        for (unsigned i = 0; i < extra; i++) {
            value |= (gds_u64)s.from[s.at + i] << (8 * i);
        }
        s.at += extra;
        unsigned status;
        if (kind == 0) {
            status = gds_literals(s, s.from_size, (long_bytes != 0 ? value : upper) + 1);
        } else if (kind == 1) {
            status = gds_match(s, 0, value | (gds_u64)(tag >> 5) << 8, (upper & 7) + 4);
        } else {
            status = gds_match(s, 0, value, upper + 1);
        }
        if (status != GDS_DECOMPRESS_OK) {
            return status;
        }
    }
    return GDS_DECOMPRESS_OK;
}

/* A chunk, by all lanes of a warp. */
GDS_FN void gds_decompress_one(gds_decompress_chunk &chunk, unsigned lane)
{
    gds_decompress_state s;
    s.from = reinterpret_cast<const unsigned char *>(chunk.from);
    s.to = reinterpret_cast<unsigned char *>(chunk.to);
    s.from_size = chunk.from_size;
    s.to_size = chunk.to_size;
    s.at = 0;
    s.done = 0;
    s.lane = lane;
    unsigned status = GDS_DECOMPRESS_UNSUPPORTED;
    if (chunk.codec == GDS_DECOMPRESS_LZ4_BLOCK) {
        status = gds_lz4_block(s, s.from_size, 0);
    } else if (chunk.codec == GDS_DECOMPRESS_LZ4_FRAME) {
        status = gds_lz4_frame(s);
    } else if (chunk.codec == GDS_DECOMPRESS_SNAPPY) {
        status = gds_snappy(s);
    }
    if (status == GDS_DECOMPRESS_OK && s.done < s.to_size) {
        status = GDS_DECOMPRESS_TOO_SHORT;
    }
    if (status == GDS_DECOMPRESS_OK && s.at < s.from_size) {
        status = GDS_DECOMPRESS_TRAILING;
    }
    if (lane == 0) {
        chunk.status = status;
        chunk.at = s.at;
    }
}

} // namespace

#ifdef __CUDACC__

/* Any grid; blocks of whole warps. */
extern "C" __global__ void __launch_bounds__(128) gds_decompress_chunks(gds_decompress_work work)
{
    const unsigned lane = threadIdx.x % GDS_LANES;
    gds_decompress_chunk *chunks = reinterpret_cast<gds_decompress_chunk *>(work.chunks);
    for (;;) {
        gds_u64 mine = 0;
        if (lane == 0) {
            mine = atomicAdd(reinterpret_cast<gds_u64 *>(work.next), 1ull);
        }
        mine = __shfl_sync(0xffffffffu, mine, 0);
        if (mine >= work.count) {
            return;
        }
        gds_decompress_one(chunks[mine], lane);
    }
}

#else

extern "C" void gds_decompress_chunks_on_host(const gds_decompress_work *work)
{
    gds_decompress_chunk *chunks = reinterpret_cast<gds_decompress_chunk *>(work->chunks);
    for (gds_u64 i = 0; i < work->count; i++) {
        gds_decompress_one(chunks[i], 0);
    }
}

#endif
