//! Compressed buffers that go to device memory as they are and are decompressed there, those of
//! many batches in one launch. What the device does not do, and what is wrong with a buffer, is for
//! the host (`codec`) to do and to say.

use super::body::{ALIGN, BatchPlan};
use super::codec::{self, Job};
use super::message::Codec;
use crate::engine::{
    Buffer, Compressed, Context, DecompressCodec, DecompressStatus, File, MemoryKind, Options,
    Ticket, warps_pay,
};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Plan, Source, work};

/// Unwanted bytes that are read along rather than beginning a new read.
const GAP: u64 = 4096;
/// Compressed bytes in device memory beyond which no further batch is begun ahead.
pub(super) const AHEAD_BYTES: u64 = 256 << 20;

/// Where compressed buffers are decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// On the device where it has a kernel for them, and where enough of them come at once to be
    /// worth it: a warp takes one buffer, which one thread of the host does faster.
    #[default]
    Auto,
    /// By threads of the host.
    Host,
    /// On the device, whatever the device can decompress.
    Device,
}

/// Compressed buffers of a batch on their way to the device.
#[derive(Debug)]
pub(super) struct Packed {
    memory: Buffer,
    ticket: Option<Ticket>,
    /// Bytes that must arrive.
    bytes: u64,
    /// The buffer's number among the jobs, and where it lies.
    places: Vec<(usize, u64)>,
}

impl Packed {
    /// Bytes of device memory.
    pub(super) fn size(&self) -> u64 {
        self.memory.size()
    }
}

/// A batch whose buffers are to be decompressed into `to`, from `base` on.
pub(super) struct Batch<'a> {
    pub(super) jobs: &'a [Job],
    pub(super) packed: Packed,
    pub(super) to: &'a Buffer,
    pub(super) base: u64,
}

fn codec_of(job: &Job) -> DecompressCodec {
    match job.codec {
        Codec::Lz4 => DecompressCodec::Lz4Frame,
        Codec::Zstd => DecompressCodec::Zstd,
    }
}

/// Whether so many batches like this one are worth the device's while together.
fn pays(jobs: &[Job], together: u64, threads: u64) -> bool {
    let sizes = || jobs.iter().map(|job| job.size);
    let total = sizes().fold(0u64, u64::saturating_add);
    let longest = sizes().max().unwrap_or(0);
    warps_pay(total.saturating_mul(together), longest, threads)
}

