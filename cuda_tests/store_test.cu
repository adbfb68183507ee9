// Values of the key-value store in device memory: whole, in ranges and many at once, checked by
// kernels; put from device memory; damage found on the GPU; values held there; readers beside
// writers. Then figures: values of 2 MiB, verified, beside the engine's own read of the same bytes,
// and values of 4 KiB. GDS_TEST_SMALL=1 shrinks the sizes for compute-sanitizer.

#include <atomic>
#include <cmath>
#include <thread>

#include "check.cuh"

namespace {

// ---- a store in a scratch file -------------------------------------------------------------

class TestStore {
  public:
    explicit TestStore(gds_context_t *context, uint64_t cache_bytes = 0,
                       uint64_t segment_bytes = 4 * MiB) {
        static std::atomic<int> count{0};
        path_ = test_directory() + "/gds_store_test." + std::to_string(getpid()) + "." +
                std::to_string(count++);
        gds_kv_config_t config = GDS_KV_CONFIG_INIT;
        config.wal_bytes = 8 * MiB;
        config.segment_bytes = segment_bytes;
        GDS_OK(gds_kv_open(path_.c_str(), &config, &kv));
        gds_kv_device_config_t cache = GDS_KV_DEVICE_CONFIG_INIT;
        cache.cache_bytes = cache_bytes;
        GDS_OK(gds_kv_device_open(kv, context, &cache, &device));
    }
    ~TestStore() {
        gds_kv_device_close(device);
        gds_kv_close(kv);
        GDS_OK(gds_kv_destroy(path_.c_str()));
    }
    TestStore(const TestStore &) = delete;
    TestStore &operator=(const TestStore &) = delete;

    const std::string &path() const { return path_; }

    // Key `key` with the known bytes of seed `seed`.
    void put_known(uint64_t key, uint64_t size, uint64_t seed) {
        std::vector<uint8_t> value(size);
        for (uint64_t i = 0; i < size; i++) value[i] = known_byte(seed, i);
        uint64_t lsn;
        GDS_OK(gds_kv_put_async(kv, &key, sizeof key, value.data(), size, &lsn));
    }
    void expect_clean() {
        gds_kv_report_t report = GDS_KV_REPORT_INIT;
        GDS_OK(gds_kv_verify(kv, nullptr, nullptr, &report));
        CHECK(report.problems == 0, "%llu problems", (unsigned long long)report.problems);
    }
    gds_kv_device_stats_t stats() const {
        gds_kv_device_stats_t stats = GDS_KV_DEVICE_STATS_INIT;
        GDS_OK(gds_kv_device_stats(device, &stats));
        return stats;
    }

    gds_kv_t *kv = nullptr;
    gds_kv_device_t *device = nullptr;

