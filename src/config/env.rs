//! Environment variables: each overrides one field of a configuration.

use super::{Config, DEVICE_AUTO, DEVICE_HOST, PathPolicy, Profile};
use crate::error::{Error, ErrorKind, Result};

/// The variables and what each holds, for help texts and documentation.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        "GDS_PROFILE",
        "low-latency, high-throughput or balanced; the other variables refine it",
    ),
    (
        "GDS_BUFFER_SIZE",
        "pinned staging memory of each transfer thread, bytes (64K, 16M, ...)",
    ),
    ("GDS_ALIGNMENT", "least alignment of direct I/O, bytes"),
    ("GDS_PREFETCH_SLOTS", "chunks read ahead at once"),
    (
        "GDS_MAX_OUTSTANDING_IO",
        "operations in flight on each transfer thread",
    ),
    ("GDS_DOUBLE_BUFFERING", "0 or 1"),
    (
        "GDS_PREFETCH_DISTANCE",
        "how far ahead a prefetcher reads, bytes",
    ),
    ("GDS_DEVICE", "auto, host, cuda:N or N"),
    ("GDS_BATCH_MODE", "0 or 1"),
    ("GDS_MAX_BATCH_SIZE", "operations in one submission"),
    (
        "GDS_POLL_INTERVAL_US",
        "how long a waiting thread looks before it sleeps, microseconds",
    ),
    (
        "GDS_MMAP_FALLBACK",
        "0 or 1: whether a refused path may be replaced",
    ),
    ("GDS_IO_THREADS", "transfer threads, 0 for automatic"),
    ("GDS_MAX_RETRIES", "further tries after a transient error"),
    (
        "GDS_BACKOFF_MS",
        "pause before the first retry, milliseconds",
    ),
    (
        "GDS_PROBE_TIMEOUT_MS",
        "how long the CUDA driver may take to answer, milliseconds",
    ),
    ("GDS_PATH", "auto, cufile, direct or buffered"),
    ("GDS_CHECKSUM", "0 or 1: CRC32C of every transfer"),
];

impl Config {
    /// This configuration with the environment's `GDS_*` variables laid over it.
    ///
    /// # Errors
    /// `InvalidConfig` naming the variable and its value. Rules between fields are checked by
    /// `validate`, not here.
    pub fn with_environment(self) -> Result<Self> {
        self.with_variables(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// As `with_environment`, from any source of variables.
    ///
    /// # Errors
    /// As `with_environment`.
    pub fn with_variables(mut self, get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some(text) = get("GDS_PROFILE") {
            self = Self {
                gpu_device: self.gpu_device,
                ..Self::profile(parse_profile(&text)?)
            };
        }
        let c = &mut self;
        set(&get, "GDS_BUFFER_SIZE", &mut c.buffer_size, parse_size)?;
        set(&get, "GDS_ALIGNMENT", &mut c.alignment, parse_size)?;
        set(
            &get,
            "GDS_PREFETCH_SLOTS",
            &mut c.prefetch_slots,
            parse_number,
        )?;
        set(
            &get,
            "GDS_MAX_OUTSTANDING_IO",
            &mut c.max_outstanding_io,
            parse_number,
        )?;
        set(
            &get,
            "GDS_DOUBLE_BUFFERING",
            &mut c.double_buffering,
            parse_switch,
        )?;
        set(
            &get,
            "GDS_PREFETCH_DISTANCE",
            &mut c.prefetch_distance,
            parse_size,
        )?;
        set(&get, "GDS_DEVICE", &mut c.gpu_device, parse_device)?;
        set(&get, "GDS_BATCH_MODE", &mut c.batch_mode, parse_switch)?;
        set(
            &get,
            "GDS_MAX_BATCH_SIZE",
            &mut c.max_batch_size,
            parse_number,
        )?;
        set(
            &get,
            "GDS_POLL_INTERVAL_US",
            &mut c.poll_interval_us,
            parse_number,
        )?;
        set(
            &get,
            "GDS_MMAP_FALLBACK",
            &mut c.mmap_fallback,
            parse_switch,
        )?;
        set(&get, "GDS_IO_THREADS", &mut c.io_threads, parse_number)?;
        set(&get, "GDS_MAX_RETRIES", &mut c.max_retries, parse_number)?;
        set(&get, "GDS_BACKOFF_MS", &mut c.backoff_ms, parse_number)?;
        set(
            &get,
            "GDS_PROBE_TIMEOUT_MS",
            &mut c.probe_timeout_ms,
            parse_number,
        )?;
        set(&get, "GDS_PATH", &mut c.path, parse_path)?;
        set(&get, "GDS_CHECKSUM", &mut c.checksum, parse_switch)?;
        Ok(self)
    }
}

fn set<T>(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    field: &mut T,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<()> {
    let Some(text) = get(name) else { return Ok(()) };
    *field = parse(text.trim()).ok_or_else(|| bad(name, &text))?;
    Ok(())
}

fn bad(name: &str, text: &str) -> Error {
    let holds = VARIABLES
        .iter()
        .find(|(n, _)| *n == name)
        .map_or("", |(_, h)| h);
    Error::new(
        ErrorKind::InvalidConfig,
        format!("{name}={text} is not understood; it holds {holds}"),
    )
}

fn parse_profile(text: &str) -> Result<Profile> {
    match text.trim() {
        "low-latency" => Ok(Profile::LowLatency),
        "high-throughput" => Ok(Profile::HighThroughput),
        "balanced" => Ok(Profile::Balanced),
        _ => Err(bad("GDS_PROFILE", text)),
    }
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Reads bytes: a number, with K, M, G or T (powers of 1024), with or without iB or B.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Some(true),
        "0" | "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// Reads a device: `auto`, `host`, `cuda` (0), `cuda:N` or `N`.
#[must_use]
pub fn parse_device(text: &str) -> Option<i32> {
    match text {
        "auto" => Some(DEVICE_AUTO),
        "host" => Some(DEVICE_HOST),
        "cuda" => Some(0),
        _ => {
            let ordinal: u16 = text.strip_prefix("cuda:").unwrap_or(text).parse().ok()?;
            Some(i32::from(ordinal))
        }
    }
}

/// Reads a path policy: `auto`, `cufile`, `direct` or `buffered`.
#[must_use]
pub fn parse_path(text: &str) -> Option<PathPolicy> {
    match text {
        "auto" => Some(PathPolicy::Auto),
        "cufile" => Some(PathPolicy::CuFile),
        "direct" => Some(PathPolicy::Direct),
        "buffered" => Some(PathPolicy::Buffered),
        _ => None,
    }
}
