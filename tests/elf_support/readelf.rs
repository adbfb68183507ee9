//! What `readelf -W` says of a file, compared with what we say, line by line.

use std::path::Path;
use std::process::Command;

use gds_rs::formats::elf::{
    Class, Elf, Relocation, RelocationTable, Section, Symbol, SymbolTable, relocation_name,
};

/// Lines that agreed, by what they were about.
#[derive(Debug, Default, Clone, Copy)]
pub struct Agreed {
    pub headers: u64,
    pub sections: u64,
    pub segments: u64,
    pub symbols: u64,
    pub notes: u64,
    pub dynamic: u64,
    pub relocations: u64,
}

impl Agreed {
    pub fn add(&mut self, other: &Self) {
        self.headers += other.headers;
        self.sections += other.sections;
        self.segments += other.segments;
        self.symbols += other.symbols;
        self.notes += other.notes;
        self.dynamic += other.dynamic;
        self.relocations += other.relocations;
    }
}

pub fn is_there() -> bool {
    Command::new("readelf")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
}

/// Everything that is compared, as readelf prints it.
pub fn text(path: &Path) -> String {
    let out = Command::new("readelf")
        .args(["-W", "-h", "-S", "-l", "-s", "-n", "-d", "-r"])
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .expect("readelf runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Compares all that readelf says; the first difference is the error.
pub fn compare(elf: &Elf, text: &str) -> Result<Agreed, String> {
    let mut agreed = Agreed::default();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    let mut symbols = elf.symbol_sections().filter(|s| s.size > 0);
    let mut seen_sections = false;
    // It finds versions by what the dynamic section says, and shows none without that.
    let versions = text.contains("@");
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        let body = || lines[at..].iter().copied();
        if line == "ELF Header:" {
            agreed.headers += header(elf, body())?;
        } else if line.starts_with("Section Headers:") {
            agreed.sections += sections(elf, body())?;
            seen_sections = true;
        } else if line.starts_with("Program Headers:") {
            agreed.segments += segments(elf, body())?;
        } else if line.starts_with("Symbol table '") {
            let section = symbols.next().ok_or("more symbol tables than ours")?;
            let table = elf.symbols(section.index).map_err(|e| e.to_string())?;
            agreed.symbols += symbol_table(elf, &table, versions, line, body())?;
        } else if line.starts_with("Dynamic section at offset") {
            agreed.dynamic += dynamic(elf, body())?;
        } else if line.starts_with("Relocation section '") {
            agreed.relocations += relocations(elf, versions, line, body())?;
        }
    }
    check(
        seen_sections || elf.sections().is_empty(),
        "sections",
        "",
        elf.sections().len(),
    )?;
    check(symbols.next().is_none(), "symbol tables", "fewer", "more")?;
    agreed.notes = notes(elf, &lines)?;
    Ok(agreed)
}

fn check(
    equal: bool,
    what: &str,
    theirs: impl std::fmt::Display,
    ours: impl std::fmt::Display,
) -> Result<(), String> {
    if equal {
        return Ok(());
    }
    Err(format!("{what}: readelf says {theirs}, we say {ours}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, theirs: T, ours: T) -> Result<(), String> {
    let equal = theirs == ours;
    check(equal, what, format!("{theirs:x?}"), format!("{ours:x?}"))
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// A name as readelf prints it: bytes that are no text as `^` and a letter.
fn printed(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn header<'a>(elf: &Elf, lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let h = elf.header();
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let first = value.split_whitespace().next().unwrap_or("");
        let in_brackets = value
            .split_once('(')
            .and_then(|(_, v)| number(v.trim_end_matches(')')));
        // A count that does not fit stands in brackets behind what the header has.
        let counted = in_brackets.or(number(first));
        let found = match key.trim() {
            "Class" => same("class", value, &format!("ELF{}", h.class.bits())),
            "Data" => {
                let order = format!("{:?}", h.order).to_lowercase();
                check(
                    value.ends_with(&format!("{order} endian")),
                    "data",
                    value,
                    order,
                )
            }
            "ABI Version" => same("ABI version", counted, Some(h.abi_version.into())),
            "Entry point address" => same("entry", hex(first), Some(h.entry)),
            "Start of program headers" => same("phoff", number(first), Some(h.segments_offset)),
            "Start of section headers" => same("shoff", number(first), Some(h.sections_offset)),
            "Flags" => same(
                "flags",
                hex(first.trim_end_matches(',')),
                Some(h.flags.into()),
            ),
            "Size of this header" => same("ehsize", number(first), Some(h.header_size.into())),
            "Size of program headers" => same("phent", number(first), Some(h.segment_size.into())),
            "Number of program headers" => same("phnum", counted, Some(h.segments.into())),
            "Size of section headers" => same("shent", number(first), Some(h.section_size.into())),
            "Number of section headers" => same("shnum", counted, Some(h.sections.into())),
            "Section header string table index" => same("shstrndx", counted, Some(h.names.into())),
            "Type" => {
                let kind = match first {
                    "NONE" => 0,
                    "REL" => 1,
                    "EXEC" => 2,
                    "DYN" => 3,
                    "CORE" => 4,
                    _ => h.kind,
                };
                same("type", kind, h.kind)
            }
            _ => continue,
        };
        found?;
        count += 1;
    }
    Ok(count)
}

/// Types of sections that readelf and gABI have names for.
const SECTION_TYPES: &[(&str, u32)] = &[
    ("NULL", 0),
    ("PROGBITS", 1),
    ("SYMTAB", 2),
    ("STRTAB", 3),
    ("RELA", 4),
    ("HASH", 5),
    ("DYNAMIC", 6),
    ("NOTE", 7),
    ("NOBITS", 8),
    ("REL", 9),
    ("DYNSYM", 11),
    ("INIT_ARRAY", 14),
    ("FINI_ARRAY", 15),
    ("PREINIT_ARRAY", 16),
    ("GROUP", 17),
    ("RELR", 19),
    ("GNU_HASH", 0x6fff_fff6),
    ("VERDEF", 0x6fff_fffd),
    ("VERNEED", 0x6fff_fffe),
    ("VERSYM", 0x6fff_ffff),
    ("X86_64_UNWIND", 0x7000_0001),
];

fn sections<'a>(elf: &Elf, lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let digits = if elf.header().class == Class::Elf32 {
        8
    } else {
        16
    };
    let mut ours = elf.sections().iter();
    let mut count = 0;
    let rows = lines
        .skip_while(|l| !l.starts_with("  [ 0]"))
        .take_while(|l| l.starts_with("  ["));
    for line in rows {
        let section = ours.next().ok_or("more sections than ours")?;
        let (index, rest) = line[3..].split_once(']').ok_or(line)?;
        same("section", index.trim().parse().ok(), Some(section.index))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let is_address = |i: usize| words[i].len() == digits && hex(words[i]).is_some();
        let place = (1..words.len().saturating_sub(6))
            .find(|i| is_address(*i) && hex(words[i + 1]).is_some() && hex(words[i + 2]).is_some());
        let place = place.ok_or(line)?;
        // A name may hold blanks, and a type too; the type is the last word but for one.
        let name = printed(elf.section_name(section));
        let at = rest.trim_start();
        check(
            name.is_empty() || at.starts_with(name.as_str()),
            "section name",
            at,
            &name,
        )?;
        let known = SECTION_TYPES
            .iter()
            .find(|(text, _)| *text == words[place - 1]);
        if let Some((text, kind)) = known {
            check(*kind == section.kind, "section type", text, section.kind)?;
        }
        same("address", hex(words[place]), Some(section.address))?;
        same("offset", hex(words[place + 1]), Some(section.offset))?;
        same("size", hex(words[place + 2]), Some(section.size))?;
        same(
            "entry size",
            hex(words[place + 3]),
            Some(section.entry_size),
        )?;
        let [flags @ .., link, info, align] = &words[place + 4..] else {
            return Err(line.to_owned());
        };
        same("link", link.parse().ok(), Some(section.link))?;
        same("info", info.parse().ok(), Some(section.info))?;
        same("align", align.parse().ok(), Some(section.align))?;
        // Which bits of systems have letters depends on the system.
        let letters = gds_rs::formats::elf::section_flags_text(section.flags).replace('R', "");
        let theirs: String = flags
            .concat()
            .chars()
            .filter(|c| !"oxplDR".contains(*c))
            .collect();
        same("flags", theirs.as_str(), letters.as_str())?;
        count += 1;
    }
    check(ours.next().is_none(), "sections", "fewer", "more")?;
    Ok(count)
}

const SEGMENT_TYPES: &[(&str, u32)] = &[
    ("NULL", 0),
    ("LOAD", 1),
    ("DYNAMIC", 2),
    ("INTERP", 3),
    ("NOTE", 4),
    ("PHDR", 6),
    ("TLS", 7),
    ("GNU_EH_FRAME", 0x6474_e550),
    ("GNU_STACK", 0x6474_e551),
    ("GNU_RELRO", 0x6474_e552),
    ("GNU_PROPERTY", 0x6474_e553),
];

fn segments<'a>(elf: &Elf, lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let mut ours = elf.segments().iter();
    let mut count = 0;
    for line in lines.skip(1).take_while(|line| !line.is_empty()) {
        if let Some((_, rest)) = line.split_once("[Requesting program interpreter: ") {
            let found = elf
                .interpreter()
                .map_err(|e| e.to_string())?
                .ok_or("no interpreter")?;
            same(
                "interpreter",
                rest.trim_end_matches(']'),
                printed(&found).as_str(),
            )?;
            continue;
        }
        let segment = ours.next().ok_or("more segments than ours")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            kind,
            offset,
            address,
            physical,
            file,
            memory,
            flags @ ..,
            align,
        ] = &words[..]
        else {
            return Err(line.to_owned());
        };
        if let Some((text, known)) = SEGMENT_TYPES.iter().find(|(text, _)| text == kind) {
            check(*known == segment.kind, "segment type", text, segment.kind)?;
        }
        same("p_offset", hex(offset), Some(segment.offset))?;
        same("p_vaddr", hex(address), Some(segment.address))?;
        same("p_paddr", hex(physical), Some(segment.physical_address))?;
        same("p_filesz", hex(file), Some(segment.file_size))?;
        same("p_memsz", hex(memory), Some(segment.memory_size))?;
        same("p_align", hex(align), Some(segment.align))?;
        let letters = [(4, 'R'), (2, 'W'), (1, 'E')];
        let ours: String = letters
            .iter()
            .filter(|(bit, _)| segment.flags & bit != 0)
            .map(|(_, c)| c)
            .collect();
        same("p_flags", flags.concat().as_str(), ours.as_str())?;
        count += 1;
    }
    check(ours.next().is_none(), "segments", "fewer", "more")?;
    Ok(count)
}

