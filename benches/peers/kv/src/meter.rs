//! What the kernel counts: processor time, bytes to the disk, space, pages in the page cache.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::Res;

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    at: Instant,
    /// Processor time of this process, all its threads.
    own: Duration,
    /// Processor time of the whole machine.
    all: Duration,
    /// `read_bytes` and `write_bytes` of /proc/self/io: what this process made the disk do.
    read: u64,
    written: u64,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub seconds: f64,
    /// Processor time of this process.
    pub own_seconds: f64,
    /// Share of the machine's processors that others used, percent.
    pub others: f64,
    /// Bytes from and to the disk; a page that is dirtied in the page cache counts as written.
    pub read: u64,
    pub written: u64,
}

impl Counters {
    pub fn now() -> Res<Self> {
        // SAFETY: the structure is plain numbers, and the call fills it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            usage
        };
        let time = |t: libc::timeval| {
            Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
        };
        // user, nice, system, idle, iowait, irq, softirq, steal in ticks.
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or("")
            .split_whitespace()
            .skip(1)
            .filter_map(|word| word.parse().ok())
            .collect();
        let busy: u64 = [0, 1, 2, 5, 6, 7]
            .iter()
            .filter_map(|&i| ticks.get(i))
            .sum();
        // SAFETY: sysconf only answers a number.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
        let io = std::fs::read_to_string("/proc/self/io")?;
        let bytes = |name: &str| {
            let line = io
                .lines()
                .find_map(|line| line.strip_prefix(name)?.parse().ok());
            line.ok_or_else(|| format!("no {name} in /proc/self/io"))
        };
        Ok(Self {
            at: Instant::now(),
            own: time(usage.ru_utime) + time(usage.ru_stime),
            all: Duration::from_secs_f64(busy as f64 / per_second),
            read: bytes("read_bytes: ")?,
            written: bytes("write_bytes: ")?,
        })
    }

    /// What was used since.
    pub fn used(&self) -> Res<Used> {
        let now = Self::now()?;
        let own = now.own - self.own;
        let wall = (now.at - self.at).as_secs_f64();
        let cores = std::thread::available_parallelism()?.get() as f64;
        let others = (now.all - self.all).saturating_sub(own).as_secs_f64();
        Ok(Used {
            seconds: wall,
            own_seconds: own.as_secs_f64(),
            // The kernel counts in ticks: a short time may seem to have more than all of it.
            others: (100.0 * others / (cores * wall.max(1e-9))).min(100.0),
            read: now.read - self.read,
            written: now.written - self.written,
        })
    }
}

/// What one thread records: the time from operation to operation, so that preparing the next one
/// counts, and the clock is read once for each.
pub struct Recorder {
    last: Instant,
    end: Instant,
    ops: u64,
    histograms: Vec<Histogram<u64>>,
}

impl Recorder {
    fn new(start: Instant, seconds: f64, kinds: usize) -> Res<Self> {
        let one = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
        Ok(Self {
            last: start,
            end: start + Duration::from_secs_f64(seconds),
            ops: 0,
            histograms: vec![one; kinds],
        })
    }

    /// One operation of kind 0 is done; false when the time is over.
    #[inline]
    pub fn lap(&mut self) -> bool {
        self.lap_as(0)
    }

    #[inline]
    pub fn lap_as(&mut self, kind: usize) -> bool {
        let now = Instant::now();
        self.histograms[kind].saturating_record((now - self.last).as_nanos() as u64);
        self.last = now;
        self.ops += 1;
        now < self.end
    }

    /// `count` operations are done, of which the time since the last lap is one of kind `kind`:
    /// a batch of `count`. False when the time is over.
    pub fn lap_batch(&mut self, kind: usize, count: u64) -> bool {
        self.ops += count - 1;
        self.lap_as(kind)
    }

    /// `count` operations are done, each of which took its share of the time since the last lap,
    /// for what is too short to read the clock for. False when the time is over.
    pub fn lap_share(&mut self, count: u64) -> bool {
        let now = Instant::now();
        let each = (now - self.last).as_nanos() as u64 / count;
        self.histograms[0].saturating_record_n(each, count);
        self.last = now;
        self.ops += count;
        now < self.end
    }

    /// One operation that began at `begin` is done at `now`; false when the time is over.
    pub fn lap_since(&mut self, begin: Instant, now: Instant) -> bool {
        self.histograms[0].saturating_record((now - begin).as_nanos() as u64);
        self.ops += 1;
        now < self.end
    }

    /// What was done since the last lap is nobody's time.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }
}

