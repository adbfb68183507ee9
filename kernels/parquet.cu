/*
 * Parquet pages to columns in the layout of Arrow, flat ones, in four launches:
 *
 * 1. gds_parquet_levels: definition levels to the validity bitmap, and how many values there are;
 * 2. gds_parquet_expand: what has to be read from its beginning (indices, deltas, lengths) to
 *    8 bytes a value of scratch memory, and the bytes of strings of each page;
 * 3. gds_parquet_values: values to their places; or
 * 4. gds_parquet_gather: offsets and bytes of strings, once the host has added the sizes up.
 *
 * Columns inside of lists and structs have their levels read before (parquet_nested.cuh).
 *
 * Compiled as PTX that the library embeds (scripts/build-kernels), and for the processor, where a
 * loop stands for the lanes of a warp (tests/device_kernel_parquet.rs).
 */

#include "parquet_nested.cuh"
#include "parquet_prefixes.cuh"

namespace {

GDS_FN gds_reader gds_values_of(const gds_parquet_page &page)
{
    return gds_reader{reinterpret_cast<const unsigned char *>(page.data), page.data_size, page.at};
}

/* What a lane tells of the page: the others agree. */
GDS_FN void gds_tell(gds_parquet_page &page, unsigned status, gds_u64 at)
{
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        if (lane == 0 && status != GDS_PARQUET_OK) {
            page.status = status;
            page.at = at;
        }
    }
}

/* Bits of a run, of one value at least, from bit `begin` on. How many are set. */
GDS_FN unsigned gds_put_levels(const gds_reader &r, const gds_run &run, gds_u64 validity,
                               gds_u64 begin)
{
    const gds_u64 end = begin + run.count;
    unsigned set = 0;
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 word = begin / 32 + lane; 32 * word < end; word += GDS_LANES) {
            const gds_u64 low = 32 * word > begin ? 32 * word : begin;
            const gds_u64 high = 32 * word + 32 < end ? 32 * word + 32 : end;
            const unsigned count = (unsigned)(high - low);
            unsigned bits = run.value != 0 ? 0xFFFFFFFFu >> (32 - count) : 0;
            if (run.packed) {
                const gds_u64 bit = 8 * run.packed_at + (low - begin);
                bits = (unsigned)gds_bits(r.bytes, r.size, bit, count);
            }
            set += gds_count(bits);
            gds_or(validity, word, bits << (low - 32 * word));
        }
    }
    return set;
}

GDS_FN void gds_levels(gds_parquet_page &page, const gds_parquet_column &column)
{
    if (page.has_levels == 2) {
        return;
    }
    gds_reader r = {reinterpret_cast<const unsigned char *>(page.levels), page.levels_size, 0};
    gds_u64 values_at = 0;
    unsigned present = page.values;
    if (page.has_levels != 0) {
        if (page.levels == 0) {
            const unsigned char *data = reinterpret_cast<const unsigned char *>(page.data);
            if (page.data_size < 4 || page.data_size - 4 < gds_load32(data)) {
                gds_tell(page, GDS_PARQUET_TRUNCATED, 0);
                return;
            }
            r = gds_reader{data + 4, gds_load32(data), 0};
            values_at = 4 + r.size;
        }
        unsigned set = 0;
        for (gds_u64 done = 0; done < page.values;) {
            gds_run run;
            unsigned status = gds_next_run(r, 1, page.values - done, run);
            if (status == GDS_PARQUET_OK && run.value > 1) {
                status = GDS_PARQUET_RUN;
            }
            if (status != GDS_PARQUET_OK) {
                gds_tell(page, status, r.at);
                return;
            }
            set += gds_put_levels(r, run, column.validity, page.first + done);
            done += run.count;
        }
        present = gds_total(set);
    } else if (column.validity != 0 && page.values != 0) {
        gds_put_levels(r, gds_run{page.values, 0, 1, false}, column.validity, page.first);
    }
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            page.present = present;
            page.at = values_at;
        }
    }
}

