/*
 * The last steps of decoding Parquet pages: values to their places, and strings side by side.
 *
 * A page is done by as many warps as the host says; each has some groups of 32 values for itself.
 */
#ifndef GDS_PARQUET_PUT_CUH
#define GDS_PARQUET_PUT_CUH

#include "parquet_prefixes.cuh"

namespace {

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

/* The bytes of strings from rank `from` to rank `to`. */
GDS_FN gds_u64 gds_string_bytes(const gds_parquet_page &page, gds_u64 from, gds_u64 to)
{
    const gds_parquet_string *placed = reinterpret_cast<gds_parquet_string *>(page.scratch);
    gds_u64 mine = 0;
    GDS_FOR_LANES(lane)
    {
        GDS_UNROLL
        for (unsigned n = 0; n < GDS_MARK / GDS_LANES; n++) {
            const gds_u64 rank = from + n * GDS_LANES + lane;
            mine += rank < to ? placed[rank].size : 0;
        }
    }
    return gds_total(mine);
}

/* Where the marks of a page's strings stand. */
GDS_FN gds_u64 *gds_marks(const gds_parquet_page &page)
{
    return reinterpret_cast<gds_u64 *>(page.scratch) + page.values;
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
    const unsigned rest = widen && top >= 128 ? 255 : 0;
    auto of = [&](unsigned i) { return i < in ? byte(swap ? in - 1 - i : i) : rest; };
    if (out % 8 == 0) {
        for (unsigned word = 0; word < out / 8; word++) {
            gds_u64 bytes = 0;
            GDS_UNROLL
            for (unsigned i = 0; i < 8; i++) {
                bytes |= (gds_u64)of(8 * word + i) << (8 * i);
            }
            reinterpret_cast<gds_u64 *>(to)[word] = bytes;
        }
        return;
    }
    for (unsigned i = 0; i < out; i++) {
        to[i] = (unsigned char)of(i);
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
        const unsigned *words = reinterpret_cast<const unsigned *>(page.scratch);
        return page.encoding == GDS_PARQUET_PLAIN ? from[rank / 8] >> (rank % 8) & 1
                                                  : words[rank / 32] >> (rank % 32) & 1;
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

/* The values of a page that a warp does: some of whole groups, up to `end`. */
struct gds_part {
    gds_group before;
    gds_u64 end;
};

/* Whether all values of a page are there. */
GDS_FN bool gds_is_full(const gds_parquet_page &page)
{
    return page.has_levels == 0 || page.present == page.values;
}

GDS_FN gds_part gds_part_of(const gds_parquet_page &page, const gds_parquet_column &column,
                            unsigned part, unsigned parts)
{
    const gds_u64 groups = ((gds_u64)page.values + GDS_LANES - 1) / GDS_LANES;
    const gds_u64 own = (groups + parts - 1) / parts;
    const gds_u64 begin = own * part * GDS_LANES, end = begin + own * GDS_LANES;
    gds_part made;
    made.end = end < page.values ? end : page.values;
    made.before.base = begin < made.end ? begin : made.end;
    made.before.count = 0;
    made.before.mask = 0;
    made.before.rank = made.before.base;
    if (!gds_is_full(page)) {
        gds_u64 there = 0;
        GDS_FOR_LANES(lane)
        {
            for (gds_u64 bit = GDS_LANES * lane; bit < made.before.base;
                 bit += GDS_LANES * GDS_LANES) {
                const gds_u64 left = made.before.base - bit;
                const unsigned count = left < GDS_LANES ? (unsigned)left : GDS_LANES;
                there += gds_count(gds_bitmap(column.validity, page.first + bit, count));
            }
        }
        made.before.rank = gds_total(there);
    }
    return made;
}

GDS_FN gds_group gds_next_group(const gds_parquet_page &page, const gds_parquet_column &column,
                                const gds_group &last, gds_u64 end)
{
    gds_group group;
    group.base = last.base + last.count;
    group.rank = last.rank + gds_count(last.mask);
    const gds_u64 left = end - group.base;
    group.count = left < GDS_LANES ? (unsigned)left : GDS_LANES;
    group.mask = group.count == 0 ? 0 : 0xFFFFFFFFu >> (32 - group.count);
    if (group.count != 0 && !gds_is_full(page)) {
        group.mask = gds_bitmap(column.validity, page.first + group.base, group.count);
    }
    return group;
}

/* Values of four or eight bytes that are all there, as they are: by far the most. Several are read
 * before any is put. */
template <typename Word>
GDS_FN void gds_put_full(const gds_parquet_page &page, const gds_parquet_column &column,
                         const gds_part &part)
{
    constexpr unsigned AT_ONCE = 4;
    const bool indirect = page.encoding == GDS_PARQUET_DICTIONARY;
    const gds_u64 *scratch = reinterpret_cast<const gds_u64 *>(page.scratch);
    const unsigned char *from = reinterpret_cast<const unsigned char *>(
        indirect ? column.dictionary : page.data + page.at);
    Word *to = reinterpret_cast<Word *>(column.values) + page.first;
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 first = part.before.base + lane; first < part.end;
             first += AT_ONCE * GDS_LANES) {
            gds_u64 ranks[AT_ONCE];
            Word words[AT_ONCE];
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                const gds_u64 place = first + n * GDS_LANES;
                ranks[n] = indirect && place < part.end ? scratch[place] : place;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                words[n] = 0;
                if (first + n * GDS_LANES < part.end) {
                    const unsigned char *word = from + ranks[n] * sizeof(Word);
                    words[n] = (Word)gds_bits(word, 0, 8 * sizeof(Word));
                }
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                if (first + n * GDS_LANES < part.end) {
                    to[first + n * GDS_LANES] = words[n];
                }
            }
        }
    }
}

