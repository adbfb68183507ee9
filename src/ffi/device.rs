//! Devices: how many there are, and what they are.

use std::time::Duration;

use super::convert::{self, AbiStruct, StructOut};
use super::guard::guard;
use super::status::gds_status_t;
use super::types::gds_device_info_t;
use crate::config::{Config, DEVICE_HOST};
use crate::device::{self, DeviceInfo};
use crate::error::{Error, ErrorKind};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_device_info_t {
    const NAME: &'static str = "gds_device_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            ordinal: 0,
            memory_bytes: 0,
            driver_version: 0,
            compute_capability: 0,
            register_read_only: 0,
            stream_order: 0,
            name: [0; 128],
        }
    }
}

const _: () = assert!(size_of::<gds_device_info_t>() == 160);

/// Count the CUDA devices that work here. 0 without a driver or a GPU, which is no failure.
///
/// Ordinals 0 to the count less one go to gds_device_info() and gpu_device. The first call
/// loads the CUDA driver and waits for it, for probe_timeout_ms at most
/// (GDS_PROBE_TIMEOUT_MS sets it, 20 seconds otherwise). Makes no CUDA context. Any thread.
///
/// @return GDS_STATUS_INVALID_ARGUMENT: count_out is NULL or misaligned;
///         GDS_STATUS_INVALID_CONFIG: a GDS_* variable cannot be read.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_device_count(count_out: *mut u32) -> gds_status_t {
    guard(|| {
        convert::check_pointer(count_out, "count_out")?;
        let (devices, _) = device::list(probe_timeout()?);
        let cuda = devices
            .iter()
            .filter(|info| info.ordinal != DEVICE_HOST)
            .count();
        // SAFETY: checked above.
        unsafe { count_out.write(u32::try_from(cuda).unwrap_or(u32::MAX)) };
        Ok(())
    })
}

/// Tell what a device is.
///
/// @param ordinal   CUDA ordinal, or GDS_DEVICE_HOST.
/// @param info_out  struct_size set.
/// @return GDS_STATUS_NO_DEVICE: there is no such device; GDS_STATUS_DRIVER_MISSING,
///         GDS_STATUS_DRIVER_TOO_OLD, GDS_STATUS_DRIVER_TIMEOUT, GDS_STATUS_CUDA: why CUDA
///         does not work; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_device_info(
    ordinal: i32,
    info_out: *mut gds_device_info_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let (devices, why) = device::list(probe_timeout()?);
        let Some(info) = devices.iter().find(|info| info.ordinal == ordinal) else {
            return Err(why
                .filter(|_| ordinal >= 0)
                .unwrap_or_else(|| missing(ordinal))
                .into());
        };
        place.write(to_c(info));
        Ok(())
    })
}

fn missing(ordinal: i32) -> Error {
    Error::new(
        ErrorKind::NoDevice,
        format!("there is no device {ordinal}; gds_device_count() says how many there are"),
    )
}

fn probe_timeout() -> crate::error::Result<Duration> {
    let config = Config::default().with_environment()?;
    Ok(Duration::from_millis(u64::from(config.probe_timeout_ms)))
}

/// The struct of the header.
pub(crate) fn to_c(info: &DeviceInfo) -> gds_device_info_t {
    gds_device_info_t {
        struct_size: 0,
        ordinal: info.ordinal,
        memory_bytes: info.memory_bytes,
        driver_version: info.driver_version,
        compute_capability: info.compute_capability,
        register_read_only: u32::from(info.register_read_only),
        stream_order: u32::from(info.stream_order),
        name: convert::chars(&info.name),
    }
}
