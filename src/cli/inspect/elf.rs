//! `gds inspect` of ELF files: a compact readelf.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Report;
use crate::cli::output::Outcome;
use crate::engine::File;
use crate::formats::FileSource;
use crate::formats::elf::{
    self, ByteOrder, Cubin, DynamicTable, Elf, Fatbin, FatbinEntry, FatbinKind, Symbol, Tables,
};

/// Reads what is told of a file. Symbols and relocations are counted, and listed when all is
/// asked for.
pub(super) fn report(file: &File, all: bool) -> Outcome<Report> {
    let tables = Tables::new(Elf::open(Arc::new(FileSource::new(file)?))?);
    let mut report = Report {
        lines: Vec::new(),
        json: json!({}),
    };
    header(&tables, &mut report);
    linkage(&tables, &mut report)?;
    sections(&tables, &mut report);
    segments(&tables, &mut report);
    notes(&tables, &mut report)?;
    symbols(&tables, &mut report, all)?;
    relocations(&tables, &mut report, all)?;
    device_code(&tables, &mut report, all)?;
    Ok(report)
}

impl Report {
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn member(&mut self, name: &str, value: Value) {
        if let Value::Object(object) = &mut self.json {
            object.insert(name.to_owned(), value);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name, or the number where there is none.
fn named(name: Option<&str>, number: impl std::fmt::LowerHex) -> String {
    name.map_or_else(|| format!("{number:#x}"), str::to_owned)
}

fn header(tables: &Tables, report: &mut Report) {
    let file = tables.file();
    let h = file.header();
    let kind = named(elf::file_type_name(h.kind), h.kind);
    let machine = named(elf::machine_name(h.machine), h.machine);
    let system = named(elf::os_abi_name(h.os_abi), h.os_abi);
    let order = match h.order {
        ByteOrder::Little => "little",
        ByteOrder::Big => "big",
    };
    report.line(format!(
        "{} bit, {order} endian, {kind}, {machine}, {system}, entry {:#x}, flags {:#x}",
        h.class.bits(),
        h.entry,
        h.flags
    ));
    let object = json!({
        "class": h.class.bits(),
        "order": order,
        "type": kind,
        "machine": machine,
        "os_abi": system,
        "abi_version": h.abi_version,
        "entry": h.entry,
        "flags": h.flags,
        "sections": file.sections().len(),
        "segments": file.segments().len(),
    });
    report.member("header", object);
}

/// What the dynamic linker and debuggers look for.
fn linkage(tables: &Tables, report: &mut Report) -> Outcome {
    let file = tables.file();
    if let Some(id) = tables.build_id()? {
        report.line(format!("build id {}", hex(id)));
        report.member("build_id", json!(hex(id)));
    }
    if let Some(interpreter) = file.interpreter()? {
        report.line(format!("interpreter {}", text(&interpreter)));
        report.member("interpreter", json!(text(&interpreter)));
    }
    if let Some(dynamic) = tables.dynamic()? {
        if let Some(name) = dynamic.soname(file)? {
            report.line(format!("soname {}", text(name)));
            report.member("soname", json!(text(name)));
        }
        let needed: Vec<String> = dynamic.needed(file)?.into_iter().map(text).collect();
        if !needed.is_empty() {
            report.line(format!("needs {}", needed.join(" ")));
            report.member("needed", json!(needed));
        }
        if let Some(path) = dynamic.run_path(file)? {
            report.line(format!("run path {}", text(path)));
            report.member("run_path", json!(text(path)));
        }
        report.member("dynamic", entries(file, dynamic)?);
    }
    Ok(())
}

fn entries(file: &Elf, dynamic: &DynamicTable) -> Outcome<Value> {
    let mut all = Vec::new();
    for entry in dynamic.entries() {
        let tag = named(
            elf::dynamic_tag_name(file.header().machine, entry.tag),
            entry.tag,
        );
        let mut object = json!({ "tag": tag, "value": entry.value });
        if let (Value::Object(object), Some(name)) = (&mut object, dynamic.name(file, entry)?) {
            object.insert("name".to_owned(), json!(text(name)));
        }
        all.push(object);
    }
    Ok(Value::Array(all))
}

fn sections(tables: &Tables, report: &mut Report) {
    let file = tables.file();
    if file.sections().is_empty() {
        return;
    }
    report.line("sections:");
    let mut all = Vec::new();
    for section in file.sections() {
        let name = text(file.section_name(section));
        let kind = named(
            elf::section_type_name(file.header().machine, section.kind),
            section.kind,
        );
        let flags = elf::section_flags_text(section.flags);
        if section.index > 0 {
            report.line(format!(
                "  [{:>2}] {name:<20} {kind:<12} {:>10} bytes at {:<10} {flags:<4} address {:#x} \
                 align {}",
                section.index, section.size, section.offset, section.address, section.align
            ));
        }
        all.push(json!({
            "index": section.index,
            "name": name,
            "type": kind,
            "flags": flags,
            "address": section.address,
            "offset": section.offset,
            "bytes": section.size,
            "link": section.link,
            "info": section.info,
            "align": section.align,
            "entry_bytes": section.entry_size,
            "compressed": section.is_compressed(),
        }));
    }
    report.member("sections", Value::Array(all));
}

fn segments(tables: &Tables, report: &mut Report) {
    let file = tables.file();
    if file.segments().is_empty() {
        return;
    }
    report.line("segments:");
    let mut all = Vec::new();
    for segment in file.segments() {
        let kind = named(
            elf::segment_type_name(file.header().machine, segment.kind),
            segment.kind,
        );
        let letter = |bit, letter| {
            if segment.flags & bit != 0 {
                letter
            } else {
                '-'
            }
        };
        let flags: String = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')]
            .iter()
            .collect();
        report.line(format!(
            "  [{:>2}] {kind:<13} {flags} {:>10} bytes at {:<10} {:>10} at address {:#x} align {}",
            segment.index,
            segment.file_size,
            segment.offset,
            segment.memory_size,
            segment.address,
            segment.align
        ));
        all.push(json!({
            "type": kind,
            "flags": flags,
            "offset": segment.offset,
            "file_bytes": segment.file_size,
            "address": segment.address,
            "memory_bytes": segment.memory_size,
            "align": segment.align,
        }));
    }
    report.member("segments", Value::Array(all));
}

fn notes(tables: &Tables, report: &mut Report) -> Outcome {
    let mut all = Vec::new();
    for note in tables.notes()?.iter().flat_map(|table| table.iter()) {
        let kind = named(elf::note_type_name(note.owner, note.kind), note.kind);
        let owner = text(note.owner);
        let bytes = note.descriptor.len();
        if all.is_empty() {
            report.line("notes:");
        }
        report.line(format!(
            "  {owner} {kind}, {bytes} bytes at {}",
            note.offset
        ));
        let (offset, kind) = (note.offset, kind.as_str());
        all.push(json!({ "owner": owner, "type": kind, "bytes": bytes, "offset": offset }));
    }
    report.member("notes", Value::Array(all));
    Ok(())
}

fn symbols(tables: &Tables, report: &mut Report, all: bool) -> Outcome {
    let file = tables.file();
    let mut list = Vec::new();
    for section in file.symbol_sections() {
        let table = tables.symbols(section.index)?;
        let name = text(file.section_name(section));
        report.line(format!("{} symbols in {name}", table.len()));
        let mut object = json!({ "section": name, "count": table.len() });
        if all {
            let mut symbols = Vec::new();
            for symbol in table.iter() {
                let symbol = symbol?;
                report.line(symbol_line(file, &symbol));
                symbols.push(symbol_object(file, &symbol));
            }
            object["symbols"] = Value::Array(symbols);
        }
        list.push(object);
    }
    report.member("symbol_tables", Value::Array(list));
    Ok(())
}

fn symbol_name(symbol: &Symbol<'_>) -> String {
    let mut name = text(symbol.name);
    if let Some(version) = symbol.version {
        name.push_str(if version.is_default { "@@" } else { "@" });
        name.push_str(&text(version.name));
    }
    name
}

fn symbol_line(file: &Elf, symbol: &Symbol<'_>) -> String {
    let machine = file.header().machine;
    let kind = named(elf::symbol_type_name(machine, symbol.kind), symbol.kind);
    let binding = named(elf::binding_name(machine, symbol.binding), symbol.binding);
    let visibility = elf::visibility_name(symbol.visibility());
    format!(
        "  {:#018x} {:>8} {kind:<8} {binding:<7} {visibility:<9} {:>5} {}",
        symbol.value,
        symbol.size,
        symbol.section,
        symbol_name(symbol)
    )
}

fn symbol_object(file: &Elf, symbol: &Symbol<'_>) -> Value {
    let machine = file.header().machine;
    json!({
        "name": symbol_name(symbol),
        "value": symbol.value,
        "bytes": symbol.size,
        "type": named(elf::symbol_type_name(machine, symbol.kind), symbol.kind),
        "binding": named(elf::binding_name(machine, symbol.binding), symbol.binding),
        "visibility": elf::visibility_name(symbol.visibility()),
        "section": symbol.section,
    })
}

fn relocations(tables: &Tables, report: &mut Report, all: bool) -> Outcome {
    let file = tables.file();
    let machine = file.header().machine;
    let mut list = Vec::new();
    for section in file.relocation_sections() {
        let table = tables.relocations(section.index)?;
        let name = text(file.section_name(section));
        report.line(format!("{} relocations in {name}", table.len()));
        let mut object = json!({ "section": name, "count": table.len() });
        if all {
            let mut entries = Vec::new();
            for entry in table.iter() {
                let kind = match table.is_relr() {
                    true => "RELATIVE".to_owned(),
                    false => named(elf::relocation_name(machine, entry.kind), entry.kind),
                };
                let addend = entry.addend.unwrap_or(0);
                report.line(format!(
                    "  {:#018x} {kind} symbol {} addend {addend:#x}",
                    entry.offset, entry.symbol
                ));
                let (offset, symbol) = (entry.offset, entry.symbol);
                entries.push(json!({
                    "offset": offset, "type": kind, "symbol": symbol, "addend": entry.addend,
                }));
            }
            object["relocations"] = Value::Array(entries);
        }
        list.push(object);
    }
    report.member("relocation_tables", Value::Array(list));
    Ok(())
}

/// Kernels of a cubin, and what a program carries for devices. The kernels of that with `all`: they
/// stand in compressed cubins, which are most of a large library's bytes.
fn device_code(tables: &Tables, report: &mut Report, all: bool) -> Outcome {
    if let Some(cubin) = tables.cubin()? {
        let kernels = kernels(cubin, report, "")?;
        report.member("arch", json!(cubin.arch));
        report.member("kernels", kernels);
    }
    let source = FileOf(tables.file());
    let mut list = Vec::new();
    for container in tables.fatbins()? {
        report.line(format!(
            "device code at {}, {} bytes:",
            container.offset, container.size
        ));
        list.push(container_object(&source, container, report, all)?);
    }
    if !list.is_empty() {
        report.member("device_code", Value::Array(list));
    }
    Ok(())
}

/// The file that containers are in.
struct FileOf<'a>(&'a Elf);

fn container_object(
    file: &FileOf<'_>,
    fatbin: &Fatbin,
    report: &mut Report,
    all: bool,
) -> Outcome<Value> {
    let mut entries = Vec::new();
    for entry in &fatbin.entries {
        report.line(format!("  {}", entry_line(entry)));
        let mut object = json!({
            "kind": kind_name(entry.kind),
            "arch": entry.arch,
            "offset": entry.data_offset,
            "bytes": entry.data_size,
            "compression": entry.compression,
            "decompressed_bytes": entry.decompressed_size,
            "flags": entry.flags,
        });
        if all
            && let Some(inner) = entry.open_cubin(file.0.source_shared())?
            && let Some(cubin) = Cubin::read(&inner)?
        {
            object["kernels"] = kernels(&cubin, report, "  ")?;
        }
        entries.push(object);
    }
    Ok(json!({ "offset": fatbin.offset, "bytes": fatbin.size, "entries": entries }))
}

fn kind_name(kind: FatbinKind) -> String {
    match kind {
        FatbinKind::Ptx => "PTX".to_owned(),
        FatbinKind::Cubin => "cubin".to_owned(),
        FatbinKind::Unknown(number) => format!("unknown {number}"),
    }
}

fn entry_line(entry: &FatbinEntry) -> String {
    let kind = kind_name(entry.kind);
    let (arch, size, at) = (entry.arch, entry.data_size, entry.data_offset);
    let mut line = format!("{kind} sm_{arch}, {size} bytes at {at}");
    if let Some(compression) = entry.compression {
        line.push_str(&format!(", {compression} of {}", entry.decompressed_size));
    }
    if !entry.name.is_empty() {
        line.push_str(&format!(", {}", text(&entry.name)));
    }
    line
}

fn kernels(cubin: &Cubin, report: &mut Report, indent: &str) -> Outcome<Value> {
    let mut all = Vec::new();
    for kernel in &cubin.kernels {
        let name = text(cubin.name(kernel)?);
        let told = |value: Option<u32>| value.map_or("?".to_owned(), |value| value.to_string());
        report.line(format!(
            "{indent}  kernel {name} sm_{}: {} bytes of code, {} registers, {} bytes of \
             parameters, {} shared",
            cubin.arch,
            kernel.code_size,
            told(kernel.registers),
            told(kernel.parameter_size),
            kernel.shared_size
        ));
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(name));
        object.insert("code_bytes".to_owned(), json!(kernel.code_size));
        object.insert("registers".to_owned(), json!(kernel.registers));
        object.insert("parameter_bytes".to_owned(), json!(kernel.parameter_size));
        object.insert("shared_bytes".to_owned(), json!(kernel.shared_size));
        object.insert("constant_bytes".to_owned(), json!(kernel.constant_size));
        all.push(Value::Object(object));
    }
    Ok(Value::Array(all))
}
