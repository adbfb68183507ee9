//! The whole store: durability, space, verification, statistics.

use core::ffi::{c_char, c_void};
use std::ptr;

use super::convert::{self, AbiStruct, StructOut};
use super::error::text;
use super::guard::guard;
use super::handle;
use super::status::{self, gds_status_t};
use super::types::{
    gds_kv_latency_t, gds_kv_problem_fn, gds_kv_problem_t, gds_kv_repair_report_t, gds_kv_report_t,
    gds_kv_stats_t, gds_kv_t,
};
use crate::kv::store::{KvStats, Problem, Store};
use crate::metrics::Latency;

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_kv_report_t {
    const NAME: &'static str = "gds_kv_report_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            keys: 0,
            bytes: 0,
            problems: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_kv_repair_report_t {
    const NAME: &'static str = "gds_kv_repair_report_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            was_clean: 0,
            rebuilt: 0,
            reason_status: 0,
            keys: 0,
            lost: 0,
            reason: [0; 256],
            from_summaries: 0,
            uncertain: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, numbers only.
unsafe impl AbiStruct for gds_kv_stats_t {
    const NAME: &'static str = "gds_kv_stats_t";
    fn initial() -> Self {
        stats_to_c(&KvStats::default())
    }
}

const _: () = assert!(size_of::<gds_kv_report_t>() == 32 && size_of::<gds_kv_problem_t>() == 40);
const _: () = assert!(size_of::<gds_kv_stats_t>() == 16 + 46 * 8 + 8 * 40 + 256);
const _: () = assert!(size_of::<gds_kv_repair_report_t>() == 304);

/// Wait until everything that was committed is durable.
///
/// @return GDS_STATUS_POISONED; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_sync(kv: *const gds_kv_t) -> gds_status_t {
    guard(|| Ok(handle::borrow(kv, "kv")?.sync()?))
}

/// Write the index and empty the log, so that the next opening has little to do. The store
/// does so by itself when the log is half full.
///
/// @return GDS_STATUS_NO_SPACE; GDS_STATUS_IO; GDS_STATUS_POISONED;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_checkpoint(kv: *const gds_kv_t) -> gds_status_t {
    guard(|| Ok(handle::borrow(kv, "kv")?.checkpoint()?))
}

/// Move what is alive together, and give free space back to the file system. The store makes
/// room by itself when it needs some.
///
/// @param segments_out  segments that became free. May be NULL.
/// @return as gds_kv_checkpoint().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_compact(
    kv: *const gds_kv_t,
    segments_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(segments_out, "segments_out")?;
        let segments = store.compact()?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(segments_out, segments) };
        Ok(())
    })
}

/// Read everything, compare it with its checksums, and the index with the space that is in
/// use. Reads and writes go on meanwhile.
///
/// @param callback    told of each problem. May be NULL.
/// @param user_data   handed to every call.
/// @param report_out  struct_size set.
/// @return GDS_STATUS_OK: also with problems, the report counts them;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_TIMED_OUT; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_verify(
    kv: *const gds_kv_t,
    callback: gds_kv_problem_fn,
    user_data: *mut c_void,
    report_out: *mut gds_kv_report_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(report_out)? };
        let report = store.verify()?;
        if let Some(call) = callback {
            for problem in &report.first {
                // SAFETY: the caller gave both together.
                unsafe { tell(call, user_data, problem) };
            }
        }
        place.write(gds_kv_report_t {
            keys: report.keys,
            bytes: report.bytes,
            problems: report.problems,
            ..gds_kv_report_t::initial()
        });
        Ok(())
    })
}

/// Make a store usable again that cannot be opened or has damaged values. Make a copy first.
///
/// The index is rebuilt from what can be found; values that are not what was written are
/// dropped and told. A key that was deleted long ago may come back. A store that is well is
/// left alone. It must not be open.
///
/// @param path        a regular file or block device that holds a store.
/// @param callback    told of each value that is lost. May be NULL.
/// @param user_data   handed to every call.
/// @param report_out  struct_size set.
/// @return GDS_STATUS_OK: also when values are lost, the report counts them;
///         GDS_STATUS_UNSUPPORTED_FILE: nothing of a store is left; GDS_STATUS_NO_SPACE;
///         GDS_STATUS_IO: also when it is open; as gds_kv_open();
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_repair(
    path: *const c_char,
    callback: gds_kv_problem_fn,
    user_data: *mut c_void,
    report_out: *mut gds_kv_repair_report_t,
) -> gds_status_t {
    guard(|| {
        handle::not_forked()?;
        // SAFETY: the caller gives a NUL-terminated path.
        let path = unsafe { convert::path(path, "path")? };
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(report_out)? };
        let report = Store::repair(path)?;
        if let Some(call) = callback {
            for problem in &report.lost {
                // SAFETY: the caller gave both together.
                unsafe { tell(call, user_data, problem) };
            }
        }
        let reason = report.reason.as_ref();
        place.write(gds_kv_repair_report_t {
            was_clean: u32::from(report.was_clean),
            rebuilt: u32::from(report.rebuilt),
            reason_status: reason.map_or(0, |error| status::of_kind(error.kind()) as i32),
            keys: report.keys,
            lost: report.lost.len() as u64,
            reason: convert::chars(reason.map_or("", |error| error.message())),
            from_summaries: report.from_summaries,
            uncertain: report.uncertain,
            ..gds_kv_repair_report_t::initial()
        });
        Ok(())
    })
}

