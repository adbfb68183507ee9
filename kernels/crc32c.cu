/*
 * CRC32C (Castagnoli, reflected, as base::crc) of many chunks of memory in one launch.
 *
 * A chunk belongs to one warp. The 32 lanes read it in rows of 512 bytes, 16 bytes a lane, and each
 * lane keeps four sums, one for each of its words in a row. A sum is a polynomial modulo P; from
 * row to row it is multiplied by x^4096, the distance of a row, so no lane waits for another. At
 * the end a lane joins its sums into one, multiplies it by the power of x that stands for its place
 * in the row, and the warp adds (exclusive or) the lanes.
 *
 * Multiplying by a constant is eight lookups of four bits. The tables lie in shared memory with a
 * column for each lane, so each lane reads its own bank whatever it looks up, and the last
 * multiplication can have another constant for every lane.
 *
 * A chunk is padded with zeroes to whole rows. Zeroes in front change nothing. What is missing of
 * the last 16 bytes is zero too, and the result is divided by that power of x. The ones that
 * CRC32C starts with are added to the sums before the first row. Any address and any size work; no
 * byte outside a chunk is read.
 *
 * Compiled three ways, as copy_pieces.cu: PTX that the library embeds (scripts/build-kernels), a
 * test with nvcc (cuda_tests/crc_test.cu), and for the processor, where a loop stands for the lanes
 * of a warp (tests/device_kernel_crc.rs).
 */

#ifdef __CUDACC__
#define GDS_FN static __device__ __forceinline__
#define GDS_CONSTANT __constant__
#define GDS_UNROLL _Pragma("unroll")
#define GDS_ROLLED _Pragma("unroll 1")
#else
#define GDS_FN static inline
#define GDS_CONSTANT static const
#define GDS_UNROLL
#define GDS_ROLLED
#endif

typedef unsigned long long gds_u64;

/* One range. The layout is `device::CrcRange` of the Rust side. */
struct gds_crc_range {
    gds_u64 address;
    gds_u64 size;
    /* Number of its first chunk, counted through all ranges. */
    gds_u64 first;
};

/* How the expected values compare. The layout is `device::CrcVerdict` of the Rust side. */
struct gds_crc_verdict {
    /* Smallest number of a chunk that differs; all bits set before the launch. */
    gds_u64 first_bad;
    /* Chunks that differ; 0 before the launch. */
    gds_u64 bad;
};

/* What is to be done. The layout is `device::CrcWork` of the Rust side. */
struct gds_crc_work {
    /* Address of `range_count` ranges, in the order of `first`. */
    gds_u64 ranges;
    gds_u64 range_count;
    /* Chunks of all ranges. */
    gds_u64 chunk_count;
    /* A power of two, 512 to 1 MiB. The last chunk of a range may be shorter. */
    gds_u64 chunk_bytes;
    /* Address of a word a chunk that takes its CRC, or 0. */
    gds_u64 crcs;
    /* Address of a word a chunk that its CRC should equal, or 0. */
    gds_u64 expected;
    /* Address of the verdict on `expected`. */
    gds_u64 verdict;
};

static_assert(sizeof(gds_crc_range) == 24, "shared with Rust");
static_assert(sizeof(gds_crc_verdict) == 16, "shared with Rust");
static_assert(sizeof(gds_crc_work) == 56, "shared with Rust");

/* Reflected: bit 31 of a word is x^0, bit 0 is x^31. */
constexpr unsigned GDS_CRC_P = 0x82F63B78u;
constexpr unsigned GDS_CRC_ONE = 0x80000000u;
constexpr unsigned GDS_CRC_LANES = 32;
/* Bytes that a lane reads of a row. */
constexpr unsigned GDS_CRC_STEP = 16;
/* Rows that a lane has in flight while it works on as many: 2 KiB a warp. */
constexpr unsigned GDS_CRC_BATCH = 4;

/* Times x. */
#ifdef __CUDACC__
__host__ __device__
#endif
    constexpr unsigned gds_crc_up(unsigned a)
{
    return (a >> 1) ^ ((a & 1) != 0 ? GDS_CRC_P : 0);
}

/* Divided by x: P has the term 1, so there is one such value. */
constexpr unsigned gds_crc_down(unsigned a)
{
    return (a & GDS_CRC_ONE) != 0 ? ((a ^ GDS_CRC_P) << 1) | 1 : a << 1;
}

