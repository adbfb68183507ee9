//! What reading ELF files costs: all tables of up to 3,000 files of this machine beside readelf,
//! and the bytes of their sections into device memory beside a plain read of the same files.
//!
//!   cargo bench --bench elf_inspect [-- FOLDER...]      GDS_DEVICE=host, cuda:0, ...

#![allow(clippy::print_stdout)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use gds_rs::config::Config;
use gds_rs::engine::{Context, MemoryKind, OpenMode};
use gds_rs::formats::elf::{Elf, ElfPlan, Select, Tables};
use gds_rs::formats::{FileSource, ReadOptions};
use gds_rs::{Error, Result};

/// Files at most.
const FILES: usize = 3000;
/// Section bytes that are loaded in a round, at most.
const BYTES: u64 = 1 << 30;
const ROUNDS: usize = 5;

fn main() {
    let folders: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let folders = match folders.is_empty() {
        true => vec!["/usr/bin".to_owned(), "/usr/lib".to_owned()],
        false => folders,
    };
    let mut files = elf_files(&folders);
    files.truncate(FILES);
    if files.is_empty() {
        println!("no ELF files below {}", folders.join(" "));
        return;
    }
    if let Err(error) = measure(&files) {
        println!("{error}");
        std::process::exit(1);
    }
}

fn measure(files: &[PathBuf]) -> Result<()> {
    let context = Context::open(Config::default().with_environment()?)?;
    let size: u64 = files
        .iter()
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .sum();
    println!(
        "{} files, {:.2} GB, device {}",
        files.len(),
        size as f64 / 1e9,
        context.device().info().name
    );
    // Once unmeasured: the tables of all files are in the page cache then, for both.
    for round in 0..=3 {
        let began = Instant::now();
        let mut entries = 0;
        for path in files {
            entries += inspect(&context, path).map_err(|error| told(path, &error))?;
        }
        if round > 0 {
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "all tables         {seconds:8.3} s, {entries} entries, {:6.1} us a file",
                seconds * 1e6 / files.len() as f64
            );
        }
    }
    let began = Instant::now();
    for group in files.chunks(200) {
        let mut readelf = Command::new("readelf");
        readelf
            .args(["-W", "-h", "-S", "-l", "-s", "-n", "-d", "-r"])
            .args(group);
        let done = readelf.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if done.is_err() {
            println!("readelf            is not there");
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "readelf -W         {seconds:8.3} s, {:6.1} us a file",
        seconds * 1e6 / files.len() as f64
    );
    load(&context, files)
}

fn told(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads every entry of every table; how many they were.
fn inspect(context: &Context, path: &Path) -> Result<u64> {
    let file = context.open_file(path, OpenMode::read_only())?;
    let tables = Tables::new(Elf::open(Arc::new(FileSource::new(&file)?))?);
    let elf = tables.file();
    let mut entries = (elf.sections().len() + elf.segments().len()) as u64;
    for section in elf.sections() {
        entries += u64::from(elf.section_name(section).len() > 1000);
    }
    for section in elf.symbol_sections() {
        for symbol in tables.symbols(section.index)?.iter() {
            entries += u64::from(symbol?.name.len() < 1 << 20);
        }
    }
    for section in elf.relocation_sections() {
        entries += tables.relocations(section.index)?.iter().count() as u64;
    }
    entries += tables
        .notes()?
        .iter()
        .map(|table| table.len() as u64)
        .sum::<u64>();
    if let Some(dynamic) = tables.dynamic()? {
        for entry in dynamic.entries() {
            entries += 1 + u64::from(dynamic.name(elf, entry)?.is_some_and(<[u8]>::is_empty));
        }
    }
    Ok(entries)
}

/// Every section of the largest files, beside a plain loop over the same files.
fn load(context: &Context, files: &[PathBuf]) -> Result<()> {
    let mut by_size: Vec<(u64, &PathBuf)> = files
        .iter()
        .filter_map(|path| Some((path.metadata().ok()?.len(), path)))
        .collect();
    by_size.sort();
    let (mut chosen, mut total) = (Vec::new(), 0);
    for (size, path) in by_size.into_iter().rev() {
        if total + size <= BYTES {
            total += size;
            chosen.push(path);
        }
        if chosen.len() == 200 {
            break;
        }
    }
    let mut plans = Vec::new();
    let mut most = 1;
    for path in &chosen {
        let file = context.open_file(path, OpenMode::read_only())?;
        let elf = Elf::open(Arc::new(FileSource::new(&file)?))?;
        let plan = ElfPlan::new(&elf, Select::Stored, u64::MAX)?;
        most = most.max(plan.size());
        plans.push((file, plan));
    }
    let buffer = context.alloc(MemoryKind::Device, most)?;
    let sections: usize = plans.iter().map(|(_, plan)| plan.parts().len()).sum();
    println!(
        "{} files with {sections} sections, {:.2} GB",
        chosen.len(),
        total as f64 / 1e9
    );
    let mut plain = vec![0; 1 << 20];
    for _ in 0..ROUNDS {
        let (began, mut bytes) = (Instant::now(), 0);
        for (file, plan) in &plans {
            bytes += plan.read(file, &buffer, 0, &ReadOptions::default())?.bytes;
        }
        let ours = bytes as f64 / began.elapsed().as_secs_f64() / 1e9;
        let (began, mut bytes) = (Instant::now(), 0);
        for path in &chosen {
            let mut file = std::fs::File::open(path)
                .map_err(|e| Error::os(e.raw_os_error().unwrap_or(0), "open"))?;
            while let Ok(read @ 1..) = file.read(&mut plain) {
                bytes += read;
            }
        }
        let loop_rate = bytes as f64 / began.elapsed().as_secs_f64() / 1e9;
        println!(
            "sections delivered {ours:6.2} GB/s, plain read() into 1 MiB again and again {loop_rate:6.2} GB/s"
        );
    }
    Ok(())
}

fn elf_files(folders: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() && is_elf(&entry.path()) => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let file = std::fs::File::open(path);
    file.is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && &magic == b"\x7fELF"
}
