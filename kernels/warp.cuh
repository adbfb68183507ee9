/*
 * A warp, on a GPU and on the processor: what kernels whose units belong to a warp share.
 *
 * On the processor a loop stands for the lanes, upwards or downwards, so that a value which needs
 * another lane's value of the same step comes out wrong.
 */
#ifndef GDS_WARP_CUH
#define GDS_WARP_CUH

#ifdef __CUDACC__
#define GDS_FN static __device__ __forceinline__
/* What is long and called from many places: one copy of the code is enough. Outside of namespaces,
 * so that its name is the same wherever it is compiled. */
#define GDS_FN_FAR extern "C" __device__ __noinline__
#define GDS_LANE (threadIdx.x % GDS_LANES)
#define GDS_FOR_LANES(lane) if (const unsigned lane = GDS_LANE; true)
#define GDS_FOR_LANES_DOWN(lane) GDS_FOR_LANES(lane)
/* What the lanes wrote is there for all of them. */
#define GDS_SYNC() __syncwarp()
#define GDS_UNROLL _Pragma("unroll")
#else
#define GDS_FN static inline
#define GDS_FN_FAR static
#define GDS_FOR_LANES(lane) for (unsigned lane = 0; lane < GDS_LANES; lane++)
#define GDS_FOR_LANES_DOWN(lane) for (unsigned lane = GDS_LANES; lane-- > 0;)
#define GDS_SYNC() ((void)0)
#define GDS_UNROLL
#endif

typedef unsigned long long gds_u64;

namespace {

constexpr unsigned GDS_LANES = 32;
/* Threads of a block. */
constexpr unsigned GDS_THREADS = 128;

/* A value of each lane. */
template <typename T> struct gds_each {
#ifdef __CUDACC__
    T own;
    __device__ T &operator[](unsigned)
    {
        return own;
    }
#else
    T all[GDS_LANES];
    T &operator[](unsigned lane)
    {
        return all[lane];
    }
#endif
};

GDS_FN unsigned gds_count(unsigned word)
{
#ifdef __CUDACC__
    return __popc(word);
#else
    return (unsigned)__builtin_popcount(word);
#endif
}

/* Place of the lowest bit of a word that is not 0, and of the highest. */
GDS_FN unsigned gds_lowest(unsigned word)
{
#ifdef __CUDACC__
    return __ffs(word) - 1;
#else
    return (unsigned)__builtin_ctz(word);
#endif
}

GDS_FN unsigned gds_highest(unsigned word)
{
#ifdef __CUDACC__
    return 31 - __clz(word);
#else
    return 31 - (unsigned)__builtin_clz(word);
#endif
}

/* Bits of the lanes before. */
GDS_FN unsigned gds_below(unsigned lane)
{
    return (1u << lane) - 1;
}

GDS_FN unsigned gds_ballot(gds_each<bool> &of)
{
#ifdef __CUDACC__
    return __ballot_sync(0xFFFFFFFFu, of.own);
#else
    unsigned bits = 0;
    GDS_FOR_LANES(lane)
    {
        bits |= (of[lane] ? 1u : 0u) << lane;
    }
    return bits;
#endif
}

template <typename T> GDS_FN T gds_of_lane(gds_each<T> &of, unsigned which)
{
#ifdef __CUDACC__
    return __shfl_sync(0xFFFFFFFFu, of.own, which);
#else
    return of[which];
#endif
}

/* The sum of what the lanes before have; that of all of them. */
GDS_FN unsigned gds_sums_before(gds_each<unsigned> &of, gds_each<unsigned> &sums)
{
#ifdef __CUDACC__
    unsigned sum = of.own;
    for (unsigned step = 1; step < GDS_LANES; step *= 2) {
        const unsigned before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
        sum += GDS_LANE >= step ? before : 0;
    }
    sums.own = sum - of.own;
    return __shfl_sync(0xFFFFFFFFu, sum, GDS_LANES - 1);
#else
    unsigned sum = 0;
    GDS_FOR_LANES(lane)
    {
        sums[lane] = sum;
        sum += of[lane];
    }
    return sum;
#endif
}

/* Asks for a place that will be read soon, if it is before `end`. */
GDS_FN void gds_ask(const unsigned char *place, const unsigned char *end)
{
#ifdef __CUDACC__
    if (GDS_LANE == 0 && place < end) {
        asm volatile("prefetch.global.L1 [%0];" ::"l"(place));
    }
#else
    (void)place;
    (void)end;
#endif
}

constexpr unsigned GDS_NEAR_WORDS = 1024;

} // namespace

#ifdef __CUDACC__
/* Outside of namespaces, so that its name is the same wherever it is compiled. */
__shared__ unsigned gds_near_words[GDS_THREADS / GDS_LANES][GDS_NEAR_WORDS + 1];
#endif

namespace {

/* Some bytes near: in shared memory, or where they are on the processor. */
struct gds_near {
#ifdef __CUDACC__
    const unsigned *words;
#else
    const unsigned char *bytes;
#endif
    /* Where place 0 here is in the whole; a few bytes before what was asked for, maybe. */
    gds_u64 begin;
    /* How many are here. */
    unsigned size;
};

/* Brings bytes near, as many as there is room for: those from `from` on, of which there are `left`,
 * and which are `at` bytes into the whole. Reads the aligned words that they lie in. */
GDS_FN gds_near gds_bring(const unsigned char *from, gds_u64 left, gds_u64 at)
{
    constexpr unsigned WORDS = GDS_NEAR_WORDS;
    gds_near made;
#ifdef __CUDACC__
    constexpr unsigned AT_ONCE = 8;
    unsigned *own = gds_near_words[threadIdx.x / GDS_LANES];
    const gds_u64 address = reinterpret_cast<gds_u64>(from), lead = address & 3;
    const unsigned *in = reinterpret_cast<const unsigned *>(address - lead);
    const unsigned size = lead + left < 4 * WORDS ? (unsigned)(lead + left) : 4 * WORDS;
    const unsigned words = (size + 3) / 4;
    __syncwarp();
    for (unsigned first = GDS_LANE; first < words; first += AT_ONCE * GDS_LANES) {
        unsigned some[AT_ONCE];
        GDS_UNROLL
        for (unsigned n = 0; n < AT_ONCE; n++) {
            some[n] = first + n * GDS_LANES < words ? in[first + n * GDS_LANES] : 0;
        }
        GDS_UNROLL
        for (unsigned n = 0; n < AT_ONCE; n++) {
            if (first + n * GDS_LANES < words) {
                own[first + n * GDS_LANES] = some[n];
            }
        }
    }
    __syncwarp();
    made.words = own;
    made.begin = at - lead;
    made.size = size;
#else
    made.bytes = from;
    made.begin = at;
    made.size = left < 4 * WORDS ? (unsigned)left : 4 * WORDS;
#endif
    return made;
}

/* Four bytes of those that are near. */
GDS_FN unsigned gds_near_word(const gds_near &near, unsigned place)
{
#ifdef __CUDACC__
    const unsigned *words = near.words + place / 4;
    return __funnelshift_r(words[0], words[1], 8 * (place % 4));
#else
    const unsigned char *p = near.bytes + place;
    return p[0] | (unsigned)p[1] << 8 | (unsigned)p[2] << 16 | (unsigned)p[3] << 24;
#endif
}

} // namespace

#endif