/// Tell what a store has counted, and how large it is.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_stats(
    kv: *const gds_kv_t,
    stats_out: *mut gds_kv_stats_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&store.stats()));
        Ok(())
    })
}

/// # Safety
/// `call` may be called with `user_data`.
unsafe fn tell(
    call: unsafe extern "C" fn(*const gds_kv_problem_t, *mut c_void),
    user_data: *mut c_void,
    problem: &Problem,
) {
    let message = text(problem.error.message().as_bytes());
    let given = gds_kv_problem_t {
        struct_size: size_of::<gds_kv_problem_t>() as u32,
        status: status::of_kind(problem.error.kind()) as i32,
        key: match problem.key.is_empty() {
            true => ptr::null(),
            false => problem.key.as_ptr().cast(),
        },
        key_size: problem.key.len() as u64,
        file_offset: problem.error.offset().unwrap_or(u64::MAX),
        message: message.as_ptr(),
    };
    // SAFETY: the caller's promise; what the problem points to lives through the call.
    unsafe { call(&raw const given, user_data) };
}

fn latency_to_c(latency: &Latency) -> gds_kv_latency_t {
    gds_kv_latency_t {
        mean_ns: latency.mean_ns,
        p50_ns: latency.p50_ns,
        p99_ns: latency.p99_ns,
        p999_ns: latency.p999_ns,
        max_ns: latency.max_ns,
    }
}

fn stats_to_c(stats: &KvStats) -> gds_kv_stats_t {
    let error = stats.last_error.as_ref();
    gds_kv_stats_t {
        struct_size: 0,
        poisoned: u32::from(stats.poisoned),
        background_status: error.map_or(0, |error| status::of_kind(error.kind()) as i32),
        reserved: 0,
        keys: stats.keys,
        index_bytes: stats.index_bytes,
        memtable_bytes: stats.memtable_bytes,
        snapshots: stats.snapshots,
        durable_lsn: stats.durable_lsn,
        appended_lsn: stats.appended_lsn,
        segment_bytes: stats.segment_bytes,
        segments: stats.segments,
        segments_free: stats.segments_free,
        segments_meta: stats.segments_meta,
        live_bytes: stats.live_bytes,
        size_bytes: stats.size_bytes,
        pins: stats.pins,
        user_bytes: stats.user_bytes,
        written_bytes: stats.written_bytes,
        write_amplification: stats.write_amplification,
        read_bytes: stats.read_bytes,
        reads: stats.reads,
        writes: stats.writes,
        durable_writes: stats.durable_writes,
        flushes: stats.flushes,
        checkpoints: stats.checkpoints,
        gc_rounds: stats.gc_rounds,
        gc_bytes: stats.gc_bytes,
        cache_hits: stats.cache_hits,
        cache_misses: stats.cache_misses,
        cache_bytes: stats.cache_bytes,
        vectored_reads: stats.vectored_reads,
        vectored_writes: stats.vectored_writes,
        coalesced_writes: stats.coalesced_writes,
        io_uring_ops: stats.io_uring_ops,
        hardware_crc_ops: stats.hardware_crc_ops,
        total_iops: stats.total_iops,
        iops: stats.iops,
        peak_iops: stats.peak_iops,
        wal_vectored_writes: stats.wal_vectored_writes,
        wal_hardware_crc_ops: stats.wal_hardware_crc_ops,
        batched_checksums: stats.batched_checksums,
        wal_records: stats.wal_records,
        wal_commits: stats.wal_commits,
        wal_batches: stats.wal_batches,
        wal_commits_per_batch_max: stats.wal_commits_per_batch_max,
        wal_stalls: stats.wal_stalls,
        wal_used_bytes: stats.wal_used_bytes,
        wal_ring_bytes: stats.wal_ring_bytes,
        read_latency: latency_to_c(&stats.read_latency),
        write_latency: latency_to_c(&stats.write_latency),
        durable_latency: latency_to_c(&stats.durable_latency),
        flush_latency: latency_to_c(&stats.flush_latency),
        wal_sync_latency: latency_to_c(&stats.wal_sync_latency),
        elapsed_ns: stats.elapsed_ns,
        background_error: convert::chars(error.map_or("", |error| error.message())),
        get_latency: latency_to_c(&stats.get_latency),
        put_latency: latency_to_c(&stats.put_latency),
        put_async_latency: latency_to_c(&stats.put_async_latency),
    }
}
