//! Files to measure on: large, with bytes that no layer can compress or guess, removed at the end.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::output::{Outcome, os_error, size_text};
use crate::error::{Error, ErrorKind};
use crate::io::{FileDescriptors, OpenMode};

/// Bytes of the pattern that a file repeats, each time changed.
const BLOCK: usize = 4 << 20;

/// A file of ours.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a file of `size` bytes, which must not exist, and waits until it is on the disk.
    pub(super) fn create(path: &Path, size: u64) -> Outcome<Self> {
        let what = || format!("create {} ({})", path.display(), size_text(size));
        let mut file = File::create_new(path).map_err(|e| os_error(&e, what()))?;
        // From here on the file is ours to remove.
        let scratch = Self {
            path: path.to_path_buf(),
        };
        let space = FileDescriptors::open(path, OpenMode::read_write())?.reserve(0, size);
        if let Err(error) = space
            && error.kind() == ErrorKind::NoSpace
        {
            let message = format!("{}: not enough space; ask for less with --size", what());
            return Err(Error::new(ErrorKind::NoSpace, message).into());
        }
        let mut block = random_bytes(BLOCK);
        let mut left = size;
        let mut number = 0u64;
        while left > 0 {
            // Each page of each block is different, so nothing can be shared.
            for (page, bytes) in block.chunks_exact_mut(4096).enumerate() {
                let stamp = mix(number * 1024 + page as u64);
                bytes[..8].copy_from_slice(&stamp.to_le_bytes());
            }
            let part = left.min(BLOCK as u64);
            let bytes = &block[..part as usize];
            file.write_all(bytes).map_err(|e| os_error(&e, what()))?;
            left -= part;
            number += 1;
        }
        file.sync_all().map_err(|e| os_error(&e, what()))?;
        Ok(scratch)
    }

    /// As `create`, in a folder, under a name of this process.
    pub(super) fn in_folder(folder: &Path, size: u64) -> Outcome<Self> {
        let name = format!("gds-scratch-{}.tmp", std::process::id());
        Self::create(&folder.join(name), size)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A bijection that scatters its input over all 64 bits (the end of splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bytes without a pattern, the same in every run.
pub(super) fn random_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (index, word) in bytes.chunks_mut(8).enumerate() {
        let value = mix(index as u64).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_has_its_size_and_goes_away() {
        let name = format!("gds-scratch-test-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let scratch = Scratch::create(&path, (4 << 20) + 5).unwrap();
        let bytes = fs::read(scratch.path()).unwrap();
        assert_eq!(bytes.len(), (4 << 20) + 5);
        assert_ne!(bytes[..4096], bytes[4096..8192]);
        assert!(
            Scratch::create(&path, 1).is_err(),
            "an existing file is not touched"
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), (4 << 20) + 5);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn random_bytes_repeat_from_run_to_run_only() {
        let bytes = random_bytes(1 << 16);
        assert_eq!(bytes, random_bytes(1 << 16));
        let mut words: Vec<&[u8]> = bytes.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 1 << 13);
    }
}