GDS_FN void gds_values(gds_parquet_page &page, const gds_parquet_column &column, unsigned number,
                       unsigned parts)
{
    if (page.status != GDS_PARQUET_OK || column.conversion == GDS_PARQUET_BYTES) {
        return;
    }
    if (page.data_size - page.at < gds_needed(page, column)) {
        gds_tell(page, GDS_PARQUET_TRUNCATED, page.at);
        return;
    }
    const gds_part part = gds_part_of(page, column, number, parts);
    const bool is_same =
        column.conversion == GDS_PARQUET_COPY && column.width_in == column.width_out &&
        (page.encoding == GDS_PARQUET_PLAIN || page.encoding == GDS_PARQUET_DICTIONARY);
    if (is_same && gds_is_full(page) && column.width_out == 8) {
        gds_put_full<gds_u64>(page, column, part);
        return;
    }
    if (is_same && gds_is_full(page) && column.width_out == 4) {
        gds_put_full<unsigned>(page, column, part);
        return;
    }
    gds_group group = part.before;
    for (group = gds_next_group(page, column, group, part.end); group.count != 0;
         group = gds_next_group(page, column, group, part.end)) {
        unsigned bits = 0;
        GDS_FOR_LANES(lane)
        {
            if (lane < group.count && (group.mask >> lane & 1) != 0) {
                const gds_u64 rank = group.rank + gds_count(group.mask & gds_below(lane));
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

/* Puts short strings of up to 32 values side by side: a byte a lane, whichever string it is of. */
GDS_FN void gds_put_strings(unsigned char *to, const unsigned char *from, gds_each<unsigned> &at,
                            gds_each<unsigned> &before, unsigned total)
{
    constexpr unsigned AT_ONCE = 4;
    for (unsigned first = 0; first < total; first += AT_ONCE * GDS_LANES) {
        GDS_FOR_LANES(lane)
        {
            const unsigned char *origins[AT_ONCE];
            unsigned char bytes[AT_ONCE];
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                const unsigned place = first + n * GDS_LANES + lane;
                const unsigned which = gds_string_at(before, place);
                const unsigned within = place - gds_of_lane(before, which);
                origins[n] = from + gds_of_lane(at, which) + within;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                bytes[n] = first + n * GDS_LANES + lane < total ? *origins[n] : 0;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                if (first + n * GDS_LANES + lane < total) {
                    to[first + n * GDS_LANES + lane] = bytes[n];
                }
            }
        }
    }
}

/* Puts a string. */
GDS_FN void gds_put_string(unsigned char *to, const unsigned char *from, unsigned size)
{
    constexpr unsigned AT_ONCE = 4;
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 first = lane; first < size; first += AT_ONCE * GDS_LANES) {
            unsigned char bytes[AT_ONCE];
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                bytes[n] = first + n * GDS_LANES < size ? from[first + n * GDS_LANES] : 0;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                if (first + n * GDS_LANES < size) {
                    to[first + n * GDS_LANES] = bytes[n];
                }
            }
        }
    }
}

