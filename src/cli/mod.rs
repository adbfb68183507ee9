//! The `gds` command: asks the machine, moves files and measures, all over the Rust API.
//!
//! Results go to standard output, progress and errors to standard error. Exit code 0: done; 1: it
//! failed, with one line that says why; 2: the command line or a `GDS_*` variable is wrong. Nothing
//! here decides a path or touches memory; no figure is printed that was not measured in the same
//! run. An existing file is never overwritten in place unless the user asks for just that.
//! Guarded by `tests/cli_*.rs`, which run the built command.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod copy;
mod demo;
mod explain;
mod inspect;
mod kv;
mod load;
mod output;
mod progress;
mod pump;
mod read;
mod scratch;
mod selftest;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config, DEVICE_AUTO};
use crate::device;
use crate::engine::Context;
use crate::error::{Error, ErrorKind};
use crate::io::cufile;
use output::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(
    name = "gds",
    version,
    about = "Moves files between storage and device memory, and measures it",
    propagate_version = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Global {
    /// Device: auto (CUDA device 0 when it works, else the host), host, or cuda:N
    #[arg(long, global = true, value_name = "DEVICE", value_parser = parse_device)]
    device: Option<i32>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// No progress on standard error
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what this machine can do, and what to do about each lack
    Check(check::CheckArgs),
    /// Say which way a file's bytes would take to the device, and why not a better one
    Explain(explain::ExplainArgs),
    /// Move a real file into device memory, cold and warm, and verify every byte
    Demo(demo::DemoArgs),
    /// Copy a file through device memory
    Cp(copy::CopyArgs),
    /// Read a file into device memory in bounded space
    Read(read::ReadArgs),
    /// Say what a file of a known format holds
    Inspect(inspect::InspectArgs),
    /// Load named parts of a file of a known format into device memory, and verify them
    Load(load::LoadArgs),
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Keep values under keys, durably, in a file or on a block device
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Try the key-value store of this build against crashes
    Selftest(selftest::SelftestArgs),
    /// Measure every target of the specification beside the limit of this machine
    Validate(validate::ValidateArgs),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// File transfers: patterns, sizes, depths, threads and paths
    Io(Box<bench::IoArgs>),
    /// A file in chunks through a few buffers, beside the engine's read of it
    Stream(bench::stream::StreamArgs),
    /// The page cache over a file: cost of hits, misses a second, hit rates
    Cache(bench::cache::CacheArgs),
    /// Files of known formats, loaded into device memory, beside a plain read of them
    Formats(bench::formats::FormatsArgs),
}

/// Runs the command with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the command with these arguments, the first being the name of the program.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = Cli::command()
        .after_long_help(environment_help())
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and go to standard output with code 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(code.max(1)),
            };
        }
    };
    let global = &cli.global;
    let outcome = match &cli.command {
        Command::Check(args) => check::run(global, args),
        Command::Explain(args) => explain::run(global, args),
        Command::Demo(args) => demo::run(global, args),
        Command::Cp(args) => copy::run(global, args),
        Command::Read(args) => read::run(global, args),
        Command::Inspect(args) => inspect::run(global, args),
        Command::Load(args) => load::run(global, args),
        Command::Bench(Bench::Io(args)) => bench::run(global, args),
        Command::Bench(Bench::Stream(args)) => bench::stream::run(global, args),
        Command::Bench(Bench::Cache(args)) => bench::cache::run(global, args),
        Command::Bench(Bench::Formats(args)) => bench::formats::run(global, args),
        Command::Kv(command) => kv::run(global, command),
        Command::Selftest(args) => selftest::run(global, args),
        Command::Validate(args) => validate::run(global, args),
    };
    match outcome {
        // Whoever read our output has seen enough.
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}

impl Global {
    /// The configuration: defaults, then the environment, then the command line.
    fn config(&self) -> Outcome<Config> {
        let mut config = Config::default().with_environment()?;
        if let Some(device) = self.device {
            config.gpu_device = device;
        }
        config.validate()?;
        Ok(config)
    }

    /// Opens a context on the chosen device.
    fn context(&self) -> Outcome<Context> {
        Ok(Context::open(self.config()?)?)
    }

    /// Why `auto` came to the host, where it did.
    fn why_host(&self, context: &Context) -> Option<Error> {
        let config = context.config();
        if config.gpu_device != DEVICE_AUTO || !context.device().is_host() {
            return None;
        }
        let timeout = std::time::Duration::from_millis(u64::from(config.probe_timeout_ms));
        device::open_auto(timeout).1
    }
}

fn environment_help() -> String {
    let mut text = "Environment (the command line wins):\n".to_owned();
    for (name, holds) in config::VARIABLES {
        text.push_str(&format!("  {name:<24}{holds}\n"));
    }
    let (name, holds) = (cufile::LIBRARY_VARIABLE, "path of the libcufile to load");
    text.push_str(&format!("  {name:<24}{holds}\n"));
    text
}

fn parse_device(text: &str) -> Result<i32, String> {
    config::parse_device(text).ok_or_else(|| "a device is auto, host, cuda:N or N".to_owned())
}

/// A size of at least one byte.
fn parse_size(text: &str) -> Result<u64, String> {
    match config::parse_size(text) {
        Some(size) if size > 0 => Ok(size),
        _ => Err("a size is a number above 0, with K, M, G or T (powers of 1024)".to_owned()),
    }
}

/// An offset: as a size, and 0 is one.
fn parse_offset(text: &str) -> Result<u64, String> {
    config::parse_size(text)
        .ok_or_else(|| "an offset is a number, with K, M, G or T (powers of 1024)".to_owned())
}

/// A size of a piece that is moved at once: 4 KiB to 16 GiB.
fn parse_chunk(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Ok(size) if (4 << 10..=16 << 30).contains(&size) => Ok(size),
        Ok(_) => Err("a chunk has 4K to 16G".to_owned()),
        Err(error) => Err(error),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::Failed(Error::new(ErrorKind::InvalidArgument, message)).into_usage()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units_and_are_above_zero() {
        assert_eq!(parse_size("4K"), Ok(4096));
        assert_eq!(parse_chunk("64MiB"), Ok(64 << 20));
        for bad in ["", "0", "-1", "4X", "1.5M", "99999999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_chunk("512").is_err() && parse_chunk("1T").is_err());
        assert_eq!(parse_offset("0"), Ok(0));
    }
}
