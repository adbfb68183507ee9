// The same in C++: handles close themselves, failures throw, and a transfer goes on while the
// program works.
//
//   cpp_raii [FILE]        without FILE it reads its own program file
//
// GDS_DEVICE=host, cuda:0, ... chooses the device.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "gds_rs.hpp"

namespace {

// An open file without a name, gone when it is closed.
struct closer {
    void operator()(std::FILE *file) const { std::fclose(file); }
};
using scratch_file = std::unique_ptr<std::FILE, closer>;

std::vector<char> plain_read(const std::string &path)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<char> bytes(static_cast<std::size_t>(file.tellg()));
    file.seekg(0);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
}

// Device memory goes through a scratch file to where this program can compare it.
std::vector<char> fetch(const gds::context &context, const gds::buffer &buffer)
{
    scratch_file scratch(std::tmpfile());
    if (!scratch) {
        throw std::runtime_error("there is no place for a scratch file");
    }
    std::vector<char> bytes(buffer.size());
    gds::file file = gds::file::from_fd(context, fileno(scratch.get()));
    gds::buffer host = gds::buffer::wrap(context, bytes.data(), bytes.size());
    file.write(0, buffer, 0, buffer.size());
    file.read(0, host, 0, bytes.size());
    return bytes;
}

bool reads_a_file(const gds::context &context, const std::string &path)
{
    gds::file file(context, path);
    gds::buffer buffer(context, GDS_MEMORY_DEVICE, file.size());

    gds::ticket ticket = file.read_start(0, buffer, 0, buffer.size());
    std::vector<char> wanted = plain_read(path); // while the transfer goes on
    gds_completion_t done = ticket.wait();

    bool good = done.bytes == wanted.size() && fetch(context, buffer) == wanted;
    std::cout << path << ": " << done.bytes << " bytes to " << context.device().name << ": "
              << (good ? "verified" : "WRONG BYTES") << '\n';
    return good;
}

bool tells_what_went_wrong(const gds::context &context)
{
    try {
        gds::file file(context, "/nonexistent/file");
        return false;
    } catch (const gds::error &problem) {
        std::cout << "as it should be: " << problem.what() << '\n';
        return problem.status() == GDS_STATUS_NOT_FOUND;
    }
}

} // namespace

int main(int argc, char **argv)
{
    try {
        gds::context context;
        bool good = reads_a_file(context, argc > 1 ? argv[1] : "/proc/self/exe");
        return good && tells_what_went_wrong(context) ? 0 : 1;
    } catch (const std::exception &problem) {
        std::cerr << problem.what() << '\n';
        return 1;
    }
}
