//! Contexts: one device with its transfer threads and staging memory.

use super::config;
use super::convert::{self, AbiStruct, StructOut};
use super::device;
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::log;
use super::status::gds_status_t;
use super::types::{
    gds_config_t, gds_context_t, gds_device_info_t, gds_direction_metrics_t, gds_log_level_t,
    gds_metrics_t, gds_performance_t,
};
use crate::config::Config;
use crate::engine::Context;
use crate::error::Result;
use crate::metrics::{self, DirectionSnapshot, Snapshot};

impl Handle for gds_context_t {
    type Object = Context;
    const TAG: u32 = 0x4744_0001;
    const NAME: &'static str = "gds_context_t";
}

const NO_DIRECTION: gds_direction_metrics_t = gds_direction_metrics_t {
    bytes: 0,
    operations: 0,
    errors: 0,
    latency_mean_ns: 0,
    latency_p50_ns: 0,
    latency_p99_ns: 0,
    latency_p999_ns: 0,
    latency_max_ns: 0,
};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_metrics_t {
    const NAME: &'static str = "gds_metrics_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            elapsed_ns: 0,
            buffer_waits: 0,
            active_buffers: 0,
            retries: 0,
            fallbacks: 0,
            read: NO_DIRECTION,
            write: NO_DIRECTION,
            path_bytes: [0; 16],
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, numbers only.
unsafe impl AbiStruct for gds_performance_t {
    const NAME: &'static str = "gds_performance_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            read_target_met: 0,
            write_target_met: 0,
            latency_target_met: 0,
            read_bytes_per_second: 0.0,
            write_bytes_per_second: 0.0,
            read_latency_us: 0.0,
            read_target_bytes_per_second: metrics::TARGET_READ_BYTES_PER_SECOND,
            write_target_bytes_per_second: metrics::TARGET_WRITE_BYTES_PER_SECOND,
            read_latency_target_us: metrics::TARGET_LATENCY_US,
        }
    }
}

const _: () = assert!(size_of::<gds_metrics_t>() == 304 && size_of::<gds_performance_t>() == 64);
const _: () = assert!(metrics::PATHS <= 16);

/// A handle of C over a context of Rust, for programs that have both. Keeps the context; to be
/// given to `gds_context_close` once.
///
/// # Errors
/// After a fork, and `OutOfHostMemory`.
pub fn handle_of(context: &Context) -> Result<*mut gds_context_t> {
    handle::open(context.clone()).map_err(|failure| failure.error)
}

/// Open a context: choose the device and ready what transfers need.
///
/// With CUDA this retains the device's primary context, the one that the CUDA runtime uses,
/// and leaves the caller's current context as it is. It loads libcuda at run time and waits
/// for the driver for probe_timeout_ms at most. A process may open several contexts. Any
/// thread.
///
/// @param config       NULL: the balanced profile with the environment's GDS_* variables.
///                     Otherwise taken as it is; see gds_config_environment().
/// @param context_out  give it to gds_context_close() once.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field or variable;
///         GDS_STATUS_NO_DEVICE, GDS_STATUS_DRIVER_MISSING, GDS_STATUS_DRIVER_TOO_OLD,
///         GDS_STATUS_DRIVER_TIMEOUT, GDS_STATUS_CUDA: that device cannot be used;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_context_open(
    config: *const gds_config_t,
    context_out: *mut *mut gds_context_t,
) -> gds_status_t {
    guard(|| {
        convert::check_pointer(context_out, "context_out")?;
        handle::not_forked()?;
        let config = if config.is_null() {
            Config::default().with_environment()?
        } else {
            // SAFETY: the caller gives a struct of struct_size bytes.
            config::of_c(&unsafe { convert::read_struct(config)? })?
        };
        let context = Context::open(config)?;
        let text = format!(
            "opened {} with {}",
            context.device().info().name,
            context.io_name()
        );
        log::write(gds_log_level_t::GDS_LOG_LEVEL_INFO, &text);
        // SAFETY: checked above.
        unsafe { context_out.write(handle::open(context)?) };
        Ok(())
    })
}

/// Close a context. NULL and closed handles are fine.
///
/// What was made in it stays usable: files, buffers and tickets hold what they need, and the
/// last of them ends the transfer threads and waits for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_context_close(context: *mut gds_context_t) {
    guard_void(|| handle::close(context));
}

/// Tell which device a context uses.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_context_device(
    context: *const gds_context_t,
    info_out: *mut gds_device_info_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(device::to_c(context.device().info()));
        Ok(())
    })
}

/// Read the counters of a context. They never stop the transfers.
///
/// The numbers are each right by themselves, but not all of one instant.
///
/// @param metrics_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_context_metrics(
    context: *const gds_context_t,
    metrics_out: *mut gds_metrics_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(metrics_out)? };
        place.write(metrics_to_c(&context.metrics()));
        Ok(())
    })
}

/// Compare what a context measured since it was opened with the targets of the library.
///
/// @param performance_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_context_performance(
    context: *const gds_context_t,
    performance_out: *mut gds_performance_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(performance_out)? };
        let measured = context.metrics().performance();
        place.write(gds_performance_t {
            read_target_met: u32::from(measured.read_target_met),
            write_target_met: u32::from(measured.write_target_met),
            latency_target_met: u32::from(measured.latency_target_met),
            read_bytes_per_second: measured.read_bytes_per_second,
            write_bytes_per_second: measured.write_bytes_per_second,
            read_latency_us: measured.read_latency_us,
            ..gds_performance_t::initial()
        });
        Ok(())
    })
}

fn metrics_to_c(snapshot: &Snapshot) -> gds_metrics_t {
    let mut path_bytes = [0; 16];
    path_bytes[..metrics::PATHS].copy_from_slice(&snapshot.path_bytes);
    gds_metrics_t {
        elapsed_ns: snapshot.elapsed_ns,
        buffer_waits: snapshot.buffer_waits,
        active_buffers: snapshot.active_buffers,
        retries: snapshot.retries,
        fallbacks: snapshot.fallbacks,
        read: direction_to_c(&snapshot.read),
        write: direction_to_c(&snapshot.write),
        path_bytes,
        ..gds_metrics_t::initial()
    }
}

fn direction_to_c(direction: &DirectionSnapshot) -> gds_direction_metrics_t {
    gds_direction_metrics_t {
        bytes: direction.bytes,
        operations: direction.operations,
        errors: direction.errors,
        latency_mean_ns: direction.latency.mean_ns,
        latency_p50_ns: direction.latency.p50_ns,
        latency_p99_ns: direction.latency.p99_ns,
        latency_p999_ns: direction.latency.p999_ns,
        latency_max_ns: direction.latency.max_ns,
    }
}
