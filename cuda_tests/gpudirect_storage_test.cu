// File bytes land in device memory, and device memory lands in files: contents, checked by kernels.
//
// Aligned and odd offsets and sizes, cold and warm files, every kind of buffer, batches, vectors,
// writes. The last case prints speeds and asserts none. Streams, tickets and errors are in
// gpudirect_storage_streams_test.cu and gpudirect_storage_errors_test.cu.

#include "check.cuh"

namespace {

constexpr uint64_t GUARD = 4096;

// One read of [file_offset, + size) to buffer_offset, then: the bytes are the file's, and the
// guards before and after are still poison.
void read_and_check(const TestFile &file, const gds_file_t *opened, const gds_buffer_t *buffer,
                    uint8_t *address, uint64_t file_offset, uint64_t buffer_offset, uint64_t size) {
    const uint64_t span = size + 2 * GUARD;
    CUDA_OK(cudaMemset(address + buffer_offset - GUARD, POISON, span));
    CUDA_OK(cudaDeviceSynchronize());
    uint64_t bytes = 0;
    GDS_OK(gds_read(opened, file_offset, buffer, buffer_offset, size, &bytes));
    const uint64_t left = file_offset < file.size() ? file.size() - file_offset : 0;
    const uint64_t expected = size < left ? size : left;
    CHECK(bytes == expected, "read of %llu at %llu gave %llu, not %llu", (unsigned long long)size,
          (unsigned long long)file_offset, (unsigned long long)bytes,
          (unsigned long long)expected);
    Counter counter;
    counter.all(address + buffer_offset - GUARD, GUARD, POISON);
    counter.known(address + buffer_offset, bytes, file.seed(), file_offset);
    counter.all(address + buffer_offset + bytes, span - GUARD - bytes, POISON);
    char what[128];
    snprintf(what, sizeof what, "read of %llu bytes at %llu to buffer offset %llu",
             (unsigned long long)size, (unsigned long long)file_offset,
             (unsigned long long)buffer_offset);
    counter.expect_none(what);
}

void reads_at_every_offset_and_size(gds_context_t *context) {
    const uint64_t file_size = (small_sizes() ? 4 : 40) * MiB + 1234;
    const TestFile file(file_size, 11);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    const uint64_t buffer_size = file_size + 2 * GUARD + 64 * KiB;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, buffer_size, &buffer));
    uint8_t *address = address_of(buffer);

    const uint64_t sizes[] = {1,    7,     511,      512,         4095,        4096,
                              4097, 65536, MiB - 13, MiB + 4096, 3 * MiB + 1};
    const uint64_t offsets[] = {0, 1, 511, 512, 4095, 4096, 4099, 65536, 1000003};
    for (int warm = 0; warm < 2; warm++) {
        warm ? file.make_warm() : file.make_cold();
        for (uint64_t size : sizes) {
            for (uint64_t offset : offsets) {
                if (small_sizes() && size > MiB && offset > 4096) continue;
                read_and_check(file, opened, buffer, address, offset, GUARD, size);
                read_and_check(file, opened, buffer, address, offset, GUARD + 3, size);
            }
        }
        if (!warm) file.make_cold();
        read_and_check(file, opened, buffer, address, 0, GUARD, file_size);
        // The end of the file: up to it, across it, at it, after it.
        read_and_check(file, opened, buffer, address, file_size - 1, GUARD, 1);
        read_and_check(file, opened, buffer, address, file_size - 5000, GUARD + 1, 64 * KiB);
        read_and_check(file, opened, buffer, address, file_size, GUARD, 4096);
        read_and_check(file, opened, buffer, address, file_size + 8192, GUARD, 4096);
    }
    // Half of the file resident, half not.
    file.make_cold();
    file.read_all(0, file_size / 2);
    read_and_check(file, opened, buffer, address, 0, GUARD, file_size);

    std::mt19937_64 random(12);
    for (int i = 0; i < (small_sizes() ? 20 : 300); i++) {
        if (i % 20 == 0) file.make_cold();
        const uint64_t size = between(random, 1, i % 4 == 0 ? MiB : 20000);
        read_and_check(file, opened, buffer, address, between(random, 0, file_size - 1),
                       GUARD + between(random, 0, 9999), size);
    }
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void every_path_reads_the_same(gds_context_t *context) {
    const TestFile file((small_sizes() ? 2 : 24) * MiB + 77, 21);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, file.size(), &buffer));
    const std::vector<uint8_t> bytes = file.read_all(3, file.size() - 3);
    const uint32_t expected_crc = crc32c(bytes.data(), bytes.size());
    for (int32_t path : {GDS_PATH_POLICY_AUTO, GDS_PATH_POLICY_DIRECT, GDS_PATH_POLICY_BUFFERED,
                         GDS_PATH_POLICY_CUFILE}) {
        for (int warm = 0; warm < 2; warm++) {
            warm ? file.make_warm() : file.make_cold();
            CUDA_OK(cudaMemset(address_of(buffer), POISON, file.size()));
            CUDA_OK(cudaDeviceSynchronize());
            gds_options_t options = GDS_OPTIONS_INIT;
            options.path = path;
            // A checksum makes cuFile fall back, since it moves bytes past the processor.
            const bool checked = path != GDS_PATH_POLICY_CUFILE || warm;
            options.checksum = checked ? GDS_SWITCH_ON : GDS_SWITCH_OFF;
            gds_completion_t done = GDS_COMPLETION_INIT;
            GDS_OK(gds_read_with(opened, 3, buffer, 1, file.size() - 3, &options, &done));
            CHECK(done.status == GDS_STATUS_OK && done.bytes == file.size() - 3, "%llu bytes",
                  (unsigned long long)done.bytes);
            CHECK(done.path != GDS_PATH_NONE && (done.paths >> done.path & 1) == 1,
                  "path %d, paths %x", done.path, done.paths);
            CHECK(!checked || done.path != GDS_PATH_CUFILE, "cuFile computed a checksum");
            CHECK(done.has_crc32c == (checked ? 1u : 0u) &&
                      (!checked || done.crc32c == expected_crc),
                  "CRC32C %u %08x, not %08x", done.has_crc32c, done.crc32c, expected_crc);
            Counter counter;
            counter.known(address_of(buffer) + 1, done.bytes, file.seed(), 3);
            counter.expect_none("read by one path");
        }
    }
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

