/*
 * gds_rs.h - move bytes between storage and GPU memory.
 *
 * Works with GPUDirect Storage, without it, and without a GPU: set GDS_DEVICE=host, or
 * gpu_device to GDS_DEVICE_HOST, and everything below runs on plain memory.
 *
 *     #include <gds_rs.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     #define GDS_CHECK(call)                                                          \
 *         do {                                                                         \
 *             if ((call) != GDS_STATUS_OK) {                                           \
 *                 fprintf(stderr, "%s\n", gds_last_error_message());                   \
 *                 exit(1);                                                             \
 *             }                                                                        \
 *         } while (0)
 *
 *     int main(int argc, char **argv)
 *     {
 *         gds_context_t *context;
 *         gds_file_t *file;
 *         gds_buffer_t *buffer;
 *         uint64_t size, bytes;
 *
 *         GDS_CHECK(gds_context_open(NULL, &context));
 *         GDS_CHECK(gds_file_open(context, argv[argc - 1], GDS_FILE_READ, &file));
 *         GDS_CHECK(gds_file_size(file, &size));
 *         GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_DEVICE, size, &buffer));
 *         GDS_CHECK(gds_read(file, 0, buffer, 0, size, &bytes));
 *         printf("%llu bytes in device memory\n", (unsigned long long)bytes);
 *         gds_buffer_free(buffer);
 *         gds_file_close(file);
 *         gds_context_close(context);
 *         return 0;
 *     }
 *
 * Conventions (hold for every function unless its comment says otherwise)
 *
 *   Status      Functions that can fail return gds_status_t. Out-parameters end in _out,
 *               come last, and are written only with GDS_STATUS_OK. Why a call failed is
 *               told by gds_last_error_message(), for each thread. "@return" lists what a
 *               function answers; GDS_STATUS_PANIC and GDS_STATUS_INTERNAL, faults of the
 *               library, and GDS_STATUS_POISONED can come from all that take a handle.
 *   Ownership   What *_open, *_from_fd, *_alloc, *_wrap, *_register, *_map, *_start,
 *               *_async and *_submit hand out is given back once, to the matching *_close,
 *               *_free, *_unregister, *_unmap or *_destroy. Those accept NULL and do
 *               nothing with a handle that was given back before. A child keeps its parent:
 *               the order does not matter.
 *   Handles     A NULL, closed, foreign or mistyped handle is answered, not followed, with
 *               GDS_STATUS_INVALID_ARGUMENT (NULL) or GDS_STATUS_INVALID_HANDLE. A handle
 *               that was closed a few hundred closes ago may name a newer object.
 *   Threads     const gds_x_t * may be used from many threads at once. gds_x_t * needs the
 *               caller to keep other threads off that object during the call.
 *   Pointers    NULL, where the comment does not allow it, and misaligned pointers answer
 *               GDS_STATUS_INVALID_ARGUMENT.
 *   Units       Offsets and sizes are bytes unless the name says otherwise (_ms, _ns, _us).
 *               An offset plus a size up to 2^63 - 1 can be addressed;
 *               GDS_STATUS_OUT_OF_RANGE answers more.
 *   Strings     UTF-8, except paths, which are any bytes. Input is NUL-terminated.
 *   Structs     Begin with struct_size where they may grow: start from the GDS_x_INIT of
 *               the struct, or zero it and set struct_size to its sizeof. A program built
 *               with an older header gets the part that it knows, a newer one is served if
 *               the fields this library does not know are zero. Reserved fields are zero.
 *   Enums       Are int32_t in structs and arguments. New values may be added at the end.
 *   Memory      Host and device memory, the caller's or the library's, are all
 *               gds_buffer_t. Every transfer takes every kind: device, pinned, managed,
 *               pageable.
 *   Streams     Blocking transfers are complete for every CUDA stream when they return, and
 *               are not ordered after work queued before. gds_read_async(),
 *               gds_write_async() and use_stream in gds_options_t order a transfer within a
 *               stream.
 *   CUDA        The library uses the device's primary context, as the CUDA runtime does,
 *               and leaves the thread's current context as it found it. libcuda and
 *               libcufile are loaded at run time; nothing needs them to link or start.
 *               The environment variable GDS_CUFILE_LIBRARY is the path of the libcufile
 *               to load; it is read once, when cuFile is first considered.
 *               GDS_NVCOMP_LIBRARY is the path of an nvCOMP, or "auto": many short
 *               Zstandard pages are decompressed by it on the GPU. For trusted files only:
 *               nvCOMP does not check what it is given. Unset, the host decompresses them.
 *   Callbacks   Must not throw or longjmp. The comment names the thread.
 *   fork        Not after the first gds_context_open(): calls that take a handle answer
 *               GDS_STATUS_FORKED in the child, and closing there does nothing.
 *   exec        Every descriptor of the library is close-on-exec.
 *
 * Generated from src/ffi by `GDS_BLESS=1 cargo test --test header`. What will not
 * change between versions is said in docs/abi.md.
 */

#ifndef GDS_RS_H
#define GDS_RS_H

#include <stddef.h>
#include <stdint.h>

/** Version of this header. gds_version() is that of the library. */
#define GDS_RS_VERSION_MAJOR 0
#define GDS_RS_VERSION_MINOR 1
#define GDS_RS_VERSION_PATCH 0
/** major * 10000 + minor * 100 + patch, for gds_check_abi(). */
#define GDS_RS_VERSION_NUMBER 100
/** The file to dlopen: the library that fits this header. */
#define GDS_RS_SONAME "libgds_rs.so.0.1"

#if defined(__GNUC__)
#define GDS_API __attribute__((visibility("default")))
#else
#define GDS_API
#endif

#if (defined(__cplusplus) && __cplusplus >= 201703L) ||                                    \
    (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L)
#define GDS_NODISCARD [[nodiscard]]
#elif defined(__GNUC__)
#define GDS_NODISCARD __attribute__((warn_unused_result))
#else
#define GDS_NODISCARD
#endif

/* Enums are int32_t for every compiler: by their type in C++ and C23, else by typedef. */
#if defined(__cplusplus)
#define GDS_ENUM(name) enum name : int32_t
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L
#define GDS_ENUM(name) typedef enum name : int32_t name; enum name : int32_t
#else
#define GDS_ENUM(name) typedef int32_t name; enum name
#endif

