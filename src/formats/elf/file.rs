//! An ELF file: what its headers say, and the tables that they lead to.

use std::sync::Arc;

use object::elf;

use super::dynamic::{self, DynamicTable};
use super::header::Header;
use super::note::NoteTable;
use super::raw::corrupted;
use super::relocation::RelocationTable;
use super::section::{self, Section, Segment};
use super::strings::Strings;
use super::symbol::SymbolTable;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// The headers of an ELF file. Tables are read when they are asked for, and kept by who asked.
/// May be used from many threads at once.
#[derive(Debug)]
pub struct Elf {
    source: Arc<dyn Source>,
    header: Header,
    sections: Vec<Section>,
    segments: Vec<Segment>,
    names: Strings,
}

impl Elf {
    /// Reads the headers and the names of the sections.
    ///
    /// # Errors
    /// `Corrupted` with the offset: no ELF file, or its headers lie outside of it or contradict
    /// each other; `NotSupported`: a version that is not known; what the source says. A section
    /// whose bytes lie outside of the file is no error here: its reading is.
    pub fn open(source: Arc<dyn Source>) -> Result<Self> {
        let header = Header::read(&*source)?;
        let sections = section::read_sections(&*source, &header)?;
        let segments = section::read_segments(&*source, &header)?;
        let mut file = Self {
            source,
            header,
            sections,
            segments,
            names: Strings::default(),
        };
        file.names = file.read_names()?;
        for section in &file.sections {
            file.check_name(section)?;
        }
        Ok(file)
    }

    fn read_names(&self) -> Result<Strings> {
        if self.header.names == 0 || self.sections.is_empty() {
            return Ok(Strings::default());
        }
        let Some(section) = self.sections.get(self.header.names as usize) else {
            let (names, count) = (self.header.names, self.sections.len());
            let text = format!("the names are in section {names}, and it has {count}");
            return Err(corrupted(self.source(), 0, text));
        };
        if !section.is(elf::SHT_STRTAB) {
            let text = format!(
                "section {} holds the names and is no string table",
                section.index
            );
            return Err(corrupted(
                self.source(),
                self.header_of(section.index),
                text,
            ));
        }
        Strings::read(self.source(), section.offset, section.size)
    }

    fn check_name(&self, section: &Section) -> Result<()> {
        // Without a table of names there are none.
        if self.header.names == 0 {
            return Ok(());
        }
        if self.names.has(section.name.into()) {
            return Ok(());
        }
        let text = format!(
            "the name of section {} lies outside of the names",
            section.index
        );
        Err(corrupted(
            self.source(),
            self.header_of(section.index),
            text,
        ))
    }

    /// Where it is read from.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Where it is read from, to be kept.
    #[must_use]
    pub fn source_shared(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The file header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sections, the first one (of type NULL) included.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// A section by its number.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn section(&self, index: u32) -> Result<&Section> {
        self.sections.get(index as usize).ok_or_else(|| {
            let (path, count) = (self.source.path(), self.sections.len());
            let text = format!(
                "{} has {count} sections; {index} was asked for",
                path.display()
            );
            Error::new(ErrorKind::OutOfRange, text).with_path(path)
        })
    }

    /// The name of a section; nothing else than bytes is known of it. A NUL follows it in memory.
    /// One that has more than 256 KiB counts as none.
    #[must_use]
    pub fn section_name(&self, section: &Section) -> &[u8] {
        let found = self.names.get(self.source(), section.name.into());
        // Opening has seen that they all end.
        found.unwrap_or(c"".to_bytes())
    }

    /// The first section of this name.
    #[must_use]
    pub fn section_named(&self, name: impl AsRef<[u8]>) -> Option<&Section> {
        let wanted = name.as_ref();
        self.sections
            .iter()
            .find(|section| self.is_named(section, wanted))
    }

    pub(super) fn is_named(&self, section: &Section, wanted: &[u8]) -> bool {
        self.names.is(section.name.into(), wanted)
    }