  private:
    std::string path_;
};

class Memory {
  public:
    Memory(gds_context_t *context, uint64_t size, gds_memory_kind_t kind = GDS_MEMORY_DEVICE) {
        GDS_OK(gds_buffer_alloc(context, kind, size, &buffer));
        address = address_of(buffer);
        CUDA_OK(cudaMemset(address, POISON, size));
        CUDA_OK(cudaDeviceSynchronize());
    }
    ~Memory() { gds_buffer_free(buffer); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    gds_buffer_t *buffer = nullptr;
    uint8_t *address = nullptr;
};

std::vector<uint64_t> sizes() {
    std::vector<uint64_t> all = {0, 1, 100, 4032, 4033};
    std::vector<uint64_t> classes = {4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, 2 * MiB};
    if (small_sizes()) classes.resize(3);
    for (uint64_t size : classes) {
        all.insert(all.end(), {size - 1, size, size + 1});
    }
    if (!small_sizes()) all.push_back(9 * MiB + 77); // several runs
    return all;
}

// ---- what must hold ------------------------------------------------------------------------

void every_size_whole_and_in_ranges(gds_context_t *context) {
    TestStore store(context);
    std::mt19937_64 random(11);
    for (uint64_t size : sizes()) {
        store.put_known(7, size, size);
        const uint64_t key = 7, room = size + 512;
        Memory memory(context, room);
        Counter wrong;
        uint64_t told;
        GDS_OK(gds_kv_device_get(store.device, &key, 8, memory.buffer, 256, size, &told));
        CHECK(told == size, "%llu", (unsigned long long)told);
        wrong.known(memory.address + 256, size, size, 0);
        wrong.all(memory.address, 256, POISON);
        wrong.all(memory.address + 256 + size, 256, POISON);
        wrong.expect_none("a whole value");
        for (int i = 0; i < (small_sizes() ? 3 : 10); i++) {
            const uint64_t offset = between(random, 0, size), want = between(random, 0, size);
            const uint64_t to = between(random, 0, 255);
            const uint64_t here = std::min(want, size - offset);
            CUDA_OK(cudaMemset(memory.address, POISON, room));
            CUDA_OK(cudaDeviceSynchronize());
            GDS_OK(gds_kv_device_get_range(store.device, &key, 8, offset, memory.buffer, to, want,
                                           &told));
            CHECK(told == here, "%llu of %llu", (unsigned long long)told, (unsigned long long)here);
            Counter ranged;
            ranged.all(memory.address, to, POISON);
            ranged.known(memory.address + to, here, size, offset);
            ranged.all(memory.address + to + here, room - to - here, POISON);
            ranged.expect_none("a range of a value");
        }
    }
    CHECK(store.stats().rereads == 0, "nothing needed a second try");
}

void many_at_once(gds_context_t *context) {
    TestStore store(context);
    const uint64_t count = small_sizes() ? 100 : 2000;
    std::vector<uint64_t> keys(count), all = sizes();
    std::vector<gds_kv_get_t> gets(count);
    std::vector<gds_kv_got_t> gots(count);
    auto size_of = [&](uint64_t i) { return i % 4 != 0 ? 4096 : all[i / 4 % (all.size() - 1)]; };
    uint64_t total = 0;
    for (uint64_t i = 0; i < count; i++) total += size_of(i);
    Memory memory(context, total), pinned(context, total, GDS_MEMORY_PINNED);
    for (uint64_t i = 0; i < count; i++) store.put_known(i, size_of(i), i);
    for (const Memory *to : {&memory, &pinned}) {
        for (uint64_t i = 0, at = 0; i < count; at += size_of(i), i++) {
            keys[i] = i;
            gets[i] = {&keys[i], 8, 0, UINT64_MAX, to->buffer, at};
        }
        GDS_OK(gds_kv_device_get_many(store.device, gets.data(), count, gots.data()));
        Counter wrong;
        for (uint64_t i = 0, at = 0; i < count; at += size_of(i), i++) {
            CHECK(gots[i].status == GDS_STATUS_OK && gots[i].bytes == size_of(i), "%llu: %d",
                  (unsigned long long)i, gots[i].status);
            wrong.known(to->address + at, size_of(i), i, 0);
        }
        wrong.expect_none("many values");
    }
    const gds_kv_device_stats_t stats = store.stats();
    CHECK(stats.transfers < 2 * count * 3 / 4, "neighbours are joined: %llu transfers",
          (unsigned long long)stats.transfers);
}

void put_from_device_memory(gds_context_t *context) {
    TestStore store(context);
    for (uint64_t size : sizes()) {
        const uint64_t key = size;
        Memory from(context, size + 64), to(context, size + 64);
        if (size > 0) fill_known<<<128, 256>>>(from.address + 13, size, size + 3, 0);
        CUDA_OK(cudaDeviceSynchronize());
        GDS_OK(gds_kv_device_put(store.device, &key, 8, from.buffer, 13, size, nullptr));
        std::vector<uint8_t> back(size + 1);
        uint64_t told;
        GDS_OK(gds_kv_get(store.kv, &key, 8, back.data(), back.size(), &told));
        CHECK(told == size, "%llu", (unsigned long long)told);
        for (uint64_t i = 0; i < size; i++) {
            CHECK(back[i] == known_byte(size + 3, i), "byte %llu of %llu", (unsigned long long)i,
                  (unsigned long long)size);
        }
        GDS_OK(gds_kv_device_get(store.device, &key, 8, to.buffer, 1, size, &told));
        Counter wrong;
        wrong.known(to.address + 1, size, size + 3, 0);
        wrong.expect_none("a value that was put from device memory");
    }
    store.expect_clean();
}

// Changes every place of the file that holds `needle` (a chunk of a value) in its last byte.
int damage(const std::string &path, const std::vector<uint8_t> &needle) {
    int fd = open(path.c_str(), O_RDWR | O_CLOEXEC), found = 0;
    CHECK(fd >= 0, "%s: %s", path.c_str(), strerror(errno));
    const off_t size = lseek(fd, 0, SEEK_END);
    std::vector<uint8_t> block(needle.size());
    for (off_t at = 0; at + (off_t)block.size() <= size; at += 4096) {
        CHECK(pread(fd, block.data(), block.size(), at) == (ssize_t)block.size(), "%s",
              strerror(errno));
        if (block == needle) {
            const uint8_t other = (uint8_t)(block.back() ^ 0x10);
            const off_t place = at + (off_t)block.size() - 1;
            CHECK(pwrite(fd, &other, 1, place) == 1, "%s", strerror(errno));
            found++;
        }
    }
    CHECK(fsync(fd) == 0, "%s", strerror(errno));
    close(fd);
    return found;
}

void damage_is_found_on_the_gpu(gds_context_t *context) {
    TestStore store(context);
    const uint64_t size = small_sizes() ? 40 * KiB : 1 * MiB, bad = 5;
    std::vector<uint64_t> keys(8);
    std::vector<gds_kv_get_t> gets(8);
    std::vector<gds_kv_got_t> gots(8);
    Memory memory(context, 8 * size);
    for (uint64_t i = 0; i < 8; i++) {
        store.put_known(i, size, 900 + i);
        keys[i] = i;
        gets[i] = {&keys[i], 8, 0, UINT64_MAX, memory.buffer, i * size};
    }
    GDS_OK(gds_kv_sync(store.kv));
    std::vector<uint8_t> chunk(4096);
    for (uint64_t i = 0; i < 4096; i++) chunk[i] = known_byte(900 + bad, 4 * 4096 + i);
    CHECK(damage(store.path(), chunk) == 1, "the chunk is in the file once");
    GDS_OK(gds_kv_device_get_many(store.device, gets.data(), 8, gots.data()));
    Counter wrong;
    for (uint64_t i = 0; i < 8; i++) {
        CHECK(gots[i].status == (i == bad ? GDS_STATUS_CORRUPTED : GDS_STATUS_OK), "%llu: %d",
              (unsigned long long)i, gots[i].status);
        if (i != bad) wrong.known(memory.address + i * size, size, 900 + i, 0);
    }
    wrong.expect_none("values beside a damaged one");
    CHECK(store.stats().rereads == 1, "the GPU found it, and the host looked again");
    // Ranges that do not touch the chunk are fine; one byte of it is enough.
    uint64_t told;
    GDS_OK(gds_kv_device_get_range(store.device, &bad, 8, 0, memory.buffer, 0, 4 * 4096, &told));
    GDS_OK(gds_kv_device_get_range(store.device, &bad, 8, 5 * 4096, memory.buffer, 0, 1, &told));
    GDS_IS(GDS_STATUS_CORRUPTED, gds_kv_device_get_range(store.device, &bad, 8, 4 * 4096 + 9,
                                                         memory.buffer, 0, 1, &told));
}

void values_are_held(gds_context_t *context) {
    TestStore store(context, 1 * MiB);
    const uint64_t count = 30, size = 60000;
    for (uint64_t i = 0; i < count; i++) store.put_known(i, size, i);
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t key = round == 0 ? i : i * 7 % 5;
            gds_kv_pointer_t held;
            GDS_OK(gds_kv_device_get_ptr(store.device, &key, 8, &held));
            Counter wrong;
            wrong.known(held.address, held.size_bytes, key, 0);
            wrong.expect_none("a value that is held");
            CHECK(held.size_bytes == size, "%llu", (unsigned long long)held.size_bytes);
            GDS_OK(gds_kv_device_release(store.device, &held));
        }
    }
    const uint64_t key = 0;
    gds_kv_pointer_t before, after;
    GDS_OK(gds_kv_device_get_ptr(store.device, &key, 8, &before));
    store.put_known(0, 50000, 12345);
    GDS_OK(gds_kv_device_get_ptr(store.device, &key, 8, &after));
    Counter wrong;
    wrong.known(before.address, before.size_bytes, 0, 0);
    wrong.known(after.address, after.size_bytes, 12345, 0);
    wrong.expect_none("an old and a new value");
    GDS_OK(gds_kv_device_release(store.device, &before));
    GDS_OK(gds_kv_device_release(store.device, &after));
    const gds_kv_device_stats_t stats = store.stats();
    CHECK(stats.evictions > 0 && stats.hits > 2 * count - 10 && stats.held == 0, "%llu %llu",
          (unsigned long long)stats.evictions, (unsigned long long)stats.hits);
}