/* Indices, checked, or what they stand for when that is a string. */
GDS_FN unsigned gds_expand_indices(gds_reader &r, const gds_parquet_page &page,
                                   const gds_parquet_column &column)
{
    if (page.present == 0) {
        return GDS_PARQUET_OK;
    }
    if (gds_left(r) == 0) {
        return GDS_PARQUET_TRUNCATED;
    }
    const unsigned width = r.bytes[r.at++];
    if (width > 32) {
        return GDS_PARQUET_RUN;
    }
    gds_u64 *scratch = reinterpret_cast<gds_u64 *>(page.scratch);
    const gds_u64 *dictionary = reinterpret_cast<const gds_u64 *>(column.dictionary);
    const bool strings = column.conversion == GDS_PARQUET_BYTES;
    unsigned beyond = 0;
    const unsigned status = gds_expand_runs(r, width, page.present, [&](gds_u64 i, unsigned index) {
        if (index >= column.dictionary_count) {
            beyond++;
            scratch[i] = 0;
        } else {
            scratch[i] = strings ? dictionary[index] : index;
        }
    });
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    return gds_total(beyond) != 0 ? GDS_PARQUET_INDEX : GDS_PARQUET_OK;
}

/* Lengths and bytes in turns. */
GDS_FN unsigned gds_walk_strings(gds_reader &r, const gds_parquet_page &page)
{
    gds_parquet_string *scratch = reinterpret_cast<gds_parquet_string *>(page.scratch);
    for (unsigned i = 0; i < page.present; i++) {
        if (gds_left(r) < 4) {
            return GDS_PARQUET_TRUNCATED;
        }
        const unsigned size = gds_word_at(r.bytes + r.at);
        r.at += 4;
        if (size > gds_left(r)) {
            return GDS_PARQUET_TRUNCATED;
        }
        GDS_FOR_LANES(lane)
        {
            if (lane == i % GDS_LANES) {
                scratch[i] = gds_parquet_string{(unsigned)r.at, size};
            }
        }
        r.at += size;
    }
    return GDS_PARQUET_OK;
}

/* All lengths, then all bytes. */
GDS_FN unsigned gds_place_strings(gds_reader &r, const gds_parquet_page &page)
{
    gds_parquet_string *scratch = reinterpret_cast<gds_parquet_string *>(page.scratch);
    unsigned bad = 0;
    const unsigned status = gds_expand_deltas(r, page.present, [&](gds_u64 i, gds_u64 size) {
        bad += size > 0x7FFFFFFFull;
        scratch[i].size = (unsigned)size;
    });
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    if (gds_total(bad) != 0) {
        return GDS_PARQUET_LENGTH;
    }
    GDS_SYNC();
    gds_u64 end = r.at;
    for (gds_u64 i = 0; i < page.present; i += GDS_LANES) {
        gds_sums(
            i, page.present, end, [&](gds_u64 place) { return (gds_u64)scratch[place].size; },
            [&](gds_u64 place, gds_u64 sum) {
                scratch[place].at = (unsigned)(sum - scratch[place].size);
            });
        if (end > r.size) {
            return GDS_PARQUET_TRUNCATED;
        }
    }
    return GDS_PARQUET_OK;
}

GDS_FN void gds_expand(gds_parquet_page &page, const gds_parquet_column &column)
{
    if (page.status != GDS_PARQUET_OK) {
        return;
    }
    gds_reader r = gds_values_of(page);
    gds_u64 *scratch = reinterpret_cast<gds_u64 *>(page.scratch);
    const bool strings = column.conversion == GDS_PARQUET_BYTES;
    unsigned status = GDS_PARQUET_OK;
    if (page.encoding == GDS_PARQUET_DICTIONARY) {
        status = gds_expand_indices(r, page, column);
    } else if (page.encoding == GDS_PARQUET_RLE) {
        const gds_u64 left = gds_left(r);
        if (page.present == 0) {
            status = GDS_PARQUET_OK;
        } else if (left < 4 || left - 4 < gds_load32(r.bytes + r.at)) {
            status = GDS_PARQUET_TRUNCATED;
        } else {
            r.size = r.at + 4 + gds_load32(r.bytes + r.at);
            r.at += 4;
            status = gds_expand_runs(r, 1, page.present, [&](gds_u64 i, unsigned value) {
                scratch[i] = value;
            });
        }
    } else if (page.encoding == GDS_PARQUET_DELTA_BINARY_PACKED) {
        status = gds_expand_deltas(r, page.present, [&](gds_u64 i, gds_u64 value) {
            scratch[i] = value;
        });
    } else if (page.encoding == GDS_PARQUET_DELTA_LENGTH_BYTE_ARRAY) {
        status = gds_place_strings(r, page);
    } else if (page.encoding == GDS_PARQUET_DELTA_BYTE_ARRAY) {
        status = gds_place_suffixes(r, page);
    } else if (strings) {
        status = gds_walk_strings(r, page);
    }
    gds_u64 bytes = 0;
    if (strings && status == GDS_PARQUET_OK) {
        const gds_parquet_string *placed = reinterpret_cast<gds_parquet_string *>(page.scratch);
        GDS_SYNC();
        for (gds_u64 i = 0; i < page.present; i += GDS_LANES) {
            gds_sums(
                i, page.present, bytes, [&](gds_u64 at) { return (gds_u64)placed[at].size; },
                [](gds_u64, gds_u64) {});
        }
        if (bytes > 0x7FFFFFFFull) {
            /* What prefixes repeat may be right all the same. */
            status = page.encoding == GDS_PARQUET_DELTA_BYTE_ARRAY ? GDS_PARQUET_UNSUPPORTED
                                                                   : GDS_PARQUET_LENGTH;
        }
    }
    gds_tell(page, status, r.at);
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            page.bytes = bytes;
            if (page.encoding == GDS_PARQUET_DELTA_BYTE_ARRAY) {
                page.at = r.at;
            }
        }
    }
}

