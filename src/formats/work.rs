//! Work that threads of the host share: pieces of it, and bytes that it puts into buffers.
//!
//! A thread that cannot be had is done without: the others do its share. Nobody waits but the
//! caller, and no thread outlives the call.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use parking_lot::Mutex;

use super::{Plan, Source};
use crate::engine::{Buffer, Context};
use crate::error::{Error, Result};

/// Fewer bytes are not worth a thread.
const ALONE: u64 = 64 << 10;
/// Bytes that one thread puts into buffers before it looks for more.
const CHUNK: u64 = 1 << 20;

/// Bytes on their way to an offset of a buffer.
pub(super) type Upload<'a> = (&'a [u8], &'a Buffer, u64);

/// Threads that work at once: one a core, `most` at most.
pub(super) fn threads(most: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.min(most).max(1)
}

/// Threads for so many bytes: one where they are too few for more.
fn threads_for(bytes: u64) -> usize {
    threads(if bytes < ALONE { 1 } else { usize::MAX })
}

/// Does pieces of work, each once, until all are done or one fails: on all cores, where there are
/// enough bytes to be worth it.
///
/// # Errors
/// That of the first piece that failed, by its number.
pub(super) fn side_by_side(
    units: usize,
    bytes: u64,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    each(units, threads_for(bytes), || (), |(), unit| work(unit))
}

/// As `side_by_side`, by so many threads, each of which has something of its own.
pub(super) fn each<Own>(
    units: usize,
    threads: usize,
    own: impl Fn() -> Own + Sync,
    work: impl Fn(&mut Own, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    // The first one by its number, whichever thread came first.
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let all = || {
        let mut own = own();
        loop {
            let unit = next.fetch_add(1, Relaxed);
            if unit >= units {
                return;
            }
            if let Err(error) = work(&mut own, unit) {
                next.store(units, Relaxed);
                let mut failed = failed.lock();
                if failed.as_ref().is_none_or(|(other, _)| unit < *other) {
                    *failed = Some((unit, error));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(units) {
            // Without the thread the others do its share.
            let _ = thread::Builder::new().spawn_scoped(scope, all);
        }
        all();
    });
    failed.into_inner().map_or(Ok(()), |(_, error)| Err(error))
}

/// As `Context::upload`, by several threads where there is enough for them.
///
/// # Errors
/// As `Context::upload`.
pub(super) fn upload(context: &Context, parts: &[Upload<'_>]) -> Result<()> {
    let lots = lots(parts);
    let bytes = parts.iter().map(|(bytes, ..)| bytes.len() as u64).sum();
    side_by_side(lots.len(), bytes, |lot| context.upload(&lots[lot]))
}

/// The same bytes in lots of `CHUNK` or less: long ones are cut, short ones go together.
fn lots<'a>(parts: &[Upload<'a>]) -> Vec<Vec<Upload<'a>>> {
    let mut lots = Vec::new();
    let (mut lot, mut room) = (Vec::new(), CHUNK as usize);
    for (bytes, to, offset) in parts {
        let (mut rest, mut offset) = (*bytes, *offset);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(room));
            lot.push((now, *to, offset));
            offset = offset.saturating_add(now.len() as u64);
            room -= now.len();
            rest = later;
            if room == 0 {
                lots.push(std::mem::take(&mut lot));
                room = CHUNK as usize;
            }
        }
    }
    if !lot.is_empty() {
        lots.push(lot);
    }
    lots
}

/// Puts the ranges of a plan, which come out of a source that is no file, into a buffer from an
/// offset on, by several threads where there is enough for them. Host memory for it: `CHUNK` a
/// thread.
///
/// # Errors
/// What the source says, and as `Context::upload`.
pub(super) fn bring(
    context: &Context,
    source: &dyn Source,
    plan: &Plan,
    (to, base): (&Buffer, u64),
) -> Result<()> {
    let mut chunks: Vec<(u64, u64, u64)> = Vec::new();
    for piece in plan.pieces() {
        let mut done = 0;
        while done < piece.size {
            let size = (piece.size - done).min(CHUNK);
            chunks.push((piece.file_offset + done, piece.to_offset + done, size));
            done += size;
        }
    }
    let threads = threads_for(plan.bytes());
    each(chunks.len(), threads, Vec::new, |memory, chunk| {
        let (from, at, size) = chunks[chunk];
        memory.resize(size as usize, 0);
        source.read(from, memory)?;
        context.upload(&[(&memory[..], to, base + at)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DEVICE_HOST};
    use crate::engine::MemoryKind;
    use crate::error::ErrorKind;
    use crate::formats::MemorySource;

    fn context() -> Context {
        let config = Config {
            gpu_device: DEVICE_HOST,
            ..Config::default()
        };
        Context::open(config).expect("a host context")
    }

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn the_first_piece_that_fails_is_told() {
        let fault = |unit: usize| Error::new(ErrorKind::Internal, format!("{unit}"));
        for _ in 0..20 {
            let done = side_by_side(1000, u64::MAX, |unit| match unit % 300 {
                299 => Err(fault(unit)),
                _ => Ok(()),
            });
            assert_eq!(done.expect_err("some fail").message(), "299");
        }
        assert!(side_by_side(0, u64::MAX, |unit| Err(fault(unit))).is_ok());
    }

    #[test]
    fn long_and_short_bytes_arrive_where_they_belong() {
        let context = context();
        let all = bytes(3 * CHUNK as usize + 77);
        let to = context.alloc(MemoryKind::Device, all.len() as u64 + 8);
        let to = to.expect("memory");
        let cuts = [0, 0, 1, 5, 70_000, 70_001, 2_500_000, all.len()];
        let parts: Vec<Upload<'_>> = cuts
            .windows(2)
            .map(|cut| (&all[cut[0]..cut[1]], &to, 8 + cut[0] as u64))
            .collect();
        let sizes = lots(&parts).into_iter();
        let sizes = sizes.map(|lot| lot.iter().map(|(bytes, ..)| bytes.len()).sum());
        assert_eq!(
            sizes.collect::<Vec<usize>>(),
            [1 << 20, 1 << 20, 1 << 20, 77]
        );
        upload(&context, &parts).expect("room");
        let mut back = vec![0; all.len()];
        context.download(&to, 8, &mut back).expect("it comes back");
        assert!(back == all);
        let far = [(&all[..], &to, 9)];
        let error = upload(&context, &far).expect_err("no room for the last byte");
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn ranges_of_a_source_arrive_where_the_plan_says() {
        let context = context();
        let all = bytes(2 * CHUNK as usize + 5);
        let source = MemorySource::new(all.clone(), "in memory");
        let mut plan = Plan::new();
        plan.push_at(1, 2 << 20, 64).expect("a range");
        plan.push_at(0, 9, 0).expect("a range");
        let to = context.alloc(MemoryKind::Device, 4 << 20).expect("memory");
        bring(&context, &source, &plan, (&to, 128)).expect("it is there");
        let mut back = vec![0; 2 << 20];
        context
            .download(&to, 192, &mut back)
            .expect("it comes back");
        assert!(back == all[1..][..2 << 20]);
        back.truncate(9);
        context
            .download(&to, 128, &mut back)
            .expect("it comes back");
        assert_eq!(back, all[..9]);
        plan.push_at(all.len() as u64 - 4, 5, 3 << 20)
            .expect("a range");
        let error = bring(&context, &source, &plan, (&to, 0)).expect_err("the source ends");
        assert_eq!(error.kind(), ErrorKind::Corrupted);
    }
}
