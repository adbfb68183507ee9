/*
 * Tags of Snappy, and how a chunk is taken apart.
 *
 * Those who compress with Snappy do 65,536 bytes for themselves: no element passes the end of such
 * a block, and no match reaches out of it. The format does not say so. But where it is so, the
 * blocks of a chunk can be put out by a warp each, once it is known where each begins; and that is
 * found out by going from tag to tag, which is little work beside putting the bytes out. A chunk
 * that is made otherwise, or wrong, is left as it is: its parts have a status other than
 * GDS_DECOMPRESS_OK, and the host gives it once more, whole.
 *
 * Included by decompress.cu, whose words it uses.
 */
#ifndef GDS_SNAPPY_CUH
#define GDS_SNAPPY_CUH

/* Where one comes to from a byte of a span, were it a tag, and what is put out on the way. */
struct alignas(8) gds_hop {
    unsigned to;
    unsigned out;
};

#ifdef __CUDACC__
__shared__ gds_hop gds_hops_near[GDS_THREADS / GDS_LANES][4 * GDS_LANES];
#endif

namespace {

/* Bytes that are compressed for themselves. */
constexpr gds_u64 GDS_SNAPPY_BLOCK = 65536;
/* Bytes that are looked at together, four a lane. */
constexpr unsigned GDS_SPAN = 4 * GDS_LANES;

/* What stands behind a tag of Snappy. */
struct gds_tag {
    /* Bytes of the output, less one. */
    unsigned more;
    /* How far back a match reaches. */
    unsigned offset;
    /* Bytes of the tag and what belongs to it, a literal's own not. */
    unsigned head;
    bool is_literal;
};

GDS_FN gds_u64 gds_size_of(const gds_tag &tag)
{
    return (gds_u64)tag.more + 1;
}

/* A tag and the four bytes behind it. */
GDS_FN gds_tag gds_tag_of(unsigned tag, unsigned behind)
{
    const unsigned kind = tag & 3, upper = tag >> 2;
    gds_tag made;
    made.is_literal = kind == 0;
    if (kind == 0) {
        const unsigned bytes = upper >= 60 ? upper - 59 : 0;
        const unsigned mask = 0xFFFFFFFFu >> (bytes == 0 ? 0 : 32 - 8 * bytes);
        made.more = bytes != 0 ? behind & mask : upper;
        made.offset = 0;
        made.head = 1 + bytes;
    } else if (kind == 1) {
        made.more = (upper & 7) + 3;
        made.offset = (behind & 255) | (tag >> 5) << 8;
        made.head = 2;
    } else {
        made.more = upper;
        made.offset = kind == 2 ? behind & 0xFFFF : behind;
        made.head = kind == 2 ? 3 : 5;
    }
    return made;
}

/* The tag that begins at byte `place`, if one does; 8 bytes behind it are input where `inside`. */
GDS_FN gds_tag gds_tag_at(const unsigned char *from, gds_u64 size, gds_u64 place, bool inside)
{
#ifdef __CUDACC__
    if (inside) {
        const gds_u64 address = reinterpret_cast<gds_u64>(from + place);
        const unsigned *words = reinterpret_cast<const unsigned *>(address & ~3ull);
        const unsigned skip = 8 * (unsigned)(address & 3);
        const unsigned low = words[0], high = words[1];
        const unsigned first = __funnelshift_r(low, high, skip);
        return gds_tag_of(first & 255, first >> 8 | high >> skip << 24);
    }
#endif
    unsigned bytes[5] = {0, 0, 0, 0, 0};
    for (unsigned i = 0; i < 5; i++) {
        if (place + i < size) {
            bytes[i] = from[place + i];
        }
    }
    (void)inside;
    return gds_tag_of(bytes[0], bytes[1] | bytes[2] << 8 | bytes[3] << 16 | bytes[4] << 24);
}

/* The length before the tags. */
GDS_FN unsigned gds_snappy_length(const unsigned char *from, gds_u64 size, gds_u64 &at,
                                  gds_u64 &length)
{
    length = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (at >= size) {
            return GDS_DECOMPRESS_TRUNCATED;
        }
        const unsigned byte = from[at++];
        length |= (gds_u64)(byte & 127) << shift;
        if (byte < 128) {
            return GDS_DECOMPRESS_OK;
        }
        if (shift == 28) {
            return GDS_DECOMPRESS_HEADER;
        }
    }
}

GDS_FN gds_hop gds_hop_of(unsigned place, unsigned tag, unsigned behind)
{
    /* More than a block: such an element is looked at for itself. Sums of a span fit a word. */
    constexpr unsigned MANY = 1u << 24;
    const gds_tag made = gds_tag_of(tag, behind);
    const unsigned out = made.more < MANY ? made.more + 1 : MANY;
    return gds_hop{place + made.head + (made.is_literal ? out : 0), out};
}