struct gds_crc_powers {
    /* x^4096: from one row to the next. */
    unsigned row;
    /* x^(32 + 128 * (31 - lane)): from the last word of a lane to the end of the row. */
    unsigned lane[GDS_CRC_LANES];
    /* x^(-8 * bytes): takes zeroes off the end. */
    unsigned back[GDS_CRC_STEP];
    /* x^-32 times the register that CRC32C starts with: four bytes that have its effect. */
    unsigned before;
};

constexpr gds_crc_powers gds_crc_make_powers()
{
    gds_crc_powers made = {};
    unsigned a = GDS_CRC_ONE;
    for (unsigned i = 0; i < 32; i++) {
        a = gds_crc_up(a);
    }
    for (unsigned lane = GDS_CRC_LANES; lane-- > 0;) {
        made.lane[lane] = a;
        for (unsigned i = 0; i < 8 * GDS_CRC_STEP; i++) {
            a = gds_crc_up(a);
        }
    }
    /* Here a is x^(32 + 4096). */
    for (unsigned i = 0; i < 32; i++) {
        a = gds_crc_down(a);
    }
    made.row = a;
    a = GDS_CRC_ONE;
    for (unsigned bytes = 0; bytes < GDS_CRC_STEP; bytes++) {
        made.back[bytes] = a;
        for (unsigned i = 0; i < 8; i++) {
            a = gds_crc_down(a);
        }
    }
    made.before = 0xffffffffu;
    for (unsigned i = 0; i < 32; i++) {
        made.before = gds_crc_down(made.before);
    }
    return made;
}

/* Not in a namespace: its name in the PTX would depend on where it was compiled. */
GDS_CONSTANT gds_crc_powers gds_crc_power = gds_crc_make_powers();

