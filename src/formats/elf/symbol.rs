//! Symbols.

use std::sync::Arc;

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, Sym as _};

use super::file::Elf;
use super::header::Header;
use super::raw::{self, by_class, corrupted};
use super::section::Section;
use super::strings::Strings;
use super::version::{SymbolVersion, Versions};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// A symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name; a NUL follows it in memory.
    pub name: &'a [u8],
    /// st_value: an address, or in an object file an offset in its section.
    pub value: u64,
    /// Bytes, or 0.
    pub size: u64,
    /// Its type: STT_FUNC, ...
    pub kind: u8,
    /// Its binding: STB_GLOBAL, ...
    pub binding: u8,
    /// st_other; its two lowest bits are the visibility.
    pub other: u8,
    /// The section that it is in: 0 for none. What is no section keeps its number: 0xfff1 for a
    /// value that is absolute, 0xfff2 for one that the linker places.
    pub section: u32,
    /// Whether `section` is a section, and not one of the numbers with a meaning of their own.
    pub is_in_section: bool,
    /// Its version, of dynamic symbols that have one.
    pub version: Option<SymbolVersion<'a>>,
}

impl Symbol<'_> {
    /// STV_DEFAULT, ...
    #[must_use]
    pub fn visibility(&self) -> u8 {
        self.other & 3
    }
}

/// The symbols of a section, decoded one by one.
#[derive(Debug)]
pub struct SymbolTable {
    source: Arc<dyn Source>,
    offset: u64,
    bytes: Vec<u8>,
    header: Header,
    len: u64,
    /// Sections of symbols whose number does not fit the symbol.
    far: Vec<u8>,
    strings: Strings,
    versions: Versions,
}

impl SymbolTable {
    pub(super) fn read(file: &Elf, section: &Section) -> Result<Self> {
        let fits = section.is(elf::SHT_SYMTAB) || section.is(elf::SHT_DYNSYM);
        file.expect(section, fits, "SYMTAB or DYNSYM")?;
        let source = file.source();
        let header = *file.header();
        let entry = by_class!(header.class, H => raw::size_of::<<H as FileHeader>::Sym>());
        let at = file.header_of(section.index);
        raw::check_entry(source, at, section.entry_size, entry, "symbols")?;
        if !section.size.is_multiple_of(entry) {
            let text = format!("a section of symbols has {} bytes", section.size);
            return Err(corrupted(source, at, text));
        }
        let is_far = |s: &&Section| s.is(elf::SHT_SYMTAB_SHNDX) && s.link == section.index;
        let far = match file.sections().iter().find(is_far) {
            Some(far) => file.bytes(far)?,
            None => Vec::new(),
        };
        Ok(Self {
            source: file.source_shared().clone(),
            offset: section.offset,
            bytes: source.bytes(section.offset, section.size, "symbols")?,
            header,
            len: section.size / entry,
            far,
            strings: file.linked_strings(section)?,
            versions: Versions::read(file, section)?,
        })
    }

    /// Symbols, the first one (which is empty) included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A symbol by its number.
    ///
    /// # Errors
    /// `OutOfRange`; `Corrupted` when its name lies outside of the names, or its section is not
    /// told.
    pub fn get(&self, index: u64) -> Result<Symbol<'_>> {
        let e = self.header.order.endian();
        let found = by_class!(self.header.class, H => of_bytes::<H>(e, &self.bytes, index));
        let Some((name, symbol)) = found.filter(|_| index < self.len) else {
            let (path, len) = (self.source.path(), self.len);
            let text = format!(
                "{} has {len} symbols there; {index} was asked for",
                path.display()
            );
            return Err(Error::new(ErrorKind::OutOfRange, text).with_path(path));
        };
        let (section, is_in_section) = self.section_of(index, symbol.section)?;
        let (source, strings) = (&*self.source, &self.strings);
        Ok(Symbol {
            name: strings.get(source, name.into())?,
            section,
            is_in_section,
            version: self.versions.get(source, strings, index, section != 0)?,
            ..symbol
        })
    }

    /// The number of a section, and whether it is one.
    fn section_of(&self, index: u64, short: u32) -> Result<(u32, bool)> {
        if short != u32::from(elf::SHN_XINDEX.0) {
            let is_special = short >= u32::from(elf::SHN_LORESERVE);
            return Ok((short, short != 0 && !is_special));
        }
        let e = self.header.order.endian();
        let far: Option<&object::U32<Endianness>> = raw::record(&self.far, index * 4);
        match far {
            Some(far) => Ok((far.get(e), true)),
            None => {
                let text = format!("the section of symbol {index} is nowhere");
                Err(corrupted(&*self.source, self.offset, text))
            }
        }
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> u64 {
        let own = (self.bytes.len() + self.far.len()) as u64;
        own + self.strings.held() + self.versions.held()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Result<Symbol<'_>>> {
        (0..self.len).map(|index| self.get(index))
    }
}

/// The place of a symbol's name, and what is told of it without its names.
fn of_bytes<H>(e: Endianness, bytes: &[u8], index: u64) -> Option<(u32, Symbol<'static>)>
where
    H: FileHeader<Endian = Endianness>,
{
    let at = index.checked_mul(raw::size_of::<H::Sym>())?;
    let found: &H::Sym = raw::record(bytes, at)?;
    let symbol = Symbol {
        name: b"",
        value: found.st_value(e).into(),
        size: found.st_size(e).into(),
        kind: found.st_type().0,
        binding: found.st_bind().0,
        other: found.st_other().0,
        section: found.st_shndx(e).0.into(),
        is_in_section: false,
        version: None,
    };
    Some((found.st_name(e), symbol))
}
