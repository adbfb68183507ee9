/*
 * DELTA_BYTE_ARRAY (Encodings.md): of each string how many bytes it shares with the one before,
 * and what is behind them. Packed prefix lengths, packed suffix lengths, then all suffixes.
 *
 * In scratch memory a string has the place of its suffix and its whole size; suffixes lie one
 * behind the other, so where the next one begins says how long a suffix is, and with that a
 * prefix. Bytes of a prefix are found by walking back: the string before has its suffix in the
 * page, and what it shares itself comes from further back. Within 32 strings that is a look at the
 * page only; what reaches further is in the last string of the 32 before, which is written by
 * then.
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

/* Puts `size` bytes from `from` to `to`. */
GDS_FN void gds_share_copy(unsigned char *to, const unsigned char *from, gds_u64 size)
{
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 i = lane; i < size; i += GDS_LANES) {
            to[i] = from[i];
        }
    }
}

/* The bytes of `count` strings (32 at most) from rank `first` on, the first of them to `at` of the
 * column's bytes; the string before them begins at `last`, and is written. */
GDS_FN void gds_gather_prefixed(const gds_parquet_page &page, unsigned char *to, gds_u64 first,
                                unsigned count, gds_u64 at, gds_u64 last)
{
    const gds_parquet_string *strings = reinterpret_cast<gds_parquet_string *>(page.scratch);
    const unsigned char *data = reinterpret_cast<const unsigned char *>(page.data);
    /* What other lanes wrote of the last string is there. */
    GDS_SYNC();
    for (gds_u64 rank = first; rank < first + count; rank++) {
        gds_u64 left = gds_prefix(page, rank);
        gds_share_copy(to + at + left, data + strings[rank].at, strings[rank].size - left);
        for (gds_u64 back = rank; back > first && left > 0;) {
            back--;
            const gds_u64 shared = gds_prefix(page, back);
            if (shared < left) {
                gds_share_copy(to + at + shared, data + strings[back].at, left - shared);
                left = shared;
            }
        }
        gds_share_copy(to + at, to + last, left);
        at += strings[rank].size;
    }
}

} // namespace

#endif