namespace {

#ifndef __CUDACC__
/* The chunk in work. The page tables would not notice a vector that sticks out of it. */
thread_local gds_u64 gds_crc_bounds[2];
#endif

/* 16 bytes, read by one load. */
struct alignas(16) gds_crc_vector {
    unsigned word[4];
};

/* Shared memory of a block. */
struct gds_crc_tables {
    /* [position of the four bits][their value][lane]: times x^4096. */
    unsigned row[8][16][GDS_CRC_LANES];
    /* The same: times the lane's power of x. */
    unsigned last[8][16][GDS_CRC_LANES];
    /* [position of the byte][its value]: times x^32. */
    unsigned word[4][256];
};

/* A product that is needed once in a while. */
GDS_FN unsigned gds_crc_product(unsigned a, unsigned b)
{
    unsigned sum = 0;
    GDS_ROLLED
    for (unsigned i = 0; i < 32; i++) {
        sum ^= (b & (GDS_CRC_ONE >> i)) != 0 ? a : 0;
        a = gds_crc_up(a);
    }
    return sum;
}

/* The share of one thread in making the tables. */
GDS_FN void gds_crc_fill(gds_crc_tables &tables, unsigned thread, unsigned threads)
{
    for (unsigned i = thread; i < 2 * 8 * GDS_CRC_LANES; i += threads) {
        const unsigned lane = i % GDS_CRC_LANES;
        const unsigned at = i / GDS_CRC_LANES % 8;
        const bool row = i < 8 * GDS_CRC_LANES;
        /* Bit 4 * at + 3 is x^(28 - 4 * at); the bits below are the next powers. */
        unsigned a = row ? gds_crc_power.row : gds_crc_power.lane[lane];
        GDS_ROLLED
        for (unsigned up = 4 * at; up < 28; up++) {
            a = gds_crc_up(a);
        }
        unsigned bit[4];
        GDS_UNROLL
        for (unsigned j = 4; j-- > 0;) {
            bit[j] = a;
            a = gds_crc_up(a);
        }
        GDS_UNROLL
        for (unsigned value = 0; value < 16; value++) {
            const unsigned sum = ((value & 1) != 0 ? bit[0] : 0) ^ ((value & 2) != 0 ? bit[1] : 0) ^
                                 ((value & 4) != 0 ? bit[2] : 0) ^ ((value & 8) != 0 ? bit[3] : 0);
            if (row) {
                tables.row[at][value][lane] = sum;
            } else {
                tables.last[at][value][lane] = sum;
            }
        }
    }
    for (unsigned i = thread; i < 4 * 256; i += threads) {
        unsigned a = i % 256 << (i / 256 * 8);
        GDS_ROLLED
        for (unsigned up = 0; up < 32; up++) {
            a = gds_crc_up(a);
        }
        tables.word[i / 256][i % 256] = a;
    }
}

/* x times the constant of the table. A value's entry is 128 bytes from the next one's, so the four
 * bits are shifted to where they are an offset already. */
GDS_FN unsigned gds_crc_times(const unsigned (&table)[8][16][GDS_CRC_LANES], unsigned x,
                              unsigned lane)
{
    const char *bytes = reinterpret_cast<const char *>(table);
    unsigned sum = 0;
    GDS_UNROLL
    for (unsigned at = 0; at < 8; at++) {
        const unsigned shifted = at < 2 ? x << (7 - 4 * at) : x >> (4 * at - 7);
        const unsigned offset = (shifted & 0x780u) | (lane * 4);
        sum ^= *reinterpret_cast<const unsigned *>(bytes + at * 2048 + offset);
    }
    return sum;
}

/* x times x^32. */
GDS_FN unsigned gds_crc_next_word(const gds_crc_tables &tables, unsigned x)
{
    return tables.word[0][x & 255] ^ tables.word[1][x >> 8 & 255] ^ tables.word[2][x >> 16 & 255] ^
           tables.word[3][x >> 24];
}

/* A chunk as rows of vectors. */
struct gds_crc_layout {
    /* Address of the first vector: that of the chunk, rounded down. */
    gds_u64 base;
    /* First and last byte of the chunk, counted from `base`; the last is exclusive. */
    unsigned begin;
    unsigned end;
    /* Vectors of zeroes in front of the first one. */
    unsigned pad;
    unsigned rows;
};

GDS_FN gds_crc_layout gds_crc_plan(gds_u64 address, unsigned size)
{
    gds_crc_layout plan;
    plan.begin = (unsigned)(address % GDS_CRC_STEP);
    plan.base = address - plan.begin;
    plan.end = plan.begin + size;
    const unsigned vectors = (plan.end + GDS_CRC_STEP - 1) / GDS_CRC_STEP;
    plan.rows = (vectors + GDS_CRC_LANES - 1) / GDS_CRC_LANES;
    plan.pad = plan.rows * GDS_CRC_LANES - vectors;
    return plan;
}

GDS_FN gds_crc_vector gds_crc_load(gds_u64 address)
{
#ifdef __CUDACC__
    /* Read once: do not displace what other kernels keep in the caches. */
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(address));
    return gds_crc_vector{{v.x, v.y, v.z, v.w}};
#else
    if (address < gds_crc_bounds[0] || address + GDS_CRC_STEP > gds_crc_bounds[1]) {
        __builtin_trap();
    }
    return *reinterpret_cast<const gds_crc_vector *>(address);
#endif
}

/* The vector of a lane in the first or last row: what of it is not of the chunk is zero. */
GDS_FN gds_crc_vector gds_crc_load_edge(const gds_crc_layout &plan, unsigned row, unsigned lane)
{
    gds_crc_vector v = {{0, 0, 0, 0}};
    const unsigned place = row * GDS_CRC_LANES + lane;
    if (place < plan.pad) {
        return v;
    }
    const unsigned at = (place - plan.pad) * GDS_CRC_STEP;
    if (at >= plan.begin && at + GDS_CRC_STEP <= plan.end) {
        return gds_crc_load(plan.base + at);
    }
    /* From the last byte to the first: each pushes the others up. */
    GDS_ROLLED
    for (unsigned i = at + GDS_CRC_STEP; i-- > at;) {
        unsigned value = 0;
        if (i >= plan.begin && i < plan.end) {
            value = *reinterpret_cast<const unsigned char *>(plan.base + i);
        }
        GDS_UNROLL
        for (unsigned word = 3; word > 0; word--) {
            v.word[word] = v.word[word] << 8 | v.word[word - 1] >> 24;
        }
        v.word[0] = v.word[0] << 8 | value;
    }
    return v;
}

/* What the sums of a lane are before the first row: the ones that CRC32C starts with, as bytes of
 * the first vector. They go onto the first four bytes of the chunk, or, where those reach into the
 * next vector, into the four before them. */
