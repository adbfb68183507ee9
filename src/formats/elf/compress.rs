//! Compressed sections: how they begin, and their decoding into a buffer.

use std::io::{self, BufRead, BufReader, Read};

use flate2::{Decompress, FlushDecompress, Status};
use object::Endianness;
use object::elf;
use object::read::elf::{CompressionHeader as _, FileHeader};

use super::file::Elf;
use super::raw::{self, by_class, corrupted, not_supported};
use super::section::Section;
use crate::engine::{Buffer, Context};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// How the bytes of a section stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// SHF_COMPRESSED by zlib, or the older `.zdebug_` sections.
    Zlib,
    /// SHF_COMPRESSED by Zstandard.
    Zstd,
    /// Not at all: they are zero.
    Zero,
}

/// Of one compressed byte come at most this many: deflate's longest match has 258 bytes in 2 bits
/// (zlib's technical notes, "Maximum Compression Factor").
const ZLIB_EXPANSION: u64 = 1032;
/// The same of Zstandard: a block of at least 4 bytes stands for at most 128 KiB (RFC 8878 3.1.1).
const ZSTD_EXPANSION: u64 = 32 << 10;
/// What every section may grow to, whatever its size: headers of streams count as bytes too.
const EXPANSION_BASE: u64 = 1 << 10;
/// Windows that Zstandard streams may ask for, as powers of two; memory of one decoder. 8 MiB is
/// what RFC 8878 wants every decoder to take; above it as much as the decoded bytes, up to 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Compressed bytes that are read at once.
const READ_SIZE: usize = 256 << 10;
/// Decoded bytes that are moved at once.
const MOVE_SIZE: u64 = 1 << 20;

/// What is decoded: compressed bytes in the file, and what they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) encoding: Encoding,
    /// Where the compressed bytes are in the file.
    pub(super) offset: u64,
    /// How many.
    pub(super) stored: u64,
    /// Bytes that they stand for.
    pub(super) size: u64,
    /// Alignment of those.
    pub(super) align: u64,
}

impl Stream {
    /// What a section holds, `None` when it is not compressed. Its size is checked against what
    /// its bytes can become.
    pub(super) fn of(file: &Elf, section: &Section) -> Result<Option<Self>> {
        if section.is_nobits() {
            return Ok(None);
        }
        let stream = if section.is_compressed() {
            Some(Self::of_header(file, section)?)
        } else if file.section_name(section).starts_with(b".zdebug_") {
            Self::of_old(file, section)?
        } else {
            None
        };
        if let Some(stream) = &stream {
            stream.check(file.source())?;
        }
        Ok(stream)
    }

    /// gABI chapter 4, "Section Compression".
    fn of_header(file: &Elf, section: &Section) -> Result<Self> {
        let source = file.source();
        let e = file.header().order.endian();
        let (kind, size, align, header) = by_class!(file.header().class, H => {
            let header = raw::size_of::<<H as FileHeader>::CompressionHeader>();
            let bytes = source.bytes(section.offset, header.min(section.size), "a section")?;
            let found = header_of::<H>(e, &bytes);
            let Some((kind, size, align)) = found else {
                let text = "a compressed section ends within its header";
                return Err(corrupted(source, section.offset, text));
            };
            (kind, size, align, header)
        });
        let encoding = match kind {
            elf::ELFCOMPRESS_ZLIB => Encoding::Zlib,
            elf::ELFCOMPRESS_ZSTD => Encoding::Zstd,
            other => {
                let name = String::from_utf8_lossy(file.section_name(section)).into_owned();
                let text = format!(
                    "{name} is compressed by method {}; 1 and 2 are known",
                    other.0
                );
                return Err(not_supported(source, section.offset, text));
            }
        };
        Ok(Self {
            encoding,
            offset: section.offset.saturating_add(header),
            stored: section.size - header,
            size,
            align,
        })
    }

