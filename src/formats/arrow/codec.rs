//! Compressed buffers: an int64 of the length, -1 for bytes as they are, then a frame.
//!
//! Frames are decoded on the host, several at once, each piece by piece into device memory. Host
//! memory for it: a chunk of input and of output a thread, and the window that the frame asks for,
//! at most 128 MiB and twice the buffer.

use std::io::{BufReader, Read};

use parking_lot::Mutex;

use super::message::{Codec, corrupted};
use crate::engine::{Buffer, Context};
use crate::error::{Error, Result};
use crate::formats::Source;
use crate::formats::work::{each, threads};

/// Bytes of the length before each buffer.
pub(super) const PREFIX: u64 = 8;
/// Most threads that decode at once.
pub(super) const THREADS_MAX: usize = 16;
/// Bytes that are decoded before they go to the device.
const CHUNK: usize = 256 << 10;
/// An LZ4 block gives at most 255 bytes for each of its own.
const LZ4_MOST: u64 = 255;
/// A Zstandard block of 4 bytes or more gives at most 128 KiB.
const ZSTD_BLOCK: u64 = 128 << 10;
/// Window of a Zstandard frame that is always taken, as a power of two: 8 MiB.
const WINDOW_LOG: u32 = 23;
/// Largest window of a Zstandard frame: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// A buffer to decode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) codec: Codec,
    /// Where its frame begins in the source.
    pub(super) from: u64,
    /// Bytes of the frame.
    pub(super) stored: u64,
    /// Bytes that it becomes.
    pub(super) size: u64,
    /// Where they go in the allocation.
    pub(super) to: u64,
}

/// Buffers to decode, and the allocation that their places are in, from an offset on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lot<'a> {
    pub(super) jobs: &'a [Job],
    pub(super) to: &'a Buffer,
    pub(super) base: u64,
}

/// The length that a buffer claims; none: its bytes are stored as they are. More than its codec
/// can make of the bytes there is an error.
pub(super) fn claimed(
    source: &dyn Source,
    codec: Codec,
    from: u64,
    stored: u64,
) -> Result<Option<u64>> {
    let fault = |what: String| corrupted(source.path(), from, what);
    let Some(data) = stored.checked_sub(PREFIX) else {
        return Err(fault(format!(
            "a compressed buffer of {stored} bytes has no length"
        )));
    };
    let bytes = source.bytes(from, PREFIX, "the length of a compressed buffer")?;
    let length = bytes
        .first_chunk()
        .map_or(0, |eight| i64::from_le_bytes(*eight));
    if length == -1 {
        return Ok(None);
    }
    let most = match codec {
        Codec::Lz4 => data.saturating_mul(LZ4_MOST),
        Codec::Zstd => (data / 4 + 1).saturating_mul(ZSTD_BLOCK),
    };
    match u64::try_from(length) {
        Ok(length) if length <= most => Ok(Some(length)),
        _ => Err(fault(format!(
            "{data} bytes cannot be {length} decompressed"
        ))),
    }
}

