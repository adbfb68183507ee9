//! What an open file can do: its kind, its file system, and the alignment of direct I/O.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::base::limits::ALIGNMENT_MAX;

use super::OpenMode;

/// What kind of file it is. Nothing else can be opened: it has no offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device or a partition of one.
    BlockDevice,
}

/// What a file can do, looked up once when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Regular file or block device.
    pub kind: FileKind,
    /// File offsets and sizes of direct I/O are multiples of this, bytes; 0 = no direct I/O.
    pub direct_offset_alignment: u32,
    /// Memory of direct I/O is aligned to this, bytes; 0 = no direct I/O.
    pub direct_memory_alignment: u32,
    /// Why there is no direct I/O; `None` where there is.
    pub direct_reason: Option<String>,
    /// Block size of the file system, or logical sector size of the block device, bytes.
    pub block_size: u32,
    /// Major number of the device that holds the file (of the block device itself).
    pub device_major: u32,
    /// Minor number of the device that holds the file (of the block device itself).
    pub device_minor: u32,
    /// Name of the file system ("ext4", "xfs", "tmpfs", "proc", ...), "block" for a block
    /// device, "unknown" for one that is not in the table.
    pub file_system: &'static str,
    /// Whether the size is real: false for /proc, /sys and their like, where the kernel makes
    /// the text up while it is read.
    pub sized: bool,
}

/// Alignment that every file system with direct I/O accepts, where the kernel does not tell.
const ALIGNMENT_UNKNOWN: u32 = 4096;

/// `BLKSSZGET` of linux/fs.h: the logical sector size as an int.
const BLKSSZGET: libc::Ioctl = 0x1268;

/// Looks up what the file behind `buffered` can do and opens its direct descriptor where it can.
pub(super) fn look_up(
    buffered: RawFd,
    stat: &libc::stat,
    kind: FileKind,
    mode: OpenMode,
) -> (Capabilities, Option<OwnedFd>) {
    let (file_system, block_size, sized) = match kind {
        FileKind::BlockDevice => ("block", sector_size(buffered).unwrap_or(512), true),
        FileKind::Regular => file_system(buffered),
    };
    let device = match kind {
        FileKind::BlockDevice => stat.st_rdev,
        FileKind::Regular => stat.st_dev,
    };
    let mut capabilities = Capabilities {
        kind,
        direct_offset_alignment: 0,
        direct_memory_alignment: 0,
        direct_reason: None,
        block_size,
        device_major: libc::major(device),
        device_minor: libc::minor(device),
        file_system,
        sized,
    };
    match direct(buffered, &capabilities, mode) {
        Ok((fd, offset, memory)) => {
            capabilities.direct_offset_alignment = offset;
            capabilities.direct_memory_alignment = memory;
            (capabilities, Some(fd))
        }
        Err(reason) => {
            capabilities.direct_reason = Some(reason);
            (capabilities, None)
        }
    }
}

/// The direct descriptor, its offset alignment and its memory alignment; or why there is none.
fn direct(
    buffered: RawFd,
    capabilities: &Capabilities,
    mode: OpenMode,
) -> Result<(OwnedFd, u32, u32), String> {
    let name = capabilities.file_system;
    if !capabilities.sized {
        return Err(format!("{name} makes its files up while they are read"));
    }
    let fd =
        reopen(buffered, mode.access_flags() | libc::O_DIRECT).map_err(|errno| match errno {
            libc::EINVAL => format!("{name} does not take O_DIRECT"),
            libc::ENOENT => {
                "the O_DIRECT descriptor is opened through /proc, which is not mounted".to_owned()
            }
            _ => format!(
                "opening it again with O_DIRECT failed: {}",
                std::io::Error::from_raw_os_error(errno)
            ),
        })?;
    let (offset, memory) = match reported_alignment(fd.as_raw_fd()) {
        Some((0, _) | (_, 0)) => {
            return Err(format!(
                "{name} has no direct I/O for this file (statx DIOALIGN is 0)"
            ));
        }
        Some(pair) => pair,
        None if capabilities.kind == FileKind::BlockDevice => {
            (capabilities.block_size, capabilities.block_size)
        }
        None => {
            if mode.read {
                probe_read(fd.as_raw_fd()).map_err(|errno| {
                    format!(
                        "{name} opened it with O_DIRECT but failed an aligned read: {}",
                        std::io::Error::from_raw_os_error(errno)
                    )
                })?;
            }
            (ALIGNMENT_UNKNOWN, ALIGNMENT_UNKNOWN)
        }
    };
    let usable = |a: u32| a.is_power_of_two() && u64::from(a) <= ALIGNMENT_MAX;
    if !usable(offset) || !usable(memory) {
        return Err(format!(
            "{name} wants offsets aligned to {offset} and memory to {memory} bytes; \
             only powers of two up to {ALIGNMENT_MAX} are supported"
        ));
    }
    Ok((fd, offset, memory))
}

