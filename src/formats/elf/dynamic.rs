//! What the dynamic linker reads.

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn as _, FileHeader};

use super::file::Elf;
use super::raw::{self, by_class};
use super::strings::Strings;
use crate::error::Result;

/// An entry of the dynamic section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicEntry {
    /// d_tag: DT_NEEDED, ...
    pub tag: i64,
    /// d_val or d_ptr.
    pub value: u64,
}

impl DynamicEntry {
    /// Whether its value is the place of a name.
    #[must_use]
    pub fn is_name(&self) -> bool {
        let names = [
            elf::DT_NEEDED,
            elf::DT_SONAME,
            elf::DT_RPATH,
            elf::DT_RUNPATH,
            elf::DT_AUXILIARY,
            elf::DT_FILTER,
            elf::DT_CONFIG,
            elf::DT_DEPAUDIT,
            elf::DT_AUDIT,
        ];
        names.iter().any(|tag| tag.0 == self.tag)
    }
}

/// The dynamic section: what a file needs, and what it is called.
#[derive(Debug)]
pub struct DynamicTable {
    entries: Vec<DynamicEntry>,
    strings: Strings,
}

impl DynamicTable {
    /// The entries, the first DT_NULL included.
    #[must_use]
    pub fn entries(&self) -> &[DynamicEntry] {
        &self.entries
    }

    /// The name that an entry stands for, when it does.
    ///
    /// # Errors
    /// `Corrupted`.
    pub fn name(&self, file: &Elf, entry: &DynamicEntry) -> Result<Option<&[u8]>> {
        if !entry.is_name() {
            return Ok(None);
        }
        self.strings.get(file.source(), entry.value).map(Some)
    }

    /// The names of all entries with this tag.
    ///
    /// # Errors
    /// `Corrupted`.
    fn names(&self, file: &Elf, tag: elf::DynamicTag) -> Result<Vec<&[u8]>> {
        let found = self.entries.iter().filter(|entry| entry.tag == tag.0);
        found
            .map(|entry| self.strings.get(file.source(), entry.value))
            .collect()
    }

    /// The libraries that it needs.
    ///
    /// # Errors
    /// `Corrupted`.
    pub fn needed(&self, file: &Elf) -> Result<Vec<&[u8]>> {
        self.names(file, elf::DT_NEEDED)
    }

    /// The name that others need it by.
    ///
    /// # Errors
    /// `Corrupted`.
    pub fn soname(&self, file: &Elf) -> Result<Option<&[u8]>> {
        Ok(self.names(file, elf::DT_SONAME)?.first().copied())
    }

    /// Where its libraries are looked for: DT_RUNPATH, or the older DT_RPATH.
    ///
    /// # Errors
    /// `Corrupted`.
    pub fn run_path(&self, file: &Elf) -> Result<Option<&[u8]>> {
        let new = self.names(file, elf::DT_RUNPATH)?.first().copied();
        match new {
            Some(path) => Ok(Some(path)),
            None => Ok(self.names(file, elf::DT_RPATH)?.first().copied()),
        }
    }
}

pub(super) fn read(file: &Elf) -> Result<Option<DynamicTable>> {
    let section = file.sections().iter().find(|s| s.is(elf::SHT_DYNAMIC));
    let segment = file.segments().iter().find(|s| s.kind == elf::PT_DYNAMIC.0);
    let range = section.map(|s| (s.offset, s.size));
    let Some((offset, size)) = range.or(segment.map(|s| (s.offset, s.file_size))) else {
        return Ok(None);
    };
    let bytes = file.source().bytes(offset, size, "the dynamic section")?;
    let e = file.header().order.endian();
    let entries = by_class!(file.header().class, H => entries::<H>(e, &bytes));
    let strings = match section.filter(|s| s.link != 0) {
        Some(section) => file.linked_strings(section)?,
        None => strings_by_address(file, &entries)?,
    };
    Ok(Some(DynamicTable { entries, strings }))
}

fn entries<H>(e: Endianness, bytes: &[u8]) -> Vec<DynamicEntry>
where
    H: FileHeader<Endian = Endianness>,
{
    let size = raw::size_of::<H::Dyn>();
    let mut entries = Vec::new();
    for index in 0..bytes.len() as u64 / size {
        let Some(found) = raw::record::<H::Dyn>(bytes, index * size) else {
            break;
        };
        let (tag, value) = (found.d_tag(e).0, found.d_val(e).into());
        entries.push(DynamicEntry { tag, value });
        if tag == elf::DT_NULL.0 {
            break;
        }
    }
    entries
}

/// The names where no section says which they are: DT_STRTAB is an address, DT_STRSZ its bytes.
fn strings_by_address(file: &Elf, entries: &[DynamicEntry]) -> Result<Strings> {
    let value = |tag: elf::DynamicTag| entries.iter().find(|e| e.tag == tag.0).map(|e| e.value);
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return Ok(Strings::default());
    };
    match file.offset_of_address(address) {
        Some((offset, there)) => Strings::read(file.source(), offset, size.min(there)),
        None => Ok(Strings::default()),
    }
}
