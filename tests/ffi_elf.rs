//! ELF files through the C interface: what each table answers, and what misuse answers.

mod common;
mod elf_support;

use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use common::Folder;
use elf_support::build::{SHAPES, everything};
use gds_rs::ffi::buffer::{gds_buffer_address, gds_buffer_free};
use gds_rs::ffi::config;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::elf::*;
use gds_rs::ffi::elf_plan::*;
use gds_rs::ffi::elf_tables::*;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;

/// A struct as a program of C begins with it.
macro_rules! fresh {
    ($name:ty) => {{
        // SAFETY: structs of integers and raw pointers, for which zero is a value.
        let mut value: $name = unsafe { std::mem::zeroed() };
        value.struct_size = size_of::<$name>() as u32;
        value
    }};
}

/// Calls, and gives what was written.
macro_rules! told {
    ($function:ident($($argument:expr),*) -> $name:ty) => {{
        let mut value = fresh!($name);
        // SAFETY: live handles and places.
        ok(unsafe { $function($($argument,)* &raw mut value) });
        value
    }};
}

macro_rules! counted {
    ($function:ident($($argument:expr),*)) => {{
        let mut value = 0u64;
        // SAFETY: live handles and places.
        ok(unsafe { $function($($argument,)* &raw mut value) });
        value
    }};
}

#[track_caller]
fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK);
}

fn words(text: *const c_char, size: u64) -> String {
    // SAFETY: names of an open file, with a NUL behind them.
    let text = unsafe { CStr::from_ptr(text) };
    assert_eq!(text.to_bytes().len() as u64, size);
    text.to_str().expect("UTF-8").to_owned()
}

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    elf: *mut gds_elf_t,
}

impl Things {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut settings = fresh!(gds_config_t);
        let (mut context, mut file, mut elf) = (null_mut(), null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            let size = size_of::<gds_config_t>();
            ok(config::gds_config_init((&raw mut settings).cast(), size));
            settings.gpu_device = GDS_DEVICE_HOST;
            ok(gds_context_open(&raw const settings, &raw mut context));
            ok(gds_file_open(context, path.as_ptr(), 1, &raw mut file));
            ok(gds_elf_open(file, &raw mut elf));
        }
        Self { context, file, elf }
    }

    fn fixture(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::open(&root.join("tests/fixtures/elf").join(name))
    }

    fn section(&self, name: &CStr) -> u64 {
        let mut index = 0;
        // SAFETY: live handles and places.
        ok(unsafe { gds_elf_find_section(self.elf, name.as_ptr(), &raw mut index) });
        index
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // SAFETY: handles of this test; the order does not matter.
        unsafe {
            gds_context_close(self.context);
            gds_file_close(self.file);
            gds_elf_close(self.elf);
        }
    }
}

fn with_everything(test: impl Fn(&Things)) {
    let folder = Folder::new();
    for (class, order) in SHAPES {
        let path = folder.path("file");
        std::fs::write(&path, everything(class, order).build()).expect("written");
        test(&Things::open(&path));
    }
}