/// Decodes buffers by this thread and others, and waits. What went wrong with each lot; the rest of
/// such a lot is left out.
pub(super) fn decode(
    source: &dyn Source,
    lots: &[Lot<'_>],
    context: &Context,
) -> Vec<Option<Error>> {
    let faults: Vec<Mutex<Option<Error>>> = lots.iter().map(|_| Mutex::default()).collect();
    let all = lots.iter().zip(&faults);
    let mut work: Vec<(&Job, &Lot<'_>, &Mutex<Option<Error>>)> = all
        .flat_map(|(lot, fault)| lot.jobs.iter().map(move |job| (job, lot, fault)))
        .collect();
    // The longest first: one that begins last would be waited for.
    work.sort_by_key(|(job, ..)| std::cmp::Reverse(job.size));
    // Faults are kept by lot: none of them ends the work on the others.
    let _ = each(work.len(), threads(THREADS_MAX), Vec::new, |chunk, unit| {
        let (job, lot, fault) = work[unit];
        if fault.lock().is_none()
            && let Err(error) = decode_one(source, job, context, (lot.to, lot.base), chunk)
        {
            fault.lock().get_or_insert(error);
        }
        Ok(())
    });
    faults.into_iter().map(Mutex::into_inner).collect()
}

fn decode_one(
    source: &dyn Source,
    job: &Job,
    context: &Context,
    to: (&Buffer, u64),
    chunk: &mut Vec<u8>,
) -> Result<()> {
    let mut input = Input {
        source,
        at: job.from,
        end: job.from + job.stored,
        error: None,
    };
    let fault = |why: &dyn std::fmt::Display| {
        corrupted(
            source.path(),
            job.from,
            format!("a compressed buffer: {why}"),
        )
    };
    let result = {
        let input = BufReader::with_capacity(CHUNK.min(job.stored as usize), &mut input);
        match job.codec {
            Codec::Lz4 => {
                let mut frame = lz4_flex::frame::FrameDecoder::new(input);
                deliver(&mut frame, job, context, to, chunk)
            }
            Codec::Zstd => zstd::stream::read::Decoder::with_buffer(input)
                .and_then(|mut frame| {
                    // A frame may say that it needs more than it can use.
                    let enough = u64::BITS - job.size.leading_zeros();
                    frame.window_log_max(enough.clamp(WINDOW_LOG, WINDOW_LOG_MAX))?;
                    Ok(frame)
                })
                .map_err(Ended::Input)
                .and_then(|mut frame| deliver(&mut frame, job, context, to, chunk)),
        }
    };
    match (result, input.error) {
        (Ok(()), _) => Ok(()),
        (Err(Ended::Device(error)), _) | (Err(_), Some(error)) => Err(error),
        (Err(Ended::Input(why)), None) => Err(fault(&why)),
        (Err(Ended::Size(what)), None) => Err(fault(&what)),
    }
}

/// Why a buffer was not decoded.
enum Ended {
    Input(std::io::Error),
    Size(String),
    Device(Error),
}

/// Takes exactly the claimed bytes out of a frame.
fn deliver(
    frame: &mut dyn Read,
    job: &Job,
    context: &Context,
    to: (&Buffer, u64),
    chunk: &mut Vec<u8>,
) -> std::result::Result<(), Ended> {
    chunk.resize(CHUNK, 0);
    let mut done = 0;
    loop {
        // One byte more than is due, to see whether it is there.
        let most = (job.size - done).saturating_add(1).min(CHUNK as u64) as usize;
        let mut filled = 0;
        while let Some(rest) = chunk.get_mut(filled..most).filter(|rest| !rest.is_empty()) {
            match frame.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(why) => return Err(Ended::Input(why)),
            }
        }
        let size = filled as u64;
        if size > job.size - done || (size == 0 && done < job.size) {
            let sum = done + size;
            let text = format!(
                "{} bytes were claimed, and {sum} or more came out",
                job.size
            );
            return Err(Ended::Size(text));
        }
        if size == 0 {
            return Ok(());
        }
        let bytes = chunk.get(..filled).unwrap_or_default();
        let part = (bytes, to.0, to.1 + job.to + done);
        context.upload(&[part]).map_err(Ended::Device)?;
        done += size;
    }
}

/// A range of a source as a stream. Keeps the error that a stream has no room for.
struct Input<'a> {
    source: &'a dyn Source,
    at: u64,
    end: u64,
    error: Option<Error>,
}

impl Read for &mut Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let size = (self.end - self.at).min(into.len() as u64);
        let part = into.get_mut(..size as usize).unwrap_or_default();
        if let Err(error) = self.source.read(self.at, part) {
            let text = error.message().to_owned();
            self.error = Some(error);
            return Err(std::io::Error::other(text));
        }
        self.at += size;
        Ok(part.len())
    }
}
