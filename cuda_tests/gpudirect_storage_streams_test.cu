// Order on CUDA streams, many threads at once, and tickets: poll, eventfd, cancel, deadline.
//
// Order is shown without a clock: a kernel holds the stream until the host opens a gate, and the
// host opens it only after the call under test has returned. A call that waits for its stream
// then never returns (the alarm ends the program); a transfer that does not wait is overwritten
// or finds the wrong bytes.

#include <poll.h>

#include <thread>

#include "check.cuh"

namespace {

uint64_t range_size() { return (small_sizes() ? 1 : 16) * MiB; }

int32_t is_done(const gds_ticket_t *ticket) {
    int32_t done = -1;
    GDS_OK(gds_ticket_poll(ticket, &done));
    return done;
}

void expect_bytes(const gds_ticket_t *ticket, uint64_t bytes) {
    gds_completion_t completion = GDS_COMPLETION_INIT;
    GDS_OK(gds_ticket_wait(ticket, -1, &completion));
    CHECK(completion.status == GDS_STATUS_OK && completion.bytes == bytes, "%llu of %llu bytes",
          (unsigned long long)completion.bytes, (unsigned long long)bytes);
}

// One of everything that the gated cases use, so that nothing is set up while a kernel waits.
void warm_up(gds_context_t *context) {
    const TestFile file(2 * MiB, 1);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, 2 * MiB, &buffer));
    for (int warm = 0; warm < 2; warm++) {
        warm ? file.make_warm() : file.make_cold();
        gds_ticket_t *ticket = nullptr;
        GDS_OK(gds_read_async(opened, 0, buffer, 0, 2 * MiB, cudaStreamPerThread, &ticket));
        expect_bytes(ticket, 2 * MiB);
        gds_ticket_destroy(ticket);
        GDS_OK(gds_write_async(opened, 0, buffer, 0, 2 * MiB, cudaStreamPerThread, &ticket));
        expect_bytes(ticket, 2 * MiB);
        gds_ticket_destroy(ticket);
    }
    CUDA_OK(cudaDeviceSynchronize());
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

// kernel that still writes the buffer -> read -> kernel that must see the file's bytes.
void read_between_kernels(gds_context_t *context) {
    const uint64_t size = range_size() + 1001;
    const TestFile file(size + 7, 101);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size + 13, &buffer));
    cudaStream_t created = nullptr;
    CUDA_OK(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
    for (cudaStream_t stream : {created, cudaStreamPerThread, (cudaStream_t) nullptr}) {
        for (int warm = 0; warm < 2; warm++) {
            warm ? file.make_warm() : file.make_cold();
            Gate gate;
            Counter counter(stream);
            CUDA_OK(cudaDeviceSynchronize());
            gate.fill_when_open(address_of(buffer), size + 13, 0xEE, stream);
            gds_ticket_t *ticket = nullptr;
            GDS_OK(gds_read_async(opened, 7, buffer, 13, size, stream, &ticket));
            counter.all(address_of(buffer), 13, 0xEE);
            counter.known(address_of(buffer) + 13, size, file.seed(), 7);
            usleep(20 * 1000);
            CHECK(is_done(ticket) == 0, "the read ended before the kernel ahead of it");
            gate.open();
            counter.expect_none("a read between two kernels of its stream");
            gate.expect_passed();
            expect_bytes(ticket, size);
            gds_ticket_destroy(ticket);
        }
    }
    CUDA_OK(cudaStreamDestroy(created));
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

// producer kernel -> write -> kernel that overwrites: the file holds the producer's bytes.
void write_between_kernels(gds_context_t *context) {
    const uint64_t size = range_size() + 333;
    const TestFile file(size + 4000, 111);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ | GDS_FILE_WRITE);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size + 5, &buffer));
    cudaStream_t stream = nullptr;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int round = 0; round < 4; round++) {
        const uint64_t seed = 112 + (uint64_t)round, offset = round % 2 == 0 ? 0 : 3001;
        Gate gate;
        CUDA_OK(cudaDeviceSynchronize());
        gate.fill_when_open(address_of(buffer), size + 5, 0xEE, stream);
        fill_known<<<256, 256, 0, stream>>>(address_of(buffer) + 5, size, seed, offset);
        CUDA_OK(cudaGetLastError());
        gds_ticket_t *ticket = nullptr;
        GDS_OK(gds_write_async(opened, offset, buffer, 5, size, stream, &ticket));
        CUDA_OK(cudaMemsetAsync(address_of(buffer), 0x77, size + 5, stream));
        usleep(10 * 1000);
        CHECK(is_done(ticket) == 0, "the write ended before the kernel ahead of it");
        gate.open();
        CUDA_OK(cudaStreamSynchronize(stream));
        gate.expect_passed();
        expect_bytes(ticket, size);
        gds_ticket_destroy(ticket);
        file.expect_known(offset, size, seed);
    }
    CUDA_OK(cudaStreamDestroy(stream));
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