// Whatever the memory, it receives the file's bytes at an odd offset and keeps the rest.
void read_into(const gds_file_t *opened, const TestFile &file, gds_buffer_t *buffer, void *memory,
               uint64_t size, const char *what) {
    gds_buffer_info_t info = GDS_BUFFER_INFO_INIT;
    GDS_OK(gds_buffer_info(buffer, &info));
    CHECK(info.address == (uint64_t)memory && info.size == size, "%s: the buffer is elsewhere",
          what);
    std::vector<uint8_t> host(size, POISON);
    CUDA_OK(cudaMemcpy(memory, host.data(), size, cudaMemcpyDefault));
    CUDA_OK(cudaDeviceSynchronize());
    const uint64_t count = size - 300;
    uint64_t bytes = 0;
    GDS_OK(gds_read(opened, 1001, buffer, 131, count, &bytes));
    CHECK(bytes == count, "%s: %llu bytes", what, (unsigned long long)bytes);
    CUDA_OK(cudaMemcpy(host.data(), memory, size, cudaMemcpyDefault));
    for (uint64_t i = 0; i < size; i++) {
        const bool inside = i >= 131 && i < 131 + count;
        const uint8_t expected = inside ? known_byte(file.seed(), 1001 + i - 131) : POISON;
        CHECK(host[i] == expected, "%s: byte %llu is %02x, not %02x", what, (unsigned long long)i,
              host[i], expected);
    }
}

void every_kind_of_buffer(gds_context_t *context) {
    const uint64_t size = (small_sizes() ? 1 : 8) * MiB + 5000;
    const TestFile file(size + 4096, 31);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    for (int warm = 0; warm < 2; warm++) {
        warm ? file.make_warm() : file.make_cold();
        gds_buffer_t *buffer = nullptr;
        GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
        read_into(opened, file, buffer, address_of(buffer), size, "allocated device memory");
        gds_buffer_free(buffer);
        GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, size, &buffer));
        read_into(opened, file, buffer, address_of(buffer), size, "allocated pinned memory");
        gds_buffer_free(buffer);

        uint8_t *device = nullptr, *pinned = nullptr;
        const uint64_t before = 12345, after = 777;
        CUDA_OK(cudaMalloc(&device, before + size + after));
        CUDA_OK(cudaHostAlloc(&pinned, before + size + after, cudaHostAllocDefault));
        std::vector<uint8_t> plain(before + size + after);
        struct {
            uint8_t *memory;
            const char *what;
        } const kinds[] = {{device, "wrapped cudaMalloc memory"},
                           {device + before, "the inside of cudaMalloc memory"},
                           {pinned, "wrapped cudaHostAlloc memory"},
                           {pinned + before, "the inside of cudaHostAlloc memory"},
                           {plain.data(), "wrapped plain memory"},
                           {plain.data() + before, "the inside of plain memory"}};
        for (const auto &kind : kinds) {
            GDS_OK(gds_buffer_wrap(context, kind.memory, size, &buffer));
            read_into(opened, file, buffer, kind.memory, size, kind.what);
            gds_buffer_free(buffer);
            GDS_OK(gds_buffer_register(context, kind.memory, size, &buffer));
            read_into(opened, file, buffer, kind.memory, size, kind.what);
            gds_buffer_unregister(buffer);
        }
        // What was lent is the caller's again: it can be used and freed.
        CUDA_OK(cudaMemset(device, 0, before + size + after));
        CUDA_OK(cudaFree(device));
        CUDA_OK(cudaFreeHost(pinned));
    }
    gds_file_close(opened);
}

