//! Notes.

use object::read::elf::NoteIterator;

use super::file::Elf;
use super::raw::{Header32, Header64, corrupted};
use crate::error::Result;

/// A note (gABI chapter 5, "Note Section").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// Who says what its type means: "GNU", "CORE", ...; without the NUL that ends it.
    pub owner: &'a [u8],
    /// Its type.
    pub kind: u32,
    /// What it says.
    pub descriptor: &'a [u8],
    /// Where the descriptor is in the file, bytes.
    pub offset: u64,
}

/// The notes of a section or segment.
#[derive(Debug, Clone)]
pub struct NoteTable {
    bytes: Vec<u8>,
    offset: u64,
    entries: Vec<Entry>,
}

/// Where the parts of a note are in the bytes of its table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u32,
    owner: (usize, usize),
    descriptor: (usize, usize),
}

impl NoteTable {
    pub(super) fn read(file: &Elf, offset: u64, size: u64, align: u64) -> Result<Self> {
        let bytes = file.source().bytes(offset, size, "notes")?;
        let header = file.header();
        let e = header.order.endian();
        let align = check_align(file, offset, align)?;
        let entries = match header.class {
            super::Class::Elf32 => {
                let notes = NoteIterator::<Header32>::new(e, align, &bytes);
                notes
                    .map_err(|error| corrupted(file.source(), offset, error))
                    .and_then(|mut notes| {
                        entries(file, &bytes, offset, || {
                            let note = notes.next()?;
                            Ok(note.map(|n| (n.n_type(e).0, n.name(), n.desc())))
                        })
                    })
            }
            super::Class::Elf64 => {
                let notes = NoteIterator::<Header64>::new(e, align.into(), &bytes);
                notes
                    .map_err(|error| corrupted(file.source(), offset, error))
                    .and_then(|mut notes| {
                        entries(file, &bytes, offset, || {
                            let note = notes.next()?;
                            Ok(note.map(|n| (n.n_type(e).0, n.name(), n.desc())))
                        })
                    })
            }
        }?;
        Ok(Self {
            bytes,
            offset,
            entries,
        })
    }

    /// Notes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> u64 {
        (self.bytes.len() + self.entries.len() * size_of::<Entry>()) as u64
    }

    /// A note by its number.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Note<'_>> {
        let entry = self.entries.get(index)?;
        let part = |(at, size): (usize, usize)| self.bytes.get(at..at + size).unwrap_or(&[]);
        Some(Note {
            owner: part(entry.owner),
            kind: entry.kind,
            descriptor: part(entry.descriptor),
            offset: self.offset + entry.descriptor.0 as u64,
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Note<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// Notes are aligned to 4 bytes, or to 8 where the section or segment is (gABI; binutils' and
/// glibc's readers do the same).
fn check_align(file: &Elf, offset: u64, align: u64) -> Result<u32> {
    match align {
        0..=4 => Ok(4),
        8 => Ok(8),
        _ => {
            let text = format!("notes are aligned to {align} bytes; 4 and 8 are known");
            Err(corrupted(file.source(), offset, text))
        }
    }
}

fn entries<'a>(
    file: &Elf,
    bytes: &'a [u8],
    offset: u64,
    mut next: impl FnMut() -> object::read::Result<Option<(u32, &'a [u8], &'a [u8])>>,
) -> Result<Vec<Entry>> {
    let place = |part: &[u8]| (part.as_ptr().addr() - bytes.as_ptr().addr(), part.len());
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        match next() {
            Ok(Some((kind, owner, descriptor))) => entries.push(Entry {
                kind,
                owner: place(owner),
                descriptor: place(descriptor),
            }),
            Ok(None) => return Ok(entries),
            Err(error) => {
                let last = entries.last().map_or((0, 0), |entry| entry.descriptor);
                let at = offset + (last.0 + last.1) as u64;
                return Err(corrupted(file.source(), at, format!("a note: {error}")));
            }
        }
    }
}
