//! What the fuzz target and the tests of damaged files run on bytes: everything that is read.

use std::sync::Arc;

use super::{Elf, ElfPlan, Fatbin, Select, Tables};
use crate::error::{Error, Result};
use crate::formats::{MemorySource, Source};

/// What of a file was read, and the first thing that was wrong.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries of all tables.
    pub entries: u64,
    /// Bytes that compressed sections became.
    pub decoded: u64,
    /// The first error.
    pub error: Option<Error>,
}

/// Most that compressed sections may become here, bytes.
const DECODED_MAX: u64 = 16 << 20;

impl Outcome {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

/// Reads everything that can be read of these bytes, as an ELF file or as a container of device
/// code. Goes on after errors, as a program that asks for one table after the other.
#[must_use]
pub fn read_all(bytes: &[u8]) -> Outcome {
    let source: Arc<dyn Source> = Arc::new(MemorySource::new(bytes, "bytes"));
    let mut outcome = Outcome::default();
    if Fatbin::is_one(bytes) {
        let found = outcome.note(Fatbin::read_file(&*source));
        cubins(&mut outcome, &source, &found.unwrap_or_default());
        return outcome;
    }
    if let Some(file) = outcome.note(Elf::open(source.clone())) {
        let tables = Tables::new(file);
        read_tables(&mut outcome, &tables);
        if let Some(found) = outcome.note(tables.fatbins()) {
            cubins(&mut outcome, &source, found);
        }
        decode(&mut outcome, tables.file());
    }
    outcome
}

fn cubins(outcome: &mut Outcome, source: &Arc<dyn Source>, found: &[Fatbin]) {
    for entry in found.iter().flat_map(|fatbin| &fatbin.entries) {
        outcome.entries += 1;
        if entry.decompressed_size > DECODED_MAX {
            continue;
        }
        if let Some(Some(file)) = outcome.note(entry.open_cubin(source)) {
            read_tables(outcome, &Tables::new(file));
        }
    }
}

fn read_tables(outcome: &mut Outcome, tables: &Tables) {
    let file = tables.file();
    for section in file.sections() {
        outcome.entries += 1 + u64::from(file.section_name(section).is_empty());
    }
    outcome.entries += file.segments().len() as u64;
    for section in file.symbol_sections() {
        let Some(table) = outcome.note(tables.symbols(section.index)) else {
            continue;
        };
        for symbol in table.iter() {
            outcome.note(symbol);
            outcome.entries += 1;
        }
    }
    for section in file.relocation_sections() {
        if let Some(table) = outcome.note(tables.relocations(section.index)) {
            outcome.entries += table.iter().count() as u64;
            let _ = table.get(table.len() / 2);
        }
    }
    if let Some(notes) = outcome.note(tables.notes()) {
        outcome.entries += notes.iter().flat_map(|table| table.iter()).count() as u64;
    }
    if let Some(Some(dynamic)) = outcome.note(tables.dynamic()) {
        for entry in dynamic.entries() {
            outcome.note(dynamic.name(file, entry));
            outcome.entries += 1;
        }
        outcome.note(dynamic.needed(file));
        outcome.note(dynamic.run_path(file));
    }
    outcome.note(tables.build_id());
    outcome.note(file.interpreter());
    if let Some(Some(cubin)) = outcome.note(tables.cubin()) {
        for kernel in &cubin.kernels {
            outcome.note(cubin.name(kernel));
        }
    }
}

fn decode(outcome: &mut Outcome, file: &Elf) {
    outcome.note(ElfPlan::new(file, Select::Loads, u64::MAX));
    // That there is no such section is no damage.
    let _ = ElfPlan::new(file, Select::Names(&[b"*debug*"]), u64::MAX);
    // One by one: the others' errors hide nothing.
    let mut left = DECODED_MAX;
    for section in file.sections().iter().take(64) {
        let plan = ElfPlan::new(file, Select::Sections(&[section.index]), left);
        let Some(plan) = outcome.note(plan) else {
            continue;
        };
        if let Some(bytes) = outcome.note(plan.decode_all()) {
            outcome.decoded += bytes;
            left -= bytes;
        }
    }
}
