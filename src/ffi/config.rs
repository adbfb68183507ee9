//! Configurations: defaults, profiles, the environment, and the way to the Rust type.

use core::ffi::c_void;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::guard;
use super::status::gds_status_t;
use super::types::{gds_config_t, gds_path_policy_t as Policy, gds_profile_t};
use crate::config::{Config, PathPolicy, Profile};
use crate::error::{Error, ErrorKind};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_config_t {
    const NAME: &'static str = "gds_config_t";
    fn initial() -> Self {
        to_c(&Config::default())
    }
}

const _: () = assert!(size_of::<gds_config_t>() == 88);

/// Fill a configuration with the balanced profile, as GDS_CONFIG_INIT does.
///
/// For programs that do not use the header's macros. Touches no device and no file. The
/// environment is not looked at, see gds_config_environment(). Any thread.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_config_init(config_out: *mut c_void, size: usize) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_config_t::initial()) }
    })
}

/// Fill a configuration with a tuning profile; every field but struct_size is replaced.
///
/// @param profile     a gds_profile_t.
/// @param config_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT: unknown profile, or config_out is NULL or
///         misaligned; GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_config_profile(
    profile: i32,
    config_out: *mut gds_config_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(config_out)? };
        place.write(to_c(&Config::profile(profile_of(profile)?)));
        Ok(())
    })
}

/// Lay the environment's GDS_* variables over a configuration.
///
/// GDS_PROFILE first replaces every field but gpu_device, then each variable its own field.
/// A context opened without a configuration does this by itself. Not to be called while
/// another thread changes the environment.
///
/// @param config  as gds_config_init() left it, or changed; left alone on failure.
/// @return GDS_STATUS_INVALID_CONFIG: a variable cannot be read, the message names it;
///         GDS_STATUS_INVALID_ARGUMENT: NULL or misaligned; GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_config_environment(config: *mut gds_config_t) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a struct of struct_size bytes.
        let given = unsafe { convert::read_struct(config.cast_const())? };
        // SAFETY: as above.
        let place = unsafe { StructOut::new(config)? };
        place.write(to_c(&of_c(&given)?.with_environment()?));
        Ok(())
    })
}

/// Check every field of a configuration, as gds_context_open() will.
///
/// @return GDS_STATUS_INVALID_CONFIG: the message names the first field that breaks its
///         rule, its value and the rule; GDS_STATUS_INVALID_ARGUMENT: NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_config_validate(config: *const gds_config_t) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a struct of struct_size bytes.
        let given = unsafe { convert::read_struct(config)? };
        Ok(of_c(&given)?.validate()?)
    })
}

fn profile_of(value: i32) -> Outcome<Profile> {
    const ALL: [(gds_profile_t, Profile); 3] = [
        (gds_profile_t::GDS_PROFILE_BALANCED, Profile::Balanced),
        (gds_profile_t::GDS_PROFILE_LOW_LATENCY, Profile::LowLatency),
        (
            gds_profile_t::GDS_PROFILE_HIGH_THROUGHPUT,
            Profile::HighThroughput,
        ),
    ];
    let found = ALL.iter().find(|(number, _)| *number as i32 == value);
    found.map(|(_, profile)| *profile).ok_or_else(|| {
        Failure::argument(format!(
            "profile is {value}; it must be a gds_profile_t, 0 to 2"
        ))
    })
}

/// The policy that a number of C stands for; `None` leaves it open. `Err` holds the rule.
pub(crate) fn policy_of(value: i32) -> std::result::Result<Option<PathPolicy>, String> {
    const ALL: [(Policy, Option<PathPolicy>); 5] = [
        (Policy::GDS_PATH_POLICY_DEFAULT, None),
        (Policy::GDS_PATH_POLICY_AUTO, Some(PathPolicy::Auto)),
        (Policy::GDS_PATH_POLICY_CUFILE, Some(PathPolicy::CuFile)),
        (Policy::GDS_PATH_POLICY_DIRECT, Some(PathPolicy::Direct)),
        (Policy::GDS_PATH_POLICY_BUFFERED, Some(PathPolicy::Buffered)),
    ];
    let found = ALL.iter().find(|(number, _)| *number as i32 == value);
    found
        .map(|(_, policy)| *policy)
        .ok_or_else(|| format!("path is {value}; it must be a gds_path_policy_t, 0 to 4"))
}

fn policy_to_c(policy: PathPolicy) -> i32 {
    let number = match policy {
        PathPolicy::Auto => Policy::GDS_PATH_POLICY_AUTO,
        PathPolicy::CuFile => Policy::GDS_PATH_POLICY_CUFILE,
        PathPolicy::Direct => Policy::GDS_PATH_POLICY_DIRECT,
        PathPolicy::Buffered => Policy::GDS_PATH_POLICY_BUFFERED,
    };
    number as i32
}