// Several streams with a queue of work each; the host waits for nothing in between.
void several_streams_at_once(gds_context_t *context) {
    const int streams = 4, rounds = small_sizes() ? 3 : 12;
    const uint64_t size = (small_sizes() ? 256 : 2048) * KiB + 77;
    const uint64_t file_size = size * (uint64_t)(streams * rounds) + 5;
    const TestFile file(file_size, 121);
    file.make_cold();
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    std::vector<cudaStream_t> stream(streams);
    std::vector<gds_buffer_t *> buffer(streams);
    std::vector<Counter *> counter(streams);
    std::vector<gds_ticket_t *> tickets;
    for (int s = 0; s < streams; s++) {
        CUDA_OK(cudaStreamCreateWithFlags(&stream[s], cudaStreamNonBlocking));
        GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer[s]));
        counter[s] = new Counter(stream[s]);
    }
    CUDA_OK(cudaDeviceSynchronize());
    for (int round = 0; round < rounds; round++) {
        for (int s = 0; s < streams; s++) {
            const uint64_t offset = size * (uint64_t)(round * streams + s) + 5;
            CUDA_OK(cudaMemsetAsync(address_of(buffer[s]), POISON, size, stream[s]));
            gds_ticket_t *ticket = nullptr;
            GDS_OK(gds_read_async(opened, offset, buffer[s], 0, size, stream[s], &ticket));
            counter[s]->known(address_of(buffer[s]), size, file.seed(), offset);
            tickets.push_back(ticket);
        }
    }
    for (int s = 0; s < streams; s++) counter[s]->expect_none("one of several streams");
    for (gds_ticket_t *ticket : tickets) {
        expect_bytes(ticket, size);
        gds_ticket_destroy(ticket);
    }
    for (int s = 0; s < streams; s++) {
        delete counter[s];
        gds_buffer_free(buffer[s]);
        CUDA_OK(cudaStreamDestroy(stream[s]));
    }
    gds_file_close(opened);
}

