/*
 * Columns inside of lists and structs: repetition and definition levels to what Arrow has at each
 * level of nesting (parquet-format README.md, "Nested Encoding"), in two launches:
 *
 * 1. gds_parquet_count: the levels of a page to a byte each, and how many values the page has for
 *    each array on the way from the root to the values;
 * 2. gds_parquet_place: once the host has added these up over the pages, validity of each array and
 *    offsets of lists.
 *
 * A value of an array stands where an entry begins one (`r <= slot_rep`) and the lists around it
 * have an element there (`d >= slot_def`); it is valid where `d >= valid_def`. The elements of a
 * list are the values of the array below it. The leaf's values are decoded afterwards, as those of
 * a flat column with one value for each of the leaf's array.
 *
 * Levels that contradict each other give arrays that do, too, but nothing outside of them.
 */
#ifndef GDS_PARQUET_NESTED_CUH
#define GDS_PARQUET_NESTED_CUH

#include "parquet.cuh"

/* An array on the way to a leaf. The layout is `device::ParquetNode` of the Rust side. */
struct gds_parquet_node {
    /* Address of the validity bitmap, in whole words that are 0 before; 0 where none is wanted. */
    gds_u64 validity;
    /* Address of the 32-bit offsets of a list, one more than values; 0 where none are wanted. */
    gds_u64 offsets;
    unsigned slot_def;
    unsigned slot_rep;
    unsigned valid_def;
    /* Whether the next node has its elements. */
    unsigned is_list;
};

/* The way to a leaf. The layout is `device::ParquetNest` of the Rust side. */
struct gds_parquet_nest {
    /* Address of gds_parquet_node, from the root to the leaf. */
    gds_u64 nodes;
    unsigned node_count;
    unsigned max_def;
    unsigned max_rep;
    unsigned reserved;
};

/* A page. The layout is `device::ParquetLevels` of the Rust side. */
struct gds_parquet_nested_page {
    /* Decompressed bytes. In version 1 the levels come first. */
    gds_u64 data;
    gds_u64 data_size;
    /* Repetition and definition levels of version 2. */
    gds_u64 reps;
    gds_u64 reps_size;
    gds_u64 defs;
    gds_u64 defs_size;
    /* Address of a byte an entry for the definition level, then as many for the repetition level.
     */
    gds_u64 levels;
    /* Address of a number a node: written by the count, how many values the page has; read by the
     * place, how many are before it. */
    gds_u64 places;
    unsigned nest;
    unsigned entries;
    unsigned version_2;
    /* Written: values of the leaf that are not null. */
    unsigned present;
    /* Written: a gds_parquet_status. 0 before. */
    unsigned status;
    /* Written: the first repetition level. */
    unsigned first_rep;
    /* Written: where in the page it went wrong, or where the values begin. */
    gds_u64 at;
};

static_assert(sizeof(gds_parquet_node) == 32, "shared with Rust");
static_assert(sizeof(gds_parquet_nest) == 24, "shared with Rust");
static_assert(sizeof(gds_parquet_nested_page) == 96, "shared with Rust");

