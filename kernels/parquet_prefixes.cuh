/*
 * DELTA_BYTE_ARRAY (Encodings.md): of each string how many bytes it shares with the one before,
 * and what is behind them. Packed prefix lengths, packed suffix lengths, then all suffixes.
 *
 * In scratch memory a string has the place of its suffix and its whole size; suffixes lie one
 * behind the other, so where the next one begins says how long a suffix is, and with that a
 * prefix. A byte of a prefix is found by walking back to the last string whose suffix has it:
 * within 32 strings that is a look at the page only; what reaches further is in the last string of
 * the 32 before, which is written by then.
 */
#ifndef GDS_PARQUET_PREFIXES_CUH
#define GDS_PARQUET_PREFIXES_CUH

#include "parquet.cuh"

namespace {

/* Where the suffix of this rank ends. That of the last one is kept in `page.at`. */
GDS_FN gds_u64 gds_suffix_end(const gds_parquet_page &page, gds_u64 rank)
{
    const gds_parquet_string *strings = reinterpret_cast<gds_parquet_string *>(page.scratch);
    return rank + 1 < page.present ? strings[rank + 1].at : page.at;
}

/* Bytes that the string of this rank shares with the one before. */
GDS_FN gds_u64 gds_prefix(const gds_parquet_page &page, gds_u64 rank)
{
    const gds_parquet_string *strings = reinterpret_cast<gds_parquet_string *>(page.scratch);
    return strings[rank].size - (gds_suffix_end(page, rank) - strings[rank].at);
}

/* Places and sizes of all strings, checked: no suffix passes the page, no prefix the string before
 * it. */
GDS_FN unsigned gds_place_suffixes(gds_reader &r, const gds_parquet_page &page)
{
    gds_parquet_string *strings = reinterpret_cast<gds_parquet_string *>(page.scratch);
    unsigned bad = 0;
    if (page.present == 0) {
        return GDS_PARQUET_OK;
    }
    /* For now `at` is the prefix and `size` the suffix. */
    unsigned status = gds_expand_deltas(r, page.present, [&](gds_u64 i, gds_u64 size) {
        bad += size > 0x7FFFFFFFull;
        strings[i].at = (unsigned)size;
    });
    if (status == GDS_PARQUET_OK) {
        status = gds_expand_deltas(r, page.present, [&](gds_u64 i, gds_u64 size) {
            bad += size > 0x7FFFFFFFull;
            strings[i].size = (unsigned)size;
        });
    }
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 i = lane; i < page.present; i += GDS_LANES) {
            const gds_u64 before =
                i == 0 ? 0 : (gds_u64)strings[i - 1].at + strings[i - 1].size;
            bad += strings[i].at > before;
        }
    }
    if (gds_total(bad) != 0) {
        return GDS_PARQUET_LENGTH;
    }
    GDS_SYNC();
    gds_u64 end = r.at;
    for (gds_u64 i = 0; i < page.present; i += GDS_LANES) {
        gds_sums(
            i, page.present, end, [&](gds_u64 place) { return (gds_u64)strings[place].size; },
            [&](gds_u64 place, gds_u64 sum) {
                const gds_parquet_string string = strings[place];
                strings[place].at = (unsigned)(sum - string.size);
                /* At most the sum of all suffixes so far, which the page has. */
                strings[place].size = string.at + string.size;
            });
        if (end > r.size) {
            return GDS_PARQUET_TRUNCATED;
        }
    }
    r.at = end;
    return GDS_PARQUET_OK;
}

/* The last of strings that begin at `before` which begins at a place or before it: those without
 * bytes come first. */
GDS_FN unsigned gds_string_at(gds_each<unsigned> &before, unsigned place)
{
    unsigned which = 0;
    GDS_UNROLL
    for (unsigned step = GDS_LANES / 2; step > 0; step /= 2) {
        which += gds_of_lane(before, which + step) <= place ? step : 0;
    }
    return which;
}

/* The bytes of `count` strings (32 at most) from rank `first` on, the first of them to `at` of the
 * column's bytes; the string before them begins at `last`, and is written. A byte a lane, whichever
 * string it is of. */
GDS_FN void gds_gather_prefixed(const gds_parquet_page &page, unsigned char *to, gds_u64 first,
                                unsigned count, gds_u64 at, gds_u64 last)
{
    constexpr unsigned AT_ONCE = 4, WINDOWS = 5;
    const gds_parquet_string *strings = reinterpret_cast<gds_parquet_string *>(page.scratch);
    const unsigned char *data = reinterpret_cast<const unsigned char *>(page.data);
    /* Of a string: its bytes, and where its first one would be if its suffix had none before it.
     * What 1, 2, 4, 8 and 16 strings up to it share at least, each with the one before; 0 where
     * there are fewer. */
    gds_each<unsigned> sizes, origins, before, least[WINDOWS];
    GDS_FOR_LANES(lane)
    {
        sizes[lane] = origins[lane] = least[0][lane] = 0;
        if (lane < count) {
            const gds_parquet_string string = strings[first + lane];
            const unsigned shared = (unsigned)gds_prefix(page, first + lane);
            sizes[lane] = string.size;
            origins[lane] = string.at - shared;
            least[0][lane] = shared;
        }
    }
    GDS_UNROLL
    for (unsigned n = 1; n < WINDOWS; n++) {
        const unsigned half = 1u << (n - 1);
        GDS_FOR_LANES(lane)
        {
            const unsigned late = least[n - 1][lane];
            const unsigned early = gds_of_lane(least[n - 1], (lane - half) % GDS_LANES);
            least[n][lane] = lane + 1 < 2 * half ? 0 : early < late ? early : late;
        }
    }
    const unsigned total = gds_sums_before(sizes, before);
    /* What other lanes wrote of the last string is there. */
    GDS_SYNC();
    for (unsigned done = 0; done < total; done += AT_ONCE * GDS_LANES) {
        GDS_FOR_LANES(lane)
        {
            const unsigned char *from[AT_ONCE];
            unsigned char bytes[AT_ONCE];
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                const unsigned place = done + n * GDS_LANES + lane;
                const unsigned which = gds_string_at(before, place);
                const unsigned within = place - gds_of_lane(before, which);
                /* Passes over strings that share the byte with the one before: 32 at most. */
                unsigned left = which + 1;
                GDS_UNROLL
                for (unsigned window = WINDOWS; window-- > 0;) {
                    const unsigned shared = gds_of_lane(least[window], (left - 1) % GDS_LANES);
                    left -= left != 0 && shared > within ? 1u << window : 0;
                }
                const unsigned shared = gds_of_lane(least[0], (left - 1) % GDS_LANES);
                left -= left != 0 && shared > within ? 1 : 0;
                const unsigned origin = gds_of_lane(origins, (left - 1) % GDS_LANES) + within;
                from[n] = left == 0 ? to + last + within : data + origin;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                bytes[n] = done + n * GDS_LANES + lane < total ? *from[n] : 0;
            }
            GDS_UNROLL
            for (unsigned n = 0; n < AT_ONCE; n++) {
                const unsigned place = done + n * GDS_LANES + lane;
                if (place < total) {
                    to[at + place] = bytes[n];
                }
            }
        }
    }
}

} // namespace

#endif