// The first 8 bytes of a value say which one it is.
void readers_beside_writers(gds_context_t *context) {
    TestStore store(context, 1 * MiB);
    const uint64_t keys = 4, versions = small_sizes() ? 20 : 300;
    auto size_of = [](uint64_t version) { return 5000 + version * 7919 % 200000; };
    for (uint64_t k = 0; k < keys; k++) store.put_known(k, size_of(0), k * 1000000);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int reader = 0; reader < 3; reader++) {
        threads.emplace_back([&, reader] {
            cudaStream_t stream;
            CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            Memory memory(context, 256 * KiB);
            for (uint64_t i = 0; !stop || i < 4; i++) {
                const uint64_t key = i % keys;
                gds_kv_pointer_t held = {memory.address, 0, 0};
                if (reader < 2) {
                    GDS_OK(gds_kv_device_get(store.device, &key, 8, memory.buffer, 0, 256 * KiB,
                                             &held.size_bytes));
                } else {
                    GDS_OK(gds_kv_device_get_ptr(store.device, &key, 8, &held));
                }
                uint64_t first;
                CUDA_OK(cudaMemcpyAsync(&first, held.address, 8, cudaMemcpyDeviceToHost, stream));
                CUDA_OK(cudaStreamSynchronize(stream));
                uint64_t version = 0;
                while (version <= versions && hash_word(key * 1000000 + version, 0) != first) {
                    version++;
                }
                CHECK(version <= versions && held.size_bytes == size_of(version), "one version");
                Counter wrong(stream);
                wrong.known(held.address, held.size_bytes, key * 1000000 + version, 0);
                wrong.expect_none("a value while others are put");
                if (reader == 2) GDS_OK(gds_kv_device_release(store.device, &held));
            }
            CUDA_OK(cudaStreamDestroy(stream));
        });
    }
    for (uint64_t version = 1; version <= versions; version++) {
        for (uint64_t k = 0; k < keys; k++) {
            store.put_known(k, size_of(version), k * 1000000 + version);
        }
        if (version % 50 == 0) GDS_OK(gds_kv_compact(store.kv, nullptr));
    }
    stop = true;
    for (std::thread &thread : threads) thread.join();
    store.expect_clean();
}