/* The hops of a span: several tags in one, where that does not leave the span. */
GDS_FN void gds_hops(const gds_near &near, unsigned at, gds_hop *hops)
{
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        const unsigned low = gds_near_word(near, at + 4 * lane);
        const unsigned high = gds_near_word(near, at + 4 * lane + 4);
        const gds_u64 bytes = low | (gds_u64)high << 32;
        gds_hop own[4];
        GDS_UNROLL
        for (unsigned n = 4; n-- > 0;) {
            own[n] = gds_hop_of(n, (unsigned)(bytes >> 8 * n) & 255,
                                (unsigned)(bytes >> 8 * n >> 8));
            if (n == 1 && own[1].to == 3) {
                own[1] = gds_hop{own[3].to, own[1].out + own[3].out};
            }
            if (n == 0 && own[0].to == 2) {
                own[0] = gds_hop{own[2].to, own[0].out + own[2].out};
            } else if (n == 0 && own[0].to == 3) {
                own[0] = gds_hop{own[3].to, own[0].out + own[3].out};
            }
        }
        GDS_UNROLL
        for (unsigned n = 0; n < 4; n++) {
            hops[4 * lane + n] = gds_hop{4 * lane + own[n].to, own[n].out};
        }
    }
    GDS_SYNC();
    for (unsigned round = 0; round < 3; round++) {
        gds_each<gds_hop> longer[4];
        GDS_FOR_LANES(lane)
        {
            GDS_UNROLL
            for (unsigned n = 0; n < 4; n++) {
                const gds_hop first = hops[GDS_LANES * n + lane];
                longer[n][lane] = first;
                if (first.to < GDS_SPAN) {
                    const gds_hop second = hops[first.to];
                    longer[n][lane] = gds_hop{second.to, first.out + second.out};
                }
            }
        }
        GDS_SYNC();
        GDS_FOR_LANES(lane)
        {
            GDS_UNROLL
            for (unsigned n = 0; n < 4; n++) {
                hops[GDS_LANES * n + lane] = longer[n][lane];
            }
        }
        GDS_SYNC();
    }
}

/* A chunk on its way into parts. */
struct gds_splitting {
    const unsigned char *from;
    gds_u64 size;
    /* Where the next tag is, and where the part began. */
    gds_u64 at;
    gds_u64 begin;
    /* Bytes that the part still puts out. */
    unsigned room;
    /* Bytes behind it. */
    gds_u64 rest;
};

/* Passes one tag, whatever it is; false when the chunk is not to be taken apart. */
GDS_FN bool gds_pass(gds_splitting &s)
{
    const gds_tag tag = gds_tag_at(s.from, s.size, s.at, false);
    const gds_u64 size = gds_size_of(tag), bytes = tag.head + (tag.is_literal ? size : 0);
    if (bytes > s.size - s.at || size > s.room) {
        return false;
    }
    s.at += bytes;
    s.room -= (unsigned)size;
    return true;
}

/* Goes over the tags of a part that has more than a few bytes, not to its end. */
GDS_FN void gds_pass_many(gds_splitting &s, gds_near &near, gds_hop *hops)
{
    while (s.size - s.at >= GDS_SPAN + 8) {
        if (near.size == 0 || s.at - near.begin + GDS_SPAN + 8 > near.size) {
            near = gds_bring(s.from + s.at, s.size - s.at, s.at);
        }
        gds_hops(near, (unsigned)(s.at - near.begin), hops);
        unsigned place = 0;
        while (place < GDS_SPAN) {
            const gds_hop hop = hops[place];
            /* The end of the part is in there, a few tags on, or something is wrong. */
            if (hop.out >= s.room) {
                break;
            }
            s.room -= hop.out;
            place = hop.to;
        }
        s.at += place;
        if (place < GDS_SPAN || s.at >= s.size) {
            return;
        }
    }
}

/* Takes a chunk apart: tells its parts where they begin, and that they are such. */
GDS_FN void gds_split(gds_decompress_chunk *chunks, gds_u64 count, gds_u64 number)
{
#ifdef __CUDACC__
    gds_hop *hops = gds_hops_near[threadIdx.x / GDS_LANES];
#else
    gds_hop hops[GDS_SPAN];
#endif
    const gds_decompress_chunk whole = chunks[number];
    const gds_u64 parts = whole.at;
    if (parts > count || whole.status > count - parts) {
        return;
    }
    gds_decompress_chunk *own = chunks + whole.status;
    gds_splitting s;
    s.from = reinterpret_cast<const unsigned char *>(whole.from);
    s.size = whole.from_size;
    s.at = 0;
    gds_near near = {};
    gds_u64 length;
    if (gds_snappy_length(s.from, s.size, s.at, length) != GDS_DECOMPRESS_OK ||
        length != whole.to_size || parts != (length + GDS_SNAPPY_BLOCK - 1) / GDS_SNAPPY_BLOCK) {
        return;
    }
    s.rest = length;
    for (gds_u64 part = 0; part < parts; part++) {
        const unsigned size =
            s.rest < GDS_SNAPPY_BLOCK ? (unsigned)s.rest : (unsigned)GDS_SNAPPY_BLOCK;
        s.begin = s.at;
        s.room = size;
        gds_pass_many(s, near, hops);
        while (s.room > 0) {
            if (s.at >= s.size || !gds_pass(s)) {
                return;
            }
        }
        GDS_FOR_LANES(lane)
        {
            if (lane == 0) {
                own[part].from = whole.from + s.begin;
                own[part].from_size = s.at - s.begin;
                own[part].to = whole.to + part * GDS_SNAPPY_BLOCK;
                own[part].to_size = size;
            }
        }
        s.rest -= size;
    }
    if (s.at != s.size) {
        return;
    }
    GDS_SYNC();
    GDS_FOR_LANES(lane)
    {
        for (gds_u64 part = lane; part < parts; part += GDS_LANES) {
            own[part].codec = GDS_DECOMPRESS_SNAPPY_PART;
        }
    }
}

} // namespace

#endif