// Reads of a shared file and writes to parts of another, from many threads in one context.
void several_threads_at_once(gds_context_t *context) {
    const int threads = 8, rounds = small_sizes() ? 4 : 40;
    const uint64_t part = (small_sizes() ? 128 : 1024) * KiB + 333;
    const uint64_t source_size = (small_sizes() ? 2 : 32) * MiB + 9;
    const TestFile source(source_size, 131);
    const TestFile target(part * threads, 132);
    source.make_cold();
    gds_file_t *reading = open_file(context, source, GDS_FILE_READ);
    gds_file_t *writing = open_file(context, target, GDS_FILE_READ | GDS_FILE_WRITE);
    std::vector<std::thread> running;
    for (int t = 0; t < threads; t++) {
        running.emplace_back([=, &source] {
            CUDA_OK(cudaSetDevice(0));
            cudaStream_t stream = nullptr;
            CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            std::mt19937_64 random(133 + t);
            gds_buffer_t *buffer = nullptr;
            GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, part, &buffer));
            uint8_t *address = address_of(buffer);
            {
                Counter counter(stream);
                for (int round = 0; round < rounds; round++) {
                    const uint64_t size = between(random, 1, part);
                    const uint64_t offset = between(random, 0, source_size - size);
                    CUDA_OK(cudaMemsetAsync(address, POISON, part, stream));
                    CUDA_OK(cudaStreamSynchronize(stream));
                    uint64_t bytes = 0;
                    GDS_OK(gds_read(reading, offset, buffer, part - size, size, &bytes));
                    CHECK(bytes == size, "%llu bytes", (unsigned long long)bytes);
                    counter.known(address + part - size, size, source.seed(), offset);
                    counter.all(address, part - size, POISON);
                    counter.expect_none("one of several threads");
                }
            }
            const uint64_t offset = part * (uint64_t)t;
            fill_known<<<64, 256, 0, stream>>>(address, part, 134, offset);
            CUDA_OK(cudaGetLastError());
            CUDA_OK(cudaStreamSynchronize(stream));
            uint64_t bytes = 0;
            GDS_OK(gds_write(writing, offset, buffer, 0, part, &bytes));
            CHECK(bytes == part, "%llu bytes", (unsigned long long)bytes);
            gds_buffer_free(buffer);
            CUDA_OK(cudaStreamDestroy(stream));
        });
    }
    for (std::thread &thread : running) thread.join();
    target.expect_known(0, part * threads, 134);
    gds_file_close(writing);
    gds_file_close(reading);
}

