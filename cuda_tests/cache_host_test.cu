// The page cache's C functions on a GPU: what a held page has is what the file has, as kernels see
// it; what kernels write to held pages reaches the file; the counters tell what happened.
// (In-kernel access is cache_test.cu.) GDS_TEST_SMALL=1 shrinks the sizes for compute-sanitizer.

#include <functional>
#include <thread>

#include "check.cuh"

namespace {

constexpr uint64_t PAGE = 16 * KiB;
constexpr uint64_t OLD = 1, NEW = 2; // seeds

struct Cache {
    gds_cache_t *handle = nullptr;

    Cache(const gds_context_t *context, uint64_t frames,
          void (*change)(gds_cache_config_t &) = nullptr) {
        gds_cache_config_t config = GDS_CACHE_CONFIG_INIT;
        config.page_bytes = PAGE;
        config.device_bytes = frames * PAGE;
        // What is written when is the test's to say.
        config.flush_delay_ms = 3600 * 1000;
        config.dirty_percent = 100;
        if (change != nullptr) change(config);
        GDS_OK(gds_cache_open(context, &config, &handle));
    }
    ~Cache() { gds_cache_close(handle); }
    Cache(const Cache &) = delete;
    Cache &operator=(const Cache &) = delete;

    gds_cache_stats_t stats() const {
        gds_cache_stats_t stats = GDS_CACHE_STATS_INIT;
        GDS_OK(gds_cache_stats(handle, &stats));
        return stats;
    }
    gds_page_t get(const gds_file_t *file, uint64_t offset) const {
        gds_page_t page;
        GDS_OK(gds_cache_get(handle, file, offset, &page));
        CHECK(page.address != nullptr && page.token != 0, "a page without an address");
        CHECK(page.offset_bytes == offset / PAGE * PAGE, "the page of %llu is at %llu",
              (unsigned long long)offset, (unsigned long long)page.offset_bytes);
        return page;
    }
    void release(gds_page_t &page) const {
        GDS_OK(gds_cache_release(handle, &page));
        CHECK(page.token == 0, "a released page is no page");
    }
    bool has(const gds_file_t *file, uint64_t offset) const {
        gds_page_t page;
        GDS_OK(gds_cache_try_get(handle, file, offset, &page));
        const bool there = page.token != 0;
        release(page);
        return there;
    }
    uint64_t flush(const gds_file_t *file) const {
        uint64_t bytes = 0;
        GDS_OK(gds_cache_flush(handle, file, &bytes));
        return bytes;
    }
};

// Asks for pages and has a kernel check them while they are held, some at a time.
class Looker {
  public:
    Looker(const Cache &cache, const gds_file_t *file, uint64_t seed)
        : cache_(cache), file_(file), seed_(seed) {}
    ~Looker() { finish("pages of a cache"); }

    void look(uint64_t offset) {
        held_.push_back(cache_.get(file_, offset));
        const gds_page_t &page = held_.back();
        counter_.known(page.address, page.size_bytes, seed_, page.offset_bytes);
        if (held_.size() == 4) release();
    }
    void finish(const char *what) {
        release();
        counter_.expect_none(what);
    }

  private:
    const Cache &cache_;
    const gds_file_t *file_;
    uint64_t seed_;
    Counter counter_;
    std::vector<gds_page_t> held_;

    void release() {
        CUDA_OK(cudaDeviceSynchronize());
        for (gds_page_t &page : held_) cache_.release(page);
        held_.clear();
    }
};

void fill(void *address, uint64_t size, uint64_t seed, uint64_t position) {
    fill_known<<<4, 256>>>((uint8_t *)address, size, seed, position);
    CUDA_OK(cudaGetLastError());
    CUDA_OK(cudaDeviceSynchronize());
}

// Overwrites a page where it is, and says so.
void change(const Cache &cache, const gds_file_t *file, uint64_t offset, uint64_t seed) {
    gds_page_t page = cache.get(file, offset);
    fill(page.address, page.size_bytes, seed, page.offset_bytes);
    GDS_OK(gds_cache_mark_dirty(cache.handle, &page));
    cache.release(page);
}

void wait_until(const char *what, const std::function<bool()> &there) {
    const auto begin = std::chrono::steady_clock::now();
    while (!there()) {
        CHECK(seconds_since(begin) < 60, "%s: not within a minute", what);
        usleep(1000);
    }
}

// ---- insertion and look-up -----------------------------------------------------------------

void pages_hold_what_the_file_holds(gds_context_t *context) {
    const uint64_t pages = 12, size = (pages - 1) * PAGE + 1000;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 64);
        CHECK(!cache.has(opened, 0), "nothing was read yet");
        Looker looker(cache, opened, OLD);
        for (uint64_t i = 0; i < pages; i++) looker.look(std::min(i * PAGE + i * 77, size - 1));
        looker.finish("pages that were absent");
        CHECK(cache.has(opened, 5 * PAGE + 9), "a page that was read stays");
        for (uint64_t i = pages; i-- > 0;) looker.look(i * PAGE);
        looker.finish("pages that were there");

