//! What the user sees: lines on standard output, failures on standard error, numbers in words.

use std::fmt;
use std::io::{self, Write};

use crate::engine::Path;
use crate::error::{Error, ErrorKind};

/// How a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line or the environment asks for something that makes no sense.
    Usage(Error),
    /// It did not work.
    Failed(Error),
    /// The reader of our output went away.
    Closed,
}

/// Result of a command or of a part of one.
pub(super) type Outcome<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// The same failure, as one of the command line.
    pub(super) fn into_usage(self) -> Self {
        match self {
            Self::Failed(error) => Self::Usage(error),
            other => other,
        }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Closed => 0,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.kind() == ErrorKind::InvalidConfig {
            Self::Usage(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) | Self::Failed(error) => {
                // One line, whatever a path or a driver put into the message.
                f.write_str(&error.message().replace(['\n', '\r'], " "))
            }
            Self::Closed => f.write_str("the reader of the output went away"),
        }
    }
}

/// An error of the operating system while doing `what`.
pub(super) fn os_error(error: &io::Error, what: impl fmt::Display) -> Failure {
    match error.raw_os_error() {
        Some(errno) => Error::os(errno, what).into(),
        None => Error::new(ErrorKind::Io, format!("{what}: {error}")).into(),
    }
}

/// Prints text and a line end, at once.
pub(super) fn say(text: impl fmt::Display) -> Outcome {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Closed),
        Err(error) => Err(os_error(&error, "write to standard output")),
    }
}

/// Prints a JSON value on lines of its own.
pub(super) fn say_json(value: &serde_json::Value) -> Outcome {
    say(format_args!("{value:#}"))
}

/// Prints a note that is no result. Nobody may be there to read it, so failing is no failure.
pub(super) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints why the command failed.
pub(super) fn complain(failure: &Failure) {
    note(format_args!("gds: {failure}"));
}

/// "152.4 MB": decimal units, as disks and links are sold.
pub(super) fn bytes_text(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} bytes");
    }
    format!("{value:.1} {}", units[unit])
}

/// "64K", "1M": powers of 1024 where they fit, as sizes are written on the command line.
pub(super) fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Bytes a second over 10^9.
pub(super) fn gigabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds.max(1e-9) / 1e9
}

/// "12.3 us", "4.56 ms".
pub(super) fn time_text(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// "1.23 M", "456 k", "789".
pub(super) fn count_text(count: f64) -> String {
    if count >= 1e6 {
        format!("{:.2} M", count / 1e6)
    } else if count >= 10e3 {
        format!("{:.0} k", count / 1e3)
    } else {
        format!("{count:.0}")
    }
}

/// Names of the paths in a bit mask, joined by "+".
pub(super) fn paths_text(mask: u32) -> String {
    let names: Vec<&str> = Path::ALL
        .iter()
        .filter(|path| mask & (1 << **path as u32) != 0)
        .map(|path| path.name())
        .collect();
    if names.is_empty() {
        return Path::None.name().to_owned();
    }
    names.join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes_text(999), "999 bytes");
        assert_eq!(bytes_text(152_350_000), "152.3 MB");
        assert_eq!(bytes_text(999_960), "1.0 MB");
        assert_eq!(bytes_text(u64::MAX), "18.4 EB");
        assert_eq!(
            (size_text(4096), size_text(5000)),
            ("4K".into(), "5000".into())
        );
        assert_eq!(size_text(64 << 20), "64M");
        assert_eq!(time_text(12_340), "12.3 us");
        assert_eq!(count_text(1_234_000.0), "1.23 M");
        assert_eq!(paths_text(0), "none");
        assert_eq!(paths_text(1 << 3 | 1 << 4), "bounce+page-cache");
    }

    #[test]
    fn a_failure_is_one_line_and_has_its_code() {
        let failed = Failure::from(Error::new(ErrorKind::NotFound, "a\nb"));
        assert_eq!((failed.to_string(), failed.code()), ("a b".to_owned(), 1));
        let usage = Failure::from(Error::new(ErrorKind::InvalidConfig, "x"));
        assert_eq!(usage.code(), 2);
    }
}