namespace {

/* Bits of numbers up to this one. */
GDS_FN unsigned gds_width_of(unsigned highest)
{
    unsigned width = 0;
    while (highest >> width != 0) {
        width++;
    }
    return width;
}

/* What the lanes have, bit by bit; on the processor one variable has it already. */
GDS_FN unsigned gds_vote(unsigned bits)
{
#ifdef __CUDACC__
    return __ballot_sync(0xffffffffu, bits != 0);
#else
    return bits;
#endif
}

/* Levels of one kind to a byte each. */
GDS_FN unsigned gds_read_levels(gds_reader &r, unsigned highest, unsigned count, unsigned char *to)
{
    unsigned bad = 0;
    const unsigned width = gds_width_of(highest);
    const unsigned status = gds_expand_runs(
        r, width, count, [](unsigned level) -> gds_u64 { return level; },
        [&](gds_u64 i, gds_u64 level) {
            bad += level > highest;
            to[i] = (unsigned char)level;
        });
    if (status != GDS_PARQUET_OK) {
        return status;
    }
    return gds_total(bad) != 0 ? GDS_PARQUET_RUN : GDS_PARQUET_OK;
}

/* The bytes of levels of one kind: of version 1 behind their size, at `at` of the page. */
GDS_FN bool gds_find_levels(const gds_parquet_nested_page &page, gds_u64 own, gds_u64 own_size,
                            gds_u64 &at, gds_reader &r)
{
    if (page.version_2 != 0) {
        r = gds_reader{reinterpret_cast<const unsigned char *>(own), own_size, 0};
        return true;
    }
    const unsigned char *data = reinterpret_cast<const unsigned char *>(page.data);
    if (page.data_size - at < 4 || page.data_size - at - 4 < gds_load32(data + at)) {
        return false;
    }
    r = gds_reader{data + at + 4, gds_load32(data + at), 0};
    at += 4 + r.size;
    return true;
}

GDS_FN void gds_tell_nested(gds_parquet_nested_page &page, unsigned status, gds_u64 at)
{
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            page.status = status;
            page.at = at;
        }
    }
}

/* Entries with at least this definition level and at most that repetition level. */
GDS_FN unsigned gds_count_entries(const gds_parquet_nested_page &page, unsigned def, unsigned rep)
{
    const unsigned char *defs = reinterpret_cast<const unsigned char *>(page.levels);
    const unsigned char *reps = defs + page.entries;
    unsigned found = 0;
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 i = lane; i < page.entries; i += GDS_LANES) {
            found += reps[i] <= rep && defs[i] >= def;
        }
    }
    return gds_total(found);
}

GDS_FN void gds_count_nested(gds_parquet_nested_page &page, const gds_parquet_nest &nest)
{
    unsigned char *defs = reinterpret_cast<unsigned char *>(page.levels);
    unsigned char *reps = defs + page.entries;
    gds_u64 *places = reinterpret_cast<gds_u64 *>(page.places);
    const gds_parquet_node *nodes = reinterpret_cast<const gds_parquet_node *>(nest.nodes);
    const unsigned highest[2] = {nest.max_rep, nest.max_def};
    gds_u64 at = 0;
    for (unsigned kind = 0; kind < 2; kind++) {
        unsigned char *to = kind == 0 ? reps : defs;
        if (highest[kind] == 0) {
            GDS_FOR_LANES(lane)
            {
                for (gds_u64 i = lane; i < page.entries; i += GDS_LANES) {
                    to[i] = 0;
                }
            }
            continue;
        }
        gds_reader r = {nullptr, 0, 0};
        const gds_u64 own = kind == 0 ? page.reps : page.defs;
        if (!gds_find_levels(page, own, kind == 0 ? page.reps_size : page.defs_size, at, r)) {
            gds_tell_nested(page, GDS_PARQUET_TRUNCATED, at);
            return;
        }
        const unsigned status = gds_read_levels(r, highest[kind], page.entries, to);
        if (status != GDS_PARQUET_OK) {
            gds_tell_nested(page, status, at);
            return;
        }
    }
    /* What the other lanes wrote is there. */
    GDS_SYNC();
    for (unsigned n = 0; n < nest.node_count; n++) {
        const gds_u64 slots = gds_count_entries(page, nodes[n].slot_def, nodes[n].slot_rep);
        GDS_FOR_LANES(lane)
        {
            if (lane == 0) {
                places[n] = slots;
            }
        }
    }
    const unsigned present = gds_count_entries(page, nest.max_def, nest.max_rep);
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            page.present = present;
            page.first_rep = page.entries != 0 ? reps[0] : 0;
        }
    }
    gds_tell_nested(page, GDS_PARQUET_OK, at);
}

/* Up to 32 entries: which begin a value of an array, which of these are valid, and which begin an
 * element of it. */
struct gds_slots {
    unsigned slots;
    unsigned valid;
    unsigned elements;
};

/* All bits that the lanes have; on the processor one variable has them already. */
GDS_FN unsigned gds_union(unsigned mine)
{
#ifdef __CUDACC__
    for (unsigned step = GDS_LANES / 2; step > 0; step /= 2) {
        mine |= __shfl_xor_sync(0xffffffffu, mine, step);
    }
#endif
    return mine;
}