        gds_page_t last = cache.get(opened, size - 1), same = cache.get(opened, size - 1000);
        CHECK(last.size_bytes == 1000 && last.address == same.address, "the page at the end");
        Counter zeros;
        zeros.all((uint8_t *)last.address + 1000, PAGE - 1000, 0);
        zeros.expect_none("what is behind the end of the file");
        cache.release(last);
        cache.release(same);
        gds_page_t past = cache.get(opened, 100 * PAGE);
        CHECK(past.size_bytes == 0, "a page past the end has no bytes");
        cache.release(past);
        const gds_cache_stats_t stats = cache.stats();
        CHECK(stats.misses == pages + 1, "%llu misses", (unsigned long long)stats.misses);
        CHECK(stats.hits >= pages + 2 && stats.pinned == 0 && stats.evictions == 0, "counters");
    }
    gds_file_close(opened);
}

void one_read_for_all_who_wait(gds_context_t *context) {
    TestFile file(64 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 128);
        constexpr int THREADS = 8;
        const uint64_t pages = 64;
        std::vector<std::vector<gds_page_t>> held(THREADS, std::vector<gds_page_t>(pages));
        std::vector<std::thread> threads;
        for (int t = 0; t < THREADS; t++) {
            threads.emplace_back([&, t] {
                for (uint64_t i = 0; i < pages; i++) held[t][i] = cache.get(opened, i * PAGE);
            });
        }
        for (std::thread &thread : threads) thread.join();
        Counter counter;
        for (uint64_t i = 0; i < pages; i++) {
            counter.known(held[0][i].address, PAGE, OLD, i * PAGE);
            for (int t = 1; t < THREADS; t++) {
                CHECK(held[t][i].address == held[0][i].address, "one page, one place");
            }
        }
        counter.expect_none("pages that eight threads asked for");
        const gds_cache_stats_t stats = cache.stats();
        CHECK(stats.misses == pages, "%llu misses: a page was read twice",
              (unsigned long long)stats.misses);
        CHECK(stats.hits + stats.waits == (THREADS - 1) * pages, "the others hit or waited");
        CHECK(stats.pinned == pages, "%llu are held", (unsigned long long)stats.pinned);
        for (auto &pages_of_thread : held) {
            for (gds_page_t &page : pages_of_thread) cache.release(page);
        }
        CHECK(cache.stats().pinned == 0, "none is held");
    }
    gds_file_close(opened);
}

// ---- working sets and policies -------------------------------------------------------------

struct Share {
    uint64_t hits, gets;
    double of() const { return (double)hits / (double)gets; }
};

// How many of `gets` pages, as `next` names them, were there.
template <class F> Share share_of(const Cache &cache, Looker &looker, uint64_t gets, F next) {
    const gds_cache_stats_t before = cache.stats();
    for (uint64_t i = 0; i < gets; i++) looker.look(next(i) * PAGE);
    looker.finish("a working set");
    const gds_cache_stats_t after = cache.stats();
    CHECK(after.hits - before.hits + after.misses - before.misses == gets, "each was one or other");
    CHECK(after.resident <= after.frames, "no more pages than frames");
    return {after.hits - before.hits, gets};
}

