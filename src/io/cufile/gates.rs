//! What must hold before cuFile is called, because cuFile itself would hang, abort or answer with
//! a number that names nothing.
//!
//! Everything is read from files whose folders can be replaced, so that the tests try each gate.

use std::path::{Path, PathBuf};

use crate::io::Capabilities;

use super::library;

/// From this version on the driver loops for ever when /proc/modules is missing.
const VERSION_READS_MODULES: i32 = 1160;
/// PCI peer-to-peer DMA needs at least this kernel and this open kernel driver.
const P2P_KERNEL: (u32, u32) = (6, 2);
const P2P_DRIVER: u32 = 565;

/// One thing that cuFile needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Short name: "library", "modules", "wsl", "device", "file", "udev", "ext4".
    pub name: &'static str,
    /// Whether it holds.
    pub passed: bool,
    /// What was found.
    pub detail: String,
    /// What to do; empty when it holds.
    pub fix: String,
}

impl Gate {
    fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            passed: true,
            detail: detail.into(),
            fix: String::new(),
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            passed: false,
            detail: detail.into(),
            fix: fix.into(),
        }
    }
}

/// Where the kernel and udev tell about the machine. The default is the real machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// In place of `/proc`.
    pub proc: PathBuf,
    /// In place of `/run`.
    pub run: PathBuf,
    /// In place of `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            run: "/run".into(),
            sys: "/sys".into(),
        }
    }
}

/// The gates for a file with these capabilities, in the order in which to mend them: the device
/// first, because without a CUDA device nothing else is worth mending. cuFile may be called when
/// all have passed. Loads the library (at most once), but does not open its driver.
#[must_use]
pub fn gates(capabilities: &Capabilities, device_is_cuda: bool) -> Vec<Gate> {
    let (library, version) = match library::load() {
        Ok(library) => {
            let (path, version) = (library.path().display(), library.version());
            let named = format!("{path}, version {}.{}", version / 1000, version % 1000 / 10);
            (Gate::pass("library", named), version)
        }
        Err(error) => {
            let fix = library::advice();
            // The message ends with the same advice.
            let found = error.message();
            let found = found.strip_suffix(&fix).unwrap_or(found);
            let found = found.trim_end_matches([' ', ';']);
            (Gate::fail("library", found, fix), i32::MAX)
        }
    };
    let roots = Roots::default();
    let mut gates = vec![device(device_is_cuda), library];
    gates.extend(roots.fatal(version));
    gates.extend(roots.file(capabilities));
    gates
}

/// Whether bytes can go from the disk to the GPU without passing through host memory, and why.
/// cuFile registers files and moves bytes without that too (compat mode), through host memory.
/// Calls no library.
#[must_use]
pub fn direct_capable() -> (bool, String) {
    Roots::default().direct_capable()
}

fn device(is_cuda: bool) -> Gate {
    if is_cuda {
        return Gate::pass("device", "a CUDA device");
    }
    Gate::fail(
        "device",
        "the device is host memory, which plain reads reach without cuFile",
        "open a CUDA device (gpu_device 0 or auto)",
    )
}

impl Roots {
    /// The gates whose failure makes libcufile hang or abort. `version` is `Library::version`.
    #[must_use]
    pub fn fatal(&self, version: i32) -> Vec<Gate> {
        vec![self.modules(version), self.windows()]
    }

    /// The gates of one file.
    #[must_use]
    pub fn file(&self, capabilities: &Capabilities) -> Vec<Gate> {
        vec![
            real_file(capabilities),
            self.udev(capabilities),
            self.ext4(capabilities),
        ]
    }

    fn modules(&self, version: i32) -> Gate {
        let path = self.proc.join("modules");
        // Opened rather than looked at: that is what libcufile does.
        match std::fs::File::open(&path) {
            Ok(_) => Gate::pass("modules", format!("{} can be read", path.display())),
            Err(error) if (1..VERSION_READS_MODULES).contains(&version) => Gate::pass(
                "modules",
                format!(
                    "{}: {error}, which this version does not mind",
                    path.display()
                ),
            ),
            Err(error) => Gate::fail(
                "modules",
                format!(
                    "{}: {error}: cuFile 1.16 and later loop for ever",
                    path.display()
                ),
                format!(
                    "use a kernel with CONFIG_MODULES, or set {} to a libcufile before 1.16",
                    library::LIBRARY_VARIABLE
                ),
            ),
        }
    }

    fn windows(&self) -> Gate {
        let path = self.proc.join("version");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // Microsoft's kernels name themselves "microsoft-standard-WSL2", older ones "Microsoft".
        let lower = text.to_ascii_lowercase();
        if lower.contains("microsoft") || lower.contains("wsl") {
            let kernel = text
                .split_whitespace()
                .nth(2)
                .unwrap_or("a WSL kernel")
                .to_owned();
            return Gate::fail(
                "wsl",
                format!("the kernel is {kernel}: cuFile aborts the process under WSL"),
                "run on Linux itself; under WSL the bounce path is used",
            );
        }
        Gate::pass("wsl", "not WSL")
    }

