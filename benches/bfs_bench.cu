// Breadth-first search of a graph whose edges are in a file, through gds::cached_array, beside the
// same search with the edges in device memory and in pinned host memory that kernels read.
//
//   bfs_bench [--scale 22] [--degree 16] [--graph rmat|uniform] [--id-bytes 8|4] [--page 4K]
//             [--cache 25,50,100] [--ways WAY,...] [--runs 3] [--cold] [--service N] [--slots N]
//             [--file PATH] [--keep]
//
// Ways, all of them left out:
//   device    every edge in device memory
//   zerocopy  every edge in pinned host memory, read by the kernel across the bus
//   cached    edges in the file; a warp pins a page (gds::warp_page) and reads its part of it
//   element   edges in the file; each lane reads by itself (gds::cached_array's operator [])
// The last two run once for each of --cache, the percent of the edges that the frames hold, and
// twice each time: with an empty cache, and with what the first search left in it.
//
// The file is in the page cache, or not (--cold); GDS_PATH=direct reads it past the page cache.
// Levels of every search are compared with those of a search on the host. A search reads the edges
// of each vertex that it reaches once: `amplification` is the bytes that were read from the file
// for each byte of these. TEPS count entries of the graph, two for an undirected edge.

#include "bench.cuh"
#include "gds_rs.cuh"
#include "graph.cuh"

namespace {

const char USAGE[] =
    "usage: bfs_bench [--scale N] [--degree N] [--graph rmat|uniform] [--id-bytes 8|4]\n"
    "                 [--page BYTES] [--cache PERCENT,...] [--runs N] [--cold] [--service N]\n"
    "                 [--ways device,zerocopy,cached,element] [--slots N] [--file PATH] [--keep]\n";

constexpr uint32_t LANES = 32;
constexpr uint32_t THREADS = 256;
// Blocks of a multiprocessor that registers must leave room for: left alone, the code that brings
// pages takes so many that a quarter of the warps fit, and a search waits for memory all the time.
#ifndef BFS_BENCH_BLOCKS
#define BFS_BENCH_BLOCKS 4
#endif
constexpr uint32_t UNSEEN = ~0u;
// Edges that one warp takes: a vertex with more is shared by several.
constexpr uint64_t SEGMENT = 1024;

// ---- edges ---------------------------------------------------------------------------------

__device__ uint32_t lane_of_warp() { return threadIdx.x % LANES; }

// Memory that the kernel reads, on the device or on the host. A warp reads whole 128 bytes, four
// of them at once.
template <class Id> struct Plain {
    const Id *ids;

    template <class F> __device__ void each(uint64_t begin, uint64_t end, F visit) const {
        constexpr int AHEAD = 4;
        uint64_t at = begin / (128 / sizeof(Id)) * (128 / sizeof(Id)) + lane_of_warp();
        for (; at < end; at += AHEAD * LANES) {
            Id found[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                const uint64_t i = at + k * LANES;
                if (i >= begin && i < end) found[k] = ids[i];
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                const uint64_t i = at + k * LANES;
                if (i >= begin && i < end) visit(found[k]);
            }
        }
    }
};

template <class Id> struct Pages {
    gds::cached_array<Id> array;

    template <class F> __device__ void each(uint64_t begin, uint64_t end, F visit) const {
        for (uint64_t at = begin; at < end;) {
            __syncwarp();
            gds::warp_page<Id> page(array, at);
            const uint64_t first = page.first(), last = min(end, (uint64_t)(first + page.count()));
            // NULL: why is told by gds_array_release().
            if (page.data() != nullptr) {
                for (uint64_t i = at + lane_of_warp(); i < last; i += LANES) {
                    visit(page.data()[i - first]);
                }
            }
            at = last;
        }
    }
};

template <class Id> struct Elements {
    gds::cached_array<Id> array;

    template <class F> __device__ void each(uint64_t begin, uint64_t end, F visit) const {
        for (uint64_t i = begin + lane_of_warp(); i < end; i += LANES) visit(array[i]);
    }
};

// ---- the search ----------------------------------------------------------------------------

struct Counters {
    unsigned long long items, edges;
};

// Lists the vertices of a level, in pieces of SEGMENT edges, nearly in order: what is next to each
// other in the file is wanted at about the same time.
__global__ void collect(const uint64_t *offsets, const uint32_t *levels, uint64_t vertices,
                        uint32_t level, uint64_t *items, Counters *counters) {
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t self = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t lane = lane_of_warp();
    for (uint64_t base = self - lane; base < vertices; base += step) {
        const uint64_t v = base + lane;
        const bool in = v < vertices && levels[v] == level;
        const uint64_t degree = in ? offsets[v + 1] - offsets[v] : 0;
        const uint64_t count = (degree + SEGMENT - 1) / SEGMENT;
        // Sums over the lanes up to this one.
        uint64_t pieces = count, edges = degree;
        for (uint32_t by = 1; by < LANES; by *= 2) {
            const uint64_t p = __shfl_up_sync(0xFFFFFFFFu, pieces, by);
            const uint64_t e = __shfl_up_sync(0xFFFFFFFFu, edges, by);
            if (lane >= by) {
                pieces += p;
                edges += e;
            }
        }
        unsigned long long place = 0;
        if (lane == LANES - 1 && pieces > 0) {
            place = atomicAdd(&counters->items, (unsigned long long)pieces);
            atomicAdd(&counters->edges, (unsigned long long)edges);
        }
        place = __shfl_sync(0xFFFFFFFFu, place, LANES - 1) + pieces - count;
        for (uint64_t i = 0; i < count; i++) items[place + i] = v | i << 32;
    }
}

// A warp takes a piece of a vertex's edges and gives their ends the next level. Several may give
// it to the same vertex: it is the same.
template <class Edges>
__global__ void __launch_bounds__(THREADS, BFS_BENCH_BLOCKS)
    expand(Edges edges, const uint64_t *offsets, uint32_t *levels, uint64_t vertices,
           uint32_t level, const uint64_t *items, uint64_t count) {
    const uint64_t warps = (uint64_t)gridDim.x * blockDim.x / LANES;
    const uint64_t warp = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    for (uint64_t item = warp; item < count; item += warps) {
        const uint64_t v = items[item] & 0xFFFFFFFFu;
        const uint64_t begin = offsets[v] + (items[item] >> 32) * SEGMENT;
        const uint64_t end = min(offsets[v + 1], begin + SEGMENT);
        edges.each(begin, end, [&](uint64_t to) {
            if (to < vertices && levels[to] == UNSEEN) levels[to] = level + 1;
        });
    }
}

// What searches share, in device memory.
struct Search {
    uint64_t vertices = 0;
    uint64_t source = 0;
    unsigned processors = 0;
    cudaStream_t stream = nullptr;
    uint64_t *offsets = nullptr, *items = nullptr;
    uint32_t *levels = nullptr;
    Counters *counters = nullptr;
    std::vector<uint32_t> expected;
    uint64_t edges = 0;
    uint32_t depth = 0;

