/*
 * What the kernels that decode Parquet pages share: the descriptors, bytes and bits at any address,
 * the hybrid of runs and packed bits, and packed deltas.
 *
 * A page belongs to one warp. All lanes read the same headers, so they agree on what comes next
 * without asking each other, and share the values. Nothing of a page is believed: every read stays
 * in the page, every write in what the host gave it. A page that breaks a rule has a status and the
 * place, and its values are unspecified.
 *
 * Formats: github.com/apache/parquet-format Encodings.md.
 */
#ifndef GDS_PARQUET_CUH
#define GDS_PARQUET_CUH

#include "warp.cuh"

enum gds_parquet_encoding {
    GDS_PARQUET_PLAIN = 0,
    /* PLAIN_DICTIONARY and RLE_DICTIONARY: a width, then indices. */
    GDS_PARQUET_DICTIONARY = 1,
    /* Booleans. */
    GDS_PARQUET_RLE = 2,
    GDS_PARQUET_DELTA_BINARY_PACKED = 3,
    GDS_PARQUET_DELTA_LENGTH_BYTE_ARRAY = 4,
    GDS_PARQUET_BYTE_STREAM_SPLIT = 5,
    GDS_PARQUET_DELTA_BYTE_ARRAY = 6,
};

/* From what stands in the page to what stands in the column. */
enum gds_parquet_conversion {
    /* The bytes as they are; a column that is narrower than the page takes the lower ones. */
    GDS_PARQUET_COPY = 0,
    /* Little-endian integers, wider in the column: the sign is repeated. */
    GDS_PARQUET_WIDEN = 1,
    /* Big-endian integers of any width to little-endian wider ones. */
    GDS_PARQUET_BIG_ENDIAN = 2,
    /* INT96: nanoseconds of the day and a Julian day, to nanoseconds since 1970. */
    GDS_PARQUET_INT96 = 3,
    /* One bit each. */
    GDS_PARQUET_BITS = 4,
    /* Lengths and bytes: see gds_parquet_gather. */
    GDS_PARQUET_BYTES = 5,
};

enum gds_parquet_status {
    GDS_PARQUET_OK = 0,
    /* The page ends in the middle of something. */
    GDS_PARQUET_TRUNCATED = 1,
    /* A run of no values, or a width that cannot be. */
    GDS_PARQUET_RUN = 2,
    /* An index that the dictionary has not. */
    GDS_PARQUET_INDEX = 3,
    /* The header of packed deltas is none. */
    GDS_PARQUET_DELTAS = 4,
    /* A length that is negative, or bytes that pass what an offset can say. */
    GDS_PARQUET_LENGTH = 5,
    /* Right, but not for these kernels. */
    GDS_PARQUET_UNSUPPORTED = 6,
};

/* A data page or, as its own column of PLAIN values, a dictionary. The layout is
 * `device::ParquetPage` of the Rust side. */
struct gds_parquet_page {
    /* Decompressed bytes. In version 1, where there are levels, those come first. */
    gds_u64 data;
    gds_u64 data_size;
    /* Definition levels of version 2, or 0. */
    gds_u64 levels;
    gds_u64 levels_size;
    /* Which column of the work. */
    unsigned column;
    /* A gds_parquet_encoding. */
    unsigned encoding;
    /* Values, nulls included. */
    unsigned values;
    /* Whether the column has definition levels, of one bit, in this page. 2: they were read
     * before, `present` is known and the bitmap is there. */
    unsigned has_levels;
    /* Place of the first value in the column. */
    gds_u64 first;
    /* Address of 8 bytes a value for what is in between, of a bit a value in words of 8 bytes for
     * bits, or 0 where nothing is. For strings 8 more for each GDS_MARK values, and 8: the bytes of
     * the strings before those. */
    gds_u64 scratch;
    /* For gds_parquet_gather: bytes of the column's strings before this page. */
    gds_u64 bytes_before;
    /* Written: bytes of the page's strings. */
    gds_u64 bytes;
    /* Written: values that are not null. */
    unsigned present;
    /* Written: a gds_parquet_status. 0 before. */
    unsigned status;
    /* Written: where in the page it went wrong, or where the values begin; with
     * DELTA_BYTE_ARRAY, once expanded, where they end. */
    gds_u64 at;
};

/* Where the values of pages go. The layout is `device::ParquetColumn` of the Rust side. */
struct gds_parquet_column {
    /* Address of the values, or of the bytes of strings. */
    gds_u64 values;
    /* Address of the validity bitmap, in whole words that are 0 before; 0 without nulls. */
    gds_u64 validity;
    /* Address of 32-bit offsets of strings, one more than values; 0 for others. */
    gds_u64 offsets;
    /* The dictionary: address of its values as they stand in its page, or of
     * gds_parquet_string for strings, and how many. */
    gds_u64 dictionary;
    gds_u64 dictionary_count;
    /* Address of the bytes that strings of the dictionary point into. */
    gds_u64 dictionary_bytes;
    /* A gds_parquet_conversion. */
    unsigned conversion;
    /* Bytes of a value in the page, and in the column. */
    unsigned width_in;
    unsigned width_out;
    unsigned reserved;
};

