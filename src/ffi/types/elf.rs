//! ELF files as the header shows them.

use core::ffi::c_char;

/// The headers of an ELF file, and the tables of it that were asked for. May be used from
/// many threads at once. Made by gds_elf_open(), given back to gds_elf_close().
#[derive(Debug)]
pub struct gds_elf_t {
    _private: [u8; 0],
}

/// Sections or segments of an ELF file and their places in one destination. Never changes;
/// may be used from many threads at once.
#[derive(Debug)]
pub struct gds_elf_plan_t {
    _private: [u8; 0],
}

/// What is to be loaded of an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_elf_select_t {
    /// The sections of the names that are given.
    GDS_ELF_SELECT_NAMES = 0,
    /// Every section that the file has bytes of.
    GDS_ELF_SELECT_STORED = 1,
    /// Those of them that a running program has in memory.
    GDS_ELF_SELECT_ALLOCATED = 2,
    /// Every LOAD segment, as a loader would: what the file has, then zeros.
    GDS_ELF_SELECT_LOADS = 3,
}

/// How the bytes of a part stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_elf_encoding_t {
    /// As they are.
    GDS_ELF_ENCODING_PLAIN = 0,
    /// Compressed by zlib: SHF_COMPRESSED, or an older .zdebug_ section.
    GDS_ELF_ENCODING_ZLIB = 1,
    /// Compressed by Zstandard.
    GDS_ELF_ENCODING_ZSTD = 2,
    /// Not at all: they are zero.
    GDS_ELF_ENCODING_ZERO = 3,
}

/// The kind of gds_elf_part_t that is a section.
pub const GDS_ELF_PART_SECTION: u32 = 0;
/// The kind of gds_elf_part_t that is a segment.
pub const GDS_ELF_PART_SEGMENT: u32 = 1;

/// The kind of gds_elf_device_code_t that is PTX, as text.
pub const GDS_ELF_DEVICE_CODE_PTX: u32 = 1;
/// The kind of gds_elf_device_code_t that is a cubin.
pub const GDS_ELF_DEVICE_CODE_CUBIN: u32 = 2;

/// The header of a file. Start from GDS_ELF_INFO_INIT. Pointers are valid until the file is
/// closed. Numbers without a unit are those of the gABI: e_machine, e_type, ...
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_info_t {
    /// sizeof(gds_elf_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// 32 or 64.
    pub class_bits: u32,
    /// 1 when the highest byte of a number comes first.
    pub big_endian: u32,
    /// EI_OSABI.
    pub os_abi: u32,
    /// EI_ABIVERSION.
    pub abi_version: u32,
    /// e_type.
    pub kind: u32,
    /// e_machine; 190 for a cubin.
    pub machine: u32,
    /// e_flags.
    pub flags: u32,
    /// e_entry, an address.
    pub entry: u64,
    /// Sections, the first one (of no bytes) included.
    pub sections: u64,
    /// Segments.
    pub segments: u64,
    /// The build id; NULL when there is none, or its note is damaged.
    pub build_id: *const u8,
    /// Bytes of it.
    pub build_id_bytes: u64,
}

/// A section. Start from GDS_ELF_SECTION_INIT. Pointers are valid until the file is closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_section_t {
    /// sizeof(gds_elf_section_t) as the caller compiled it.
    pub struct_size: u32,
    /// sh_type.
    pub kind: u32,
    /// sh_link.
    pub link: u32,
    /// sh_info.
    pub info: u32,
    /// Its name, with a NUL behind it.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_bytes: u64,
    /// sh_flags.
    pub flags: u64,
    /// sh_addr.
    pub address: u64,
    /// Where it is in the file, bytes.
    pub offset: u64,
    /// Bytes; in the file, unless its type is NOBITS (8).
    pub size: u64,
    /// sh_addralign, bytes.
    pub align: u64,
    /// sh_entsize, bytes.
    pub entry_size: u64,
}

/// A segment. Start from GDS_ELF_SEGMENT_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_segment_t {
    /// sizeof(gds_elf_segment_t) as the caller compiled it.
    pub struct_size: u32,
    /// p_type.
    pub kind: u32,
    /// p_flags: 1 execute, 2 write, 4 read.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Where it is in the file, bytes.
    pub offset: u64,
    /// p_vaddr.
    pub address: u64,
    /// p_paddr.
    pub physical_address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; those past file_size are zero.
    pub memory_size: u64,
    /// p_align, bytes.
    pub align: u64,
}

/// A symbol. Start from GDS_ELF_SYMBOL_INIT. Pointers are valid until the file is closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_symbol_t {
    /// sizeof(gds_elf_symbol_t) as the caller compiled it.
    pub struct_size: u32,
    /// Its type: 1 object, 2 function, ...
    pub kind: u32,
    /// 0 local, 1 global, 2 weak, ...
    pub binding: u32,
    /// st_other; the two lowest bits are the visibility.
    pub other: u32,
    /// The section that it is in; 0 for none, and with in_section 0 a number with a meaning
    /// of its own: 0xfff1 absolute, 0xfff2 common.
    pub section: u32,
    /// 1 when `section` is a section.
    pub in_section: u32,
    /// Its name, with a NUL behind it.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_bytes: u64,
    /// Its version, with a NUL behind it; NULL when it has none.
    pub version: *const c_char,
    /// Bytes of the version, without the NUL.
    pub version_bytes: u64,
    /// st_value.
    pub value: u64,
    /// Bytes, or 0.
    pub size: u64,
    /// 1 when its version is the one that is taken where none is asked for.
    pub version_is_default: u32,
    /// Zero.
    pub reserved: u32,
}