void working_sets(gds_context_t *context, int32_t policy) {
    const uint64_t frames = small_sizes() ? 64 : 1024, pages = 4 * frames;
    TestFile file(pages * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        static int32_t chosen;
        chosen = policy;
        Cache cache(context, frames, [](gds_cache_config_t &config) { config.policy = chosen; });
        Looker looker(cache, opened, OLD);
        // A working set of a quarter of the cache, three times.
        share_of(cache, looker, frames / 4, [](uint64_t i) { return i; });
        const Share fits = share_of(cache, looker, frames / 2,
                                    [=](uint64_t i) { return i % (frames / 4); });
        CHECK(fits.of() >= 0.95, "what fits stays: %llu of %llu", (unsigned long long)fits.hits,
              (unsigned long long)fits.gets);
        // One of four times the cache, twice.
        const Share first = share_of(cache, looker, pages, [](uint64_t i) { return i; });
        const Share again = share_of(cache, looker, pages, [](uint64_t i) { return i; });
        CHECK(first.hits < first.gets / 2 && again.hits < again.gets / 2, "what does not fit goes");
        CHECK(cache.stats().evictions >= pages, "pages made room");
        if (policy == GDS_CACHE_POLICY_LRU) {
            CHECK(again.of() < 0.05, "a loop larger than the cache is nothing for LRU: %llu",
                  (unsigned long long)again.hits);
        }
        // Nine of ten go to an eighth of the cache.
        std::mt19937_64 random(7);
        const auto skewed = [&](uint64_t) {
            return between(random, 0, 9) == 0 ? between(random, 0, pages - 1)
                                              : between(random, 0, frames / 8 - 1);
        };
        share_of(cache, looker, frames, skewed);
        const Share hot = share_of(cache, looker, 2 * frames, skewed);
        CHECK(hot.of() >= 0.7, "what is used often stays: %llu of %llu",
              (unsigned long long)hot.hits, (unsigned long long)hot.gets);
        printf(" %.0f %% ", 100 * hot.of());
    }
    gds_file_close(opened);
}

void working_sets_dueling(gds_context_t *c) { working_sets(c, GDS_CACHE_POLICY_DUELING); }
void working_sets_clock(gds_context_t *c) { working_sets(c, GDS_CACHE_POLICY_CLOCK); }
void working_sets_lru(gds_context_t *c) { working_sets(c, GDS_CACHE_POLICY_LRU); }

void all_pinned_is_an_answer(gds_context_t *context) {
    TestFile file(20 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 8);
        std::vector<gds_page_t> held;
        Counter counter;
        const uint64_t frames = cache.stats().frames;
        for (uint64_t i = 0; i < frames; i++) held.push_back(cache.get(opened, i * PAGE));
        gds_page_t page;
        GDS_IS(GDS_STATUS_ALL_PINNED, gds_cache_get(cache.handle, opened, 15 * PAGE, &page));
        CHECK(cache.stats().all_pinned > 0, "it is counted");
        for (const gds_page_t &p : held) counter.known(p.address, PAGE, OLD, p.offset_bytes);
        counter.expect_none("pages that were held while another was wanted");
        cache.release(held.back());
        held.pop_back();
        page = cache.get(opened, 15 * PAGE);
        counter.known(page.address, PAGE, OLD, 15 * PAGE);
        counter.expect_none("the page that got the room");
        cache.release(page);
        for (gds_page_t &p : held) cache.release(p);
    }
    gds_file_close(opened);
}

// ---- reading ahead, warm-up, tiers ---------------------------------------------------------

void what_is_read_ahead_is_there(gds_context_t *context) {
    const uint64_t pages = 16;
    TestFile file(64 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 64);
        uint64_t started = 0;
        GDS_OK(gds_cache_prefetch(cache.handle, opened, 8 * PAGE, pages * PAGE, &started));
        CHECK(started == pages, "%llu were started", (unsigned long long)started);
        wait_until("pages that are read ahead", [&] {
            for (uint64_t i = 0; i < pages; i++) {
                if (!cache.has(opened, (8 + i) * PAGE)) return false;
            }
            return true;
        });
        Looker looker(cache, opened, OLD);
        for (uint64_t i = 0; i < pages; i++) looker.look((8 + i) * PAGE);
        looker.finish("pages that were read ahead");
        const gds_cache_stats_t stats = cache.stats();
        CHECK(stats.misses == 0 && stats.prefetched == pages, "no page was waited for");
        CHECK(stats.prefetch_hits == pages && stats.prefetch_wasted == 0, "each was of use");
        GDS_OK(gds_cache_prefetch(cache.handle, opened, 8 * PAGE, pages * PAGE, &started));
        CHECK(started == 0, "what is there is not read again");
    }
    gds_file_close(opened);
}

