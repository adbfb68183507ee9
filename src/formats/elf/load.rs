//! Sections and segments into device memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use object::elf;
use parking_lot::Mutex;

use super::compress::{Encoding, Stream};
use super::file::Elf;
use super::glob;
use super::raw::{corrupted, not_supported};
use super::section::{Section, Segment};
use crate::base::{align_up, limits};
use crate::engine::{Buffer, Completion, Context, File, Path};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Load, Plan, ReadOptions, Source};

/// Threads that decode, at most: each has a decoder and two pieces of memory.
const DECODERS_MAX: usize = 16;
/// Zeros that are moved at once, bytes.
const ZEROS: usize = 256 << 10;

/// What is to be loaded.
#[derive(Debug, Clone, Copy)]
pub enum Select<'a> {
    /// Every section that a running program has in memory and the file has bytes of.
    Allocated,
    /// Every section that the file has bytes of.
    Stored,
    /// The sections of these names; `*` stands for any bytes and `?` for one. In the order of the
    /// file, each once. Each name must be there. Those without bytes in the file are zero.
    Names(&'a [&'a [u8]]),
    /// These sections, in this order.
    Sections(&'a [u32]),
    /// Every LOAD segment, as a loader would: what the file has, then zeros.
    Loads,
    /// These segments, in this order.
    Segments(&'a [u32]),
}

/// What a part of a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// A section.
    Section,
    /// A segment.
    Segment,
}

/// A section or segment and its place in the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which of both.
    pub kind: PartKind,
    /// Its number.
    pub index: u32,
    /// Where it goes, bytes from the first of the destination: a multiple of its alignment.
    pub to_offset: u64,
    /// Bytes there, decoded.
    pub size: u64,
    /// Its alignment, a power of two.
    pub align: u64,
    /// Where its bytes are in the file; of compressed ones behind their header.
    pub file_offset: u64,
    /// Bytes in the file, as they are there. Fewer than `size` when it is compressed, or ends
    /// with zeros.
    pub file_size: u64,
    /// How they stand in the file.
    pub encoding: Encoding,
}

/// What goes where. Bytes between the parts are left as they are.
#[derive(Debug, Clone)]
pub struct ElfPlan {
    source: Arc<dyn Source>,
    parts: Vec<Part>,
    plain: Plan,
    size: u64,
    limit: u64,
}

impl ElfPlan {
    /// Looks up what is selected and gives each part its place, one behind the other, each at its
    /// alignment. Only headers of compressed sections are read.
    ///
    /// `limit` bytes is the most that the destination may take: what a section decodes to, and
    /// how far zeros go, the file alone says.
    ///
    /// # Errors
    /// `NotFound` for a name that no section has; `OutOfRange` for a number, or when more than
    /// `limit` would be needed; `Corrupted` for what passes the end of the file or cannot become
    /// as large as it says; `NotSupported` for a compression or an alignment (above 2 MiB) that
    /// is not known.
    pub fn new(file: &Elf, select: Select<'_>, limit: u64) -> Result<Self> {
        let mut plan = Self {
            source: file.source_shared().clone(),
            parts: Vec::new(),
            plain: Plan::new(),
            size: 0,
            limit,
        };
        let sections = file.sections().iter();
        match select {
            Select::Allocated => {
                for section in sections.filter(|s| s.is_allocated() && has_bytes(s)) {
                    plan.add_section(file, section)?;
                }
            }
            Select::Stored => {
                for section in sections.filter(|s| has_bytes(s)) {
                    plan.add_section(file, section)?;
                }
            }
            Select::Names(names) => {
                check_names(file, names)?;
                for section in sections.filter(|s| is_one_of(file, s, names)) {
                    plan.add_section(file, section)?;
                }
            }
            Select::Sections(indices) => {
                for index in indices {
                    plan.add_section(file, file.section(*index)?)?;
                }
            }
            Select::Loads => {
                for segment in file.segments().iter().filter(|s| s.kind == elf::PT_LOAD.0) {
                    plan.add_segment(file, segment)?;
                }
            }
            Select::Segments(indices) => {
                for index in indices {
                    plan.add_segment(file, segment_of(file, *index)?)?;
                }
            }
        }
        Ok(plan)
    }

    fn add_section(&mut self, file: &Elf, section: &Section) -> Result<()> {
        let stream = Stream::of(file, section)?;
        let part = match stream {
            Some(stream) => Part {
                kind: PartKind::Section,
                index: section.index,
                to_offset: 0,
                size: stream.size,
                align: stream.align,
                file_offset: stream.offset,
                file_size: stream.stored,
                encoding: stream.encoding,
            },
            None => Part {
                kind: PartKind::Section,
                index: section.index,
                to_offset: 0,
                size: section.size,
                align: section.align,
                file_offset: section.offset,
                file_size: if section.is_nobits() { 0 } else { section.size },
                encoding: if section.is_nobits() {
                    Encoding::Zero
                } else {
                    Encoding::Plain
                },
            },
        };
        self.add(file.header_of(section.index), part)
    }