/// A note. Start from GDS_ELF_NOTE_INIT. Pointers are valid until the file is closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_note_t {
    /// sizeof(gds_elf_note_t) as the caller compiled it.
    pub struct_size: u32,
    /// Its type; what it means, its owner says.
    pub kind: u32,
    /// Whose note it is; bytes, without the NUL that ends most of them.
    pub owner: *const u8,
    /// Bytes of the owner.
    pub owner_bytes: u64,
    /// What it says.
    pub descriptor: *const u8,
    /// Bytes of that.
    pub descriptor_bytes: u64,
    /// Where that is in the file, bytes.
    pub offset: u64,
}

/// An entry of the dynamic section. Start from GDS_ELF_DYNAMIC_INIT. Pointers are valid
/// until the file is closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_dynamic_t {
    /// sizeof(gds_elf_dynamic_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// d_tag: 1 needed, 14 soname, 29 runpath, ...
    pub tag: i64,
    /// d_val.
    pub value: u64,
    /// The name that the value stands for, with a NUL behind it; NULL where it is no name.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_bytes: u64,
}

/// A relocation. Start from GDS_ELF_RELOCATION_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_relocation_t {
    /// sizeof(gds_elf_relocation_t) as the caller compiled it.
    pub struct_size: u32,
    /// Its type; what it means depends on the machine. 0 for RELR.
    pub kind: u32,
    /// Its symbol in the table that the section's `link` names; 0 for none.
    pub symbol: u32,
    /// 1 when it has an addend of its own (RELA).
    pub has_addend: u32,
    /// r_offset.
    pub offset: u64,
    /// r_info; 0 for RELR.
    pub info: u64,
    /// r_addend; 0 where it has none.
    pub addend: i64,
}

/// A kernel of a cubin. Start from GDS_ELF_KERNEL_INIT. Pointers are valid until the file is
/// closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_kernel_t {
    /// sizeof(gds_elf_kernel_t) as the caller compiled it.
    pub struct_size: u32,
    /// The architecture of the cubin: 90 for sm_90.
    pub arch: u32,
    /// The section of its code.
    pub section: u32,
    /// Registers of a thread; 0 when the file does not say.
    pub registers: u32,
    /// Its name, as the compiler wrote it, with a NUL behind it.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_bytes: u64,
    /// Bytes of code.
    pub code_bytes: u64,
    /// Bytes of parameters; 0 when the file does not say.
    pub parameter_bytes: u64,
    /// Bytes of shared memory that it always has, the system's included.
    pub shared_bytes: u64,
    /// Bytes of constant bank 0.
    pub constant_bytes: u64,
}

/// Device code that a program carries: an entry of a container in .nv_fatbin or
/// __nv_relfatbin. Start from GDS_ELF_DEVICE_CODE_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_device_code_t {
    /// sizeof(gds_elf_device_code_t) as the caller compiled it.
    pub struct_size: u32,
    /// GDS_ELF_DEVICE_CODE_PTX, GDS_ELF_DEVICE_CODE_CUBIN, or another number that the file
    /// has.
    pub kind: u32,
    /// 90 for sm_90.
    pub arch: u32,
    /// 0 not compressed, 1 LZ4, 2 Zstandard.
    pub compression: u32,
    /// Major version of the code; of PTX that of its language.
    pub version_major: u32,
    /// Minor version.
    pub version_minor: u32,
    /// Where its container begins in the file, bytes.
    pub container_offset: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Bytes when it is decompressed; 0 when it is not compressed.
    pub decompressed_size: u64,
    /// Flags as they are in the file.
    pub flags: u64,
}

/// What a plan reads. Start from GDS_ELF_PLAN_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_plan_info_t {
    /// sizeof(gds_elf_plan_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// 1 when nothing has to be decoded, and nothing is zero.
    pub plain: u32,
    /// Bytes of the destination, the padding between parts included.
    pub size_bytes: u64,
    /// Bytes that are read of the file.
    pub file_bytes: u64,
    /// Parts.
    pub parts: u64,
}

/// A section or segment and its place in the destination. Start from GDS_ELF_PART_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_elf_part_t {
    /// sizeof(gds_elf_part_t) as the caller compiled it.
    pub struct_size: u32,
    /// GDS_ELF_PART_SECTION or GDS_ELF_PART_SEGMENT.
    pub kind: u32,
    /// Its number.
    pub index: u32,
    /// How it stands in the file, a gds_elf_encoding_t.
    pub encoding: i32,
    /// Offset in the destination, bytes: a multiple of `align`.
    pub to_offset: u64,
    /// Bytes there, decoded.
    pub size: u64,
    /// Its alignment, bytes.
    pub align: u64,
    /// Where it is in the file, bytes; behind the header of a compressed section.
    pub file_offset: u64,
    /// Bytes there.
    pub file_size: u64,
}
