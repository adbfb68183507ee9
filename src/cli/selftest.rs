//! `gds selftest`: the crash check that ships with the library, over this build of the store.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::Global;
use super::output::{Outcome, note, say, say_json};
use crate::base::clock::now_ns;
use crate::error::{Error, ErrorKind};
use crate::kv::selftest::crash_images;

/// Disks between two notes of how far it is.
const NOTE_EVERY: u64 = 5000;

/// Arguments of `gds selftest`.
#[derive(Debug, Args)]
pub(super) struct SelftestArgs {
    /// Disks that a crash may leave to look at: each is opened and compared with what was
    /// acknowledged
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    crash_images: u64,
    /// Decides the workloads and what each crash loses; from the clock when not given
    #[arg(long)]
    seed: Option<u64>,
}

pub(super) fn run(global: &Global, args: &SelftestArgs) -> Outcome {
    let seed = args.seed.unwrap_or_else(|| now_ns() % 1_000_000_000);
    if !global.json {
        say(format_args!("seed {seed}"))?;
    }
    let began = Instant::now();
    let mut noted = 0;
    let summary = crash_images(args.crash_images, seed, &mut |images| {
        if !global.quiet && images >= noted + NOTE_EVERY {
            noted = images;
            note(format_args!("{images} of {} images", args.crash_images));
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    if global.json {
        say_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": seed,
            "workloads": summary.workloads,
            "moments": summary.moments,
            "images": summary.images,
            "seconds": seconds,
            "failure": summary.failure.as_ref().map(|failure| json!({
                "seed": failure.workload.seed,
                "what": failure.what,
            })),
        }))?;
    } else {
        say(format_args!(
            "{} crash images of {} workloads in {seconds:.1} s: {}",
            summary.images,
            summary.workloads,
            match &summary.failure {
                None => "each opened and held what was acknowledged",
                Some(_) => "one was wrong",
            }
        ))?;
    }
    let Some(failure) = summary.failure else {
        return Ok(());
    };
    let message = format!(
        "after {} images, seed {}: {}; `gds selftest --crash-images 1000 --seed {}` runs that \
         workload first; report it",
        summary.images, failure.workload.seed, failure.what, failure.workload.seed
    );
    Err(Error::new(ErrorKind::Corrupted, message).into())
}
