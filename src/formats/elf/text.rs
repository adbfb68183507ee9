//! What numbers of ELF files are called: the names of the gABI without their prefixes.

use object::elf::{self, Machine};

fn stripped(name: Option<&'static str>, prefix: &str) -> Option<&'static str> {
    name.map(|name| name.strip_prefix(prefix).unwrap_or(name))
}

/// "DYN", "EXEC", ... of e_type.
#[must_use]
pub fn file_type_name(kind: u16) -> Option<&'static str> {
    stripped(elf::FileType(kind).name(), "ET_")
}

/// "X86_64", "AARCH64", "CUDA", ... of e_machine.
#[must_use]
pub fn machine_name(machine: u16) -> Option<&'static str> {
    stripped(Machine(machine).name(), "EM_")
}

/// "SYSV", "GNU", ... of EI_OSABI.
#[must_use]
pub fn os_abi_name(os_abi: u8) -> Option<&'static str> {
    stripped(elf::OsAbi(os_abi).name(), "ELFOSABI_")
}

/// "PROGBITS", "RELA", ... of sh_type, for this machine.
#[must_use]
pub fn section_type_name(machine: u16, kind: u32) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    stripped(names.sht.name(elf::SectionType(kind)), "SHT_")
}

/// "LOAD", "GNU_STACK", ... of p_type, for this machine.
#[must_use]
pub fn segment_type_name(machine: u16, kind: u32) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    stripped(names.pt.name(elf::ProgramType(kind)), "PT_")
}

/// "NEEDED", "SONAME", ... of d_tag, for this machine.
#[must_use]
pub fn dynamic_tag_name(machine: u16, tag: i64) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    stripped(names.dt.name(elf::DynamicTag(tag)), "DT_")
}

/// "R_X86_64_RELATIVE", ... of this machine.
#[must_use]
pub fn relocation_name(machine: u16, kind: u32) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    names.r.name(elf::RelocationType(kind))
}

/// "FUNC", "OBJECT", ... of the type of a symbol.
#[must_use]
pub fn symbol_type_name(machine: u16, kind: u8) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    stripped(names.stt.name(elf::SymbolType(kind)), "STT_")
}

/// "GLOBAL", "WEAK", ... of the binding of a symbol.
#[must_use]
pub fn binding_name(machine: u16, binding: u8) -> Option<&'static str> {
    let names = elf::machine_names(Machine(machine));
    stripped(names.stb.name(elf::SymbolBind(binding)), "STB_")
}

/// "DEFAULT", "HIDDEN", ... of the two lowest bits of st_other.
#[must_use]
pub fn visibility_name(visibility: u8) -> &'static str {
    match visibility & 3 {
        0 => "DEFAULT",
        1 => "INTERNAL",
        2 => "HIDDEN",
        _ => "PROTECTED",
    }
}

/// "GNU_BUILD_ID", "PRSTATUS", ... of a note of this owner.
#[must_use]
pub fn note_type_name(owner: &[u8], kind: u32) -> Option<&'static str> {
    stripped(elf::NoteType::names(owner).name(elf::NoteType(kind)), "NT_")
}

/// The letters that readelf shows for sh_flags: "WA", "AX", "AMS", ... Bits without a letter of
/// their own are left out.
#[must_use]
pub fn section_flags_text(flags: u64) -> String {
    const LETTERS: [(u32, char); 13] = [
        (0, 'W'),
        (1, 'A'),
        (2, 'X'),
        (4, 'M'),
        (5, 'S'),
        (6, 'I'),
        (7, 'L'),
        (8, 'O'),
        (9, 'G'),
        (10, 'T'),
        (11, 'C'),
        (21, 'R'),
        (31, 'E'),
    ];
    LETTERS
        .iter()
        .filter(|(bit, _)| flags >> bit & 1 != 0)
        .map(|(_, letter)| letter)
        .collect()
}