/* Nanoseconds since 1970. */
GDS_FN gds_u64 gds_nanoseconds(gds_u64 of_day, unsigned julian_day)
{
    return ((gds_u64)julian_day - 2440588ull) * 86400000000000ull + of_day;
}

/* Puts a value of the page, whose bytes `byte` tells, into its place. */
template <typename Byte>
GDS_FN void gds_put_bytes(const gds_parquet_column &column, gds_u64 place, Byte byte)
{
    unsigned char *to = reinterpret_cast<unsigned char *>(column.values) + place * column.width_out;
    const unsigned in = column.width_in, out = column.width_out;
    if (column.conversion == GDS_PARQUET_INT96) {
        gds_u64 words[2] = {0, 0};
        for (unsigned i = 0; i < 12; i++) {
            words[i / 8] |= (gds_u64)byte(i) << (8 * (i % 8));
        }
        *reinterpret_cast<gds_u64 *>(to) = gds_nanoseconds(words[0], (unsigned)words[1]);
        return;
    }
    const bool swap = column.conversion == GDS_PARQUET_BIG_ENDIAN;
    const bool widen = swap || column.conversion == GDS_PARQUET_WIDEN;
    const unsigned top = in == 0 ? 0 : byte(swap ? 0 : in - 1);
    for (unsigned i = 0; i < out; i++) {
        if (i < in) {
            to[i] = (unsigned char)byte(swap ? in - 1 - i : i);
        } else {
            to[i] = widen && top >= 128 ? 255 : 0;
        }
    }
}

/* The same of four or eight bytes as they are: by far the most. */
GDS_FN bool gds_put_words(const gds_parquet_column &column, gds_u64 place,
                          const unsigned char *from)
{
    if (column.conversion != GDS_PARQUET_COPY || column.width_in != column.width_out) {
        return false;
    }
    if (column.width_out == 4) {
        reinterpret_cast<unsigned *>(column.values)[place] = gds_word_at(from);
        return true;
    }
    if (column.width_out == 8) {
        const gds_u64 low = gds_word_at(from), high = gds_word_at(from + 4);
        reinterpret_cast<gds_u64 *>(column.values)[place] = low | high << 32;
        return true;
    }
    return false;
}

/* Bytes that the page must have behind its levels. */
GDS_FN gds_u64 gds_needed(const gds_parquet_page &page, const gds_parquet_column &column)
{
    if (page.encoding == GDS_PARQUET_PLAIN || page.encoding == GDS_PARQUET_BYTE_STREAM_SPLIT) {
        return column.conversion == GDS_PARQUET_BITS ? ((gds_u64)page.present + 7) / 8
                                                     : (gds_u64)page.present * column.width_in;
    }
    return 0;
}

