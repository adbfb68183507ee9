//! Wrong arguments are answered before a byte moves, with what to do.

mod common;

use common::*;
use gds_rs::config::PathPolicy;
use gds_rs::engine::{Options, Transfer};
use gds_rs::io::{OpenMode, Operation};
use gds_rs::{Error, ErrorKind};

fn kind(result: Result<impl std::fmt::Debug, Error>) -> ErrorKind {
    result.expect_err("refused").kind()
}

#[test]
fn ranges_past_buffer_file_offset_or_address_space() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 10_000);
    let context = context();
    let file = open(&context, &path);
    let buffer = alloc(&context, 4096);
    assert_eq!(kind(file.read(0, &buffer, 0, 4097)), ErrorKind::OutOfRange);
    assert_eq!(kind(file.read(0, &buffer, 4096, 1)), ErrorKind::OutOfRange);
    assert_eq!(
        kind(file.read(0, &buffer, u64::MAX, 2)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        kind(file.read(0, &buffer, 1, u64::MAX)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        kind(file.read(u64::MAX, &buffer, 0, 1)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        kind(file.read(i64::MAX as u64, &buffer, 0, 1)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        file.read(10_000, &buffer, 0, 4096)
            .expect("at the end")
            .bytes,
        0
    );
    assert_eq!(
        file.read(1 << 40, &buffer, 0, 4096)
            .expect("far past the end")
            .bytes,
        0
    );
    assert_eq!(file.read(0, &buffer, 4096, 0).expect("nothing").bytes, 0);
    let done = file.read(9_000, &buffer, 0, 4096).expect("across the end");
    assert_eq!(done.bytes, 1000);
    assert!(bytes(&buffer)[..1000] == data[9_000..]);
}

#[test]
fn the_mode_of_a_file_is_held_to() {
    let folder = Folder::new();
    let (path, _) = folder.file("m", 4096);
    let context = context();
    let buffer = alloc(&context, 4096);
    let reader = open(&context, &path);
    assert_eq!(kind(reader.write(0, &buffer, 0, 1)), ErrorKind::ReadOnly);
    let write_only = OpenMode {
        read: false,
        ..OpenMode::read_write()
    };
    let writer = context.open_file(&path, write_only).expect("opens");
    assert_eq!(
        kind(writer.read(0, &buffer, 0, 1)),
        ErrorKind::InvalidArgument
    );
    writer.write(0, &buffer, 0, 4096).expect("written");
}

#[test]
fn contexts_are_not_mixed() {
    let folder = Folder::new();
    let (path, _) = folder.file("c", 4096);
    let (one, two) = (context(), context());
    let buffer = alloc(&two, 4096);
    let file = open(&one, &path);
    assert_eq!(
        kind(file.read(0, &buffer, 0, 1)),
        ErrorKind::InvalidArgument
    );
    let transfer = Transfer {
        operation: Operation::Read,
        file,
        file_offset: 0,
        buffer: alloc(&one, 4096),
        buffer_offset: 0,
        size: 1,
    };
    assert_eq!(
        kind(two.submit(vec![transfer], &Options::default())),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(two.submit(vec![], &Options::default())),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn buffers_of_no_or_absurd_size_and_foreign_pointers() {
    use gds_rs::device::MemoryKind;
    let context = context();
    assert_eq!(
        kind(context.alloc(MemoryKind::Device, 0)),
        ErrorKind::InvalidArgument
    );
    let huge = context.alloc(MemoryKind::Device, 1 << 60);
    assert_eq!(kind(huge), ErrorKind::OutOfDeviceMemory);
    assert_eq!(
        kind(context.alloc(MemoryKind::Pinned, 1 << 60)),
        ErrorKind::OutOfHostMemory
    );
    assert_eq!(
        kind(context.alloc(MemoryKind::Pageable, 1)),
        ErrorKind::InvalidArgument
    );
    // SAFETY: none of these can become a buffer.
    unsafe {
        assert_eq!(kind(context.wrap(0, 1)), ErrorKind::InvalidArgument);
        assert_eq!(
            kind(context.wrap(1 << 40, u64::MAX)),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            kind(context.wrap(u64::MAX - 10, 100)),
            ErrorKind::OutOfRange
        );
        assert_eq!(
            kind(context.wrap(0x10_0000, 4096)),
            ErrorKind::InvalidPointer
        );
    }
    let own = alloc(&context, 4096);
    // SAFETY: the memory is ours and outlives the buffer.
    let whole = unsafe { context.wrap(own.address(), 4096) };
    assert!(whole.is_ok());
    // SAFETY: refused, because the allocation is smaller.
    let more = unsafe { context.wrap(own.address(), 1 << 30) };
    assert_eq!(kind(more), ErrorKind::InvalidPointer);
}

#[test]
fn a_freed_pointer_is_refused() {
    let context = context();
    // Far from where the kernel puts mappings by itself: another test must not get the address.
    let far = 0x2000_0000_0000usize as *mut libc::c_void;
    // SAFETY: a fresh private mapping of one page, unmapped before it is offered.
    let gone = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let at = libc::mmap(far, 4096, libc::PROT_READ, flags, -1, 0);
        assert_eq!(at, far, "the address was free");
        libc::munmap(at, 4096);
        at as u64
    };
    // SAFETY: refused before it is used.
    let error = unsafe { context.wrap(gone, 4096) }.expect_err("unmapped");
    assert_eq!(error.kind(), ErrorKind::InvalidPointer);
    assert!(error.message().contains("freed"), "{error}");
}

#[test]
fn a_demanded_path_that_is_not_there_falls_back_or_says_why() {
    let context = context();
    let proc_file = open(&context, std::path::Path::new("/proc/self/status"));
    let buffer = alloc(&context, 1 << 20);
    let forbid = |path| Options {
        path: Some(path),
        fallback: Some(false),
        ..Options::default()
    };
    let error = proc_file.read_with(0, &buffer, 0, 4096, &forbid(PathPolicy::Direct));
    assert_eq!(kind(error), ErrorKind::FallbackForbidden);
    let folder = Folder::new();
    let (path, data) = folder.file("f", 2 << 20);
    let file = open(&context, &path);
    let error = file
        .read_with(0, &buffer, 0, 4096, &forbid(PathPolicy::CuFile))
        .expect_err("no cuFile on the host device");
    assert_eq!(error.kind(), ErrorKind::FallbackForbidden);
    assert!(
        error.message().contains("cuFile cannot be used here"),
        "{error}"
    );
    let options = Options {
        path: Some(PathPolicy::CuFile),
        ..Options::default()
    };
    let done = file
        .read_with(0, &buffer, 0, 1 << 20, &options)
        .expect("falls back");
    assert_eq!((done.bytes, done.fallbacks), (1 << 20, 1));
    assert!(bytes(&buffer)[..] == data[..1 << 20]);
}

#[test]
fn a_proc_file_is_read_though_it_has_no_size() {
    let context = context();
    let file = open(&context, std::path::Path::new("/proc/self/status"));
    for size in [16u64 << 10, 1 << 20] {
        let buffer = alloc(&context, size);
        let done = file.read(0, &buffer, 0, size).expect("read");
        assert!(done.bytes > 100 && done.bytes < size);
        assert!(bytes(&buffer).starts_with(b"Name:"));
    }
}

#[test]
fn a_wrong_configuration_opens_nothing() {
    let config = gds_rs::Config {
        buffer_size: 3,
        ..small_config()
    };
    let error = gds_rs::engine::Context::open(config).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn an_explanation_follows_the_configured_path() {
    let folder = Folder::new();
    let (path, _) = folder.file("x", 1 << 20);
    let explain = |policy| {
        let config = gds_rs::Config {
            path: policy,
            ..small_config()
        };
        let context = gds_rs::engine::Context::open(config).expect("a host context opens");
        let direct = open(&context, &path).capabilities().direct_offset_alignment > 0;
        (context.explain(&path).expect("explained"), direct)
    };
    let (auto, _) = explain(PathPolicy::Auto);
    assert_eq!(auto.path.name(), "host", "the file was just written");
    assert!(auto.to_string().contains("is in the page cache"), "{auto}");
    let (demanded, direct) = explain(PathPolicy::Direct);
    if direct {
        assert_eq!(demanded.path.name(), "host-direct");
        assert!(
            demanded.to_string().contains("asks for direct I/O"),
            "{demanded}"
        );
    }
}
