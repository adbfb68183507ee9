// Files that are read again and again, in C++: pages held by a cache, chunks of a reader, a mapped
// region and an array, each on the same temporary file, and each compared with what is in it.
//
//   cpp_cache
//
// GDS_DEVICE=host, cuda:0, ... chooses the device. Bytes that are in the memory of a GPU come
// back through pinned memory or through the file.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include <unistd.h>

#include "gds_rs.cuh"
#include "gds_rs.hpp"

namespace {

constexpr uint64_t page_size = 4096;
constexpr uint64_t file_size = 200 * page_size + 123;

using bytes_t = std::vector<unsigned char>;

// A file of its own, gone at the end.
class temporary {
public:
    temporary() : path_(folder() + "/gds_cpp_cache.XXXXXX")
    {
        int fd = mkstemp(&path_[0]);
        if (fd < 0 || close(fd) != 0) {
            throw std::runtime_error("no temporary file " + path_);
        }
    }
    ~temporary() { unlink(path_.c_str()); }
    temporary(const temporary &) = delete;
    temporary &operator=(const temporary &) = delete;

    const std::string &path() const { return path_; }

private:
    static std::string folder()
    {
        const char *folder = std::getenv("TMPDIR");
        return folder && *folder ? folder : "/tmp";
    }

    std::string path_;
};

bytes_t some_bytes(uint64_t size, uint64_t seed)
{
    bytes_t bytes(static_cast<std::size_t>(size));
    uint64_t state = seed;
    for (unsigned char &byte : bytes) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        byte = static_cast<unsigned char>(state >> 56);
    }
    return bytes;
}

bool expect(bool so, const char *what)
{
    if (!so) {
        std::cerr << "not so: " << what << '\n';
    }
    return so;
}

bool is_part(const void *address, uint64_t size, const bytes_t &wanted, uint64_t offset)
{
    return offset + size <= wanted.size() &&
           std::memcmp(address, wanted.data() + offset, static_cast<std::size_t>(size)) == 0;
}

// Pinned memory, which this program can look into wherever the device is.
struct window {
    window(const gds::context &context, uint64_t size) : memory(context, GDS_MEMORY_PINNED, size)
    {
    }
    unsigned char *bytes() const { return static_cast<unsigned char *>(memory.address()); }

    gds::buffer memory;
};

// What the file has, past the cache.
bool file_holds(const gds::context &context, const gds::file &file, const bytes_t &wanted)
{
    window here(context, wanted.size());
    return file.size() == wanted.size() &&
           file.read(0, here.memory, 0, wanted.size()) == wanted.size() &&
           is_part(here.bytes(), wanted.size(), wanted, 0);
}

bool pages_of_a_cache(const gds::context &context, const gds::file &file, bytes_t &wanted)
{
    gds_cache_config_t config = GDS_CACHE_CONFIG_INIT;
    config.page_bytes = page_size;
    config.device_bytes = 32 * page_size;
    gds::cache cache(context, &config);
    window here(context, 3 * page_size);

    // Held pages stay; the last one of the file is as long as the file is.
    gds::page held = cache.get(file, 5 * page_size + 7);
    gds::page last = cache.get(file, file_size - 1);
    bool good = expect(held.offset() == 5 * page_size && held.size() == page_size, "a page");
    good &= expect(last.size() == 123, "the last page is short");
    const void *address = held.address();

    // Through 32 pages of memory, all 201 of the file.
    for (uint64_t at = 0; at < file_size; at += 3 * page_size) {
        uint64_t got = cache.read(file, at, here.memory, 0, 3 * page_size);
        good &= expect(got == std::min(3 * page_size, file_size - at), "all bytes come") &&
                expect(is_part(here.bytes(), got, wanted, at), "they are those of the file");
    }
    gds::page again = cache.try_get(file, 5 * page_size);
    good &= expect(again && again.address() == address, "what is held stays where it is");
    good &= expect(!cache.try_get(file, file_size + page_size), "what nobody read is not there");
    good &= expect(cache.stats().resident <= 32 && cache.stats().evictions > 160,
                   "pages made room for others");

    // Changes, across pages.
    bytes_t change = some_bytes(page_size, 2);
    std::copy(change.begin(), change.end(), here.bytes());
    cache.put(file, 10 * page_size + 100, here.memory, 0, change.size());
    std::copy(change.begin(), change.end(), wanted.begin() + 10 * page_size + 100);
    good &= expect(cache.flush(file) == 2 * page_size, "two pages are written");
    good &= expect(file_holds(context, file, wanted), "the file has the change");

    // What is in memory now can be there again after the next start.
    held.release();
    again = gds::page();
    last = gds::page();
    std::vector<gds_cache_range_t> hot = cache.hot_ranges(file);
    good &= expect(!hot.empty() && cache.invalidate(file) > 0, "pages go");
    good &= expect(cache.warm(file, hot) > 0 && cache.hot_ranges(file).size() == hot.size(),
                   "and come back");

    // Steps of one page after the other are seen, and read ahead.
    cache.invalidate(file);
    gds::prefetch ahead(cache, file);
    for (uint64_t at = 0; at < 64 * page_size; at += page_size) {
        gds::page next = ahead.get(at);
        good &= expect(next.offset() == at, "each page comes");
    }
    good &= expect(ahead.stats().pattern == GDS_PATTERN_SEQUENTIAL, "a pattern is seen");
    gds_cache_stats_t stats = cache.stats();
    std::cout << "cache: " << stats.hits << " hits, " << stats.misses << " misses, "
              << stats.evictions << " evictions, " << stats.pinned << " held\n";
    return expect(stats.pinned == 0, "all pages were released") && good;
}