    /// Where the header of a section is in the file.
    pub(super) fn header_of(&self, index: u32) -> u64 {
        let size = u64::from(self.header.section_size);
        self.header
            .sections_offset
            .saturating_add(size * u64::from(index))
    }

    /// The section that a header names by its link.
    pub(super) fn linked(&self, section: &Section, what: &str) -> Result<&Section> {
        self.sections.get(section.link as usize).ok_or_else(|| {
            let (index, link) = (section.index, section.link);
            let text = format!("section {index} names section {link} as its {what}");
            corrupted(self.source(), self.header_of(index), text)
        })
    }

    /// The string table that a header names by its link.
    pub(super) fn linked_strings(&self, section: &Section) -> Result<Strings> {
        let strings = self.linked(section, "string table")?;
        Strings::read(self.source(), strings.offset, strings.size)
    }

    /// The bytes of a section as they are in the file, in ordinary memory; none of a NOBITS one.
    ///
    /// # Errors
    /// `Corrupted` when they lie outside of the file; what the source says.
    pub fn bytes(&self, section: &Section) -> Result<Vec<u8>> {
        if section.is_nobits() {
            return Ok(Vec::new());
        }
        self.source.bytes(section.offset, section.size, "a section")
    }

    /// The symbols of a section of type SYMTAB or DYNSYM, with their names and versions.
    ///
    /// # Errors
    /// `InvalidArgument` for a section of another type, `OutOfRange`, `Corrupted`.
    pub fn symbols(&self, section: u32) -> Result<SymbolTable> {
        SymbolTable::read(self, self.section(section)?)
    }

    /// The sections of symbols: SYMTAB and DYNSYM.
    pub fn symbol_sections(&self) -> impl Iterator<Item = &Section> {
        let tables = [elf::SHT_SYMTAB, elf::SHT_DYNSYM];
        self.sections
            .iter()
            .filter(move |s| tables.iter().any(|kind| s.is(*kind)))
    }

    /// The relocations of a section of type REL, RELA or RELR.
    ///
    /// # Errors
    /// As `symbols`.
    pub fn relocations(&self, section: u32) -> Result<RelocationTable> {
        RelocationTable::read(self, self.section(section)?)
    }

    /// The sections of relocations: REL, RELA and RELR.
    pub fn relocation_sections(&self) -> impl Iterator<Item = &Section> {
        let tables = [elf::SHT_REL, elf::SHT_RELA, elf::SHT_RELR];
        self.sections
            .iter()
            .filter(move |s| tables.iter().any(|kind| s.is(*kind)))
    }

    /// The notes of a section of type NOTE.
    ///
    /// # Errors
    /// As `symbols`.
    pub fn notes(&self, section: u32) -> Result<NoteTable> {
        let section = self.section(section)?;
        self.expect(section, section.is(elf::SHT_NOTE), "NOTE")?;
        NoteTable::read(self, section.offset, section.size, section.align)
    }

    /// The notes of a segment of type NOTE: for files without sections.
    ///
    /// # Errors
    /// As `symbols`.
    pub fn segment_notes(&self, segment: u32) -> Result<NoteTable> {
        let found = self.segments.get(segment as usize);
        let Some(found) = found.filter(|s| s.kind == elf::PT_NOTE.0) else {
            let path = self.source.path();
            let text = format!("segment {segment} of {} is no NOTE", path.display());
            return Err(Error::new(ErrorKind::InvalidArgument, text).with_path(path));
        };
        NoteTable::read(self, found.offset, found.file_size, found.align)
    }

