// Readers, writers, reading ahead and mapped regions with kernels of the caller's stream: every
// chunk comes once and in order, no buffer changes under a kernel that has it, and what goes wrong
// in the middle is told with its place. GDS_TEST_SMALL=1 shrinks the sizes for compute-sanitizer.

#include <thread>

#include "check.cuh"

namespace {

constexpr uint64_t OLD = 1, NEW = 2; // seeds

// As count_wrong(), `delay_ns` after it began: what comes into the buffer meanwhile is seen.
__global__ void count_wrong_late(const uint8_t *data, uint64_t size, uint64_t seed,
                                 uint64_t position, uint64_t delay_ns, unsigned long long *wrong) {
    uint64_t begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < delay_ns);
    __syncthreads();
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        if (data[i] != known_byte(seed, position + i)) atomicAdd(wrong, 1ull);
    }
}

// A stream that waits for no other.
class Stream {
  public:
    Stream() { CUDA_OK(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
    ~Stream() { cudaStreamDestroy(handle); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;

    void wait() const { CUDA_OK(cudaStreamSynchronize(handle)); }
    void fill(uint64_t address, uint64_t size, uint64_t seed, uint64_t position) const {
        fill_known<<<32, 256, 0, handle>>>((uint8_t *)address, size, seed, position);
        CUDA_OK(cudaGetLastError());
    }
    // What is queued from now on waits for the gate.
    void hold(Gate &gate) const { gate.fill_when_open(nullptr, 0, 0, handle); }

    cudaStream_t handle = nullptr;
};

struct Reader {
    gds_reader_t *handle = nullptr;

    Reader(const gds_file_t *file, uint64_t chunk, uint32_t buffers)
        : Reader(std::vector<gds_range_t>{{file, 0, GDS_RANGE_TO_END}}, chunk, buffers) {}
    Reader(const std::vector<gds_range_t> &ranges, uint64_t chunk, uint32_t buffers) {
        gds_reader_config_t config = GDS_READER_CONFIG_INIT;
        config.chunk_bytes = chunk;
        config.buffers = buffers;
        GDS_OK(gds_reader_open_ranges(ranges.data(), ranges.size(), &config, &handle));
    }
    ~Reader() { gds_reader_close(handle); }
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;

    // False at the end.
    bool next(gds_chunk_t &chunk) const {
        chunk = GDS_CHUNK_INIT;
        const gds_status_t status = gds_reader_next(handle, -1, &chunk);
        if (status == GDS_STATUS_END) return false;
        GDS_OK(status);
        return true;
    }
    gds_status_t look(int64_t timeout_ms) const {
        gds_chunk_t chunk = GDS_CHUNK_INIT;
        return gds_reader_next(handle, timeout_ms, &chunk);
    }
    void release_on(const gds_chunk_t &chunk, const Stream &stream) const {
        GDS_OK(gds_reader_release_on(handle, &chunk, stream.handle));
    }
    int32_t state(uint32_t buffer) const {
        int32_t state = -1;
        GDS_OK(gds_reader_buffer_state(handle, buffer, &state));
        return state;
    }
};

// ---- readers -------------------------------------------------------------------------------

void every_chunk_once_and_in_order(gds_context_t *context) {
    const uint64_t size = (small_sizes() ? 1 : 24) * MiB + 4321;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Stream stream;
    for (uint64_t chunk_bytes : {64 * KiB, 1 * MiB, 100000 * KiB / 99, 4 * MiB}) {
        for (uint32_t buffers : {2u, 3u, 8u}) {
            Counter counter(stream.handle);
            Reader reader(opened, chunk_bytes, buffers);
            gds_chunk_t chunk;
            uint64_t at = 0;
            for (uint64_t index = 0; reader.next(chunk); index++) {
                CHECK(chunk.index == index && chunk.file_offset == at && chunk.range == 0 &&
                          chunk.size == std::min(chunk_bytes, size - at) && chunk.buffer < buffers,
                      "chunk %llu is %llu, at %llu", (unsigned long long)index,
                      (unsigned long long)chunk.index, (unsigned long long)chunk.file_offset);
                counter.known((const void *)chunk.address, chunk.size, OLD, at);
                reader.release_on(chunk, stream);
                at += chunk.size;
            }
            CHECK(at == size, "%llu bytes of %llu", (unsigned long long)at,
                  (unsigned long long)size);
            counter.expect_none("chunks in the order of the file");
            GDS_IS(GDS_STATUS_END, reader.look(0));
        }
    }
    gds_file_close(opened);
}

void ranges_of_two_files(gds_context_t *context) {
    const uint64_t size = 1 * MiB + 17;
    TestFile first(size, OLD), second(size, NEW);
    gds_file_t *a = open_file(context, first, GDS_FILE_READ);
    gds_file_t *b = open_file(context, second, GDS_FILE_READ);
    const uint64_t seeds[] = {OLD, NEW, OLD, OLD};
    const std::vector<gds_range_t> ranges = {
        {a, 1001, 300000}, {b, 65536, GDS_RANGE_TO_END}, {a, 5, 0}, {a, size - 10, 4096}};
    const uint64_t sizes[] = {300000, size - 65536, 0, 10};
    Stream stream;
    Counter counter(stream.handle);
    {
        Reader reader(ranges, 128 * KiB, 3);
        gds_chunk_t chunk;
        uint64_t got[4] = {0, 0, 0, 0};
        uint32_t last = 0;
        while (reader.next(chunk)) {
            CHECK(chunk.range >= last && chunk.range < 4, "ranges come in order");
            last = chunk.range;
            CHECK(chunk.file_offset == ranges[last].offset + got[last], "range %u at %llu", last,
                  (unsigned long long)chunk.file_offset);
            counter.known((const void *)chunk.address, chunk.size, seeds[last], chunk.file_offset);
            got[last] += chunk.size;
            reader.release_on(chunk, stream);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(got[i] == sizes[i], "range %d has %llu bytes", i, (unsigned long long)got[i]);
        }
        counter.expect_none("ranges of two files");
    }
    gds_file_close(a);
    gds_file_close(b);
}

void slow_kernels_keep_their_buffers(gds_context_t *context) {
    const uint64_t chunk_bytes = 256 * KiB, chunks = small_sizes() ? 6 : 60;
    TestFile file(chunks * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Stream streams[2];
    unsigned long long *wrong = nullptr;
    CUDA_OK(cudaMalloc((void **)&wrong, sizeof *wrong));
    CUDA_OK(cudaMemset(wrong, 0, sizeof *wrong));
    {
        // Two streams that take turns: chunks are given back out of order.
        Reader reader(opened, chunk_bytes, 3);
        gds_chunk_t chunk;
        while (reader.next(chunk)) {
            const bool odd = chunk.index % 2 == 1;
            const uint64_t delay_ns = odd ? 5 * 1000 * 1000 : 1000 * 1000;
            count_wrong_late<<<16, 256, 0, streams[odd].handle>>>(
                (const uint8_t *)chunk.address, chunk.size, OLD, chunk.file_offset, delay_ns,
                wrong);
            CUDA_OK(cudaGetLastError());
            reader.release_on(chunk, streams[odd]);
        }
        for (Stream &stream : streams) stream.wait();
    }
    unsigned long long count = 0;
    CUDA_OK(cudaMemcpy(&count, wrong, sizeof count, cudaMemcpyDeviceToHost));
    CHECK(count == 0, "%llu bytes changed under a kernel", count);
    CUDA_OK(cudaFree(wrong));
    gds_file_close(opened);
}

void a_held_gate_holds_the_reader(gds_context_t *context) {
    const uint64_t chunk_bytes = 128 * KiB, chunks = 10;
    TestFile file(chunks * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Stream stream;
    Gate gate;
    Counter counter(stream.handle);
    {
        Reader reader(opened, chunk_bytes, 2);
        gds_chunk_t chunk;
        stream.hold(gate);
        for (uint64_t i = 0; i < 2; i++) {
            CHECK(reader.next(chunk), "chunk %llu", (unsigned long long)i);
            counter.known((const void *)chunk.address, chunk.size, OLD, chunk.file_offset);
            reader.release_on(chunk, stream);
        }
        GDS_IS(GDS_STATUS_PENDING, reader.look(0));
        GDS_IS(GDS_STATUS_PENDING, reader.look(100));
        for (uint32_t i = 0; i < 2; i++) {
            CHECK(reader.state(i) == GDS_BUFFER_STATE_PROCESSING, "buffer %u is the stream's", i);
        }
        gate.open();
        uint64_t left = 0;
        for (; reader.next(chunk); left++) {
            counter.known((const void *)chunk.address, chunk.size, OLD, chunk.file_offset);
            reader.release_on(chunk, stream);
        }
        CHECK(left == chunks - 2, "%llu chunks were left", (unsigned long long)left);
        counter.expect_none("chunks that waited in the stream");
        gate.expect_passed();
    }
    gds_file_close(opened);
}

void an_error_in_the_middle_says_where(gds_context_t *context) {
    const uint64_t chunk_bytes = 64 * KiB, whole = 20, end = whole * chunk_bytes + 5000;
    TestFile file(40 * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Stream stream;
    Counter counter(stream.handle);
    {
        Reader reader(opened, chunk_bytes, 3);
        CHECK(truncate(file.path(), (off_t)end) == 0, "%s", strerror(errno));
        gds_chunk_t chunk;
        gds_status_t status;
        uint64_t got = 0;
        for (;; got++) {
            chunk = GDS_CHUNK_INIT;
            status = gds_reader_next(reader.handle, -1, &chunk);
            if (status != GDS_STATUS_OK) break;
            counter.known((const void *)chunk.address, chunk.size, OLD, chunk.file_offset);
            reader.release_on(chunk, stream);
        }
        GDS_IS(GDS_STATUS_FILE_CHANGED, status);
        CHECK(got == whole, "%llu chunks came", (unsigned long long)got);
        gds_error_info_t info;
        GDS_OK(gds_last_error(&info, sizeof info));
        CHECK(info.has_file_offset == 1 && info.file_offset >= whole * chunk_bytes &&
                  info.file_offset <= end,
              "the error is at %llu", (unsigned long long)info.file_offset);
        CHECK(strstr(info.message, "chunk 20") != nullptr, "%s", info.message);
        CHECK(info.path != nullptr && strcmp(info.path, file.path()) == 0, "the file is named");
        GDS_IS(GDS_STATUS_FILE_CHANGED, reader.look(-1));
        counter.expect_none("chunks before the error");
    }
    gds_file_close(opened);
}

void cancel_ends_a_wait(gds_context_t *context) {
    const uint64_t chunk_bytes = 64 * KiB;
    TestFile file(20 * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Counter counter;
    {
        Reader reader(opened, chunk_bytes, 2);
        gds_chunk_t held[2];
        for (gds_chunk_t &chunk : held) CHECK(reader.next(chunk), "two chunks come");
        gds_status_t answer = GDS_STATUS_OK;
        std::thread waiting([&] { answer = reader.look(-1); });
        GDS_OK(gds_reader_cancel(reader.handle));
        waiting.join();
        GDS_IS(GDS_STATUS_CANCELLED, answer);
        for (const gds_chunk_t &chunk : held) {
            counter.known((const void *)chunk.address, chunk.size, OLD, chunk.file_offset);
        }
        counter.expect_none("chunks that were out when the reader was cancelled");
        for (const gds_chunk_t &chunk : held) GDS_OK(gds_reader_release(reader.handle, &chunk));
        GDS_IS(GDS_STATUS_CANCELLED, reader.look(0));
    }
    gds_file_close(opened);
}

struct Called {
    const Reader *reader;
    const Stream *stream;
    Counter *counter;
    uint64_t chunks, stop_at;
};

int32_t on_chunk(const gds_chunk_t *chunk, void *user_data) {
    Called *called = (Called *)user_data;
    called->counter->known((const void *)chunk->address, chunk->size, OLD, chunk->file_offset);
    called->reader->release_on(*chunk, *called->stream);
    called->chunks++;
    return called->chunks == called->stop_at;
}

void callbacks_give_chunks_to_a_stream(gds_context_t *context) {
    const uint64_t chunk_bytes = 64 * KiB, chunks = 30;
    TestFile file(chunks * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    Stream stream;
    Counter counter(stream.handle);
    {
        Reader reader(opened, chunk_bytes, 4);
        Called called = {&reader, &stream, &counter, 0, 7};
        uint64_t bytes = 0;
        GDS_OK(gds_reader_run(reader.handle, on_chunk, &called, &bytes));
        CHECK(bytes == 7 * chunk_bytes, "the callback stopped after %llu bytes",
              (unsigned long long)bytes);
        GDS_OK(gds_reader_run(reader.handle, on_chunk, &called, &bytes));
        CHECK(called.chunks == chunks && bytes == (chunks - 7) * chunk_bytes, "and went on");
        counter.expect_none("chunks of callbacks");
    }
    gds_file_close(opened);
}

// ---- writers -------------------------------------------------------------------------------

struct Writer {
    gds_writer_t *handle = nullptr;

    Writer(const gds_file_t *file, uint64_t offset, uint64_t chunk, uint32_t buffers) {
        gds_reader_config_t config = GDS_READER_CONFIG_INIT;
        config.chunk_bytes = chunk;
        config.buffers = buffers;
        GDS_OK(gds_writer_open(file, offset, &config, &handle));
    }
    ~Writer() { gds_writer_close(handle); }
    Writer(const Writer &) = delete;
    Writer &operator=(const Writer &) = delete;

    // A buffer that a kernel of `stream` fills; where it goes in the file.
    void put(const Stream &stream, uint64_t at, uint64_t size) const {
        gds_space_t space;
        uint64_t offset = 0;
        GDS_OK(gds_writer_acquire(handle, -1, &space));
        CHECK(space.size >= size, "a buffer has %llu bytes", (unsigned long long)space.size);
        stream.fill(space.address, size, NEW, at);
        GDS_OK(gds_writer_submit_on(handle, &space, size, stream.handle, &offset));
        CHECK(offset == at, "it goes to %llu", (unsigned long long)offset);
    }
};

void kernels_fill_what_is_written(gds_context_t *context) {
    const uint64_t chunk_bytes = 128 * KiB, begin = 12345;
    const uint64_t size = (small_sizes() ? 5 : 50) * chunk_bytes + 4321;
    TestFile file(1 * MiB, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    Stream stream;
    for (uint32_t buffers : {2u, 5u}) {
        Writer writer(opened, begin, chunk_bytes, buffers);
        for (uint64_t at = 0; at < size; at += chunk_bytes) {
            writer.put(stream, begin + at, std::min(chunk_bytes, size - at));
        }
        uint64_t bytes = 0;
        GDS_OK(gds_writer_finish(writer.handle, &bytes));
        CHECK(bytes == size, "%llu bytes were written", (unsigned long long)bytes);
        file.expect_known(0, begin, OLD);
        file.expect_known(begin, size, NEW);
    }
    gds_file_close(opened);
}

void a_held_gate_holds_the_writer(gds_context_t *context) {
    const uint64_t chunk_bytes = 64 * KiB;
    TestFile file(3 * chunk_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    Stream stream;
    Gate gate;
    {
        Writer writer(opened, 0, chunk_bytes, 2);
        stream.hold(gate);
        writer.put(stream, 0, chunk_bytes);
        writer.put(stream, chunk_bytes, chunk_bytes);
        gds_space_t space;
        GDS_IS(GDS_STATUS_PENDING, gds_writer_acquire(writer.handle, 50, &space));
        file.expect_known(0, 3 * chunk_bytes, OLD);
        gate.open();
        writer.put(stream, 2 * chunk_bytes, chunk_bytes);
        GDS_OK(gds_writer_finish(writer.handle, nullptr));
        gate.expect_passed();
    }
    file.expect_known(0, 3 * chunk_bytes, NEW);
    gds_file_close(opened);
}

// ---- reading ahead -------------------------------------------------------------------------

gds_prefetch_stats_t stats_of(const gds_prefetch_t *prefetch) {
    gds_prefetch_stats_t stats = GDS_PREFETCH_STATS_INIT;
    GDS_OK(gds_prefetch_stats(prefetch, &stats));
    return stats;
}

void settle(const gds_prefetch_t *prefetch) {
    const auto begin = std::chrono::steady_clock::now();
    while (stats_of(prefetch).in_flight > 0 || stats_of(prefetch).queued > 0) {
        CHECK(seconds_since(begin) < 60, "reads ahead do not end");
        usleep(500);
    }
}

void scans_and_strides_are_read_ahead(gds_context_t *context) {
    const uint64_t page_bytes = 16 * KiB, pages = 200;
    TestFile file(pages * page_bytes, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_cache_config_t cache_config = GDS_CACHE_CONFIG_INIT;
    cache_config.page_bytes = page_bytes;
    cache_config.device_bytes = 512 * page_bytes;
    for (int64_t step : {1, -7}) {
        gds_cache_t *cache = nullptr;
        GDS_OK(gds_cache_open(context, &cache_config, &cache));
        gds_prefetch_config_t config = GDS_PREFETCH_CONFIG_INIT;
        config.distance_bytes = 16 * page_bytes;
        config.chunk_bytes = step == 1 ? 4 * page_bytes : page_bytes;
        config.deadline_ms = 600 * 1000;
        config.predictor = GDS_SWITCH_OFF;
        gds_prefetch_t *prefetch = nullptr;
        GDS_OK(gds_prefetch_open(cache, opened, &config, &prefetch));
        Counter counter;
        uint64_t at = step > 0 ? 0 : pages - 1;
        for (int i = 0; i < 25; i++, at += (uint64_t)step) {
            gds_page_t page;
            GDS_OK(gds_prefetch_get(prefetch, at * page_bytes + 5, &page));
            counter.known(page.address, page.size_bytes, OLD, at * page_bytes);
            CUDA_OK(cudaDeviceSynchronize());
            GDS_OK(gds_cache_release(cache, &page));
            settle(prefetch);
        }
        counter.expect_none("pages that were read ahead");
        const gds_prefetch_stats_t stats = stats_of(prefetch);
        CHECK(stats.accesses == 25 && stats.hits + stats.late + stats.misses == 25, "all count");
        CHECK(stats.pattern == (step == 1 ? GDS_PATTERN_SEQUENTIAL : GDS_PATTERN_STRIDED),
              "the pattern is %d", stats.pattern);
        CHECK(stats.stride == (step == 1 ? 0 : step * (int64_t)page_bytes), "a stride of %lld",
              (long long)stats.stride);
        CHECK(stats.prefetch_hits >= 12, "%llu pages were there in time",
              (unsigned long long)stats.prefetch_hits);
        // What is known to come needs no pattern.
        GDS_OK(gds_prefetch_hint(prefetch, 100 * page_bytes, 4 * page_bytes, 1000, 0));
        settle(prefetch);
        gds_page_t page;
        GDS_OK(gds_cache_try_get(cache, opened, 102 * page_bytes, &page));
        CHECK(page.token != 0, "a hint is read");
        counter.known(page.address, page.size_bytes, OLD, 102 * page_bytes);
        counter.expect_none("a page that was hinted at");
        GDS_OK(gds_cache_release(cache, &page));
        gds_prefetch_close(prefetch);
        gds_cache_close(cache);
    }
    gds_file_close(opened);
}

// ---- regions -------------------------------------------------------------------------------

gds_region_info_t info_of(const gds_region_t *region) {
    gds_region_info_t info = GDS_REGION_INFO_INIT;
    GDS_OK(gds_region_info(region, &info));
    return info;
}

gds_region_stats_t stats_of(const gds_region_set_t *set) {
    gds_region_stats_t stats = GDS_REGION_STATS_INIT;
    GDS_OK(gds_region_set_stats(set, &stats));
    return stats;
}

gds_region_set_t *open_set(const gds_context_t *context, uint64_t limit) {
    gds_region_config_t config = GDS_REGION_CONFIG_INIT;
    config.limit_bytes = limit;
    gds_region_set_t *set = nullptr;
    GDS_OK(gds_region_set_open(context, &config, &set));
    return set;
}

void kernels_write_to_regions(gds_context_t *context) {
    const uint64_t size = 40000, begin = 5000, count = 20000;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_region_set_t *set = open_set(context, 1 * MiB);
    gds_region_t *region = nullptr, *again = nullptr, *tail = nullptr;
    Stream stream;
    Counter counter(stream.handle);
    GDS_OK(gds_region_map(set, opened, begin, count, &region));
    const gds_region_info_t info = info_of(region);
    CHECK(info.offset == begin && info.size == count && info.valid_bytes == count, "its range");
    counter.known((const void *)info.address, count, OLD, begin);
    counter.expect_none("a region");
    stream.fill(info.address + 100, 3000, NEW, begin + 100);
    stream.wait();
    GDS_OK(gds_region_mark_dirty(region, 100, 3000));
    CHECK(info_of(region).dirty_bytes == 3000, "it is marked");
    file.expect_known(0, size, OLD);
    uint64_t bytes = 0;
    GDS_OK(gds_region_flush(region, &bytes));
    CHECK(bytes == 3000, "%llu bytes were written", (unsigned long long)bytes);
    file.expect_known(0, begin + 100, OLD);
    file.expect_known(begin + 100, 3000, NEW);
    file.expect_known(begin + 3100, size - begin - 3100, OLD);

    GDS_OK(gds_region_map(set, opened, begin, count, &again));
    CHECK(info_of(again).address == info.address && stats_of(set).hits == 1, "the same memory");
    GDS_OK(gds_region_map(set, opened, size - 1000, 3000, &tail));
    const gds_region_info_t end = info_of(tail);
    CHECK(end.valid_bytes == 1000, "%llu bytes are the file's",
          (unsigned long long)end.valid_bytes);
    counter.known((const void *)end.address, 1000, OLD, size - 1000);
    counter.all((const void *)(end.address + 1000), 2000, 0);
    counter.expect_none("a region past the end of its file");
    gds_region_unmap(region);
    gds_region_unmap(again);
    gds_region_unmap(tail);
    CHECK(stats_of(set).held_regions == 0 && stats_of(set).regions == 2, "nobody holds them");
    gds_region_set_close(set);
    gds_file_close(opened);
}

void dirty_regions_make_room(gds_context_t *context) {
    // Neighbours share blocks of the file: none may undo what the other wrote.
    const uint64_t piece = 100000, pieces = small_sizes() ? 8 : 40, size = pieces * piece + 5000;
    TestFile file(size, OLD);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_region_set_t *set = open_set(context, 512 * KiB);
    Stream stream;
    Counter counter(stream.handle);
    for (uint64_t i = 0; i < pieces; i++) {
        gds_region_t *region = nullptr;
        GDS_OK(gds_region_map(set, opened, i * piece, piece, &region));
        const gds_region_info_t info = info_of(region);
        counter.known((const void *)info.address, piece, OLD, i * piece);
        stream.fill(info.address, piece, NEW, i * piece);
        stream.wait();
        GDS_OK(gds_region_mark_dirty(region, 0, piece));
        gds_region_unmap(region);
    }
    counter.expect_none("regions before they are written to");
    const gds_region_stats_t stats = stats_of(set);
    CHECK(stats.dirty_evictions > 0 && stats.mapped_bytes <= stats.limit_bytes, "room was made");
    GDS_OK(gds_region_set_flush(set, nullptr, nullptr));
    CHECK(stats_of(set).dirty_bytes == 0 && stats_of(set).write_errors == 0, "all is written");
    file.expect_known(0, pieces * piece, NEW);
    file.expect_known(pieces * piece, 5000, OLD);

    gds_region_t *held = nullptr, *other = nullptr;
    GDS_OK(gds_region_map(set, opened, 0, 400 * KiB, &held));
    GDS_IS(GDS_STATUS_OUT_OF_DEVICE_MEMORY,
           gds_region_map(set, opened, 500 * KiB, 200 * KiB, &other));
    counter.known((const void *)info_of(held).address, 400 * KiB, NEW, 0);
    counter.expect_none("a region that is held while another finds no room");
    gds_region_unmap(held);
    GDS_OK(gds_region_map(set, opened, 500 * KiB, 200 * KiB, &other));
    counter.known((const void *)info_of(other).address, 200 * KiB, NEW, 500 * KiB);
    counter.expect_none("the region that got the room");
    gds_region_unmap(other);
    gds_region_set_close(set);
    gds_file_close(opened);
}

} // namespace

int main() {
    const Case cases[] = {
        {"every chunk once and in order", every_chunk_once_and_in_order},
        {"ranges of two files", ranges_of_two_files},
        {"slow kernels keep their buffers", slow_kernels_keep_their_buffers},
        {"a held gate holds the reader", a_held_gate_holds_the_reader},
        {"an error in the middle says where", an_error_in_the_middle_says_where},
        {"cancel ends a wait", cancel_ends_a_wait},
        {"callbacks give chunks to a stream", callbacks_give_chunks_to_a_stream},
        {"kernels fill what is written", kernels_fill_what_is_written},
        {"a held gate holds the writer", a_held_gate_holds_the_writer},
        {"scans and strides are read ahead", scans_and_strides_are_read_ahead},
        {"kernels write to regions", kernels_write_to_regions},
        {"dirty regions make room", dirty_regions_make_room},
    };
    return run_cases(cases, sizeof cases / sizeof *cases);
}
