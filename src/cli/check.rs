//! `gds check [PATH]`: what NVIDIA's gdscheck tells, and what to do about each lack.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::output::{Outcome, bytes_text, os_error, say, say_json};
use super::scratch::Scratch;
use crate::config::Config;
use crate::device::{self, DeviceInfo};
use crate::error::Error;
use crate::io::cufile::{self, Gate, Roots};
use crate::io::uring::Uring;
use crate::io::{Capabilities, FileDescriptors, OpenMode, residency_cachestat};

/// Locked memory below this may not hold the staging buffers, bytes.
const MEMLOCK_MIN: u64 = 1 << 30;
/// Fewer open files than this are soon used up by parallel readers.
const FILES_MIN: u64 = 4096;

/// Arguments of `gds check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// A file, block device or folder to look at as well
    path: Option<PathBuf>,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is there.
    Ok,
    /// It is not there; something is slower or impossible without it.
    Missing,
    /// Good to know, or could be better.
    Note,
}

/// One line of the answer.
#[derive(Debug)]
struct Item {
    group: &'static str,
    name: String,
    state: State,
    detail: String,
    fix: String,
}

/// The lines so far.
#[derive(Debug, Default)]
struct Report {
    group: &'static str,
    items: Vec<Item>,
}

impl Report {
    fn add(&mut self, name: &str, state: State, detail: impl Into<String>, fix: &str) {
        self.items.push(Item {
            group: self.group,
            name: name.to_owned(),
            state,
            // One line each, whatever a driver put into its message.
            detail: detail.into().replace(['\n', '\r'], " "),
            fix: fix.to_owned(),
        });
    }

    fn ok(&mut self, name: &str, detail: impl Into<String>) {
        self.add(name, State::Ok, detail, "");
    }

    /// What an error says is missing. A message ends with what to do, after a semicolon.
    fn missing(&mut self, name: &str, error: &Error, then: &str) {
        let (detail, fix) = match error.message().split_once("; ") {
            Some((detail, fix)) => (detail, format!("{fix}; {then}")),
            None => (error.message(), then.to_owned()),
        };
        self.add(name, State::Missing, detail, &fix);
    }

    fn gate(&mut self, gate: &Gate) {
        let state = if gate.passed {
            State::Ok
        } else {
            State::Missing
        };
        let name = match gate.name {
            "modules" => "/proc/modules, for cuFile".to_owned(),
            name => format!("{name}, for cuFile"),
        };
        self.add(&name, state, gate.detail.clone(), &gate.fix);
    }
}

pub(super) fn run(global: &Global, args: &CheckArgs) -> Outcome {
    let config = global.config()?;
    let mut report = Report::default();
    let has_cuda = devices(&mut report, &config);
    direct(&mut report);
    kernel(&mut report, &config);
    if let Some(path) = &args.path {
        file(&mut report, path, has_cuda)?;
    }
    if global.json {
        return say_json(&to_json(&report.items));
    }
    let mut group = "";
    for item in &report.items {
        if item.group != group {
            group = item.group;
            say(format_args!("{group}"))?;
        }
        let state = match item.state {
            State::Ok => "ok",
            State::Missing => "missing",
            State::Note => "note",
        };
        say(format_args!("  {state:<8}{}: {}", item.name, item.detail))?;
        if !item.fix.is_empty() {
            say(format_args!("          to do: {}", item.fix))?;
        }
    }
    Ok(())
}

/// The devices, and whether one is a GPU.
fn devices(report: &mut Report, config: &Config) -> bool {
    report.group = "Devices";
    report.ok("gds", format!("version {}", env!("CARGO_PKG_VERSION")));
    let timeout = Duration::from_millis(u64::from(config.probe_timeout_ms));
    let (devices, trouble) = device::list(timeout);
    let has_cuda = devices.iter().any(|d| d.ordinal >= 0);
    for info in &devices {
        report.ok(&device_name(info), device_text(info));
    }
    if let Some(error) = trouble {
        let then = "`nvidia-smi` must list the GPU; until then all runs on the host device";
        report.missing("CUDA", &error, then);
    }
    match read_line("/proc/driver/nvidia/version") {
        Some(line) => report.ok("NVIDIA kernel driver", line),
        None => report.add(
            "NVIDIA kernel driver",
            State::Missing,
            "not loaded (/proc/driver/nvidia/version is missing)",
            "install the driver with its open kernel modules and run `modprobe nvidia`",
        ),
    }
    for gpu in pci_gpus(Path::new("/sys/bus/pci/devices")) {
        report.ok("PCI", gpu);
    }
    let driver = devices.iter().map(|d| d.driver_version).max().unwrap_or(0);
    nvcomp(report, driver);
    has_cuda
}

/// nvCOMP, which is optional, and its CUDA beside that of the driver (0: there is none).
fn nvcomp(report: &mut Report, driver: i32) {
    match device::nvcomp::load() {
        Ok(library) => match library.on_driver(driver) {
            Ok(library) => report.ok("nvCOMP", library.to_string()),
            Err(error) => report.add("nvCOMP", State::Note, error.message(), ""),
        },
        Err(error) => report.add("nvCOMP", State::Note, error.message(), ""),
    }
}