fn names_of(symbol: &Symbol<'_>) -> String {
    let mut name = printed(symbol.name);
    if let Some(version) = symbol.version {
        name.push_str(if version.is_default { "@@" } else { "@" });
        name.push_str(&printed(version.name));
    }
    name
}

/// The name that readelf shows of a symbol: of the section where it has none of its own.
fn shown(elf: &Elf, symbol: &Symbol<'_>, versions: bool) -> String {
    if symbol.kind == 3 && symbol.name.is_empty() {
        let section: Option<&Section> = elf.section(symbol.section).ok();
        return section.map_or(String::new(), |s| printed(elf.section_name(s)));
    }
    match versions {
        true => names_of(symbol),
        false => printed(symbol.name),
    }
}

fn symbol_table<'a>(
    elf: &Elf,
    table: &SymbolTable,
    versions: bool,
    title: &str,
    lines: impl Iterator<Item = &'a str>,
) -> Result<u64, String> {
    let wanted = title
        .split("contains ")
        .nth(1)
        .and_then(|t| t.split(' ').next());
    same("symbols", wanted.and_then(number), Some(table.len()))?;
    let mut count = 0;
    for line in lines.skip(1).take(table.len() as usize) {
        let (index, rest) = line.split_once(':').ok_or(line)?;
        let index: u64 = index.trim().parse().map_err(|_| line)?;
        let symbol = table.get(index).map_err(|e| e.to_string())?;
        let mut rest = rest.trim_start();
        let mut word = || {
            // "<OS specific>: 10"
            let skip = match rest.starts_with('<') {
                true => rest.find(">: ").map_or(0, |at| at + 3),
                false => 0,
            };
            let end = rest[skip..]
                .find(char::is_whitespace)
                .map_or(rest.len(), |at| skip + at);
            let (word, tail) = rest.split_at(end);
            rest = tail.trim_start();
            word
        };
        same("value", hex(word()), Some(symbol.value))?;
        same("size", number(word()), Some(symbol.size))?;
        let kinds = [
            "NOTYPE", "OBJECT", "FUNC", "SECTION", "FILE", "COMMON", "TLS",
        ];
        let kind = word();
        if let Some(known) = kinds.iter().position(|text| *text == kind) {
            same("type", known as u8, symbol.kind)?;
        }
        let bind = word();
        if let Some(known) = ["LOCAL", "GLOBAL", "WEAK"]
            .iter()
            .position(|text| *text == bind)
        {
            same("binding", known as u8, symbol.binding)?;
        }
        let levels = ["DEFAULT", "INTERNAL", "HIDDEN", "PROTECTED"];
        let visible = levels[usize::from(symbol.visibility())];
        same("visibility", word(), visible)?;
        let mut place = word();
        if place.starts_with('[') {
            while !place.ends_with(']') {
                place = word();
            }
            place = word();
        }
        match place {
            "UND" => same("section", 0, symbol.section)?,
            "ABS" => same("section", 0xfff1, symbol.section)?,
            "COM" => same("section", 0xfff2, symbol.section)?,
            other => {
                if let Ok(section) = other.parse::<u32>() {
                    same("section", section, symbol.section)?;
                    check(symbol.is_in_section, "section", section, "none")?;
                }
            }
        }
        // The number of a version that is needed stands behind it.
        let name = match rest.rsplit_once(" (") {
            Some((name, tail)) if symbol.version.is_some() && tail.ends_with(')') => name,
            _ => rest,
        };
        let ours = shown(elf, &symbol, versions);
        // The symbol that stands for a version itself.
        let is_version =
            symbol.version.is_some_and(|v| v.name == symbol.name) && name.as_bytes() == symbol.name;
        let fits = name == ours || is_version || escaped(name);
        check(fits, "symbol name", name, &ours)?;
        count += 1;
    }
    same("lines of symbols", count, table.len())?;
    Ok(count)
}