#ifdef __cplusplus
#define GDS_NOEXCEPT noexcept
extern "C" {
#else
#define GDS_NOEXCEPT
#endif

/* ==== Status ========================================================================== */

/**
 * What a call came to. Values are pinned: new ones are appended, none is reused.
 *
 * 1-19 the caller, 20-39 the operating system, 40-59 CUDA and cuFile, 60-79 stored data,
 * 80-98 state, 99 a fault of this library. Treat a number that you do not know as an error.
 */
GDS_ENUM(gds_status_t) {
    /** Done. */
    GDS_STATUS_OK = 0,
    /**
     * An argument is NULL, misaligned, unknown or contradicts another; nothing was done.
     */
    GDS_STATUS_INVALID_ARGUMENT = 1,
    /** A handle was closed, is of another type, or never came from this library. */
    GDS_STATUS_INVALID_HANDLE = 2,
    /** A configuration field breaks its rule; the message names it. */
    GDS_STATUS_INVALID_CONFIG = 3,
    /** An offset plus a size passes the end of a buffer or of what can be addressed. */
    GDS_STATUS_OUT_OF_RANGE = 4,
    /** The caller's buffer for an answer is too small. */
    GDS_STATUS_BUFFER_TOO_SMALL = 5,
    /** struct_size is not one this library knows, or an unknown tail is not zero. */
    GDS_STATUS_STRUCT_SIZE = 6,
    /** The header that the program was built with does not fit this library. */
    GDS_STATUS_ABI_MISMATCH = 7,
    /** The operating system failed an operation; see os_error. */
    GDS_STATUS_IO = 20,
    /** No such file or key. */
    GDS_STATUS_NOT_FOUND = 21,
    /** The operating system forbids it. */
    GDS_STATUS_PERMISSION_DENIED = 22,
    /** Not a regular file or block device. */
    GDS_STATUS_UNSUPPORTED_FILE = 23,
    /** The disk or quota is full. */
    GDS_STATUS_NO_SPACE = 24,
    /** Host memory, or what may be locked of it, is used up. */
    GDS_STATUS_OUT_OF_HOST_MEMORY = 25,
    /** The file became shorter while it was read. */
    GDS_STATUS_FILE_CHANGED = 26,
    /** The file was opened without the right to do this. */
    GDS_STATUS_READ_ONLY = 27,
    /** A CUDA call failed; see cuda_error. */
    GDS_STATUS_CUDA = 40,
    /** No CUDA device, or not the one that was asked for. */
    GDS_STATUS_NO_DEVICE = 41,
    /** libcuda is not there. */
    GDS_STATUS_DRIVER_MISSING = 42,
    /** libcuda is older than what this library needs. */
    GDS_STATUS_DRIVER_TOO_OLD = 43,
    /** The driver did not answer within probe_timeout_ms. */
    GDS_STATUS_DRIVER_TIMEOUT = 44,
    /** Device memory is used up. */
    GDS_STATUS_OUT_OF_DEVICE_MEMORY = 45,
    /** A pointer is not memory that this call can use. */
    GDS_STATUS_INVALID_POINTER = 46,
    /** A cuFile call failed; see cufile_error. */
    GDS_STATUS_CUFILE = 50,
    /** cuFile cannot be used here; the message says why. */
    GDS_STATUS_CUFILE_UNAVAILABLE = 51,
    /** Stored bytes are not what was written. */
    GDS_STATUS_CORRUPTED = 60,
    /** The deadline of the operation passed. */
    GDS_STATUS_TIMED_OUT = 80,
    /** The caller cancelled it. */
    GDS_STATUS_CANCELLED = 81,
    /** It has not finished yet. */
    GDS_STATUS_PENDING = 82,
    /** The process forked after a context was opened; the child must exec. */
    GDS_STATUS_FORKED = 83,
    /** An earlier failure left this object unusable; close it. */
    GDS_STATUS_POISONED = 84,
    /** The path that was demanded cannot be used, and falling back was forbidden. */
    GDS_STATUS_FALLBACK_FORBIDDEN = 85,
    /** This build, device or file cannot do that. */
    GDS_STATUS_NOT_SUPPORTED = 86,
    /** Every page that could make room, or that should go, is held; release some. */
    GDS_STATUS_ALL_PINNED = 87,
    /** Nothing is left: not a failure, and nothing was written. */
    GDS_STATUS_END = 88,
    /** A fault inside the library. */
    GDS_STATUS_INTERNAL = 98,
    /**
     * The library panicked; the objects of the call answer GDS_STATUS_POISONED from here
     * on.
     */
    GDS_STATUS_PANIC = 99,
};

/**
 * A few words for a status, in English and without the details of a particular failure.
 *
 * Never NULL: a number that is no status answers "unknown status". The text is static.
 * Any thread, at any time.
 */
GDS_API const char *gds_status_string(int32_t status) GDS_NOEXCEPT;

/* ==== Version ========================================================================= */

/**
 * The version of the library that runs: major * 10000 + minor * 100 + patch.
 *
 * GDS_RS_VERSION_NUMBER is the same number of the header. Any thread, at any time.
 */
GDS_API uint32_t gds_version(void) GDS_NOEXCEPT;

/** The version of the library that runs as a text, "0.1.0". Never NULL; static. */
GDS_API const char *gds_version_string(void) GDS_NOEXCEPT;

/**
 * Check that a program built with the header of `header_version` may use this library.
 *
 * Programs that dlopen the library call this first; linked programs are held to it by the
 * soname. Before 1.0 major and minor must be equal, from 1.0 on the major; and the library
 * must not be older than the header.
 *
 * @param header_version  GDS_RS_VERSION_NUMBER.
 * @return GDS_STATUS_ABI_MISMATCH: it may not; the message names both versions.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_check_abi(uint32_t header_version) GDS_NOEXCEPT;

/* ==== Errors and log ================================================================== */

/** How much a log message matters. */
GDS_ENUM(gds_log_level_t) {
    /** The library is at fault, or an object became unusable. */
    GDS_LOG_LEVEL_ERROR = 1,
    /** Something works worse than it could, and the message says what to do. */
    GDS_LOG_LEVEL_WARN = 2,
    /** What was chosen: device, kernel interface. */
    GDS_LOG_LEVEL_INFO = 3,
    /** Every call that failed. */
    GDS_LOG_LEVEL_DEBUG = 4,
};

/** What a failure had to say, in numbers for programs and a line for people. */
typedef struct gds_error_info_t {
    /** Bytes of this struct that were filled. Set by the library. */
    uint32_t struct_size;
    /** A gds_status_t. */
    int32_t status;
    /** errno, or 0. */
    int32_t os_error;
    /** CUresult, or 0. */
    int32_t cuda_error;
    /** CUfileOpError, or 0. */
    int32_t cufile_error;
    /** 1 when file_offset is known, else 0. */
    uint32_t has_file_offset;
    /** Where in the file, bytes. */
    uint64_t file_offset;
    /** The file, or NULL. Lives as long as the message. */
    const char *path;
    /** What was asked, what happened and what to do. Never NULL. */
    const char *message;
} gds_error_info_t;

/**
 * Receives log messages. `level` is a gds_log_level_t; `message` is valid during the call.
 *
 * Runs on the thread that has something to say, which may be a thread of the library, and
 * on several threads at once. Must not throw, longjmp or block for long. Messages that its
 * own gds_* calls would cause are dropped.
 */
typedef void (*gds_log_fn)(int32_t level, const char *message, void *user_data);

/**
 * Gives `user_data` back. Called exactly once, when the library will not use it any more.
 */
typedef void (*gds_release_fn)(void *user_data);

/**
 * What the last failed call on this thread had to say, in one line.
 *
 * Never NULL; "" if no call has failed. A success does not clear it. The text is valid
 * until the next failing gds_* call on this thread. Failures of tickets are read with
 * gds_ticket_error().
 */
GDS_API const char *gds_last_error_message(void) GDS_NOEXCEPT;

/**
 * Everything that the last failed call on this thread had to say.
 *
 * With no failure so far the status in it is GDS_STATUS_OK. The strings are valid until the
 * next failing gds_* call on this thread. This call itself never becomes the last error.
 *
 * @param info_out  filled as far as `size` goes.
 * @param size      sizeof(gds_error_info_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: info_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_last_error(gds_error_info_t *info_out, size_t size) GDS_NOEXCEPT;

/**
 * Send log messages to a callback, in place of the one before. The library never prints.
 *
 * The callback of before gets its `release` once no thread is inside it, which may be
 * before or after this call returns. Any thread, at any time; one callback for the process.
 *
 * @param callback   NULL to log nothing; then user_data and release must be NULL as well.
 * @param user_data  handed to every call.
 * @param release    called exactly once with user_data when it is not needed any more, on
 *                   the thread that is the last to use it. May be NULL.
 * @return GDS_STATUS_INVALID_ARGUMENT: data or release without a callback (release is not
 *         called); GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_set_log_callback(gds_log_fn callback, void *user_data,
                                  gds_release_fn release) GDS_NOEXCEPT;

/* ==== Configuration =================================================================== */

/** The device that is plain host memory: the whole interface without a GPU. */
#define GDS_DEVICE_HOST -1

/** CUDA device 0 when it works, else the host. */
#define GDS_DEVICE_AUTO -2

/** A starting point for tuning, for gds_config_profile(). */
GDS_ENUM(gds_profile_t) {
    /** In between; what gds_config_init() and GDS_CONFIG_INIT give. */
    GDS_PROFILE_BALANCED = 0,
    /** Smallest buffers and queues: the first byte soon. */
    GDS_PROFILE_LOW_LATENCY = 1,
    /** Largest buffers and queues: the most bytes a second. */
    GDS_PROFILE_HIGH_THROUGHPUT = 2,
};

/** Which way bytes may take. */
GDS_ENUM(gds_path_policy_t) {
    /** In options: as the context says. In a configuration: GDS_PATH_POLICY_AUTO. */
    GDS_PATH_POLICY_DEFAULT = 0,
    /** The library chooses what is fastest, and falls back where a path refuses. */
    GDS_PATH_POLICY_AUTO = 1,
    /** cuFile for every transfer between a file and device memory. */
    GDS_PATH_POLICY_CUFILE = 2,
    /** O_DIRECT; the page cache stays as it is. */
    GDS_PATH_POLICY_DIRECT = 3,
    /** Through the page cache. */
    GDS_PATH_POLICY_BUFFERED = 4,
};

/**
 * How a context is set up. Start from GDS_CONFIG_INIT or gds_config_init() and change what
 * you need. Where a field says "0 picks", 0 stands for that value.
 */
typedef struct gds_config_t {
    /** sizeof(gds_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /** CUDA device ordinal, GDS_DEVICE_HOST or GDS_DEVICE_AUTO. */
    int32_t gpu_device;
    /**
     * Pinned staging memory of each transfer thread, bytes: a power of two, 64 KiB to
     * 1 GiB. 0 picks 16 MiB.
     */
    uint64_t buffer_size;
    /** Least alignment of direct I/O, bytes: a power of two, 512 to 2 MiB. 0 picks 4096. */
    uint64_t alignment;
    /**
     * How far ahead a prefetcher reads, bytes: a multiple of buffer_size, at most 1 TiB.
     */
    uint64_t prefetch_distance;
    /**
     * How long a waiting thread looks before it sleeps, microseconds, at most 1,000,000.
     */
    uint64_t poll_interval_us;
    /** Chunks read ahead at once by a prefetcher, 1 to 1024. 0 picks 8. */
    uint32_t prefetch_slots;
    /** Operations in flight on each transfer thread's queue, 1 to 4096. 0 picks 32. */
    uint32_t max_outstanding_io;
    /**
     * Operations in one submission to the kernel, 1 to max_outstanding_io. 0 picks 16, or
     * max_outstanding_io where that is less.
     */
    uint32_t max_batch_size;
    /** Transfer threads, at most 128. 0 picks the number of processors, at most 8. */
    uint32_t io_threads;
    /** Further tries after a transient error, at most 16. */
    uint32_t max_retries;
    /**
     * Pause before the first retry, milliseconds, doubled for each further one; at most
     * 10,000.
     */
    uint32_t backoff_ms;
    /**
     * How long the CUDA driver may take to answer at open, milliseconds, 1 to 600,000.
     * 0 picks 20,000.
     */
    uint32_t probe_timeout_ms;
    /** Which way bytes may take, a gds_path_policy_t. */
    int32_t path;
    /**
     * 1: a thread reads the next piece while the last one is copied to the device. 0: not.
     */
    uint32_t double_buffering;
    /** 1: operations are handed to the kernel together. 0: one by one. */
    uint32_t batch_mode;
    /** 1: a transfer that its path refuses may go another way. 0: it fails. */
    uint32_t mmap_fallback;
    /** 1: every transfer computes a CRC32C of what moved. 0: not. */
    uint32_t checksum;
} gds_config_t;

/**
 * Fill a configuration with the balanced profile, as GDS_CONFIG_INIT does.
 *
 * For programs that do not use the header's macros. Touches no device and no file. The
 * environment is not looked at, see gds_config_environment(). Any thread.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Fill a configuration with a tuning profile; every field but struct_size is replaced.
 *
 * @param profile     a gds_profile_t.
 * @param config_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT: unknown profile, or config_out is NULL or
 *         misaligned; GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_config_profile(int32_t profile, gds_config_t *config_out) GDS_NOEXCEPT;

/**
 * Lay the environment's GDS_* variables over a configuration.
 *
 * GDS_PROFILE first replaces every field but gpu_device, then each variable its own field.
 * A context opened without a configuration does this by itself. Not to be called while
 * another thread changes the environment.
 *
 * @param config  as gds_config_init() left it, or changed; left alone on failure.
 * @return GDS_STATUS_INVALID_CONFIG: a variable cannot be read, the message names it;
 *         GDS_STATUS_INVALID_ARGUMENT: NULL or misaligned; GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_config_environment(gds_config_t *config) GDS_NOEXCEPT;

/**
 * Check every field of a configuration, as gds_context_open() will.
 *
 * @return GDS_STATUS_INVALID_CONFIG: the message names the first field that breaks its
 *         rule, its value and the rule; GDS_STATUS_INVALID_ARGUMENT: NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_config_validate(const gds_config_t *config) GDS_NOEXCEPT;

/** The balanced profile, as gds_config_init() gives it. */
#define GDS_CONFIG_INIT                                                                    \
    { sizeof(gds_config_t), GDS_DEVICE_AUTO, 16777216, 4096, 67108864, 10, 8, 32, 16, 0, 3,\
      10, 20000, GDS_PATH_POLICY_AUTO, 1, 1, 1, 0 }

/* ==== Device ========================================================================== */

/** What is known of a device. Start from GDS_DEVICE_INFO_INIT. */
typedef struct gds_device_info_t {
    /** sizeof(gds_device_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** CUDA ordinal, or GDS_DEVICE_HOST. */
    int32_t ordinal;
    /** Device memory, bytes. For the host: physical memory. */
    uint64_t memory_bytes;
    /** Highest CUDA version that the driver serves (12080 is 12.8); 0 on the host. */
    int32_t driver_version;
    /** Compute capability, major * 10 + minor; 0 on the host. */
    int32_t compute_capability;
    /** 1 when read-only file mappings can be registered for DMA. */
    uint32_t register_read_only;
    /** 1 when transfers can be ordered in a caller's stream. */
    uint32_t stream_order;
    /** Its name ("NVIDIA H200", "host"), cut to fit and NUL-terminated. */
    char name[128];
} gds_device_info_t;

/**
 * Count the CUDA devices that work here. 0 without a driver or a GPU, which is no failure.
 *
 * Ordinals 0 to the count less one go to gds_device_info() and gpu_device. The first call
 * loads the CUDA driver and waits for it, for probe_timeout_ms at most
 * (GDS_PROBE_TIMEOUT_MS sets it, 20 seconds otherwise). Makes no CUDA context. Any thread.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT: count_out is NULL or misaligned;
 *         GDS_STATUS_INVALID_CONFIG: a GDS_* variable cannot be read.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_device_count(uint32_t *count_out) GDS_NOEXCEPT;

/**
 * Tell what a device is.
 *
 * @param ordinal   CUDA ordinal, or GDS_DEVICE_HOST.
 * @param info_out  struct_size set.
 * @return GDS_STATUS_NO_DEVICE: there is no such device; GDS_STATUS_DRIVER_MISSING,
 *         GDS_STATUS_DRIVER_TOO_OLD, GDS_STATUS_DRIVER_TIMEOUT, GDS_STATUS_CUDA: why CUDA
 *         does not work; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_device_info(int32_t ordinal, gds_device_info_t *info_out) GDS_NOEXCEPT;

#define GDS_DEVICE_INFO_INIT { sizeof(gds_device_info_t), 0, 0, 0, 0, 0, 0, { 0 } }

/* ==== Context ========================================================================= */

/**
 * One device with its transfer threads and staging memory. May be used from many threads at
 * once. Made by gds_context_open(), given back to gds_context_close().
 */
typedef struct gds_context_t gds_context_t;

/** Counters of one direction since the context was opened. */
typedef struct gds_direction_metrics_t {
    /** Bytes moved. */
    uint64_t bytes;
    /** Operations that ended well. */
    uint64_t operations;
    /** Operations that failed. */
    uint64_t errors;
    /** Mean latency of the operations that ended well, nanoseconds. */
    uint64_t latency_mean_ns;
    /** Median latency, nanoseconds; a percentile may be one sixteenth too high. */
    uint64_t latency_p50_ns;
    /** 99th percentile, nanoseconds. */
    uint64_t latency_p99_ns;
    /** 99.9th percentile, nanoseconds. */
    uint64_t latency_p999_ns;
    /** The longest, nanoseconds. */
    uint64_t latency_max_ns;
} gds_direction_metrics_t;

/** All counters of a context. Start from GDS_METRICS_INIT. */
typedef struct gds_metrics_t {
    /** sizeof(gds_metrics_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Since the context was opened, nanoseconds. */
    uint64_t elapsed_ns;
    /** Times work waited for a staging slot. */
    uint64_t buffer_waits;
    /** Staging slots in use at this moment. */
    uint64_t active_buffers;
    /** Retries after transient errors. */
    uint64_t retries;
    /** Pieces that went another way after their path refused. */
    uint64_t fallbacks;
    /** File to memory. */
    gds_direction_metrics_t read;
    /** Memory to file. */
    gds_direction_metrics_t write;
    /** Bytes by the path they took, indexed by gds_path_t; the rest is zero. */
    uint64_t path_bytes[16];
} gds_metrics_t;

/** Measured figures beside the targets of the library. Start from GDS_PERFORMANCE_INIT. */
typedef struct gds_performance_t {
    /** sizeof(gds_performance_t) as the caller compiled it. */
    uint32_t struct_size;
    /** 1 when read_bytes_per_second reaches its target. */
    uint32_t read_target_met;
    /** 1 when write_bytes_per_second reaches its target. */
    uint32_t write_target_met;
    /** 1 when there were reads and read_latency_us is within its target. */
    uint32_t latency_target_met;
    /** Bytes read a second, over the life of the context. */
    double read_bytes_per_second;
    /** Bytes written a second, over the life of the context. */
    double write_bytes_per_second;
    /** Mean read latency, microseconds. */
    double read_latency_us;
    /** The target for reads, bytes a second. */
    double read_target_bytes_per_second;
    /** The target for writes, bytes a second. */
    double write_target_bytes_per_second;
    /** The target for the read latency, microseconds. */
    double read_latency_target_us;
} gds_performance_t;

/**
 * Open a context: choose the device and ready what transfers need.
 *
 * With CUDA this retains the device's primary context, the one that the CUDA runtime uses,
 * and leaves the caller's current context as it is. It loads libcuda at run time and waits
 * for the driver for probe_timeout_ms at most. A process may open several contexts. Any
 * thread.
 *
 * @param config       NULL: the balanced profile with the environment's GDS_* variables.
 *                     Otherwise taken as it is; see gds_config_environment().
 * @param context_out  give it to gds_context_close() once.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field or variable;
 *         GDS_STATUS_NO_DEVICE, GDS_STATUS_DRIVER_MISSING, GDS_STATUS_DRIVER_TOO_OLD,
 *         GDS_STATUS_DRIVER_TIMEOUT, GDS_STATUS_CUDA: that device cannot be used;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_context_open(const gds_config_t *config,
                              gds_context_t **context_out) GDS_NOEXCEPT;

/**
 * Close a context. NULL and closed handles are fine.
 *
 * What was made in it stays usable: files, buffers and tickets hold what they need, and the
 * last of them ends the transfer threads and waits for them.
 */
GDS_API void gds_context_close(gds_context_t *context) GDS_NOEXCEPT;

/**
 * Tell which device a context uses.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_context_device(const gds_context_t *context,
                                gds_device_info_t *info_out) GDS_NOEXCEPT;

/**
 * Read the counters of a context. They never stop the transfers.
 *
 * The numbers are each right by themselves, but not all of one instant.
 *
 * @param metrics_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_context_metrics(const gds_context_t *context,
                                 gds_metrics_t *metrics_out) GDS_NOEXCEPT;

/**
 * Compare what a context measured since it was opened with the targets of the library.
 *
 * @param performance_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_context_performance(const gds_context_t *context,
                                     gds_performance_t *performance_out) GDS_NOEXCEPT;

#define GDS_METRICS_INIT                                                                   \
    { sizeof(gds_metrics_t), 0, 0, 0, 0, 0, 0, { 0, 0, 0, 0, 0, 0, 0, 0 },                 \
      { 0, 0, 0, 0, 0, 0, 0, 0 }, { 0 } }
#define GDS_PERFORMANCE_INIT { sizeof(gds_performance_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== File ============================================================================ */

/** Open for reading. */
#define GDS_FILE_READ 1

/** Open for writing. */
#define GDS_FILE_WRITE 2

/** Create the file if it is missing (mode 0666 less the umask). Needs GDS_FILE_WRITE. */
#define GDS_FILE_CREATE 4

/** Cut the file to zero bytes. Needs GDS_FILE_WRITE. */
#define GDS_FILE_TRUNCATE 8

/** Fail if the file exists. Needs GDS_FILE_CREATE. */
#define GDS_FILE_EXCLUSIVE 16

/** What an open file is. */
GDS_ENUM(gds_file_kind_t) {
    /** A regular file. */
    GDS_FILE_KIND_REGULAR = 1,
    /** A block device. */
    GDS_FILE_KIND_BLOCK_DEVICE = 2,
};

/**
 * An open file. May be used from many threads at once. Made by gds_file_open() or
 * gds_file_from_fd(), given back to gds_file_close().
 */
typedef struct gds_file_t gds_file_t;

/** What is known of an open file. Start from GDS_FILE_INFO_INIT. */
typedef struct gds_file_info_t {
    /** sizeof(gds_file_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_file_kind_t. */
    int32_t kind;
    /** GDS_FILE_READ and GDS_FILE_WRITE as it was opened. */
    uint32_t flags;
    /** 1 when the size means something; 0 for files made up as they are read (/proc). */
    uint32_t sized;
    /** Bytes in the file now. */
    uint64_t size;
    /**
     * What direct I/O wants offsets and sizes to be a multiple of, bytes; 0 when the file
     * has no direct I/O. Other offsets and sizes work as well, at the cost of a copy.
     */
    uint32_t direct_offset_alignment;
    /** What direct I/O wants addresses to be a multiple of, bytes; 0 as above. */
    uint32_t direct_memory_alignment;
    /** Block size of the file system, bytes. */
    uint32_t block_size;
    /** Major number of the device that holds the file. */
    uint32_t device_major;
    /** Minor number of the device that holds the file. */
    uint32_t device_minor;
    /** Zero. */
    uint32_t reserved;
    /** "ext4", "xfs", "tmpfs", ..., NUL-terminated. */
    char file_system[32];
    /** Why there is no direct I/O, cut to fit and NUL-terminated; "" when there is. */
    char direct_reason[256];
} gds_file_info_t;

/**
 * Open a regular file or block device.
 *
 * Never blocks on a FIFO. Direct I/O is used where the file system has it, and done without
 * where it has not; gds_explain() tells. Any thread.
 *
 * @param path      NUL-terminated, any bytes.
 * @param flags     GDS_FILE_READ, GDS_FILE_WRITE or both, and GDS_FILE_CREATE,
 *                  GDS_FILE_TRUNCATE, GDS_FILE_EXCLUSIVE.
 * @param file_out  give it to gds_file_close() once. Keeps the context.
 * @return GDS_STATUS_NOT_FOUND; GDS_STATUS_PERMISSION_DENIED; GDS_STATUS_READ_ONLY: the
 *         file system is; GDS_STATUS_UNSUPPORTED_FILE: a directory, FIFO, socket or
 *         character device; GDS_STATUS_NO_SPACE; GDS_STATUS_IO: os_error tells;
 *         GDS_STATUS_INVALID_ARGUMENT: NULL, an empty path, unknown or contradicting flags;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_open(const gds_context_t *context, const char *path, uint32_t flags,
                           gds_file_t **file_out) GDS_NOEXCEPT;

/**
 * Use a file that the caller has opened. The descriptor stays the caller's and may be
 * closed.
 *
 * The file is opened again with the same access, so the position and the flags of the
 * descriptor (O_APPEND, O_DIRECT, O_NONBLOCK) do not matter; where that is forbidden, the
 * descriptor is duplicated. As ever with POSIX record locks, those that the process holds
 * on the file are lost at gds_file_close().
 *
 * @param file_out  give it to gds_file_close() once. Keeps the context.
 * @return GDS_STATUS_INVALID_ARGUMENT: not an open descriptor, or NULL;
 *         GDS_STATUS_UNSUPPORTED_FILE: not a regular file or block device; GDS_STATUS_IO;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_from_fd(const gds_context_t *context, int fd,
                              gds_file_t **file_out) GDS_NOEXCEPT;

/**
 * Close a file. NULL and closed handles are fine.
 *
 * Tickets that use it keep it open until they are done. Says nothing of lost writes: call
 * gds_file_sync() before where that matters.
 */
GDS_API void gds_file_close(gds_file_t *file) GDS_NOEXCEPT;

/**
 * Tell how many bytes a file has now.
 *
 * @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_size(const gds_file_t *file, uint64_t *size_out) GDS_NOEXCEPT;

/**
 * Tell what a file is and what direct I/O on it wants.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_info(const gds_file_t *file, gds_file_info_t *info_out) GDS_NOEXCEPT;

/**
 * Make what was written to a file durable, and wait for it.
 *
 * Covers writes that were complete before the call, of every path. After a failure the file
 * answers GDS_STATUS_POISONED: what reached the disk is unknown, and asking again would
 * lie.
 *
 * @return GDS_STATUS_IO: os_error tells; GDS_STATUS_NO_SPACE; GDS_STATUS_POISONED;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_sync(const gds_file_t *file) GDS_NOEXCEPT;

/**
 * Cut or extend a file to a size in bytes; what is added reads as zeros.
 *
 * @return GDS_STATUS_READ_ONLY: opened without GDS_FILE_WRITE; GDS_STATUS_NO_SPACE: too
 *         large; GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_NOT_SUPPORTED: a block device;
 *         GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_file_set_size(const gds_file_t *file, uint64_t size) GDS_NOEXCEPT;

#define GDS_FILE_INFO_INIT                                                                 \
    { sizeof(gds_file_info_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }, { 0 } }

/* ==== Buffer ========================================================================== */

/** What kind of memory a buffer is. */
GDS_ENUM(gds_memory_kind_t) {
    /** Device memory. On the host device, ordinary memory. */
    GDS_MEMORY_DEVICE = 1,
    /** Host memory that the device copies from and to without a staging copy. */
    GDS_MEMORY_PINNED = 2,
    /** CUDA unified memory. */
    GDS_MEMORY_MANAGED = 3,
    /** Ordinary host memory. */
    GDS_MEMORY_PAGEABLE = 4,
};

/**
 * Memory that transfers read from and write to: allocated here, or the caller's. May be
 * used from many threads at once, on ranges that do not overlap.
 */
typedef struct gds_buffer_t gds_buffer_t;

/** What is known of a buffer. Start from GDS_BUFFER_INFO_INIT. */
typedef struct gds_buffer_info_t {
    /** sizeof(gds_buffer_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_memory_kind_t. */
    int32_t kind;
    /** Its first byte; a device address for device memory. */
    uint64_t address;
    /** Bytes. */
    uint64_t size;
} gds_buffer_info_t;

/**
 * Allocate memory.
 *
 * Device memory is aligned to 256 bytes at least, pinned memory to 4096. Contents of device
 * memory are undefined, of pinned memory zero. Any thread.
 *
 * @param kind        GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED.
 * @param size        bytes, at least 1.
 * @param buffer_out  give it to gds_buffer_free() once. Keeps the context.
 * @return GDS_STATUS_OUT_OF_DEVICE_MEMORY or GDS_STATUS_OUT_OF_HOST_MEMORY: the message
 *         says how much is free or what to lower; GDS_STATUS_CUDA;
 *         GDS_STATUS_INVALID_ARGUMENT: size 0 or too large, another kind, NULL;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_alloc(const gds_context_t *context, int32_t kind, uint64_t size,
                              gds_buffer_t **buffer_out) GDS_NOEXCEPT;

/**
 * Use the caller's memory: device (of the context's device), pinned, managed or pageable.
 *
 * The kind is found out; nothing is pinned or copied. Pageable memory goes to the device
 * through staging memory; gds_buffer_register() saves that copy for memory that is used
 * often.
 *
 * @param address     stays valid until the buffer is freed and every ticket that uses it is
 *                    done.
 * @param size        bytes, at least 1.
 * @param buffer_out  give it to gds_buffer_free() once; that leaves the memory alone.
 * @return GDS_STATUS_INVALID_POINTER: memory of another device, unmapped, or fewer bytes
 *         than size; GDS_STATUS_OUT_OF_RANGE: address plus size passes the end of memory;
 *         GDS_STATUS_INVALID_ARGUMENT: NULL, size 0; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_wrap(const gds_context_t *context, void *address, uint64_t size,
                             gds_buffer_t **buffer_out) GDS_NOEXCEPT;

/**
 * As gds_buffer_wrap(), and pin pageable memory so that the device reaches it without a
 * copy.
 *
 * Pinning costs about as much as copying the memory once, and counts against `ulimit -l`
 * where that applies. Memory that is pinned already, or of the device, is taken as it is.
 *
 * @param address     stays mapped until the buffer is unregistered and every ticket that
 *                    uses it is done.
 * @param size        bytes, at least 1.
 * @param buffer_out  give it to gds_buffer_unregister() or gds_buffer_free() once.
 * @return as gds_buffer_wrap(), and GDS_STATUS_OUT_OF_HOST_MEMORY or GDS_STATUS_CUDA: the
 *         driver cannot pin it.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_register(const gds_context_t *context, void *address, uint64_t size,
                                 gds_buffer_t **buffer_out) GDS_NOEXCEPT;

/**
 * Free a buffer. NULL and freed handles are fine.
 *
 * What the library allocated or pinned is given back once no ticket uses it any more. CUDA
 * work of the caller that uses the memory must be done before.
 */
GDS_API void gds_buffer_free(gds_buffer_t *buffer) GDS_NOEXCEPT;

/** The same as gds_buffer_free(), by the name that pairs with gds_buffer_register(). */
GDS_API void gds_buffer_unregister(gds_buffer_t *buffer) GDS_NOEXCEPT;

/**
 * Tell where a buffer is. A device address for device memory: kernels and cudaMemcpy take
 * it.
 *
 * @param address_out  valid until the buffer is freed.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_address(const gds_buffer_t *buffer,
                                void **address_out) GDS_NOEXCEPT;

/**
 * Tell what a buffer is.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_info(const gds_buffer_t *buffer,
                             gds_buffer_info_t *info_out) GDS_NOEXCEPT;

#define GDS_BUFFER_INFO_INIT { sizeof(gds_buffer_info_t), 0, 0, 0 }

/* ==== Transfer ======================================================================== */

/** The same type as cudaStream_t and CUstream; no CUDA header is needed. */
typedef struct CUstream_st *gds_cuda_stream_t;

/** The way that bytes took. */
GDS_ENUM(gds_path_t) {
    /** No bytes moved. */
    GDS_PATH_NONE = 0,
    /** Page cache to or from host memory. */
    GDS_PATH_HOST = 1,
    /** O_DIRECT straight to or from host memory. */
    GDS_PATH_HOST_DIRECT = 2,
    /** O_DIRECT through pinned staging memory. */
    GDS_PATH_BOUNCE = 3,
    /** Page cache through pinned staging memory. */
    GDS_PATH_PAGE_CACHE = 4,
    /** cuFile. */
    GDS_PATH_CUFILE = 5,
};

/** A choice that may be left to the context. */
GDS_ENUM(gds_switch_t) {
    /** As the context says. */
    GDS_SWITCH_DEFAULT = 0,
    /** Yes. */
    GDS_SWITCH_ON = 1,
    /** No. */
    GDS_SWITCH_OFF = 2,
};

/**
 * A transfer, or a batch of them, that goes on by itself. May be used from many threads at
 * once. Made by gds_read_start() and its like, given back to gds_ticket_destroy().
 */
typedef struct gds_ticket_t gds_ticket_t;

/**
 * How one call differs from what the context says. Start from GDS_OPTIONS_INIT; all zero
 * but struct_size means "as the context says".
 */
typedef struct gds_options_t {
    /** sizeof(gds_options_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Which way bytes may take, a gds_path_policy_t. */
    int32_t path;
    /**
     * Longest time the call or ticket may take, milliseconds; 0 is no limit. After it the
     * answer is GDS_STATUS_TIMED_OUT, once no transfer touches the memory any more.
     */
    uint64_t deadline_ms;
    /** Whether to compute a CRC32C of what moved, a gds_switch_t. */
    int32_t checksum;
    /** Whether another path may be taken when one refuses, a gds_switch_t. */
    int32_t fallback;
    /** 1: ordered on `stream` as gds_read_async() is. 0: `stream` must be NULL. */
    uint32_t use_stream;
    /** Zero. */
    uint32_t reserved;
    /**
     * The stream, of the context's device. NULL with use_stream 1 is the default stream.
     */
    gds_cuda_stream_t stream;
} gds_options_t;

/** How a transfer went. Start from GDS_COMPLETION_INIT. */
typedef struct gds_completion_t {
    /** sizeof(gds_completion_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_status_t; the other fields mean something when it is GDS_STATUS_OK. */
    int32_t status;
    /** Bytes moved. Fewer than asked only where a read met the end of the file. */
    uint64_t bytes;
    /** From submission to completion, nanoseconds. */
    uint64_t latency_ns;
    /** The way that most bytes took, a gds_path_t. */
    int32_t path;
    /** Every way that bytes took: bit 1 << gds_path_t. */
    uint32_t paths;
    /** 1 when crc32c was computed. */
    uint32_t has_crc32c;
    /** CRC32C (Castagnoli) of what moved. */
    uint32_t crc32c;
    /** Retries after transient errors. */
    uint32_t retries;
    /** Pieces that went another way after their path refused. */
    uint32_t fallbacks;
} gds_completion_t;

/** A range of a buffer. This struct never changes. */
typedef struct gds_segment_t {
    /** The buffer. */
    const gds_buffer_t *buffer;
    /** Where in it, bytes. */
    uint64_t offset;
    /** Bytes. */
    uint64_t size;
} gds_segment_t;

/**
 * Read a range of a file into a buffer, and wait for it.
 *
 * Any offset, size and kind of memory works; offsets and sizes that are multiples of 4096
 * are fastest. Reading past the end of the file is not an error: `*bytes_out` says how much
 * arrived.
 *
 * The bytes are in place when the call returns, for every stream. The call is not ordered
 * after work that is queued on CUDA streams: such work that uses the range must be done
 * before, or see gds_read_async(). From many threads at once, on ranges of memory that do
 * not overlap.
 *
 * @param file_offset    bytes.
 * @param buffer         device, pinned, managed or pageable memory.
 * @param buffer_offset  where in the buffer the first byte goes, bytes.
 * @param size           bytes; 0 is fine.
 * @param bytes_out      bytes that arrived. May be NULL.
 * @return GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end or cannot be
 *         addressed; GDS_STATUS_IO, GDS_STATUS_CUDA, GDS_STATUS_CUFILE: a part failed, the
 *         memory holds nothing that counts; GDS_STATUS_FILE_CHANGED;
 *         GDS_STATUS_INVALID_POINTER; GDS_STATUS_FALLBACK_FORBIDDEN;
 *         GDS_STATUS_INVALID_ARGUMENT: also for a file opened without GDS_FILE_READ and for
 *         a buffer of another context; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_read(const gds_file_t *file, uint64_t file_offset,
                      const gds_buffer_t *buffer, uint64_t buffer_offset, uint64_t size,
                      uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Write a range of a buffer to a file, and wait for it. Not durable before gds_file_sync().
 *
 * The file grows where needed. The bytes are taken when the call returns. As in gds_read(),
 * work that is queued on CUDA streams and makes the bytes must be done before, or see
 * gds_write_async(). From many threads at once, on ranges of the file that do not overlap.
 *
 * @param file_offset    bytes.
 * @param buffer         device, pinned, managed or pageable memory.
 * @param buffer_offset  where in the buffer the first byte is, bytes.
 * @param size           bytes; 0 is fine.
 * @param bytes_out      bytes written, which is size. May be NULL.
 * @return GDS_STATUS_NO_SPACE: the disk or quota is full; GDS_STATUS_READ_ONLY: not opened
 *         for writing; otherwise as gds_read().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_write(const gds_file_t *file, uint64_t file_offset,
                       const gds_buffer_t *buffer, uint64_t buffer_offset, uint64_t size,
                       uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * As gds_read(), with options, and with an account of how it went.
 *
 * @param options         NULL: as the context says.
 * @param completion_out  struct_size set. May be NULL.
 * @return as gds_read(), and GDS_STATUS_TIMED_OUT; GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_read_with(const gds_file_t *file, uint64_t file_offset,
                           const gds_buffer_t *buffer, uint64_t buffer_offset,
                           uint64_t size, const gds_options_t *options,
                           gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * As gds_write(), with options, and with an account of how it went.
 *
 * @param options         NULL: as the context says.
 * @param completion_out  struct_size set. May be NULL.
 * @return as gds_write(), and GDS_STATUS_TIMED_OUT; GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_write_with(const gds_file_t *file, uint64_t file_offset,
                            const gds_buffer_t *buffer, uint64_t buffer_offset,
                            uint64_t size, const gds_options_t *options,
                            gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Read one range of a file into several pieces of memory, one after the other, and wait.
 *
 * @param segments        1 to 1,048,576; any kinds of memory, mixed.
 * @param options         NULL: as the context says.
 * @param completion_out  struct_size set; its bytes are those of all segments. May be NULL.
 * @return as gds_read_with(); GDS_STATUS_OUT_OF_RANGE also for too many segments.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_readv(const gds_file_t *file, uint64_t file_offset,
                       const gds_segment_t *segments, uint64_t count,
                       const gds_options_t *options,
                       gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Write several pieces of memory, one after the other, to one range of a file, and wait.
 *
 * @param segments        1 to 1,048,576; any kinds of memory, mixed.
 * @param options         NULL: as the context says.
 * @param completion_out  struct_size set; its bytes are those of all segments. May be NULL.
 * @return as gds_write_with(); GDS_STATUS_OUT_OF_RANGE also for too many segments.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writev(const gds_file_t *file, uint64_t file_offset,
                        const gds_segment_t *segments, uint64_t count,
                        const gds_options_t *options,
                        gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Start a read and return at once. The ticket tells when it is done.
 *
 * The memory must stay valid, and is nobody else's, until the ticket is done. Not ordered
 * with CUDA streams unless the options say so.
 *
 * @param options     NULL: as the context says.
 * @param ticket_out  give it to gds_ticket_destroy() once. Keeps file and buffer.
 * @return what is known before a byte moves: GDS_STATUS_OUT_OF_RANGE,
 *         GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FALLBACK_FORBIDDEN, GDS_STATUS_FORKED; nothing has started then. All
 *         else comes with the ticket.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_read_start(const gds_file_t *file, uint64_t file_offset,
                            const gds_buffer_t *buffer, uint64_t buffer_offset,
                            uint64_t size, const gds_options_t *options,
                            gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Start a write and return at once. The ticket tells when it is done.
 *
 * The memory must stay valid and unchanged until the ticket is done. Not ordered with CUDA
 * streams unless the options say so.
 *
 * @param options     NULL: as the context says.
 * @param ticket_out  give it to gds_ticket_destroy() once. Keeps file and buffer.
 * @return as gds_read_start(), and GDS_STATUS_READ_ONLY, GDS_STATUS_NO_SPACE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_write_start(const gds_file_t *file, uint64_t file_offset,
                             const gds_buffer_t *buffer, uint64_t buffer_offset,
                             uint64_t size, const gds_options_t *options,
                             gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Read in the order of a CUDA stream, and return at once.
 *
 * The memory is touched after all work that is in the stream at this moment, and work that
 * is queued afterwards sees the bytes: kernels need no wait on the host. Whether the read
 * went well is known to the ticket; a stream goes on after a failed read. The host device
 * has no streams: there the call returns when the read is done.
 *
 * @param stream      of the context's device; NULL is the default stream. Lives until the
 *                    ticket is done. Not while it is being captured into a graph.
 * @param ticket_out  give it to gds_ticket_destroy() once, which waits for an unfinished
 *                    read.
 * @return as gds_read_start(), and GDS_STATUS_CUDA: the stream refuses;
 *         GDS_STATUS_NOT_SUPPORTED: the GPU is older than compute capability 7.5.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_read_async(const gds_file_t *file, uint64_t file_offset,
                            const gds_buffer_t *buffer, uint64_t buffer_offset,
                            uint64_t size, gds_cuda_stream_t stream,
                            gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Write in the order of a CUDA stream, and return at once.
 *
 * The memory is read after all work that is in the stream at this moment, and work that is
 * queued afterwards may change it. Otherwise as gds_read_async().
 *
 * @param stream      as for gds_read_async().
 * @param ticket_out  give it to gds_ticket_destroy() once, which waits for an unfinished
 *                    write.
 * @return as gds_read_async(), and GDS_STATUS_READ_ONLY, GDS_STATUS_NO_SPACE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_write_async(const gds_file_t *file, uint64_t file_offset,
                             const gds_buffer_t *buffer, uint64_t buffer_offset,
                             uint64_t size, gds_cuda_stream_t stream,
                             gds_ticket_t **ticket_out) GDS_NOEXCEPT;

#define GDS_OPTIONS_INIT { sizeof(gds_options_t), 0, 0, 0, 0, 0, 0, NULL }
#define GDS_COMPLETION_INIT { sizeof(gds_completion_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== Ticket ========================================================================== */

/**
 * Tell whether a ticket is done, at once.
 *
 * @param done_out  1: done, well or not, and no transfer touches the memory. 0: not yet.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED. How
 *         the transfer went is told by gds_ticket_wait() and gds_ticket_error().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_ticket_poll(const gds_ticket_t *ticket, int32_t *done_out) GDS_NOEXCEPT;

/**
 * Wait until a ticket is done, and tell how the transfer went.
 *
 * From as many threads as you like, as often as you like. Of a batch, the sum of its
 * transfers, or the first failure. The memory is the caller's again when the ticket is
 * done.
 *
 * @param timeout_ms      longest wait, milliseconds; -1 is for ever, 0 only looks.
 * @param completion_out  struct_size set. May be NULL.
 * @return GDS_STATUS_PENDING: not done within timeout_ms, the transfer goes on;
 *         GDS_STATUS_TIMED_OUT: done, its own deadline_ms passed; GDS_STATUS_CANCELLED:
 *         done, after gds_ticket_cancel(); what a blocking transfer answers;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_ticket_wait(const gds_ticket_t *ticket, int64_t timeout_ms,
                             gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Ask a ticket to stop. Returns at once; what has not started does not start.
 *
 * The ticket is done when what has started is: wait for it before the memory is used again.
 * A transfer that was done before stays as it was.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_ticket_cancel(const gds_ticket_t *ticket) GDS_NOEXCEPT;

/**
 * Give a descriptor that becomes readable when the ticket is done, for poll and epoll.
 *
 * It stays readable. It belongs to the ticket: do not read or close it, and do not use it
 * after gds_ticket_destroy().
 *
 * @return GDS_STATUS_IO: no descriptors left, os_error tells; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_ticket_eventfd(const gds_ticket_t *ticket, int *fd_out) GDS_NOEXCEPT;

/**
 * Everything that the failure of a ticket has to say. Its status is GDS_STATUS_OK if all
 * went well.
 *
 * @param info_out  filled as far as `size` goes. The strings are valid until the ticket is
 *                  destroyed.
 * @param size      sizeof(gds_error_info_t).
 * @return GDS_STATUS_PENDING: not done; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_ticket_error(const gds_ticket_t *ticket, gds_error_info_t *info_out,
                              size_t size) GDS_NOEXCEPT;

/**
 * Give a ticket back. NULL and destroyed handles are fine.
 *
 * An unfinished transfer is cancelled, and the call waits until nothing touches the memory:
 * for a transfer ordered on a stream, until the stream reaches it.
 */
GDS_API void gds_ticket_destroy(gds_ticket_t *ticket) GDS_NOEXCEPT;

/* ==== Batch =========================================================================== */

/** What to do with a range of a file. */
GDS_ENUM(gds_operation_t) {
    /** File to memory. */
    GDS_OPERATION_READ = 1,
    /** Memory to file. */
    GDS_OPERATION_WRITE = 2,
};

/** One transfer of a batch. This struct never changes. */
typedef struct gds_batch_entry_t {
    /** The file, opened in the context of the batch. */
    const gds_file_t *file;
    /** The memory, of the context of the batch. */
    const gds_buffer_t *buffer;
    /** Where in the file, bytes. */
    uint64_t file_offset;
    /** Where in the memory, bytes. */
    uint64_t buffer_offset;
    /** Bytes. */
    uint64_t size;
    /** A gds_operation_t. */
    int32_t operation;
    /** Zero. */
    uint32_t reserved;
} gds_batch_entry_t;

/**
 * Start many transfers together and return at once. One ticket stands for all.
 *
 * The transfers have no order among themselves. Their memory must stay valid, and is nobody
 * else's, until the ticket is done. Reads and writes, files and kinds of memory may be
 * mixed.
 *
 * @param entries     1 to 16,777,216; used during the call only.
 * @param options     for all of them; the deadline is that of the batch. NULL: as the
 *                    context says.
 * @param ticket_out  give it to gds_ticket_destroy() once. Keeps files and buffers.
 * @return what is known before a byte moves, with the index of the entry in the message;
 *         nothing has started then: GDS_STATUS_OUT_OF_RANGE: also for too many entries;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_READ_ONLY;
 *         GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED. One transfer's failure does not stop
 *         the others.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_batch_submit(const gds_context_t *context,
                              const gds_batch_entry_t *entries, uint64_t count,
                              const gds_options_t *options,
                              gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Tell how each transfer of a ticket went.
 *
 * Each result has its own status: GDS_STATUS_PENDING until the ticket is done.
 *
 * @param first        index of the first transfer to tell of, in the order of the entries.
 * @param count        how many.
 * @param results_out  `count` structs, filled. The struct_size of the first must be set,
 *                     and is the distance from each to the next.
 * @return GDS_STATUS_OUT_OF_RANGE: the batch has fewer transfers;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_batch_results(const gds_ticket_t *ticket, uint64_t first, uint64_t count,
                               gds_completion_t *results_out) GDS_NOEXCEPT;

/* ==== Checksums ======================================================================= */

/**
 * CRC32C (Castagnoli) of each chunk of a range of a buffer, computed where the bytes are:
 * device memory by a kernel, host memory by the processor.
 *
 * Waits, in a stream of its own: work that is queued on CUDA streams and makes the bytes
 * must be done before. From many threads at once. The first call loads the kernel, which
 * the driver may make wait for what runs on the device; each thread that was ever inside
 * keeps 1 MiB of device and of pinned memory for the next call.
 *
 * @param buffer       any kind of memory.
 * @param offset       of the range in the buffer, bytes; any alignment.
 * @param size         bytes; 0 is fine. The last chunk holds what is left.
 * @param chunk_bytes  a power of two, 512 to 1048576.
 * @param crcs_out     receives one value a chunk.
 * @param count        values that crcs_out has room for.
 * @return GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
 *         GDS_STATUS_BUFFER_TOO_SMALL: fewer than one value a chunk;
 *         GDS_STATUS_INVALID_ARGUMENT: NULL, another chunk_bytes, a buffer of another
 *         context; GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_CUDA;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_crc32c(const gds_context_t *context, const gds_buffer_t *buffer,
                        uint64_t offset, uint64_t size, uint64_t chunk_bytes,
                        uint32_t *crcs_out, uint64_t count) GDS_NOEXCEPT;

/* ==== Page cache ====================================================================== */

/** Which page goes when room is needed. */
GDS_ENUM(gds_cache_policy_t) {
    /**
     * Recency and filtered admission compete, and the better one leads: good on most
     * patterns, bad on none.
     */
    GDS_CACHE_POLICY_DUELING = 0,
    /** A second chance for what was used since the hand came by. */
    GDS_CACHE_POLICY_CLOCK = 1,
    /** The least recently used. Costs a lock at every hit. */
    GDS_CACHE_POLICY_LRU = 2,
};

/**
 * Pages of files in device memory. May be used from many threads at once. Made by
 * gds_cache_open(), given back to gds_cache_close().
 */
typedef struct gds_cache_t gds_cache_t;

/**
 * How a cache is set up. Start from GDS_CACHE_CONFIG_INIT or gds_cache_config_init().
 * Where a field says "0 picks", 0 stands for that value.
 */
typedef struct gds_cache_config_t {
    /** sizeof(gds_cache_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /** Bytes of a page: a power of two, 4 KiB to 2 MiB. 0 picks 64 KiB. */
    uint32_t page_bytes;
    /** Device memory for pages, bytes; at least one page. 0 picks 256 MiB. */
    uint64_t device_bytes;
    /** Pinned host memory for pages that had to leave the device, bytes; 0: none. */
    uint64_t host_bytes;
    /** Device memory that the pages of one file may take, bytes; 0: no limit. */
    uint64_t file_limit_bytes;
    /**
     * How long a changed page may wait for its write, milliseconds, at most an hour. 0
     * picks 500.
     */
    uint32_t flush_delay_ms;
    /**
     * Changed pages, percent of all, from which on they are written at once; 1 to 100. 0
     * picks 25.
     */
    uint32_t dirty_percent;
    /** Which page goes when room is needed, a gds_cache_policy_t. */
    int32_t policy;
    /** Zero. */
    uint32_t reserved;
} gds_cache_config_t;

/**
 * A page that is held: it stays where it is until it is released. This struct never
 * changes. A copy is the same hold: release one of them, once.
 */
typedef struct gds_page_t {
    /**
     * Its first byte, a device address. Aligned to the page size within the cache's
     * memory. NULL: no page.
     */
    void *address;
    /** Where it is in the file, bytes: a multiple of the page size. */
    uint64_t offset_bytes;
    /**
     * Bytes of it that are the file's: the page size, less at the end of the file, 0 past
     * it. The rest of the page is zero.
     */
    uint64_t size_bytes;
    /** For the library. 0: no page. */
    uint64_t token;
} gds_page_t;

/** A range of a file in a warm-up list. This struct never changes. */
typedef struct gds_cache_range_t {
    /** Where it begins, bytes. */
    uint64_t offset;
    /** Bytes. */
    uint64_t size;
} gds_cache_range_t;

/** What a cache has counted, and what is in it. Start from GDS_CACHE_STATS_INIT. */
typedef struct gds_cache_stats_t {
    /** sizeof(gds_cache_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Pages that were asked for and there. */
    uint64_t hits;
    /** Pages that were asked for and not there. */
    uint64_t misses;
    /** Pages that were asked for while they were being read for somebody else. */
    uint64_t waits;
    /** Pages that went to make room. */
    uint64_t evictions;
    /** Of these, those that had to be written first. */
    uint64_t dirty_evictions;
    /** Pages written to files. */
    uint64_t write_backs;
    /** Bytes written to files. */
    uint64_t bytes_written;
    /** Reads of pages started ahead. */
    uint64_t prefetched;
    /** Pages read ahead that were used. */
    uint64_t prefetch_hits;
    /** Pages read ahead that went without having been used. */
    uint64_t prefetch_wasted;
    /** Calls that found no page to make room with. */
    uint64_t all_pinned;
    /** Misses that were served from host memory. */
    uint64_t host_hits;
    /** Pages that moved from the device to host memory. */
    uint64_t host_demotions;
    /** Pages that could not be read. */
    uint64_t read_errors;
    /** Pages that could not be written; their data was kept. */
    uint64_t write_errors;
    /** Pages that the device tier has room for. */
    uint64_t frames;
    /** Pages in the device tier. */
    uint64_t resident;
    /** Of these, held. */
    uint64_t pinned;
    /** Of these, changed and not written yet. */
    uint64_t dirty;
    /** Pages in the host tier. */
    uint64_t host_pages;
} gds_cache_stats_t;

/**
 * Fill a cache's configuration with its defaults, as GDS_CACHE_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_cache_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Open a page cache. All of its device and pinned memory is taken now.
 *
 * It serves the files of its context. Two opens of one file share their pages. Changes that
 * are made to a file past the cache are seen after gds_cache_invalidate() only.
 *
 * @param config     NULL: as GDS_CACHE_CONFIG_INIT.
 * @param cache_out  give it to gds_cache_close() once. Keeps the context.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field;
 *         GDS_STATUS_OUT_OF_DEVICE_MEMORY; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_open(const gds_context_t *context, const gds_cache_config_t *config,
                            gds_cache_t **cache_out) GDS_NOEXCEPT;

/**
 * Close a cache. NULL and closed handles are fine.
 *
 * Changed pages are written once more; where that may fail, call gds_cache_flush() before.
 * Release every page before: one that is still held stays valid, and keeps the memory of
 * the cache until the process ends.
 */
GDS_API void gds_cache_close(gds_cache_t *cache) GDS_NOEXCEPT;

/**
 * Hold the page of a file that has the byte at an offset; read it where it is absent.
 *
 * A page that is there costs no system call, lock or allocation. An absent one is read and
 * waited for; threads that want the same page wait for that one read. The bytes are in
 * place for every stream when the call returns. Kernels that use the page must be done
 * before it is released.
 *
 * @param offset    any byte of the page. Past the end of the file the page has size_bytes
 *         0.
 * @param page_out  give it to gds_cache_release() once.
 * @return GDS_STATUS_ALL_PINNED: no page can make room, release some;
 *         GDS_STATUS_OUT_OF_RANGE; what gds_read() answers; what went wrong earlier for
 *         this file in the background (reads ahead, delayed writes) and was told by no call
 *         yet; GDS_STATUS_INVALID_ARGUMENT: NULL, or the file belongs to another context;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_get(const gds_cache_t *cache, const gds_file_t *file,
                           uint64_t offset, gds_page_t *page_out) GDS_NOEXCEPT;

/**
 * As gds_cache_get(), for a page that will be overwritten whole: nothing is read, and the
 * page is dirty and as long as a page from the start.
 *
 * Until it is overwritten its bytes are undefined, for other holders too. The file grows to
 * the end of the page when it is written.
 *
 * @param page_out  give it to gds_cache_release() once.
 * @return as gds_cache_get(), and GDS_STATUS_READ_ONLY.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_get_new(const gds_cache_t *cache, const gds_file_t *file,
                               uint64_t offset, gds_page_t *page_out) GDS_NOEXCEPT;

/**
 * As gds_cache_get(), but only if the page is there: never reads, never waits.
 *
 * @param page_out  address NULL and token 0: it is not there. Else give it to
 *                  gds_cache_release() once.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_try_get(const gds_cache_t *cache, const gds_file_t *file,
                               uint64_t offset, gds_page_t *page_out) GDS_NOEXCEPT;

/**
 * Release a page, from any thread. It may go from now on, and its changes may be written.
 *
 * @param page  as a gds_cache_get*() filled it; set to "no page". No page is fine.
 * @return GDS_STATUS_INVALID_ARGUMENT: NULL, released before, or of another cache, as far
 *         as can be told: while somebody else holds the page it cannot;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_API gds_status_t gds_cache_release(const gds_cache_t *cache,
                                       gds_page_t *page) GDS_NOEXCEPT;

/**
 * Say that the bytes of a page were changed, or will be while it is held.
 *
 * They are written when the page is released and due (flush_delay_ms), has to go, or is
 * flushed. Only its size_bytes are written: gds_cache_put() and gds_cache_get_new() extend
 * a file.
 *
 * @param page  held.
 * @return GDS_STATUS_READ_ONLY: no open of the file that this page was asked for by may
 *         write; GDS_STATUS_INVALID_ARGUMENT: NULL or not held; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_mark_dirty(const gds_cache_t *cache,
                                  const gds_page_t *page) GDS_NOEXCEPT;

/**
 * Copy bytes of a buffer into the pages of a range of a file, and mark them dirty.
 *
 * Pages that are touched in part are read first. The file grows where needed, when the
 * pages are written. The bytes are taken when the call returns; work that is queued on CUDA
 * streams and makes them must be done before.
 *
 * @param buffer  device or pinned memory; on a GPU not pageable memory.
 * @return as gds_cache_get(); GDS_STATUS_READ_ONLY; GDS_STATUS_OUT_OF_RANGE: the range
 *         passes the buffer's end; GDS_STATUS_INVALID_POINTER: pageable memory;
 *         GDS_STATUS_CUDA. Pages before the one that failed are changed.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_put(const gds_cache_t *cache, const gds_file_t *file,
                           uint64_t offset, const gds_buffer_t *buffer,
                           uint64_t buffer_offset, uint64_t size) GDS_NOEXCEPT;

/**
 * Copy bytes of a file to a buffer through the cache; absent pages are read and kept.
 *
 * @param buffer     device or pinned memory; on a GPU not pageable memory.
 * @param bytes_out  bytes that arrived, fewer than size at the end of the file. May be
 *         NULL.
 * @return as gds_cache_get(); GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
 *         GDS_STATUS_INVALID_POINTER: pageable memory; GDS_STATUS_CUDA. The bytes of the
 *         buffer are undefined then.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_read(const gds_cache_t *cache, const gds_file_t *file,
                            uint64_t offset, const gds_buffer_t *buffer,
                            uint64_t buffer_offset, uint64_t size,
                            uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Start to read the absent pages of a range, up to the end of the file. Does not wait.
 *
 * Takes no page that is held or changed, and at most half of all pages in one call. An
 * error of these reads is answered by the next call for this file.
 *
 * @param size       bytes; UINT64_MAX: to the end of the file.
 * @param pages_out  pages that were started. May be NULL.
 * @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_IO; what went wrong earlier for this file;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_prefetch(const gds_cache_t *cache, const gds_file_t *file,
                                uint64_t offset, uint64_t size,
                                uint64_t *pages_out) GDS_NOEXCEPT;

/**
 * Write the changed pages of a file, or of all, and wait. Not durable before
 * gds_file_sync().
 *
 * The pages of a file go in ascending order: 32 side by side, the next after these. A page
 * that is held may be changing: it is written as it is, and again later.
 *
 * @param file       NULL: all files.
 * @param bytes_out  bytes written. May be NULL.
 * @return GDS_STATUS_IO, GDS_STATUS_NO_SPACE, what gds_write() answers: the first failure;
 *         the data is kept and will be written again. What went wrong earlier for this
 *         file; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_flush(const gds_cache_t *cache, const gds_file_t *file,
                             uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Drop the pages of a range, so that they are read again when they are next asked for.
 * Changed ones are written first.
 *
 * @param size       bytes; UINT64_MAX: to the end of the file.
 * @param pages_out  pages that went. May be NULL.
 * @return GDS_STATUS_ALL_PINNED: some are held, all others went; as gds_cache_flush():
 *         nothing went.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_invalidate(const gds_cache_t *cache, const gds_file_t *file,
                                  uint64_t offset, uint64_t size,
                                  uint64_t *pages_out) GDS_NOEXCEPT;

/**
 * Read the absent pages of a list of ranges and wait for them, as at the start of a program
 * that saved what gds_cache_hot_ranges() told. Stops before it drops what it has just read.
 *
 * @param ranges     at most 1,048,576.
 * @param pages_out  pages that were read. May be NULL.
 * @return as gds_cache_get(); GDS_STATUS_OUT_OF_RANGE also for too many ranges.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_warm(const gds_cache_t *cache, const gds_file_t *file,
                            const gds_cache_range_t *ranges, uint64_t count,
                            uint64_t *pages_out) GDS_NOEXCEPT;

/**
 * Tell which ranges of a file are in device memory now, in ascending order, adjacent pages
 * joined.
 *
 * @param capacity    ranges that `ranges_out` has room for; 0 only counts.
 * @param ranges_out  filled as far as it goes. May be NULL when capacity is 0.
 * @param count_out   ranges that there are, which may be more than capacity.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_hot_ranges(const gds_cache_t *cache, const gds_file_t *file,
                                  uint64_t capacity, gds_cache_range_t *ranges_out,
                                  uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell what a cache has counted. Looks at every page once: not for hot paths.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_cache_stats(const gds_cache_t *cache,
                             gds_cache_stats_t *stats_out) GDS_NOEXCEPT;

#define GDS_CACHE_CONFIG_INIT                                                              \
    { sizeof(gds_cache_config_t), 65536, 268435456, 0, 0, 500, 25,                         \
      GDS_CACHE_POLICY_DUELING, 0 }
#define GDS_CACHE_STATS_INIT                                                               \
    { sizeof(gds_cache_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
      0, 0 }

/* ==== Arrays for kernels ============================================================== */

/** Set in gds_array_view_t.flags: kernels may write. */
#define GDS_ARRAY_WRITABLE 1

/** Set in gds_array_view_t.flags: kernels count hits. */
#define GDS_ARRAY_COUNT_HITS 2

/**
 * A file as an array in device memory, for kernels (gds_rs.cuh). May be used from many
 * threads at once. Made by gds_array_open(), given back to gds_array_close().
 */
typedef struct gds_array_t gds_array_t;

/**
 * How an array is set up. Start from GDS_ARRAY_CONFIG_INIT or gds_array_config_init().
 * Where a field says "0 picks", 0 stands for that value.
 */
typedef struct gds_array_config_t {
    /** sizeof(gds_array_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /** Bytes of a page: a power of two, 4 KiB to 2 MiB. 0 picks 4096. */
    uint32_t page_bytes;
    /**
     * Device memory for pages, bytes; at least one page. 0 picks 64 MiB. The page table
     * takes 8 bytes more for each page of the file.
     */
    uint64_t device_bytes;
    /** Threads that serve kernels, at most 16. 0 picks half the processors, at most 8. */
    uint32_t service_threads;
    /**
     * Pages that may be on their way at once; each takes a page of pinned memory. 0 picks
     * 64 MiB worth, 64 to 4096.
     */
    uint32_t slots;
    /**
     * How long a warp waits while all frames are pinned, milliseconds, at most an hour. 0
     * picks 30,000.
     */
    uint32_t wait_ms;
    /** 1: kernels may write; the file is open for it. 0: not. */
    uint32_t writable;
    /** 1: kernels count hits, at the price of an atomic operation each. 0: not. */
    uint32_t count_hits;
    /** Zero. */
    uint32_t reserved;
} gds_array_config_t;

/**
 * What a kernel gets by value. Made by gds_array_acquire(); only gds_rs.cuh looks inside.
 */
typedef struct gds_array_view_t {
    /** sizeof(gds_array_view_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Bytes of a page, as a power of two. */
    uint32_t page_shift;
    /** Bytes of the array. */
    uint64_t size_bytes;
    /** Device memory: a word for each page. */
    uint64_t words;
    /** Device memory: a word for each frame, whose it is. */
    uint64_t owners;
    /** Device memory: 4 bytes for each frame, whether it differs from the file. */
    uint64_t dirty;
    /** Device memory: the frames. */
    uint64_t frames;
    /** Device memory: clock, errors, counters, rings. */
    uint64_t control;
    /** Device memory: 4 bytes for each slot. */
    uint64_t slots;
    /** Pinned memory: requests. */
    uint64_t requests;
    /** Pinned memory: completions. */
    uint64_t completions;
    /** Pinned memory: a page for each slot. */
    uint64_t staging;
    /** Pinned memory: not 0 when nobody answers. */
    uint64_t host;
    /** How long a warp waits for a frame, nanoseconds. */
    uint64_t wait_ns;
    /** Frames. */
    uint32_t frame_count;
    /** Rings. */
    uint32_t ring_count;
    /** Slots of a ring, as a power of two. */
    uint32_t ring_shift;
    /** GDS_ARRAY_WRITABLE, GDS_ARRAY_COUNT_HITS. */
    uint32_t flags;
} gds_array_view_t;

/** What an array has done since it was opened. */
typedef struct gds_array_stats_t {
    /** sizeof(gds_array_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Look-ups that found their page, if count_hits was set. */
    uint64_t hits;
    /** Pages that kernels asked the host for. */
    uint64_t misses;
    /** Look-ups that found another warp bringing their page. */
    uint64_t waits;
    /** Pages that made room for others. */
    uint64_t evictions;
    /** Dirty pages that were written to make room. */
    uint64_t write_backs;
    /** Pages that device memory holds at once. */
    uint64_t frames;
    /** Pages that differ from the file now. */
    uint64_t dirty;
    /** Device memory of the page table, bytes. */
    uint64_t table_bytes;
    /** Pinned memory, bytes. */
    uint64_t pinned_bytes;
} gds_array_stats_t;

/**
 * Fill an array's configuration with its defaults, as GDS_ARRAY_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_array_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Open a file, as long as it is now, as an array for kernels. Nothing is read yet.
 *
 * Keeps the file and its context. Pages that kernels use stay in device memory, up to
 * device_bytes; kernels bring what is missing by themselves, see gds_rs.cuh.
 *
 * @param config     struct_size set, or NULL for the defaults.
 * @param array_out  give it to gds_array_close() once.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_READ_ONLY: the
 *         file is not open for what the array needs; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_OUT_OF_RANGE: too many pages;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_open(const gds_file_t *file, const gds_array_config_t *config,
                            gds_array_t **array_out) GDS_NOEXCEPT;

/**
 * Let kernels use an array: until the matching gds_array_release(), threads of the library
 * look for their requests, which takes processor time.
 *
 * @param view_out  struct_size set. Goes to kernels by value; valid until the release.
 * @return what could not be written back after a service thread had died;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_acquire(const gds_array_t *array,
                               gds_array_view_t *view_out) GDS_NOEXCEPT;

/**
 * Wait until a stream has done what is in it, end the use of an array, and tell the first
 * thing that went wrong in kernels.
 *
 * gds_last_error() has the offset in the file. What kernels wrote is in device memory until
 * it makes room for other pages, or gds_array_flush().
 *
 * @param stream  where the kernels run; NULL is the default stream. Ignored on the host
 *                device, whose "kernels" must have ended.
 * @return GDS_STATUS_OUT_OF_RANGE: a kernel passed the end of the array;
 *         GDS_STATUS_READ_ONLY: it wrote, and the array is not writable;
 *         GDS_STATUS_ALL_PINNED: no frame became free for wait_ms; GDS_STATUS_FILE_CHANGED:
 *         the file became shorter; GDS_STATUS_POISONED: a thread that serves kernels died,
 *         the next gds_array_acquire() starts anew; what a read or write answers;
 *         GDS_STATUS_INVALID_ARGUMENT: not acquired; GDS_STATUS_CUDA: the caller's work
 *         failed; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_release(const gds_array_t *array,
                               gds_cuda_stream_t stream) GDS_NOEXCEPT;

/**
 * Write what kernels have changed to the file, by ascending offset. Between uses only. Not
 * durable before gds_file_sync().
 *
 * @param bytes_out  bytes written. May be NULL.
 * @return GDS_STATUS_INVALID_ARGUMENT: acquired; what gds_write() answers: pages that could
 *         not be written stay as they are, and the next flush tries again;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_flush(const gds_array_t *array, uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Flush, and forget every page: kernels then read the file anew. Between uses only.
 *
 * @return as gds_array_flush().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_invalidate(const gds_array_t *array) GDS_NOEXCEPT;

/**
 * Tell what an array has done. Exact while no kernel uses it.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_array_stats(const gds_array_t *array,
                             gds_array_stats_t *stats_out) GDS_NOEXCEPT;

/**
 * Close an array. NULL and closed handles are fine.
 *
 * Kernels that use it must be done. What they changed is written; whether that went well is
 * told by gds_array_flush() before.
 */
GDS_API void gds_array_close(gds_array_t *array) GDS_NOEXCEPT;

#define GDS_ARRAY_CONFIG_INIT                                                              \
    { sizeof(gds_array_config_t), 4096, 67108864, 0, 0, 30000, 0, 0, 0 }
#define GDS_ARRAY_VIEW_INIT                                                                \
    { sizeof(gds_array_view_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_ARRAY_STATS_INIT { sizeof(gds_array_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/* ==== Reader ========================================================================== */

/** The size of a range that goes to the end of its file. */
#define GDS_RANGE_TO_END 18446744073709551615ull

/** What a buffer of a reader or writer is doing. */
GDS_ENUM(gds_buffer_state_t) {
    /** Nothing. */
    GDS_BUFFER_STATE_IDLE = 0,
    /** Bytes are on their way into it. Of a writer: its user has it. */
    GDS_BUFFER_STATE_FILLING = 1,
    /** It holds a chunk that nobody has asked for yet. */
    GDS_BUFFER_STATE_READY = 2,
    /** Its user, or the user's stream, works on it. */
    GDS_BUFFER_STATE_PROCESSING = 3,
    /** Its bytes are on their way to the file. Of a writer only. */
    GDS_BUFFER_STATE_FLUSHING = 4,
};

/**
 * Streams ranges of files through a few buffers, chunk by chunk. May be used from many
 * threads at once: each chunk goes to one of them.
 */
typedef struct gds_reader_t gds_reader_t;

/**
 * How a reader reads, or a writer writes. Start from GDS_READER_CONFIG_INIT or
 * gds_reader_config_init().
 */
typedef struct gds_reader_config_t {
    /** sizeof(gds_reader_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /** Buffers, 2 to 64. 0 picks 2. */
    uint32_t buffers;
    /**
     * Bytes of a chunk, 4 KiB to 64 GiB. 0 picks four times the context's buffer_size:
     * 64 MiB, unless configured; or the size of the smallest buffer of `given` where that
     * is less.
     */
    uint64_t chunk_bytes;
    /** GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED. 0 picks device memory. */
    int32_t memory;
    /** Which way bytes may take, a gds_path_policy_t. */
    int32_t path;
    /** Whether to compute a CRC32C of each chunk, a gds_switch_t. */
    int32_t checksum;
    /** Whether another path may be taken when one refuses, a gds_switch_t. */
    int32_t fallback;
    /**
     * The caller's memory for chunks, in place of `buffers` new ones of `memory`: 2 to 64
     * buffers of the context, each as large as a chunk, none overlapping another. NULL: the
     * library allocates. The array is used during the call only. The buffers are kept, and
     * nobody else uses their memory, until the reader or writer is closed; then the next
     * may have them.
     */
    const gds_buffer_t *const *given;
    /** How many `given` are. 0: none. */
    uint64_t given_count;
} gds_reader_config_t;

/** A range of a file. This struct never changes. */
typedef struct gds_range_t {
    /** The file. */
    const gds_file_t *file;
    /** Where it begins, bytes. */
    uint64_t offset;
    /** Bytes, or GDS_RANGE_TO_END. */
    uint64_t size;
} gds_range_t;

/** A chunk in memory. Start from GDS_CHUNK_INIT. */
typedef struct gds_chunk_t {
    /** sizeof(gds_chunk_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Which buffer it is in, from 0. */
    uint32_t buffer;
    /** Which chunk of all, from 0. */
    uint64_t index;
    /** Its first byte; a device address for device memory. */
    uint64_t address;
    /** Bytes, at least 1; fewer than a whole chunk only at the end of a range. */
    uint64_t size;
    /** Where it came from in the range's file, bytes. */
    uint64_t file_offset;
    /** Which range it belongs to, from 0. */
    uint32_t range;
    /** The way that most bytes took, a gds_path_t. */
    int32_t path;
    /** 1 when crc32c was computed. */
    uint32_t has_crc32c;
    /** CRC32C (Castagnoli) of the chunk. */
    uint32_t crc32c;
} gds_chunk_t;

/**
 * Works on a chunk, which is valid during the call. 0: go on. Any other number: stop.
 *
 * Runs on the thread that called gds_reader_run(). May give the chunk back itself, by
 * gds_reader_release_on() say; else that is done when it returns. Must not close the
 * reader.
 */
typedef int32_t (*gds_chunk_fn)(const gds_chunk_t *chunk, void *user_data);

/** How far a reader is. Start from GDS_READER_INFO_INIT. */
typedef struct gds_reader_info_t {
    /** sizeof(gds_reader_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Buffers. */
    uint32_t buffers;
    /** Bytes of a whole chunk. */
    uint64_t chunk_bytes;
    /** Chunks in all. */
    uint64_t chunks;
    /** Bytes in all. */
    uint64_t bytes;
    /** Chunks that were delivered. */
    uint64_t chunks_delivered;
    /** Their bytes. */
    uint64_t bytes_delivered;
    /** Chunks whose bytes had not arrived when they were asked for. */
    uint64_t waits;
} gds_reader_info_t;

/**
 * Fill a reader's configuration, as GDS_READER_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_reader_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Read a whole file, chunk by chunk. Reading begins at once.
 *
 * As gds_reader_open_ranges() with one range that holds the file.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_open(const gds_file_t *file, const gds_reader_config_t *config,
                             gds_reader_t **reader_out) GDS_NOEXCEPT;

/**
 * Read ranges of files, one after the other, chunk by chunk. Reading begins at once.
 *
 * All buffers that are free are being filled, whatever the caller does. A range that
 * passes the end of its file ends there, a range without bytes has no chunk, and no chunk
 * spans two ranges. What is appended to a file later is not read.
 *
 * @param ranges      at least one, of one context; used during the call only.
 * @param config      NULL for the standard one.
 * @param reader_out  give it to gds_reader_close() once. Keeps the files.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_OUT_OF_RANGE;
 *         GDS_STATUS_INVALID_ARGUMENT: also for files and buffers of two contexts;
 *         GDS_STATUS_NOT_SUPPORTED: a file without a size, as in /proc;
 *         GDS_STATUS_OUT_OF_DEVICE_MEMORY or GDS_STATUS_OUT_OF_HOST_MEMORY: ask for fewer
 *         or smaller buffers; GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_READ_ONLY: a file
 *         that is open for writing alone; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_open_ranges(const gds_range_t *ranges, uint64_t count,
                                    const gds_reader_config_t *config,
                                    gds_reader_t **reader_out) GDS_NOEXCEPT;

/**
 * Wait until the next chunk is in memory. From then on every stream may use it.
 *
 * It is the caller's until it is given back or the reader is closed. While all buffers are
 * with the caller no chunk comes, and this waits until one is given back.
 *
 * @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
 * @param chunk_out   struct_size set.
 * @return GDS_STATUS_END: every chunk was delivered; GDS_STATUS_PENDING: none within
 *         timeout_ms; GDS_STATUS_CANCELLED: after gds_reader_cancel();
 *         GDS_STATUS_FILE_CHANGED: a file became shorter since the reader was opened; what
 *         went wrong with the chunk, as gds_read() answers it: the message and
 *         gds_last_error() say which chunk, file and offset. That stays the answer; chunks
 *         before it were delivered. GDS_STATUS_CUDA: also when the work of a stream failed
 *         that a chunk was given back on; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_next(const gds_reader_t *reader, int64_t timeout_ms,
                             gds_chunk_t *chunk_out) GDS_NOEXCEPT;

/**
 * Give a chunk back: its buffer is filled again at once. In any order, from any thread.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a chunk that is not out;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_release(const gds_reader_t *reader,
                                const gds_chunk_t *chunk) GDS_NOEXCEPT;

/**
 * Give a chunk back after the work that is in a CUDA stream now, such as kernels that read
 * it. Returns at once; the caller need not wait for the stream.
 *
 * @param stream  of the context's device; NULL is the default stream. On the host device
 *                the calling thread is the stream.
 * @return GDS_STATUS_CUDA: the stream cannot be marked, and the chunk stays the caller's,
 *         or its work failed; as gds_reader_release().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_release_on(const gds_reader_t *reader, const gds_chunk_t *chunk,
                                   gds_cuda_stream_t stream) GDS_NOEXCEPT;

/**
 * Call back with each chunk that is left, on this thread, until the end or until the
 * callback says stop. What is left then may be read on.
 *
 * @param callback   not NULL.
 * @param user_data  handed to every call.
 * @param bytes_out  bytes of the chunks that the callback got. May be NULL.
 * @return GDS_STATUS_OK: also when the callback stopped; as gds_reader_next(), but for
 *         GDS_STATUS_END and GDS_STATUS_PENDING.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_run(const gds_reader_t *reader, gds_chunk_fn callback,
                            void *user_data, uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Stop reading, from any thread. Returns at once.
 *
 * gds_reader_next() answers GDS_STATUS_CANCELLED from now on, also where it waits. Chunks
 * that are out stay valid and may be given back.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_cancel(const gds_reader_t *reader) GDS_NOEXCEPT;

/**
 * Tell how far a reader is.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_info(const gds_reader_t *reader,
                             gds_reader_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell what one buffer of a reader is doing.
 *
 * @param buffer     from 0.
 * @param state_out  a gds_buffer_state_t.
 * @return GDS_STATUS_OUT_OF_RANGE: the reader has fewer buffers;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_reader_buffer_state(const gds_reader_t *reader, uint32_t buffer,
                                     int32_t *state_out) GDS_NOEXCEPT;

/**
 * Close a reader. NULL and closed handles are fine.
 *
 * What is under way is stopped and waited for, and so are the streams that chunks were
 * given back on. The memory of every chunk is gone then: other CUDA work of the caller
 * that uses it must be done before.
 */
GDS_API void gds_reader_close(gds_reader_t *reader) GDS_NOEXCEPT;

#define GDS_READER_CONFIG_INIT { sizeof(gds_reader_config_t), 2, 0, 0, 0, 0, 0, NULL, 0 }
#define GDS_CHUNK_INIT { sizeof(gds_chunk_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_READER_INFO_INIT { sizeof(gds_reader_info_t), 0, 0, 0, 0, 0, 0, 0 }

/* ==== Writer ========================================================================== */

/**
 * Streams a few buffers into a file, one after the other. May be used from many threads at
 * once.
 */
typedef struct gds_writer_t gds_writer_t;

/** A buffer of a writer, to be filled. This struct never changes. */
typedef struct gds_space_t {
    /** Its first byte; a device address for device memory. */
    uint64_t address;
    /** Bytes that it holds. */
    uint64_t size;
    /** Which buffer it is, from 0. */
    uint32_t buffer;
    /** Zero. */
    uint32_t reserved;
} gds_space_t;

/**
 * Write a file from `offset` on, buffer by buffer. What is there is replaced, and the file
 * grows.
 *
 * @param config      as for a reader; NULL for the standard one.
 * @param writer_out  give it to gds_writer_close() once. Keeps the file.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_READ_ONLY;
 *         GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_OUT_OF_DEVICE_MEMORY or
 *         GDS_STATUS_OUT_OF_HOST_MEMORY: ask for fewer or smaller buffers;
 *         GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_open(const gds_file_t *file, uint64_t offset,
                             const gds_reader_config_t *config,
                             gds_writer_t **writer_out) GDS_NOEXCEPT;

/**
 * Wait for a buffer that is idle. It is the caller's to fill until it is submitted.
 *
 * @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
 * @param space_out   the buffer.
 * @return GDS_STATUS_PENDING: none within timeout_ms; why an earlier buffer could not be
 *         written, as gds_write() answers it; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_acquire(const gds_writer_t *writer, int64_t timeout_ms,
                                gds_space_t *space_out) GDS_NOEXCEPT;

/**
 * Have the first `size` bytes of a buffer written after those that were submitted before.
 * Returns at once.
 *
 * @param size        bytes; 0 gives the buffer back and writes nothing.
 * @param offset_out  where in the file they go, bytes. May be NULL.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a buffer that is not out;
 *         GDS_STATUS_OUT_OF_RANGE: more than it holds; the buffer stays the caller's then.
 *         Why an earlier buffer could not be written: this one is not written either.
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_submit(const gds_writer_t *writer, const gds_space_t *space,
                               uint64_t size, uint64_t *offset_out) GDS_NOEXCEPT;

/**
 * As gds_writer_submit(), after the work that is in a CUDA stream now, such as kernels that
 * fill the buffer. Returns at once; the caller need not wait for the stream.
 *
 * @param stream      of the context's device; NULL is the default stream. On the host
 *                    device the calling thread is the stream.
 * @param offset_out  where in the file they go, bytes. May be NULL.
 * @return GDS_STATUS_CUDA: the stream cannot be marked, and the buffer stays the caller's;
 *         as gds_writer_submit().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_submit_on(const gds_writer_t *writer, const gds_space_t *space,
                                  uint64_t size, gds_cuda_stream_t stream,
                                  uint64_t *offset_out) GDS_NOEXCEPT;

/**
 * Wait until all that was submitted is written. More may be submitted afterwards. Durable
 * after gds_file_sync().
 *
 * @param bytes_out  bytes written so far. May be NULL.
 * @return the failure nearest to the begin of the file, as gds_write() answers it, with its
 *         offset: what was submitted before it is written, what came after it may be or
 *         not.
 *         GDS_STATUS_CUDA: also when the work of a stream failed;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_finish(const gds_writer_t *writer,
                               uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Tell what one buffer of a writer is doing.
 *
 * @param buffer     from 0.
 * @param state_out  a gds_buffer_state_t.
 * @return GDS_STATUS_OUT_OF_RANGE: the writer has fewer buffers;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_writer_buffer_state(const gds_writer_t *writer, uint32_t buffer,
                                     int32_t *state_out) GDS_NOEXCEPT;

/**
 * Close a writer. NULL and closed handles are fine.
 *
 * Waits until all that was submitted is written. What fails then is told to nobody: call
 * gds_writer_finish() before.
 */
GDS_API void gds_writer_close(gds_writer_t *writer) GDS_NOEXCEPT;

/* ==== Pipeline ======================================================================== */

/**
 * Moves single requests, a bounded number at a time. May be used from many threads at once.
 */
typedef struct gds_pipeline_t gds_pipeline_t;

/**
 * How a pipeline works. Start from GDS_PIPELINE_CONFIG_INIT or gds_pipeline_config_init().
 */
typedef struct gds_pipeline_config_t {
    /** sizeof(gds_pipeline_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /**
     * Requests that may be under way at once, at most 4096. 0 picks the context's
     * max_outstanding_io.
     */
    uint32_t max_outstanding;
    /**
     * Bytes of adjacent requests that are joined at most. 0 picks the context's
     * buffer_size, 1 joins none.
     */
    uint64_t coalesce_bytes;
    /** Which way bytes may take, a gds_path_policy_t. */
    int32_t path;
    /**
     * Whether to compute a CRC32C of each request, a gds_switch_t. Requests are not joined
     * then.
     */
    int32_t checksum;
    /** Whether another path may be taken when one refuses, a gds_switch_t. */
    int32_t fallback;
    /** Zero. */
    uint32_t reserved;
    /**
     * Longest time of a request from when it is handed to the transfer threads,
     * milliseconds; 0 is no limit.
     */
    uint64_t deadline_ms;
} gds_pipeline_config_t;

/**
 * Told once how a request went. `completion` is valid during the call; after a failure,
 * gds_last_error() tells the rest there.
 *
 * Runs on the pipeline's own thread, one call at a time. Must not throw, longjmp or block
 * for long. May submit further requests and close the pipeline; calls that would wait for
 * the pipeline answer GDS_STATUS_PENDING.
 */
typedef void (*gds_request_fn)(uint64_t id,
                               const gds_completion_t *completion,
                               void *user_data);

/** What a pipeline has done so far. Start from GDS_PIPELINE_INFO_INIT. */
typedef struct gds_pipeline_info_t {
    /** sizeof(gds_pipeline_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Requests taken. */
    uint64_t submitted;
    /** Requests that are over, well or not, callbacks included. */
    uint64_t completed;
    /** Requests that failed. */
    uint64_t failed;
    /** Requests under way. */
    uint64_t outstanding;
    /** Batches handed to the transfer threads. */
    uint64_t batches;
    /** Transfers in them. */
    uint64_t transfers;
    /** Requests that shared their transfer with others. */
    uint64_t coalesced;
} gds_pipeline_info_t;

/**
 * Fill a pipeline's configuration, as GDS_PIPELINE_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_pipeline_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Start a pipeline.
 *
 * Requests that wait have a queue a file, and files take turns. Requests that continue each
 * other in a file and in memory become one transfer.
 *
 * @param config        NULL for the standard one.
 * @param pipeline_out  give it to gds_pipeline_close() once. Keeps the context.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_open(const gds_context_t *context,
                               const gds_pipeline_config_t *config,
                               gds_pipeline_t **pipeline_out) GDS_NOEXCEPT;

/**
 * Hand over a request. Requests have no order among themselves: wait for one before
 * submitting what depends on it.
 *
 * The memory stays valid, and is nobody else's, until the request is over. While the
 * pipeline is full this waits until a request is over; in a callback of the pipeline it
 * does not wait.
 *
 * @param request     used during the call only.
 * @param timeout_ms  longest wait for room, milliseconds; -1 is for ever, 0 does not wait.
 * @param callback    called exactly once, on the pipeline's thread, if the answer is
 *                    GDS_STATUS_OK; else never. NULL: gds_pipeline_wait_one() tells
 *                    instead.
 * @param user_data   handed to the callback; NULL without one.
 * @param id_out      the request's number, from 1. May be NULL.
 * @return GDS_STATUS_PENDING: no room within timeout_ms, or too many results were not
 *         taken; GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. What else goes wrong is the
 *         request's result.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_submit(const gds_pipeline_t *pipeline,
                                 const gds_batch_entry_t *request, int64_t timeout_ms,
                                 gds_request_fn callback, void *user_data,
                                 uint64_t *id_out) GDS_NOEXCEPT;

/**
 * Take the result of a request without a callback, in the order in which they end.
 *
 * @param timeout_ms      longest wait, milliseconds; -1 is for ever, 0 only looks.
 * @param id_out          which request. May be NULL.
 * @param completion_out  how it went, failures too: see its status, and gds_last_error()
 *                        for the rest. struct_size set.
 * @return GDS_STATUS_OK: a result was taken, whatever it is; GDS_STATUS_END: no such
 *         request is left; GDS_STATUS_PENDING: none is over within timeout_ms, or called
 *         in a callback; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_wait_one(const gds_pipeline_t *pipeline, int64_t timeout_ms,
                                   uint64_t *id_out,
                                   gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Wait until every request is over and every callback has returned. Results that were not
 * taken stay for gds_pipeline_wait_one().
 *
 * @return GDS_STATUS_PENDING: called in a callback of this pipeline;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_wait_all(const gds_pipeline_t *pipeline) GDS_NOEXCEPT;

/**
 * Tell what a pipeline has done so far.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_pipeline_info(const gds_pipeline_t *pipeline,
                               gds_pipeline_info_t *info_out) GDS_NOEXCEPT;

/**
 * Close a pipeline. NULL and closed handles are fine.
 *
 * Requests that have not started end with GDS_STATUS_CANCELLED; this waits for the others
 * and for every callback, unless it is called in one.
 */
GDS_API void gds_pipeline_close(gds_pipeline_t *pipeline) GDS_NOEXCEPT;

#define GDS_PIPELINE_CONFIG_INIT { sizeof(gds_pipeline_config_t), 0, 0, 0, 0, 0, 0, 0 }
#define GDS_PIPELINE_INFO_INIT { sizeof(gds_pipeline_info_t), 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== Reading ahead =================================================================== */

/** What the accesses of a file have in common. */
GDS_ENUM(gds_pattern_t) {
    /** Too few accesses, or none of the others. */
    GDS_PATTERN_UNKNOWN = 0,
    /** Each begins behind the last one, within a chunk or where that ended. */
    GDS_PATTERN_SEQUENTIAL = 1,
    /** Each is as far from the last one. */
    GDS_PATTERN_STRIDED = 2,
    /** Hardly two steps are alike. */
    GDS_PATTERN_RANDOM = 3,
};

/**
 * Watches the accesses of one file and reads pages into a cache before they are wanted. May
 * be used from many threads at once. Made by gds_prefetch_open(), given back to
 * gds_prefetch_close().
 */
typedef struct gds_prefetch_t gds_prefetch_t;

/** How to read ahead. Start from GDS_PREFETCH_CONFIG_INIT or gds_prefetch_config_init(). */
typedef struct gds_prefetch_config_t {
    /** sizeof(gds_prefetch_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /**
     * Requests that are read at once, at most 1024. 0 picks prefetch_slots of the context.
     */
    uint32_t slots;
    /**
     * How far ahead to read at most, bytes. 0 picks prefetch_distance of the context; where
     * that is 0 as well, only hints are read.
     */
    uint64_t distance_bytes;
    /**
     * Bytes of one request: a multiple of the page size of the cache. 0 picks 256 KiB, or a
     * page where that is larger, and less for a small cache or distance.
     */
    uint64_t chunk_bytes;
    /** How long a request is worth beginning, milliseconds. 0 picks 100. */
    uint64_t deadline_ms;
    /** Whether to learn steps that have no simple pattern, a gds_switch_t. Default: yes. */
    int32_t predictor;
    /** Zero. */
    uint32_t reserved;
} gds_prefetch_config_t;

/** What was read ahead, and what for. Start from GDS_PREFETCH_STATS_INIT. */
typedef struct gds_prefetch_stats_t {
    /** sizeof(gds_prefetch_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** What the last 64 accesses have in common, a gds_pattern_t. */
    int32_t pattern;
    /** With GDS_PATTERN_STRIDED: bytes from one access to the next. Else 0. */
    int64_t stride;
    /** Accesses, without those of the same pages as the one before. */
    uint64_t accesses;
    /** Pages that were in memory when they were wanted. */
    uint64_t hits;
    /** Those of them that were read ahead. */
    uint64_t prefetch_hits;
    /** Pages that were still being read when they were wanted. */
    uint64_t late;
    /** Pages that were neither. */
    uint64_t misses;
    /** Bytes whose reading was started ahead. */
    uint64_t prefetched_bytes;
    /** Bytes that were read ahead and not used in time. */
    uint64_t wasted_bytes;
    /** Requests that were not begun before their deadline, or found the queue full. */
    uint64_t dropped;
    /** Requests that the cache had no room for, or that failed. */
    uint64_t refused;
    /** How far ahead the pattern is followed now, bytes; 0 while that does not pay. */
    uint64_t window_bytes;
    /** Requests that wait. */
    uint64_t queued;
    /**
     * Pages that were read ahead, or are being read, and wait to be used; at most an eighth
     * of the cache.
     */
    uint64_t unused_pages;
    /** How many of the newest requests were used, 0.0 to 1.0. */
    double accuracy;
    /**
     * How many of the newest predictions of the learned predictor were right, 0.0 to 1.0.
     */
    double predictor_accuracy;
    /** 1 while the learned predictor is on. */
    uint32_t predictor_on;
    /** Requests that are being read. */
    uint32_t in_flight;
} gds_prefetch_stats_t;

/**
 * Fill a prefetcher's configuration with its defaults, as GDS_PREFETCH_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_prefetch_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Read pages of a file ahead of the program's accesses. Starts one thread, which sleeps
 * when there is nothing to read.
 *
 * The accesses are those that gds_prefetch_get() and gds_prefetch_record() tell it of. What
 * was read ahead and not used yet takes at most an eighth of the cache. Any thread.
 *
 * @param file          of the context of the cache.
 * @param config        NULL: GDS_PREFETCH_CONFIG_INIT.
 * @param prefetch_out  give it to gds_prefetch_close() once. Keeps the cache and the file.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field and the rule;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY: no thread can be started; GDS_STATUS_IO;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_open(const gds_cache_t *cache, const gds_file_t *file,
                               const gds_prefetch_config_t *config,
                               gds_prefetch_t **prefetch_out) GDS_NOEXCEPT;

/**
 * Close a prefetcher. NULL and closed handles are fine. Its thread ends; reads that are
 * under way end by themselves, and their pages stay in the cache.
 */
GDS_API void gds_prefetch_close(gds_prefetch_t *prefetch) GDS_NOEXCEPT;

/**
 * Tell of an access, and have what is likely to come next read ahead. Never waits for
 * storage.
 *
 * For programs that take their pages from the cache by themselves; gds_prefetch_get() does
 * it on the way.
 *
 * @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_record(const gds_prefetch_t *prefetch, uint64_t offset,
                                 uint64_t size) GDS_NOEXCEPT;

/**
 * Tell of an access of a page, and hold the page as gds_cache_get() does.
 *
 * @param offset    any byte of the page.
 * @param page_out  give it to gds_cache_release() of the cache once.
 * @return as gds_cache_get(), and what went wrong with an earlier read ahead, once.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_get(const gds_prefetch_t *prefetch, uint64_t offset,
                              gds_page_t *page_out) GDS_NOEXCEPT;

/**
 * Ask for a range to be read ahead. Returns at once; what is in the cache is not read
 * again.
 *
 * Requests begin by priority, the highest first, then by deadline, then by age. What has
 * not begun at its deadline is dropped and counted; so is a request that finds 1024
 * waiting.
 *
 * @param priority     predictions of the library have 10 to 100.
 * @param deadline_ms  from now, milliseconds; 0 picks that of the configuration.
 * @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. What reading says is told by the
 *         next call that waits for pages of this file.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_hint(const gds_prefetch_t *prefetch, uint64_t offset,
                               uint64_t size, uint32_t priority,
                               uint64_t deadline_ms) GDS_NOEXCEPT;

/**
 * Tell what was read ahead and what for.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_prefetch_stats(const gds_prefetch_t *prefetch,
                                gds_prefetch_stats_t *stats_out) GDS_NOEXCEPT;

#define GDS_PREFETCH_CONFIG_INIT { sizeof(gds_prefetch_config_t), 0, 0, 0, 0, 0, 0 }
#define GDS_PREFETCH_STATS_INIT                                                            \
    { sizeof(gds_prefetch_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== Mapped regions ================================================================== */

/**
 * Ranges of files that are kept in device memory, up to a limit. May be used from many
 * threads at once. Made by gds_region_set_open(), given back to gds_region_set_close().
 */
typedef struct gds_region_set_t gds_region_set_t;

/**
 * A range of a file in device memory. May be used from many threads at once. Made by
 * gds_region_map(), given back to gds_region_unmap().
 */
typedef struct gds_region_t gds_region_t;

/** How much memory a set may take. Start from GDS_REGION_CONFIG_INIT. */
typedef struct gds_region_config_t {
    /** sizeof(gds_region_config_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /**
     * Device memory of all regions of the set, bytes, at least the alignment of the
     * context. 0 picks buffer_size times prefetch_slots of the context, and twice that with
     * double_buffering.
     */
    uint64_t limit_bytes;
} gds_region_config_t;

/** What a set has done and holds. Start from GDS_REGION_STATS_INIT. */
typedef struct gds_region_stats_t {
    /** sizeof(gds_region_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Device memory that regions may take, bytes. */
    uint64_t limit_bytes;
    /** Device memory that they take, bytes. */
    uint64_t mapped_bytes;
    /** Device memory of regions that are held, bytes. */
    uint64_t held_bytes;
    /** Bytes that are marked dirty. */
    uint64_t dirty_bytes;
    /** Regions in device memory. */
    uint64_t regions;
    /** Regions that are held. */
    uint64_t held_regions;
    /** Mappings that were read from the file. */
    uint64_t loads;
    /** Mappings that were found in device memory. */
    uint64_t hits;
    /** Regions that made room for others. */
    uint64_t evictions;
    /** Regions that were written before they made room. */
    uint64_t dirty_evictions;
    /** Bytes read from files. */
    uint64_t bytes_read;
    /** Bytes written to files. */
    uint64_t bytes_written;
    /** Writes that failed; their bytes are still dirty. */
    uint64_t write_errors;
} gds_region_stats_t;

/** What is known of a region. Start from GDS_REGION_INFO_INIT. */
typedef struct gds_region_info_t {
    /** sizeof(gds_region_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Its first byte; a device address. */
    uint64_t address;
    /** Offset in the file, bytes, as it was asked for. */
    uint64_t offset;
    /** Bytes, as it was asked for. */
    uint64_t size;
    /** Bytes that the file had of it when it was read; those behind are zero. */
    uint64_t valid_bytes;
    /** Bytes of it that are marked dirty. */
    uint64_t dirty_bytes;
    /** First byte of the memory that holds it; aligned as device memory is. */
    uint64_t aligned_address;
    /** Offset in the file of that byte, a multiple of the alignment of the context. */
    uint64_t aligned_offset;
    /** Bytes of that memory, a multiple of the alignment of the context. */
    uint64_t aligned_size;
} gds_region_info_t;

/**
 * Fill a configuration of regions, as GDS_REGION_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_region_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Open a set of regions, empty at first. Any thread.
 *
 * @param config   NULL: GDS_REGION_CONFIG_INIT.
 * @param set_out  give it to gds_region_set_close() once. Keeps the context.
 * @return GDS_STATUS_INVALID_CONFIG: the limit is below the alignment of the context;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_set_open(const gds_context_t *context,
                                 const gds_region_config_t *config,
                                 gds_region_set_t **set_out) GDS_NOEXCEPT;

/**
 * Close a set. NULL and closed handles are fine.
 *
 * Regions that are held stay usable. The last of them, or this call, writes what is dirty
 * and frees the memory; nobody is told if that write fails, so call gds_region_set_flush()
 * before.
 */
GDS_API void gds_region_set_close(gds_region_set_t *set) GDS_NOEXCEPT;

/**
 * Write what is dirty, in the order of the offsets, and wait. Not durable before
 * gds_file_sync().
 *
 * What the caller's kernels write to regions must be complete before. A region never
 * changes the size of its file.
 *
 * @param file       of this file only. NULL: of every file.
 * @param bytes_out  bytes written. May be NULL.
 * @return the first failure, after everything else was tried; its bytes stay dirty:
 *         GDS_STATUS_FILE_CHANGED: the file has become shorter; GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_IO; GDS_STATUS_CUDA. Also a failed write of an earlier eviction, once.
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_set_flush(const gds_region_set_t *set, const gds_file_t *file,
                                  uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Tell what a set has done and what it holds.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_set_stats(const gds_region_set_t *set,
                                  gds_region_stats_t *stats_out) GDS_NOEXCEPT;

/**
 * Map a range of a file to device memory, contiguous, and hold it there. Blocks while it is
 * read.
 *
 * Any offset and size are taken. The same range of the same file, by whatever handle, is
 * the same memory and is not read again; a range inside a mapped one is a view of it.
 * Ranges that overlap otherwise have a copy each: what is dirty in the one is written
 * before the other is read, and bytes in both cannot be marked dirty while both are held.
 * Where the limit is reached, regions that nobody holds make room, the least recently used
 * first; dirty ones are written before.
 *
 * @param file        of the context of the set; open for writing if it is to be marked.
 * @param size        bytes, at least 1. Behind the end of the file they are zero.
 * @param region_out  give it to gds_region_unmap() once. Keeps the set and the file.
 * @return GDS_STATUS_OUT_OF_DEVICE_MEMORY: it does not fit beside what is held, the message
 *         names the limit and the bytes; GDS_STATUS_OUT_OF_RANGE; what gds_read() answers;
 *         a failed write of an earlier eviction of this file, once;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_map(const gds_region_set_t *set, const gds_file_t *file,
                            uint64_t offset, uint64_t size,
                            gds_region_t **region_out) GDS_NOEXCEPT;

/**
 * Tell where the first byte of a region is. Kernels and cudaMemcpy take the address.
 *
 * @param address_out  valid until the region is unmapped.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_address(const gds_region_t *region,
                                void **address_out) GDS_NOEXCEPT;

/**
 * Tell what a region is.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_info(const gds_region_t *region,
                             gds_region_info_t *info_out) GDS_NOEXCEPT;

/**
 * Count as a use of a region: the least recently used one makes room first, once it is
 * unmapped.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_touch(const gds_region_t *region) GDS_NOEXCEPT;

/**
 * Say that bytes of a region were changed: they will be written, at the latest before the
 * memory is used for something else. Nothing is written now.
 *
 * @param offset  in the region, bytes.
 * @param size    bytes; offset plus size is at most valid_bytes of gds_region_info(): a
 *                region never extends its file.
 * @return GDS_STATUS_READ_ONLY: the file that it was mapped by is not open for writing;
 *         GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT: another region that is held
 *         has its own copy of these bytes, unmap that first, or NULL; a failed write of an
 *         earlier eviction of this file, once; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED. Nothing is marked then.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_mark_dirty(const gds_region_t *region, uint64_t offset,
                                   uint64_t size) GDS_NOEXCEPT;

/**
 * Write what is dirty in the memory of a region, and wait, as gds_region_set_flush() does.
 *
 * @param bytes_out  bytes written. May be NULL.
 * @return as gds_region_set_flush().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_flush(const gds_region_t *region, uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Give up what is dirty in a region: it will not be written.
 *
 * The memory keeps its bytes for those who hold it; who maps the range later gets what the
 * file has.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_region_discard(const gds_region_t *region) GDS_NOEXCEPT;

/**
 * Let go of a region. NULL and unmapped handles are fine.
 *
 * It stays in device memory, dirty or not, until room is needed, and is found there when it
 * is mapped again. CUDA work of the caller that uses the memory must be done before.
 */
GDS_API void gds_region_unmap(gds_region_t *region) GDS_NOEXCEPT;

#define GDS_REGION_CONFIG_INIT { sizeof(gds_region_config_t), 0, 0 }
#define GDS_REGION_INFO_INIT { sizeof(gds_region_info_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_REGION_STATS_INIT                                                              \
    { sizeof(gds_region_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== Formats ========================================================================= */

/** What a file holds, by its contents. New formats are appended. */
GDS_ENUM(gds_format_t) {
    /** None of the others. */
    GDS_FORMAT_UNKNOWN = 0,
    /** ELF: programs, libraries, object files, cubins. */
    GDS_FORMAT_ELF = 1,
    /** Parquet, its footer encrypted or not. */
    GDS_FORMAT_PARQUET = 2,
    /** Arrow IPC file, also called Feather version 2. */
    GDS_FORMAT_ARROW_FILE = 3,
    /** Arrow IPC stream. */
    GDS_FORMAT_ARROW_STREAM = 4,
    /** safetensors. */
    GDS_FORMAT_SAFETENSORS = 5,
    /** GGUF. */
    GDS_FORMAT_GGUF = 6,
    /** The JSON index of a model in several safetensors files. */
    GDS_FORMAT_SAFETENSORS_INDEX = 7,
    /** Feather version 1. This and the following are recognised, not read. */
    GDS_FORMAT_FEATHER1 = 16,
    /** ORC. */
    GDS_FORMAT_ORC = 17,
    /** NumPy's .npy. */
    GDS_FORMAT_NUMPY = 18,
    /** A Zstandard frame. */
    GDS_FORMAT_ZSTD = 19,
    /** An LZ4 frame. */
    GDS_FORMAT_LZ4_FRAME = 20,
    /** gzip. */
    GDS_FORMAT_GZIP = 21,
    /** A zip archive: .npz, PyTorch's .pt, .jar. */
    GDS_FORMAT_ZIP = 22,
    /** HDF5. */
    GDS_FORMAT_HDF5 = 23,
    /** Vortex. */
    GDS_FORMAT_VORTEX = 24,
};

/**
 * Ranges of files and their places in one destination, ready to be read as often as wanted.
 * Never changes; may be used from many threads at once.
 */
typedef struct gds_plan_t gds_plan_t;

/** A range of a file and its place in the destination. This struct never changes. */
typedef struct gds_piece_t {
    /** Offset in the file, bytes. */
    uint64_t file_offset;
    /** Bytes. */
    uint64_t size;
    /** Offset in the destination, bytes. */
    uint64_t to_offset;
    /** The file. NULL in a piece that gds_plan_pieces() gives: see `file_index`. */
    const gds_file_t *file;
    /** Which of the plan's files, from 0. Zero in a piece given to gds_plan_create(). */
    uint64_t file_index;
} gds_piece_t;

/** What a plan reads. Start from GDS_PLAN_INFO_INIT. */
typedef struct gds_plan_info_t {
    /** sizeof(gds_plan_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Files. */
    uint32_t files;
    /** Bytes of the destination, the padding between pieces included. */
    uint64_t size_bytes;
    /** Bytes that are wanted of the files. */
    uint64_t bytes;
    /** Pieces. */
    uint64_t pieces;
    /** Reads that gds_plan_read() makes of them, neighbours together. */
    uint64_t reads;
    /** Of them, those that go through scratch memory of the device. */
    uint64_t gathered;
    /** Bytes of those reads: what is wanted, and what stands between. */
    uint64_t read_bytes;
} gds_plan_info_t;

/** A piece of a plan, or a part of one, in memory. This struct never changes. */
typedef struct gds_window_part_t {
    /** Which piece of its file, from 0, in the order of gds_plan_pieces(). */
    uint64_t piece;
    /** Where in the piece it begins, bytes. */
    uint64_t offset;
    /** Bytes. */
    uint64_t size;
    /** Its first byte; a device address for device memory. A multiple of 64. */
    uint64_t address;
} gds_window_part_t;

/** What is in memory at once of a plan that is streamed. The library fills it. */
typedef struct gds_window_t {
    /** sizeof(gds_window_t) as the library knows it. */
    uint32_t struct_size;
    /** Which of the plan's files, from 0. */
    uint32_t file_index;
    /** What is in memory, all of a piece before the next one. */
    const gds_window_part_t *parts;
    /** How many. */
    uint64_t count;
} gds_window_t;

/**
 * Works on a window, which is valid during the call. 0: go on. Any other number: stop.
 *
 * Runs on the thread that called gds_plan_stream(). Work that it starts on a CUDA stream
 * must be done when it returns.
 */
typedef int32_t (*gds_window_fn)(const gds_window_t *window, void *user_data);

/**
 * Tell what a file holds, by its contents. Reads a few KiB; its name does not matter.
 *
 * @param format_out  a gds_format_t; GDS_FORMAT_UNKNOWN for what is none of them, empty
 *                    files included.
 * @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_format_detect(const gds_file_t *file, int32_t *format_out) GDS_NOEXCEPT;

/**
 * The name of a format: "Parquet", "safetensors", ... Never NULL: a number that is no
 * format answers "unknown". The text is static. Any thread, at any time.
 */
GDS_API const char *gds_format_name(int32_t format) GDS_NOEXCEPT;

/**
 * Make a plan of your own. Readers of formats make theirs.
 *
 * @param pieces    1 to 16,777,216, whose places in the destination do not overlap; used
 *                  during the call only.
 * @param plan_out  give it to gds_plan_destroy() once. Keeps the files.
 * @return GDS_STATUS_OUT_OF_RANGE: also for too many pieces; GDS_STATUS_INVALID_ARGUMENT:
 *         also for files of two contexts; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_create(const gds_piece_t *pieces, uint64_t count,
                             gds_plan_t **plan_out) GDS_NOEXCEPT;

/** Give a plan back. NULL and destroyed handles are fine. */
GDS_API void gds_plan_destroy(gds_plan_t *plan) GDS_NOEXCEPT;

/**
 * Tell what a plan reads.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_info(const gds_plan_t *plan, gds_plan_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell the pieces of a plan, file after file.
 *
 * @param first       the first that is wanted, from 0.
 * @param count       how many `pieces_out` has room for.
 * @param pieces_out  filled with those that there are.
 * @param count_out   how many were written.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_pieces(const gds_plan_t *plan, uint64_t first, uint64_t count,
                             gds_piece_t *pieces_out, uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Read everything that a plan names, and wait. Neighbours are read together; small pieces
 * that go to other distances than the file's pass through up to 32 MiB of scratch memory of
 * the device, which is freed again.
 *
 * Bytes of the destination between pieces are unspecified afterwards. With a stream in the
 * options the memory is touched after what is in the stream now, and the call waits for it
 * where it needs scratch memory.
 *
 * @param buffer          of the files' context; the plan's size_bytes fit behind the
 *                        offset.
 * @param buffer_offset   where the destination begins in the buffer, bytes.
 * @param options         NULL: as the context says. No checksum is computed.
 * @param completion_out  struct_size set; its bytes are those that were wanted. May be
 *                        NULL.
 * @return GDS_STATUS_OUT_OF_RANGE: it does not fit; GDS_STATUS_CORRUPTED: a file ends
 *         before its pieces do; GDS_STATUS_FILE_CHANGED; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
 *         as gds_read_with().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_read(const gds_plan_t *plan, const gds_buffer_t *buffer,
                           uint64_t buffer_offset, const gds_options_t *options,
                           gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Start to read everything that a plan names, and return at once. The ticket tells when it
 * is done; its bytes are at least those that were wanted, and may count what stands between
 * pieces that are read together.
 *
 * As gds_plan_read(), on a thread of its own where it needs scratch memory; in the order of
 * a stream none is used, and small pieces are read one by one.
 *
 * @param options     NULL: as the context says.
 * @param ticket_out  give it to gds_ticket_destroy() once. Keeps the files and the buffer.
 * @return as gds_plan_read() and gds_read_start(); GDS_STATUS_INVALID_ARGUMENT also for a
 *         plan without bytes.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_start(const gds_plan_t *plan, const gds_buffer_t *buffer,
                            uint64_t buffer_offset, const gds_options_t *options,
                            gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Read everything that a plan names in the order of a CUDA stream, and return at once.
 *
 * As gds_plan_start(), ordered as gds_read_async() is.
 *
 * @param stream      as for gds_read_async().
 * @param ticket_out  give it to gds_ticket_destroy() once.
 * @return as gds_plan_start() and gds_read_async().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_read_async(const gds_plan_t *plan, const gds_buffer_t *buffer,
                                 uint64_t buffer_offset, gds_cuda_stream_t stream,
                                 gds_ticket_t **ticket_out) GDS_NOEXCEPT;

/**
 * Read a plan of any size in bounded memory, file after file, the pieces of each in their
 * order: two windows, one read while the callback works on the other. Where the plan places
 * its pieces does not matter.
 *
 * @param memory_bytes  device memory of both windows together, at least 131,072.
 * @param callback      not NULL.
 * @param user_data     handed to every call.
 * @param bytes_out     bytes that the callback got. May be NULL.
 * @return GDS_STATUS_OK: also when the callback stopped;
 *         GDS_STATUS_OUT_OF_DEVICE_MEMORY; as gds_plan_read().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_plan_stream(const gds_plan_t *plan, uint64_t memory_bytes,
                             gds_window_fn callback, void *user_data,
                             uint64_t *bytes_out) GDS_NOEXCEPT;

#define GDS_PLAN_INFO_INIT { sizeof(gds_plan_info_t), 0, 0, 0, 0, 0, 0, 0 }

/* ==== Tensors ========================================================================= */

/** Numbers of ggml's own types in gds_dtype_t: this and their number in GGUF. */
#define GDS_DTYPE_GGML 1000

/** All of a tensor, in gds_tensor_part_t. */
#define GDS_PART_WHOLE 0

/** Elements `begin` to `end` (not included) of a dimension. */
#define GDS_PART_RANGE 1

/**
 * Share `begin` of `end` equal ones of a dimension; where it does not divide evenly the
 * first shares have one element more.
 */
#define GDS_PART_SHARE 2

/** The `align` that leaves tensors where their file has them. */
#define GDS_ALIGN_MIRROR 18446744073709551615ull

/**
 * The type of a tensor's elements. New ones are appended. Quantized types of GGUF have
 * their own number plus GDS_DTYPE_GGML: Q4_K is 1012.
 */
GDS_ENUM(gds_dtype_t) {
    /** A byte that is 0 or 1. */
    GDS_DTYPE_BOOL = 1,
    /** Unsigned, 8 bits. */
    GDS_DTYPE_U8 = 2,
    /** Signed, 8 bits. */
    GDS_DTYPE_I8 = 3,
    /** Unsigned, 16 bits. */
    GDS_DTYPE_U16 = 4,
    /** Signed, 16 bits. */
    GDS_DTYPE_I16 = 5,
    /** Unsigned, 32 bits. */
    GDS_DTYPE_U32 = 6,
    /** Signed, 32 bits. */
    GDS_DTYPE_I32 = 7,
    /** Unsigned, 64 bits. */
    GDS_DTYPE_U64 = 8,
    /** Signed, 64 bits. */
    GDS_DTYPE_I64 = 9,
    /** IEEE half. */
    GDS_DTYPE_F16 = 10,
    /** bfloat16. */
    GDS_DTYPE_BF16 = 11,
    /** IEEE single. */
    GDS_DTYPE_F32 = 12,
    /** IEEE double. */
    GDS_DTYPE_F64 = 13,
    /** Complex: two IEEE singles. */
    GDS_DTYPE_C64 = 14,
    /** 8 bits: 4 of exponent, 3 of mantissa, no infinity. */
    GDS_DTYPE_F8_E4M3 = 15,
    /** 8 bits: 5 of exponent, 2 of mantissa. */
    GDS_DTYPE_F8_E5M2 = 16,
    /** 8 bits of exponent: scales. */
    GDS_DTYPE_F8_E8M0 = 17,
    /** As F8_E4M3 without a negative zero. */
    GDS_DTYPE_F8_E4M3FNUZ = 18,
    /** As F8_E5M2 without infinities and negative zero. */
    GDS_DTYPE_F8_E5M2FNUZ = 19,
    /** 4 bits, two in a byte. */
    GDS_DTYPE_F4 = 20,
    /** 6 bits: 2 of exponent, 3 of mantissa; four in three bytes. */
    GDS_DTYPE_F6_E2M3 = 21,
    /** 6 bits: 3 of exponent, 2 of mantissa; four in three bytes. */
    GDS_DTYPE_F6_E3M2 = 22,
};

/**
 * The tensors of a safetensors or GGUF file, or of a model in several files. Never changes;
 * may be used from many threads at once.
 */
typedef struct gds_tensors_t gds_tensors_t;

/** What is known of the tensors. Start from GDS_TENSORS_INFO_INIT. */
typedef struct gds_tensors_info_t {
    /** sizeof(gds_tensors_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_format_t. */
    int32_t format;
    /** Tensors. */
    uint64_t tensors;
    /** Keys of metadata. */
    uint64_t metadata;
    /** Files. */
    uint64_t files;
    /** Bytes of all tensors. */
    uint64_t bytes;
} gds_tensors_info_t;

/**
 * What is known of a tensor. Start from GDS_TENSOR_INFO_INIT. The pointers are valid until
 * the tensors are closed.
 */
typedef struct gds_tensor_info_t {
    /** sizeof(gds_tensor_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_dtype_t, or GDS_DTYPE_GGML and the number of ggml's type. */
    int32_t dtype;
    /** Its name, UTF-8, with a NUL behind it. */
    const char *name;
    /** Bytes of the name, without the NUL. */
    uint64_t name_bytes;
    /** The name of its type, as its format writes it: "BF16", "Q4_K". */
    const char *dtype_name;
    /**
     * Elements along each dimension, the dense one last, also for GGUF. NULL when it has no
     * dimensions.
     */
    const uint64_t *shape;
    /** Dimensions. */
    uint32_t dimensions;
    /**
     * Elements that are stored together; 1 but for types smaller than a byte and quantized
     * ones.
     */
    uint32_t block_elements;
    /** Bytes of such a block; of an element where block_elements is 1. */
    uint32_t block_bytes;
    /** Which file it is in, from 0. */
    uint32_t file;
    /** Where it is in its file, bytes. */
    uint64_t file_offset;
    /** Bytes. */
    uint64_t size_bytes;
} gds_tensor_info_t;

/** A tensor, or a part of one along one dimension. This struct never changes. */
typedef struct gds_tensor_part_t {
    /** Which tensor, from 0. */
    uint64_t tensor;
    /** GDS_PART_WHOLE, GDS_PART_RANGE or GDS_PART_SHARE. */
    uint32_t kind;
    /** Which dimension, from 0, the slowest. 0 with GDS_PART_WHOLE. */
    uint32_t dimension;
    /** The first element, or the share. 0 with GDS_PART_WHOLE. */
    uint64_t begin;
    /** Behind the last element, or shares in all. 0 with GDS_PART_WHOLE. */
    uint64_t end;
} gds_tensor_part_t;

/** Where a tensor or part stands in the destination. This struct never changes. */
typedef struct gds_tensor_place_t {
    /** Which tensor, from 0. */
    uint64_t tensor;
    /** Offset in the destination, bytes. */
    uint64_t offset;
    /** Bytes. */
    uint64_t size_bytes;
    /**
     * Elements of the dimension that was cut; those of the other dimensions stay. 0 where
     * nothing was cut off.
     */
    uint64_t cut_elements;
} gds_tensor_place_t;

/** A tensor or part, and the caller's memory for it. This struct never changes. */
typedef struct gds_tensor_target_t {
    /** What goes there. */
    gds_tensor_part_t part;
    /** The memory: of gds_buffer_alloc(), or the caller's own by gds_buffer_wrap(). */
    const gds_buffer_t *buffer;
    /** Where in the buffer its first byte goes, bytes. */
    uint64_t offset;
} gds_tensor_target_t;

/**
 * Read the metadata of a safetensors or GGUF file, told by its contents. Of a
 * model.safetensors.index.json, that of all files it names, which lie beside it.
 *
 * @param tensors_out  give it to gds_tensors_close() once. Keeps the files.
 * @return GDS_STATUS_CORRUPTED: a rule of the format is broken, gds_last_error() has the
 *         offset; GDS_STATUS_NOT_SUPPORTED: another format, or newer than this library;
 *         GDS_STATUS_NOT_FOUND: a file that the index names; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_open(const gds_file_t *file,
                              gds_tensors_t **tensors_out) GDS_NOEXCEPT;

/**
 * Read the metadata of safetensors files that are one model together.
 *
 * @param files        1 to 4,096, of one context; the array is used during the call only.
 * @param tensors_out  give it to gds_tensors_close() once. Keeps the files.
 * @return as gds_tensors_open(); GDS_STATUS_CORRUPTED also for a tensor that two files
 *         have.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_open_files(const gds_file_t *const *files, uint64_t count,
                                    gds_tensors_t **tensors_out) GDS_NOEXCEPT;

/** Give tensors back. NULL and closed handles are fine. Plans made of them stay valid. */
GDS_API void gds_tensors_close(gds_tensors_t *tensors) GDS_NOEXCEPT;

/**
 * Tell how many tensors there are, and more of the whole.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_info(const gds_tensors_t *tensors,
                              gds_tensors_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell what is known of one tensor. They are numbered file after file, in the order of each
 * file.
 *
 * @param index     from 0.
 * @param info_out  struct_size set. Its pointers are valid until gds_tensors_close().
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_get(const gds_tensors_t *tensors, uint64_t index,
                             gds_tensor_info_t *info_out) GDS_NOEXCEPT;

/**
 * Find a tensor by its name.
 *
 * @param name       NUL-terminated.
 * @param index_out  its number, from 0.
 * @return GDS_STATUS_NOT_FOUND: the message has names that are alike;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_find(const gds_tensors_t *tensors, const char *name,
                              uint64_t *index_out) GDS_NOEXCEPT;

/**
 * Tell a key and its value of what the files say of themselves. Values of GGUF are given as
 * text, lists as JSON.
 *
 * @param index      from 0.
 * @param key_out    valid until gds_tensors_close().
 * @param value_out  valid until gds_tensors_close().
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_metadata(const gds_tensors_t *tensors, uint64_t index,
                                  const char **key_out,
                                  const char **value_out) GDS_NOEXCEPT;

/**
 * Plan tensors, or parts of them, into one destination, in the order in which they are
 * given.
 *
 * @param parts       which ones. NULL with count 0: all of them, whole.
 * @param count       up to 16,777,216.
 * @param align       each begins at a multiple of it, a power of two up to 2 MiB; 0 picks
 *                    256. GDS_ALIGN_MIRROR: with the distances of the file, at the rest by
 *                    4096 that their file offset leaves, so that nothing is moved.
 * @param places_out  where each stands: `count` of them, or, with count 0, as many as there
 *                    are tensors. May be NULL.
 * @param plan_out    give it to gds_plan_destroy() once. Keeps the files.
 * @return GDS_STATUS_OUT_OF_RANGE: no such tensor, dimension or element, or more pieces
 *         than a plan may have; GDS_STATUS_NOT_SUPPORTED: a part that begins or ends within
 *         a block; GDS_STATUS_INVALID_ARGUMENT: also for a mirrored part whose bytes do not
 *         stand together; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_plan(const gds_tensors_t *tensors, const gds_tensor_part_t *parts,
                              uint64_t count, uint64_t align,
                              gds_tensor_place_t *places_out,
                              gds_plan_t **plan_out) GDS_NOEXCEPT;

/**
 * Load tensors, or parts of them, into new memory of the device, and wait.
 *
 * As gds_tensors_plan(), gds_buffer_alloc() and gds_plan_read() together.
 *
 * @param parts       as for gds_tensors_plan().
 * @param align       as for gds_tensors_plan().
 * @param places_out  as for gds_tensors_plan().
 * @param buffer_out  give it to gds_buffer_free() once.
 * @return as those; GDS_STATUS_INVALID_ARGUMENT also when there are no bytes to load.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_load(const gds_tensors_t *tensors, const gds_tensor_part_t *parts,
                              uint64_t count, uint64_t align,
                              gds_tensor_place_t *places_out,
                              gds_buffer_t **buffer_out) GDS_NOEXCEPT;

/**
 * Read tensors, or parts of them, into memory of the caller, each to a place of its own,
 * all together, and wait.
 *
 * @param targets    what goes where; the places do not overlap. Used during the call only.
 * @param count      up to 16,777,216.
 * @param options    NULL: as the context says. No checksum is computed.
 * @param bytes_out  bytes that arrived. May be NULL.
 * @return as gds_tensors_plan() and gds_plan_read(). After a failure some of the memory may
 *         have been written to.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_read(const gds_tensors_t *tensors,
                              const gds_tensor_target_t *targets, uint64_t count,
                              const gds_options_t *options,
                              uint64_t *bytes_out) GDS_NOEXCEPT;

#define GDS_TENSORS_INFO_INIT { sizeof(gds_tensors_info_t), 0, 0, 0, 0, 0 }
#define GDS_TENSOR_INFO_INIT                                                               \
    { sizeof(gds_tensor_info_t), 0, NULL, 0, NULL, NULL, 0, 0, 0, 0, 0, 0 }

/* ==== ELF ============================================================================= */

/** The kind of gds_elf_part_t that is a section. */
#define GDS_ELF_PART_SECTION 0

/** The kind of gds_elf_part_t that is a segment. */
#define GDS_ELF_PART_SEGMENT 1

/** The kind of gds_elf_device_code_t that is PTX, as text. */
#define GDS_ELF_DEVICE_CODE_PTX 1

/** The kind of gds_elf_device_code_t that is a cubin. */
#define GDS_ELF_DEVICE_CODE_CUBIN 2

/** What is to be loaded of an ELF file. */
GDS_ENUM(gds_elf_select_t) {
    /** The sections of the names that are given. */
    GDS_ELF_SELECT_NAMES = 0,
    /** Every section that the file has bytes of. */
    GDS_ELF_SELECT_STORED = 1,
    /** Those of them that a running program has in memory. */
    GDS_ELF_SELECT_ALLOCATED = 2,
    /** Every LOAD segment, as a loader would: what the file has, then zeros. */
    GDS_ELF_SELECT_LOADS = 3,
};

/** How the bytes of a part stand in the file. */
GDS_ENUM(gds_elf_encoding_t) {
    /** As they are. */
    GDS_ELF_ENCODING_PLAIN = 0,
    /** Compressed by zlib: SHF_COMPRESSED, or an older .zdebug_ section. */
    GDS_ELF_ENCODING_ZLIB = 1,
    /** Compressed by Zstandard. */
    GDS_ELF_ENCODING_ZSTD = 2,
    /** Not at all: they are zero. */
    GDS_ELF_ENCODING_ZERO = 3,
};

/**
 * Sections or segments of an ELF file and their places in one destination. Never changes;
 * may be used from many threads at once.
 */
typedef struct gds_elf_plan_t gds_elf_plan_t;

/**
 * The headers of an ELF file, and the tables of it that were asked for. May be used from
 * many threads at once. Made by gds_elf_open(), given back to gds_elf_close().
 */
typedef struct gds_elf_t gds_elf_t;

/**
 * The header of a file. Start from GDS_ELF_INFO_INIT. Pointers are valid until the file is
 * closed. Numbers without a unit are those of the gABI: e_machine, e_type, ...
 */
typedef struct gds_elf_info_t {
    /** sizeof(gds_elf_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** 32 or 64. */
    uint32_t class_bits;
    /** 1 when the highest byte of a number comes first. */
    uint32_t big_endian;
    /** EI_OSABI. */
    uint32_t os_abi;
    /** EI_ABIVERSION. */
    uint32_t abi_version;
    /** e_type. */
    uint32_t kind;
    /** e_machine; 190 for a cubin. */
    uint32_t machine;
    /** e_flags. */
    uint32_t flags;
    /** e_entry, an address. */
    uint64_t entry;
    /** Sections, the first one (of no bytes) included. */
    uint64_t sections;
    /** Segments. */
    uint64_t segments;
    /** The build id; NULL when there is none, or its note is damaged. */
    const uint8_t *build_id;
    /** Bytes of it. */
    uint64_t build_id_bytes;
} gds_elf_info_t;

/**
 * A section. Start from GDS_ELF_SECTION_INIT. Pointers are valid until the file is closed.
 */
typedef struct gds_elf_section_t {
    /** sizeof(gds_elf_section_t) as the caller compiled it. */
    uint32_t struct_size;
    /** sh_type. */
    uint32_t kind;
    /** sh_link. */
    uint32_t link;
    /** sh_info. */
    uint32_t info;
    /** Its name, with a NUL behind it. */
    const char *name;
    /** Bytes of the name, without the NUL. */
    uint64_t name_bytes;
    /** sh_flags. */
    uint64_t flags;
    /** sh_addr. */
    uint64_t address;
    /** Where it is in the file, bytes. */
    uint64_t offset;
    /** Bytes; in the file, unless its type is NOBITS (8). */
    uint64_t size;
    /** sh_addralign, bytes. */
    uint64_t align;
    /** sh_entsize, bytes. */
    uint64_t entry_size;
} gds_elf_section_t;

/** A segment. Start from GDS_ELF_SEGMENT_INIT. */
typedef struct gds_elf_segment_t {
    /** sizeof(gds_elf_segment_t) as the caller compiled it. */
    uint32_t struct_size;
    /** p_type. */
    uint32_t kind;
    /** p_flags: 1 execute, 2 write, 4 read. */
    uint32_t flags;
    /** Zero. */
    uint32_t reserved;
    /** Where it is in the file, bytes. */
    uint64_t offset;
    /** p_vaddr. */
    uint64_t address;
    /** p_paddr. */
    uint64_t physical_address;
    /** Bytes in the file. */
    uint64_t file_size;
    /** Bytes in memory; those past file_size are zero. */
    uint64_t memory_size;
    /** p_align, bytes. */
    uint64_t align;
} gds_elf_segment_t;

/**
 * A symbol. Start from GDS_ELF_SYMBOL_INIT. Pointers are valid until the file is closed.
 */
typedef struct gds_elf_symbol_t {
    /** sizeof(gds_elf_symbol_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Its type: 1 object, 2 function, ... */
    uint32_t kind;
    /** 0 local, 1 global, 2 weak, ... */
    uint32_t binding;
    /** st_other; the two lowest bits are the visibility. */
    uint32_t other;
    /**
     * The section that it is in; 0 for none, and with in_section 0 a number with a meaning
     * of its own: 0xfff1 absolute, 0xfff2 common.
     */
    uint32_t section;
    /** 1 when `section` is a section. */
    uint32_t in_section;
    /** Its name, with a NUL behind it. */
    const char *name;
    /** Bytes of the name, without the NUL. */
    uint64_t name_bytes;
    /** Its version, with a NUL behind it; NULL when it has none. */
    const char *version;
    /** Bytes of the version, without the NUL. */
    uint64_t version_bytes;
    /** st_value. */
    uint64_t value;
    /** Bytes, or 0. */
    uint64_t size;
    /** 1 when its version is the one that is taken where none is asked for. */
    uint32_t version_is_default;
    /** Zero. */
    uint32_t reserved;
} gds_elf_symbol_t;

/** A relocation. Start from GDS_ELF_RELOCATION_INIT. */
typedef struct gds_elf_relocation_t {
    /** sizeof(gds_elf_relocation_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Its type; what it means depends on the machine. 0 for RELR. */
    uint32_t kind;
    /** Its symbol in the table that the section's `link` names; 0 for none. */
    uint32_t symbol;
    /** 1 when it has an addend of its own (RELA). */
    uint32_t has_addend;
    /** r_offset. */
    uint64_t offset;
    /** r_info; 0 for RELR. */
    uint64_t info;
    /** r_addend; 0 where it has none. */
    int64_t addend;
} gds_elf_relocation_t;

/** A note. Start from GDS_ELF_NOTE_INIT. Pointers are valid until the file is closed. */
typedef struct gds_elf_note_t {
    /** sizeof(gds_elf_note_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Its type; what it means, its owner says. */
    uint32_t kind;
    /** Whose note it is; bytes, without the NUL that ends most of them. */
    const uint8_t *owner;
    /** Bytes of the owner. */
    uint64_t owner_bytes;
    /** What it says. */
    const uint8_t *descriptor;
    /** Bytes of that. */
    uint64_t descriptor_bytes;
    /** Where that is in the file, bytes. */
    uint64_t offset;
} gds_elf_note_t;

/**
 * An entry of the dynamic section. Start from GDS_ELF_DYNAMIC_INIT. Pointers are valid
 * until the file is closed.
 */
typedef struct gds_elf_dynamic_t {
    /** sizeof(gds_elf_dynamic_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** d_tag: 1 needed, 14 soname, 29 runpath, ... */
    int64_t tag;
    /** d_val. */
    uint64_t value;
    /**
     * The name that the value stands for, with a NUL behind it; NULL where it is no name.
     */
    const char *name;
    /** Bytes of the name, without the NUL. */
    uint64_t name_bytes;
} gds_elf_dynamic_t;

/**
 * A kernel of a cubin. Start from GDS_ELF_KERNEL_INIT. Pointers are valid until the file is
 * closed.
 */
typedef struct gds_elf_kernel_t {
    /** sizeof(gds_elf_kernel_t) as the caller compiled it. */
    uint32_t struct_size;
    /** The architecture of the cubin: 90 for sm_90. */
    uint32_t arch;
    /** The section of its code. */
    uint32_t section;
    /** Registers of a thread; 0 when the file does not say. */
    uint32_t registers;
    /** Its name, as the compiler wrote it, with a NUL behind it. */
    const char *name;
    /** Bytes of the name, without the NUL. */
    uint64_t name_bytes;
    /** Bytes of code. */
    uint64_t code_bytes;
    /** Bytes of parameters; 0 when the file does not say. */
    uint64_t parameter_bytes;
    /** Bytes of shared memory that it always has, the system's included. */
    uint64_t shared_bytes;
    /** Bytes of constant bank 0. */
    uint64_t constant_bytes;
} gds_elf_kernel_t;

/**
 * Device code that a program carries: an entry of a container in .nv_fatbin or
 * __nv_relfatbin. Start from GDS_ELF_DEVICE_CODE_INIT.
 */
typedef struct gds_elf_device_code_t {
    /** sizeof(gds_elf_device_code_t) as the caller compiled it. */
    uint32_t struct_size;
    /**
     * GDS_ELF_DEVICE_CODE_PTX, GDS_ELF_DEVICE_CODE_CUBIN, or another number that the file
     * has.
     */
    uint32_t kind;
    /** 90 for sm_90. */
    uint32_t arch;
    /** 0 not compressed, 1 LZ4, 2 Zstandard. */
    uint32_t compression;
    /** Major version of the code; of PTX that of its language. */
    uint32_t version_major;
    /** Minor version. */
    uint32_t version_minor;
    /** Where its container begins in the file, bytes. */
    uint64_t container_offset;
    /** Where its bytes are in the file. */
    uint64_t offset;
    /** Bytes in the file. */
    uint64_t size;
    /** Bytes when it is decompressed; 0 when it is not compressed. */
    uint64_t decompressed_size;
    /** Flags as they are in the file. */
    uint64_t flags;
} gds_elf_device_code_t;

/** What a plan reads. Start from GDS_ELF_PLAN_INFO_INIT. */
typedef struct gds_elf_plan_info_t {
    /** sizeof(gds_elf_plan_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** 1 when nothing has to be decoded, and nothing is zero. */
    uint32_t plain;
    /** Bytes of the destination, the padding between parts included. */
    uint64_t size_bytes;
    /** Bytes that are read of the file. */
    uint64_t file_bytes;
    /** Parts. */
    uint64_t parts;
} gds_elf_plan_info_t;

/** A section or segment and its place in the destination. Start from GDS_ELF_PART_INIT. */
typedef struct gds_elf_part_t {
    /** sizeof(gds_elf_part_t) as the caller compiled it. */
    uint32_t struct_size;
    /** GDS_ELF_PART_SECTION or GDS_ELF_PART_SEGMENT. */
    uint32_t kind;
    /** Its number. */
    uint32_t index;
    /** How it stands in the file, a gds_elf_encoding_t. */
    int32_t encoding;
    /** Offset in the destination, bytes: a multiple of `align`. */
    uint64_t to_offset;
    /** Bytes there, decoded. */
    uint64_t size;
    /** Its alignment, bytes. */
    uint64_t align;
    /** Where it is in the file, bytes; behind the header of a compressed section. */
    uint64_t file_offset;
    /** Bytes there. */
    uint64_t file_size;
} gds_elf_part_t;

/**
 * Read the headers of an ELF file: 32 and 64 bit, either byte order.
 *
 * Tables of it are read when they are asked for, and kept: together they take at most 8
 * times the size of the file. A section whose bytes lie outside of the file is no error
 * before it is read.
 *
 * @param elf_out  give it to gds_elf_close() once. Keeps the file.
 * @return GDS_STATUS_CORRUPTED: no ELF file, or a damaged one, gds_last_error() has the
 *         offset; GDS_STATUS_NOT_SUPPORTED: a version that is not known; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_open(const gds_file_t *file, gds_elf_t **elf_out) GDS_NOEXCEPT;

/**
 * Close a file. Pointers that it gave end with it; plans stay. NULL and closed handles are
 * fine.
 */
GDS_API void gds_elf_close(gds_elf_t *elf) GDS_NOEXCEPT;

/**
 * Tell what the header says.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_info(const gds_elf_t *elf, gds_elf_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell about a section.
 *
 * @param index        from 0; section 0 has no bytes.
 * @param section_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_section(const gds_elf_t *elf, uint64_t index,
                             gds_elf_section_t *section_out) GDS_NOEXCEPT;

/**
 * Find the first section of a name.
 *
 * @param index_out  its number.
 * @return GDS_STATUS_NOT_FOUND; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_find_section(const gds_elf_t *elf, const char *name,
                                  uint64_t *index_out) GDS_NOEXCEPT;

/**
 * Tell about a segment.
 *
 * @param index        from 0.
 * @param segment_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_segment(const gds_elf_t *elf, uint64_t index,
                             gds_elf_segment_t *segment_out) GDS_NOEXCEPT;

/**
 * Count the symbols of a section, the first one (which is empty) included.
 *
 * @return GDS_STATUS_OUT_OF_RANGE: no such section;
 *         GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_symbol_count(const gds_elf_t *elf, uint64_t section,
                                  uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about a symbol.
 *
 * @param section  its number; of type SYMTAB (2) or DYNSYM (11).
 * @param index    from 0.
 * @param symbol_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_symbol(const gds_elf_t *elf, uint64_t section, uint64_t index,
                            gds_elf_symbol_t *symbol_out) GDS_NOEXCEPT;

/**
 * Count the relocations of a section; of RELR the places that it stands for.
 *
 * @return GDS_STATUS_OUT_OF_RANGE: no such section;
 *         GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_relocation_count(const gds_elf_t *elf, uint64_t section,
                                      uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about a relocation.
 *
 * @param section  its number; of type REL (9), RELA (4) or RELR (19).
 * @param index    from 0.
 * @param relocation_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_relocation(const gds_elf_t *elf, uint64_t section, uint64_t index,
                                gds_elf_relocation_t *relocation_out) GDS_NOEXCEPT;

/**
 * Count the notes: of all sections, or of the segments where no section has any.
 *
 * @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_note_count(const gds_elf_t *elf, uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about a note.
 *
 * @param index  from 0.
 * @param note_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_note(const gds_elf_t *elf, uint64_t index,
                          gds_elf_note_t *note_out) GDS_NOEXCEPT;

/**
 * Count the entries of the dynamic section, the one that ends it included.
 *
 * @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_dynamic_count(const gds_elf_t *elf, uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about an entry of the dynamic section.
 *
 * @param index  from 0.
 * @param entry_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_dynamic(const gds_elf_t *elf, uint64_t index,
                             gds_elf_dynamic_t *entry_out) GDS_NOEXCEPT;

/**
 * Count the kernels of a cubin; 0 for other files.
 *
 * @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_kernel_count(const gds_elf_t *elf, uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about a kernel of a cubin.
 *
 * @param index  from 0.
 * @param kernel_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_kernel(const gds_elf_t *elf, uint64_t index,
                            gds_elf_kernel_t *kernel_out) GDS_NOEXCEPT;

/**
 * Count the pieces of device code that a program carries for NVIDIA's devices.
 *
 * @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_device_code_count(const gds_elf_t *elf,
                                       uint64_t *count_out) GDS_NOEXCEPT;

/**
 * Tell about a piece of device code that a program carries.
 *
 * @param index  from 0.
 * @param code_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
 *         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_device_code(const gds_elf_t *elf, uint64_t index,
                                 gds_elf_device_code_t *code_out) GDS_NOEXCEPT;

/**
 * Plan to load sections or segments, each at its alignment, compressed sections decoded.
 * Only headers of compressed sections are read.
 *
 * @param select       a gds_elf_select_t.
 * @param names        with GDS_ELF_SELECT_NAMES: names of sections, where `*` stands for
 *                     any bytes and `?` for one; each must be there. Parts come in the
 *                     order of the file. A section without bytes in the file (.bss) is
 *                     zero. Used during the call only.
 * @param count        how many names; 0 with the other selections.
 * @param limit_bytes  the most that the destination may take, 0 for no limit. What a
 *                     compressed section becomes, and how far zeros go, the file alone
 *                     says: give a limit for files of strangers.
 * @param plan_out     give it to gds_elf_plan_destroy() once. Keeps the file.
 * @return GDS_STATUS_NOT_FOUND: a name; GDS_STATUS_OUT_OF_RANGE: more than limit_bytes;
 *         GDS_STATUS_CORRUPTED: something lies outside of the file, or cannot become as
 *         large as it says; GDS_STATUS_NOT_SUPPORTED: a compression, or an alignment above
 *         2 MiB; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_plan(const gds_elf_t *elf, int32_t select, const char *const *names,
                          uint64_t count, uint64_t limit_bytes,
                          gds_elf_plan_t **plan_out) GDS_NOEXCEPT;

/**
 * Plan to load sections or segments by their numbers, in this order.
 *
 * @param kind      GDS_ELF_PART_SECTION or GDS_ELF_PART_SEGMENT.
 * @param indices   their numbers; used during the call only.
 * @param plan_out  give it to gds_elf_plan_destroy() once. Keeps the file.
 * @return GDS_STATUS_OUT_OF_RANGE: also a number; as gds_elf_plan().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_plan_parts(const gds_elf_t *elf, uint32_t kind,
                                const uint32_t *indices, uint64_t count,
                                uint64_t limit_bytes,
                                gds_elf_plan_t **plan_out) GDS_NOEXCEPT;

/** Give a plan back. NULL and destroyed handles are fine. */
GDS_API void gds_elf_plan_destroy(gds_elf_plan_t *plan) GDS_NOEXCEPT;

/**
 * Tell what a plan reads.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_plan_info(const gds_elf_plan_t *plan,
                               gds_elf_plan_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell about a part of a plan.
 *
 * @param index     from 0, in the order of their places.
 * @param part_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_plan_part(const gds_elf_plan_t *plan, uint64_t index,
                               gds_elf_part_t *part_out) GDS_NOEXCEPT;

/**
 * Load everything that a plan names, and wait: plain bytes by the engine as gds_plan_read()
 * does, compressed ones meanwhile by threads of their own. Bytes of the destination between
 * parts are unspecified afterwards.
 *
 * A decoder takes 1.3 MiB of host memory and its window: 32 KiB for zlib; for Zstandard 8
 * MiB, or as much as the section becomes, up to 128 MiB. At most 16 work at a time.
 *
 * @param buffer          of the file's context; the plan's size_bytes fit behind the
 *                        offset.
 * @param buffer_offset   where the destination begins in the buffer, bytes.
 * @param options         NULL: as the context says. With a stream the memory is touched
 *                        after what is in it now. No checksum is computed.
 * @param completion_out  struct_size set; its bytes are those that came to be in memory.
 *                        May be NULL.
 * @return GDS_STATUS_CORRUPTED: also for compressed bytes that are damaged, or become more
 *         or less than they say; as gds_plan_read().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_plan_read(const gds_elf_plan_t *plan, const gds_buffer_t *buffer,
                               uint64_t buffer_offset, const gds_options_t *options,
                               gds_completion_t *completion_out) GDS_NOEXCEPT;

/**
 * Load sections or segments into new memory of the device, and wait.
 *
 * As gds_elf_plan(), gds_buffer_alloc() and gds_elf_plan_read() together.
 *
 * @param plan_out    tells what stands where; give it to gds_elf_plan_destroy() once.
 * @param buffer_out  give it to gds_buffer_free() once.
 * @return as those; GDS_STATUS_INVALID_ARGUMENT also when there are no bytes to load.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_elf_load(const gds_elf_t *elf, int32_t select, const char *const *names,
                          uint64_t count, uint64_t limit_bytes, gds_elf_plan_t **plan_out,
                          gds_buffer_t **buffer_out) GDS_NOEXCEPT;

#define GDS_ELF_INFO_INIT { sizeof(gds_elf_info_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0 }
#define GDS_ELF_SECTION_INIT                                                               \
    { sizeof(gds_elf_section_t), 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_ELF_SEGMENT_INIT { sizeof(gds_elf_segment_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_ELF_SYMBOL_INIT                                                                \
    { sizeof(gds_elf_symbol_t), 0, 0, 0, 0, 0, NULL, 0, NULL, 0, 0, 0, 0, 0 }
#define GDS_ELF_NOTE_INIT { sizeof(gds_elf_note_t), 0, NULL, 0, NULL, 0, 0 }
#define GDS_ELF_DYNAMIC_INIT { sizeof(gds_elf_dynamic_t), 0, 0, 0, NULL, 0 }
#define GDS_ELF_RELOCATION_INIT { sizeof(gds_elf_relocation_t), 0, 0, 0, 0, 0, 0 }
#define GDS_ELF_KERNEL_INIT { sizeof(gds_elf_kernel_t), 0, 0, 0, NULL, 0, 0, 0, 0, 0 }
#define GDS_ELF_DEVICE_CODE_INIT                                                           \
    { sizeof(gds_elf_device_code_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_ELF_PLAN_INFO_INIT { sizeof(gds_elf_plan_info_t), 0, 0, 0, 0 }
#define GDS_ELF_PART_INIT { sizeof(gds_elf_part_t), 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== DLPack ========================================================================== */

/** The tensor may not be written to. */
#define GDS_DLPACK_READ_ONLY 1

/** Show plain bytes, one dimension of unsigned 8-bit numbers, whatever the type is. */
#define GDS_DLPACK_BYTES 2

/** Gives a managed tensor back, once, from any thread: a pointer to the gds_dlpack_t. */
typedef void (*gds_dlpack_deleter_fn)(void *tensor);

/** Memory with a type and a shape: DLTensor of dlpack.h. This struct never changes. */
typedef struct gds_dlpack_view_t {
    /** The first element; a device address for device memory. NULL without elements. */
    void *data;
    /** DLDeviceType: 1 host, 2 CUDA, 3 pinned, 13 managed. */
    int32_t device_type;
    /** The device's number. */
    int32_t device_id;
    /** Dimensions. */
    int32_t ndim;
    /** DLDataTypeCode. */
    uint8_t code;
    /** Bits of a lane. */
    uint8_t bits;
    /** Lanes of an element. */
    uint16_t lanes;
    /** Elements along each dimension. */
    int64_t *shape;
    /** Elements from one to the next along each dimension. */
    int64_t *strides;
    /** 0. */
    uint64_t byte_offset;
} gds_dlpack_view_t;

/**
 * A tensor that somebody else takes over: DLManagedTensorVersioned of dlpack.h, and cast to
 * it. Python takes it in a PyCapsule named "dltensor_versioned". This struct never changes.
 *
 * It keeps its memory, also when the buffer's handle and the context are closed, until
 * whoever has it calls `deleter` with it, once, from any thread.
 */
typedef struct gds_dlpack_t {
    /** 1. */
    uint32_t version_major;
    /** At least 1. */
    uint32_t version_minor;
    /** The library's. */
    void *manager_ctx;
    /** Gives it back. */
    gds_dlpack_deleter_fn deleter;
    /** DLPACK_FLAG_BITMASK_READ_ONLY, or 0. */
    uint64_t flags;
    /** The memory. */
    gds_dlpack_view_t tensor;
} gds_dlpack_t;

/**
 * Show memory of a buffer as a tensor that somebody else takes over.
 *
 * @param offset      of the first element in the buffer, bytes.
 * @param dtype       a gds_dtype_t. 0 with GDS_DLPACK_BYTES.
 * @param shape       elements along each dimension, the dense one last; with
 *                    GDS_DLPACK_BYTES one dimension, the bytes.
 * @param dimensions  up to 64.
 * @param flags       GDS_DLPACK_READ_ONLY, GDS_DLPACK_BYTES.
 * @param tensor_out  its deleter is called once. Keeps the memory.
 * @return GDS_STATUS_NOT_SUPPORTED: a type that DLPack cannot say (6 bits, ggml's blocks, 4
 *         bits with an odd last dimension), or memory that the type is not aligned to: take
 *         the bytes; GDS_STATUS_OUT_OF_RANGE: it passes the end of the buffer;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_buffer_dlpack(const gds_buffer_t *buffer, uint64_t offset, int32_t dtype,
                               const uint64_t *shape, uint32_t dimensions, uint32_t flags,
                               gds_dlpack_t **tensor_out) GDS_NOEXCEPT;

/**
 * Show a tensor, or a part of one, that was loaded into a buffer.
 *
 * @param part        which one; the shape is that of the part.
 * @param buffer      what it was loaded into.
 * @param offset      where it stands there, as gds_tensor_place_t says, bytes.
 * @param flags       as for gds_buffer_dlpack().
 * @param tensor_out  its deleter is called once. Keeps the memory.
 * @return as gds_buffer_dlpack() and gds_tensors_plan().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_tensors_dlpack(const gds_tensors_t *tensors, const gds_tensor_part_t *part,
                                const gds_buffer_t *buffer, uint64_t offset, uint32_t flags,
                                gds_dlpack_t **tensor_out) GDS_NOEXCEPT;

/* ==== Key-value store ================================================================= */

/** How the file or device of a store is reached. */
GDS_ENUM(gds_kv_level_t) {
    /** By reads and writes, past the page cache where that can be. */
    GDS_KV_LEVEL_FILE = 0,
    /**
     * By a mapping of a file in persistent memory, with cache-line flushes. Refused with
     * GDS_STATUS_NOT_SUPPORTED where the file system does not map with MAP_SYNC.
     */
    GDS_KV_LEVEL_DAX = 1,
};

/**
 * Changes that will be one commit. Made by gds_kv_batch_create(), given back to
 * gds_kv_batch_destroy().
 */
typedef struct gds_kv_batch_t gds_kv_batch_t;

/**
 * Keys in order. One thread at a time. Made by gds_kv_scan_open() or
 * gds_kv_snapshot_scan(), given back to gds_kv_scan_close().
 */
typedef struct gds_kv_scan_t gds_kv_scan_t;

/**
 * A store as it was at one moment. May be used from many threads at once. Made by
 * gds_kv_snapshot_open(), given back to gds_kv_snapshot_close().
 */
typedef struct gds_kv_snapshot_t gds_kv_snapshot_t;

/**
 * A store: keys with values in one file or block device. May be used from many threads at
 * once. Made by gds_kv_open(), given back to gds_kv_close().
 */
typedef struct gds_kv_t gds_kv_t;

/**
 * A value that is written piece by piece. One thread at a time. Made by
 * gds_kv_writer_open(), given back to gds_kv_writer_close().
 */
typedef struct gds_kv_writer_t gds_kv_writer_t;

/**
 * How a store is made and opened. Start from GDS_KV_CONFIG_INIT or gds_kv_config_init().
 * Where a field says "0 picks", 0 stands for that value. The first four sizes count when
 * the store is made; later it keeps what it was made with.
 */
typedef struct gds_kv_config_t {
    /** sizeof(gds_kv_config_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /**
     * Largest value that is kept in the log and in shared pages, bytes, at most 16384;
     * larger ones get room of their own. 0 picks 4032.
     */
    uint32_t inline_max_bytes;
    /** The whole store, bytes. 0: a file grows as needed, a block device is used whole. */
    uint64_t size_bytes;
    /** The ring of the log, bytes, a multiple of 4096. 0 picks 64 MiB. */
    uint64_t wal_bytes;
    /** A segment, bytes, a power of two from 64 KiB to 1 GiB. 0 picks 64 MiB. */
    uint64_t segment_bytes;
    /**
     * From one copy of the superblock to the next, bytes, a multiple of 4096. 0 picks
     * 1 MiB.
     */
    uint64_t superblock_spacing_bytes;
    /**
     * Small values and changes in memory that start a checkpoint, bytes. 0 picks 64 MiB.
     */
    uint64_t memtable_bytes;
    /** Host memory for pages of small values that were read, bytes. 0 picks 64 MiB. */
    uint64_t cache_bytes;
    /** Memory that keys and references may take, bytes; 0: no limit. */
    uint64_t index_bytes_max;
    /** Changes that may wait for the log's thread, bytes. 0 picks 16 MiB. */
    uint64_t pending_bytes;
    /** One write of the log, bytes, a multiple of 4096. 0 picks 1 MiB. */
    uint32_t max_batch_bytes;
    /** How long a change may wait for room before it fails, milliseconds. 0 picks 10000. */
    uint32_t stall_ms;
    /** Whether to make a store where there is none, a gds_switch_t; DEFAULT is on. */
    int32_t create;
    /** Whether to refuse a file that is there already, a gds_switch_t; DEFAULT is off. */
    int32_t exclusive;
    /** Whether to keep keys in order, which scans need, a gds_switch_t; DEFAULT is on. */
    int32_t ordered;
    /** Zero. */
    uint32_t reserved;
    /** How the store is reached this time, a gds_kv_level_t. */
    int32_t level;
    /** Zero. */
    uint32_t reserved_2;
} gds_kv_config_t;

/**
 * Told once that everything up to `lsn` is durable, or, with another status than
 * GDS_STATUS_OK, that it never will be.
 *
 * Runs on the log's thread, or at once on the thread that asked. Must not throw, longjmp or
 * block, and must not use the store: others wait for it.
 */
typedef void (*gds_kv_durable_fn)(uint64_t lsn, int32_t status, void *user_data);

/**
 * A key of a scan. Pointers are the library's, valid until the scan's next call. This
 * struct never changes.
 */
typedef struct gds_kv_entry_t {
    /** The key. */
    const void *key;
    /** Bytes of it. */
    uint64_t key_size;
    /** The value; NULL from gds_kv_scan_next_key(). */
    const void *value;
    /** Bytes of it, also where it was not read. */
    uint64_t value_size;
} gds_kv_entry_t;

/**
 * Something that verification found. Pointers are valid during the call. Start from
 * nothing: the library fills it.
 */
typedef struct gds_kv_problem_t {
    /** Bytes of this struct that were filled. */
    uint32_t struct_size;
    /** A gds_status_t. */
    int32_t status;
    /** The key whose value it is; NULL for the store's own structures. */
    const void *key;
    /** Bytes of it. */
    uint64_t key_size;
    /** Where in the file, bytes, or UINT64_MAX. */
    uint64_t file_offset;
    /** What is wrong. Never NULL. */
    const char *message;
} gds_kv_problem_t;

/** What verification found. Start from GDS_KV_REPORT_INIT. */
typedef struct gds_kv_report_t {
    /** sizeof(gds_kv_report_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Keys whose values were read. */
    uint64_t keys;
    /** Bytes of values that are what was written. */
    uint64_t bytes;
    /** Problems; 0: all is well. */
    uint64_t problems;
} gds_kv_report_t;

/** What repair did. Start from GDS_KV_REPAIR_REPORT_INIT. */
typedef struct gds_kv_repair_report_t {
    /** sizeof(gds_kv_repair_report_t) as the caller compiled it. */
    uint32_t struct_size;
    /** 1: the store was well, and nothing was changed. */
    uint32_t was_clean;
    /**
     * 1: the index was rebuilt from what was found; 0: damaged values were dropped at most.
     */
    uint32_t rebuilt;
    /** Why it could not be opened, a gds_status_t; GDS_STATUS_OK: it could. */
    int32_t reason_status;
    /** Keys that the store has now. */
    uint64_t keys;
    /** Keys whose newest value is lost. */
    uint64_t lost;
    /** What that reason had to say, cut to fit; "" if there was none. */
    char reason[256];
    /** Keys of values whose place only a summary of a segment told. */
    uint64_t from_summaries;
    /**
     * Keys that the store has now and that may have been deleted: no log says that what
     * was found is the newest, and a delete was stored after it was written.
     */
    uint64_t uncertain;
} gds_kv_repair_report_t;

/**
 * Told of each problem, on the thread that verifies; of the first thousand. Must not throw
 * or longjmp, and must not use the store.
 */
typedef void (*gds_kv_problem_fn)(const gds_kv_problem_t *problem, void *user_data);

/** How long operations took, nanoseconds. This struct never changes. */
typedef struct gds_kv_latency_t {
    /** Mean. */
    uint64_t mean_ns;
    /** Median; a percentile may be one sixteenth too high. */
    uint64_t p50_ns;
    /** 99th percentile. */
    uint64_t p99_ns;
    /** 99.9th percentile. */
    uint64_t p999_ns;
    /** The longest. */
    uint64_t max_ns;
} gds_kv_latency_t;

/**
 * Fill a store's configuration with its defaults, as GDS_KV_CONFIG_INIT does.
 *
 * @param config_out  filled as far as `size` goes, struct_size included.
 * @param size        sizeof(gds_kv_config_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_config_init(void *config_out, size_t size) GDS_NOEXCEPT;

/**
 * Open a store, or make one where there is none, and recover what was committed.
 *
 * The file or block device is locked: no other open of it succeeds while this one, a
 * snapshot or a scan of it is there. The store has two threads of its own, which sleep
 * while there is nothing to do.
 *
 * @param path    a regular file or block device.
 * @param config  NULL: as GDS_KV_CONFIG_INIT.
 * @param kv_out  give it to gds_kv_close() once.
 * @return GDS_STATUS_INVALID_CONFIG: the message names the field;
 *         GDS_STATUS_UNSUPPORTED_FILE: it holds something else, or is a directory;
 *         GDS_STATUS_NOT_SUPPORTED: a newer format, or not the `level` that was asked for;
 *         GDS_STATUS_CORRUPTED: what was durable
 *         is not what was written, gds_last_error() tells where; GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_NOT_FOUND; GDS_STATUS_PERMISSION_DENIED; GDS_STATUS_IO: also when it
 *         is open already or, with `exclusive`, there; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_open(const char *path, const gds_kv_config_t *config,
                         gds_kv_t **kv_out) GDS_NOEXCEPT;

/**
 * Close a store. NULL and closed handles are fine.
 *
 * Writers, scans, snapshots and devices of it stay usable; the last of them that may write
 * ends the store: what was committed is written and a checkpoint made. Call gds_kv_sync()
 * and gds_kv_checkpoint() before to know how that went.
 */
GDS_API void gds_kv_close(gds_kv_t *kv) GDS_NOEXCEPT;

/**
 * Remove a store that is not open: the file, or the superblocks on a block device.
 *
 * @return GDS_STATUS_UNSUPPORTED_FILE: no store; GDS_STATUS_IO: also when it is open; as
 *         gds_kv_open().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_destroy(const char *path) GDS_NOEXCEPT;

/**
 * Put a value in place of what the key had, and wait until it is durable.
 *
 * @param key         1 to 65536 bytes, fewer in a store of small segments.
 * @param value       NULL only with value_size 0.
 * @param value_size  at most 1 TiB.
 * @param lsn_out     the number of the change in the log. May be NULL.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
 *         GDS_STATUS_OUT_OF_RANGE: the value is too long; GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_TIMED_OUT: no room within stall_ms; GDS_STATUS_OUT_OF_HOST_MEMORY: the
 *         index has index_bytes_max; GDS_STATUS_POISONED: an earlier write or flush failed,
 *         reads go on, open the store again; GDS_STATUS_IO; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_put(const gds_kv_t *kv, const void *key, uint64_t key_size,
                        const void *value, uint64_t value_size,
                        uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * As gds_kv_put(), but does not wait: the value is visible when the call returns, and
 * durable when gds_kv_wait() for lsn_out answers GDS_STATUS_OK.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_put_async(const gds_kv_t *kv, const void *key, uint64_t key_size,
                              const void *value, uint64_t value_size,
                              uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Delete a key, and wait until that is durable. A key that is not there is fine.
 *
 * @param existed_out  1: it was there, 0: it was not. May be NULL.
 * @return as gds_kv_put().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_delete(const gds_kv_t *kv, const void *key, uint64_t key_size,
                           uint32_t *existed_out) GDS_NOEXCEPT;

/** As gds_kv_delete(), but does not wait; see gds_kv_put_async(). */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_delete_async(const gds_kv_t *kv, const void *key, uint64_t key_size,
                                 uint32_t *existed_out, uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Copy a value, verified, into the caller's memory.
 *
 * @param value     room for `capacity` bytes. NULL with capacity 0: only the size is told.
 * @param capacity  bytes.
 * @param size_out  bytes of the value. May be NULL.
 * @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_BUFFER_TOO_SMALL: the message has
 *         the size, as gds_kv_value_size() tells it; GDS_STATUS_CORRUPTED: the disk does
 *         not hold what was written; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. The memory holds anything then.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_get(const gds_kv_t *kv, const void *key, uint64_t key_size, void *value,
                        uint64_t capacity, uint64_t *size_out) GDS_NOEXCEPT;

/**
 * Copy bytes of a value, verified, into the caller's memory.
 *
 * @param offset     the first byte of the value that is wanted; past its end is fine.
 * @param value      room for `size` bytes.
 * @param bytes_out  bytes that were copied, fewer than size at the value's end. May be
 *                   NULL.
 * @return as gds_kv_get(), but for GDS_STATUS_BUFFER_TOO_SMALL.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_get_range(const gds_kv_t *kv, const void *key, uint64_t key_size,
                              uint64_t offset, void *value, uint64_t size,
                              uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Tell how long a value is. Memory only.
 *
 * @param size_out  bytes.
 * @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_value_size(const gds_kv_t *kv, const void *key, uint64_t key_size,
                               uint64_t *size_out) GDS_NOEXCEPT;

/**
 * Tell whether a key has a value. Memory only.
 *
 * @param found_out  1 or 0.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_contains(const gds_kv_t *kv, const void *key, uint64_t key_size,
                             uint32_t *found_out) GDS_NOEXCEPT;

/**
 * Make an empty batch.
 *
 * @param batch_out  give it to gds_kv_batch_destroy() once. Belongs to no store.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_batch_create(gds_kv_batch_t **batch_out) GDS_NOEXCEPT;

/** Give a batch up. NULL and destroyed handles are fine. What was written stays. */
GDS_API void gds_kv_batch_destroy(gds_kv_batch_t *batch) GDS_NOEXCEPT;

/**
 * Add a put; key and value are copied. Of changes of one key the last counts.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
 *         GDS_STATUS_OUT_OF_RANGE: the value is too long; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_batch_put(gds_kv_batch_t *batch, const void *key, uint64_t key_size,
                              const void *value, uint64_t value_size) GDS_NOEXCEPT;

/**
 * Add a delete; the key is copied.
 *
 * @return as gds_kv_batch_put().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_batch_delete(gds_kv_batch_t *batch, const void *key,
                                 uint64_t key_size) GDS_NOEXCEPT;

/**
 * Forget the changes of a batch.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_batch_clear(gds_kv_batch_t *batch) GDS_NOEXCEPT;

/**
 * Make all changes of a batch, or none, and wait until they are durable. The batch keeps
 * them: it may be written again.
 *
 * @param lsn_out  the number of the last change in the log. May be NULL.
 * @return GDS_STATUS_OUT_OF_RANGE: more than one commit can have, use several;
 *         as gds_kv_put().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_write(const gds_kv_t *kv, const gds_kv_batch_t *batch,
                          uint64_t *lsn_out) GDS_NOEXCEPT;

/** As gds_kv_write(), but does not wait; see gds_kv_put_async(). */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_write_async(const gds_kv_t *kv, const gds_kv_batch_t *batch,
                                uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Tell up to which change everything is durable. Costs no system call.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_durable_lsn(const gds_kv_t *kv, uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Sleep until everything up to a change is durable.
 *
 * @param lsn         as an *_async() call gave it.
 * @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
 * @return GDS_STATUS_PENDING: not durable within timeout_ms; GDS_STATUS_POISONED: it never
 *         will be; GDS_STATUS_OUT_OF_RANGE: no such change was made;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_wait(const gds_kv_t *kv, uint64_t lsn, int64_t timeout_ms) GDS_NOEXCEPT;

/**
 * Call back once when everything up to a change is durable, or never will be.
 *
 * @param lsn        as an *_async() call gave it.
 * @param callback   not NULL; may run before this call returns.
 * @param user_data  handed to both.
 * @param release    called exactly once with user_data, after the callback. May be NULL.
 *                   Where this call fails neither is called.
 * @return GDS_STATUS_OUT_OF_RANGE: no such change was made; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_on_durable(const gds_kv_t *kv, uint64_t lsn, gds_kv_durable_fn callback,
                               void *user_data, gds_release_fn release) GDS_NOEXCEPT;

/**
 * Begin a value that comes piece by piece, up to 1 TiB. Nothing is visible before
 * gds_kv_writer_commit().
 *
 * @param size_hint   a guess of its size, bytes; 0: none.
 * @param writer_out  give it to gds_kv_writer_close() once. Keeps the store.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
 *         GDS_STATUS_POISONED; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_writer_open(const gds_kv_t *kv, const void *key, uint64_t key_size,
                                uint64_t size_hint,
                                gds_kv_writer_t **writer_out) GDS_NOEXCEPT;

/**
 * Add bytes at the end of the value. They are the caller's again when the call returns.
 *
 * @param bytes  NULL only with size 0.
 * @return GDS_STATUS_OUT_OF_RANGE: the value would pass 1 TiB; GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_TIMED_OUT; GDS_STATUS_IO: the value cannot be committed any more;
 *         GDS_STATUS_INVALID_ARGUMENT: also after commit or a failure;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_writer_append(gds_kv_writer_t *writer, const void *bytes,
                                  uint64_t size) GDS_NOEXCEPT;

/**
 * Make the value visible in place of what the key had, and wait until it is durable.
 *
 * @param lsn_out  the number of the change in the log. May be NULL.
 * @return as gds_kv_put(); GDS_STATUS_INVALID_ARGUMENT: also after commit or a failure.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_writer_commit(gds_kv_writer_t *writer, uint64_t *lsn_out) GDS_NOEXCEPT;

/** As gds_kv_writer_commit(), but does not wait; see gds_kv_put_async(). */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_writer_commit_async(gds_kv_writer_t *writer,
                                        uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Close a writer. NULL and closed handles are fine. A value that was not committed never
 * was: the key keeps what it had.
 */
GDS_API void gds_kv_writer_close(gds_kv_writer_t *writer) GDS_NOEXCEPT;

/**
 * Hold the store as it is now. Later changes are not seen; they cost memory and space while
 * the snapshot is there.
 *
 * @param snapshot_out  give it to gds_kv_snapshot_close() once. Usable, and the file
 *                      locked, even after gds_kv_close().
 * @return GDS_STATUS_TIMED_OUT: the log has no room; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_snapshot_open(const gds_kv_t *kv,
                                  gds_kv_snapshot_t **snapshot_out) GDS_NOEXCEPT;

/** Close a snapshot. NULL and closed handles are fine. Scans of it go on. */
GDS_API void gds_kv_snapshot_close(gds_kv_snapshot_t *snapshot) GDS_NOEXCEPT;

/**
 * Tell the last change that a snapshot sees.
 *
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_snapshot_lsn(const gds_kv_snapshot_t *snapshot,
                                 uint64_t *lsn_out) GDS_NOEXCEPT;

/** As gds_kv_get(), as of the snapshot. */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_snapshot_get(const gds_kv_snapshot_t *snapshot, const void *key,
                                 uint64_t key_size, void *value, uint64_t capacity,
                                 uint64_t *size_out) GDS_NOEXCEPT;

/** As gds_kv_get_range(), as of the snapshot. */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_snapshot_get_range(const gds_kv_snapshot_t *snapshot, const void *key,
                                       uint64_t key_size, uint64_t offset, void *value,
                                       uint64_t size, uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Go through keys in the order of their bytes, as the store is now. Changes that are made
 * meanwhile are not seen.
 *
 * @param start     the first key, if it is there; NULL with start_size 0: from the first.
 * @param end       the key behind the last; NULL with end_size 0: to the last.
 * @param limit     keys at most; 0: no limit.
 * @param scan_out  give it to gds_kv_scan_close() once. Usable, and the file locked, even
 *                  after gds_kv_close().
 * @return GDS_STATUS_NOT_SUPPORTED: opened with `ordered` off; GDS_STATUS_TIMED_OUT: the
 *         log has no room; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_scan_open(const gds_kv_t *kv, const void *start, uint64_t start_size,
                              const void *end, uint64_t end_size, uint64_t limit,
                              gds_kv_scan_t **scan_out) GDS_NOEXCEPT;

/** As gds_kv_scan_open(), as of a snapshot. */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_snapshot_scan(const gds_kv_snapshot_t *snapshot, const void *start,
                                  uint64_t start_size, const void *end, uint64_t end_size,
                                  uint64_t limit, gds_kv_scan_t **scan_out) GDS_NOEXCEPT;

/**
 * Give the next key with its value, verified.
 *
 * @param entry_out  its pointers are valid until the next call for this scan.
 * @return GDS_STATUS_END: no further key; GDS_STATUS_CORRUPTED, GDS_STATUS_IO: the value
 *         of this key cannot be had, the next call goes on behind it;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY: likewise, read it with gds_kv_get_range();
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_scan_next(gds_kv_scan_t *scan, gds_kv_entry_t *entry_out) GDS_NOEXCEPT;

/** As gds_kv_scan_next(), without reading the value: its size is told. */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_scan_next_key(gds_kv_scan_t *scan,
                                  gds_kv_entry_t *entry_out) GDS_NOEXCEPT;

/** Close a scan. NULL and closed handles are fine. */
GDS_API void gds_kv_scan_close(gds_kv_scan_t *scan) GDS_NOEXCEPT;

#define GDS_KV_CONFIG_INIT                                                                 \
    { sizeof(gds_kv_config_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define GDS_KV_REPORT_INIT { sizeof(gds_kv_report_t), 0, 0, 0, 0 }
#define GDS_KV_REPAIR_REPORT_INIT                                                          \
    { sizeof(gds_kv_repair_report_t), 0, 0, 0, 0, 0, { 0 }, 0, 0 }

/* ==== Key-value store: the whole ====================================================== */

/**
 * Counters of a store since it was opened, and sizes now; each right by itself. Start from
 * GDS_KV_STATS_INIT.
 */
typedef struct gds_kv_stats_t {
    /** sizeof(gds_kv_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** 1 when the store refuses changes since a failure. */
    uint32_t poisoned;
    /** The first failure of the background thread, a gds_status_t; GDS_STATUS_OK: none. */
    int32_t background_status;
    /** Zero. */
    uint32_t reserved;
    /** Keys that have a value. */
    uint64_t keys;
    /**
     * Memory of keys and references, bytes; small values that no checkpoint stored are
     * included.
     */
    uint64_t index_bytes;
    /** Small values and changes that only memory and the log hold, bytes. */
    uint64_t memtable_bytes;
    /** Snapshots held. */
    uint64_t snapshots;
    /** The last record that is durable. */
    uint64_t durable_lsn;
    /** The last record that was appended. */
    uint64_t appended_lsn;
    /** Size of a segment, bytes. */
    uint64_t segment_bytes;
    /** Segments in all. */
    uint64_t segments;
    /** Segments that are free. */
    uint64_t segments_free;
    /** Segments of the durable index. */
    uint64_t segments_meta;
    /** Bytes of values and pages that are alive. */
    uint64_t live_bytes;
    /** Size of the whole store, bytes. */
    uint64_t size_bytes;
    /** Pieces that readers hold against reuse. */
    uint64_t pins;
    /** Bytes of keys and values that commits brought. */
    uint64_t user_bytes;
    /** Bytes that were written to the disk, the log included. */
    uint64_t written_bytes;
    /** written_bytes for each of user_bytes. */
    double write_amplification;
    /** Bytes that were read from the disk. */
    uint64_t read_bytes;
    /** Reads of the disk. */
    uint64_t reads;
    /** Writes to the disk, those of the log not included. */
    uint64_t writes;
    /** Durable writes: those of the log. */
    uint64_t durable_writes;
    /** Flushes. */
    uint64_t flushes;
    /** Checkpoints. */
    uint64_t checkpoints;
    /** Rounds of cleaning. */
    uint64_t gc_rounds;
    /** Bytes that cleaning moved. */
    uint64_t gc_bytes;
    /** Pages found in the cache. */
    uint64_t cache_hits;
    /** Pages read. */
    uint64_t cache_misses;
    /** Bytes of pages in the cache. */
    uint64_t cache_bytes;
    /**
     * Reads of several pieces that were handed over at once: those of values above 1 MiB
     * and of values in several places. Each piece is one of `reads`.
     */
    uint64_t vectored_reads;
    /**
     * Gathered writes: none. What is small is copied together, and coalesced_writes counts
     * it; what is large is written from where it lies.
     */
    uint64_t vectored_writes;
    /** Pages that were joined with others into one write. */
    uint64_t coalesced_writes;
    /**
     * Operations through io_uring: the pieces of vectored_reads, where the system has it.
     * All others are calls that block.
     */
    uint64_t io_uring_ops;
    /** Checksums of values and pages by the processor's instruction. */
    uint64_t hardware_crc_ops;
    /** Operations of the disk. */
    uint64_t total_iops;
    /** Operations in the last second. */
    uint64_t iops;
    /** Operations in the best second. */
    uint64_t peak_iops;
    /** Batches of the log: each gathers the records of many commits into one write. */
    uint64_t wal_vectored_writes;
    /** Checksums of the log by the processor's instruction: two a batch. */
    uint64_t wal_hardware_crc_ops;
    /** Loops that verified several chunks, and log batches summed whole. */
    uint64_t batched_checksums;
    /** Records of the log. */
    uint64_t wal_records;
    /** Commits. */
    uint64_t wal_commits;
    /** Batches of the log. */
    uint64_t wal_batches;
    /** Most commits of one batch. */
    uint64_t wal_commits_per_batch_max;
    /** Times that a commit waited for room in the log. */
    uint64_t wal_stalls;
    /** Bytes of the log's ring in use. */
    uint64_t wal_used_bytes;
    /** Size of the ring, bytes. */
    uint64_t wal_ring_bytes;
    /** Reads of the disk: how long they took. */
    gds_kv_latency_t read_latency;
    /** Writes to the disk: how long they took. */
    gds_kv_latency_t write_latency;
    /** Durable writes: how long they took. */
    gds_kv_latency_t durable_latency;
    /** Flushes: how long they took. */
    gds_kv_latency_t flush_latency;
    /** Batches of the log, with the flush that their data needs: how long they took. */
    gds_kv_latency_t wal_sync_latency;
    /** Nanoseconds since the store was opened. */
    uint64_t elapsed_ns;
    /** What that failure had to say, cut to fit; "" if there was none. */
    char background_error[256];
    /**
     * Gets into host memory, but not of snapshots and scans: how long they took; about one
     * in 64 is measured.
     */
    gds_kv_latency_t get_latency;
    /** Puts until they were durable: how long they took. */
    gds_kv_latency_t put_latency;
    /**
     * Puts until they were visible, by gds_kv_put_async(): how long they took; about one in
     * 64 is measured.
     */
    gds_kv_latency_t put_async_latency;
} gds_kv_stats_t;

/**
 * Wait until everything that was committed is durable.
 *
 * @return GDS_STATUS_POISONED; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_sync(const gds_kv_t *kv) GDS_NOEXCEPT;

/**
 * Write the index and empty the log, so that the next opening has little to do. The store
 * does so by itself when the log is half full.
 *
 * @return GDS_STATUS_NO_SPACE; GDS_STATUS_IO; GDS_STATUS_POISONED;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_checkpoint(const gds_kv_t *kv) GDS_NOEXCEPT;

/**
 * Move what is alive together, and give free space back to the file system. The store makes
 * room by itself when it needs some.
 *
 * @param segments_out  segments that became free. May be NULL.
 * @return as gds_kv_checkpoint().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_compact(const gds_kv_t *kv, uint64_t *segments_out) GDS_NOEXCEPT;

/**
 * Read everything, compare it with its checksums, and the index with the space that is in
 * use. Reads and writes go on meanwhile.
 *
 * @param callback    told of each problem. May be NULL.
 * @param user_data   handed to every call.
 * @param report_out  struct_size set.
 * @return GDS_STATUS_OK: also with problems, the report counts them;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_TIMED_OUT; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_verify(const gds_kv_t *kv, gds_kv_problem_fn callback, void *user_data,
                           gds_kv_report_t *report_out) GDS_NOEXCEPT;

/**
 * Make a store usable again that cannot be opened or has damaged values. Make a copy first.
 *
 * The index is rebuilt from what can be found; values that are not what was written are
 * dropped and told. A key that was deleted long ago may come back. A store that is well is
 * left alone. It must not be open.
 *
 * @param path        a regular file or block device that holds a store.
 * @param callback    told of each value that is lost. May be NULL.
 * @param user_data   handed to every call.
 * @param report_out  struct_size set.
 * @return GDS_STATUS_OK: also when values are lost, the report counts them;
 *         GDS_STATUS_UNSUPPORTED_FILE: nothing of a store is left; GDS_STATUS_NO_SPACE;
 *         GDS_STATUS_IO: also when it is open; as gds_kv_open();
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_repair(const char *path, gds_kv_problem_fn callback, void *user_data,
                           gds_kv_repair_report_t *report_out) GDS_NOEXCEPT;

/**
 * Tell what a store has counted, and how large it is.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_stats(const gds_kv_t *kv, gds_kv_stats_t *stats_out) GDS_NOEXCEPT;

#define GDS_KV_STATS_INIT                                                                  \
    { sizeof(gds_kv_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
      { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 },          \
      { 0, 0, 0, 0, 0 }, 0, { 0 }, { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 },                   \
      { 0, 0, 0, 0, 0 } }

/* ==== Key-value store: device memory ================================================== */

/**
 * A store beside a context: its values from and to the memory of a device. May be used from
 * many threads at once. Made by gds_kv_device_open(), given back to gds_kv_device_close().
 */
typedef struct gds_kv_device_t gds_kv_device_t;

/** How a store and a device come together. Start from GDS_KV_DEVICE_CONFIG_INIT. */
typedef struct gds_kv_device_config_t {
    /** sizeof(gds_kv_device_config_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /**
     * Device memory for values that are held or kept, bytes; 0: none, and
     * gds_kv_device_get_ptr() is not there.
     */
    uint64_t cache_bytes;
} gds_kv_device_config_t;

/** A value, or a range of one, and where it goes. This struct never changes. */
typedef struct gds_kv_get_t {
    /** The key. */
    const void *key;
    /** Bytes of it. */
    uint64_t key_size;
    /** The first byte of the value that is wanted. */
    uint64_t offset;
    /** Bytes that are wanted at most; UINT64_MAX: to the end of the value. */
    uint64_t size;
    /** Where they go: a buffer of the device's context. */
    const gds_buffer_t *buffer;
    /** Where in the buffer, bytes. */
    uint64_t buffer_offset;
} gds_kv_get_t;

/** What came of a gds_kv_get_t. This struct never changes. */
typedef struct gds_kv_got_t {
    /** A gds_status_t; the other fields mean something when it is GDS_STATUS_OK. */
    int32_t status;
    /** Zero. */
    uint32_t reserved;
    /** Bytes of the whole value. */
    uint64_t value_size;
    /** Bytes that arrived, verified. */
    uint64_t bytes;
} gds_kv_got_t;

/**
 * A value that is held in device memory. A copy is the same hold: release one of them,
 * once. This struct never changes.
 */
typedef struct gds_kv_pointer_t {
    /** Its first byte, a device address, aligned to 256 bytes. NULL: nothing is held. */
    void *address;
    /** Bytes of the value. */
    uint64_t size_bytes;
    /** For the library. 0: nothing is held. */
    uint64_t token;
} gds_kv_pointer_t;

/** What a device's side of a store has counted. Start from GDS_KV_DEVICE_STATS_INIT. */
typedef struct gds_kv_device_stats_t {
    /** sizeof(gds_kv_device_stats_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Values, or ranges of them, that were read. */
    uint64_t gets;
    /** Bytes of them. */
    uint64_t bytes_read;
    /** Transfers that brought them, after adjacent ones were joined. */
    uint64_t transfers;
    /** Checksums compared where the bytes landed. */
    uint64_t chunks_verified;
    /** Reads that did not arrive as they should, and were done again by the host. */
    uint64_t rereads;
    /** Values put from buffers. */
    uint64_t puts;
    /** Bytes of them. */
    uint64_t bytes_written;
    /** Device addresses asked for whose value was there. */
    uint64_t hits;
    /** Device addresses asked for whose value was read. */
    uint64_t misses;
    /** Values that left device memory to make room. */
    uint64_t evictions;
    /** Values kept in device memory. */
    uint64_t resident;
    /** Of these, held. */
    uint64_t held;
    /** Device memory that they take, bytes. */
    uint64_t cache_used_bytes;
} gds_kv_device_stats_t;

/**
 * Bring a store and a context together: values go straight to and from its memory.
 *
 * The checksums of a value are compared where its bytes land, on a GPU by a kernel: what a
 * call says arrived is what was put.
 *
 * @param config      NULL: as GDS_KV_DEVICE_CONFIG_INIT.
 * @param device_out  give it to gds_kv_device_close() once. Keeps the store and the
 *                    context.
 * @return GDS_STATUS_INVALID_CONFIG; GDS_STATUS_OUT_OF_DEVICE_MEMORY: lower cache_bytes;
 *         what gds_file_open() answers for the store's file; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_open(const gds_kv_t *kv, const gds_context_t *context,
                                const gds_kv_device_config_t *config,
                                gds_kv_device_t **device_out) GDS_NOEXCEPT;

/**
 * Close a device's side of a store. NULL and closed handles are fine.
 *
 * Its device memory is gone then: values that are held must not be used any more.
 */
GDS_API void gds_kv_device_close(gds_kv_device_t *device) GDS_NOEXCEPT;

/**
 * Read a whole value into a buffer.
 *
 * The bytes are in place for every stream when the call returns; work that is queued on
 * streams and uses the range must be done before.
 *
 * @param buffer    of the context, of any kind.
 * @param capacity  room from buffer_offset on, bytes, within the buffer.
 * @param size_out  bytes of the value. May be NULL.
 * @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_BUFFER_TOO_SMALL: the message has
 *         the size; GDS_STATUS_CORRUPTED: the disk does not hold what was written, also
 *         when read a second time by the host; GDS_STATUS_OUT_OF_RANGE: the range passes
 *         the buffer's end; GDS_STATUS_IO; GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT:
 *         also for a buffer of another context; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED. The range holds anything then.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_get(const gds_kv_device_t *device, const void *key,
                               uint64_t key_size, const gds_buffer_t *buffer,
                               uint64_t buffer_offset, uint64_t capacity,
                               uint64_t *size_out) GDS_NOEXCEPT;

/**
 * Read bytes of a value into a buffer, as gds_kv_device_get().
 *
 * @param offset     the first byte of the value that is wanted; past its end is fine.
 * @param size       bytes that are wanted at most.
 * @param bytes_out  bytes that arrived, fewer than size at the value's end. May be NULL.
 * @return as gds_kv_device_get(), but for GDS_STATUS_BUFFER_TOO_SMALL.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_get_range(const gds_kv_device_t *device, const void *key,
                                     uint64_t key_size, uint64_t offset,
                                     const gds_buffer_t *buffer, uint64_t buffer_offset,
                                     uint64_t size, uint64_t *bytes_out) GDS_NOEXCEPT;

/**
 * Read many values, or ranges of values, at once: far faster than one by one.
 *
 * Adjacent ones share a transfer, all move side by side, and their checksums are compared
 * together. Ranges of buffers must not overlap.
 *
 * @param gets      at most 1,048,576.
 * @param gots_out  as many; each with its own status, as gds_kv_device_get_range() answers
 *                  it.
 * @return GDS_STATUS_OK: also when some of them failed; GDS_STATUS_OUT_OF_RANGE: too many;
 *         GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE: the message says which,
 *         and nothing was read; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_get_many(const gds_kv_device_t *device, const gds_kv_get_t *gets,
                                    uint64_t count, gds_kv_got_t *gots_out) GDS_NOEXCEPT;

/**
 * Put bytes of a buffer as a value, and wait until it is durable.
 *
 * Work that is queued on streams and makes the bytes must be done before. The buffer may be
 * changed when the call returns.
 *
 * @param buffer   of the context, of any kind.
 * @param lsn_out  the number of the change in the log. May be NULL.
 * @return as gds_kv_put(); GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
 *         GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT: also for a buffer of another
 *         context.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_put(const gds_kv_device_t *device, const void *key,
                               uint64_t key_size, const gds_buffer_t *buffer,
                               uint64_t buffer_offset, uint64_t size,
                               uint64_t *lsn_out) GDS_NOEXCEPT;

/** As gds_kv_device_put(), but does not wait; see gds_kv_put_async(). */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_put_async(const gds_kv_device_t *device, const void *key,
                                     uint64_t key_size, const gds_buffer_t *buffer,
                                     uint64_t buffer_offset, uint64_t size,
                                     uint64_t *lsn_out) GDS_NOEXCEPT;

/**
 * Bring a value into device memory for later; it stays while there is room.
 *
 * @return as gds_kv_device_get_ptr().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_cache(const gds_kv_device_t *device, const void *key,
                                 uint64_t key_size) GDS_NOEXCEPT;

/**
 * Hold a value in device memory; it is read and verified where it is not there yet.
 *
 * It is the value as it is now: a later put does not change these bytes, and the next call
 * gives the new value. The bytes are in place for every stream when the call returns, and
 * must not be changed. Kernels that use them must be done before they are released.
 *
 * @param pointer_out  give it to gds_kv_device_release() once.
 * @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_ALL_PINNED: what is held leaves no
 *         room, release some; GDS_STATUS_OUT_OF_DEVICE_MEMORY: the value is larger than
 *         cache_bytes; GDS_STATUS_NOT_SUPPORTED: cache_bytes is 0; GDS_STATUS_TIMED_OUT: it
 *         is put faster than it can be read; GDS_STATUS_CORRUPTED; GDS_STATUS_IO;
 *         GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_get_ptr(const gds_kv_device_t *device, const void *key,
                                   uint64_t key_size,
                                   gds_kv_pointer_t *pointer_out) GDS_NOEXCEPT;

/**
 * Release a value that is held, from any thread. It may go from now on.
 *
 * @param pointer  as gds_kv_device_get_ptr() filled it; set to "nothing is held". That is
 *                 fine too.
 * @return GDS_STATUS_INVALID_ARGUMENT: NULL or released before, as far as can be told;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
 */
GDS_API gds_status_t gds_kv_device_release(const gds_kv_device_t *device,
                                           gds_kv_pointer_t *pointer) GDS_NOEXCEPT;

/**
 * Tell what a device's side of a store has counted.
 *
 * @param stats_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_kv_device_stats(const gds_kv_device_t *device,
                                 gds_kv_device_stats_t *stats_out) GDS_NOEXCEPT;

#define GDS_KV_DEVICE_CONFIG_INIT { sizeof(gds_kv_device_config_t), 0, 0 }
#define GDS_KV_DEVICE_STATS_INIT                                                           \
    { sizeof(gds_kv_device_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* ==== Arrow C interfaces ============================================================== */

/*
 * The structs of arrow.apache.org/docs/format/CDataInterface.html, CStreamInterface.html
 * and CDeviceDataInterface.html, in the guards that programs of Arrow have around them.
 */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

#ifndef ARROW_C_DEVICE_DATA_INTERFACE
#define ARROW_C_DEVICE_DATA_INTERFACE

typedef int32_t ArrowDeviceType;

#define ARROW_DEVICE_CPU 1
#define ARROW_DEVICE_CUDA 2
#define ARROW_DEVICE_CUDA_HOST 3
#define ARROW_DEVICE_OPENCL 4
#define ARROW_DEVICE_VULKAN 7
#define ARROW_DEVICE_METAL 8
#define ARROW_DEVICE_VPI 9
#define ARROW_DEVICE_ROCM 10
#define ARROW_DEVICE_ROCM_HOST 11
#define ARROW_DEVICE_EXT_DEV 12
#define ARROW_DEVICE_CUDA_MANAGED 13
#define ARROW_DEVICE_ONEAPI 14
#define ARROW_DEVICE_WEBGPU 15
#define ARROW_DEVICE_HEXAGON 16

struct ArrowDeviceArray {
    struct ArrowArray array;
    int64_t device_id;
    ArrowDeviceType device_type;
    void *sync_event;
    int64_t reserved[3];
};

#endif /* ARROW_C_DEVICE_DATA_INTERFACE */

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif /* ARROW_C_STREAM_INTERFACE */

#ifndef ARROW_C_DEVICE_STREAM_INTERFACE
#define ARROW_C_DEVICE_STREAM_INTERFACE

struct ArrowDeviceArrayStream {
    ArrowDeviceType device_type;
    int (*get_schema)(struct ArrowDeviceArrayStream *self, struct ArrowSchema *out);
    int (*get_next)(struct ArrowDeviceArrayStream *self, struct ArrowDeviceArray *out);
    const char *(*get_last_error)(struct ArrowDeviceArrayStream *self);
    void (*release)(struct ArrowDeviceArrayStream *self);
    void *private_data;
};

#endif /* ARROW_C_DEVICE_STREAM_INTERFACE */

/* ==== Columns ========================================================================= */

/** In a path: the dictionary of an array, in place of the number of a child. */
#define GDS_COLUMNS_DICTIONARY 4294967295

/**
 * Columns in device memory, in the layout of Arrow, in one batch or more. May be used from
 * many threads at once. Made by gds_arrow_load() and its like, given back to
 * gds_columns_close().
 */
typedef struct gds_columns_t gds_columns_t;

/** What columns there are. Start from GDS_COLUMNS_INFO_INIT. */
typedef struct gds_columns_info_t {
    /** sizeof(gds_columns_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Columns. */
    uint32_t columns;
    /** Batches. */
    uint64_t batches;
    /** Rows of all batches. */
    uint64_t rows;
    /** Bytes of memory that the buffers take, padding included. */
    uint64_t bytes;
} gds_columns_info_t;

/**
 * An array: a column, or a part of one. Start from GDS_COLUMN_INIT.
 *
 * Buffers are in the order of its type (arrow.apache.org/docs/format/Columnar.html).
 */
typedef struct gds_column_t {
    /** sizeof(gds_column_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Buffers. */
    uint32_t buffers;
    /** Arrays that it is made of. */
    uint32_t children;
    /** 1: its values are keys of a dictionary. 0: not. */
    uint32_t has_dictionary;
    /** Values, nulls included. */
    uint64_t length;
    /** Nulls; -1 when nobody counted. */
    int64_t null_count;
    /** Values of the buffers before the first one. */
    uint64_t offset;
    /** Its name; "" for the values of a dictionary. Valid until gds_columns_close(). */
    const char *name;
    /**
     * Its type, as the format string of Arrow's C data interface. Valid until
     * gds_columns_close().
     */
    const char *format;
} gds_column_t;

/** Memory of an array. This struct never changes. */
typedef struct gds_column_buffer_t {
    /**
     * Its first byte, at a multiple of 64; a device address for device memory. 0: the
     * buffer is left out (no value is null).
     */
    uint64_t address;
    /** Bytes. Readable to the next multiple of 64. */
    uint64_t size;
} gds_column_buffer_t;

/**
 * Tell what columns there are.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_info(const gds_columns_t *columns,
                              gds_columns_info_t *info_out) GDS_NOEXCEPT;

/**
 * Find a column by its name.
 *
 * @param name        NUL-terminated.
 * @param column_out  its number, from 0; the first one where two have the name.
 * @return GDS_STATUS_NOT_FOUND; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_find(const gds_columns_t *columns, const char *name,
                              uint32_t *column_out) GDS_NOEXCEPT;

/**
 * Tell of an array: a column of a batch, or a part of one.
 *
 * @param batch        from 0.
 * @param path         the number of the column, then numbers of children, or
 *                     GDS_COLUMNS_DICTIONARY.
 * @param path_count   at least 1.
 * @param column_out   struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: no such batch, column or child;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_column(const gds_columns_t *columns, uint64_t batch,
                                const uint32_t *path, uint64_t path_count,
                                gds_column_t *column_out) GDS_NOEXCEPT;

/**
 * Tell where a buffer of an array is: a plain pointer, valid until gds_columns_close().
 *
 * @param path        as for gds_columns_column().
 * @param buffer      from 0, in the order of the type.
 * @param buffer_out  filled.
 * @return as gds_columns_column().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_buffer(const gds_columns_t *columns, uint64_t batch,
                                const uint32_t *path, uint64_t path_count, uint32_t buffer,
                                gds_column_buffer_t *buffer_out) GDS_NOEXCEPT;

/**
 * Export the names and types: a struct of the columns.
 *
 * @param schema_out  overwritten; call its release() once.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
 *         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
 *         Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_schema(const gds_columns_t *columns,
                                struct ArrowSchema *schema_out) GDS_NOEXCEPT;

/**
 * Export a batch without a copy: a struct array of the columns.
 *
 * What it holds stays until its release(), or that of each child that was moved out, from
 * any thread; gds_columns_close() may come before. sync_event is NULL: the bytes are
 * there. On the host device the device is ARROW_DEVICE_CPU, else ARROW_DEVICE_CUDA. The
 * buffer of sizes that a view type ends with is in host memory.
 *
 * @param batch      from 0.
 * @param array_out  overwritten; call array.release() once.
 * @return GDS_STATUS_OUT_OF_RANGE: no such batch; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without Arrow;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_export(const gds_columns_t *columns, uint64_t batch,
                                struct ArrowDeviceArray *array_out) GDS_NOEXCEPT;

/**
 * Export all batches, one after the other, as a stream of device arrays.
 *
 * @param stream_out  overwritten; call its release() once. Used by one thread at a time.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_stream(const gds_columns_t *columns,
                                struct ArrowDeviceArrayStream *stream_out) GDS_NOEXCEPT;

/**
 * As gds_columns_stream(), for consumers that know ordinary memory alone. On the
 * host device only.
 *
 * @return GDS_STATUS_NOT_SUPPORTED: the columns are in the memory of a device, or a build
 *         without Arrow; else as gds_columns_stream().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_columns_host_stream(const gds_columns_t *columns,
                                     struct ArrowArrayStream *stream_out) GDS_NOEXCEPT;

/** Give the columns back. NULL and closed handles are fine. What was exported stays. */
GDS_API void gds_columns_close(gds_columns_t *columns) GDS_NOEXCEPT;

#define GDS_COLUMNS_INFO_INIT { sizeof(gds_columns_info_t), 0, 0, 0, 0 }
#define GDS_COLUMN_INIT { sizeof(gds_column_t), 0, 0, 0, 0, 0, 0, NULL, NULL }

/* ==== Arrow =========================================================================== */

/** Which of the two forms of Arrow IPC. */
GDS_ENUM(gds_arrow_form_t) {
    /** A file, with a footer. */
    GDS_ARROW_FORM_FILE = 1,
    /** A stream of messages. */
    GDS_ARROW_FORM_STREAM = 2,
};

/** How the buffers of a batch are compressed. */
GDS_ENUM(gds_arrow_codec_t) {
    /** Not: its body goes straight to the device. */
    GDS_ARROW_CODEC_NONE = 0,
    /** LZ4 frames. */
    GDS_ARROW_CODEC_LZ4 = 1,
    /** Zstandard frames. */
    GDS_ARROW_CODEC_ZSTD = 2,
};

/**
 * An Arrow IPC file or stream: its schema, and where its batches are. May be used from many
 * threads at once. Made by gds_arrow_open(), given back to gds_arrow_close().
 */
typedef struct gds_arrow_t gds_arrow_t;

/** What a file or stream holds. Start from GDS_ARROW_INFO_INIT. */
typedef struct gds_arrow_info_t {
    /** sizeof(gds_arrow_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_arrow_form_t. */
    int32_t form;
    /** Version of its metadata: 4 or 5. */
    uint32_t version;
    /** Columns. */
    uint32_t columns;
    /** Record batches. */
    uint64_t batches;
    /** Dictionary messages. */
    uint64_t dictionaries;
} gds_arrow_info_t;

/** What the metadata says of a batch. Start from GDS_ARROW_BATCH_INIT. */
typedef struct gds_arrow_batch_t {
    /** sizeof(gds_arrow_batch_t) as the caller compiled it. */
    uint32_t struct_size;
    /** A gds_arrow_codec_t. */
    int32_t codec;
    /** Rows. */
    uint64_t rows;
    /** Where its message begins in the file. */
    uint64_t file_offset;
    /** Bytes of its body in the file. */
    uint64_t body_bytes;
} gds_arrow_batch_t;

/**
 * What to load, and how. Start from GDS_ARROW_SELECTION_INIT or gds_arrow_selection_init().
 */
typedef struct gds_arrow_selection_t {
    /** sizeof(gds_arrow_selection_t) as the caller compiled it. Set by the initializers. */
    uint32_t struct_size;
    /**
     * Whether to check what kernels and others trust: offsets, views, keys, run ends, text
     * encoding; a gds_switch_t. 0 picks yes on the host device and no on a GPU, where it
     * reads those buffers back.
     */
    int32_t validate;
    /** Names of columns, each NUL-terminated, in the order wanted. NULL: all columns. */
    const char *const *columns;
    /** How many names. 0 with NULL. */
    uint64_t column_count;
    /** The first batch, from 0. */
    uint64_t first_batch;
    /** How many batches. 0: all from the first on. */
    uint64_t batch_count;
    /** Batches that are on their way while one is looked at, 1 to 64. 0 picks 2. */
    uint32_t ahead;
    /** Zero. */
    uint32_t reserved;
    /** How bytes are moved. NULL: as the context is configured. */
    const gds_options_t *options;
} gds_arrow_selection_t;

/**
 * Fill a selection, as GDS_ARROW_SELECTION_INIT does: all columns of all batches.
 *
 * @param selection_out  filled as far as `size` goes, struct_size included.
 * @param size           sizeof(gds_arrow_selection_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: selection_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_selection_init(void *selection_out, size_t size) GDS_NOEXCEPT;

/**
 * Open an Arrow IPC file or stream; which of the two, its content says. Reads metadata
 * only, and no body.
 *
 * @param arrow_out  give it to gds_arrow_close() once. Keeps the file.
 * @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_NOT_SUPPORTED:
 *         big-endian values, metadata before version 4, a build without Arrow;
 *         GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_open(const gds_file_t *file, gds_arrow_t **arrow_out) GDS_NOEXCEPT;

/**
 * Tell what a file or stream holds.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_info(const gds_arrow_t *arrow,
                            gds_arrow_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell what the metadata says of a batch. Reads it.
 *
 * @param batch      from 0.
 * @param batch_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: no such batch; GDS_STATUS_CORRUPTED; GDS_STATUS_IO;
 *         else as gds_arrow_info().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_batch(const gds_arrow_t *arrow, uint64_t batch,
                             gds_arrow_batch_t *batch_out) GDS_NOEXCEPT;

/**
 * Tell the name of a column. Valid until gds_arrow_close().
 *
 * @param column    from 0.
 * @param name_out  NUL-terminated.
 * @param size_out  bytes, without the NUL. May be NULL.
 * @return GDS_STATUS_OUT_OF_RANGE: no such column; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without Arrow;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_column_name(const gds_arrow_t *arrow, uint64_t column,
                                   const char **name_out, uint64_t *size_out) GDS_NOEXCEPT;

/**
 * Export the names and types of all columns: a struct of them.
 *
 * @param schema_out  overwritten; call its release() once.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
 *         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
 *         Arrow; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_schema(const gds_arrow_t *arrow,
                              struct ArrowSchema *schema_out) GDS_NOEXCEPT;

/**
 * Load chosen columns of chosen batches into device memory, and wait.
 *
 * Only their buffers are read. What is not compressed goes from the file to its place
 * without another copy. Neighbouring batches share allocations of up to 256 MiB; one is
 * freed when the columns and all arrays exported from its batches are released.
 *
 * @param selection    NULL: everything.
 * @param columns_out  give it to gds_columns_close() once.
 * @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_OUT_OF_RANGE: no such
 *         batch; GDS_STATUS_CORRUPTED: gds_last_error() has the offset;
 *         GDS_STATUS_NOT_SUPPORTED: unions with nulls of their own, of Arrow before 1.0,
 *         or a build without Arrow; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
 *         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_FILE_CHANGED; GDS_STATUS_IO;
 *         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
 *         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_load(const gds_arrow_t *arrow,
                            const gds_arrow_selection_t *selection,
                            gds_columns_t **columns_out) GDS_NOEXCEPT;

/**
 * The first of two steps: which ranges of the file a batch needs, to be read into the
 * caller's memory.
 *
 * Read it by gds_plan_read() and its like to a place of size_out bytes, then call
 * gds_arrow_columns() for that place. A plan without pieces needs no reading. What is
 * compressed is not in the plan, but has its part of the size.
 *
 * @param selection  NULL: all columns. first_batch and batch_count must be 0.
 * @param batch      from 0.
 * @param plan_out   give it to gds_plan_destroy() once.
 * @param size_out   bytes of the place, at least 64.
 * @return as gds_arrow_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_plan(const gds_arrow_t *arrow,
                            const gds_arrow_selection_t *selection, uint64_t batch,
                            gds_plan_t **plan_out, uint64_t *size_out) GDS_NOEXCEPT;

/**
 * The second of two steps: the columns of a batch whose plan was read.
 *
 * What is compressed is decoded to its place; dictionaries are loaded into memory of their
 * own. Waits; the reading must be done before.
 *
 * @param selection      as for gds_arrow_plan(), with the same columns.
 * @param batch          that of the plan.
 * @param buffer         device memory of the file's context. Kept by the columns.
 * @param buffer_offset  where the plan was read to; the address there is a multiple of 64.
 * @param columns_out    give it to gds_columns_close() once.
 * @return GDS_STATUS_OUT_OF_RANGE: it does not fit; GDS_STATUS_INVALID_ARGUMENT: not
 *         aligned; else as gds_arrow_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_columns(const gds_arrow_t *arrow,
                               const gds_arrow_selection_t *selection, uint64_t batch,
                               const gds_buffer_t *buffer, uint64_t buffer_offset,
                               gds_columns_t **columns_out) GDS_NOEXCEPT;

/**
 * As gds_arrow_load(), batch after batch as they are asked for: for what is larger than
 * memory. Nothing has been read when this returns.
 *
 * @param stream_out  overwritten; call its release() once. Used by one thread at a time.
 *                    get_next() answers an errno: EINVAL for a damaged file, ENOMEM, ...
 * @return as gds_arrow_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_stream(const gds_arrow_t *arrow,
                              const gds_arrow_selection_t *selection,
                              struct ArrowDeviceArrayStream *stream_out) GDS_NOEXCEPT;

/**
 * As gds_arrow_stream(), for consumers that know ordinary memory alone. On the host device
 * only.
 *
 * @return GDS_STATUS_NOT_SUPPORTED: the context is on a GPU; else as gds_arrow_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_host_stream(const gds_arrow_t *arrow,
                                   const gds_arrow_selection_t *selection,
                                   struct ArrowArrayStream *stream_out) GDS_NOEXCEPT;

/**
 * Read an Arrow IPC stream out of a pipe, socket or terminal, once, front to back.
 *
 * Batches go to the device as they come, one in memory at a time. get_next() waits for the
 * pipe.
 *
 * @param fd          duplicated: the caller keeps its own.
 * @param selection   NULL: everything. first_batch, batch_count, ahead and options must be
 *                    0 and NULL.
 * @param stream_out  overwritten; call its release() once. Used by one thread at a time.
 * @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_CORRUPTED: no Arrow
 *         stream; GDS_STATUS_NOT_SUPPORTED; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_arrow_stream_fd(const gds_context_t *context, int32_t fd,
                                 const gds_arrow_selection_t *selection,
                                 struct ArrowDeviceArrayStream *stream_out) GDS_NOEXCEPT;

/** Close a reader. NULL and closed handles are fine. What was loaded stays. */
GDS_API void gds_arrow_close(gds_arrow_t *arrow) GDS_NOEXCEPT;

#define GDS_ARROW_INFO_INIT { sizeof(gds_arrow_info_t), 0, 0, 0, 0, 0 }
#define GDS_ARROW_BATCH_INIT { sizeof(gds_arrow_batch_t), 0, 0, 0, 0 }
#define GDS_ARROW_SELECTION_INIT                                                           \
    { sizeof(gds_arrow_selection_t), 0, NULL, 0, 0, 0, 0, 0, NULL }

/* ==== Parquet ========================================================================= */

/** gds_parquet_chunk_t: it has a dictionary. */
#define GDS_PARQUET_CHUNK_DICTIONARY 1

/** gds_parquet_chunk_t: where its pages lie is known. */
#define GDS_PARQUET_CHUNK_OFFSET_INDEX 2

/** gds_parquet_chunk_t: smallest and largest values of its pages are known. */
#define GDS_PARQUET_CHUNK_COLUMN_INDEX 4

/** gds_parquet_chunk_t: it has a bloom filter. */
#define GDS_PARQUET_CHUNK_BLOOM_FILTER 8

/** gds_parquet_chunk_t: it is encrypted. */
#define GDS_PARQUET_CHUNK_ENCRYPTED 16

/** How a column compares with a value. */
GDS_ENUM(gds_parquet_compare_t) {
    /** Equal. */
    GDS_PARQUET_EQUAL = 1,
    /** Less. */
    GDS_PARQUET_LESS = 2,
    /** Less or equal. */
    GDS_PARQUET_LESS_OR_EQUAL = 3,
    /** Greater. */
    GDS_PARQUET_GREATER = 4,
    /** Greater or equal. */
    GDS_PARQUET_GREATER_OR_EQUAL = 5,
};

/** Which field of a condition holds its value. */
GDS_ENUM(gds_parquet_value_t) {
    /** integer: of integers and booleans; of decimals without their point, of times. */
    GDS_PARQUET_INTEGER = 1,
    /** The bits of integer, without a sign. */
    GDS_PARQUET_UNSIGNED = 2,
    /** number: of floats and doubles. */
    GDS_PARQUET_NUMBER = 3,
    /** bytes: of strings and bytes. */
    GDS_PARQUET_BYTES = 4,
};

/**
 * A Parquet file: its footer, read once. May be used from many threads at once. Made by
 * gds_parquet_open(), given back to gds_parquet_close().
 */
typedef struct gds_parquet_t gds_parquet_t;

/** A key of an encrypted column. */
typedef struct gds_parquet_key_t {
    /**
     * The column by its name in the file ("a.list.element"), NUL-terminated. NULL: the
     * key is for what has this key metadata in the file, the footer too.
     */
    const char *column;
    /** Key metadata, when column is NULL. */
    const void *metadata;
    /** Bytes of it. */
    uint64_t metadata_bytes;
    /** The key. */
    const void *key;
    /** Bytes of it: 16 or 32. */
    uint64_t key_bytes;
} gds_parquet_key_t;

/** Keys of an encrypted file. Start from GDS_PARQUET_KEYS_INIT. */
typedef struct gds_parquet_keys_t {
    /** sizeof(gds_parquet_keys_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** The key of the footer. NULL: it is among `keys`. */
    const void *footer_key;
    /** Bytes of it: 16 or 32. */
    uint64_t footer_key_bytes;
    /** Keys of columns. NULL: none. */
    const gds_parquet_key_t *keys;
    /** How many. */
    uint64_t key_count;
    /**
     * What identifies the file, where the file itself does not hold it (AAD prefix).
     * NULL: it does.
     */
    const void *aad_prefix;
    /** Bytes of it. */
    uint64_t aad_prefix_bytes;
} gds_parquet_keys_t;

/** What a file says of itself. Start from GDS_PARQUET_INFO_INIT. */
typedef struct gds_parquet_info_t {
    /** sizeof(gds_parquet_info_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Columns that hold values: the leaves of the schema. */
    uint32_t columns;
    /** Rows in all. */
    uint64_t rows;
    /** Row groups. */
    uint64_t row_groups;
    /** Bytes of the footer, the length and the magic included. */
    uint64_t footer_bytes;
    /** Pairs of texts that the writer added. */
    uint64_t key_values;
    /** Version that the writer wrote. */
    int32_t version;
    /** 1 when the footer is encrypted, else 0. */
    uint32_t is_footer_encrypted;
    /** Who wrote it; "" when it does not say. Valid until gds_parquet_close(). */
    const char *created_by;
} gds_parquet_info_t;

/**
 * A column of the schema. Start from GDS_PARQUET_COLUMN_INIT. Texts are valid until
 * gds_parquet_close().
 */
typedef struct gds_parquet_column_t {
    /** sizeof(gds_parquet_column_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Bytes of a value of fixed length, else 0. */
    uint32_t type_length;
    /** Number of its top-level column. */
    uint32_t root;
    /** Highest definition level: 0 when nothing can be null. */
    uint32_t max_definition;
    /** Highest repetition level: 0 when it is in no list. */
    uint32_t max_repetition;
    /** Zero. */
    uint32_t reserved;
    /** Its name, with the names of its groups before it: "a.list.element". */
    const char *name;
    /** How values are stored: "INT64", "BYTE_ARRAY", ... */
    const char *physical;
    /** What they mean, or "": "String", "Decimal(10, 2)", ... */
    const char *logical;
} gds_parquet_column_t;

/** A row group. Start from GDS_PARQUET_ROW_GROUP_INIT. */
typedef struct gds_parquet_row_group_t {
    /** sizeof(gds_parquet_row_group_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Rows. */
    uint64_t rows;
    /** Rows of the groups before it. */
    uint64_t first_row;
    /** Bytes of all columns before compression. */
    uint64_t bytes;
    /** Bytes of all columns in the file. */
    uint64_t compressed_bytes;
} gds_parquet_row_group_t;

/**
 * A column of a row group. Start from GDS_PARQUET_CHUNK_INIT. Texts are valid until
 * gds_parquet_close().
 */
typedef struct gds_parquet_chunk_t {
    /** sizeof(gds_parquet_chunk_t) as the caller compiled it. */
    uint32_t struct_size;
    /** GDS_PARQUET_CHUNK_*. */
    uint32_t flags;
    /** Where its pages begin in the file. */
    uint64_t file_offset;
    /** Bytes in the file. */
    uint64_t compressed_bytes;
    /** Bytes before compression. */
    uint64_t bytes;
    /** Values, nulls included. */
    uint64_t values;
    /** Nulls; UINT64_MAX where the writer did not count. */
    uint64_t nulls;
    /** Different values; UINT64_MAX where the writer did not count. */
    uint64_t distinct;
    /** How pages are compressed: "SNAPPY", ... */
    const char *codec;
    /** How values and levels are encoded, with commas between: "PLAIN,RLE". */
    const char *encodings;
    /** Smallest value as text; NULL when it is not known. */
    const char *min;
    /** Largest value as text; NULL when it is not known. */
    const char *max;
} gds_parquet_chunk_t;

/** Rows that follow each other. */
typedef struct gds_parquet_rows_t {
    /** The first one, counted through the file from 0. */
    uint64_t first;
    /** How many. */
    uint64_t count;
} gds_parquet_rows_t;

/**
 * A condition: what statistics, page indexes and bloom filters rule out is left out. What
 * is loaded may still not fulfil it.
 */
typedef struct gds_parquet_condition_t {
    /** The column by its name in the file, NUL-terminated. */
    const char *column;
    /** A gds_parquet_compare_t. */
    int32_t compare;
    /** A gds_parquet_value_t. */
    int32_t kind;
    /** The value, when kind says so. */
    int64_t integer;
    /** The value, when kind says so. */
    double number;
    /** The value, when kind says so. */
    const void *bytes;
    /** How many bytes. */
    uint64_t byte_count;
} gds_parquet_condition_t;

/** What to load. Start from GDS_PARQUET_SELECTION_INIT or gds_parquet_selection_init(). */
typedef struct gds_parquet_selection_t {
    /**
     * sizeof(gds_parquet_selection_t) as the caller compiled it. Set by the initializers.
     */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /**
     * Names of columns, each NUL-terminated, in the order wanted; "a.b" is the field b of
     * a. NULL: all columns.
     */
    const char *const *columns;
    /** How many names. 0 with NULL. */
    uint64_t column_count;
    /** Row groups by number from 0, in the order wanted. NULL: all of them. */
    const uint64_t *row_groups;
    /** How many. 0 with NULL. */
    uint64_t row_group_count;
    /** Rows, ascending, without overlap. NULL: all of them. */
    const gds_parquet_rows_t *rows;
    /** How many ranges. 0 with NULL. */
    uint64_t row_range_count;
    /** Conditions that all must hold. NULL: none. */
    const gds_parquet_condition_t *conditions;
    /** How many. 0 with NULL. */
    uint64_t condition_count;
    /**
     * Bytes of host memory that decoding may take, and of device memory that texts may
     * take which the device decodes. 0: half of the host memory that is free, and what the
     * device has.
     */
    uint64_t memory_limit;
} gds_parquet_selection_t;

/** What a selection would read. Start from GDS_PARQUET_OUTLINE_INIT. */
typedef struct gds_parquet_outline_t {
    /** sizeof(gds_parquet_outline_t) as the caller compiled it. */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Rows that are left. */
    uint64_t rows;
    /** Row groups that are left. */
    uint64_t row_groups;
    /** Bytes of pages that would be read. */
    uint64_t read_bytes;
} gds_parquet_outline_t;

/**
 * Fill a selection, as GDS_PARQUET_SELECTION_INIT does: all columns of all rows.
 *
 * @param selection_out  filled as far as `size` goes, struct_size included.
 * @param size           sizeof(gds_parquet_selection_t).
 * @return GDS_STATUS_INVALID_ARGUMENT: selection_out is NULL or misaligned;
 *         GDS_STATUS_STRUCT_SIZE.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_selection_init(void *selection_out, size_t size) GDS_NOEXCEPT;

/**
 * Open a Parquet file. Reads its footer, and nothing else.
 *
 * @param keys         NULL for a file that is not encrypted. Copied.
 * @param parquet_out  give it to gds_parquet_close() once. Keeps the file.
 * @return GDS_STATUS_CORRUPTED: no Parquet file, a damaged one, or keys that do not open
 *         it; gds_last_error() has the offset; GDS_STATUS_INVALID_ARGUMENT: also for an
 *         encrypted footer without a key; GDS_STATUS_NOT_SUPPORTED: a build without
 *         Parquet; GDS_STATUS_IO; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_open(const gds_file_t *file, const gds_parquet_keys_t *keys,
                              gds_parquet_t **parquet_out) GDS_NOEXCEPT;

/**
 * Tell what a file says of itself.
 *
 * @param info_out  struct_size set.
 * @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
 *         GDS_STATUS_NOT_SUPPORTED: a build without Parquet; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_info(const gds_parquet_t *parquet,
                              gds_parquet_info_t *info_out) GDS_NOEXCEPT;

/**
 * Tell a pair of texts that the writer added. Valid until gds_parquet_close().
 *
 * @param index      from 0.
 * @param key_out    NUL-terminated.
 * @param value_out  NUL-terminated, or NULL when the pair has no value.
 * @return GDS_STATUS_OUT_OF_RANGE: no such pair; else as gds_parquet_info().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_key_value(const gds_parquet_t *parquet, uint64_t index,
                                   const char **key_out,
                                   const char **value_out) GDS_NOEXCEPT;

/**
 * Tell of a column of the schema.
 *
 * @param column      from 0: columns that hold values, in the order of the schema.
 * @param column_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: no such column; else as gds_parquet_info().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_column(const gds_parquet_t *parquet, uint64_t column,
                                gds_parquet_column_t *column_out) GDS_NOEXCEPT;

/**
 * Tell of a row group.
 *
 * @param row_group      from 0.
 * @param row_group_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: no such row group; else as gds_parquet_info().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_row_group(const gds_parquet_t *parquet, uint64_t row_group,
                                   gds_parquet_row_group_t *row_group_out) GDS_NOEXCEPT;

/**
 * Tell of a column of a row group.
 *
 * @param row_group  from 0.
 * @param column     as for gds_parquet_column().
 * @param chunk_out  struct_size set.
 * @return GDS_STATUS_OUT_OF_RANGE: no such row group or column; else as
 *         gds_parquet_info().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_chunk(const gds_parquet_t *parquet, uint64_t row_group,
                               uint64_t column,
                               gds_parquet_chunk_t *chunk_out) GDS_NOEXCEPT;

/**
 * Export the names and Arrow types of all top-level columns: a struct of them.
 *
 * @param schema_out  overwritten; call its release() once.
 * @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
 *         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
 *         Parquet; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_schema(const gds_parquet_t *parquet,
                                struct ArrowSchema *schema_out) GDS_NOEXCEPT;

/**
 * Tell what a selection leaves, and what loading it would read. Reads page indexes and
 * bloom filters when the selection has rows or conditions.
 *
 * @param selection    NULL: everything.
 * @param outline_out  struct_size set.
 * @return as gds_parquet_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_outline(const gds_parquet_t *parquet,
                                 const gds_parquet_selection_t *selection,
                                 gds_parquet_outline_t *outline_out) GDS_NOEXCEPT;

/**
 * Load chosen columns of chosen rows into device memory, decoded, and wait.
 *
 * Only their pages are read. The columns have one batch. Pages with a wrong CRC are
 * GDS_STATUS_CORRUPTED. Strings have offsets of 32 bits; a column of more than 2 GiB has
 * offsets of 64.
 *
 * @param selection    NULL: everything.
 * @param columns_out  give it to gds_columns_close() once.
 * @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_OUT_OF_RANGE: no such
 *         row or row group; GDS_STATUS_CORRUPTED: gds_last_error() has the offset of the
 *         page or column chunk; GDS_STATUS_INVALID_ARGUMENT: also for a column whose key
 *         is missing; GDS_STATUS_OUT_OF_HOST_MEMORY: decoding takes more than
 *         memory_limit; GDS_STATUS_OUT_OF_DEVICE_MEMORY: also when texts take more;
 *         GDS_STATUS_NOT_SUPPORTED: what the format has and no reader knows, or a build
 *         without Parquet; GDS_STATUS_FILE_CHANGED; GDS_STATUS_IO;
 *         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_load(const gds_parquet_t *parquet,
                              const gds_parquet_selection_t *selection,
                              gds_columns_t **columns_out) GDS_NOEXCEPT;

/**
 * As gds_parquet_load(), row group after row group as they are asked for: for what is
 * larger than memory. No page has been read when this returns.
 *
 * @param stream_out  overwritten; call its release() once. Used by one thread at a time.
 *                    get_next() answers an errno: EINVAL for a damaged file, ENOMEM, ...
 * @return as gds_parquet_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_stream(const gds_parquet_t *parquet,
                                const gds_parquet_selection_t *selection,
                                struct ArrowDeviceArrayStream *stream_out) GDS_NOEXCEPT;

/**
 * As gds_parquet_stream(), for consumers that know ordinary memory alone. On the host
 * device only.
 *
 * @return GDS_STATUS_NOT_SUPPORTED: the context is on a GPU; else as gds_parquet_load().
 */
GDS_NODISCARD GDS_API
gds_status_t gds_parquet_host_stream(const gds_parquet_t *parquet,
                                     const gds_parquet_selection_t *selection,
                                     struct ArrowArrayStream *stream_out) GDS_NOEXCEPT;

/** Close a reader. NULL and closed handles are fine. What was loaded stays. */
GDS_API void gds_parquet_close(gds_parquet_t *parquet) GDS_NOEXCEPT;

#define GDS_PARQUET_KEYS_INIT                                                              \
    { sizeof(gds_parquet_keys_t), 0, NULL, 0, NULL, 0, NULL, 0 }
#define GDS_PARQUET_INFO_INIT { sizeof(gds_parquet_info_t), 0, 0, 0, 0, 0, 0, 0, NULL }
#define GDS_PARQUET_COLUMN_INIT                                                            \
    { sizeof(gds_parquet_column_t), 0, 0, 0, 0, 0, NULL, NULL, NULL }
#define GDS_PARQUET_ROW_GROUP_INIT { sizeof(gds_parquet_row_group_t), 0, 0, 0, 0, 0 }
#define GDS_PARQUET_CHUNK_INIT                                                             \
    { sizeof(gds_parquet_chunk_t), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL }
#define GDS_PARQUET_SELECTION_INIT                                                         \
    { sizeof(gds_parquet_selection_t), 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, 0 }
#define GDS_PARQUET_OUTLINE_INIT { sizeof(gds_parquet_outline_t), 0, 0, 0, 0 }

/* ==== Explanation ===================================================================== */

/**
 * Explain in text which way a large read of a file would take, and what each better way
 * lacks.
 *
 * The file is opened for reading and asked, not read. For people; the words change between
 * versions.
 *
 * @param path        NUL-terminated.
 * @param text_out    receives the text with its NUL. May be NULL if capacity is 0, to ask
 *                    for the size alone.
 * @param capacity    bytes at text_out.
 * @param needed_out  bytes that the text takes, NUL included; written with
 *                    GDS_STATUS_BUFFER_TOO_SMALL as well. May be NULL.
 * @return GDS_STATUS_BUFFER_TOO_SMALL: the text does not fit; what gds_file_open() answers.
 */
GDS_NODISCARD GDS_API
gds_status_t gds_explain(const gds_context_t *context, const char *path, char *text_out,
                         uint64_t capacity, uint64_t *needed_out) GDS_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* GDS_RS_H */