// Every entry has its own place in the file and in the buffer, and its own guard.
void run_batch(gds_context_t *context, uint64_t count, uint64_t file_size, bool odd,
               uint64_t seed) {
    const TestFile file(file_size, seed);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    std::mt19937_64 random(seed);
    const uint64_t slot = odd ? 12 * KiB : 4 * KiB;
    std::vector<uint64_t> slots(count);
    for (uint64_t i = 0; i < count; i++) slots[i] = i;
    std::shuffle(slots.begin(), slots.end(), random);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, count * slot, &buffer));
    uint8_t *address = address_of(buffer);
    for (int warm = 0; warm < 2; warm++) {
        warm ? file.make_warm() : file.make_cold();
        CUDA_OK(cudaMemset(address, POISON, count * slot));
        CUDA_OK(cudaDeviceSynchronize());
        std::vector<gds_batch_entry_t> entries(count);
        for (uint64_t i = 0; i < count; i++) {
            gds_batch_entry_t &entry = entries[i];
            memset(&entry, 0, sizeof entry);
            entry.file = opened;
            entry.buffer = buffer;
            entry.operation = GDS_OPERATION_READ;
            entry.size = odd ? between(random, 1, 9000) : 4096;
            entry.buffer_offset = slots[i] * slot + (odd ? between(random, 1, 2000) : 0);
            const uint64_t last = file_size - entry.size;
            entry.file_offset = odd ? between(random, 0, last)
                                    : between(random, 0, last / 4096) * 4096;
        }
        gds_ticket_t *ticket = nullptr;
        GDS_OK(gds_batch_submit(context, entries.data(), count, nullptr, &ticket));
        gds_completion_t all = GDS_COMPLETION_INIT;
        GDS_OK(gds_ticket_wait(ticket, -1, &all));
        std::vector<gds_completion_t> results(count, gds_completion_t(GDS_COMPLETION_INIT));
        GDS_OK(gds_batch_results(ticket, 0, count, results.data()));
        uint64_t sum = 0;
        for (uint64_t i = 0; i < count; i++) {
            CHECK(results[i].status == GDS_STATUS_OK && results[i].bytes == entries[i].size,
                  "entry %llu: status %d, %llu of %llu bytes", (unsigned long long)i,
                  results[i].status, (unsigned long long)results[i].bytes,
                  (unsigned long long)entries[i].size);
            sum += results[i].bytes;
        }
        CHECK(all.bytes == sum, "%llu bytes in all", (unsigned long long)all.bytes);
        gds_ticket_destroy(ticket);
        Counter counter;
        for (uint64_t i = 0; i < count; i++) {
            const gds_batch_entry_t &entry = entries[i];
            const uint64_t start = slots[i] * slot, end = entry.buffer_offset + entry.size;
            counter.all(address + start, entry.buffer_offset - start, POISON);
            counter.known(address + entry.buffer_offset, entry.size, seed, entry.file_offset);
            counter.all(address + end, start + slot - end, POISON);
        }
        counter.expect_none("a batch of reads");
    }
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void batch_of_random_pages(gds_context_t *context) {
    small_sizes() ? run_batch(context, 200, 2 * MiB, false, 41)
                  : run_batch(context, 10000, 128 * MiB, false, 41);
}

void batch_of_odd_ranges(gds_context_t *context) {
    small_sizes() ? run_batch(context, 100, 2 * MiB + 7, true, 42)
                  : run_batch(context, 4000, 64 * MiB + 7, true, 42);
}