    // Seconds. Ends the program when a level is wrong, once `before_check` has run.
    template <class Edges, class F> double run(const Edges &graph, F before_check) {
        const uint32_t zero = 0;
        CUDA_OK(cudaMemset(levels, 0xFF, vertices * 4));
        CUDA_OK(cudaMemcpy(levels + source, &zero, 4, cudaMemcpyHostToDevice));
        CUDA_OK(cudaDeviceSynchronize());
        // What runs at once: blocks that wait for others would be left with their share.
        int resident = 0;
        CUDA_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, expand<Edges>, THREADS,
                                                              0));
        const unsigned grid = processors * 8, grid_of_expand = processors * (unsigned)resident;
        Counters found = {0, 0};
        edges = 0;
        const double begin = now();
        for (depth = 0;; depth++) {
            CUDA_OK(cudaMemsetAsync(counters, 0, sizeof *counters, stream));
            collect<<<grid, THREADS, 0, stream>>>(offsets, levels, vertices, depth, items,
                                                  counters);
            CUDA_OK(cudaMemcpyAsync(&found, counters, sizeof found, cudaMemcpyDeviceToHost,
                                    stream));
            CUDA_OK(cudaStreamSynchronize(stream));
            if (found.items == 0) break;
            edges += found.edges;
            expand<Edges><<<grid_of_expand, THREADS, 0, stream>>>(graph, offsets, levels, vertices,
                                                                  depth, items, found.items);
            CUDA_OK(cudaGetLastError());
        }
        const double seconds = now() - begin;
        before_check();
        std::vector<uint32_t> got(vertices);
        CUDA_OK(cudaMemcpy(got.data(), levels, vertices * 4, cudaMemcpyDeviceToHost));
        for (uint64_t v = 0; v < vertices; v++) {
            NEED(got[v] == expected[v], "WRONG LEVEL: vertex " + std::to_string(v) + " has " +
                                            std::to_string(got[v]) + ", the host says " +
                                            std::to_string(expected[v]));
        }
        return seconds;
    }
};