GDS_FN gds_crc_vector gds_crc_start(const gds_crc_layout &plan, unsigned lane)
{
    gds_crc_vector sums = {{0, 0, 0, 0}};
    if (lane != plan.pad) {
        return sums;
    }
    const bool fits = plan.begin + 4 <= GDS_CRC_STEP;
    const unsigned value = fits ? 0xffffffffu : gds_crc_power.before;
    const unsigned at = fits ? plan.begin : plan.begin - 4;
    GDS_UNROLL
    for (unsigned word = 0; word < 4; word++) {
        /* Bytes from the value's first to the word's first. */
        const int ahead = (int)(word * 4) - (int)at;
        if (ahead >= 0 && ahead < 4) {
            sums.word[word] = value >> (8 * ahead);
        } else if (ahead < 0 && ahead > -4) {
            sums.word[word] = value << (-8 * ahead);
        }
    }
    return sums;
}

/* One row more: sums * x^4096 + words. Nothing came before row 0. */
GDS_FN void gds_crc_add(const gds_crc_tables &tables, gds_crc_vector &sums, const gds_crc_vector &v,
                        unsigned row, unsigned lane)
{
    if (row != 0) {
        GDS_UNROLL
        for (unsigned word = 0; word < 4; word++) {
            sums.word[word] = gds_crc_times(tables.row, sums.word[word], lane);
        }
    }
    GDS_UNROLL
    for (unsigned word = 0; word < 4; word++) {
        sums.word[word] ^= v.word[word];
    }
}

/* The rows from `row` to `last`, which lie in the chunk from end to end. While one batch is worked
 * on the next one is on its way. */
GDS_FN void gds_crc_add_rows(const gds_crc_tables &tables, gds_crc_vector &sums, gds_u64 address,
                             unsigned row, unsigned last, unsigned lane)
{
    constexpr gds_u64 ROW = GDS_CRC_LANES * GDS_CRC_STEP;
    gds_crc_vector now[GDS_CRC_BATCH], next[GDS_CRC_BATCH];
    GDS_UNROLL
    for (unsigned i = 0; i < GDS_CRC_BATCH; i++) {
        next[i] = gds_crc_vector{{0, 0, 0, 0}};
        if (row + i < last) {
            next[i] = gds_crc_load(address + (row + i) * ROW);
        }
    }
    GDS_ROLLED
    for (; row < last; row += GDS_CRC_BATCH) {
        GDS_UNROLL
        for (unsigned i = 0; i < GDS_CRC_BATCH; i++) {
            now[i] = next[i];
            if (row + GDS_CRC_BATCH + i < last) {
                next[i] = gds_crc_load(address + (row + GDS_CRC_BATCH + i) * ROW);
            }
        }
        GDS_UNROLL
        for (unsigned i = 0; i < GDS_CRC_BATCH; i++) {
            if (row + i < last) {
                gds_crc_add(tables, sums, now[i], row + i, lane);
            }
        }
    }
}

/* What one lane adds to the CRC of a chunk of `size` bytes, more than 0. */
GDS_FN unsigned gds_crc_lane(const gds_crc_tables &tables, const gds_crc_layout &plan,
                             unsigned lane)
{
    gds_crc_vector sums = gds_crc_start(plan, lane);
    const bool whole = plan.begin == 0 && plan.pad == 0 && plan.end % GDS_CRC_STEP == 0;
    const unsigned first = whole ? 0 : 1;
    const unsigned last = whole || plan.rows == 1 ? plan.rows : plan.rows - 1;
    if (!whole) {
        gds_crc_add(tables, sums, gds_crc_load_edge(plan, 0, lane), 0, lane);
    }
    /* The address of row 0, which may lie before the chunk where that row is not read here. */
    const gds_u64 address = plan.base + (gds_u64)lane * GDS_CRC_STEP -
                            (gds_u64)plan.pad * GDS_CRC_STEP;
    gds_crc_add_rows(tables, sums, address, first, last, lane);
    if (last < plan.rows) {
        gds_crc_add(tables, sums, gds_crc_load_edge(plan, last, lane), last, lane);
    }
    unsigned sum = sums.word[0];
    GDS_UNROLL
    for (unsigned word = 1; word < 4; word++) {
        sum = gds_crc_next_word(tables, sum) ^ sums.word[word];
    }
    return gds_crc_times(tables.last, sum, lane);
}