/* Puts the value with this rank among those that are there. Bits are told, not put. */
GDS_FN unsigned gds_put_one(const gds_parquet_page &page, const gds_parquet_column &column,
                            gds_u64 rank, gds_u64 place)
{
    const unsigned char *from = reinterpret_cast<const unsigned char *>(page.data) + page.at;
    const gds_u64 *scratch = reinterpret_cast<const gds_u64 *>(page.scratch);
    const unsigned in = column.width_in;
    if (column.conversion == GDS_PARQUET_BITS) {
        return page.encoding == GDS_PARQUET_PLAIN ? from[rank / 8] >> (rank % 8) & 1
                                                  : (unsigned)scratch[rank] & 1;
    }
    if (page.encoding == GDS_PARQUET_BYTE_STREAM_SPLIT) {
        gds_put_bytes(column, place, [&](unsigned i) {
            return (unsigned)from[(gds_u64)i * page.present + rank];
        });
        return 0;
    }
    if (page.encoding == GDS_PARQUET_DELTA_BINARY_PACKED) {
        const gds_u64 value = scratch[rank];
        gds_put_bytes(column, place, [&](unsigned i) { return (unsigned)(value >> 8 * i) & 255; });
        return 0;
    }
    from += rank * in;
    if (page.encoding == GDS_PARQUET_DICTIONARY) {
        from = reinterpret_cast<const unsigned char *>(column.dictionary) + scratch[rank] * in;
    }
    if (!gds_put_words(column, place, from)) {
        gds_put_bytes(column, place, [&](unsigned i) { return (unsigned)from[i]; });
    }
    return 0;
}

/* 32 values of a page, or what is left of them: a bit of `mask` says whether one is there, `rank`
 * how many are before the first. */
struct gds_group {
    gds_u64 base;
    unsigned count;
    unsigned mask;
    gds_u64 rank;
};

GDS_FN gds_group gds_next_group(const gds_parquet_page &page, const gds_parquet_column &column,
                                const gds_group &last)
{
    gds_group group;
    group.base = last.base + last.count;
    group.rank = last.rank + gds_count(last.mask);
    const gds_u64 left = page.values - group.base;
    group.count = left < GDS_LANES ? (unsigned)left : GDS_LANES;
    group.mask = group.count == 0 ? 0 : 0xFFFFFFFFu >> (32 - group.count);
    if (page.has_levels != 0 && group.count != 0) {
        group.mask = gds_bitmap(column.validity, page.first + group.base, group.count);
    }
    return group;
}

GDS_FN void gds_values(gds_parquet_page &page, const gds_parquet_column &column)
{
    if (page.status != GDS_PARQUET_OK || column.conversion == GDS_PARQUET_BYTES) {
        return;
    }
    if (page.data_size - page.at < gds_needed(page, column)) {
        gds_tell(page, GDS_PARQUET_TRUNCATED, page.at);
        return;
    }
    gds_group group = {0, 0, 0, 0};
    for (group = gds_next_group(page, column, group); group.count != 0;
         group = gds_next_group(page, column, group)) {
        unsigned bits = 0;
        GDS_FOR_LANES(lane)
        {
            if (lane < group.count && (group.mask >> lane & 1) != 0) {
                const gds_u64 rank = group.rank + gds_count(group.mask & ((1u << lane) - 1));
                bits |= gds_put_one(page, column, rank, page.first + group.base + lane) << lane;
            }
        }
        if (column.conversion == GDS_PARQUET_BITS) {
#ifdef __CUDACC__
            bits = __ballot_sync(0xffffffffu, bits != 0);
#endif
            const gds_u64 bit = page.first + group.base;
            GDS_FOR_LANES(lane)
            {
                if (lane == 0) {
                    gds_or(column.values, bit / 32, bits << bit % 32);
                    const unsigned over = (unsigned)(bit % 32);
                    gds_or(column.values, bit / 32 + 1, over == 0 ? 0 : bits >> (32 - over));
                }
            }
        }
    }
}