GDS_FN void gds_gather(const gds_parquet_page &page, const gds_parquet_column &column,
                       unsigned number, unsigned parts)
{
    /* Strings of 32 values that are put side by side, at most this many bytes. */
    constexpr unsigned SHORT = 2048;
    if (page.status != GDS_PARQUET_OK || column.conversion != GDS_PARQUET_BYTES) {
        return;
    }
    const gds_parquet_string *scratch = reinterpret_cast<gds_parquet_string *>(page.scratch);
    const bool indirect = page.encoding == GDS_PARQUET_DICTIONARY;
    const unsigned char *from =
        reinterpret_cast<const unsigned char *>(indirect ? column.dictionary_bytes : page.data);
    unsigned *offsets = reinterpret_cast<unsigned *>(column.offsets) + page.first;
    GDS_FOR_LANES(lane)
    {
        if (lane == 0 && number == 0 && page.first == 0) {
            offsets[0] = 0;
        }
    }
    /* What shares bytes with the string before is done in turn. */
    const bool is_prefixed = page.encoding == GDS_PARQUET_DELTA_BYTE_ARRAY;
    if (is_prefixed && number != 0) {
        return;
    }
    const gds_part part = gds_part_of(page, column, number, is_prefixed ? 1 : parts);
    if (part.before.base >= part.end) {
        return;
    }
    const gds_u64 rank = part.before.rank;
    gds_u64 end = page.bytes_before + gds_marks(page)[rank / GDS_MARK] +
                  gds_string_bytes(page, rank - rank % GDS_MARK, rank);
    /* Where the last string begins. */
    gds_u64 last = end;
    gds_group group = part.before;
    for (group = gds_next_group(page, column, group, part.end); group.count != 0;
         group = gds_next_group(page, column, group, part.end)) {
        gds_each<unsigned> sizes, at, before;
        GDS_FOR_LANES(lane)
        {
            gds_parquet_string string = {0, 0};
            if ((group.mask >> lane & 1) != 0) {
                string = scratch[group.rank + gds_count(group.mask & gds_below(lane))];
            }
            sizes[lane] = string.size;
            at[lane] = string.at;
        }
        const unsigned total = gds_sums_before(sizes, before);
        GDS_FOR_LANES(lane)
        {
            if (lane < group.count) {
                offsets[group.base + lane + 1] = (unsigned)end + before[lane] + sizes[lane];
            }
        }
        unsigned char *to = reinterpret_cast<unsigned char *>(column.values) + end;
        if (is_prefixed) {
            const unsigned there = gds_count(group.mask);
            unsigned char *all = reinterpret_cast<unsigned char *>(column.values);
            gds_gather_prefixed(page, all, group.rank, there, end, last);
            last = there != 0 ? end + total - scratch[group.rank + there - 1].size : last;
        } else if (total <= SHORT) {
            gds_put_strings(to, from, at, before, total);
        } else {
            for (unsigned mask = group.mask; mask != 0; mask &= mask - 1) {
                const unsigned which = gds_lowest(mask);
                const unsigned size = gds_of_lane(sizes, which);
                gds_put_string(to, from + gds_of_lane(at, which), size);
                to += size;
            }
        }
        end += total;
    }
}

} // namespace

#endif
