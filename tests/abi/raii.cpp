// What gds_rs.hpp promises, on the host device: bytes arrive, failures throw, handles close.

#include "gds_rs.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

static int failures = 0;

static void expect(bool so, const char *what)
{
    if (!so) {
        std::fprintf(stderr, "not so: %s\n", what);
        failures++;
    }
}

template <typename F> static void throws(gds_status_t status, const char *part, F &&call)
{
    try {
        call();
        expect(false, part);
    } catch (const gds::error &error) {
        expect(error.status() == status, error.what());
        expect(std::strstr(error.what(), part) != nullptr, error.what());
    }
}

static void moves_bytes(const gds::context &context, const std::string &path)
{
    const uint64_t size = 100000;
    gds::file file(context, path, GDS_FILE_READ | GDS_FILE_WRITE);
    std::vector<unsigned char> here(size), back(size);
    for (size_t i = 0; i < size; i++) {
        here[i] = static_cast<unsigned char>(i * 7 + i / 251);
    }
    gds::buffer from = gds::buffer::wrap(context, here.data(), size);
    gds::buffer to = gds::buffer::registered(context, back.data(), size);
    gds::buffer device(context, GDS_MEMORY_DEVICE, size);
    expect(file.write(0, from, 0, size) == size, "all is written");
    file.sync();
    expect(file.size() == size && file.info().flags == 3, "the file grew");

    gds_options_t options = gds::options();
    options.checksum = GDS_SWITCH_ON;
    gds_completion_t done = file.read(0, device, 0, size, options);
    expect(done.bytes == size && done.has_crc32c == 1, "all is read");
    expect(device.crc32c(context, 0, size, 1 << 20) == std::vector<uint32_t>(1, done.crc32c),
           "the CRC in memory is that of what was read");
    expect(device.crc32c(context, 1, 513, 512).size() == 2, "a short chunk has a CRC");
    gds::ticket ticket = file.read_start(0, to, 0, size);
    expect(ticket.wait_for(60000) && ticket.done(), "the ticket is done");
    expect(ticket.wait().bytes == size && here == back, "the bytes are the same");

    gds_batch_entry_t entry = {file.get(), to.get(), 0, 1, 10, GDS_OPERATION_READ, 0};
    gds::ticket batch = gds::submit(context, {entry, entry});
    batch.wait();
    expect(batch.results(0, 2)[1].bytes == 10 && back[1] == here[0], "a batch reads");
    expect(context.metrics().read.bytes >= size, "the counters count");
    expect(context.performance().read_target_bytes_per_second > 0, "targets are told");
    expect(context.explain(path).size() > 10, "an explanation is given");
}

static void streams_chunks(const gds::context &context, const char *path)
{
    const size_t size = 100001;
    std::vector<unsigned char> here(size);
    for (size_t i = 0; i < size; i++) {
        here[i] = static_cast<unsigned char>(i * 7 + i / 251);
    }
    gds::file file(context, path, GDS_FILE_READ | GDS_FILE_WRITE | GDS_FILE_TRUNCATE);
    gds::buffer from = gds::buffer::wrap(context, here.data(), size);
    expect(file.write(0, from, 0, size) == size, "all is written");

    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = 4096;
    gds::reader reader(file, &config);
    std::vector<unsigned char> back;
    reader.each([&](gds::chunk &chunk) {
        const unsigned char *bytes = static_cast<const unsigned char *>(chunk.address());
        expect(chunk->file_offset == back.size(), "chunks come in order");
        back.insert(back.end(), bytes, bytes + chunk.size());
        if (chunk->index % 3 == 0) {
            chunk.release();
        } else if (chunk->index % 3 == 1) {
            chunk.release_on(nullptr);
        }
    });
    expect(here == back && reader.info().chunks_delivered == 25, "the file came whole");

    std::vector<gds_range_t> ranges(2);
    ranges[0].file = ranges[1].file = file.get();
    ranges[0].offset = 5;
    ranges[0].size = 10;
    ranges[1].offset = 100000;
    ranges[1].size = GDS_RANGE_TO_END;
    gds::reader parts(ranges);
    uint64_t bytes = 0;
    parts.each([&](gds::chunk &chunk) { bytes += chunk.size(); });
    expect(bytes == 11, "ranges come one after the other");
    gds::reader stopped(file, &config);
    stopped.cancel();
    throws(GDS_STATUS_CANCELLED, "cancelled", [&] { stopped.each([](gds::chunk &) {}); });
}