#[test]
fn every_table_is_told_entry_by_entry() {
    with_everything(|things| {
        let elf = things.elf;
        let info = told!(gds_elf_info(elf) -> gds_elf_info_t);
        assert_eq!((info.sections, info.segments, info.entry), (17, 4, 0x1234));
        assert_eq!(info.build_id_bytes, 20);
        // SAFETY: as many bytes of an open file.
        let id = unsafe { std::slice::from_raw_parts(info.build_id, 20) };
        assert_eq!(id, [0xab; 20]);

        let text = told!(gds_elf_section(elf, 1) -> gds_elf_section_t);
        assert_eq!(words(text.name, text.name_bytes), ".text");
        assert_eq!((text.address, text.size, text.flags), (0x1000, 12, 6));
        let segment = told!(gds_elf_segment(elf, 1) -> gds_elf_segment_t);
        assert_eq!(
            (segment.kind, segment.file_size, segment.memory_size),
            (1, 100, 1100)
        );

        let symbols = things.section(c".dynsym");
        assert_eq!(counted!(gds_elf_symbol_count(elf, symbols)), 4);
        let symbol = told!(gds_elf_symbol(elf, symbols, 1) -> gds_elf_symbol_t);
        assert_eq!(words(symbol.name, symbol.name_bytes), "first");
        assert_eq!(words(symbol.version, symbol.version_bytes), "V_1");
        assert_eq!(
            (symbol.kind, symbol.binding, symbol.version_is_default),
            (2, 1, 1)
        );
        assert_eq!((symbol.section, symbol.in_section, symbol.size), (1, 1, 12));
        let symbol = told!(gds_elf_symbol(elf, symbols, 0) -> gds_elf_symbol_t);
        assert!(symbol.version.is_null() && symbol.in_section == 0);

        assert_eq!(counted!(gds_elf_note_count(elf)), 4);
        let note = told!(gds_elf_note(elf, 2) -> gds_elf_note_t);
        assert_eq!(
            (note.kind, note.owner_bytes, note.descriptor_bytes),
            (5, 3, 12)
        );

        assert_eq!(counted!(gds_elf_dynamic_count(elf)), 6);
        let entry = told!(gds_elf_dynamic(elf, 0) -> gds_elf_dynamic_t);
        assert_eq!(
            (entry.tag, words(entry.name, entry.name_bytes).as_str()),
            (1, "libx.so")
        );
        let entry = told!(gds_elf_dynamic(elf, 3) -> gds_elf_dynamic_t);
        assert!(entry.name.is_null() && entry.value == 0x3000);

        let rela = things.section(c".rela.dyn");
        assert_eq!(counted!(gds_elf_relocation_count(elf, rela)), 2);
        let found = told!(gds_elf_relocation(elf, rela, 1) -> gds_elf_relocation_t);
        assert_eq!((found.offset, found.symbol, found.kind), (0x2018, 1, 2));
        assert_eq!((found.has_addend, found.addend), (1, -7));
        let relr = things.section(c".relr.dyn");
        let found = told!(gds_elf_relocation(elf, relr, 0) -> gds_elf_relocation_t);
        assert_eq!(
            (found.offset, found.has_addend, found.addend),
            (0x2000, 0, 0)
        );

        assert_eq!(counted!(gds_elf_kernel_count(elf)), 0);
        assert_eq!(counted!(gds_elf_device_code_count(elf)), 0);
    });
}

#[test]
fn device_code_is_told() {
    let things = Things::fixture("scale.cubin");
    assert_eq!(counted!(gds_elf_kernel_count(things.elf)), 2);
    let kernel = told!(gds_elf_kernel(things.elf, 1) -> gds_elf_kernel_t);
    assert_eq!(words(kernel.name, kernel.name_bytes), "scale");
    assert_eq!(
        (kernel.arch, kernel.registers, kernel.parameter_bytes),
        (90, 8, 16)
    );
    let things = Things::fixture("scale_rdc.o");
    let count = counted!(gds_elf_device_code_count(things.elf));
    let all: Vec<_> = (0..count)
        .map(|index| told!(gds_elf_device_code(things.elf, index) -> gds_elf_device_code_t))
        .collect();
    let cubin = all
        .iter()
        .find(|code| code.kind == GDS_ELF_DEVICE_CODE_CUBIN)
        .expect("there");
    assert_eq!((cubin.arch, cubin.compression), (90, 2));
    assert!(cubin.decompressed_size > cubin.size && cubin.container_offset < cubin.offset);
}

#[test]
fn sections_are_planned_and_loaded() {
    with_everything(|things| {
        let (mut plan, mut buffer) = (null_mut(), null_mut());
        let names = [c".t*".as_ptr(), c".bss".as_ptr()];
        // SAFETY: live handles and places.
        ok(unsafe {
            let (plan, buffer) = (&raw mut plan, &raw mut buffer);
            gds_elf_load(things.elf, 0, names.as_ptr(), 2, 1 << 20, plan, buffer)
        });
        let info = told!(gds_elf_plan_info(plan) -> gds_elf_plan_info_t);
        assert_eq!((info.parts, info.plain, info.file_bytes), (2, 0, 12));
        let text = told!(gds_elf_plan_part(plan, 0) -> gds_elf_part_t);
        let bss = told!(gds_elf_plan_part(plan, 1) -> gds_elf_part_t);
        assert_eq!((text.index, text.size, text.encoding), (1, 12, 0));
        assert_eq!(
            (bss.index, bss.size, bss.to_offset, bss.encoding),
            (3, 4096, 32, 3)
        );
        let mut done = fresh!(gds_completion_t);
        // SAFETY: host memory of size_bytes bytes; the handles are live.
        unsafe {
            let mut address = null_mut();
            ok(gds_buffer_address(buffer, &raw mut address));
            let bytes = std::slice::from_raw_parts(address.cast::<u8>(), info.size_bytes as usize);
            assert_eq!(&bytes[..12], b"what is done");
            assert!(bytes[32..].iter().all(|byte| *byte == 0));
            ok(gds_elf_plan_read(plan, buffer, 0, null(), &raw mut done));
            assert_eq!(done.bytes, 4108);
            let past = gds_elf_plan_read(plan, buffer, 1, null(), null_mut());
            assert_eq!(past, GDS_STATUS_OUT_OF_RANGE);
            gds_elf_plan_destroy(plan);
            gds_buffer_free(buffer);
        }
        let (mut plan, indices) = (null_mut(), [1u32, 0]);
        // SAFETY: live handles and places.
        ok(unsafe { gds_elf_plan_parts(things.elf, 1, indices.as_ptr(), 2, 0, &raw mut plan) });
        let part = told!(gds_elf_plan_part(plan, 0) -> gds_elf_part_t);
        assert_eq!((part.kind, part.index, part.size), (1, 1, 1100));
        // SAFETY: a handle of this test.
        unsafe { gds_elf_plan_destroy(plan) };
    });
}

