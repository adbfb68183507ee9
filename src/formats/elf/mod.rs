//! ELF: headers, sections, segments and the tables in them, and their bytes in device memory.
//!
//! 32 and 64 bit, both byte orders. The layout of every record is that of the `object` crate
//! (System V gABI chapters 4 and 5, gabi.xinuos.com, and the GNU extensions of binutils); only
//! headers, the tables that are asked for and their names are read, each as one range of the
//! [`Source`](super::Source).
//!
//! Opening allocates at most 4 times the size of the file: a header of 40 bytes becomes 72. Each
//! table that is asked for takes at most 6 times the bytes of its sections (a note of 12 bytes
//! becomes an entry of 56), and never more than is in the file. What is counted twice by
//! overlapping sections is read only when each of them is asked for.
//!
//! Guarded by `tests/formats_elf_*.rs`, which compare with readelf and objcopy.

mod compress;
mod cubin;
mod dynamic;
mod fatbin;
mod file;
pub mod fuzzing;
mod glob;
mod header;
mod load;
mod note;
mod raw;
mod relocation;
mod section;
mod strings;
mod symbol;
mod tables;
mod text;
mod version;

pub use compress::Encoding;
pub use cubin::{Cubin, Kernel};
pub use dynamic::{DynamicEntry, DynamicTable};
pub use fatbin::{Fatbin, FatbinEntry, FatbinKind};
pub use file::Elf;
pub use header::{ByteOrder, Class, Header};
pub use load::{ElfPlan, Part, PartKind, Select};
pub use note::{Note, NoteTable};
pub use relocation::{Relocation, RelocationTable};
pub use section::{Section, Segment};
pub use symbol::{Symbol, SymbolTable};
pub use tables::Tables;
pub use text::{
    binding_name, dynamic_tag_name, file_type_name, machine_name, note_type_name, os_abi_name,
    relocation_name, section_flags_text, section_type_name, segment_type_name, symbol_type_name,
    visibility_name,
};
pub use version::SymbolVersion;