/// What the threads of one run recorded together.
pub struct Measured {
    pub ops: u64,
    pub histograms: Vec<Histogram<u64>>,
    /// Until the last thread was done.
    pub used: Used,
    /// From when write amplification counts, which ends later.
    pub before: Counters,
}

impl Measured {
    /// The percentile of kind `kind`, us.
    pub fn us(&self, kind: usize, percentile: f64) -> f64 {
        self.histograms[kind].value_at_percentile(percentile) as f64 / 1e3
    }
}

/// Runs `body(thread, recorder)` on so many threads at once, each until it returns; it should
/// return when `lap` says that `seconds` are over. Histograms for `kinds` kinds of operation.
pub fn drive(
    threads: usize,
    seconds: f64,
    kinds: usize,
    body: impl Fn(usize, &mut Recorder) -> Res<()> + Sync,
) -> Res<Measured> {
    let barrier = Barrier::new(threads + 1);
    let (before, results) = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, body) = (&barrier, &body);
                scope.spawn(move || {
                    let recorder = Recorder::new(Instant::now(), seconds, kinds);
                    barrier.wait();
                    let mut recorder = recorder?;
                    let start = Instant::now();
                    recorder.end = start + Duration::from_secs_f64(seconds);
                    recorder.last = start;
                    body(thread, &mut recorder)?;
                    Res::Ok((recorder, start, Instant::now()))
                })
            })
            .collect();
        let before = Counters::now();
        barrier.wait();
        let results: Vec<_> = handles.into_iter().map(|h| h.join()).collect();
        (before, results)
    });
    let before = before?;
    let mut used = before.used()?;
    let mut ops = 0;
    let mut span: Option<(Instant, Instant)> = None;
    let mut histograms: Vec<Histogram<u64>> = Vec::new();
    for result in results {
        let (recorder, start, end) = result.map_err(|_| "a thread of the benchmark panicked")??;
        ops += recorder.ops;
        span = span.map_or(Some((start, end)), |(s, e)| {
            Some((s.min(start), e.max(end)))
        });
        if histograms.is_empty() {
            histograms = recorder.histograms;
        } else {
            for (all, one) in histograms.iter_mut().zip(&recorder.histograms) {
                all.add(one)?;
            }
        }
    }
    used.seconds = span.map_or(0.0, |(start, end)| (end - start).as_secs_f64());
    Ok(Measured {
        ops,
        histograms,
        used,
        before,
    })
}

fn files_of(dir: &Path, into: &mut Vec<PathBuf>) -> Res<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files_of(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

/// Bytes of disk that the files in `dir` take.
pub fn disk_bytes(dir: &Path) -> Res<u64> {
    let mut files = Vec::new();
    files_of(dir, &mut files)?;
    // An engine may remove a file while we look.
    let blocks = files.iter().filter_map(|file| file.metadata().ok());
    Ok(blocks.map(|meta| meta.blocks() * 512).sum())
}

/// Bytes of the files in `dir` that the page cache holds.
pub fn page_cache_bytes(dir: &Path) -> Res<u64> {
    // SAFETY: sysconf only answers a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as usize;
    let mut files = Vec::new();
    files_of(dir, &mut files)?;
    let mut pages = 0;
    for file in files {
        let Ok(file) = File::open(file) else { continue };
        let size = usize::try_from(file.metadata()?.len())?;
        if size == 0 {
            continue;
        }
        let mut resident = vec![0_u8; size.div_ceil(page)];
        // SAFETY: the map is ours, is never read, and is as long as mincore is told; the vector
        // has a byte for each of its pages.
        unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            let fd = file.as_raw_fd();
            let map = libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, 0);
            if map == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error().into());
            }
            let result = libc::mincore(map, size, resident.as_mut_ptr());
            libc::munmap(map, size);
            if result != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        pages += resident.iter().filter(|&&state| state & 1 != 0).count() as u64;
    }
    Ok(pages * page as u64)
}

/// Takes the files in `dir` out of the page cache, and with `everything` drops the kernel's
/// caches where this user may. The store must be closed.
pub fn drop_caches(dir: &Path, everything: bool) -> Res<()> {
    let mut files = Vec::new();
    files_of(dir, &mut files)?;
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        // SAFETY: advice about a file that we hold open.
        let result =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if result != 0 {
            return Err(std::io::Error::from_raw_os_error(result).into());
        }
    }
    if everything {
        // Only root may, and only outside most containers: the advice above did the files.
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
    }
    Ok(())
}