    fn add_segment(&mut self, file: &Elf, segment: &Segment) -> Result<()> {
        let size = u64::from(file.header().segment_size);
        let at = file.header().segments_offset + size * u64::from(segment.index);
        let part = Part {
            kind: PartKind::Segment,
            index: segment.index,
            to_offset: 0,
            // Notes of a core dump have no size in memory.
            size: segment.memory_size.max(segment.file_size),
            align: segment.align,
            file_offset: segment.offset,
            file_size: segment.file_size,
            encoding: Encoding::Plain,
        };
        self.add(at, part)
    }

    /// `at` is where the header of the part is in the file.
    fn add(&mut self, at: u64, part: Part) -> Result<()> {
        let source = &*self.source;
        let align = part.align.max(1);
        if !align.is_power_of_two() || align > limits::ALIGNMENT_MAX {
            let (what, most) = (name_of(&part), limits::ALIGNMENT_MAX);
            let text = format!(
                "{what} is aligned to {align} bytes; powers of two up to {most} can be placed"
            );
            return Err(not_supported(source, at, text));
        }
        let end = part.file_offset.checked_add(part.file_size);
        if part.file_size > 0 && end.is_none_or(|end| end > source.size()) {
            let text = format!(
                "{} has {} bytes from {} on, which pass the end of the file at {}",
                name_of(&part),
                part.file_size,
                part.file_offset,
                source.size()
            );
            return Err(corrupted(source, at, text));
        }
        let place = align_up(self.size, align);
        let end = place.and_then(|place| place.checked_add(part.size));
        let (Some(to_offset), Some(end)) = (place, end.filter(|end| *end <= self.limit)) else {
            let path = source.path();
            let text = format!(
                "load {} of {}: {} bytes behind {} others pass the limit of {}",
                name_of(&part),
                path.display(),
                part.size,
                self.size,
                self.limit
            );
            let error = Error::new(ErrorKind::OutOfRange, text);
            return Err(error.with_path(path).with_offset(at));
        };
        if part.encoding == Encoding::Plain {
            self.plain
                .push_at(part.file_offset, part.file_size, to_offset)?;
        }
        self.size = end;
        self.parts.push(Part {
            to_offset,
            align,
            ..part
        });
        Ok(())
    }

