//! Versions of symbols (GNU: .gnu.version, .gnu.version_d, .gnu.version_r).

use std::collections::HashMap;

use object::Endianness;
use object::elf;

use super::file::Elf;
use super::raw::{self, corrupted};
use super::section::Section;
use super::strings::Strings;
use crate::error::Result;
use crate::formats::Source;

/// Most versions that one file may name: their numbers have 15 bits.
const VERSIONS_MAX: u32 = 1 << 15;

/// The version of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SymbolVersion<'a> {
    /// Its name: "GLIBC_2.34".
    pub name: &'a [u8],
    /// Whether it is the one that a program gets which asks for none: "@@" in listings.
    pub is_default: bool,
}

/// The versions of a table of symbols.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions {
    /// A number for each symbol.
    numbers: Vec<u8>,
    endian: Option<Endianness>,
    /// Places of names, by number: what the file defines, and what it needs.
    defined: HashMap<u16, u32>,
    needed: HashMap<u16, u32>,
}

impl Versions {
    /// The versions of the symbols of `symbols`; none when no section says any.
    pub(super) fn read(file: &Elf, symbols: &Section) -> Result<Self> {
        let of = |kind| file.sections().iter().find(move |s: &&Section| s.is(kind));
        let numbers = of(elf::SHT_GNU_VERSYM).filter(|s| s.link == symbols.index);
        let Some(numbers) = numbers else {
            return Ok(Self::default());
        };
        let e = file.header().order.endian();
        let mut versions = Self {
            numbers: file.bytes(numbers)?,
            endian: Some(e),
            ..Self::default()
        };
        if let Some(section) = of(elf::SHT_GNU_VERDEF) {
            versions.defined = defined(file, section, e)?;
        }
        if let Some(section) = of(elf::SHT_GNU_VERNEED) {
            versions.needed = needed(file, section, e)?;
        }
        Ok(versions)
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> u64 {
        let names = (self.defined.len() + self.needed.len()) as u64;
        self.numbers.len() as u64 + names * 16
    }

    /// The version of symbol `index`, when it has one, by the names of the symbols' table.
    pub(super) fn get<'a>(
        &self,
        source: &dyn Source,
        strings: &'a Strings,
        index: u64,
        is_defined: bool,
    ) -> Result<Option<SymbolVersion<'a>>> {
        let number: Option<&elf::Versym<Endianness>> = raw::record(&self.numbers, index * 2);
        let (Some(number), Some(e)) = (number, self.endian) else {
            return Ok(None);
        };
        let number = number.0.get(e);
        let (plain, is_hidden) = (number.index().0, number.is_hidden());
        if number.is_local() || number.is_global() {
            return Ok(None);
        }
        let defined = self.defined.get(&plain).filter(|_| is_defined);
        let (name, is_default) = match (defined, self.needed.get(&plain)) {
            (Some(name), _) => (*name, !is_hidden),
            (None, Some(name)) => (*name, false),
            (None, None) => return Ok(None),
        };
        let name = strings.get(source, name.into())?;
        Ok(Some(SymbolVersion { name, is_default }))
    }
}

/// Refuses more entries than numbers can tell apart: overlapping lists would never end.
fn count(file: &Elf, section: &Section, seen: &mut u32) -> Result<()> {
    *seen += 1;
    if *seen > VERSIONS_MAX {
        let text = format!("its versions are more than {VERSIONS_MAX}");
        return Err(corrupted(file.source(), section.offset, text));
    }
    Ok(())
}

fn entry<'a, T: object::pod::Pod>(
    file: &Elf,
    section: &Section,
    bytes: &'a [u8],
    at: u64,
) -> Result<&'a T> {
    raw::record(bytes, at).ok_or_else(|| {
        let offset = section.offset.saturating_add(at);
        corrupted(file.source(), offset, "an entry of the versions is cut")
    })
}

/// Versions that the file defines: the first name of each is its own.
fn defined(file: &Elf, section: &Section, e: Endianness) -> Result<HashMap<u16, u32>> {
    let bytes = file.bytes(section)?;
    let mut found = HashMap::new();
    let (mut at, mut seen) = (0u64, 0);
    while at < bytes.len() as u64 {
        count(file, section, &mut seen)?;
        let definition: &elf::Verdef<Endianness> = entry(file, section, &bytes, at)?;
        // The base definition is the name of the file, not of a version.
        let is_base = definition.vd_flags.get(e).0 & elf::VER_FLG_BASE.0 != 0;
        if definition.vd_cnt.get(e) > 0 && !is_base {
            let name = at + u64::from(definition.vd_aux.get(e));
            let name: &elf::Verdaux<Endianness> = entry(file, section, &bytes, name)?;
            let number = definition.vd_ndx.get(e).0 & elf::VERSYM_VERSION;
            found.entry(number).or_insert(name.vda_name.get(e));
        }
        match definition.vd_next.get(e) {
            0 => break,
            next => at += u64::from(next),
        }
    }
    Ok(found)
}

/// Versions of other files that it needs.
fn needed(file: &Elf, section: &Section, e: Endianness) -> Result<HashMap<u16, u32>> {
    let bytes = file.bytes(section)?;
    let mut found = HashMap::new();
    let (mut at, mut seen) = (0u64, 0);
    while at < bytes.len() as u64 {
        count(file, section, &mut seen)?;
        let need: &elf::Verneed<Endianness> = entry(file, section, &bytes, at)?;
        let mut name_at = at + u64::from(need.vn_aux.get(e));
        for _ in 0..need.vn_cnt.get(e) {
            count(file, section, &mut seen)?;
            let name: &elf::Vernaux<Endianness> = entry(file, section, &bytes, name_at)?;
            let number = name.vna_other.get(e).0 & elf::VERSYM_VERSION;
            found.entry(number).or_insert(name.vna_name.get(e));
            match name.vna_next.get(e) {
                0 => break,
                next => name_at += u64::from(next),
            }
        }
        match need.vn_next.get(e) {
            0 => break,
            next => at += u64::from(next),
        }
    }
    Ok(found)
}
