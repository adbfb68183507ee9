//! Rows of formats: a file of each, written, loaded into device memory, and compared with what was
//! written.

use super::super::bench::formats::{Kind, Sample, measure};
use super::super::bench::{Bench, Cache};
use super::super::output::{Outcome, bytes_text};
use super::ValidateArgs;
use super::finding::{Finding, Unit};

/// Sections of ELF files, GB/s: our own goal.
const SECTIONS: f64 = 5.0;
/// What is plain in a file comes as fast as the file: our own goal, with room for noise.
const PLAIN: f64 = 0.95;

pub(super) fn all(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for kind in Kind::ALL {
        let sample = Sample::write(*kind, &args.dir, bench.size() / 4)?;
        let found = measure(bench.context(), &sample, Cache::Warm, args.runs)?;
        let plain = found.plain.median();
        let (name, target) = match kind {
            Kind::Safetensors => ("safetensors, 0.95 of a plain read", PLAIN * plain),
            Kind::Elf => ("ELF sections, page cache", SECTIONS),
            #[cfg(feature = "arrow")]
            Kind::Arrow => ("Arrow columns, 0.95 of a plain read", PLAIN * plain),
            // Decoded, values are more than the file has: the file itself is the measure.
            #[cfg(feature = "parquet")]
            Kind::Parquet => ("Parquet columns, as fast as its file", plain),
        };
        findings.push(Finding {
            name,
            unit: Unit::GigabytesPerSecond,
            target,
            measured: found.rates.median(),
            limit: Some((plain, "a plain read of the file".to_owned())),
            path: format!(
                "{} of {}, every byte compared",
                bytes_text(found.bytes),
                bytes_text(found.file_bytes)
            ),
        });
    }
    Ok(findings)
}