/// Opens the same file once more, whatever its name is by now. `flags` has no O_CREAT or
/// O_TRUNC: the file exists and holds data.
pub(super) fn reopen(fd: RawFd, flags: libc::c_int) -> Result<OwnedFd, i32> {
    let path = format!("/proc/self/fd/{fd}\0");
    loop {
        // SAFETY: `path` ends in NUL and lives through the call.
        let new = unsafe { libc::open(path.as_ptr().cast(), flags | libc::O_CLOEXEC) };
        if new >= 0 {
            // SAFETY: `new` was just opened and nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(new) });
        }
        let errno = errno();
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}

/// The calling thread's errno.
pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Offset and memory alignment as the kernel tells them (Linux 6.1 and later, most file
/// systems), or `None` where it does not.
fn reported_alignment(fd: RawFd) -> Option<(u32, u32)> {
    // SAFETY: statx is plain integers; all zero is a value of it.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string and `answer` is writable for the call.
    let rc = unsafe {
        libc::statx(
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut answer,
        )
    };
    (rc == 0 && answer.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some((answer.stx_dio_offset_align, answer.stx_dio_mem_align))
}

/// One aligned direct read at the start of the file. Reading nothing of an empty file counts.
fn probe_read(fd: RawFd) -> Result<(), i32> {
    #[repr(C, align(4096))]
    struct Page([u8; ALIGNMENT_UNKNOWN as usize]);
    let mut page = Page([0; ALIGNMENT_UNKNOWN as usize]);
    loop {
        // SAFETY: `page` is writable for its whole size, which is what is asked for.
        let n = unsafe { libc::pread(fd, page.0.as_mut_ptr().cast(), page.0.len(), 0) };
        if n >= 0 {
            return Ok(());
        }
        let errno = errno();
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}

/// Logical sector size of a block device, bytes.
fn sector_size(fd: RawFd) -> Option<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int.
    let rc = unsafe { libc::ioctl(fd, BLKSSZGET, &raw mut size) };
    u32::try_from(size).ok().filter(|s| rc == 0 && *s > 0)
}

/// Size of a block device, bytes, or errno.
pub(super) fn device_size(fd: RawFd) -> Result<u64, i32> {
    /// `BLKGETSIZE64` of linux/fs.h on 64-bit processors: the size in bytes as a u64.
    const BLKGETSIZE64: u32 = 0x8008_1272;
    let mut size: u64 = 0;
    // SAFETY: BLKGETSIZE64 writes one u64.
    let rc = unsafe { libc::ioctl(fd, BLKGETSIZE64 as libc::Ioctl, &raw mut size) };
    if rc == 0 { Ok(size) } else { Err(errno()) }
}

/// Name, block size in bytes, and whether sizes are real.
fn file_system(fd: RawFd) -> (&'static str, u32, bool) {
    // SAFETY: statfs is plain integers; all zero is a value of it.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `answer` is writable for the call.
    if unsafe { libc::fstatfs(fd, &raw mut answer) } != 0 {
        return ("unknown", ALIGNMENT_UNKNOWN, true);
    }
    // The magic is a 32-bit number; some C libraries store it in a signed or wider field.
    let magic = (answer.f_type as u64 & 0xffff_ffff) as u32;
    let block_size = u32::try_from(answer.f_bsize).unwrap_or(ALIGNMENT_UNKNOWN);
    let known = FILE_SYSTEMS.iter().find(|(m, ..)| *m == magic);
    known.map_or(("unknown", block_size, true), |(_, name, sized)| {
        (*name, block_size, *sized)
    })
}

/// Magic numbers of statfs(2), the names, and whether file sizes are real there.
const FILE_SYSTEMS: &[(u32, &str, bool)] = &[
    (0x0000_ef53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0x0102_1994, "tmpfs", true),
    (0x8584_58f6, "ramfs", true),
    (0x794c_7630, "overlayfs", true),
    (0x0000_6969, "nfs", true),
    (0x6573_5546, "fuse", true),
    (0x0bd0_0bd0, "lustre", true),
    (0x2fc1_2fc1, "zfs", true),
    (0xf2f5_2010, "f2fs", true),
    (0xca45_1a4e, "bcachefs", true),
    (0x4750_4653, "gpfs", true),
    (0x1983_0326, "beegfs", true),
    (0x00c3_6400, "ceph", true),
    (0x0161_1970, "gfs2", true),
    (0x7461_636f, "ocfs2", true),
    (0xff53_4d42, "cifs", true),
    (0xfe53_4d42, "smb2", true),
    (0x0102_1997, "9p", true),
    (0xe0f5_e1e2, "erofs", true),
    (0x7371_7368, "squashfs", true),
    (0x0000_9660, "iso9660", true),
    (0x1501_3346, "udf", true),
    (0x0000_4d44, "vfat", true),
    (0x2011_bab0, "exfat", true),
    (0x7366_746e, "ntfs3", true),
    (0x5346_544e, "ntfs", true),
    (0x5265_4973, "reiserfs", true),
    (0x3153_464a, "jfs", true),
    (0x0000_3434, "nilfs2", true),
    (0x5a4f_4653, "zonefs", true),
    (0x9584_58f6, "hugetlbfs", true),
    (0x0000_9fa0, "proc", false),
    (0x6265_6572, "sysfs", false),
    (0x6462_6720, "debugfs", false),
    (0x7472_6163, "tracefs", false),
    (0x7363_6673, "securityfs", false),
    (0x6265_6570, "configfs", false),
    (0x0027_e0eb, "cgroup", false),
    (0x6367_7270, "cgroup2", false),
    (0xf97c_ff8c, "selinuxfs", false),
    (0xde5e_81e4, "efivarfs", false),
    (0xcafe_4a11, "bpf", false),
    (0x6165_676c, "pstore", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_magic_once() {
        let mut magics: Vec<u32> = FILE_SYSTEMS.iter().map(|(m, ..)| *m).collect();
        magics.sort_unstable();
        let before = magics.len();
        magics.dedup();
        assert_eq!(magics.len(), before);
    }

    #[test]
    fn proc_is_named_and_has_no_sizes() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let (name, _, sized) = file_system(file.as_raw_fd());
        assert_eq!((name, sized), ("proc", false));
    }

    #[test]
    fn a_reopened_descriptor_is_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let again = std::fs::File::from(reopen(file.as_raw_fd(), libc::O_RDONLY).unwrap());
        let (a, b) = (file.metadata().unwrap(), again.metadata().unwrap());
        assert_eq!((a.dev(), a.ino()), (b.dev(), b.ino()));
    }
}
