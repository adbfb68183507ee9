//! Which format a file has, by what it holds. The name of a file says nothing here.
//!
//! Magic numbers stand at the head; some formats repeat theirs at the end, and a file that was cut
//! is told by that. A few KiB are read, however large the file is.

use super::Source;
use crate::error::Result;

/// Bytes that are looked at from the start of a file.
const HEAD: u64 = 4096;
/// Bytes that are looked at from its end.
const TAIL: u64 = 8;
/// Longest JSON header of a safetensors file, bytes (the reference implementation's limit).
pub(super) const SAFETENSORS_HEADER_MAX: u64 = 100_000_000;

/// A format that is known by its contents. Numbers are those of the C header and never change;
/// those from 16 on are recognised, and read by nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Format {
    /// None of the others.
    Unknown = 0,
    /// ELF: programs, libraries, object files, cubins.
    Elf = 1,
    /// Parquet, its footer encrypted or not.
    Parquet = 2,
    /// Arrow IPC file, also called Feather version 2.
    ArrowFile = 3,
    /// Arrow IPC stream.
    ArrowStream = 4,
    /// safetensors.
    Safetensors = 5,
    /// GGUF.
    Gguf = 6,
    /// The JSON index of a model in several safetensors files.
    SafetensorsIndex = 7,
    /// Feather version 1.
    Feather1 = 16,
    /// ORC.
    Orc = 17,
    /// NumPy's .npy.
    Numpy = 18,
    /// A Zstandard frame.
    Zstd = 19,
    /// An LZ4 frame.
    Lz4Frame = 20,
    /// gzip.
    Gzip = 21,
    /// A zip archive: .npz, PyTorch's .pt, .jar.
    Zip = 22,
    /// HDF5.
    Hdf5 = 23,
    /// Vortex.
    Vortex = 24,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 17] = [
        Self::Unknown,
        Self::Elf,
        Self::Parquet,
        Self::ArrowFile,
        Self::ArrowStream,
        Self::Safetensors,
        Self::Gguf,
        Self::SafetensorsIndex,
        Self::Feather1,
        Self::Orc,
        Self::Numpy,
        Self::Zstd,
        Self::Lz4Frame,
        Self::Gzip,
        Self::Zip,
        Self::Hdf5,
        Self::Vortex,
    ];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Elf => "ELF",
            Self::Parquet => "Parquet",
            Self::ArrowFile => "Arrow IPC file",
            Self::ArrowStream => "Arrow IPC stream",
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
            Self::SafetensorsIndex => "safetensors index",
            Self::Feather1 => "Feather 1",
            Self::Orc => "ORC",
            Self::Numpy => "NumPy array",
            Self::Zstd => "Zstandard frame",
            Self::Lz4Frame => "LZ4 frame",
            Self::Gzip => "gzip",
            Self::Zip => "zip archive",
            Self::Hdf5 => "HDF5",
            Self::Vortex => "Vortex",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detected {
    /// Its format.
    pub format: Format,
    /// False when the format repeats its magic number at the end and this file does not: it was
    /// cut, or is still being written.
    pub has_tail: bool,
}

/// Finds the format of a source. Empty files and those too short for any format are `Unknown`.
///
/// # Errors
/// What the source says when it is read.
pub fn detect(source: &dyn Source) -> Result<Detected> {
    let size = source.size();
    let head = source.bytes(0, size.min(HEAD), "the head")?;
    let tail_size = size.min(TAIL);
    let tail = source.bytes(size - tail_size, tail_size, "the tail")?;
    let format = by_head(&head, size);
    let wanted: &[&[u8]] = match format {
        Format::Parquet => &[b"PAR1", b"PARE"],
        Format::ArrowFile => &[b"ARROW1"],
        Format::Feather1 => &[b"FEA1"],
        Format::Vortex => &[b"VTXF"],
        _ => &[b""],
    };
    // A file that is all head has no second magic number.
    let room = |magic: &[u8]| size >= 2 * magic.len() as u64;
    let has_tail = wanted
        .iter()
        .any(|magic| room(magic) && tail.ends_with(magic));
    Ok(Detected { format, has_tail })
}

/// Magic numbers at the start.
const MAGICS: &[(&[u8], Format)] = &[
    (b"\x7fELF", Format::Elf),
    (b"PAR1", Format::Parquet),
    (b"PARE", Format::Parquet),
    (b"ARROW1\0\0", Format::ArrowFile),
    (b"GGUF", Format::Gguf),
    (b"FEA1", Format::Feather1),
    (b"ORC", Format::Orc),
    (b"\x93NUMPY", Format::Numpy),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
    (b"\x04\x22\x4d\x18", Format::Lz4Frame),
    (b"\x02\x21\x4c\x18", Format::Lz4Frame),
    (b"\x1f\x8b", Format::Gzip),
    (b"PK\x03\x04", Format::Zip),
    (b"PK\x05\x06", Format::Zip),
    (b"PK\x07\x08", Format::Zip),
    (b"VTXF", Format::Vortex),
];

/// HDF5's number stands at 0, 512, 1024, 2048, ...: behind what its user put first.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