fn device_name(info: &DeviceInfo) -> String {
    match info.ordinal {
        0.. => format!("cuda:{}", info.ordinal),
        _ => "host".to_owned(),
    }
}

fn device_text(info: &DeviceInfo) -> String {
    let memory = bytes_text(info.memory_bytes);
    if info.ordinal < 0 {
        return format!("{memory} of memory; always there");
    }
    let yes = |on: bool| if on { "yes" } else { "no" };
    format!(
        "{}, {memory}, CUDA {}.{}, compute capability {}.{}, read-only file mappings can be \
         registered: {}, streams can wait on memory: {}",
        info.name,
        info.driver_version / 1000,
        info.driver_version % 1000 / 10,
        info.compute_capability / 10,
        info.compute_capability % 10,
        yes(info.register_read_only),
        yes(info.stream_order)
    )
}

/// NVIDIA display and 3D controllers with their link.
fn pci_gpus(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut gpus: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let read = |name: &str| read_line(entry.path().join(name));
            let is_gpu = read("vendor")? == "0x10de" && read("class")?.starts_with("0x03");
            is_gpu.then(|| {
                let speed = read("current_link_speed").unwrap_or_else(|| "unknown".to_owned());
                let width = read("current_link_width").unwrap_or_else(|| "?".to_owned());
                let node = read("numa_node").unwrap_or_else(|| "?".to_owned());
                let name = entry.file_name().to_string_lossy().into_owned();
                format!("GPU at {name}, link {speed} x{width}, NUMA node {node}")
            })
        })
        .collect();
    gpus.sort();
    gpus
}

/// cuFile and the ways past host memory.
fn direct(report: &mut Report) {
    report.group = "GPUDirect Storage";
    let version = match cufile::load() {
        Ok(library) => {
            let (path, version) = (library.path().display(), library.version());
            let text = format!("{path}, version {}.{}", version / 1000, version % 1000 / 10);
            report.ok("libcufile", text);
            version
        }
        Err(error) => {
            report.missing("libcufile", &error, "optional, everything works without it");
            i32::MAX
        }
    };
    let roots = Roots::default();
    for gate in roots.fatal(version) {
        report.gate(&gate);
    }
    let configuration = std::env::var("CUFILE_ENV_PATH_JSON");
    let configuration = configuration.unwrap_or_else(|_| "/etc/cufile.json".to_owned());
    if Path::new(&configuration).exists() {
        report.ok("cuFile configuration", configuration);
    } else {
        let text = format!("{configuration} is missing, so cuFile uses its defaults");
        report.add("cuFile configuration", State::Note, text, "");
    }
    let (capable, why) = cufile::direct_capable();
    if capable {
        report.ok("disk to GPU", why);
    } else {
        let fix = "optional: load nvidia-fs (`modprobe nvidia_fs`), or set up PCI peer-to-peer \
                   DMA; without it bytes go through pinned host memory";
        report.add("disk to GPU", State::Missing, why, fix);
    }
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    if groups == 0 {
        report.ok("IOMMU", "off");
    } else {
        let fix = "for DMA between disk and GPU, boot with iommu=off or iommu=pt";
        report.add("IOMMU", State::Note, format!("on, {groups} groups"), fix);
    }
    let drives = nvme_drives(Path::new("/sys/class/nvme"));
    if drives.is_empty() {
        report.add("NVMe", State::Note, "no drive", "");
    } else {
        report.ok("NVMe", drives.join(", "));
    }
}

fn nvme_drives(root: &Path) -> Vec<String> {
    let mut drives: Vec<String> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let model = read_line(entry.path().join("model"));
            format!("{name} {}", model.unwrap_or_default())
                .trim()
                .to_owned()
        })
        .collect();
    drives.sort();
    drives
}

