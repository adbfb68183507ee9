//! Section headers and program headers.

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _};

use super::header::Header;
use super::raw::{self, by_class};
use crate::error::Result;
use crate::formats::Source;

/// A section header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its number, from 0.
    pub index: u32,
    /// Where its name is in the table of names.
    pub(super) name: u32,
    /// sh_type.
    pub kind: u32,
    /// sh_flags.
    pub flags: u64,
    /// sh_addr.
    pub address: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes: in the file, unless it is NOBITS.
    pub size: u64,
    /// sh_link, for most types another section.
    pub link: u32,
    /// sh_info.
    pub info: u32,
    /// sh_addralign: 0 or 1 for none.
    pub align: u64,
    /// sh_entsize: bytes of an entry, or 0.
    pub entry_size: u64,
}

impl Section {
    /// Whether the file has no bytes of it (.bss).
    #[must_use]
    pub fn is_nobits(&self) -> bool {
        self.kind == elf::SHT_NOBITS.0
    }

    /// Whether a running program has it in memory.
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }

    /// Whether it begins with a compression header.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.flags & elf::SHF_COMPRESSED.0 != 0
    }

    pub(super) fn is(&self, kind: elf::SectionType) -> bool {
        self.kind == kind.0
    }
}

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 0.
    pub index: u32,
    /// p_type: PT_LOAD, ...
    pub kind: u32,
    /// p_flags: 1 execute, 2 write, 4 read.
    pub flags: u32,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// p_vaddr.
    pub address: u64,
    /// p_paddr.
    pub physical_address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; those past file_size are zero.
    pub memory_size: u64,
    /// p_align: 0 or 1 for none.
    pub align: u64,
}

/// Section header `index` of these bytes.
pub(super) fn of_bytes(header: &Header, bytes: &[u8], index: u32) -> Option<Section> {
    by_class!(header.class, H => section_of::<H>(header.order.endian(), bytes, index))
}

fn section_of<H>(e: Endianness, bytes: &[u8], index: u32) -> Option<Section>
where
    H: FileHeader<Endian = Endianness>,
{
    let at = u64::from(index) * raw::size_of::<H::SectionHeader>();
    let found: &H::SectionHeader = raw::record(bytes, at)?;
    Some(Section {
        index,
        name: found.sh_name(e),
        kind: found.sh_type(e).0,
        flags: found.sh_flags(e).0,
        address: found.sh_addr(e).into(),
        offset: found.sh_offset(e).into(),
        size: found.sh_size(e).into(),
        link: found.sh_link(e),
        info: found.sh_info(e),
        align: found.sh_addralign(e).into(),
        entry_size: found.sh_entsize(e).into(),
    })
}

fn segment_of<H>(e: Endianness, bytes: &[u8], index: u32) -> Option<Segment>
where
    H: FileHeader<Endian = Endianness>,
{
    let at = u64::from(index) * raw::size_of::<H::ProgramHeader>();
    let found: &H::ProgramHeader = raw::record(bytes, at)?;
    Some(Segment {
        index,
        kind: found.p_type(e).0,
        flags: found.p_flags(e).0,
        offset: found.p_offset(e).into(),
        address: found.p_vaddr(e).into(),
        physical_address: found.p_paddr(e).into(),
        file_size: found.p_filesz(e).into(),
        memory_size: found.p_memsz(e).into(),
        align: found.p_align(e).into(),
    })
}

pub(super) fn read_sections(source: &dyn Source, header: &Header) -> Result<Vec<Section>> {
    if header.sections_offset == 0 {
        return Ok(Vec::new());
    }
    let (count, size) = (header.sections, header.section_size);
    let at = header.sections_offset;
    let bytes = raw::table(source, at, count.into(), size.into(), "the section headers")?;
    let mut sections = Vec::with_capacity(count as usize);
    sections.extend((0..count).map_while(|index| of_bytes(header, &bytes, index)));
    Ok(sections)
}

pub(super) fn read_segments(source: &dyn Source, header: &Header) -> Result<Vec<Segment>> {
    let (count, size) = (header.segments, header.segment_size);
    let at = header.segments_offset;
    let bytes = raw::table(source, at, count.into(), size.into(), "the program headers")?;
    let e = header.order.endian();
    let mut segments = Vec::with_capacity(count as usize);
    by_class!(header.class, H => {
        segments.extend((0..count).map_while(|index| segment_of::<H>(e, &bytes, index)));
    });
    Ok(segments)
}