/* A string of a page or dictionary: where its bytes begin, and how many there are. */
struct gds_parquet_string {
    unsigned at;
    unsigned size;
};

/* What is to be done. The layout is `device::ParquetWork` of the Rust side. */
struct gds_parquet_work {
    gds_u64 pages;
    gds_u64 page_count;
    gds_u64 columns;
    gds_u64 column_count;
    /* Address of a word that is 0: the next page, or part of one, that nobody has. */
    gds_u64 next;
    /* Parts of a page, each of which a warp does for itself; 0 as 1. For gds_parquet_values and
     * gds_parquet_gather. */
    gds_u64 parts;
};

static_assert(sizeof(gds_parquet_page) == 96, "shared with Rust");
static_assert(sizeof(gds_parquet_column) == 64, "shared with Rust");
static_assert(sizeof(gds_parquet_work) == 48, "shared with Rust");

namespace {

/* Values from one mark of strings to the next. */
constexpr unsigned GDS_MARK = 512;
/* How far ahead of what is read in turn a page is asked for, bytes. */
constexpr unsigned GDS_AHEAD = 512;

/* Bytes of a page and how far they were read. */
struct gds_reader {
    const unsigned char *bytes;
    gds_u64 size;
    gds_u64 at;
};

GDS_FN gds_u64 gds_left(const gds_reader &r)
{
    return r.size - r.at;
}

GDS_FN unsigned gds_load32(const unsigned char *p)
{
    return p[0] | (unsigned)p[1] << 8 | (unsigned)p[2] << 16 | (unsigned)p[3] << 24;
}

GDS_FN void gds_or(gds_u64 words, gds_u64 word, unsigned bits)
{
    unsigned *at = reinterpret_cast<unsigned *>(words) + word;
    if (bits != 0) {
#ifdef __CUDACC__
        /* Pages share the words where they meet. */
        atomicOr(at, bits);
#else
        *at |= bits;
#endif
    }
}

/* `count` bits (32 at most) from bit `bit` of a bitmap of words on. */
GDS_FN unsigned gds_bitmap(gds_u64 words, gds_u64 bit, unsigned count)
{
    const unsigned *at = reinterpret_cast<const unsigned *>(words) + bit / 32;
    const unsigned skip = (unsigned)(bit % 32);
    unsigned bits = at[0] >> skip;
    if (skip + count > 32) {
        bits |= at[1] << (32 - skip);
    }
    return count == 32 ? bits : bits & ((1u << count) - 1);
}

/* The sum of what the lanes have; on the processor one variable has it already. */
template <typename T> GDS_FN T gds_total(T mine)
{
#ifdef __CUDACC__
    for (unsigned step = GDS_LANES / 2; step > 0; step /= 2) {
        mine += __shfl_xor_sync(0xffffffffu, mine, step);
    }
#endif
    return mine;
}

/* Four bytes at any address. Reads the aligned words that they lie in. */
GDS_FN unsigned gds_word_at(const unsigned char *p)
{
#ifdef __CUDACC__
    const gds_u64 address = reinterpret_cast<gds_u64>(p);
    const unsigned *words = reinterpret_cast<const unsigned *>(address & ~3ull);
    const unsigned skip = 8 * (unsigned)(address & 3);
    return skip == 0 ? words[0] : __funnelshift_r(words[0], words[1], skip);
#else
    return gds_load32(p);
#endif
}

/* A number of 7 bits a byte. */
GDS_FN unsigned gds_varint(gds_reader &r, gds_u64 &value)
{
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r.at >= r.size) {
            return GDS_PARQUET_TRUNCATED;
        }
        const unsigned byte = r.bytes[r.at++];
        value |= (gds_u64)(byte & 127) << shift;
        if (byte < 128) {
            return GDS_PARQUET_OK;
        }
    }
    return GDS_PARQUET_RUN;
}

GDS_FN gds_u64 gds_unzigzag(gds_u64 value)
{
    return (value >> 1) ^ (0 - (value & 1));
}

/* `width` bits (at most 64) from bit `bit` on, of which the page has all. Reads the aligned words
 * that they lie in. */