/// Begins to put the compressed buffers of a plan into device memory; none: they are for the host.
/// `together` batches like it will be decompressed at once.
pub(super) fn start(
    context: &Context,
    (source, file): (&dyn Source, Option<&File>),
    jobs: &[Job],
    (way, together): (Unpack, u64),
    options: &Options,
) -> Result<Option<Packed>> {
    let worth = match way {
        Unpack::Host => false,
        Unpack::Device => true,
        Unpack::Auto => pays(jobs, together, work::threads(codec::THREADS_MAX) as u64),
    };
    // A body has one codec.
    let Some(first) = jobs.first().filter(|_| worth) else {
        return Ok(None);
    };
    if !context.can_decompress(codec_of(first))? {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|at| jobs.get(*at).map(|job| job.from));
    let mut plan = Plan::new();
    let mut places = Vec::with_capacity(order.len());
    // Where the one before ends: in the source, and in memory.
    let mut last: Option<(u64, u64)> = None;
    for at in order {
        let Some(job) = jobs.get(at) else {
            continue;
        };
        let near = last.and_then(|(end, to)| {
            let gap = job.from.checked_sub(end).filter(|gap| *gap <= GAP)?;
            to.checked_add(gap)
        });
        let to = match near {
            Some(to) => {
                plan.push_at(job.from, job.stored, to)?;
                to
            }
            None => plan.push_congruent(job.from, job.stored, ALIGN)?,
        };
        places.push((at, to));
        last = Some((job.from + job.stored, to + job.stored));
    }
    let memory = match context.alloc(MemoryKind::Device, plan.size().max(ALIGN)) {
        Ok(memory) => memory,
        // The host needs none for them.
        Err(error) if error.kind() == ErrorKind::OutOfDeviceMemory => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut ticket = None;
    match file {
        Some(file) => ticket = Some(plan.submit(context, file, &memory, 0, options)?),
        None => work::bring(context, source, &plan, (&memory, 0))?,
    }
    Ok(Some(Packed {
        bytes: plan.bytes(),
        memory,
        ticket,
        places,
    }))
}

/// Decompresses the buffers of some batches together, and waits; those that are left, batch by
/// batch, for the host.
pub(super) fn finish(
    context: &Context,
    source: &dyn Source,
    batches: Vec<Batch<'_>>,
) -> Result<Vec<Vec<Job>>> {
    let mut list = Vec::new();
    // The batch and the number of each.
    let mut names = Vec::new();
    let mut batches = batches;
    for batch in &mut batches {
        if let Some(ticket) = batch.packed.ticket.take() {
            let done = ticket.wait(None)?;
            if done.bytes < batch.packed.bytes {
                let path = source.path();
                let text = format!("{} became shorter while it was read", path.display());
                return Err(Error::new(ErrorKind::FileChanged, text).with_path(path));
            }
        }
    }
    for (number, batch) in batches.iter().enumerate() {
        for (at, offset) in &batch.packed.places {
            let Some(job) = batch.jobs.get(*at) else {
                continue;
            };
            names.push((number, *at));
            list.push(Compressed {
                codec: codec_of(job),
                from: &batch.packed.memory,
                from_offset: *offset,
                from_size: job.stored,
                to: batch.to,
                to_offset: batch.base + job.to,
                to_size: job.size,
            });
        }
    }
    let done = match context.decompress(&list) {
        Ok(done) => done,
        // No memory for its work: all of it is left.
        Err(error) if error.kind() == ErrorKind::NotSupported => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut good = vec![Vec::new(); batches.len()];
    for ((number, at), done) in names.into_iter().zip(done) {
        if done.status == DecompressStatus::Ok
            && let Some(good) = good.get_mut(number)
        {
            good.push(at);
        }
    }
    let left = |(batch, mut good): (&Batch<'_>, Vec<usize>)| {
        good.sort_unstable();
        let jobs = batch.jobs.iter().enumerate();
        jobs.filter(|(at, _)| good.binary_search(at).is_err())
            .map(|(_, job)| *job)
            .collect()
    };
    Ok(batches.iter().zip(good).map(left).collect())
}

/// All of it for one batch, which is to be decompressed now.
pub(super) fn all(
    context: &Context,
    (source, file): (&dyn Source, Option<&File>),
    plan: &BatchPlan,
    (to, base): (&Buffer, u64),
    (way, options): (Unpack, &Options),
) -> Result<()> {
    let jobs = &plan.jobs;
    let left = match start(context, (source, file), jobs, (way, 1), options)? {
        Some(packed) => {
            let batch = Batch {
                jobs,
                packed,
                to,
                base,
            };
            finish(context, source, vec![batch])?.pop()
        }
        None => None,
    };
    let jobs = left.as_deref().unwrap_or(jobs);
    let mut faults = codec::decode(source, &[codec::Lot { jobs, to, base }], context);
    faults.pop().flatten().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_equal_buffers_pay_and_few_do_not() {
        let job = |size| Job {
            codec: Codec::Lz4,
            from: 0,
            stored: size / 2,
            size,
            to: 0,
        };
        let equal = |count: usize| vec![job(64 << 10); count];
        assert!(!pays(&equal(31), 1, 1));
        assert!(pays(&equal(32), 1, 1));
        assert!(!pays(&equal(32), 1, 16));
        assert!(pays(&equal(32), 16, 16));
        // One long one is waited for.
        let mut uneven = equal(64);
        uneven.push(job(64 << 20));
        assert!(!pays(&uneven, 1, 1));
        // Sizes that no file has do not wrap.
        assert!(!pays(&[job(u64::MAX), job(1)], 1, 2));
    }
}
