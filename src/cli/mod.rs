//! The `gds` command, over the Rust API.

#![forbid(unsafe_code)]

/// Runs the command with the process's arguments.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