bool chunks_of_a_reader(const gds::context &context, const gds::file &file,
                        const bytes_t &wanted)
{
    gds_reader_config_t config = GDS_READER_CONFIG_INIT;
    config.chunk_bytes = 10 * page_size;
    config.memory = GDS_MEMORY_PINNED;
    gds::reader reader(file, &config);
    uint64_t position = 0;
    bool good = true;
    reader.each([&](gds::chunk &chunk) {
        good &= expect(chunk->file_offset == position, "chunks come in order") &&
                expect(is_part(chunk.address(), chunk.size(), wanted, position),
                       "with the bytes of the file");
        position += chunk.size();
    });
    std::cout << "reader: " << position << " bytes to " << context.device().name << '\n';
    return expect(position == wanted.size(), "and each once") && good;
}

// The middle of the file is mapped, given the bytes of another place, and written.
bool mapped_region(const gds::context &context, const gds::file &file, bytes_t &wanted)
{
    const uint64_t offset = 50 * page_size + 11, size = 20 * page_size, from = 3;
    gds_region_config_t config = GDS_REGION_CONFIG_INIT;
    config.limit_bytes = 64 * page_size;
    gds::region_set regions(context, &config);
    gds::region region = regions.map(file, offset, size);
    bool good = expect(region.size() == size && region.info().valid_bytes == size, "it is mapped");

    // A program with kernels would change it in place; a transfer to its address is the same.
    gds::buffer memory = gds::buffer::wrap(context, region.address(), size);
    good &= expect(file.read(from, memory, 0, size) == size, "it takes bytes");
    region.mark_dirty(0, size);
    std::copy_n(wanted.begin() + from, size, wanted.begin() + offset);
    good &= expect(region.flush() >= size, "they are written");
    good &= expect(regions.stats().dirty_bytes == 0, "and clean");
    std::cout << "region: " << size << " bytes changed in place\n";
    return expect(file_holds(context, file, wanted), "the file has them") && good;
}

// A kernel of the host device is a function; gds_rs.cuh gives kernels of a GPU, which this program
// has none of, the same class. Reads all through eight pages of memory, and swaps the ends.
bool uses_every_element(const gds_array_view_t &view, const bytes_t &wanted)
{
    const gds::cached_array<unsigned char> elements(view);
    bool good = expect(elements.size() == wanted.size(), "an element is a byte");
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < elements.size(); i++) {
        wrong += elements[i] != wanted[static_cast<std::size_t>(i)];
    }
    elements.write(0, wanted.back());
    elements.write(elements.size() - 1, wanted.front());
    return expect(wrong == 0, "elements are the bytes of the file") && good;
}

bool array_for_kernels(const gds::context &context, const gds::file &file, bytes_t &wanted)
{
    const bool on_host = context.device().ordinal == GDS_DEVICE_HOST;
    gds_array_config_t config = GDS_ARRAY_CONFIG_INIT;
    config.device_bytes = 8 * page_size;
    config.writable = 1;
    gds::array array(file, &config);
    gds::array_use use = array.acquire();
    bool good = expect(use.view().size_bytes == file_size, "the array is the file") &&
                expect(use.view().frame_count == 8, "in eight pages of memory");
    // Not while it is in use.
    try {
        array.flush();
        good = expect(false, "a flush in between is refused");
    } catch (const gds::error &problem) {
        good &= expect(problem.status() == GDS_STATUS_INVALID_ARGUMENT, problem.what());
    }
    good = (!on_host || uses_every_element(use.view(), wanted)) && good;
    use.release();
    if (on_host) {
        std::swap(wanted.front(), wanted.back());
        good &= expect(array.stats().misses > 200 && array.stats().evictions > 190,
                       "pages come and go");
    }
    array.flush();
    good &= expect(array.stats().dirty == 0, "all is written");
    std::cout << "array: " << array.stats().misses << " pages through "
              << array.stats().frames << '\n';
    return expect(file_holds(context, file, wanted), "the file has it") && good;
}

} // namespace

int main()
{
    try {
        temporary name;
        gds::context context;
        gds::file file(context, name.path(), GDS_FILE_READ | GDS_FILE_WRITE);
        bytes_t wanted = some_bytes(file_size, 1);
        gds::buffer from = gds::buffer::wrap(context, wanted.data(), wanted.size());
        file.write(0, from, 0, wanted.size());

        bool good = pages_of_a_cache(context, file, wanted);
        good = chunks_of_a_reader(context, file, wanted) && good;
        good = mapped_region(context, file, wanted) && good;
        good = array_for_kernels(context, file, wanted) && good;
        std::cout << (good ? "verified" : "WRONG") << '\n';
        return good ? 0 : 1;
    } catch (const std::exception &problem) {
        std::cerr << problem.what() << '\n';
        return 1;
    }
}