void a_warm_up_list_brings_pages_back(gds_context_t *context) {
    TestFile file(64 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        const std::vector<uint64_t> wanted = {3, 4, 5, 20, 40, 41};
        uint64_t count = 0, pages = 0;
        gds_cache_range_t ranges[8];
        {
            Cache before(context, 64);
            Looker looker(before, opened, OLD);
            for (uint64_t page : wanted) looker.look(page * PAGE);
            looker.finish("pages before");
            GDS_OK(gds_cache_hot_ranges(before.handle, opened, 8, ranges, &count));
        }
        CHECK(count == 3 && ranges[0].offset == 3 * PAGE && ranges[0].size == 3 * PAGE &&
                  ranges[1].offset == 20 * PAGE && ranges[2].size == 2 * PAGE,
              "%llu ranges", (unsigned long long)count);
        Cache after(context, 64);
        GDS_OK(gds_cache_warm(after.handle, opened, ranges, count, &pages));
        CHECK(pages == wanted.size(), "%llu pages", (unsigned long long)pages);
        const uint64_t misses = after.stats().misses;
        Looker looker(after, opened, OLD);
        for (uint64_t page : wanted) looker.look(page * PAGE);
        looker.finish("pages of a warm-up list");
        CHECK(after.stats().misses == misses, "they were there");
    }
    gds_file_close(opened);
}

void host_memory_is_a_second_tier(gds_context_t *context) {
    const uint64_t pages = 200;
    TestFile file(pages * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 64,
                    [](gds_cache_config_t &config) { config.host_bytes = 256 * PAGE; });
        Looker looker(cache, opened, OLD);
        for (uint64_t i = 0; i < pages; i++) looker.look(i * PAGE);
        looker.finish("pages from the file");
        const gds_cache_stats_t before = cache.stats();
        CHECK(before.host_demotions > 0 && before.host_pages > 0, "pages moved to host memory");
        CHECK(before.resident + before.host_pages == pages, "each page is in one tier");
        for (int round = 0; round < 2; round++) {
            for (uint64_t i = 0; i < pages; i++) looker.look((i * 7 + round) % pages * PAGE);
        }
        looker.finish("pages from host memory");
        const gds_cache_stats_t after = cache.stats();
        CHECK(after.host_hits > before.host_hits, "pages came back");
        CHECK(after.misses - before.misses == after.host_hits - before.host_hits,
              "none was read from the file again");
    }
    gds_file_close(opened);
}

// ---- writing -------------------------------------------------------------------------------

void kernels_write_and_the_file_holds_it(gds_context_t *context) {
    const uint64_t pages = 64, size = pages * PAGE - 100;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    {
        Cache cache(context, 128);
        change(cache, opened, 3 * PAGE, NEW);
        change(cache, opened, 4 * PAGE, NEW);
        change(cache, opened, size - 1, NEW);
        CHECK(cache.stats().dirty == 3, "three pages are dirty");
        file.expect_known(0, size, OLD);
        CHECK(cache.flush(opened) == 3 * PAGE - 100, "only what the file has is written");
        CHECK(cache.stats().dirty == 0 && cache.flush(nullptr) == 0, "once");
        file.expect_known(0, 3 * PAGE, OLD);
        file.expect_known(3 * PAGE, 2 * PAGE, NEW);
        file.expect_known(5 * PAGE, (pages - 6) * PAGE, OLD);
        file.expect_known((pages - 1) * PAGE, PAGE - 100, NEW);
        uint64_t now = 0;
        GDS_OK(gds_file_size(opened, &now));
        CHECK(now == size, "the file keeps its size");
        gds_file_t *read_only = open_file(context, file, GDS_FILE_READ);
        Cache other(context, 16);
        gds_page_t page = other.get(read_only, 0);
        GDS_IS(GDS_STATUS_READ_ONLY, gds_cache_mark_dirty(other.handle, &page));
        other.release(page);
        gds_file_close(read_only);
    }
    gds_file_close(opened);
}