fn to_c(config: &Config) -> gds_config_t {
    gds_config_t {
        struct_size: 0,
        gpu_device: config.gpu_device,
        buffer_size: config.buffer_size,
        alignment: config.alignment,
        prefetch_distance: config.prefetch_distance,
        poll_interval_us: config.poll_interval_us,
        prefetch_slots: config.prefetch_slots,
        max_outstanding_io: config.max_outstanding_io,
        max_batch_size: config.max_batch_size,
        io_threads: config.io_threads,
        max_retries: config.max_retries,
        backoff_ms: config.backoff_ms,
        probe_timeout_ms: config.probe_timeout_ms,
        path: policy_to_c(config.path),
        double_buffering: u32::from(config.double_buffering),
        batch_mode: u32::from(config.batch_mode),
        mmap_fallback: u32::from(config.mmap_fallback),
        checksum: u32::from(config.checksum),
    }
}

/// The Rust configuration; `Config::validate` checks the rest.
pub(crate) fn of_c(given: &gds_config_t) -> Outcome<Config> {
    let wrong = |rule| Failure::from(Error::new(ErrorKind::InvalidConfig, rule));
    let switch = |name: &str, value: u32| {
        convert::boolean(name, value).map_err(|failure| wrong(failure.error.message().to_owned()))
    };
    let standard = Config::default();
    let depth = or(given.max_outstanding_io, standard.max_outstanding_io);
    Ok(Config {
        gpu_device: given.gpu_device,
        buffer_size: or(given.buffer_size, standard.buffer_size),
        alignment: or(given.alignment, standard.alignment),
        prefetch_distance: given.prefetch_distance,
        poll_interval_us: given.poll_interval_us,
        prefetch_slots: or(given.prefetch_slots, standard.prefetch_slots),
        max_outstanding_io: depth,
        max_batch_size: or(given.max_batch_size, standard.max_batch_size.min(depth)),
        io_threads: given.io_threads,
        max_retries: given.max_retries,
        backoff_ms: given.backoff_ms,
        probe_timeout_ms: or(given.probe_timeout_ms, standard.probe_timeout_ms),
        path: policy_of(given.path)
            .map_err(wrong)?
            .unwrap_or(PathPolicy::Auto),
        double_buffering: switch("double_buffering", given.double_buffering)?,
        batch_mode: switch("batch_mode", given.batch_mode)?,
        mmap_fallback: switch("mmap_fallback", given.mmap_fallback)?,
        checksum: switch("checksum", given.checksum)?,
    })
}

/// 0 stands for the standard value.
fn or<T: Default + PartialEq>(given: T, standard: T) -> T {
    if given == T::default() {
        standard
    } else {
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back_as_it_went() {
        for profile in 0..3 {
            let config = Config::profile(profile_of(profile).unwrap());
            assert_eq!(of_c(&to_c(&config)).unwrap(), config);
        }
        let other = Config {
            gpu_device: 3,
            alignment: 512,
            poll_interval_us: 0,
            io_threads: 7,
            max_retries: 0,
            backoff_ms: 0,
            probe_timeout_ms: 1,
            path: PathPolicy::Direct,
            mmap_fallback: false,
            checksum: true,
            ..Config::default()
        };
        assert_eq!(of_c(&to_c(&other)).unwrap(), other);
    }

    #[test]
    fn zero_picks_the_standard_value_where_zero_is_no_value() {
        let zeros = gds_config_t {
            buffer_size: 0,
            alignment: 0,
            prefetch_slots: 0,
            max_outstanding_io: 0,
            max_batch_size: 0,
            probe_timeout_ms: 0,
            path: 0,
            ..gds_config_t::initial()
        };
        assert_eq!(of_c(&zeros).unwrap(), Config::default());
        let shallow = gds_config_t {
            max_outstanding_io: 4,
            max_batch_size: 0,
            ..zeros
        };
        assert_eq!(of_c(&shallow).unwrap().max_batch_size, 4);
    }

    #[test]
    fn numbers_without_a_meaning_are_named() {
        let message = |change: fn(&mut gds_config_t)| {
            let mut config = gds_config_t::initial();
            change(&mut config);
            let failure = of_c(&config).unwrap_err();
            assert_eq!(failure.status, gds_status_t::GDS_STATUS_INVALID_CONFIG);
            failure.error.message().to_owned()
        };
        assert!(message(|c| c.path = 5).starts_with("path is 5"));
        assert!(message(|c| c.path = -1).starts_with("path is -1"));
        assert!(message(|c| c.checksum = 2).starts_with("checksum is 2"));
        assert!(message(|c| c.batch_mode = 7).starts_with("batch_mode is 7"));
    }
}
