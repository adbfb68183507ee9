//! What writes since the last sync overwrote, so that a crash can lose them.

use std::collections::{HashMap, HashSet, hash_map};
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;

use crate::io::capabilities::{errno, reopen};

/// Device and inode: a file has many descriptors.
type FileId = (u64, u64);

#[derive(Debug)]
struct File {
    /// Our own, buffered: the caller's may be direct, write-only, or closed by then.
    handle: std::fs::File,
    /// Bytes, when it was last durable; `None` for a block device.
    size: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    file: FileId,
    offset: u64,
    old: Vec<u8>,
    /// Whether the write has ended: a sync makes durable only what ended before it.
    ended: bool,
}

/// A sync that is under way.
#[derive(Debug)]
pub(super) struct Syncing {
    file: FileId,
    size: Option<u64>,
    ended: HashSet<u64>,
}

/// Remembers the bytes under writes that are not durable.
#[derive(Debug, Default)]
pub(super) struct Journal {
    files: HashMap<FileId, File>,
    entries: Vec<Entry>,
    next: u64,
}

impl Journal {
    /// Remembers the bytes that a write is about to overwrite.
    ///
    /// # Errors
    /// errno, when the file cannot be opened or read once more: then the write must not happen.
    pub(super) fn before_write(&mut self, fd: RawFd, offset: u64, size: usize) -> Result<u64, i32> {
        let file = self.file(fd)?;
        let handle = &self.files.get(&file).ok_or(libc::EBADF)?.handle;
        let mut old = vec![0; size];
        let mut have = 0;
        while have < size {
            match handle.read_at(&mut old[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        old.truncate(have);
        self.next += 1;
        self.entries.push(Entry {
            id: self.next,
            file,
            offset,
            old,
            ended: false,
        });
        Ok(self.next)
    }

    /// The write has ended, well or not.
    pub(super) fn after_write(&mut self, id: u64) {
        if let Some(entry) = self.entries.iter_mut().rev().find(|e| e.id == id) {
            entry.ended = true;
        }
    }

    /// Writes that would be lost if the machine stopped.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a sync that starts now makes durable.
    pub(super) fn before_sync(&self, fd: RawFd) -> Option<Syncing> {
        let (file, size) = identify(fd).ok()?;
        let ended = self
            .entries
            .iter()
            .filter(|e| e.file == file && e.ended)
            .map(|e| e.id);
        Some(Syncing {
            file,
            size,
            ended: ended.collect(),
        })
    }

    /// That sync has succeeded.
    pub(super) fn after_sync(&mut self, syncing: &Syncing) {
        self.entries.retain(|e| !syncing.ended.contains(&e.id));
        let left = self.entries.iter().any(|e| e.file == syncing.file);
        match self.files.get_mut(&syncing.file) {
            Some(file) if left => file.size = syncing.size,
            _ => drop(self.files.remove(&syncing.file)),
        }
    }

    /// Puts everything back that is not durable. How many writes that were.
    pub(super) fn crash(&mut self) -> std::io::Result<usize> {
        let lost = self.entries.len();
        for entry in self.entries.drain(..).rev() {
            if let Some(file) = self.files.get(&entry.file) {
                file.handle.write_all_at(&entry.old, entry.offset)?;
            }
        }
        for (_, file) in self.files.drain() {
            if let Some(size) = file.size {
                file.handle.set_len(size)?;
            }
        }
        Ok(lost)
    }

    fn file(&mut self, fd: RawFd) -> Result<FileId, i32> {
        let (id, size) = identify(fd)?;
        if let hash_map::Entry::Vacant(vacant) = self.files.entry(id) {
            vacant.insert(File {
                handle: reopen(fd, libc::O_RDWR)?.into(),
                size,
            });
        }
        Ok(id)
    }
}

/// Which file it is, and its size in bytes unless it is a block device.
fn identify(fd: RawFd) -> Result<(FileId, Option<u64>), i32> {
    // SAFETY: stat is plain integers; all zero is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the call.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(errno());
    }
    if stat.st_mode & libc::S_IFMT == libc::S_IFBLK {
        // No inode has device 0: block devices do not collide with files.
        return Ok(((0, stat.st_rdev), None));
    }
    Ok(((stat.st_dev, stat.st_ino), u64::try_from(stat.st_size).ok()))
}