    /// The parts, in the order of their places.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of the destination.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are read of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.file_size).sum()
    }

    /// The ranges that go to their places as they are.
    #[must_use]
    pub fn plain(&self) -> &Plan {
        &self.plain
    }

    /// Decodes every compressed part and throws it away; the bytes that they became.
    pub(super) fn decode_all(&self) -> Result<u64> {
        let mut bytes = 0;
        for part in &self.parts {
            if let Some(Made::Decoded(stream)) = made_of(part) {
                stream.decode_to(&*self.source, |piece| {
                    bytes += piece.len() as u64;
                    Ok(())
                })?;
            }
        }
        Ok(bytes)
    }

    /// Whether nothing has to be decoded or made: all of it is ranges of the file.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| made_of(part).is_none())
    }

    /// Reads all parts into `to`, from `to_offset` on, and waits: plain ones all together by the
    /// engine, compressed ones meanwhile by threads of their own, one each at a time. `file` is
    /// the one that the source reads. With a stream, what is in it before the call is done before
    /// the memory is touched. The completion counts the bytes that came to be in memory.
    ///
    /// Memory beside the destination: that of `Load::read`, and for each decoder 1.3 MiB and its
    /// window: 32 KiB for zlib; for Zstandard at most 8 MiB, or for a section that is larger as
    /// much as that has, up to 128 MiB.
    ///
    /// # Errors
    /// `OutOfRange` when they do not fit; `Corrupted` with the offset when compressed bytes are
    /// damaged, or become more or less than they say; as `Load::read`. The bytes of the
    /// destination are unspecified then.
    pub fn read(
        &self,
        file: &File,
        to: &Buffer,
        to_offset: u64,
        options: &ReadOptions,
    ) -> Result<Completion> {
        let end = to_offset.checked_add(self.size);
        if end.is_none_or(|end| end > to.size()) {
            let text = format!(
                "read {} bytes of {} to {to_offset}: the buffer has {}",
                self.size,
                self.source.path().display(),
                to.size()
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let began = Instant::now();
        let plain = || match self.plain.pieces() {
            [] => Ok(None),
            _ => self.read_plain(file, to, to_offset, options).map(Some),
        };
        let read = match self.is_plain() {
            true => plain()?,
            false => self.make(to, to_offset, options, plain)?,
        };
        let latency = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let none = Completion {
            bytes: 0,
            path: Path::None,
            paths: 0,
            crc32c: None,
            latency_ns: 0,
            retries: 0,
            fallbacks: 0,
        };
        Ok(Completion {
            bytes: self.parts.iter().map(|part| part.size).sum(),
            latency_ns: latency,
            ..read.unwrap_or(none)
        })
    }

    fn read_plain(
        &self,
        file: &File,
        to: &Buffer,
        to_offset: u64,
        options: &ReadOptions,
    ) -> Result<Completion> {
        let load = Load::new(file, self.plain.clone());
        // What lies between two pieces in the destination is somebody else's here.
        let gap = if self.is_plain() { options.gap } else { 0 };
        let options = ReadOptions {
            gap,
            ..options.clone()
        };
        load.read(to, to_offset, &options)
    }

    /// Decodes, and writes zeros, by several threads, while this one reads what is plain.
    fn make<T: Send>(
        &self,
        to: &Buffer,
        to_offset: u64,
        options: &ReadOptions,
        plain: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let context = to.context();
        let mut jobs: Vec<(Made, u64)> = self
            .parts
            .iter()
            .filter_map(|part| Some((made_of(part)?, part.to_offset)))
            .collect();
        if let Some(stream) = options.transfer.stream {
            let mark = context.mark()?;
            mark.set(stream)?;
            mark.wait()?;
        }
        // The largest first: so no thread is left alone with it at the end.
        jobs.sort_by_key(|(made, _)| std::cmp::Reverse(made.size()));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::default();
        let work = || {
            while let Some((made, at)) = jobs.get(next.fetch_add(1, Relaxed)) {
                let result = made.write(&*self.source, &context, to, to_offset + at);
                if let Err(error) = result {
                    failed.lock().get_or_insert(error);
                    // Nobody starts another one.
                    next.store(jobs.len(), Relaxed);
                }
            }
        };
        let read = std::thread::scope(|scope| {
            for index in 0..cores.min(jobs.len()).min(DECODERS_MAX) {
                let thread = std::thread::Builder::new().name(format!("gds-decode-{index}"));
                // With fewer threads it takes longer.
                let _ = thread.spawn_scoped(scope, work);
            }
            let read = plain();
            work();
            read
        });
        failed.into_inner().map_or(read, Err)
    }
}

/// Bytes of a part that are no bytes of the file.
#[derive(Debug, Clone, Copy)]
enum Made {
    Decoded(Stream),
    Zeros { from: u64, size: u64 },
}

fn made_of(part: &Part) -> Option<Made> {
    let made = match part.encoding {
        Encoding::Zlib | Encoding::Zstd => Made::Decoded(Stream {
            encoding: part.encoding,
            offset: part.file_offset,
            stored: part.file_size,
            size: part.size,
            align: part.align,
        }),
        Encoding::Plain | Encoding::Zero => Made::Zeros {
            from: part.file_size,
            size: part.size - part.file_size,
        },
    };
    let is_empty = matches!(made, Made::Zeros { size: 0, .. });
    (!is_empty).then_some(made)
}

impl Made {
    fn size(&self) -> u64 {
        match self {
            Self::Decoded(stream) => stream.size,
            Self::Zeros { size, .. } => *size,
        }
    }

    fn write(&self, source: &dyn Source, context: &Context, to: &Buffer, at: u64) -> Result<()> {
        match self {
            Self::Decoded(stream) => stream.decode(source, context, to, at),
            Self::Zeros { from, size } => {
                let zeros = [0; ZEROS];
                let end = at + from + size;
                let mut at = at + from;
                while at < end {
                    let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS);
                    context.upload(&[(zeros.get(..left).unwrap_or(&[]), to, at)])?;
                    at += left as u64;
                }
                Ok(())
            }
        }
    }
}

fn name_of(part: &Part) -> String {
    match part.kind {
        PartKind::Section => format!("section {}", part.index),
        PartKind::Segment => format!("segment {}", part.index),
    }
}

fn has_bytes(section: &Section) -> bool {
    !section.is_nobits() && !section.is(elf::SHT_NULL) && section.size > 0
}

fn is_one_of(file: &Elf, section: &Section, names: &[&[u8]]) -> bool {
    !section.is(elf::SHT_NULL) && names.iter().any(|name| is_called(file, section, name))
}

fn is_called(file: &Elf, section: &Section, name: &[u8]) -> bool {
    if name.iter().any(|byte| matches!(byte, b'*' | b'?')) {
        return glob::matches(name, file.section_name(section));
    }
    file.is_named(section, name)
}

fn check_names(file: &Elf, names: &[&[u8]]) -> Result<()> {
    for name in names {
        let mut sections = file.sections().iter().filter(|s| !s.is(elf::SHT_NULL));
        if !sections.any(|section| is_called(file, section, name)) {
            let path = file.source().path();
            let text = format!(
                "no section of {} is called {}; `gds inspect` lists them",
                path.display(),
                String::from_utf8_lossy(name)
            );
            return Err(Error::new(ErrorKind::NotFound, text).with_path(path));
        }
    }
    Ok(())
}

fn segment_of(file: &Elf, index: u32) -> Result<&Segment> {
    file.segments().get(index as usize).ok_or_else(|| {
        let (path, count) = (file.source().path(), file.segments().len());
        let text = format!(
            "{} has {count} segments; {index} was asked for",
            path.display()
        );
        Error::new(ErrorKind::OutOfRange, text).with_path(path)
    })
}
