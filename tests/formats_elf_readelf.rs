//! Headers, sections, segments, symbols, notes, dynamic entries and relocations are what
//! `readelf -W` says. GDS_ELF_ALL=1 compares all files of /usr/lib and /usr/bin.

#![allow(clippy::print_stderr)]

mod elf_support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use elf_support::readelf::{self, Agreed};
use elf_support::{PlainSource, elf_files};
use gds_rs::formats::elf::Elf;

/// Files that are compared when not all are.
const SAMPLE: usize = 100;
/// Sizes above this are left to the run over all files, bytes.
const SAMPLE_SIZE: u64 = 4 << 20;

#[test]
fn files_of_this_machine_are_what_readelf_says() {
    if !readelf::is_there() {
        eprintln!("skipped: no readelf (binutils)");
        return;
    }
    let mut files = elf_files(&["/usr/bin", "/usr/lib"]);
    if std::env::var_os("GDS_ELF_ALL").is_none_or(|all| all != "1") {
        let small = |path: &std::path::PathBuf| {
            std::fs::metadata(path).is_ok_and(|data| data.len() <= SAMPLE_SIZE)
        };
        files.retain(small);
        // Spread over the names, so that all kinds are met.
        let step = files.len().div_ceil(SAMPLE).max(1);
        files = files.into_iter().step_by(step).collect();
    }
    if files.is_empty() {
        eprintln!("skipped: no ELF files below /usr/bin and /usr/lib");
        return;
    }
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Agreed::default()));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let source = PlainSource::open(path).expect("the file opens");
                    let compared = Elf::open(source)
                        .map_err(|error| error.to_string())
                        .and_then(|elf| readelf::compare(&elf, &readelf::text(path)));
                    match compared {
                        Ok(agreed) => total.lock().unwrap().add(&agreed),
                        Err(why) => wrong.lock().unwrap().push(format!("{path:?}: {why}")),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let agreed = files.len() - wrong.len();
    eprintln!(
        "{agreed} of {} files agree: {:?}",
        files.len(),
        total.into_inner().unwrap()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