/// Names of other bytes than ASCII are printed in ways of their own.
fn escaped(name: &str) -> bool {
    name.contains('^') || name.contains("$<") || name.contains("<corrupt>") || !name.is_ascii()
}

fn dynamic<'a>(elf: &Elf, lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let table = elf
        .dynamic()
        .map_err(|e| e.to_string())?
        .ok_or("no dynamic section")?;
    let mut ours = table.entries().iter();
    let mut count = 0;
    for line in lines.skip(1).take_while(|line| line.starts_with(" 0x")) {
        let entry = ours.next().ok_or("more dynamic entries than ours")?;
        let mut words = line.split_whitespace();
        same("tag", words.next().and_then(hex), Some(entry.tag as u64))?;
        let value = line.split_once(')').map_or("", |(_, value)| value.trim());
        if let Some(name) = table.name(elf, entry).map_err(|e| e.to_string())? {
            let theirs = value
                .split_once('[')
                .map_or("", |(_, name)| name.trim_end_matches(']'));
            same("dynamic name", theirs, printed(name).as_str())?;
        } else if value.starts_with("0x") {
            let theirs = value.split_whitespace().next().and_then(hex);
            same("dynamic value", theirs, Some(entry.value))?;
        } else if let Some(size) = value.strip_suffix(" (bytes)") {
            same("dynamic size", number(size), Some(entry.value))?;
        }
        count += 1;
    }
    check(ours.next().is_none(), "dynamic entries", "fewer", "more")?;
    Ok(count)
}

