//! A file with the tables of it that somebody asked for: for callers that ask entry by entry.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::cubin::Cubin;
use super::dynamic::DynamicTable;
use super::fatbin::Fatbin;
use super::file::Elf;
use super::note::NoteTable;
use super::relocation::RelocationTable;
use super::symbol::SymbolTable;
use crate::error::{Error, ErrorKind, Result};

/// Tables that are kept may take this many times the size of the file, and a page. In a file
/// whose sections do not overlap they take less.
const HELD_FACTOR: u64 = 8;
const HELD_BASE: u64 = 4096;

/// A file and its tables, each read once and kept. May be used from many threads at once.
#[derive(Debug)]
pub struct Tables {
    file: Elf,
    symbols: Mutex<BTreeMap<u32, Arc<SymbolTable>>>,
    relocations: Mutex<BTreeMap<u32, Arc<RelocationTable>>>,
    notes: OnceLock<Result<Vec<NoteTable>>>,
    dynamic: OnceLock<Result<Option<DynamicTable>>>,
    build_id: OnceLock<Result<Option<Vec<u8>>>>,
    fatbins: OnceLock<Result<Vec<Fatbin>>>,
    cubin: OnceLock<Result<Option<Cubin>>>,
    held: Mutex<u64>,
}

impl Tables {
    /// Takes a file.
    #[must_use]
    pub fn new(file: Elf) -> Self {
        Self {
            file,
            symbols: Mutex::default(),
            relocations: Mutex::default(),
            notes: OnceLock::new(),
            dynamic: OnceLock::new(),
            build_id: OnceLock::new(),
            fatbins: OnceLock::new(),
            cubin: OnceLock::new(),
            held: Mutex::new(0),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Elf {
        &self.file
    }

    /// Refuses to keep more than tables that do not overlap can be.
    fn hold(&self, bytes: u64) -> Result<()> {
        let size = self.file.source().size();
        let most = size.saturating_mul(HELD_FACTOR).saturating_add(HELD_BASE);
        let mut held = self.held.lock();
        let sum = held.saturating_add(bytes);
        if sum > most {
            let path = self.file.source().path();
            let text = format!(
                "the tables of {} take more than {HELD_FACTOR} times its {size} bytes: they \
                 overlap, so the file is damaged",
                path.display()
            );
            let error = Error::new(ErrorKind::Corrupted, text);
            return Err(error
                .with_path(path)
                .with_offset(self.file.header().sections_offset));
        }
        *held = sum;
        Ok(())
    }

    /// As `Elf::symbols`. The same table every time.
    ///
    /// # Errors
    /// As `Elf::symbols`; `Corrupted` when tables overlap so much that they take more than 8
    /// times the size of the file.
    pub fn symbols(&self, section: u32) -> Result<Arc<SymbolTable>> {
        let mut tables = self.symbols.lock();
        if let Some(table) = tables.get(&section) {
            return Ok(table.clone());
        }
        let table = Arc::new(self.file.symbols(section)?);
        self.hold(table.held())?;
        tables.insert(section, table.clone());
        Ok(table)
    }

    /// As `Elf::relocations`.
    ///
    /// # Errors
    /// As `symbols`.
    pub fn relocations(&self, section: u32) -> Result<Arc<RelocationTable>> {
        let mut tables = self.relocations.lock();
        if let Some(table) = tables.get(&section) {
            return Ok(table.clone());
        }
        let table = Arc::new(self.file.relocations(section)?);
        self.hold(table.held())?;
        tables.insert(section, table.clone());
        Ok(table)
    }

    /// As `Elf::all_notes`.
    ///
    /// # Errors
    /// As `symbols`.
    pub fn notes(&self) -> Result<&[NoteTable]> {
        let read = || {
            let tables = self.file.all_notes()?;
            self.hold(tables.iter().map(NoteTable::held).sum())?;
            Ok(tables)
        };
        let tables = self.notes.get_or_init(read);
        tables.as_deref().map_err(Clone::clone)
    }

    /// As `Elf::dynamic`.
    ///
    /// # Errors
    /// As `Elf::dynamic`.
    pub fn dynamic(&self) -> Result<Option<&DynamicTable>> {
        let table = self.dynamic.get_or_init(|| self.file.dynamic());
        table.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// As `Elf::build_id`.
    ///
    /// # Errors
    /// As `Elf::build_id`.
    pub fn build_id(&self) -> Result<Option<&[u8]>> {
        let id = self.build_id.get_or_init(|| self.file.build_id());
        id.as_ref().map(Option::as_deref).map_err(Clone::clone)
    }

    /// As `Fatbin::read_elf`.
    ///
    /// # Errors
    /// As `Fatbin::read_elf`.
    pub fn fatbins(&self) -> Result<&[Fatbin]> {
        let found = self.fatbins.get_or_init(|| Fatbin::read_elf(&self.file));
        found.as_deref().map_err(Clone::clone)
    }

    /// As `Cubin::read`.
    ///
    /// # Errors
    /// As `Cubin::read`.
    pub fn cubin(&self) -> Result<Option<&Cubin>> {
        let found = self.cubin.get_or_init(|| Cubin::read(&self.file));
        found.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}
