//! What tests of ELF files share: files built by hand, and readelf's words.

#![allow(dead_code, clippy::missing_panics_doc)]

pub mod build;
pub mod readelf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gds_rs::Result;
use gds_rs::formats::elf::Elf;
use gds_rs::formats::{MemorySource, Source};

/// Opens bytes.
pub fn open_bytes(bytes: &[u8]) -> Result<Elf> {
    Elf::open(Arc::new(MemorySource::new(bytes.to_vec(), "in memory")))
}

/// A file of the operating system, read without an engine.
#[derive(Debug)]
pub struct PlainSource {
    file: std::fs::File,
    size: u64,
    path: PathBuf,
}

impl PlainSource {
    pub fn open(path: &Path) -> std::io::Result<Arc<dyn Source>> {
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        let path = path.to_path_buf();
        Ok(Arc::new(Self { file, size, path }))
    }
}

impl Source for PlainSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.read_exact_at(into, offset).map_err(|e| {
            gds_rs::Error::new(gds_rs::ErrorKind::Corrupted, e.to_string()).with_offset(offset)
        })
    }
}

/// ELF files below these folders, in the order of their names; links are not followed.
pub fn elf_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && begins_with_magic(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn begins_with_magic(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let file = std::fs::File::open(path);
    file.is_ok_and(|mut f| f.read_exact(&mut magic).is_ok()) && &magic == b"\x7fELF"
}