    /// All notes: of the sections, or of the segments where no section is of type NOTE. A table
    /// that is damaged ends the list with an error.
    ///
    /// # Errors
    /// As `notes`.
    pub fn all_notes(&self) -> Result<Vec<NoteTable>> {
        let sections = self.sections.iter().filter(|s| s.is(elf::SHT_NOTE));
        let (mut tables, mut budget) = (Vec::new(), self.budget());
        for section in sections {
            budget.take(self, section.size)?;
            tables.push(self.notes(section.index)?);
        }
        if !tables.is_empty() {
            return Ok(tables);
        }
        for segment in self.segments.iter().filter(|s| s.kind == elf::PT_NOTE.0) {
            budget.take(self, segment.file_size)?;
            tables.push(self.segment_notes(segment.index)?);
        }
        Ok(tables)
    }

    /// The build id: the GNU note of type 3.
    ///
    /// # Errors
    /// As `notes`.
    pub fn build_id(&self) -> Result<Option<Vec<u8>>> {
        let mut budget = self.budget();
        for section in self.sections.iter().filter(|s| s.is(elf::SHT_NOTE)) {
            budget.take(self, section.size)?;
            if let Some(id) = build_id_of(&self.notes(section.index)?) {
                return Ok(Some(id));
            }
        }
        for segment in self.segments.iter().filter(|s| s.kind == elf::PT_NOTE.0) {
            budget.take(self, segment.file_size)?;
            if let Some(id) = build_id_of(&self.segment_notes(segment.index)?) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// What the dynamic linker reads, when the file has it: of the section of type DYNAMIC, or of
    /// the segment where no section is.
    ///
    /// # Errors
    /// `Corrupted`; what the source says.
    pub fn dynamic(&self) -> Result<Option<DynamicTable>> {
        dynamic::read(self)
    }

    /// The program that loads the file (PT_INTERP).
    ///
    /// # Errors
    /// `Corrupted`; what the source says.
    pub fn interpreter(&self) -> Result<Option<Vec<u8>>> {
        let Some(segment) = self.segments.iter().find(|s| s.kind == elf::PT_INTERP.0) else {
            return Ok(None);
        };
        let strings = Strings::read(self.source(), segment.offset, segment.file_size)?;
        Ok(Some(strings.get(self.source(), 0)?.to_vec()))
    }

    /// Where in the file the byte of an address is, by the LOAD segments.
    pub(super) fn offset_of_address(&self, address: u64) -> Option<(u64, u64)> {
        let loads = self.segments.iter().filter(|s| s.kind == elf::PT_LOAD.0);
        for segment in loads {
            let into = address.checked_sub(segment.address);
            if let Some(into) = into.filter(|into| *into < segment.file_size) {
                let offset = segment.offset.checked_add(into)?;
                return Some((offset, segment.file_size - into));
            }
        }
        None
    }

    /// For calls that read many sections: together they may have twice as many bytes as the
    /// file. Those of a sound file do not overlap.
    pub(super) fn budget(&self) -> Budget {
        Budget(self.source.size().saturating_mul(2).saturating_add(4096))
    }

    /// Refuses a section of another type than a call is for.
    pub(super) fn expect(&self, section: &Section, fits: bool, wanted: &str) -> Result<()> {
        if fits {
            return Ok(());
        }
        let path = self.source.path();
        let text = format!(
            "section {} of {} has type {:#x}; {wanted} is needed",
            section.index,
            path.display(),
            section.kind
        );
        Err(Error::new(ErrorKind::InvalidArgument, text).with_path(path))
    }
}

/// Bytes that sections of one file may still have together.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn take(&mut self, file: &Elf, size: u64) -> Result<()> {
        match self.0.checked_sub(size) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                let text = "its sections overlap, and together are more than twice its size";
                Err(corrupted(file.source(), file.header.sections_offset, text))
            }
        }
    }
}

fn build_id_of(notes: &NoteTable) -> Option<Vec<u8>> {
    let is_id = |kind| kind == elf::NT_GNU_BUILD_ID.0;
    let found = notes
        .iter()
        .find(|note| note.owner == b"GNU" && is_id(note.kind));
    found.map(|note| note.descriptor.to_vec())
}