/// What the kernel offers and allows.
fn kernel(report: &mut Report, config: &Config) {
    report.group = "Kernel and limits";
    let release = read_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    report.ok("Linux", release);
    match Uring::probe() {
        Ok(()) => report.ok("io_uring", "usable"),
        Err(error) => report.missing(
            "io_uring",
            &error,
            "allow it (`sysctl kernel.io_uring_disabled=0`, the container's seccomp profile); \
             until then pread and pwrite are used",
        ),
    }
    let cachestat =
        fs::File::open("/proc/self/exe").map(|file| residency_cachestat(file.as_raw_fd(), 0, 4096));
    match cachestat {
        Ok(Ok(_)) => report.ok("cachestat", "usable"),
        Ok(Err(error)) => report.missing(
            "cachestat",
            &error,
            "use Linux 6.5 or later; until then the slower mincore is used",
        ),
        Err(error) => report.add("cachestat", State::Note, format!("not tried: {error}"), ""),
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limit(
        report,
        &limits,
        "Max locked memory",
        "locked memory",
        MEMLOCK_MIN,
        "ulimit -l unlimited",
    );
    limit(
        report,
        &limits,
        "Max open files",
        "open files",
        FILES_MIN,
        "ulimit -n 65536",
    );
    report.ok(
        "transfer threads",
        format!(
            "{} of {} MB each",
            config.thread_count(),
            config.buffer_size >> 20
        ),
    );
}

/// Judges one soft limit of /proc/self/limits.
fn limit(report: &mut Report, text: &str, line: &str, name: &str, least: u64, fix: &str) {
    match soft_limit(text, line) {
        Some(None) => report.ok(name, "unlimited"),
        Some(Some(value)) if value >= least => report.ok(name, value.to_string()),
        Some(Some(value)) => {
            let fix = format!("raise it: `{fix}`, or /etc/security/limits.conf");
            report.add(name, State::Note, format!("only {value}"), &fix);
        }
        None => report.add(
            name,
            State::Note,
            "unknown: /proc/self/limits does not tell",
            "",
        ),
    }
}

/// The soft limit of a line; `Some(None)` is unlimited.
fn soft_limit(text: &str, line: &str) -> Option<Option<u64>> {
    let rest = text.lines().find_map(|l| l.strip_prefix(line))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// What the file, block device or folder can do. A folder is tried with a small file, which goes.
fn file(report: &mut Report, path: &Path, has_cuda: bool) -> Outcome {
    report.group = "File";
    let is_folder = fs::metadata(path)
        .map_err(|e| os_error(&e, format!("look at {}", path.display())))?
        .is_dir();
    let scratch = if is_folder {
        Some(Scratch::in_folder(path, 64 << 10)?)
    } else {
        None
    };
    let opened = scratch.as_ref().map_or(path, Scratch::path);
    let descriptors = FileDescriptors::open(opened, OpenMode::read_only())?;
    let caps = descriptors.capabilities();
    let place = if is_folder { "folder" } else { "file" };
    report.ok(
        place,
        format!(
            "{} on {}, {}",
            path.display(),
            caps.file_system,
            block_device(caps)
        ),
    );
    match &caps.direct_reason {
        None => report.ok(
            "O_DIRECT",
            format!(
                "offsets and sizes in multiples of {}, memory of {}; everything else works too, \
                 with a copy",
                caps.direct_offset_alignment, caps.direct_memory_alignment
            ),
        ),
        Some(reason) => report.add(
            "O_DIRECT",
            State::Missing,
            reason.clone(),
            "put files on ext4 or xfs to read them past the page cache",
        ),
    }
    for gate in cufile::gates(caps, has_cuda) {
        let known = matches!(gate.name, "library" | "modules" | "wsl");
        if !known {
            report.gate(&gate);
        }
    }
    Ok(())
}

/// "block device 259:1 (Samsung SSD 990 PRO)".
fn block_device(caps: &Capabilities) -> String {
    let number = format!("{}:{}", caps.device_major, caps.device_minor);
    let folder = PathBuf::from("/sys/dev/block").join(&number);
    let name = fs::canonicalize(&folder)
        .ok()
        .and_then(|at| at.file_name().map(|n| n.to_string_lossy().into_owned()));
    // A partition's model is its disk's.
    let model = read_line(folder.join("device/model"))
        .or_else(|| read_line(folder.join("../device/model")));
    match (name, model) {
        (Some(name), Some(model)) => format!("block device {number} ({name}, {model})"),
        (Some(name), None) => format!("block device {number} ({name})"),
        _ => format!("device {number}, which is no block device of this machine"),
    }
}

fn read_line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

fn to_json(items: &[Item]) -> Value {
    let list: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({
                "group": item.group,
                "name": item.name,
                "state": match item.state {
                    State::Ok => "ok",
                    State::Missing => "missing",
                    State::Note => "note",
                },
                "detail": item.detail,
                "fix": item.fix,
            })
        })
        .collect();
    json!({ "version": env!("CARGO_PKG_VERSION"), "items": list })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_table() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n\
                    Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(text, "Max open files"), Some(Some(1024)));
        assert_eq!(soft_limit(text, "Max locked memory"), Some(None));
        assert_eq!(soft_limit(text, "Max cpu time"), None);
        let mut report = Report::default();
        limit(
            &mut report,
            text,
            "Max open files",
            "open files",
            4096,
            "ulimit -n 65536",
        );
        assert_eq!(report.items[0].state, State::Note);
        assert!(report.items[0].fix.contains("ulimit -n 65536"));
    }

    #[test]
    fn only_nvidia_gpus_are_listed() {
        let root = std::env::temp_dir().join(format!("gds-pci-{}", std::process::id()));
        for (name, vendor, class) in [
            ("0000:01:00.0", "0x10de", "0x030200"),
            ("0000:02:00.0", "0x10de", "0x040300"),
            ("0000:03:00.0", "0x8086", "0x030000"),
        ] {
            let folder = root.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.join("class"), format!("{class}\n")).unwrap();
            fs::write(folder.join("current_link_speed"), "32.0 GT/s PCIe\n").unwrap();
        }
        let gpus = pci_gpus(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(gpus.len(), 1);
        assert!(
            gpus[0].contains("0000:01:00.0") && gpus[0].contains("32.0 GT/s"),
            "{gpus:?}"
        );
    }
}