fn relocations<'a>(
    elf: &Elf,
    versions: bool,
    title: &str,
    lines: impl Iterator<Item = &'a str>,
) -> Result<u64, String> {
    let offset = title
        .split("offset ")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .and_then(hex);
    let mut sections = elf.relocation_sections();
    let section = sections
        .find(|s| Some(s.offset) == offset && s.size > 0)
        .ok_or(title)?;
    let table = elf.relocations(section.index).map_err(|e| e.to_string())?;
    if table.is_relr() {
        return relr(&table, lines);
    }
    let symbols = elf
        .section(section.link)
        .ok()
        .filter(|s| s.kind == 2 || s.kind == 11);
    let symbols = symbols
        .map(|s| elf.symbols(s.index))
        .transpose()
        .map_err(|e| e.to_string())?;
    let mut count = 0;
    for (line, ours) in lines.skip(1).zip(table.iter()) {
        relocation(elf, symbols.as_ref(), versions, line, &ours)?;
        count += 1;
    }
    same("relocations", count, table.len())?;
    Ok(count)
}

fn relocation(
    elf: &Elf,
    symbols: Option<&SymbolTable>,
    versions: bool,
    line: &str,
    ours: &Relocation,
) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [offset, info, kind, rest @ ..] = &words[..] else {
        return Err(line.to_owned());
    };
    same("r_offset", hex(offset), Some(ours.offset))?;
    same("r_info", hex(info), Some(ours.info))?;
    let name = relocation_name(elf.header().machine, ours.kind);
    if let Some(name) = name.filter(|_| kind.starts_with("R_")) {
        // The gABI's supplement says JMP_SLOT for i386, and binutils says JUMP_SLOT.
        let short = (kind.len() >= 17 && name.starts_with(kind))
            || name.replace("_JMP_", "_JUMP_") == *kind;
        check(*kind == name || short, "relocation", kind, name)?;
    }
    // "name + 5", "name - 5", "name", "5", or nothing.
    let (name, addend) = match rest {
        [_, name @ .., sign @ ("+" | "-"), addend] => {
            let size = i64::from_str_radix(addend, 16).map_err(|_| line)?;
            (name.join(" "), if *sign == "-" { -size } else { size })
        }
        [_, name @ ..] if ours.addend.is_none() => (name.join(" "), 0),
        [addend] => (String::new(), hex(addend).ok_or(line)? as i64),
        [] => (String::new(), 0),
        _ => return Err(line.to_owned()),
    };
    if let Some(ours) = ours.addend {
        let same_addend = addend == ours || (elf.header().class == Class::Elf32);
        check(same_addend, "addend", addend, ours)?;
    }
    if ours.symbol == 0 {
        return check(name.is_empty(), "symbol of a relocation", &name, "none");
    }
    let symbols = symbols.ok_or("no symbols")?;
    let symbol = symbols.get(ours.symbol.into()).map_err(|e| e.to_string())?;
    let shown = shown(elf, &symbol, versions);
    check(
        name == shown || escaped(&name),
        "symbol of a relocation",
        name,
        shown,
    )
}