void eventfd_becomes_readable(gds_context_t *context) {
    const uint64_t size = range_size();
    const TestFile file(size, 141);
    file.make_cold();
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
    CUDA_OK(cudaMemset(address_of(buffer), POISON, size));
    CUDA_OK(cudaDeviceSynchronize());
    gds_ticket_t *ticket = nullptr;
    GDS_OK(gds_read_start(opened, 0, buffer, 0, size, nullptr, &ticket));
    int fd = -1;
    GDS_OK(gds_ticket_eventfd(ticket, &fd));
    struct pollfd waiting = {fd, POLLIN, 0};
    CHECK(poll(&waiting, 1, 60 * 1000) == 1 && (waiting.revents & POLLIN) != 0,
          "the eventfd stayed silent for 60 s");
    CHECK(is_done(ticket) == 1, "the eventfd spoke before the end");
    expect_bytes(ticket, size);
    // It stays readable, and asking again gives the same descriptor's news.
    int again = -1;
    GDS_OK(gds_ticket_eventfd(ticket, &again));
    waiting.fd = again;
    CHECK(poll(&waiting, 1, 0) == 1, "a finished ticket's eventfd is not readable");
    gds_ticket_destroy(ticket);
    Counter counter;
    counter.known(address_of(buffer), size, file.seed(), 0);
    counter.expect_none("a read that was awaited by eventfd");
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

// A ticket that cannot have started, because its stream is held, ends as `expected`; the stream
// goes on and the memory is left alone.
void held_ticket_ends(gds_context_t *context, bool cancel) {
    const uint64_t size = range_size();
    const TestFile file(size, 151);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    gds_buffer_t *buffer = nullptr;
    GDS_OK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
    cudaStream_t stream = nullptr;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    Gate gate;
    Counter counter(stream);
    CUDA_OK(cudaDeviceSynchronize());
    gate.fill_when_open(address_of(buffer), size, 0xEE, stream);
    gds_options_t options = GDS_OPTIONS_INIT;
    options.use_stream = 1;
    options.stream = stream;
    options.deadline_ms = cancel ? 0 : 30;
    gds_ticket_t *ticket = nullptr;
    GDS_OK(gds_read_start(opened, 0, buffer, 0, size, &options, &ticket));
    // Only the wait ends here, not the transfer.
    gds_completion_t completion = GDS_COMPLETION_INIT;
    if (cancel) {
        GDS_IS(GDS_STATUS_PENDING, gds_ticket_wait(ticket, 5, &completion));
        CHECK(is_done(ticket) == 0, "a wait that timed out ended the transfer");
        GDS_OK(gds_ticket_cancel(ticket));
    }
    GDS_IS(cancel ? GDS_STATUS_CANCELLED : GDS_STATUS_TIMED_OUT,
           gds_ticket_wait(ticket, -1, &completion));
    CHECK(is_done(ticket) == 1, "the ticket ended and is not done");
    gds_ticket_destroy(ticket);
    gate.open();
    counter.all(address_of(buffer), size, 0xEE);
    counter.expect_none("memory of a transfer that was called off");
    gate.expect_passed();
    // The same stream and buffer work as before.
    GDS_OK(gds_read_async(opened, 0, buffer, 0, size, stream, &ticket));
    Counter after(stream);
    after.known(address_of(buffer), size, file.seed(), 0);
    after.expect_none("a read after one that was called off");
    gds_ticket_destroy(ticket);
    CUDA_OK(cudaStreamDestroy(stream));
    gds_buffer_free(buffer);
    gds_file_close(opened);
}

void cancel_of_a_held_read(gds_context_t *context) { held_ticket_ends(context, true); }

void deadline_of_a_held_read(gds_context_t *context) { held_ticket_ends(context, false); }

// A running read is called off and its memory freed at once. Its address is soon given out
// again: nothing may arrive there any more.
void memory_is_free_after_destroy(gds_context_t *context) {
    const uint64_t size = (small_sizes() ? 4 : 128) * MiB;
    const TestFile file(size, 161);
    gds_file_t *opened = open_file(context, file, GDS_FILE_READ);
    const int rounds = small_sizes() ? 6 : 24;
    int called_off = 0;
    for (int round = 0; round < rounds; round++) {
        round % 2 == 0 ? file.make_cold() : file.make_warm();
        void *memory = nullptr;
        CUDA_OK(cudaMalloc(&memory, size));
        gds_buffer_t *buffer = nullptr;
        GDS_OK(gds_buffer_wrap(context, memory, size, &buffer));
        gds_options_t options = GDS_OPTIONS_INIT;
        const int how = round % 3;  // 0 cancel and wait, 1 deadline, 2 destroy at once
        options.deadline_ms = how == 1 ? 1 : 0;
        gds_ticket_t *ticket = nullptr;
        GDS_OK(gds_read_start(opened, 0, buffer, 0, size, &options, &ticket));
        usleep((useconds_t)(round * 100));
        if (how != 2) {
            if (how == 0) GDS_OK(gds_ticket_cancel(ticket));
            gds_completion_t completion = GDS_COMPLETION_INIT;
            const gds_status_t ended = gds_ticket_wait(ticket, -1, &completion);
            const gds_status_t expected = how == 0 ? GDS_STATUS_CANCELLED : GDS_STATUS_TIMED_OUT;
            CHECK(ended == GDS_STATUS_OK || ended == expected, "the read ended with %d: %s",
                  (int)ended, gds_status_string(ended));
            called_off += ended == expected;
        }
        gds_ticket_destroy(ticket);
        gds_buffer_free(buffer);
        CUDA_OK(cudaFree(memory));
        CUDA_OK(cudaMalloc(&memory, size));
        CUDA_OK(cudaMemset(memory, POISON, size));
        CUDA_OK(cudaDeviceSynchronize());
        usleep(20 * 1000);
        Counter counter;
        counter.all(memory, size, POISON);
        counter.expect_none("memory that was freed after a read was called off");
        CUDA_OK(cudaFree(memory));
    }
    printf(" (%d called off)", called_off);
    gds_file_close(opened);
}

const Case CASES[] = {
    {"warm_up", warm_up},
    {"read_between_kernels", read_between_kernels},
    {"write_between_kernels", write_between_kernels},
    {"several_streams_at_once", several_streams_at_once},
    {"several_threads_at_once", several_threads_at_once},
    {"eventfd_becomes_readable", eventfd_becomes_readable},
    {"cancel_of_a_held_read", cancel_of_a_held_read},
    {"deadline_of_a_held_read", deadline_of_a_held_read},
    {"memory_is_free_after_destroy", memory_is_free_after_destroy},
};

}  // namespace

int main() { return run_cases(CASES, sizeof CASES / sizeof CASES[0]); }