// ---- figures -------------------------------------------------------------------------------

double median(std::vector<double> all) {
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
}

void large_values_beside_a_bulk_read(gds_context_t *context) {
    const uint64_t size = 2 * MiB, count = small_sizes() ? 4 : 512, total = size * count;
    TestStore store(context, 0, 64 * MiB);
    Memory memory(context, total);
    std::vector<uint64_t> keys(count);
    std::vector<gds_kv_get_t> gets(count);
    std::vector<gds_kv_got_t> gots(count);
    fill_known<<<1024, 256>>>(memory.address, total, 77, 0);
    CUDA_OK(cudaDeviceSynchronize());
    auto begin = std::chrono::steady_clock::now();
    for (uint64_t i = 0; i < count; i++) {
        keys[i] = i;
        gets[i] = {&keys[i], 8, 0, UINT64_MAX, memory.buffer, i * size};
        uint64_t lsn;
        GDS_OK(gds_kv_device_put_async(store.device, &keys[i], 8, memory.buffer, i * size, size,
                                       &lsn));
    }
    GDS_OK(gds_kv_sync(store.kv));
    const double put = total / seconds_since(begin) / 1e9;
    // The same bytes as a file of their own, read in one call.
    TestFile plain(0, 0);
    gds_file_t *file = open_file(context, plain, GDS_FILE_READ | GDS_FILE_WRITE);
    GDS_OK(gds_write(file, 0, memory.buffer, 0, total, nullptr));
    GDS_OK(gds_file_sync(file));
    std::vector<double> of_store, of_engine;
    for (int round = 0; round < 6; round++) {
        uint64_t moved;
        begin = std::chrono::steady_clock::now();
        GDS_OK(gds_read(file, 0, memory.buffer, 0, total, &moved));
        const double engine = total / seconds_since(begin) / 1e9;
        CHECK(moved == total, "%llu", (unsigned long long)moved);
        CUDA_OK(cudaMemset(memory.address, POISON, total));
        CUDA_OK(cudaDeviceSynchronize());
        begin = std::chrono::steady_clock::now();
        GDS_OK(gds_kv_device_get_many(store.device, gets.data(), count, gots.data()));
        const double values = total / seconds_since(begin) / 1e9;
        for (const gds_kv_got_t &got : gots) {
            CHECK(got.status == GDS_STATUS_OK && got.bytes == size, "%d", got.status);
        }
        Counter wrong;
        wrong.known(memory.address, total, 77, 0);
        wrong.expect_none("large values");
        if (round == 0) continue; // warms both
        of_store.push_back(values);
        of_engine.push_back(engine);
    }
    gds_file_close(file);
    CHECK(store.stats().rereads == 0, "nothing needed a second try");
    printf("\n  %llu values of 2 MiB, verified: %.2f GB/s; the engine's bulk read %.2f GB/s "
           "(%.3f); put %.2f GB/s\n",
           (unsigned long long)count, median(of_store), median(of_engine),
           median(of_store) / median(of_engine), put);
}

