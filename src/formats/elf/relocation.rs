//! Relocations.

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, Rel as _, Rela as _, Relr as _};

use super::file::Elf;
use super::header::Header;
use super::raw::{self, by_class, corrupted};
use super::section::Section;
use crate::error::Result;

/// A place that is to be changed when the file is loaded or linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// r_offset: an address, or in an object file an offset in the section.
    pub offset: u64,
    /// r_info, as it is in the file; 0 for RELR.
    pub info: u64,
    /// Its type; what it means depends on the machine. 0 for RELR.
    pub kind: u32,
    /// Its symbol in the table that the section names; 0 for none.
    pub symbol: u32,
    /// r_addend; `None` where it stands at the place itself (REL, RELR).
    pub addend: Option<i64>,
}

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Rel,
    Rela,
    Relr,
}

/// Words of RELR between two places where the decoding can begin.
const STEP: usize = 64;

/// The relocations of a section, decoded one by one. RELR, where a word of bits stands for up to
/// 63 relocations, takes no more memory than the section has.
#[derive(Debug, Clone)]
pub struct RelocationTable {
    bytes: Vec<u8>,
    header: Header,
    form: Form,
    len: u64,
    /// Of RELR, for each `STEP`th word: relocations before it, and the address that its bits
    /// count from.
    starts: Vec<(u64, u64)>,
}

impl RelocationTable {
    pub(super) fn read(file: &Elf, section: &Section) -> Result<Self> {
        let form = match elf::SectionType(section.kind) {
            elf::SHT_REL => Form::Rel,
            elf::SHT_RELA => Form::Rela,
            elf::SHT_RELR => Form::Relr,
            _ => {
                file.expect(section, false, "REL, RELA or RELR")?;
                Form::Rel
            }
        };
        let header = *file.header();
        let entry = entry_size(&header, form);
        let source = file.source();
        let at = file.header_of(section.index);
        raw::check_entry(source, at, section.entry_size, entry, "relocations")?;
        if !section.size.is_multiple_of(entry) {
            let text = format!("a section of relocations has {} bytes", section.size);
            return Err(corrupted(source, at, text));
        }
        let bytes = source.bytes(section.offset, section.size, "relocations")?;
        let mut table = Self {
            len: section.size / entry,
            bytes,
            header,
            form,
            starts: Vec::new(),
        };
        if form == Form::Relr {
            table.count_relr();
        }
        Ok(table)
    }

    /// Relocations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether entries have addends of their own (RELA).
    #[must_use]
    pub fn has_addends(&self) -> bool {
        self.form == Form::Rela
    }

    /// Whether they are addresses only (RELR).
    #[must_use]
    pub fn is_relr(&self) -> bool {
        self.form == Form::Relr
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> u64 {
        (self.bytes.len() + self.starts.len() * 16) as u64
    }

    /// A relocation by its number.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Relocation> {
        match self.form {
            Form::Relr => self.from(index).next(),
            _ if index >= self.len => None,
            _ => self.entry(index),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Relocation> + '_ {
        self.from(0)
    }

    /// Those from this number on.
    pub fn from(&self, first: u64) -> Box<dyn Iterator<Item = Relocation> + '_> {
        if self.form == Form::Relr {
            return self.relr_from(first);
        }
        Box::new((first..self.len).filter_map(|index| self.entry(index)))
    }

    fn entry(&self, index: u64) -> Option<Relocation> {
        let (e, mips) = (self.header.order.endian(), self.header.is_mips64el());
        by_class!(self.header.class, H => match self.form {
            Form::Rel => rel::<H>(e, &self.bytes, index),
            Form::Rela => rela::<H>(e, mips, &self.bytes, index),
            Form::Relr => None,
        })
    }

    /// Counts the relocations of RELR, and notes where to begin.
    fn count_relr(&mut self) {
        let word = self.header.word();
        let (mut count, mut base) = (0u64, 0u64);
        for (at, value) in words(&self.header, &self.bytes).enumerate() {
            if at % STEP == 0 {
                self.starts.push((count, base));
            }
            if value & 1 == 0 {
                count += 1;
                base = value.wrapping_add(word);
            } else {
                count += u64::from(value.count_ones()) - 1;
                base = base.wrapping_add((word * 8 - 1) * word);
            }
        }
        self.len = count;
    }