fn relr<'a>(table: &RelocationTable, lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let mut lines = lines;
    let count = lines
        .next()
        .and_then(|l| l.trim().strip_suffix(" offsets"))
        .and_then(number);
    same("RELR", count, Some(table.len()))?;
    let mut seen = 0;
    for (line, ours) in lines.zip(table.iter()) {
        same("RELR", hex(line.trim()), Some(ours.offset))?;
        // Any of them by its number.
        if seen % 97 == 0 {
            same("RELR", table.get(seen), Some(ours))?;
        }
        seen += 1;
    }
    same("RELR", seen, table.len())?;
    Ok(seen)
}

fn notes(elf: &Elf, lines: &[&str]) -> Result<u64, String> {
    let tables = elf.all_notes().map_err(|e| e.to_string())?;
    let mut ours = tables.iter().flat_map(|table| table.iter());
    let id = elf.build_id().map_err(|e| e.to_string())?;
    let id = id.map(|id| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    let mut count = 0;
    let mut inside = false;
    let mut seen_id = None;
    for line in lines {
        if line.starts_with("Displaying notes found") {
            inside = true;
        } else if line.is_empty() {
            inside = false;
        }
        if !inside {
            continue;
        }
        if let Some((_, id)) = line.split_once("Build ID: ") {
            seen_id.get_or_insert(id.trim().to_owned());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_note = line.starts_with("  ") && !line.starts_with("   ");
        // An owner may hold blanks.
        let is_size = |w: &&&str| w.starts_with("0x") && w.len() == 10;
        let size = words.iter().skip(1).find(is_size);
        let Some(size) = size.filter(|_| is_note) else {
            continue;
        };
        let note = ours.next().ok_or("more notes than ours")?;
        let owner = printed(note.owner);
        // Notes of GCC's annobin plugin ("GA" and what they tell) are shown in words of their own.
        let fits = words[0] == owner || note.owner.starts_with(b"GA") || escaped(words[0]);
        check(fits, "note", words[0], &owner)?;
        same("note size", hex(size), Some(note.descriptor.len() as u64))?;
        count += 1;
    }
    check(ours.next().is_none(), "notes", "fewer", "more")?;
    same("build id", seen_id, id)?;
    Ok(count)
}