    fn udev(&self, capabilities: &Capabilities) -> Gate {
        let (major, minor) = (capabilities.device_major, capabilities.device_minor);
        if major == 0 {
            let text = format!(
                "{} has no block device, so no record",
                capabilities.file_system
            );
            return Gate::pass("udev", text);
        }
        let path = self.run.join(format!("udev/data/b{major}:{minor}"));
        let fix = |lacking: &str| {
            format!(
                "run udevd (`udevadm trigger --settle`), in a container mount /run/udev of the \
                 host; else write the missing lines into that file, as root: {lacking}"
            )
        };
        let usage = "E:ID_FS_USAGE=filesystem";
        let kind = format!("E:ID_FS_TYPE={}", capabilities.file_system);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                return Gate::fail(
                    "udev",
                    format!(
                        "{}: {error}: cuFile cannot register this file",
                        path.display()
                    ),
                    fix(&format!("{usage} and {kind}")),
                );
            }
        };
        let lacks = |key: &str| {
            !text
                .lines()
                .any(|line| line.strip_prefix(key).is_some_and(|v| !v.trim().is_empty()))
        };
        let (no_usage, no_kind) = (lacks("E:ID_FS_USAGE="), lacks("E:ID_FS_TYPE="));
        let (what, lines) = match (no_usage, no_kind) {
            (false, false) => {
                let text = format!("{} has ID_FS_USAGE and ID_FS_TYPE", path.display());
                return Gate::pass("udev", text);
            }
            (true, false) => ("ID_FS_USAGE", usage.to_owned()),
            (false, true) => ("ID_FS_TYPE", kind),
            (true, true) => (
                "ID_FS_USAGE and no ID_FS_TYPE",
                format!("{usage} and {kind}"),
            ),
        };
        Gate::fail(
            "udev",
            format!(
                "{} has no {what}: cuFile cannot register this file",
                path.display()
            ),
            fix(&lines),
        )
    }

    /// ext4 orders data before metadata unless told otherwise; recent kernels do not list that
    /// default, and cuFile then only writes "mount option not found" to its log.
    fn ext4(&self, capabilities: &Capabilities) -> Gate {
        if capabilities.file_system != "ext4" {
            return Gate::pass("ext4", format!("not ext4 but {}", capabilities.file_system));
        }
        let path = self.proc.join("self/mountinfo");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let text = format!("{}: {error}: taken as data=ordered", path.display());
                return Gate::pass("ext4", text);
            }
        };
        let device = format!(
            "{}:{}",
            capabilities.device_major, capabilities.device_minor
        );
        for line in text
            .lines()
            .filter(|line| line.split(' ').nth(2) == Some(&device))
        {
            let Some((_, rest)) = line.split_once(" - ") else {
                continue;
            };
            // File system type, source, options of the file system.
            let options = rest.split(' ').nth(2).unwrap_or_default();
            match options
                .split(',')
                .find_map(|option| option.strip_prefix("data="))
            {
                Some("ordered") => return Gate::pass("ext4", "mounted with data=ordered"),
                Some(mode) => {
                    let place = line.split(' ').nth(4).unwrap_or_default();
                    return Gate::fail(
                        "ext4",
                        format!("{place} is ext4 with data={mode}; cuFile needs data=ordered"),
                        format!("mount {place} with data=ordered"),
                    );
                }
                None => {}
            }
        }
        Gate::pass(
            "ext4",
            "no data mode is listed, which is data=ordered unless the disk says else",
        )
    }

    /// As [`direct_capable`].
    #[must_use]
    pub fn direct_capable(&self) -> (bool, String) {
        let nvfs = self.proc.join("driver/nvidia-fs/version");
        if let Ok(text) = std::fs::read_to_string(&nvfs) {
            return (true, format!("nvidia-fs is loaded ({})", text.trim()));
        }
        let lacks = self.lacks_for_p2p();
        if lacks.is_empty() {
            return (
                true,
                "no nvidia-fs, but PCI peer-to-peer DMA is set up".to_owned(),
            );
        }
        let text = format!(
            "nvidia-fs is not loaded ({} is missing), and PCI peer-to-peer DMA is not set up: {}",
            nvfs.display(),
            lacks.join("; ")
        );
        (false, text)
    }

    fn lacks_for_p2p(&self) -> Vec<String> {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut lacks = Vec::new();
        let release = read(&self.proc.join("sys/kernel/osrelease"));
        if version_pair(&release).is_none_or(|kernel| kernel < P2P_KERNEL) {
            lacks.push(format!("the kernel is {}, it needs 6.2", release.trim()));
        }
        let driver = read(&self.proc.join("driver/nvidia/version"));
        if driver.is_empty() {
            lacks.push("the NVIDIA kernel driver is not loaded".to_owned());
            return lacks;
        }
        let number = driver
            .split_whitespace()
            .find_map(|word| version_pair(word).filter(|(major, _)| *major >= 100));
        if !driver.contains("Open Kernel Module") {
            lacks.push("the NVIDIA kernel driver is not the open one".to_owned());
        }
        if number.is_none_or(|(major, _)| major < P2P_DRIVER) {
            lacks.push(format!(
                "the NVIDIA kernel driver is older than {P2P_DRIVER}"
            ));
        }
        let parameters = read(&self.proc.join("driver/nvidia/params"));
        if !parameters.contains("RMForceStaticBar1=1") {
            lacks.push(
                "the NVIDIA driver runs without NVreg_RegistryDwords=\"RMForceStaticBar1=1;\
                 RmForceDisableIomapWC=1\""
                    .to_owned(),
            );
        }
        let multipath = read(&self.sys.join("module/nvme_core/parameters/multipath"));
        if multipath.trim() == "Y" {
            lacks.push("nvme_core runs with multipath=Y".to_owned());
        }
        lacks
    }
}

fn real_file(capabilities: &Capabilities) -> Gate {
    if capabilities.sized {
        return Gate::pass("file", format!("a file on {}", capabilities.file_system));
    }
    Gate::fail(
        "file",
        format!(
            "a file of {} has no size and no blocks",
            capabilities.file_system
        ),
        "read it with the buffered path",
    )
}

/// "6.12.3-foo" as (6, 12).
fn version_pair(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