void small_values_a_second(gds_context_t *context) {
    const uint64_t count = small_sizes() ? 64 : 16384, size = 4096;
    TestStore store(context, 0, 64 * MiB);
    Memory memory(context, count * size);
    std::vector<uint64_t> keys(count);
    std::vector<gds_kv_get_t> gets(count);
    std::vector<gds_kv_got_t> gots(count);
    for (uint64_t i = 0; i < count; i++) store.put_known(i, size, i);
    GDS_OK(gds_kv_sync(store.kv));
    std::mt19937_64 random(3);
    for (uint64_t i = 0; i < count; i++) keys[i] = i;
    std::shuffle(keys.begin(), keys.end(), random);
    for (uint64_t i = 0; i < count; i++) {
        gets[i] = {&keys[i], 8, 0, UINT64_MAX, memory.buffer, i * size};
    }
    std::vector<double> together, alone;
    const uint64_t singles = std::min<uint64_t>(count, 4096);
    for (int round = 0; round < 6; round++) {
        auto begin = std::chrono::steady_clock::now();
        GDS_OK(gds_kv_device_get_many(store.device, gets.data(), count, gots.data()));
        const double many = count / seconds_since(begin);
        Counter wrong;
        for (uint64_t i = 0; i < count; i += 37) {
            CHECK(gots[i].status == GDS_STATUS_OK, "%d", gots[i].status);
            wrong.known(memory.address + i * size, size, keys[i], 0);
        }
        wrong.expect_none("small values");
        begin = std::chrono::steady_clock::now();
        for (uint64_t i = 0; i < singles; i++) {
            GDS_OK(gds_kv_device_get(store.device, &keys[i], 8, memory.buffer, i * size, size,
                                     nullptr));
        }
        if (round == 0) continue;
        together.push_back(many);
        alone.push_back(singles / seconds_since(begin));
    }
    printf("\n  values of 4 KiB in random order: %.0f a second together, %.0f one by one\n",
           median(together), median(alone));
}

const Case CASES[] = {
    {"every size, whole and in ranges", every_size_whole_and_in_ranges},
    {"many at once", many_at_once},
    {"put from device memory", put_from_device_memory},
    {"damage is found on the GPU", damage_is_found_on_the_gpu},
    {"values are held", values_are_held},
    {"readers beside writers", readers_beside_writers},
    {"large values beside a bulk read", large_values_beside_a_bulk_read},
    {"small values a second", small_values_a_second},
};

} // namespace

int main() { return run_cases(CASES, sizeof CASES / sizeof CASES[0]); }