    fn relr_from(&self, first: u64) -> Box<dyn Iterator<Item = Relocation> + '_> {
        let step = self.starts.partition_point(|(count, _)| *count <= first);
        let step = step.saturating_sub(1);
        let Some((count, base)) = self.starts.get(step) else {
            return Box::new(std::iter::empty());
        };
        let word = self.header.word();
        let from = (step * STEP) as u64 * word;
        let bytes = usize::try_from(from)
            .ok()
            .and_then(|from| self.bytes.get(from..));
        let relocations = RelrPlaces {
            words: words(&self.header, bytes.unwrap_or(&[])),
            word,
            mask: if word == 4 {
                u64::from(u32::MAX)
            } else {
                u64::MAX
            },
            base: *base,
            bits: 0,
            at: 0,
        };
        let skip = usize::try_from(first - count).unwrap_or(usize::MAX);
        Box::new(relocations.skip(skip).map(|offset| Relocation {
            offset,
            info: 0,
            kind: 0,
            symbol: 0,
            addend: None,
        }))
    }
}

fn entry_size(header: &Header, form: Form) -> u64 {
    by_class!(header.class, H => match form {
        Form::Rel => raw::size_of::<<H as FileHeader>::Rel>(),
        Form::Rela => raw::size_of::<<H as FileHeader>::Rela>(),
        Form::Relr => raw::size_of::<<H as FileHeader>::Relr>(),
    })
}

fn rel<H>(e: Endianness, bytes: &[u8], index: u64) -> Option<Relocation>
where
    H: FileHeader<Endian = Endianness>,
{
    let found: &H::Rel = raw::record(bytes, index * raw::size_of::<H::Rel>())?;
    Some(Relocation {
        offset: found.r_offset(e).into(),
        info: found.r_info(e).into(),
        kind: found.r_type(e).0,
        symbol: found.r_sym(e),
        addend: None,
    })
}

fn rela<H>(e: Endianness, mips: bool, bytes: &[u8], index: u64) -> Option<Relocation>
where
    H: FileHeader<Endian = Endianness>,
{
    let found: &H::Rela = raw::record(bytes, index * raw::size_of::<H::Rela>())?;
    Some(Relocation {
        offset: found.r_offset(e).into(),
        info: found.r_info(e, mips).into(),
        kind: found.r_type(e, mips).0,
        symbol: found.r_sym(e, mips),
        addend: Some(found.r_addend(e).into()),
    })
}

/// The words of a RELR section.
fn words<'a>(header: &Header, bytes: &'a [u8]) -> Box<dyn Iterator<Item = u64> + 'a> {
    let e = header.order.endian();
    by_class!(header.class, H => Box::new(words_of::<H>(e, bytes)))
}

fn words_of<H>(e: Endianness, bytes: &[u8]) -> impl Iterator<Item = u64> + '_
where
    H: FileHeader<Endian = Endianness>,
{
    let size = raw::size_of::<H::Relr>();
    (0..bytes.len() as u64 / size).filter_map(move |index| {
        let found: &H::Relr = raw::record(bytes, index * size)?;
        Some(found.get(e).into())
    })
}

/// Addresses that words of RELR stand for (gABI, "Relative Relocation Table"): an even word is an
/// address; an odd one has a bit for each of the words that follow it.
struct RelrPlaces<'a> {
    words: Box<dyn Iterator<Item = u64> + 'a>,
    /// Bytes of a word.
    word: u64,
    /// What an address can be.
    mask: u64,
    /// The address that the lowest bit stands for.
    base: u64,
    /// Bits that are left of the word, the next one lowest.
    bits: u64,
    /// The address that the next bit stands for.
    at: u64,
}

impl Iterator for RelrPlaces<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.bits == 0 {
            let value = self.words.next()?;
            if value & 1 == 0 {
                self.base = value.wrapping_add(self.word);
                return Some(value);
            }
            self.bits = value >> 1;
            self.at = self.base;
            self.base = self.base.wrapping_add((self.word * 8 - 1) * self.word);
        }
        let skip = u64::from(self.bits.trailing_zeros());
        let place = self.at.wrapping_add(skip * self.word) & self.mask;
        // In two shifts: 64 would be none.
        self.bits = self.bits >> skip >> 1;
        self.at = self.at.wrapping_add((skip + 1) * self.word);
        Some(place)
    }
}