GDS_FN void gds_gather(const gds_parquet_page &page, const gds_parquet_column &column)
{
    if (page.status != GDS_PARQUET_OK || column.conversion != GDS_PARQUET_BYTES) {
        return;
    }
    const gds_parquet_string *scratch = reinterpret_cast<gds_parquet_string *>(page.scratch);
    const bool indirect = page.encoding == GDS_PARQUET_DICTIONARY;
    const unsigned char *from =
        reinterpret_cast<const unsigned char *>(indirect ? column.dictionary_bytes : page.data);
    unsigned char *to = reinterpret_cast<unsigned char *>(column.values);
    unsigned *offsets = reinterpret_cast<unsigned *>(column.offsets) + page.first;
    GDS_FOR_LANES(lane)
    {
        if (lane == 0 && page.first == 0) {
            offsets[0] = 0;
        }
    }
    gds_u64 end = page.bytes_before;
    /* Where the last string begins. */
    gds_u64 last = end;
    gds_group group = {0, 0, 0, 0};
    for (group = gds_next_group(page, column, group); group.count != 0;
         group = gds_next_group(page, column, group)) {
        const gds_u64 begin = end;
        gds_sums(
            group.base, group.base + group.count, end,
            [&](gds_u64 place) {
                const unsigned lane = (unsigned)(place - group.base);
                const unsigned before = group.mask & ((1u << lane) - 1);
                const gds_u64 rank = group.rank + gds_count(before);
                return (group.mask >> lane & 1) != 0 ? (gds_u64)scratch[rank].size : 0;
            },
            [&](gds_u64 place, gds_u64 sum) { offsets[place + 1] = (unsigned)sum; });
        const unsigned there = gds_count(group.mask);
        if (page.encoding == GDS_PARQUET_DELTA_BYTE_ARRAY) {
            gds_gather_prefixed(page, to, group.rank, there, begin, last);
            last = there != 0 ? end - scratch[group.rank + there - 1].size : last;
            continue;
        }
        gds_u64 at = begin;
        for (unsigned n = 0; n < there; n++) {
            const gds_parquet_string string = scratch[group.rank + n];
            GDS_FOR_LANES(lane)
            {
                for (unsigned i = lane; i < string.size; i += GDS_LANES) {
                    to[at + i] = from[string.at + i];
                }
            }
            at += string.size;
        }
    }
}

enum gds_parquet_step {
    GDS_STEP_LEVELS,
    GDS_STEP_EXPAND,
    GDS_STEP_VALUES,
    GDS_STEP_GATHER,
    GDS_STEP_COUNT,
    GDS_STEP_PLACE,
};

template <gds_parquet_step STEP>
GDS_FN void gds_parquet_one(const gds_parquet_work &work, gds_u64 number)
{
    if (STEP == GDS_STEP_COUNT || STEP == GDS_STEP_PLACE) {
        gds_nested_one(work, number, STEP == GDS_STEP_PLACE);
        return;
    }
    gds_parquet_page &page = reinterpret_cast<gds_parquet_page *>(work.pages)[number];
    if (page.column >= work.column_count) {
        gds_tell(page, GDS_PARQUET_UNSUPPORTED, 0);
        return;
    }
    const gds_parquet_column column =
        reinterpret_cast<const gds_parquet_column *>(work.columns)[page.column];
    switch (STEP) {
    case GDS_STEP_LEVELS:
        gds_levels(page, column);
        break;
    case GDS_STEP_EXPAND:
        gds_expand(page, column);
        break;
    case GDS_STEP_VALUES:
        gds_values(page, column);
        break;
    case GDS_STEP_GATHER:
        gds_gather(page, column);
        break;
    default:
        break;
    }
}

} // namespace

#ifdef __CUDACC__

template <gds_parquet_step STEP>
static __device__ void gds_parquet_all(const gds_parquet_work &work)
{
    for (;;) {
        gds_u64 mine = 0;
        if (threadIdx.x % GDS_LANES == 0) {
            mine = atomicAdd(reinterpret_cast<gds_u64 *>(work.next), 1ull);
        }
        mine = __shfl_sync(0xffffffffu, mine, 0);
        if (mine >= work.page_count) {
            return;
        }
        gds_parquet_one<STEP>(work, mine);
    }
}

/* Any grid; blocks of whole warps. */
#define GDS_ENTRY(name, step)                                                                      \
    extern "C" __global__ void __launch_bounds__(128) name(gds_parquet_work work)                  \
    {                                                                                              \
        gds_parquet_all<step>(work);                                                               \
    }

#else

#define GDS_ENTRY(name, step)                                                                      \
    extern "C" void name##_on_host(const gds_parquet_work *work)                                   \
    {                                                                                              \
        for (gds_u64 i = 0; i < work->page_count; i++) {                                           \
            gds_parquet_one<step>(*work, i);                                                       \
        }                                                                                          \
    }

#endif

GDS_ENTRY(gds_parquet_levels, GDS_STEP_LEVELS)
GDS_ENTRY(gds_parquet_expand, GDS_STEP_EXPAND)
GDS_ENTRY(gds_parquet_values, GDS_STEP_VALUES)
GDS_ENTRY(gds_parquet_gather, GDS_STEP_GATHER)
GDS_ENTRY(gds_parquet_count, GDS_STEP_COUNT)
GDS_ENTRY(gds_parquet_place, GDS_STEP_PLACE)