static void streams_to_a_file(const gds::context &context, const char *path)
{
    gds::file file(context, path, GDS_FILE_READ | GDS_FILE_WRITE | GDS_FILE_TRUNCATE);
    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = 4096;
    gds::writer writer(file, 100, &config);
    for (int i = 0; i < 9; i++) {
        gds::space space = writer.acquire();
        expect(space && space.size() == 4096, "a space is a chunk");
        std::memset(space.address(), 'a' + i, 4000);
        const uint64_t at = i % 2 ? space.submit(4000) : space.submit_on(4000, nullptr);
        expect(at == 100 + 4000u * static_cast<uint64_t>(i) && !space, "one after the other");
    }
    expect(writer.finish() == 36000 && file.size() == 36100, "all is written");
    {
        gds::space first = writer.acquire(), second(writer.acquire());
        expect(!writer.acquire_for(0), "both are out");
        gds::space moved(std::move(first));
        expect(!first && moved && second, "a move moves");
        throws(GDS_STATUS_OUT_OF_RANGE, "5000", [&] { moved.submit(5000); });
    }
    expect(static_cast<bool>(writer.acquire_for(0)), "the end of a space gives it back");
    expect(writer.finish() == 36000, "and writes nothing");

    std::vector<char> here(36000);
    gds::buffer to = gds::buffer::wrap(context, here.data(), here.size());
    file.read(100, to, 0, here.size());
    for (size_t i = 0; i < here.size(); i++) {
        expect(here[i] == static_cast<char>('a' + i / 4000), "bytes are where they belong");
    }
    gds::reader reader(file, &config);
    gds::chunk chunk = reader.next();
    expect(chunk && chunk->index == 0 && chunk.size() == 4096, "the first chunk");
    reader.cancel();
    throws(GDS_STATUS_CANCELLED, "cancelled", [&] { reader.next(); });
}

static void pipes_requests(const gds::context &context, const char *path)
{
    gds::file file(context, path, GDS_FILE_READ);
    std::vector<char> here(4000);
    gds::buffer to = gds::buffer::wrap(context, here.data(), here.size());
    gds::pipeline pipeline(context);
    gds_batch_entry_t entry = {file.get(), to.get(), 4100, 0, 4000, GDS_OPERATION_READ, 0};
    int calls = 0;
    gds_status_t status = GDS_STATUS_PENDING;
    pipeline.submit(entry, [&](uint64_t, const gds_completion_t &done) {
        calls++;
        status = static_cast<gds_status_t>(done.status);
    });
    pipeline.wait_all();
    expect(calls == 1 && status == GDS_STATUS_OK && here[0] == 'b', "a callback is called");

    const uint64_t id = pipeline.submit(entry);
    gds_completion_t done = GDS_COMPLETION_INIT;
    uint64_t taken = 0;
    expect(pipeline.wait_one(done, &taken) && taken == id && done.bytes == 4000, "a result");
    expect(!pipeline.wait_one(done), "and no other");
    expect(pipeline.info().completed == 2, "both are counted");
    entry.size = 4001;
    throws(GDS_STATUS_OUT_OF_RANGE, "4001", [&] {
        pipeline.submit(entry, [&](uint64_t, const gds_completion_t &) { calls++; });
    });
    expect(calls == 1, "what was refused calls nobody");
}