/* The CRC from the sum of the lanes. */
GDS_FN unsigned gds_crc_end(const gds_crc_layout &plan, unsigned sum)
{
    const unsigned zeroes = (0 - plan.end) % GDS_CRC_STEP;
    if (zeroes != 0) {
        sum = gds_crc_product(sum, gds_crc_power.back[zeroes]);
    }
    return ~sum;
}

/* The last range that begins with `chunk` or before, `low` or a later one. */
GDS_FN gds_u64 gds_crc_find(const gds_crc_range *ranges, gds_u64 low, gds_u64 count, gds_u64 chunk)
{
    gds_u64 high = count;
    while (high - low > 1) {
        const gds_u64 middle = low + (high - low) / 2;
        if (ranges[middle].first <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

GDS_FN gds_crc_layout gds_crc_plan_chunk(const gds_crc_work &work, const gds_crc_range &range,
                                         gds_u64 chunk)
{
    const gds_u64 at = (chunk - range.first) * work.chunk_bytes;
    const gds_u64 rest = range.size - at;
    const gds_u64 size = rest < work.chunk_bytes ? rest : work.chunk_bytes;
    return gds_crc_plan(range.address + at, (unsigned)size);
}

} // namespace

#ifdef __CUDACC__

/* `work` has one chunk at least. Any grid; blocks of 512 threads. */
extern "C" __global__ void __launch_bounds__(512, 2) gds_crc32c_chunks(gds_crc_work work)
{
    __shared__ gds_crc_tables tables;
    gds_crc_fill(tables, threadIdx.x, blockDim.x);
    __syncthreads();
    const unsigned lane = threadIdx.x % GDS_CRC_LANES;
    const gds_u64 warps = (gds_u64)gridDim.x * (blockDim.x / GDS_CRC_LANES);
    /* Neighbouring chunks go to different blocks, so that few chunks use the whole device. */
    const gds_u64 warp = (gds_u64)(threadIdx.x / GDS_CRC_LANES) * gridDim.x + blockIdx.x;
    const gds_crc_range *ranges = reinterpret_cast<const gds_crc_range *>(work.ranges);
    gds_u64 at = 0;
    for (gds_u64 chunk = warp; chunk < work.chunk_count; chunk += warps) {
        at = gds_crc_find(ranges, at, work.range_count, chunk);
        const gds_crc_layout plan = gds_crc_plan_chunk(work, ranges[at], chunk);
        unsigned sum = gds_crc_lane(tables, plan, lane);
        GDS_UNROLL
        for (unsigned distance = GDS_CRC_LANES / 2; distance > 0; distance /= 2) {
            sum ^= __shfl_xor_sync(0xffffffffu, sum, distance);
        }
        const unsigned crc = gds_crc_end(plan, sum);
        if (lane != 0) {
            continue;
        }
        if (work.crcs != 0) {
            reinterpret_cast<unsigned *>(work.crcs)[chunk] = crc;
        }
        if (work.expected != 0 && reinterpret_cast<const unsigned *>(work.expected)[chunk] != crc) {
            gds_crc_verdict *verdict = reinterpret_cast<gds_crc_verdict *>(work.verdict);
            atomicMin(&verdict->first_bad, chunk);
            atomicAdd(&verdict->bad, 1ull);
        }
    }
}

#else

/* The same work on the processor, for `warps` warps one after the other, into `work.crcs`. */
extern "C" void gds_crc32c_chunks_on_host(const gds_crc_work *work, gds_u64 warps)
{
    static gds_crc_tables tables;
    for (unsigned thread = 0; thread < 512; thread++) {
        gds_crc_fill(tables, thread, 512);
    }
    const gds_crc_range *ranges = reinterpret_cast<const gds_crc_range *>(work->ranges);
    for (gds_u64 warp = 0; warp < warps; warp++) {
        gds_u64 at = 0;
        for (gds_u64 chunk = warp; chunk < work->chunk_count; chunk += warps) {
            at = gds_crc_find(ranges, at, work->range_count, chunk);
            const gds_crc_layout plan = gds_crc_plan_chunk(*work, ranges[at], chunk);
            gds_crc_bounds[0] = plan.base + plan.begin;
            gds_crc_bounds[1] = plan.base + plan.end;
            unsigned sum = 0;
            for (unsigned lane = 0; lane < GDS_CRC_LANES; lane++) {
                sum ^= gds_crc_lane(tables, plan, lane);
            }
            reinterpret_cast<unsigned *>(work->crcs)[chunk] = gds_crc_end(plan, sum);
        }
    }
}

#endif