// ---- cases ---------------------------------------------------------------------------------

struct Case {
    std::string way;
    uint64_t percent = 0;
    bool kept = false;
    std::vector<double> seconds, pages;
};

template <class Id> class Bench {
  public:
    Bench(const Arguments &arguments, const cudaDeviceProp &about)
        : arguments_(arguments),
          graph_(arguments.text("--graph", "rmat") == "uniform" ? Shape::UNIFORM : Shape::RMAT,
                 (uint32_t)arguments.size("--scale", 22), arguments.size("--degree", 16)),
          page_((uint32_t)arguments.size("--page", 4096)) {
        search_.vertices = graph_.vertices;
        search_.processors = (unsigned)about.multiProcessorCount;
        while (graph_.degree(search_.source) == 0) search_.source++;
        search_.expected = graph_.search(search_.source);
        CUDA_OK(cudaStreamCreateWithFlags(&search_.stream, cudaStreamNonBlocking));
        CUDA_OK(cudaMalloc((void **)&search_.offsets, (graph_.vertices + 1) * 8));
        CUDA_OK(cudaMemcpy(search_.offsets, graph_.offsets.data(), (graph_.vertices + 1) * 8,
                           cudaMemcpyHostToDevice));
        CUDA_OK(cudaMalloc((void **)&search_.items,
                           (graph_.vertices + graph_.edges / SEGMENT + 1) * 8));
        CUDA_OK(cudaMalloc((void **)&search_.levels, graph_.vertices * 4));
        CUDA_OK(cudaMalloc((void **)&search_.counters, sizeof *search_.counters));
        path_ = arguments.text("--file", default_path());
        graph_.write(path_);
        context_ = open_context();
    }
    ~Bench() {
        gds_context_close(context_);
        cudaFree(edges_);
        if (!arguments_.flag("--keep")) unlink(path_.c_str());
    }

    void run() {
        make_cases();
        const uint64_t runs = arguments_.size("--runs", 3);
        // A round before the first one counts for nothing.
        for (uint64_t round = 0; round <= runs; round++) {
            for (size_t turn = 0; turn < cases_.size(); turn++) {
                Case &self = cases_[(turn + round) % cases_.size()];
                // What was left in a cache is measured together with the search that left it.
                if (!self.kept) run_case(self, round > 0);
            }
        }
        for (const Case &c : cases_) print(c);
    }

  private:
    const Arguments &arguments_;
    Graph<Id> graph_;
    uint32_t page_;
    Search search_;
    std::string path_;
    gds_context_t *context_ = nullptr;
    Id *edges_ = nullptr;
    std::vector<Case> cases_;

    static std::string default_path() {
        const char *folder = getenv("TMPDIR");
        return std::string(folder != nullptr ? folder : "/var/tmp") + "/bfs_bench." +
               std::to_string(getpid());
    }

    void make_cases() {
        for (const std::string &way : arguments_.words("--ways",
                                                       "device,zerocopy,cached,element")) {
            if (way == "device" || way == "zerocopy") {
                cases_.push_back({way, 100, false, {}, {}});
                continue;
            }
            NEED(way == "cached" || way == "element", "unknown way: " + way);
            for (uint64_t percent : arguments_.sizes("--cache", "25,50,100")) {
                NEED(percent > 0, "--cache is at least 1");
                cases_.push_back({way, percent, false, {}, {}});
                cases_.push_back({way, percent, true, {}, {}});
            }
        }
    }

    void note(Case &self, double seconds, uint64_t pages, bool counts) {
        fprintf(stderr, "%s %s, %llu%%%s: %.4f s, %llu pages\n", counts ? "measured" : "unmeasured",
                self.way.c_str(), (unsigned long long)self.percent, self.kept ? ", kept" : "",
                seconds, (unsigned long long)pages);
        if (!counts) return;
        self.seconds.push_back(seconds);
        self.pages.push_back((double)pages);
    }

    void run_case(Case &self, bool counts) {
        const auto nothing = [] {};
        if (self.way == "zerocopy") {
            Id *mapped = nullptr;
            CUDA_OK(cudaHostGetDevicePointer((void **)&mapped, graph_.ids, 0));
            note(self, search_.run(Plain<Id>{mapped}, nothing), 0, counts);
        } else if (self.way == "device") {
            if (edges_ == nullptr) {
                CUDA_OK(cudaMalloc((void **)&edges_, graph_.bytes()));
                CUDA_OK(cudaMemcpy(edges_, graph_.ids, graph_.bytes(), cudaMemcpyHostToDevice));
            }
            note(self, search_.run(Plain<Id>{edges_}, nothing), 0, counts);
        } else {
            run_cached(self, counts);
        }
    }

    // A search with an empty cache, and one with what it left.
    void run_cached(Case &self, bool counts) {
        gds_file_t *file = nullptr;
        GDS_OK(gds_file_open(context_, path_.c_str(), GDS_FILE_READ, &file));
        gds_array_config_t config = GDS_ARRAY_CONFIG_INIT;
        config.page_bytes = page_;
        const uint64_t pages = (graph_.bytes() + page_ - 1) / page_;
        config.device_bytes = std::max<uint64_t>(pages * self.percent / 100, 1) * page_;
        config.service_threads = (uint32_t)arguments_.size("--service", 0);
        config.slots = (uint32_t)arguments_.size("--slots", 0);
        gds_array_t *array = nullptr;
        GDS_OK(gds_array_open(file, &config, &array));
        set_cached(path_, arguments_.flag("--cold"));
        uint64_t misses = 0;
        for (Case *part = &self;; part++) {
            gds_array_view_t view = GDS_ARRAY_VIEW_INIT;
            GDS_OK(gds_array_acquire(array, &view));
            const gds::cached_array<Id> ids(view);
            const auto release = [&] { GDS_OK(gds_array_release(array, search_.stream)); };
            const double seconds = self.way == "cached"
                                       ? search_.run(Pages<Id>{ids}, release)
                                       : search_.run(Elements<Id>{ids}, release);
            gds_array_stats_t stats = GDS_ARRAY_STATS_INIT;
            GDS_OK(gds_array_stats(array, &stats));
            note(*part, seconds, stats.misses - misses, counts);
            misses = stats.misses;
            if (part->kept) break;
        }
        gds_array_close(array);
        gds_file_close(file);
    }

    void print(const Case &c) const {
        const double seconds = median(c.seconds), pages = median(c.pages);
        const double read = pages * page_, wanted = (double)search_.edges * sizeof(Id);
        const bool filed = c.way == "cached" || c.way == "element";
        printf("{\"case\": \"%s\", \"cache_percent\": %llu, \"state\": \"%s\", \"page\": %u, "
               "\"seconds\": %.5f, \"gteps\": %.6f, \"edges\": %llu, \"edge_bytes\": %.0f, "
               "\"misses\": %.0f, \"pages_per_second\": %.0f, \"bytes_read\": %.0f, "
               "\"amplification\": %.3f, \"levels\": %u, \"vertices\": %llu, \"cold\": %d, "
               "\"runs\": %s}\n",
               c.way.c_str(), (unsigned long long)c.percent,
               !filed ? "-" : c.kept ? "kept" : "empty", filed ? page_ : 0, seconds,
               (double)search_.edges / seconds / 1e9, (unsigned long long)search_.edges, wanted,
               pages, pages / seconds, read, read / wanted, search_.depth,
               (unsigned long long)graph_.vertices, arguments_.flag("--cold") ? 1 : 0,
               list_of(c.seconds, "%.5f").c_str());
    }
};

} // namespace

int main(int argc, char **argv) {
    const Arguments arguments(argc, argv, USAGE, {"--cold", "--keep"},
                              {"--scale", "--degree", "--graph", "--id-bytes", "--page", "--cache",
                               "--ways", "--runs", "--service", "--slots", "--file"});
    const uint64_t scale = arguments.size("--scale", 22), id = arguments.size("--id-bytes", 8);
    if (!arguments.plain.empty() || scale < 4 || scale > 31 || (id != 4 && id != 8)) {
        fprintf(stderr, "%s", USAGE);
        return 2;
    }
    const cudaDeviceProp about = say_machine("bfs_bench");
    if (id == 8) {
        Bench<uint64_t>(arguments, about).run();
    } else {
        Bench<uint32_t>(arguments, about).run();
    }
    return 0;
}
