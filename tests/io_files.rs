//! What can be opened, what is refused and how it says so, and what is known of an open file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gds_rs::error::{Error, ErrorKind};
use gds_rs::io::posix::Posix;
use gds_rs::io::{FileDescriptors, FileKind, Io, OpenMode, residency_cachestat, residency_mincore};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = parent.join(format!("io_files_{name}_{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// The error of opening, in every mode that does not make files.
fn refused(path: &Path) -> Vec<Error> {
    let write_only = OpenMode {
        read: false,
        ..OpenMode::read_write()
    };
    [OpenMode::read_only(), OpenMode::read_write(), write_only]
        .into_iter()
        .map(|mode| FileDescriptors::open(path, mode).unwrap_err())
        .collect()
}

fn expect(path: &Path, kind: ErrorKind, word: &str) {
    for error in refused(path) {
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.path(), Some(path), "{error}");
        assert!(error.message().contains(word), "{error}");
        assert!(
            error.message().contains(&path.display().to_string()),
            "{error}"
        );
    }
}

fn inode(fd: RawFd) -> (u64, u64) {
    let link = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
    (link.dev(), link.ino())
}

fn flags(fd: RawFd, which: libc::c_int) -> libc::c_int {
    // SAFETY: plain integers.
    unsafe { libc::fcntl(fd, which) }
}

#[test]
fn what_is_not_there_is_not_found() {
    let folder = Folder::new("missing");
    expect(
        &folder.0.join("nothing"),
        ErrorKind::NotFound,
        "check the path",
    );
    let dangling = folder.0.join("dangling");
    symlink(folder.0.join("nowhere"), &dangling).unwrap();
    expect(&dangling, ErrorKind::NotFound, "check the path");
    let inside = folder.0.join("no_folder/file");
    let error = FileDescriptors::open(&inside, OpenMode::create()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("folder does not exist"), "{error}");
}

#[test]
fn what_has_no_offsets_is_refused_and_never_hangs() {
    let folder = Folder::new("kinds");
    let pipe = folder.0.join("fifo");
    fifo(&pipe);
    expect(&pipe, ErrorKind::UnsupportedFile, "FIFO");
    let socket = folder.0.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    expect(&socket, ErrorKind::UnsupportedFile, "socket");
    expect(
        Path::new("/dev/null"),
        ErrorKind::UnsupportedFile,
        "character device",
    );
    expect(&folder.0, ErrorKind::UnsupportedFile, "directory");
    let link = folder.0.join("link");
    symlink(&folder.0, &link).unwrap();
    expect(&link, ErrorKind::UnsupportedFile, "directory");
    let error = FileDescriptors::open(&folder.0, OpenMode::create()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFile, "{error}");
}

#[test]
fn modes_that_contradict_themselves_are_refused() {
    let folder = Folder::new("modes");
    let path = folder.file("a", b"kept");
    let none = OpenMode {
        read: false,
        ..OpenMode::read_only()
    };
    for mode in [
        none,
        OpenMode {
            create: true,
            ..OpenMode::read_only()
        },
        OpenMode {
            truncate: true,
            ..OpenMode::read_only()
        },
        OpenMode {
            exclusive: true,
            ..OpenMode::read_write()
        },
    ] {
        let error = FileDescriptors::open(&path, mode).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let error = FileDescriptors::open(Path::new("a\0b"), OpenMode::read_only()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
}

#[test]
fn creating_truncating_and_exclusive() {
    let folder = Folder::new("create");
    let path = folder.0.join("new");
    let exclusive = OpenMode {
        exclusive: true,
        ..OpenMode::create()
    };
    let file = FileDescriptors::open(&path, exclusive).unwrap();
    assert_eq!(file.size().unwrap(), 0);
    file.set_size(5000).unwrap();
    assert_eq!(file.size().unwrap(), 5000);
    let error = FileDescriptors::open(&path, exclusive).unwrap_err();
    assert_eq!(error.errno(), libc::EEXIST, "{error}");
    assert!(error.message().contains("exclusive"), "{error}");
    let kept = FileDescriptors::open(&path, OpenMode::create()).unwrap();
    assert_eq!(kept.size().unwrap(), 5000);
    let truncate = OpenMode {
        truncate: true,
        ..OpenMode::read_write()
    };
    let cut = FileDescriptors::open(&path, truncate).unwrap();
    assert_eq!(cut.size().unwrap(), 0);
    // Whoever had it open sees the cut, and a grown file again.
    assert_eq!(file.size().unwrap(), 0);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(77)
        .unwrap();
    assert_eq!(file.size().unwrap(), 77);
}

#[test]
fn descriptors_block_close_on_exec_and_are_one_file() {
    let folder = Folder::new("flags");
    let path = folder.file("a", &[1; 8192]);
    for mode in [
        OpenMode::read_only(),
        OpenMode::read_write(),
        OpenMode {
            read: false,
            ..OpenMode::read_write()
        },
    ] {
        let file = FileDescriptors::open(&path, mode).unwrap();
        assert_eq!((file.mode(), file.path()), (mode, path.as_path()));
        for fd in [Some(file.buffered()), file.direct()].into_iter().flatten() {
            assert_eq!(
                flags(fd, libc::F_GETFD) & libc::FD_CLOEXEC,
                libc::FD_CLOEXEC
            );
            assert_eq!(flags(fd, libc::F_GETFL) & libc::O_NONBLOCK, 0);
            assert_eq!(inode(fd), inode(file.buffered()));
        }
        assert_eq!(flags(file.buffered(), libc::F_GETFL) & libc::O_DIRECT, 0);
        let capabilities = file.capabilities();
        assert_eq!(capabilities.kind, FileKind::Regular);
        assert!(capabilities.sized);
        let device = std::fs::metadata(&path).unwrap().dev();
        let (major, minor) = (capabilities.device_major, capabilities.device_minor);
        assert_eq!((major, minor), (libc::major(device), libc::minor(device)));
        match file.direct() {
            Some(fd) => {
                assert_eq!(flags(fd, libc::F_GETFL) & libc::O_DIRECT, libc::O_DIRECT);
                assert!(capabilities.direct_offset_alignment.is_power_of_two());
                assert!(capabilities.direct_memory_alignment.is_power_of_two());
                assert_eq!(capabilities.direct_reason, None);
            }
            None => {
                assert_eq!(capabilities.direct_offset_alignment, 0);
                assert!(capabilities.direct_reason.is_some());
            }
        }
    }
}

#[test]
fn proc_and_sys_read_without_a_size() {
    for (path, name) in [
        ("/proc/self/status", "proc"),
        ("/sys/kernel/mm/hugepages", "sysfs"),
    ] {
        let mut path = PathBuf::from(path);
        if path.is_dir() {
            let Some(Ok(entry)) = std::fs::read_dir(&path).unwrap().next() else {
                continue;
            };
            path = entry.path().join("nr_hugepages");
        }
        if !path.exists() {
            println!("skipped: {} is not here", path.display());
            continue;
        }
        let file = FileDescriptors::open(&path, OpenMode::read_only()).unwrap();
        let capabilities = file.capabilities();
        assert_eq!(
            (capabilities.file_system, capabilities.sized),
            (name, false)
        );
        assert_eq!(
            (file.direct(), capabilities.direct_offset_alignment),
            (None, 0)
        );
        assert!(capabilities.direct_reason.as_ref().unwrap().contains(name));
        let mut memory = [0u8; 64];
        // SAFETY: 64 bytes are writable.
        let got = unsafe { Posix.read_at(file.buffered(), memory.as_mut_ptr(), 64, 0) };
        assert!(got > 0, "{}: {got}", path.display());
    }
}

#[test]
fn a_symbolic_link_opens_its_file() {
    let folder = Folder::new("link");
    let path = folder.file("a", b"hello");
    let link = folder.0.join("link");
    symlink(&path, &link).unwrap();
    let file = FileDescriptors::open(&link, OpenMode::read_only()).unwrap();
    assert_eq!(file.size().unwrap(), 5);
    assert_eq!(
        inode(file.buffered()).1,
        std::fs::metadata(&path).unwrap().ino()
    );
}

#[test]
fn what_may_not_be_read_is_permission_denied() {
    let folder = Folder::new("permission");
    let path = folder.file("secret", b"x");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Another user for files, on this thread alone; it takes root's override away.
    std::thread::spawn(move || {
        // SAFETY: plain integers; the thread ends here.
        unsafe { libc::setfsuid(65534) };
        expect(&path, ErrorKind::PermissionDenied, "owner and mode");
    })
    .join()
    .unwrap();
}

#[test]
fn a_descriptor_gives_its_file_without_its_flags() {
    let folder = Folder::new("from_fd");
    let path = folder.file("a", &[b'.'; 10_000]);
    let appending = File::options()
        .read(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let file = FileDescriptors::from_fd(appending.as_raw_fd()).unwrap();
    assert_eq!(file.mode(), OpenMode::read_write());
    assert_eq!(file.path(), path);
    assert_eq!(
        file.direct().is_some(),
        file.capabilities().direct_offset_alignment > 0
    );
    let own = flags(appending.as_raw_fd(), libc::F_GETFL);
    assert_eq!(
        own & libc::O_NONBLOCK,
        libc::O_NONBLOCK,
        "the caller's flags stay"
    );
    drop(appending);
    // SAFETY: 5 bytes are readable.
    let got = unsafe { Posix.write_at(file.buffered(), b"start".as_ptr(), 5, 0) };
    assert_eq!(got, 5);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((&bytes[..5], bytes.len()), (&b"start"[..], 10_000));
    let write_only = File::options().write(true).open(&path).unwrap();
    let file = FileDescriptors::from_fd(write_only.as_raw_fd()).unwrap();
    assert_eq!((file.mode().read, file.mode().write), (false, true));
    let read_only = File::open(&path).unwrap();
    let file = FileDescriptors::from_fd(read_only.as_raw_fd()).unwrap();
    assert_eq!(file.mode(), OpenMode::read_only());
    assert_eq!(file.set_size(1).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(file.reserve(0, 1).unwrap_err().kind(), ErrorKind::ReadOnly);
    std::fs::remove_file(&path).unwrap();
    let gone = FileDescriptors::from_fd(read_only.as_raw_fd()).unwrap();
    assert_eq!(
        gone.size().unwrap(),
        10_000,
        "a removed file lives while it is open"
    );
}

#[test]
fn descriptors_that_give_no_file_are_refused() {
    // The second is out of reach of open(2), whatever the other tests have open.
    for fd in [-1, 1 << 20] {
        let error = FileDescriptors::from_fd(fd).unwrap_err();
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::InvalidArgument, libc::EBADF)
        );
        assert!(
            error
                .message()
                .contains(&format!("descriptor {fd} is not open")),
            "{error}"
        );
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    let error = FileDescriptors::from_fd(reader.as_raw_fd()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFile, "{error}");
    assert!(error.message().contains("FIFO"), "{error}");
    let name_only = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open("/proc/self/exe")
        .unwrap();
    let error = FileDescriptors::from_fd(name_only.as_raw_fd()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("O_PATH"), "{error}");
}

#[test]
fn memory_files_work() {
    // SAFETY: a C string; the descriptor is owned by `file`.
    let file = unsafe {
        let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.write_all_at(b"hello", 0).unwrap();
    let descriptors = FileDescriptors::from_fd(file.as_raw_fd()).unwrap();
    assert_eq!(descriptors.size().unwrap(), 5);
    assert_eq!(descriptors.capabilities().file_system, "tmpfs");
}

#[test]
fn reserving_keeps_size_and_bytes() {
    let folder = Folder::new("reserve");
    let path = folder.file("a", b"abc");
    let file = FileDescriptors::open(&path, OpenMode::read_write()).unwrap();
    match file.reserve(0, 1 << 20) {
        Ok(()) => {
            assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::NotSupported, "{e}");
            println!("skipped: {e}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    file.reserve(u64::MAX, 0).unwrap_err();
    file.reserve(5, 0).unwrap();
    let error = file.reserve(u64::MAX - 1, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    let before = std::fs::metadata(&path).unwrap().blocks();
    let error = file.reserve(0, 1 << 60).unwrap_err();
    assert!(
        [ErrorKind::NoSpace, ErrorKind::NotSupported].contains(&error.kind()),
        "{error}"
    );
    assert_eq!(
        std::fs::metadata(&path).unwrap().blocks(),
        before,
        "it took no block"
    );
}

/// A mounted file system that goes away with the test.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let name = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string.
        unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_file_system_is_no_space_before_a_byte_moves() {
    let folder = Folder::new("full");
    let name = CString::new(folder.0.as_os_str().as_bytes()).unwrap();
    // SAFETY: C strings that live through the call.
    let rc = unsafe {
        libc::mount(
            c"none".as_ptr(),
            name.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            c"size=1m".as_ptr().cast(),
        )
    };
    if rc != 0 {
        println!(
            "skipped: mounting a tmpfs: {}",
            std::io::Error::last_os_error()
        );
        return;
    }
    let _mount = Mount(&folder.0);
    let path = folder.0.join("a");
    let file = FileDescriptors::open(&path, OpenMode::create()).unwrap();
    assert_eq!(file.capabilities().file_system, "tmpfs");
    file.reserve(0, 512 << 10).unwrap();
    let error = file.reserve(0, 2 << 20).unwrap_err();
    assert_eq!(
        (error.kind(), error.errno()),
        (ErrorKind::NoSpace, libc::ENOSPC),
        "{error}"
    );
    assert!(error.message().contains("free space"), "{error}");
    assert_eq!(error.path(), Some(path.as_path()));
    assert_eq!(file.size().unwrap(), 0);
    // What was reserved can be written although another file takes the rest.
    let _ = std::fs::write(folder.0.join("b"), vec![1; 1 << 20]);
    let bytes = vec![2u8; 512 << 10];
    // SAFETY: `bytes` is readable.
    let got = unsafe { Posix.write_at(file.buffered(), bytes.as_ptr(), bytes.len(), 0) };
    assert_eq!(got, bytes.len() as i64);
}

/// A loop device over a file, given back on drop.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Result<Self, String> {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .map_err(|e| format!("losetup: {e}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        )))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

/// /dev/zram0 with a size, given back on drop.
struct Zram;

impl Zram {
    const SIZE: &str = "/sys/block/zram0/disksize";

    fn new() -> Result<Self, String> {
        let size = std::fs::read_to_string(Self::SIZE).map_err(|e| format!("zram0: {e}"))?;
        if size.trim() != "0" {
            return Err("zram0 is in use".to_owned());
        }
        std::fs::write(Self::SIZE, "4194304").map_err(|e| format!("zram0: {e}"))?;
        Ok(Self)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/block/zram0/reset", "1");
    }
}

fn block_device_works(path: &Path, size: u64) {
    let file = FileDescriptors::open(path, OpenMode::read_write()).unwrap();
    let capabilities = file.capabilities().clone();
    assert_eq!(
        (capabilities.kind, capabilities.file_system),
        (FileKind::BlockDevice, "block")
    );
    assert!(capabilities.sized);
    let device = std::fs::metadata(path).unwrap().rdev();
    let (major, minor) = (capabilities.device_major, capabilities.device_minor);
    assert_eq!((major, minor), (libc::major(device), libc::minor(device)));
    assert_eq!(file.size().unwrap(), size);
    assert!(file.direct().is_some(), "{:?}", capabilities.direct_reason);
    assert!(capabilities.block_size.is_power_of_two() && capabilities.block_size >= 512);
    assert_eq!(
        file.set_size(1).unwrap_err().kind(),
        ErrorKind::NotSupported
    );
    file.reserve(0, size).unwrap();
    assert_eq!(
        file.reserve(1, size).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    let bytes = [0x5a; 5000];
    // SAFETY: `bytes` is readable.
    let got = unsafe { Posix.write_at(file.buffered(), bytes.as_ptr(), 5000, 4097) };
    assert_eq!(got, 5000);
    assert_eq!(Posix.sync(file.buffered()), 0);
    let mut back = vec![0u8; 8192];
    // SAFETY: `back` is writable.
    let got = unsafe { Posix.read_at(file.buffered(), back.as_mut_ptr(), 8192, 4096) };
    assert_eq!(got, 8192);
    assert!(back[1..5001] == bytes);
    let by_mincore = residency_mincore(file.buffered(), 0, size).unwrap();
    assert_eq!(by_mincore.pages, size / 4096);
    assert!(by_mincore.cached >= 2, "{by_mincore:?}");
    if let Ok(by_cachestat) = residency_cachestat(file.buffered(), 0, size) {
        assert_eq!(by_cachestat.cached, by_mincore.cached);
    }
    let same = FileDescriptors::from_fd(file.buffered()).unwrap();
    assert_eq!(
        (same.size().unwrap(), same.mode()),
        (size, OpenMode::read_write())
    );
}

#[test]
fn block_devices_have_sizes_and_direct_io() {
    const SIZE: u64 = 4 << 20;
    let folder = Folder::new("block");
    let image = folder.file("image", &vec![0; SIZE as usize]);
    match Loop::new(&image) {
        Ok(device) => block_device_works(&device.0, SIZE),
        Err(e) => println!("skipped: a loop device: {e}"),
    }
    match Zram::new() {
        Ok(_zram) => block_device_works(Path::new("/dev/zram0"), SIZE),
        Err(e) => println!("skipped: a zram device: {e}"),
    }
}
