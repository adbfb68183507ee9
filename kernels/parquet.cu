/*
 * Parquet pages to columns in the layout of Arrow, flat ones, in four launches:
 *
 * 1. gds_parquet_levels: definition levels to the validity bitmap, and how many values there are;
 * 2. gds_parquet_expand: what has to be read from its beginning (indices, deltas, lengths) to
 *    8 bytes a value of scratch memory, a bit a value for bits, and the bytes of strings of each
 *    page;
 * 3. gds_parquet_values: values to their places; or
 * 4. gds_parquet_gather: offsets and bytes of strings, once the host has added the sizes up.
 *
 * Columns inside of lists and structs have their levels read before (parquet_nested.cuh).
 *
 * Compiled as PTX that the library embeds (scripts/build-kernels), and for the processor, where a
 * loop stands for the lanes of a warp (tests/device_kernel_parquet.rs).
 */

#include "parquet_nested.cuh"
#include "parquet_put.cuh"

namespace {

GDS_FN gds_reader gds_values_of(const gds_parquet_page &page)
{
    return gds_reader{reinterpret_cast<const unsigned char *>(page.data), page.data_size, page.at};
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
                bits = (unsigned)gds_bits(r.bytes, bit, count);
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
    const unsigned status = gds_expand_runs(
        r, width, page.present,
        [&](unsigned index) -> gds_u64 {
            if (index >= column.dictionary_count) {
                beyond++;
                return 0;
            }
            return strings ? dictionary[index] : index;
        },
        [&](gds_u64 i, gds_u64 found) { scratch[i] = found; });
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    return gds_total(beyond) != 0 ? GDS_PARQUET_INDEX : GDS_PARQUET_OK;
}

/* Lengths and bytes in turns. A length tells where the next one is: what is done for each is as
 * little as can be. */
GDS_FN unsigned gds_walk_strings(gds_reader &r, const gds_parquet_page &page)
{
    gds_parquet_string *scratch = reinterpret_cast<gds_parquet_string *>(page.scratch);
    gds_near near = {};
    for (gds_u64 done = 0; done < page.present;) {
        gds_each<unsigned> at, sizes;
        const gds_u64 left = page.present - done;
        const unsigned wanted = left < GDS_LANES ? (unsigned)left : GDS_LANES;
        unsigned count = 0;
        while (count < wanted) {
            if (r.at > r.size || gds_left(r) < 4) {
                return GDS_PARQUET_TRUNCATED;
            }
            if (near.size == 0 || r.at - near.begin > near.size - 4) {
                near = gds_bring(r.bytes + r.at, gds_left(r), r.at);
            }
            const unsigned last = near.size - 4;
            const unsigned before = (unsigned)near.begin;
            unsigned place = (unsigned)(r.at - near.begin), begin = place, size = 0;
            for (; count < wanted && place <= last; count++) {
                begin = place + 4;
                size = gds_near_word(near, place);
                /* No page is as long: a longer one ends the walk below. */
                size = size < 0x7FFFFFFFu ? size : 0x7FFFFFFFu;
                GDS_FOR_LANES(lane)
                {
                    at[lane] = lane == count ? before + begin : at[lane];
                    sizes[lane] = lane == count ? size : sizes[lane];
                }
                place = begin + size;
            }
            r.at = near.begin + begin;
            if (size > gds_left(r)) {
                return GDS_PARQUET_TRUNCATED;
            }
            r.at += size;
        }
        GDS_FOR_LANES(lane)
        {
            if (lane < wanted) {
                scratch[done + lane] = gds_parquet_string{at[lane], sizes[lane]};
            }
        }
        done += wanted;
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

/* Adds the sizes of strings up, and marks the sums at each GDS_MARK of them. */
GDS_FN gds_u64 gds_mark_strings(const gds_parquet_page &page)
{
    gds_u64 *marks = gds_marks(page);
    gds_u64 bytes = 0;
    for (gds_u64 rank = 0; rank < page.present; rank += GDS_MARK) {
        GDS_FOR_LANES(lane)
        {
            if (lane == 0) {
                marks[rank / GDS_MARK] = bytes;
            }
        }
        const gds_u64 left = page.present - rank;
        bytes += gds_string_bytes(page, rank, rank + (left < GDS_MARK ? left : GDS_MARK));
    }
    GDS_FOR_LANES(lane)
    {
        if (lane == 0 && page.present % GDS_MARK == 0) {
            marks[page.present / GDS_MARK] = bytes;
        }
    }
    return bytes;
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
            status = gds_expand_bits(r, page.present, page.scratch);
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
        GDS_SYNC();
        bytes = gds_mark_strings(page);
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

enum gds_parquet_step {
    GDS_STEP_LEVELS,
    GDS_STEP_EXPAND,
    GDS_STEP_VALUES,
    GDS_STEP_GATHER,
    GDS_STEP_COUNT,
    GDS_STEP_PLACE,
};

/* Parts of a page that warps do for themselves. */
GDS_FN unsigned gds_parts_of(const gds_parquet_work &work, gds_parquet_step step)
{
    const bool has_parts = step == GDS_STEP_VALUES || step == GDS_STEP_GATHER;
    return has_parts && work.parts != 0 ? (unsigned)work.parts : 1;
}

template <gds_parquet_step STEP>
GDS_FN void gds_parquet_one(const gds_parquet_work &work, gds_u64 unit)
{
    const unsigned parts = gds_parts_of(work, STEP);
    const gds_u64 number = unit / parts;
    const unsigned part = (unsigned)(unit % parts);
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
        gds_values(page, column, part, parts);
        break;
    case GDS_STEP_GATHER:
        gds_gather(page, column, part, parts);
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
        if (mine >= work.page_count * gds_parts_of(work, STEP)) {
            return;
        }
        gds_parquet_one<STEP>(work, mine);
    }
}

/* Any grid; blocks of whole warps. */
#define GDS_ENTRY(name, step)                                                                      \
    extern "C" __global__ void __launch_bounds__(GDS_THREADS) name(gds_parquet_work work)          \
    {                                                                                              \
        gds_parquet_all<step>(work);                                                               \
    }

#else

#define GDS_ENTRY(name, step)                                                                      \
    extern "C" void name##_on_host(const gds_parquet_work *work)                                   \
    {                                                                                              \
        const gds_u64 units = work->page_count * gds_parts_of(*work, step);                        \
        for (gds_u64 i = 0; i < units; i++) {                                                      \
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