/* Puts up to 32 bits into a bitmap, from bit `at` on. */
GDS_FN void gds_put_bits(gds_u64 bitmap, gds_u64 at, unsigned bits)
{
    GDS_FOR_LANES(lane)
    {
        if (lane == 0) {
            const unsigned over = (unsigned)(at % 32);
            gds_or(bitmap, at / 32, bits << over);
            gds_or(bitmap, at / 32 + 1, over == 0 ? 0 : bits >> (32 - over));
        }
    }
}

/* Puts 32 entries of an array: `at` values and `elements` are before them. */
GDS_FN void gds_put_slots(const gds_parquet_node &node, const gds_slots &here, gds_u64 at,
                          gds_u64 elements)
{
    unsigned *offsets = reinterpret_cast<unsigned *>(node.offsets);
    /* Of the values alone, side by side. */
    unsigned valid = 0;
    GDS_FOR_LANES(lane)
    {
        const unsigned before = (1u << lane) - 1;
        if ((here.slots >> lane & 1) != 0) {
            const unsigned rank = gds_count(here.slots & before);
            valid |= (here.valid >> lane & 1) << rank;
            if (node.offsets != 0) {
                offsets[at + rank] = (unsigned)(elements + gds_count(here.elements & before));
            }
        }
    }
    if (node.validity != 0) {
        gds_put_bits(node.validity, at, gds_union(valid));
    }
}

GDS_FN void gds_place_nested(const gds_parquet_nested_page &page, const gds_parquet_nest &nest)
{
    if (page.status != GDS_PARQUET_OK) {
        return;
    }
    const unsigned char *defs = reinterpret_cast<const unsigned char *>(page.levels);
    const unsigned char *reps = defs + page.entries;
    const gds_u64 *places = reinterpret_cast<const gds_u64 *>(page.places);
    const gds_parquet_node *nodes = reinterpret_cast<const gds_parquet_node *>(nest.nodes);
    for (unsigned n = 0; n < nest.node_count; n++) {
        const gds_parquet_node node = nodes[n];
        if (node.validity == 0 && node.offsets == 0) {
            continue;
        }
        const bool list = node.is_list != 0 && n + 1 < nest.node_count;
        const gds_parquet_node below = nodes[list ? n + 1 : n];
        gds_u64 at = places[n], elements = list ? places[n + 1] : 0;
        for (gds_u64 base = 0; base < page.entries; base += GDS_LANES) {
            gds_slots here = {0, 0, 0};
            GDS_FOR_LANES(lane)
            {
                const gds_u64 i = base + lane;
                if (i < page.entries) {
                    const unsigned d = defs[i], r = reps[i], bit = 1u << lane;
                    const bool slot = r <= node.slot_rep && d >= node.slot_def;
                    here.slots |= slot ? bit : 0;
                    here.valid |= slot && d >= node.valid_def ? bit : 0;
                    here.elements |=
                        list && r <= below.slot_rep && d >= below.slot_def ? bit : 0;
                }
            }
            here.slots = gds_vote(here.slots);
            here.valid = gds_vote(here.valid);
            here.elements = gds_vote(here.elements);
            gds_put_slots(node, here, at, elements);
            at += gds_count(here.slots);
            elements += gds_count(here.elements);
        }
    }
}

GDS_FN void gds_nested_one(const gds_parquet_work &work, gds_u64 number, bool place)
{
    gds_parquet_nested_page &page =
        reinterpret_cast<gds_parquet_nested_page *>(work.pages)[number];
    if (page.nest >= work.column_count) {
        gds_tell_nested(page, GDS_PARQUET_UNSUPPORTED, 0);
        return;
    }
    const gds_parquet_nest nest =
        reinterpret_cast<const gds_parquet_nest *>(work.columns)[page.nest];
    if (place) {
        gds_place_nested(page, nest);
    } else {
        gds_count_nested(page, nest);
    }
}

} // namespace

#endif