#[test]
fn misuse_is_answered() {
    let things = Things::fixture("scale_host.o");
    let elf = things.elf;
    let status = |select, names: &[*const c_char], limit| {
        let mut plan = null_mut();
        // SAFETY: live handles and places.
        let status = unsafe {
            let (names, count) = (names.as_ptr(), names.len() as u64);
            gds_elf_plan(elf, select, names, count, limit, &raw mut plan)
        };
        assert_eq!(plan.is_null(), status != GDS_STATUS_OK);
        // SAFETY: NULL, or a handle of this test.
        unsafe { gds_elf_plan_destroy(plan) };
        status
    };
    assert_eq!(status(0, &[], 0), GDS_STATUS_INVALID_ARGUMENT);
    assert_eq!(status(0, &[null()], 0), GDS_STATUS_INVALID_ARGUMENT);
    assert_eq!(status(0, &[c".none".as_ptr()], 0), GDS_STATUS_NOT_FOUND);
    assert_eq!(status(0, &[c".text".as_ptr()], 1), GDS_STATUS_OUT_OF_RANGE);
    assert_eq!(
        status(1, &[c".text".as_ptr()], 0),
        GDS_STATUS_INVALID_ARGUMENT
    );
    assert_eq!(status(4, &[], 0), GDS_STATUS_INVALID_ARGUMENT);
    assert_eq!(status(1, &[], 0), GDS_STATUS_OK);
    assert_eq!(
        status(3, &[], 0),
        GDS_STATUS_OK,
        "no segments: nothing to load"
    );
    let (mut symbol, mut count, mut index) = (fresh!(gds_elf_symbol_t), 0, 0);
    // SAFETY: places of this test; handles that are none are what is tried.
    unsafe {
        let past = gds_elf_symbol(elf, 1, 0, &raw mut symbol);
        assert_eq!(past, GDS_STATUS_INVALID_ARGUMENT, "no table of symbols");
        let past = gds_elf_symbol(elf, 1 << 40, 0, &raw mut symbol);
        assert_eq!(past, GDS_STATUS_OUT_OF_RANGE);
        let symbols = things.section(c".symtab");
        let past = gds_elf_symbol(elf, symbols, u64::MAX, &raw mut symbol);
        assert_eq!(past, GDS_STATUS_OUT_OF_RANGE);
        assert_eq!(
            gds_elf_symbol(null(), 0, 0, &raw mut symbol),
            GDS_STATUS_INVALID_ARGUMENT
        );
        assert_eq!(
            gds_elf_symbol(elf, 0, 0, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        symbol.struct_size = 7;
        let status = gds_elf_symbol(elf, symbols, 0, &raw mut symbol);
        assert_eq!(status, GDS_STATUS_STRUCT_SIZE);
        assert_eq!(
            gds_elf_note_count(elf, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let status = gds_elf_find_section(elf, null(), &raw mut index);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let status = gds_elf_note_count(things.file.cast(), &raw mut count);
        assert_eq!(status, GDS_STATUS_INVALID_HANDLE, "another type");
        let mut none = null_mut();
        let status = gds_elf_open(elf.cast(), &raw mut none);
        assert_eq!(status, GDS_STATUS_INVALID_HANDLE);
        assert_eq!(
            gds_elf_open(things.file, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        gds_elf_plan_destroy(null_mut());
        gds_elf_close(null_mut());
    }
}