static void holds_pages(const gds::context &context, const char *path)
{
    gds::file file(context, path, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_cache_config_t config = GDS_CACHE_CONFIG_INIT;
    config.page_bytes = 4096;
    config.device_bytes = 16 * 4096;
    gds::cache cache(context, &config);
    gds::page first = cache.get(file, 0), none;
    expect(first && !none && cache.stats().pinned == 1, "a page is held");
    none = std::move(first);
    expect(!first && none && cache.stats().pinned == 1, "a move moves");
    throws(GDS_STATUS_INVALID_ARGUMENT, "cache is NULL", [&] { first.mark_dirty(); });
    none = cache.get(file, 4096);
    expect(cache.stats().pinned == 1, "the page before is released");
    std::vector<gds::page> pages;
    pages.push_back(std::move(none));
    pages.push_back(cache.get_new(file, 8192));
    std::memset(pages[1].address(), 'x', 4096);
    pages.clear();
    expect(cache.stats().pinned == 0 && cache.flush() == 4096, "vectors hold pages");

    gds::region region(nullptr);
    {
        gds::region_set set(context);
        region = set.map(file, 8192, 10);
        expect(set.stats().held_regions == 1, "a region is held");
    }
    expect(std::memcmp(region.address(), "xxxxxxxxxx", 10) == 0, "regions outlive their set");

    gds::array array(file);
    {
        gds::array_use use = array.acquire();
        gds::array_use moved(std::move(use));
        expect(moved.view().size_bytes == file.size(), "the array is the file");
        throws(GDS_STATUS_INVALID_ARGUMENT, "", [&] { array.invalidate(); });
    }
    array.invalidate();
    expect(array.flush() == 0, "the end of a use releases");
}

static void keeps_values(const gds::context &context, const std::string &path)
{
    gds_kv_config_t config = GDS_KV_CONFIG_INIT;
    config.wal_bytes = config.segment_bytes = 1 << 20;
    {
        gds::kv store(path, &config);
        store.put("a", "one");
        gds::kv_batch batch;
        batch.put("b", std::string("two"));
        batch.put("c", std::string(100000, 'x'));
        batch.erase("a");
        gds::kv_snapshot before = store.snapshot();
        expect(store.wait(store.write_async(batch)), "the batch is durable");
        expect(store.durable_lsn() >= before.lsn() + 3, "three changes");
        std::string value;
        expect(!store.get("a", value) && store.get("b", value) && value == "two", "the batch");
        expect(before.get("a", value) && value == "one", "the snapshot is as before");
        gds::kv_writer writer = store.writer("d");
        writer.append("pie");
        writer.append("ces");
        writer.commit();
        store.writer("e").append("never committed");

        std::string keys;
        gds_kv_entry_t entry;
        gds::kv_scan scan = store.scan("b", "d");
        while (scan.next(entry)) {
            keys += gds::bytes(entry.key, entry.key_size).text();
        }
        expect(keys == "bc", "a scan ends before its end");

        gds::kv_device device(store, context, 1 << 18);
        gds::buffer memory(context, GDS_MEMORY_PINNED, 100000);
        const char *here = static_cast<const char *>(memory.address());
        expect(device.get("c", memory, 0, 100000) == 100000 && here[99999] == 'x', "whole");
        expect(device.get_range("d", 3, memory, 1, 50) == 3 && here[1] == 'c', "a range");
        device.put("f", memory, 1, 3);
        gds_kv_get_t get = {"f", 1, 0, UINT64_MAX, memory.get(), 10};
        std::vector<gds_kv_got_t> gots = device.get_many({get, get});
        expect(gots[1].bytes == 3 && here[12] == 's', "many");
        gds::kv_pointer pointer = device.pointer("c");
        gds::kv_pointer moved(std::move(pointer));
        expect(moved.size() == 100000 && device.stats().held == 1, "a pointer is held once");
        throws(GDS_STATUS_NOT_FOUND, "no such key", [&] { device.pointer("e"); });
        throws(GDS_STATUS_IO, path.c_str(), [&] { gds::kv other(path); });
    }
    gds::kv store(path, &config);
    expect(store.contains("f") && store.value_size("d") == 6 && !store.erase("a"), "kept");
    store.checkpoint();
    expect(store.verify().problems == 0 && store.stats().keys == 4, "all is well");
    gds_kv_t *raw = store.release();
    gds_kv_close(raw);
    expect(gds::kv::repair(path).was_clean == 1, "nothing to repair");
    gds::kv::destroy(path);
}

static void fails_by_throwing(const gds::context &context)
{
    throws(GDS_STATUS_NOT_FOUND, "/nonexistent", [&] { gds::file(context, "/nonexistent"); });
    throws(GDS_STATUS_INVALID_ARGUMENT, "0 bytes", [&] {
        gds::buffer(context, GDS_MEMORY_DEVICE, 0);
    });
    throws(GDS_STATUS_INVALID_CONFIG, "alignment", [] {
        gds_config_t config = gds::config();
        config.alignment = 3;
        gds::context refused(config);
    });
}

static void moves_handles(const gds::context &context)
{
    gds::buffer first(context, GDS_MEMORY_PINNED, 4096);
    const gds_buffer_t *raw = first.get();
    gds::buffer second(std::move(first));
    expect(!first && second.get() == raw && second.size() == 4096, "a move moves");
    throws(GDS_STATUS_INVALID_ARGUMENT, "buffer is NULL", [&] { first.size(); });
    second = gds::buffer(context, GDS_MEMORY_PINNED, 8192);
    gds_buffer_info_t info = GDS_BUFFER_INFO_INIT;
    expect(gds_buffer_info(raw, &info) == GDS_STATUS_INVALID_HANDLE, "a move closes");
    gds_buffer_t *given = second.release();
    expect(gds_buffer_info(given, &info) == GDS_STATUS_OK, "release gives up");
    gds_buffer_free(given);
}

int main()
{
    char path[] = "/tmp/gds_raii.XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    close(fd);
    {
        gds_config_t config = gds::config();
        config.gpu_device = GDS_DEVICE_HOST;
        gds::context context(config);
        expect(context.device().ordinal == GDS_DEVICE_HOST, "the host was asked for");
        moves_bytes(context, path);
        streams_chunks(context, path);
        streams_to_a_file(context, path);
        pipes_requests(context, path);
        holds_pages(context, path);
        keeps_values(context, std::string(path) + ".store");
        fails_by_throwing(context);
        moves_handles(context);
    }
    unlink(path);
    return failures == 0 ? 0 : 1;
}