void vectors_scatter_and_gather(gds_context_t *context) {
    const TestFile file(2 * MiB + 9, 51);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *first = nullptr, *second = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, MiB, &first));
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, MiB, &second));
    const gds_segment_t segments[] = {{first, 17, 100001}, {second, 0, 4096}, {first, 200000, 1},
                                      {second, 8191, 300000}};
    gds_completion_t done = GDS_COMPLETION_INIT;
    GDS_OK(gds_readv(opened, 12347, segments, 4, nullptr, &done));
    CHECK(done.bytes == 404098, "%llu bytes", (unsigned long long)done.bytes);
    Counter counter;
    uint64_t position = 12347;
    for (const gds_segment_t &segment : segments) {
        counter.known(address_of(segment.buffer) + segment.offset, segment.size, 51, position);
        position += segment.size;
    }
    counter.expect_none("a scattered read");
    // Other bytes, gathered from the same places, arrive in the file in order.
    position = 777;
    for (const gds_segment_t &segment : segments) {
        fill_known<<<64, 256>>>(address_of(segment.buffer) + segment.offset, segment.size, 52,
                                position);
        position += segment.size;
    }
    CUDA_OK(cudaDeviceSynchronize());
    GDS_OK(gds_writev(opened, 777, segments, 4, nullptr, &done));
    CHECK(done.bytes == 404098, "%llu bytes", (unsigned long long)done.bytes);
    file.expect_known(0, 777, 51);
    file.expect_known(777, 404098, 52);
    file.expect_known(777 + 404098, file.size() - 777 - 404098, 51);
    gds_buffer_free(second);
    gds_buffer_free(first);
    gds_file_close(opened);
}

void writes_arrive_in_the_file(gds_context_t *context) {
    const uint64_t size = (small_sizes() ? 2 : 16) * MiB + 321;
    const uint64_t ranges[][2] = {{0, size},       {0, 4096},     {4096, 65536}, {1, 1},
                                  {511, 4097},     {4095, 2},     {12345, MiB - 7},
                                  {size - 5, 5},   {size - 5, 5000},  // beyond the end: it grows
                                  {size + 10000, 3000}};              // and with a hole
    for (int warm = 0; warm < 2; warm++) {
        for (const auto &range : ranges) {
            const TestFile file(size, 61);
            warm ? file.make_warm() : file.make_cold();
            gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
            gds_buffer_t *buffer = nullptr;
            GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, range[1] + 100, &buffer));
            fill_known<<<256, 256>>>(address_of(buffer) + 33, range[1], 62, range[0]);
            CUDA_OK(cudaDeviceSynchronize());
            uint64_t bytes = 0;
            GDS_OK(gds_write(opened, range[0], buffer, 33, range[1], &bytes));
            CHECK(bytes == range[1], "%llu bytes", (unsigned long long)bytes);
            GDS_OK(gds_file_sync(opened));
            const uint64_t end = range[0] + range[1];
            file.expect_known(0, range[0] < size ? range[0] : size, 61);
            file.expect_known(range[0], range[1], 62);
            if (end < size) file.expect_known(end, size - end, 61);
            uint64_t now = 0;
            GDS_OK(gds_file_size(opened, &now));
            CHECK(now == (end > size ? end : size), "the file has %llu bytes",
                  (unsigned long long)now);
            if (range[0] > size) {
                for (uint8_t byte : file.read_all(size, range[0] - size)) {
                    CHECK(byte == 0, "the hole holds %02x", byte);
                }
            }
            gds_buffer_free(buffer);
            gds_file_close(opened);
        }
    }
}

void speed(gds_context_t *context) {
    const uint64_t size = (small_sizes() ? 8 : 1024) * MiB;
    const TestFile file(size, 71);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
    printf("\n");
    for (const char *state : {"cold", "warm", "write"}) {
        for (int run = 0; run < 3; run++) {
            if (strcmp(state, "cold") == 0) file.make_cold();
            if (strcmp(state, "warm") == 0) file.make_warm();
            gds_completion_t done = GDS_COMPLETION_INIT;
            auto begin = std::chrono::steady_clock::now();
            if (strcmp(state, "write") == 0) {
                GDS_OK(gds_write_with(opened, 0, buffer, 0, size, nullptr, &done));
            } else {
                GDS_OK(gds_read_with(opened, 0, buffer, 0, size, nullptr, &done));
            }
            const double seconds = seconds_since(begin);
            printf("  %-5s %5llu MiB  %7.2f GB/s  path %d\n", state,
                   (unsigned long long)(size / MiB), (double)size / seconds / 1e9, done.path);
        }
        Counter counter;
        counter.known(address_of(buffer), size, file.seed(), 0);
        counter.expect_none("what was timed");
    }
    gds_buffer_free(buffer);
    gds_file_close(opened);
    printf("%-44s", "");
}

const Case CASES[] = {
    {"reads_at_every_offset_and_size", reads_at_every_offset_and_size},
    {"every_path_reads_the_same", every_path_reads_the_same},
    {"every_kind_of_buffer", every_kind_of_buffer},
    {"batch_of_random_pages", batch_of_random_pages},
    {"batch_of_odd_ranges", batch_of_odd_ranges},
    {"vectors_scatter_and_gather", vectors_scatter_and_gather},
    {"writes_arrive_in_the_file", writes_arrive_in_the_file},
    {"speed", speed},
};

}  // namespace

int main() { return run_cases(CASES, sizeof CASES / sizeof CASES[0]); }