void dirty_pages_make_room(gds_context_t *context) {
    const uint64_t frames = 16, pages = small_sizes() ? 48 : 300;
    TestFile file(pages * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    {
        Cache cache(context, frames);
        for (uint64_t i = 0; i < pages; i++) change(cache, opened, i * PAGE, NEW);
        CHECK(cache.stats().write_backs >= pages - frames, "what had to go was written");
        // What made room is read again, and is what was written.
        Looker looker(cache, opened, NEW);
        for (uint64_t i = 0; i < pages; i++) looker.look(i * PAGE);
        looker.finish("pages that were written and came back");
        cache.flush(opened);
        file.expect_known(0, pages * PAGE, NEW);
        CHECK(cache.stats().write_errors == 0 && cache.stats().dirty == 0, "all is written");
    }
    gds_file_close(opened);
}

void dirty_pages_are_written_in_time(gds_context_t *context) {
    TestFile file(16 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    {
        Cache cache(context, 64, [](gds_cache_config_t &config) { config.flush_delay_ms = 20; });
        for (uint64_t i = 0; i < 16; i++) change(cache, opened, i * PAGE, NEW);
        wait_until("a delayed write", [&] { return cache.stats().dirty == 0; });
        GDS_OK(gds_cache_flush(cache.handle, opened, nullptr));
        file.expect_known(0, 16 * PAGE, NEW);
    }
    gds_file_close(opened);
}

void put_and_new_pages_extend_a_file(gds_context_t *context) {
    const uint64_t size = 5 * PAGE, at = 3 * PAGE + 777, count = 4 * PAGE + 5;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 16 * PAGE, &buffer));
    {
        Cache cache(context, 64);
        fill(address_of(buffer) + 100, count, NEW, at);
        GDS_OK(gds_cache_put(cache.handle, opened, at, buffer, 100, count));
        gds_page_t page;
        GDS_OK(gds_cache_get_new(cache.handle, opened, 10 * PAGE, &page));
        CHECK(page.size_bytes == PAGE, "a new page is whole");
        fill(page.address, PAGE, NEW, 10 * PAGE);
        cache.release(page);

        uint64_t bytes = 0;
        CUDA_OK(cudaMemset(address_of(buffer), POISON, 16 * PAGE));
        GDS_OK(gds_cache_read(cache.handle, opened, 100, buffer, 0, at + count - 100, &bytes));
        CHECK(bytes == at + count - 100, "%llu bytes", (unsigned long long)bytes);
        Counter counter;
        counter.known(address_of(buffer), at - 100, OLD, 100);
        counter.known(address_of(buffer) + at - 100, count, NEW, at);
        counter.all(address_of(buffer) + at + count - 100, PAGE, POISON);
        counter.expect_none("a read through the cache, before anything is written");
        cache.flush(opened);
        GDS_OK(gds_file_size(opened, &bytes));
        CHECK(bytes == 11 * PAGE, "the file has %llu bytes", (unsigned long long)bytes);
        file.expect_known(0, at, OLD);
        file.expect_known(at, count, NEW);
        file.expect_known(10 * PAGE, PAGE, NEW);
    }
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void invalidated_pages_are_read_again(gds_context_t *context) {
    TestFile file(8 * PAGE, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    {
        Cache cache(context, 64);
        Looker old_bytes(cache, opened, OLD), new_bytes(cache, opened, NEW);
        for (uint64_t i = 0; i < 8; i++) old_bytes.look(i * PAGE);
        old_bytes.finish("pages before the file was changed");
        std::vector<uint8_t> bytes(8 * PAGE);
        for (uint64_t i = 0; i < bytes.size(); i++) bytes[i] = known_byte(NEW, i);
        CHECK(pwrite(file.fd(), bytes.data(), bytes.size(), 0) == (ssize_t)bytes.size(), "%s",
              strerror(errno));
        CHECK(fsync(file.fd()) == 0, "%s", strerror(errno));
        old_bytes.look(2 * PAGE);
        old_bytes.finish("a page is what it was until it is invalidated");
        gds_page_t held = cache.get(opened, 5 * PAGE);
        uint64_t pages = 0;
        GDS_IS(GDS_STATUS_ALL_PINNED,
               gds_cache_invalidate(cache.handle, opened, 0, UINT64_MAX, nullptr));
        cache.release(held);
        GDS_OK(gds_cache_invalidate(cache.handle, opened, 0, UINT64_MAX, &pages));
        CHECK(pages == 1, "the one that was held goes now: %llu", (unsigned long long)pages);
        for (uint64_t i = 0; i < 8; i++) new_bytes.look(i * PAGE);
        new_bytes.finish("pages after that");
    }
    gds_file_close(opened);
}

} // namespace

int main() {
    const Case cases[] = {
        {"pages hold what the file holds", pages_hold_what_the_file_holds},
        {"one read for all who wait", one_read_for_all_who_wait},
        {"working sets, dueling", working_sets_dueling},
        {"working sets, CLOCK", working_sets_clock},
        {"working sets, LRU", working_sets_lru},
        {"all pinned is an answer", all_pinned_is_an_answer},
        {"what is read ahead is there", what_is_read_ahead_is_there},
        {"a warm-up list brings pages back", a_warm_up_list_brings_pages_back},
        {"host memory is a second tier", host_memory_is_a_second_tier},
        {"kernels write and the file holds it", kernels_write_and_the_file_holds_it},
        {"dirty pages make room", dirty_pages_make_room},
        {"dirty pages are written in time", dirty_pages_are_written_in_time},
        {"put and new pages extend a file", put_and_new_pages_extend_a_file},
        {"invalidated pages are read again", invalidated_pages_are_read_again},
    };
    return run_cases(cases, sizeof cases / sizeof *cases);
}