GDS_FN gds_u64 gds_bits(const unsigned char *bytes, gds_u64 bit, unsigned width)
{
#ifdef __CUDACC__
    const gds_u64 address = reinterpret_cast<gds_u64>(bytes) + bit / 8;
    const unsigned *words = reinterpret_cast<const unsigned *>(address & ~3ull);
    const unsigned skip = 8 * (unsigned)(address & 3) + (unsigned)(bit % 8);
    if (width == 0) {
        return 0;
    }
    const unsigned first = words[0];
    const unsigned second = skip + width > 32 ? words[1] : 0;
    const unsigned low = __funnelshift_r(first, second, skip);
    if (width <= 32) {
        return width == 32 ? low : low & ((1u << width) - 1);
    }
    const unsigned third = skip + width > 64 ? words[2] : 0;
    const gds_u64 value = low | (gds_u64)__funnelshift_r(second, third, skip) << 32;
    return width == 64 ? value : value & ((1ull << width) - 1);
#else
    gds_u64 value = 0;
    const unsigned skip = (unsigned)(bit % 8);
    for (unsigned i = 0; 8 * i < skip + width; i++) {
        const gds_u64 byte = bytes[bit / 8 + i];
        value |= i == 0 ? byte >> skip : 8 * i - skip < 64 ? byte << (8 * i - skip) : 0;
    }
    return width == 64 ? value : value & ((1ull << width) - 1);
#endif
}

/* A run of the hybrid of runs and packed bits (Encodings.md, RLE). */
struct gds_run {
    /* Values of it that are wanted. */
    gds_u64 count;
    /* Where its packed bits begin, when it is packed. */
    gds_u64 packed_at;
    unsigned value;
    bool packed;
};

/* The next run, of `wanted` values at most, more than 0. */
GDS_FN unsigned gds_next_run(gds_reader &r, unsigned width, gds_u64 wanted, gds_run &run)
{
    gds_u64 header;
    const unsigned status = gds_varint(r, header);
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    const gds_u64 count = header >> 1;
    if (count == 0 || count > 0xFFFFFFFFu) {
        return GDS_PARQUET_RUN;
    }
    run.packed = (header & 1) != 0;
    run.packed_at = r.at;
    run.value = 0;
    if (!run.packed) {
        const unsigned bytes = (width + 7) / 8;
        if (gds_left(r) < bytes) {
            return GDS_PARQUET_TRUNCATED;
        }
        for (unsigned i = 0; i < bytes; i++) {
            run.value |= (unsigned)r.bytes[r.at + i] << (8 * i);
        }
        r.at += bytes;
        run.count = count < wanted ? count : wanted;
        return GDS_PARQUET_OK;
    }
    run.count = 8 * count < wanted ? 8 * count : wanted;
    /* Some writers leave the padding of the last group out. */
    if (gds_left(r) < (run.count * width + 7) / 8) {
        return GDS_PARQUET_TRUNCATED;
    }
    const gds_u64 bytes = count * width;
    r.at += bytes < gds_left(r) ? bytes : gds_left(r);
    return GDS_PARQUET_OK;
}

/* Calls `put(place, look(value))` for `count` values of that hybrid. Several values are looked up
 * before any is put, so that a lane waits for all of them at once. */
template <typename Look, typename Put>
GDS_FN unsigned gds_expand_runs(gds_reader &r, unsigned width, gds_u64 count, Look look, Put put)
{
    constexpr unsigned AT_ONCE = 4;
    for (gds_u64 done = 0; done < count;) {
        gds_run run;
        gds_ask(r.bytes + r.at + GDS_AHEAD, r.bytes + r.size);
        const unsigned status = gds_next_run(r, width, count - done, run);
        if (status != GDS_PARQUET_OK) {
            return status;
        }
        GDS_FOR_LANES(lane)
        {
            for (gds_u64 first = lane; first < run.count; first += AT_ONCE * GDS_LANES) {
                unsigned values[AT_ONCE];
                gds_u64 found[AT_ONCE];
                GDS_UNROLL
                for (unsigned n = 0; n < AT_ONCE; n++) {
                    const gds_u64 i = first + n * GDS_LANES;
                    values[n] = run.value;
                    if (run.packed && i < run.count) {
                        values[n] =
                            (unsigned)gds_bits(r.bytes, 8 * run.packed_at + i * width, width);
                    }
                }
                GDS_UNROLL
                for (unsigned n = 0; n < AT_ONCE; n++) {
                    found[n] = first + n * GDS_LANES < run.count ? look(values[n]) : 0;
                }
                GDS_UNROLL
                for (unsigned n = 0; n < AT_ONCE; n++) {
                    if (first + n * GDS_LANES < run.count) {
                        put(done + first + n * GDS_LANES, found[n]);
                    }
                }
            }
        }
        done += run.count;
    }
    return GDS_PARQUET_OK;
}

