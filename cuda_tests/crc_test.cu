// CRCs of device memory: gds_crc32c() and the kernel behind it agree with a CRC by table, for every
// alignment, tail and chunk size, and no flipped bit goes unnoticed. The kernel's source is part of
// this program, so that expected values and several ranges are tried too, and its speed is its own.
// GDS_TEST_SMALL=1 shrinks the sizes for compute-sanitizer.

#include <thread>

#include "check.cuh"

#include "../kernels/crc32c.cu"

namespace {

constexpr uint64_t SEED = 11;

struct Range {
    uint64_t offset, size;
};

// Device memory of known bytes, and the same bytes here.
class Memory {
  public:
    Memory(gds_context_t *context, uint64_t size) : size(size), host(size) {
        GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
        device = address_of(buffer);
        fill_known<<<1024, 256>>>(device, size, SEED, 0);
        CUDA_OK(cudaGetLastError());
        CUDA_OK(cudaMemcpy(host.data(), device, size, cudaMemcpyDeviceToHost));
    }
    ~Memory() { gds_buffer_free(buffer); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    void flip(uint64_t byte, unsigned bit) {
        host[byte] ^= (uint8_t)(1u << bit);
        CUDA_OK(cudaMemcpy(device + byte, &host[byte], 1, cudaMemcpyHostToDevice));
    }

    uint64_t size;
    std::vector<uint8_t> host;
    gds_buffer_t *buffer = nullptr;
    uint8_t *device = nullptr;
};

std::vector<uint32_t> wanted(const uint8_t *bytes, uint64_t size, uint64_t chunk) {
    std::vector<uint32_t> crcs;
    for (uint64_t at = 0; at < size; at += chunk) {
        crcs.push_back(crc32c(bytes + at, std::min(chunk, size - at)));
    }
    return crcs;
}

void expect_crcs(gds_context_t *context, const gds_buffer_t *buffer, const uint8_t *bytes,
                 uint64_t offset, uint64_t size, uint64_t chunk) {
    const std::vector<uint32_t> right = wanted(bytes + offset, size, chunk);
    std::vector<uint32_t> crcs(right.size() + 1, 0xABCDEF);
    GDS_OK(gds_crc32c(context, buffer, offset, size, chunk, crcs.data(), right.size()));
    for (size_t i = 0; i < right.size(); i++) {
        CHECK(crcs[i] == right[i], "chunk %zu of %llu bytes at %llu by %llu: %08x, not %08x", i,
              (unsigned long long)size, (unsigned long long)offset, (unsigned long long)chunk,
              crcs[i], right[i]);
    }
    CHECK(crcs.back() == 0xABCDEF, "a value more than there are chunks");
}

// ---- through the library -------------------------------------------------------------------

void every_alignment_and_tail(gds_context_t *context) {
    Memory memory(context, 4 * MiB);
    const std::vector<uint64_t> chunks =
        small_sizes() ? std::vector<uint64_t>{512, 4 * KiB}
                      : std::vector<uint64_t>{512, 1 * KiB, 4 * KiB, 64 * KiB, 1 * MiB};
    for (uint64_t chunk : chunks) {
        for (uint64_t offset = 0; offset <= 16; offset += small_sizes() ? 5 : 1) {
            for (uint64_t size : {(uint64_t)1, (uint64_t)3, (uint64_t)16, (uint64_t)511, chunk - 1,
                                  chunk, chunk + 1, chunk + chunk / 2 + 7}) {
                expect_crcs(context, memory.buffer, memory.host.data(), offset, size, chunk);
                // Up against the end of the memory.
                expect_crcs(context, memory.buffer, memory.host.data(),
                            memory.size - size - offset, size, chunk);
            }
        }
    }
}

void random_ranges(gds_context_t *context) {
    Memory memory(context, 8 * MiB);
    std::mt19937_64 random(3);
    for (int round = 0; round < (small_sizes() ? 20 : 400); round++) {
        const uint64_t most = small_sizes() ? 20000 : 300000;
        const uint64_t size = between(random, 1, most);
        const uint64_t offset = between(random, 0, memory.size - size);
        const uint64_t chunk = 512ull << between(random, 0, 11);
        expect_crcs(context, memory.buffer, memory.host.data(), offset, size, chunk);
    }
}

void every_kind_of_memory(gds_context_t *context) {
    const uint64_t size = 300 * KiB + 5;
    uint8_t *managed = nullptr, *pinned = nullptr;
    CUDA_OK(cudaMallocManaged(&managed, size));
    CUDA_OK(cudaMallocHost(&pinned, size));
    std::vector<uint8_t> pageable(size);
    for (uint64_t i = 0; i < size; i++) {
        managed[i] = pinned[i] = pageable[i] = known_byte(SEED, i);
    }
    for (uint8_t *bytes : {managed, pinned, pageable.data()}) {
        gds_buffer_t *buffer = nullptr;
        GDS_OK(gds_buffer_wrap(context, bytes, size, &buffer));
        expect_crcs(context, buffer, pageable.data(), 0, size, 4 * KiB);
        expect_crcs(context, buffer, pageable.data(), 77, size - 100, 64 * KiB);
        gds_buffer_free(buffer);
    }
    CUDA_OK(cudaFreeHost(pinned));
    CUDA_OK(cudaFree(managed));
}

void many_threads(gds_context_t *context) {
    Memory memory(context, 1 * MiB);
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 4; seed++) {
        threads.emplace_back([&, seed] {
            for (uint64_t round = 0; round < (small_sizes() ? 3 : 30); round++) {
                expect_crcs(context, memory.buffer, memory.host.data(), seed * 1000 + round,
                            100000 + seed, 4 * KiB);
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
}

// ---- the kernel alone ----------------------------------------------------------------------

// The kernel over some ranges of device memory, with expected values.
class Work {
  public:
    Work(const uint8_t *memory, const std::vector<Range> &ranges, uint64_t chunk,
         const std::vector<uint32_t> &expected) {
        std::vector<gds_crc_range> table;
        uint64_t chunks = 0;
        for (const Range &range : ranges) {
            table.push_back({(gds_u64)(memory + range.offset), range.size, chunks});
            chunks += (range.size + chunk - 1) / chunk;
        }
        CHECK(expected.empty() || expected.size() == chunks, "one value a chunk");
        CUDA_OK(cudaMalloc(&table_, table.size() * sizeof table[0]));
        CUDA_OK(cudaMalloc(&crcs_, chunks * 4));
        CUDA_OK(cudaMalloc(&expected_, chunks * 4));
        CUDA_OK(cudaMalloc(&verdict_, sizeof *verdict_));
        CUDA_OK(cudaMemcpy(table_, table.data(), table.size() * sizeof table[0],
                           cudaMemcpyHostToDevice));
        CUDA_OK(cudaMemcpy(expected_, expected.data(), expected.size() * 4,
                           cudaMemcpyHostToDevice));
        work_ = {(gds_u64)table_,
                 table.size(),
                 chunks,
                 chunk,
                 (gds_u64)crcs_,
                 expected.empty() ? 0 : (gds_u64)expected_,
                 (gds_u64)verdict_};
        int multiprocessors = 0;
        CUDA_OK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
        blocks_ = (unsigned)std::min<uint64_t>(chunks, 2u * (unsigned)multiprocessors);
    }
    ~Work() {
        for (void *memory : {(void *)table_, (void *)crcs_, (void *)expected_, (void *)verdict_}) {
            cudaFree(memory);
        }
    }
    Work(const Work &) = delete;
    Work &operator=(const Work &) = delete;

    void launch() const {
        gds_crc32c_chunks<<<blocks_, 512>>>(work_);
        CUDA_OK(cudaGetLastError());
    }
    gds_crc_verdict run() const {
        gds_crc_verdict verdict = {~0ull, 0};
        CUDA_OK(cudaMemcpy(verdict_, &verdict, sizeof verdict, cudaMemcpyHostToDevice));
        launch();
        CUDA_OK(cudaMemcpy(&verdict, verdict_, sizeof verdict, cudaMemcpyDeviceToHost));
        return verdict;
    }
    std::vector<uint32_t> crcs() const {
        std::vector<uint32_t> crcs(work_.chunk_count);
        CUDA_OK(cudaMemcpy(crcs.data(), crcs_, crcs.size() * 4, cudaMemcpyDeviceToHost));
        return crcs;
    }

  private:
    gds_crc_range *table_ = nullptr;
    uint32_t *crcs_ = nullptr, *expected_ = nullptr;
    gds_crc_verdict *verdict_ = nullptr;
    gds_crc_work work_;
    unsigned blocks_;
};

std::vector<uint32_t> wanted(const Memory &memory, const std::vector<Range> &ranges,
                             uint64_t chunk) {
    std::vector<uint32_t> all;
    for (const Range &range : ranges) {
        const auto some = wanted(memory.host.data() + range.offset, range.size, chunk);
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

void several_ranges_and_expected_values(gds_context_t *context) {
    Memory memory(context, 4 * MiB);
    std::mt19937_64 random(7);
    for (uint64_t chunk : {(uint64_t)512, 4 * KiB, 64 * KiB}) {
        std::vector<Range> ranges;
        for (uint64_t i = 0; i < (small_sizes() ? 20 : 300); i++) {
            const uint64_t size = i % 10 == 3 ? 0 : between(random, 1, 30000);
            ranges.push_back({between(random, 0, memory.size - size), size});
        }
        ranges.push_back({memory.size - 1, 1});
        std::vector<uint32_t> right = wanted(memory, ranges, chunk);
        const Work good(memory.device, ranges, chunk, right);
        gds_crc_verdict verdict = good.run();
        CHECK(verdict.bad == 0 && verdict.first_bad == ~0ull, "%llu bad, the first %llu",
              verdict.bad, verdict.first_bad);
        CHECK(good.crcs() == right, "the values told are not those expected");
        for (int round = 0; round < 20; round++) {
            std::vector<uint32_t> other = right;
            uint64_t first = ~0ull, bad = 0;
            for (int i = 0; i <= round % 5; i++) {
                const uint64_t at = between(random, 0, right.size() - 1);
                bad += other[at] == right[at];
                other[at] = right[at] ^ (1u << (round % 32));
                first = std::min(first, at);
            }
            verdict = Work(memory.device, ranges, chunk, other).run();
            CHECK(verdict.bad == bad && verdict.first_bad == first,
                  "%llu bad, the first %llu; not %llu, %llu", verdict.bad, verdict.first_bad,
                  (unsigned long long)bad, (unsigned long long)first);
        }
    }
}

void a_flipped_bit_anywhere_is_found(gds_context_t *context) {
    Memory memory(context, 256 * KiB);
    std::mt19937_64 random(9);
    for (uint64_t chunk : {(uint64_t)512, 4 * KiB, 64 * KiB}) {
        for (uint64_t offset : {0, 1, 13, 15}) {
            const Range range = {offset, 2 * chunk + 333};
            const Work work(memory.device, {range}, chunk, wanted(memory, {range}, chunk));
            const uint64_t step = std::max<uint64_t>(range.size / (small_sizes() ? 20 : 1500), 1);
            for (uint64_t at = 0; at < range.size; at += between(random, 1, 2 * step - 1)) {
                const unsigned bit = (unsigned)between(random, 0, 7);
                memory.flip(offset + at, bit);
                const gds_crc_verdict verdict = work.run();
                memory.flip(offset + at, bit);
                CHECK(verdict.bad == 1 && verdict.first_bad == at / chunk,
                      "byte %llu of chunks of %llu at %llu: %llu bad, the first %llu",
                      (unsigned long long)at, (unsigned long long)chunk,
                      (unsigned long long)offset, verdict.bad, verdict.first_bad);
            }
            CHECK(work.run().bad == 0, "the bits are back");
        }
    }
}

// ---- figures -------------------------------------------------------------------------------

void figures(gds_context_t *context) {
    const uint64_t size = small_sizes() ? 4 * MiB : 1024 * MiB;
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size + 16, &buffer));
    const uint8_t *device = address_of(buffer);
    fill_known<<<1024, 256>>>(address_of(buffer), size + 16, SEED, 0);
    CUDA_OK(cudaDeviceSynchronize());
    cudaEvent_t begin, end;
    CUDA_OK(cudaEventCreate(&begin));
    CUDA_OK(cudaEventCreate(&end));
    printf("\n");
    for (uint64_t chunk : {4 * KiB, 64 * KiB}) {
        for (uint64_t offset : {0, 1}) {
            const uint64_t chunks = size / chunk;
            std::vector<uint32_t> crcs(chunks);
            const Work work(device, {{offset, size}}, chunk, {});
            constexpr int ROUNDS = 10;
            work.launch();
            CUDA_OK(cudaEventRecord(begin));
            for (int i = 0; i < ROUNDS; i++) work.launch();
            CUDA_OK(cudaEventRecord(end));
            CUDA_OK(cudaEventSynchronize(end));
            float milliseconds = 0;
            CUDA_OK(cudaEventElapsedTime(&milliseconds, begin, end));
            GDS_OK(gds_crc32c(context, buffer, offset, size, chunk, crcs.data(), chunks));
            const auto start = std::chrono::steady_clock::now();
            for (int i = 0; i < ROUNDS; i++) {
                GDS_OK(gds_crc32c(context, buffer, offset, size, chunk, crcs.data(), chunks));
            }
            const double whole = seconds_since(start);
            CHECK(crcs == work.crcs(), "the library and the kernel differ");
            std::vector<uint8_t> bytes(chunk);
            for (uint64_t i = 0; i < chunks; i += std::max<uint64_t>(chunks / 50, 1)) {
                CUDA_OK(cudaMemcpy(bytes.data(), device + offset + i * chunk, chunk,
                                   cudaMemcpyDeviceToHost));
                CHECK(crcs[i] == crc32c(bytes.data(), chunk), "chunk %llu",
                      (unsigned long long)i);
            }
            printf("  %llu MiB at %llu, chunks of %llu KiB: kernel %.0f GB/s , gds_crc32c %.0f\n",
                   (unsigned long long)(size / MiB), (unsigned long long)offset,
                   (unsigned long long)(chunk / KiB), (double)size * ROUNDS / milliseconds / 1e6,
                   (double)size * ROUNDS / whole / 1e9);
        }
    }
    // What one value costs: 64 KiB and 2 MiB in chunks of 4 KiB.
    for (uint64_t one : {64 * KiB, 2 * MiB}) {
        std::vector<uint32_t> crcs(one / (4 * KiB));
        const int rounds = small_sizes() ? 5 : 200;
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < rounds; i++) {
            GDS_OK(gds_crc32c(context, buffer, 0, one, 4 * KiB, crcs.data(), crcs.size()));
        }
        const double each = seconds_since(start) / rounds;
        printf("  one value of %llu KiB: %.1f us, %.1f GB/s in all\n",
               (unsigned long long)(one / KiB), each * 1e6, (double)one / each / 1e9);
    }
    CUDA_OK(cudaEventDestroy(begin));
    CUDA_OK(cudaEventDestroy(end));
    gds_buffer_free(buffer);
}

} // namespace

int main() {
    const Case cases[] = {
        {"every alignment and tail", every_alignment_and_tail},
        {"random ranges", random_ranges},
        {"every kind of memory", every_kind_of_memory},
        {"many threads", many_threads},
        {"several ranges and expected values", several_ranges_and_expected_values},
        {"a flipped bit anywhere is found", a_flipped_bit_anywhere_is_found},
        {"figures", figures},
    };
    return run_cases(cases, sizeof cases / sizeof *cases);
}
