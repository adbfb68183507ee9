//! The file header.

use object::Endianness;
use object::elf;

use super::raw::{self, by_class, corrupted, not_supported};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// Whether addresses and offsets have 32 or 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// ELFCLASS32.
    Elf32,
    /// ELFCLASS64.
    Elf64,
}

impl Class {
    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 64,
        }
    }
}

/// Which byte of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// ELFDATA2LSB.
    Little,
    /// ELFDATA2MSB.
    Big,
}

impl ByteOrder {
    pub(super) fn endian(self) -> Endianness {
        match self {
            Self::Little => Endianness::Little,
            Self::Big => Endianness::Big,
        }
    }
}

/// The file header (gABI chapter 4). Counts are the real ones: those that do not fit the header
/// are taken from section 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 32 or 64 bits.
    pub class: Class,
    /// Byte order.
    pub order: ByteOrder,
    /// EI_OSABI.
    pub os_abi: u8,
    /// EI_ABIVERSION.
    pub abi_version: u8,
    /// e_type: ET_EXEC, ET_DYN, ...
    pub kind: u16,
    /// e_machine.
    pub machine: u16,
    /// e_version.
    pub version: u32,
    /// e_entry, an address.
    pub entry: u64,
    /// e_flags; what they mean depends on the machine.
    pub flags: u32,
    /// e_ehsize, bytes.
    pub header_size: u16,
    /// Where the program headers are in the file, bytes.
    pub segments_offset: u64,
    /// Bytes of a program header.
    pub segment_size: u16,
    /// Segments.
    pub segments: u32,
    /// Where the section headers are in the file, bytes.
    pub sections_offset: u64,
    /// Bytes of a section header.
    pub section_size: u16,
    /// Sections.
    pub sections: u32,
    /// The section that holds the sections' names; 0 when there is none.
    pub names: u32,
}

/// What the header has for counts that are too large for it.
struct Counts {
    segments: u16,
    sections: u16,
    names: u16,
}

impl Header {
    pub(super) fn read(source: &dyn Source) -> Result<Self> {
        let size = source.size().min(raw::size_of::<raw::Header64>());
        let bytes = source.bytes(0, size, "the ELF header")?;
        let [b'\x7f', b'E', b'L', b'F', class, order, version, ..] = *bytes else {
            let path = source.path();
            let text = format!(
                "{} is no ELF file: it begins with no ELF magic",
                path.display()
            );
            let error = Error::new(ErrorKind::Corrupted, text);
            return Err(error.with_path(path).with_offset(0));
        };
        let class = match elf::FileClass(class) {
            elf::ELFCLASS32 => Class::Elf32,
            elf::ELFCLASS64 => Class::Elf64,
            other => {
                let text = format!("its class is {}; 1 and 2 are known", other.0);
                return Err(corrupted(source, 4, text));
            }
        };
        let order = match elf::DataEncoding(order) {
            elf::ELFDATA2LSB => ByteOrder::Little,
            elf::ELFDATA2MSB => ByteOrder::Big,
            other => {
                let text = format!("its byte order is {}; 1 and 2 are known", other.0);
                return Err(corrupted(source, 5, text));
            }
        };
        if version != elf::EV_CURRENT.0 {
            let text = format!("its version is {version}; 1 is known");
            return Err(not_supported(source, 6, text));
        }
        let (mut header, counts) = by_class!(class, H => {
            let Some(found) = raw::record::<H>(&bytes, 0) else {
                return Err(corrupted(source, 0, "it ends within its header"));
            };
            of_record(found, class, order)
        });
        header.resolve(source, &counts)?;
        header.check(source)?;
        Ok(header)
    }

    /// Takes counts that do not fit from section 0 (gABI chapter 4, "e_phnum", "e_shnum" and
    /// "e_shstrndx").
    fn resolve(&mut self, source: &dyn Source, counts: &Counts) -> Result<()> {
        self.segments = counts.segments.into();
        self.sections = counts.sections.into();
        self.names = counts.names.into();
        let many_segments = counts.segments == elf::PN_XNUM;
        let far_names = counts.names == elf::SHN_XINDEX.0;
        let has_table = self.sections_offset != 0;
        if !has_table || (counts.sections != 0 && !many_segments && !far_names) {
            return Ok(());
        }
        self.check_section_size(source)?;
        let size = self.section_size.into();
        let bytes = source.bytes(self.sections_offset, size, "section header 0")?;
        let zero = super::section::of_bytes(self, &bytes, 0);
        let Some(zero) = zero else {
            return Err(corrupted(
                source,
                self.sections_offset,
                "section header 0 is cut",
            ));
        };
        if counts.sections == 0 {
            self.sections = u32::try_from(zero.size).map_err(|_| {
                let text = format!("it claims {} sections", zero.size);
                corrupted(source, self.sections_offset, text)
            })?;
        }
        if many_segments {
            self.segments = zero.info;
        }
        if far_names {
            self.names = zero.link;
        }
        Ok(())
    }

    fn check(&self, source: &dyn Source) -> Result<()> {
        if self.sections > 0 && self.sections_offset > 0 {
            self.check_section_size(source)?;
        }
        if self.segments > 0 {
            let wanted = by_class!(self.class, H => {
                raw::size_of::<<H as object::read::elf::FileHeader>::ProgramHeader>()
            });
            let at = self.segments_offset;
            let what = "the program headers";
            raw::check_entry(source, at, self.segment_size.into(), wanted, what)?;
        }
        Ok(())
    }

    fn check_section_size(&self, source: &dyn Source) -> Result<()> {
        let wanted = by_class!(self.class, H => {
            raw::size_of::<<H as object::read::elf::FileHeader>::SectionHeader>()
        });
        let (at, what) = (self.sections_offset, "the section headers");
        raw::check_entry(source, at, self.section_size.into(), wanted, what)
    }

    /// Whether it is code of NVIDIA's devices.
    #[must_use]
    pub fn is_cuda(&self) -> bool {
        self.machine == elf::EM_CUDA.0
    }

    pub(super) fn is_mips64el(&self) -> bool {
        self.class == Class::Elf64
            && self.order == ByteOrder::Little
            && self.machine == elf::EM_MIPS.0
    }

    /// Bytes of an address.
    pub(super) fn word(&self) -> u64 {
        match self.class {
            Class::Elf32 => 4,
            Class::Elf64 => 8,
        }
    }
}

fn of_record<H>(found: &H, class: Class, order: ByteOrder) -> (Header, Counts)
where
    H: object::read::elf::FileHeader<Endian = Endianness>,
{
    let e = order.endian();
    let ident = found.e_ident();
    let header = Header {
        class,
        order,
        os_abi: ident.os_abi.0,
        abi_version: ident.abi_version,
        kind: found.e_type(e).0,
        machine: found.e_machine(e).0,
        version: found.e_version(e),
        entry: found.e_entry(e).into(),
        flags: found.e_flags(e).0,
        header_size: found.e_ehsize(e),
        segments_offset: found.e_phoff(e).into(),
        segment_size: found.e_phentsize(e),
        segments: 0,
        sections_offset: found.e_shoff(e).into(),
        section_size: found.e_shentsize(e),
        sections: 0,
        names: 0,
    };
    let counts = Counts {
        segments: found.e_phnum(e),
        sections: found.e_shnum(e),
        names: found.e_shstrndx(e).0,
    };
    (header, counts)
}