fn by_head(head: &[u8], size: u64) -> Format {
    // A safetensors file begins with a length: looked at first, since a length may look like a
    // magic number of two or three letters, and a magic number never is followed by its brace.
    if is_safetensors(head, size) {
        return Format::Safetensors;
    }
    if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return *format;
    }
    if is_arrow_stream(head, size) {
        return Format::ArrowStream;
    }
    let places = [0, 512, 1024, 2048];
    if places
        .iter()
        .any(|at| head.get(*at..).is_some_and(|rest| rest.starts_with(HDF5)))
    {
        return Format::Hdf5;
    }
    if is_safetensors_index(head) {
        return Format::SafetensorsIndex;
    }
    Format::Unknown
}

/// A u64 length of at most 100 MB that fits the file, and a JSON object behind it.
fn is_safetensors(head: &[u8], size: u64) -> bool {
    let (Some(length), Some(b'{')) = (head.first_chunk::<8>(), head.get(8)) else {
        return false;
    };
    let length = u64::from_le_bytes(*length);
    (2..=SAFETENSORS_HEADER_MAX).contains(&length) && length <= size - 8
}

/// The continuation mark, the length of a flatbuffer (padded to 8 bytes) that fits the file, and
/// the offset of its root table.
fn is_arrow_stream(head: &[u8], size: u64) -> bool {
    let word = |at: usize| {
        let bytes = head.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let (Some(u32::MAX), Some(length), Some(root)) = (word(0), word(4), word(8)) else {
        return false;
    };
    length >= 8
        && length <= i32::MAX as u32
        && u64::from(length) <= size - 8
        && root >= 4
        && root < length
}

/// An object of JSON with a `weight_map` near its start.
fn is_safetensors_index(head: &[u8]) -> bool {
    const KEY: &[u8] = b"\"weight_map\"";
    let start = head.iter().find(|byte| !byte.is_ascii_whitespace());
    start == Some(&b'{') && head.windows(KEY.len()).any(|part| part == KEY)
}

#[cfg(test)]
mod tests {
    use super::super::MemorySource;
    use super::*;

    fn found(bytes: &[u8]) -> (Format, bool) {
        let source = MemorySource::new(bytes.to_vec(), "bytes");
        let detected = detect(&source).expect("memory is read");
        (detected.format, detected.has_tail)
    }

    fn tensors(length: u64, text: &[u8]) -> Vec<u8> {
        [&length.to_le_bytes()[..], text].concat()
    }

    #[test]
    fn each_magic_number_is_known() {
        for (magic, format) in MAGICS {
            let mut bytes = magic.to_vec();
            bytes.extend([0xee; 40]);
            assert_eq!(found(&bytes).0, *format, "{magic:?}");
        }
        assert_eq!(found(b"PAR1 and all that PAR1"), (Format::Parquet, true));
        assert_eq!(found(b"PARE and all that PARE"), (Format::Parquet, true));
        assert_eq!(found(b"PAR1 and all that"), (Format::Parquet, false));
        assert_eq!(found(b"PAR1"), (Format::Parquet, false), "one is not two");
        assert_eq!(found(b"ARROW1\0\0..ARROW1"), (Format::ArrowFile, true));
        assert_eq!(found(b"ARROW1\0\0.."), (Format::ArrowFile, false));
        let mut user_block = vec![0; 1024];
        user_block.extend(HDF5);
        assert_eq!(found(&user_block).0, Format::Hdf5);
        let mut stream = vec![0xff; 4];
        stream.extend(16u32.to_le_bytes());
        stream.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(found(&stream), (Format::ArrowStream, true));
        assert_eq!(found(&stream[..20]).0, Format::Unknown, "cut in its schema");
        let index = b" {\"metadata\": {}, \"weight_map\": {}}";
        assert_eq!(found(index).0, Format::SafetensorsIndex);
    }

    #[test]
    fn safetensors_needs_a_length_that_fits_and_a_brace() {
        assert_eq!(found(&tensors(2, b"{}")).0, Format::Safetensors);
        assert_eq!(found(&tensors(3, b"{}")).0, Format::Unknown);
        assert_eq!(found(&tensors(2, b"[]")).0, Format::Unknown);
        assert_eq!(found(&tensors(1, b"{}")).0, Format::Unknown);
        assert_eq!(found(&tensors(u64::MAX, b"{}")).0, Format::Unknown);
        // 0x8b1f bytes: the length begins as gzip does.
        let mut gzip = tensors(0x8b1f, b"{");
        gzip.resize(0x8b1f + 8, b' ');
        assert_eq!(found(&gzip).0, Format::Safetensors);
    }

    #[test]
    fn short_and_empty_files_are_unknown() {
        let whole = tensors(2, b"{}");
        for size in 0..whole.len() {
            assert_eq!(found(&whole[..size]), (Format::Unknown, true), "{size}");
        }
        for (magic, _) in MAGICS {
            let short = &magic[..magic.len() - 1];
            assert_eq!(found(short).0, Format::Unknown, "{magic:?}");
        }
        for format in Format::ALL {
            assert!(!format.name().is_empty());
        }
    }
}
