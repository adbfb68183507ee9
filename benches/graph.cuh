// A random graph for bfs_bench.cu, as compressed sparse rows: made on the host by all processors,
// the same for the same arguments but for the order of a vertex's edges.

#ifndef GDS_BENCHES_GRAPH_CUH
#define GDS_BENCHES_GRAPH_CUH

#include "bench.cuh"

// The finaliser of splitmix64.
inline uint64_t mixed(uint64_t x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

enum class Shape { RMAT, UNIFORM };

// 2^scale vertices, and `degree` undirected edges for each, which are two entries each. RMAT has
// the probabilities of Graph500 (0.57, 0.19, 0.19, 0.05), and its vertices are renamed, so that
// those with many edges are not all at the start. Duplicates and loops stay.
template <class Id> struct Graph {
    uint64_t vertices = 0, edges = 0;
    std::vector<uint64_t> offsets;
    Id *ids = nullptr; // pinned, and mapped to the device

    Graph(Shape shape, uint32_t scale, uint64_t degree)
        : vertices(1ull << scale), edges((2 * degree) << scale), offsets(vertices + 2),
          shape_(shape), scale_(scale) {
        CUDA_OK(cudaHostAlloc((void **)&ids, bytes(), cudaHostAllocMapped));
        // What belongs to vertex v is counted at v + 2, so that after the sums v + 1 is where it
        // begins, and after it is placed where it ends.
        each_edge([this](uint64_t from, uint64_t) { take(from + 2); });
        for (uint64_t v = 2; v < vertices + 2; v++) offsets[v] += offsets[v - 1];
        each_edge([this](uint64_t from, uint64_t to) { ids[take(from + 1)] = (Id)to; });
        offsets.pop_back();
        NEED(offsets[vertices] == edges, "the graph lost edges");
    }
    ~Graph() { cudaFreeHost(ids); }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;

    uint64_t bytes() const { return edges * sizeof(Id); }
    uint64_t degree(uint64_t v) const { return offsets[v + 1] - offsets[v]; }

    // The entries as a file of 64-bit or 32-bit numbers.
    void write(const std::string &path) const {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        NEED(fd >= 0, path + ": " + strerror(errno));
        in_parts(bytes(), [&](uint64_t begin, uint64_t end) {
            for (uint64_t at = begin; at < end; at += 4 * MiB) {
                write_exactly(fd, (const char *)ids + at, std::min(4 * MiB, end - at), at);
            }
        });
        NEED(fsync(fd) == 0, path + ": " + strerror(errno));
        close(fd);
    }

    // The level of each vertex, UINT32_MAX where the search does not come.
    std::vector<uint32_t> search(uint64_t source) const {
        std::vector<uint32_t> levels(vertices, UINT32_MAX), queue;
        queue.reserve(vertices);
        queue.push_back((uint32_t)source);
        levels[source] = 0;
        for (uint64_t at = 0; at < queue.size(); at++) {
            const uint64_t v = queue[at];
            for (uint64_t i = offsets[v]; i < offsets[v + 1]; i++) {
                if (levels[ids[i]] == UINT32_MAX) {
                    levels[ids[i]] = levels[v] + 1;
                    queue.push_back((uint32_t)ids[i]);
                }
            }
        }
        return levels;
    }

  private:
    Shape shape_;
    uint32_t scale_;

    uint64_t take(uint64_t at) { return __atomic_fetch_add(&offsets[at], 1, __ATOMIC_RELAXED); }

    // Another name for a vertex: each of the steps can be undone.
    uint64_t renamed(uint64_t v) const {
        const uint64_t mask = vertices - 1;
        v = v * 0x9E3779B97F4A7C15ull & mask;
        v ^= v >> (scale_ / 2 + 1);
        return v * 0xBF58476D1CE4E5B9ull & mask;
    }

    template <class F> void each_edge(F use) {
        // A part of in_parts() is 64 Mi at least: an edge counts as 64 of them.
        in_parts(edges / 2 * 64, [&](uint64_t begin, uint64_t end) {
            for (uint64_t e = begin / 64; e < end / 64; e++) {
                uint64_t from = 0, to = 0;
                if (shape_ == Shape::UNIFORM) {
                    from = mixed(2 * e) & (vertices - 1);
                    to = mixed(2 * e + 1) & (vertices - 1);
                } else {
                    uint64_t random = 0;
                    for (uint32_t level = 0; level < scale_; level++) {
                        random = level % 4 == 0 ? mixed(e * 16 + level / 4) : random >> 16;
                        const uint32_t part = random & 0xFFFF;
                        // 0.57, 0.76 and 0.95 of 65536.
                        from = from << 1 | (part >= 49807);
                        to = to << 1 | ((part >= 37356 && part < 49807) || part >= 62259);
                    }
                    from = renamed(from);
                    to = renamed(to);
                }
                use(from, to);
                use(to, from);
            }
        });
    }
};

#endif