    /// The form before SHF_COMPRESSED (binutils, bfd/compress.c): "ZLIB" and the size as 8 bytes,
    /// the largest first. A section of that name without them is as it is.
    fn of_old(file: &Elf, section: &Section) -> Result<Option<Self>> {
        const HEADER: u64 = 12;
        let source = file.source();
        if section.size < HEADER {
            return Ok(None);
        }
        let bytes = source.bytes(section.offset, HEADER, "a section")?;
        let Some((b"ZLIB", size)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let size = size
            .iter()
            .fold(0u64, |size, byte| size << 8 | u64::from(*byte));
        Ok(Some(Self {
            encoding: Encoding::Zlib,
            offset: section.offset.saturating_add(HEADER),
            stored: section.size - HEADER,
            size,
            align: section.align,
        }))
    }

    /// Refuses what lies outside of the file, or says that it becomes more than it can.
    pub(super) fn check(&self, source: &dyn Source) -> Result<()> {
        let factor = match self.encoding {
            Encoding::Zlib => ZLIB_EXPANSION,
            _ => ZSTD_EXPANSION,
        };
        let most = self
            .stored
            .saturating_mul(factor)
            .saturating_add(EXPANSION_BASE);
        if self.size > most {
            let (stored, size) = (self.stored, self.size);
            let text = format!(
                "{stored} compressed bytes are said to become {size}; they cannot become more \
                 than {most}"
            );
            return Err(corrupted(source, self.offset, text));
        }
        let end = self.offset.checked_add(self.stored);
        if end.is_none_or(|end| end > source.size()) {
            let text = "a compressed section passes the end of the file";
            return Err(corrupted(source, self.offset, text));
        }
        Ok(())
    }

    /// Decodes into `to`, in memory that does not grow with the section: two pieces, and the
    /// window of the decoder (32 KiB for zlib; for Zstandard 8 MiB, or as much as it decodes to,
    /// up to 128 MiB).
    pub(super) fn decode(
        &self,
        source: &dyn Source,
        context: &Context,
        to: &Buffer,
        to_offset: u64,
    ) -> Result<()> {
        let mut done = 0;
        self.decode_to(source, |piece| {
            let offset = to_offset.saturating_add(done);
            done += piece.len() as u64;
            context.upload(&[(piece, to, offset)])
        })
    }

    /// Decodes, and hands every piece on.
    pub(super) fn decode_to(
        &self,
        source: &dyn Source,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let range = Range {
            source,
            at: self.offset,
            end: self.offset.saturating_add(self.stored),
        };
        let input = BufReader::with_capacity(READ_SIZE.min(self.stored as usize + 1), range);
        let failed = |error: &io::Error| self.failed(source, error);
        match self.encoding {
            Encoding::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input);
                let mut decoder = decoder.map_err(|e| failed(&e))?;
                let log = self.size.checked_next_power_of_two().map_or(64, u64::ilog2);
                let log = log.clamp(ZSTD_WINDOW_LOG, ZSTD_WINDOW_LOG_MAX);
                let limit = decoder.window_log_max(log);
                limit.map_err(|e| failed(&e))?;
                self.drain(source, decoder, &mut take)
            }
            _ => self.drain(source, Streams::new(input), &mut take),
        }
    }

    /// Takes exactly `size` bytes out of a decoder.
    fn drain(
        &self,
        source: &dyn Source,
        mut decoder: impl Read,
        take: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; MOVE_SIZE.min(self.size.max(1)) as usize];
        let mut left = self.size;
        while left > 0 {
            let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut filled = 0;
            while filled < wanted {
                let into = piece.get_mut(filled..wanted).unwrap_or(&mut []);
                match decoder.read(into) {
                    Ok(0) => return Err(self.ended(source, left - filled as u64)),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.failed(source, &error)),
                }
            }
            take(piece.get(..wanted).unwrap_or(&[]))?;
            left -= wanted as u64;
        }
        // The checksum of the stream stands behind its last byte; reading on verifies it.
        let mut more = [0];
        match decoder.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => {
                let text = format!("a section holds more than the {} bytes it says", self.size);
                Err(corrupted(source, self.offset, text))
            }
            Err(error) => Err(self.failed(source, &error)),
        }
    }

    fn ended(&self, source: &dyn Source, left: u64) -> Error {
        let (size, got) = (self.size, self.size - left);
        let text = format!("a compressed section holds {got} bytes; it says {size}");
        corrupted(source, self.offset, text)
    }

    fn failed(&self, source: &dyn Source, error: &io::Error) -> Error {
        if let Some(own) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        {
            return own.clone();
        }
        if error.kind() == io::ErrorKind::OutOfMemory {
            let text = format!("decode a section of {}: {error}", source.path().display());
            return Error::new(ErrorKind::OutOfHostMemory, text);
        }
        corrupted(
            source,
            self.offset,
            format!("a compressed section: {error}"),
        )
    }
}

fn header_of<H>(e: Endianness, bytes: &[u8]) -> Option<(elf::CompressionType, u64, u64)>
where
    H: FileHeader<Endian = Endianness>,
{
    let found: &H::CompressionHeader = raw::record(bytes, 0)?;
    Some((
        found.ch_type(e),
        found.ch_size(e).into(),
        found.ch_addralign(e).into(),
    ))
}

/// zlib streams behind each other: linkers joined compressed sections of their inputs so.
struct Streams<R> {
    input: R,
    inflate: Decompress,
    /// A stream has ended, and its checksum was right.
    ended: bool,
}

impl<R: BufRead> Streams<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            inflate: Decompress::new(true),
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Streams<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let chunk = self.input.fill_buf()?;
            let is_last = chunk.is_empty();
            if self.ended {
                if is_last {
                    return Ok(0);
                }
                self.inflate.reset(true);
                self.ended = false;
            }
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(chunk, into, FlushDecompress::None)?;
            let read = self.inflate.total_in() - read;
            let written = self.inflate.total_out() - written;
            self.input.consume(read as usize);
            self.ended = status == Status::StreamEnd;
            if written > 0 {
                return Ok(written as usize);
            }
            if is_last && !self.ended {
                let text = "the stream ends before its checksum";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
    }
}

/// A range of a source, read in order.
struct Range<'a> {
    source: &'a dyn Source,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let size = left.min(into.len());
        let into = into.get_mut(..size).unwrap_or(&mut []);
        self.source.read(self.at, into).map_err(io::Error::other)?;
        self.at += size as u64;
        Ok(size)
    }
}
