//! What the disk and the memory give without a store, to plain loops in the same run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::io::{OpenMode, posix::Posix};
use crate::kv::disk::{BLOCK, Blocks, Disk, FileDisk};
use crate::metrics::{Histogram, Latency};

/// Bytes of the file that is written over.
const FILE: u64 = 64 << 20;
/// Bytes of one write of the bulk figures.
const BULK: usize = 1 << 20;

/// A plain file beside the store, on the same disk: written once, so that overwriting it is what
/// overwriting a log is. Removed when dropped.
#[derive(Debug)]
pub(super) struct Plain {
    disk: FileDisk,
    path: PathBuf,
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

impl Plain {
    /// # Errors
    /// What the file system says.
    pub(super) fn beside(store: &Path) -> Result<Self> {
        let mut name = store.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".gds-{}.limit", std::process::id()));
        // A block device's folder is no place for a file.
        let path = match std::fs::metadata(store).is_ok_and(|m| !m.is_file()) {
            true => std::env::temp_dir().join(name),
            false => store.with_file_name(name),
        };
        let mode = OpenMode {
            read: true,
            write: true,
            create: true,
            truncate: true,
            exclusive: false,
        };
        let disk = FileDisk::open(&path, mode, Arc::new(Posix))?;
        let plain = Self { disk, path };
        plain.disk.resize(FILE)?;
        let part = filled(BULK)?;
        for offset in (0..FILE).step_by(BULK) {
            plain.disk.write(offset, &part)?;
        }
        plain.disk.flush()?;
        Ok(plain)
    }

    /// Durable writes of one block, one at a time.
    pub(super) fn durable_blocks(&self, time: Duration) -> Result<(f64, Latency)> {
        self.durable(BLOCK, time)
    }

    /// Bytes a second of durable writes of 1 MiB, one at a time.
    pub(super) fn durable_bulk(&self, time: Duration) -> Result<f64> {
        let (rate, _) = self.durable(BULK, time)?;
        Ok(rate * BULK as f64)
    }

    fn durable(&self, size: usize, time: Duration) -> Result<(f64, Latency)> {
        let part = filled(size)?;
        let histogram = Histogram::default();
        let (began, mut count, mut offset) = (Instant::now(), 0u64, 0);
        while began.elapsed() < time {
            let one = Instant::now();
            self.disk.write_durable(offset, &part)?;
            histogram.record(nanoseconds(one));
            offset = (offset + size as u64) % FILE;
            count += 1;
        }
        Ok((count as f64 / seconds(began.elapsed()), histogram.summary()))
    }

    /// Bytes a second of values of `size` bytes: each written whole, then made durable.
    pub(super) fn large(&self, size: u64, time: Duration) -> Result<f64> {
        let size = size.next_multiple_of(BLOCK as u64).min(FILE);
        let part = filled(size as usize)?;
        let (began, mut bytes, mut offset) = (Instant::now(), 0u64, 0);
        while began.elapsed() < time {
            self.disk.write(offset, &part)?;
            self.disk.flush()?;
            offset = if offset + 2 * size <= FILE {
                offset + size
            } else {
                0
            };
            bytes += size;
        }
        Ok(bytes as f64 / seconds(began.elapsed()))
    }

    /// Reads of `size` bytes a second by `threads`, at scattered offsets.
    pub(super) fn reads(&self, size: usize, threads: u32, time: Duration) -> Result<f64> {
        let size = size.next_multiple_of(BLOCK).min(FILE as usize);
        let places = FILE / size as u64;
        let counts = on_threads(threads, |thread| {
            let mut part = Blocks::new(size)?;
            let (began, mut count) = (Instant::now(), 0u64);
            while began.elapsed() < time {
                let place = super::super::super::scratch::mix((u64::from(thread) << 40) | count);
                self.disk.read(place % places * size as u64, &mut part)?;
                count += 1;
            }
            Ok(count)
        })?;
        Ok(counts.iter().sum::<u64>() as f64 / seconds(time))
    }
}

/// Copies out of a `HashMap` behind an `RwLock`, a second, by `threads`.
pub(super) fn map_gets(
    keys: u64,
    value: usize,
    threads: u32,
    time: Duration,
    name: &(impl Fn(u64) -> Vec<u8> + Sync),
) -> Result<f64> {
    let map: HashMap<Vec<u8>, Vec<u8>> =
        (0..keys).map(|n| (name(n), vec![n as u8; value])).collect();
    let map = RwLock::new(map);
    let counts = on_threads(threads, |thread| {
        let (began, mut count) = (Instant::now(), 0u64);
        while count % 64 != 0 || began.elapsed() < time {
            let number =
                super::super::super::scratch::mix((u64::from(thread) << 40) | count) % keys;
            let map = map
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            std::hint::black_box(map.get(&name(number)).cloned());
            count += 1;
        }
        Ok(count)
    })?;
    Ok(counts.iter().sum::<u64>() as f64 / seconds(time))
}

/// Runs `work` on some threads; what each answered.
pub(super) fn on_threads<T: Send>(
    threads: u32,
    work: impl Fn(u32) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        let done = running.into_iter().map(|thread| {
            let message = "a thread of the benchmark stopped; report this";
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, message)))
        });
        done.collect()
    })
}

pub(super) fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Memory that no disk can compress.
fn filled(size: usize) -> Result<Blocks> {
    let mut blocks = Blocks::new(size)?;
    let bytes = super::super::super::scratch::random_bytes(size);
    blocks[..size].copy_from_slice(&bytes);
    Ok(blocks)
}