/* Puts `count` values of that hybrid, of a bit each, one behind the other into words of 32. */
GDS_FN unsigned gds_expand_bits(gds_reader &r, gds_u64 count, gds_u64 words)
{
    unsigned *all = reinterpret_cast<unsigned *>(words);
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 word = lane; GDS_LANES * word < count; word += GDS_LANES) {
            all[word] = 0;
        }
    }
    GDS_SYNC();
    for (gds_u64 done = 0; done < count;) {
        gds_run run;
        gds_ask(r.bytes + r.at + GDS_AHEAD, r.bytes + r.size);
        const unsigned status = gds_next_run(r, 1, count - done, run);
        if (status != GDS_PARQUET_OK) {
            return status;
        }
        GDS_FOR_LANES(lane)
        {
            for (gds_u64 i = 32 * lane; i < run.count; i += 32 * GDS_LANES) {
                const unsigned here = run.count - i < 32 ? (unsigned)(run.count - i) : 32;
                unsigned bits = (run.value & 1) != 0 ? 0xFFFFFFFFu >> (32 - here) : 0;
                if (run.packed) {
                    bits = (unsigned)gds_bits(r.bytes, 8 * run.packed_at + i, here);
                }
                const unsigned over = (unsigned)((done + i) % 32);
                gds_or(words, (done + i) / 32, bits << over);
                gds_or(words, (done + i) / 32 + 1, over == 0 ? 0 : bits >> (32 - over));
            }
        }
        done += run.count;
    }
    return GDS_PARQUET_OK;
}

/* Calls `put(place, sum)` for 32 places from `first` on, not past `end`: the sum of `carry` and of
 * `get` from `first` to that place, itself included. `carry` becomes the last sum. */
template <typename Get, typename Put>
GDS_FN void gds_sums(gds_u64 first, gds_u64 end, gds_u64 &carry, Get get, Put put)
{
#ifdef __CUDACC__
    const gds_u64 place = first + threadIdx.x % GDS_LANES;
    gds_u64 sum = place < end ? get(place) : 0;
    for (unsigned step = 1; step < GDS_LANES; step *= 2) {
        const gds_u64 before = __shfl_up_sync(0xffffffffu, sum, step);
        sum += threadIdx.x % GDS_LANES >= step ? before : 0;
    }
    if (place < end) {
        put(place, carry + sum);
    }
    carry += __shfl_sync(0xffffffffu, sum, GDS_LANES - 1);
#else
    for (gds_u64 place = first; place < end && place < first + GDS_LANES; place++) {
        carry += get(place);
        put(place, carry);
    }
#endif
}

/* Calls `put(place, value)` for `count` values of packed deltas (Encodings.md,
 * DELTA_BINARY_PACKED), and leaves the reader behind them. Sums wrap. */
template <typename Put>
GDS_FN unsigned gds_expand_deltas(gds_reader &r, gds_u64 count, Put put)
{
    gds_u64 block, minis, total, value;
    if (gds_varint(r, block) != GDS_PARQUET_OK || gds_varint(r, minis) != GDS_PARQUET_OK ||
        gds_varint(r, total) != GDS_PARQUET_OK || gds_varint(r, value) != GDS_PARQUET_OK) {
        return GDS_PARQUET_DELTAS;
    }
    if (block == 0 || block % 128 != 0 || block > (1u << 20) || minis == 0 || block % minis != 0 ||
        block / minis % 32 != 0 || total != count) {
        return GDS_PARQUET_DELTAS;
    }
    value = gds_unzigzag(value);
    if (count == 0) {
        return GDS_PARQUET_OK;
    }
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            put(0, value);
        }
    }
    const gds_u64 per_mini = block / minis;
    for (gds_u64 done = 1; done < count;) {
        gds_u64 least;
        if (gds_varint(r, least) != GDS_PARQUET_OK || gds_left(r) < minis) {
            return GDS_PARQUET_TRUNCATED;
        }
        least = gds_unzigzag(least);
        const gds_u64 widths_at = r.at;
        r.at += minis;
        for (gds_u64 mini = 0; mini < minis && done < count; mini++) {
            const unsigned width = r.bytes[widths_at + mini];
            const gds_u64 here = per_mini < count - done ? per_mini : count - done;
            if (width > 64) {
                return GDS_PARQUET_DELTAS;
            }
            if (gds_left(r) < (here * width + 7) / 8) {
                return GDS_PARQUET_TRUNCATED;
            }
            const gds_u64 bits_at = 8 * r.at, first = done;
            for (gds_u64 i = 0; i < here; i += GDS_LANES) {
                gds_sums(
                    done + i, done + here, value,
                    [&](gds_u64 place) {
                        const gds_u64 bit = bits_at + (place - first) * width;
                        return least + gds_bits(r.bytes, bit, width);
                    },
                    put);
            }
            done += here;
            const gds_u64 bytes = per_mini * width / 8;
            r.at += bytes < gds_left(r) ? bytes : gds_left(r);
        }
    }
    return GDS_PARQUET_OK;
}

} // namespace

#endif
