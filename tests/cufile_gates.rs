//! What would make cuFile hang, abort or refuse is seen beforehand and named with its fix.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use gds_rs::io::cufile::{Gate, Roots, gates};
use gds_rs::io::{Capabilities, FileKind};

/// A machine made of files.
struct Machine {
    root: PathBuf,
}

impl Machine {
    /// Modules, a plain kernel, ext4 on 254:0 with its record: every gate passes.
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("gates-{}-{number}", std::process::id()));
        let machine = Self { root };
        machine.put("proc/modules", "");
        machine.put(
            "proc/version",
            "Linux version 6.1.0-18-amd64 (debian) #1 SMP\n",
        );
        machine.put("proc/self/mountinfo", MOUNTS);
        machine.put(
            RECORD,
            "S:disk/by-id/x\nE:ID_FS_USAGE=filesystem\nE:ID_FS_TYPE=ext4\n",
        );
        machine
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.root.join(name)).expect("it was there");
    }

    fn roots(&self) -> Roots {
        Roots {
            proc: self.root.join("proc"),
            run: self.root.join("run"),
            sys: self.root.join("sys"),
        }
    }

    fn gate(&self, name: &str, capabilities: &Capabilities) -> Gate {
        let mut all = self.roots().fatal(1180);
        all.extend(self.roots().file(capabilities));
        all.into_iter()
            .find(|gate| gate.name == name)
            .expect("a gate of that name")
    }

    fn fails(&self, name: &str, capabilities: &Capabilities, detail: &str, fix: &str) {
        let gate = self.gate(name, capabilities);
        assert!(!gate.passed, "{gate:?}");
        assert!(
            gate.detail.contains(detail),
            "{gate:?} must tell {detail:?}"
        );
        assert!(gate.fix.contains(fix), "{gate:?} must advise {fix:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.root);
    }
}

const RECORD: &str = "run/udev/data/b254:0";
const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 254:16 / /data rw - xfs /dev/vdb rw
";

fn capabilities(file_system: &'static str, device_major: u32, device_minor: u32) -> Capabilities {
    Capabilities {
        kind: FileKind::Regular,
        direct_offset_alignment: 512,
        direct_memory_alignment: 512,
        direct_reason: None,
        block_size: 4096,
        device_major,
        device_minor,
        file_system,
        sized: true,
    }
}

fn ext4() -> Capabilities {
    capabilities("ext4", 254, 0)
}

#[test]
fn a_machine_with_everything_passes() {
    let machine = Machine::new();
    for gate in machine
        .roots()
        .fatal(1180)
        .into_iter()
        .chain(machine.roots().file(&ext4()))
    {
        assert!(gate.passed && gate.fix.is_empty(), "{gate:?}");
    }
}

#[test]
fn a_missing_modules_file_is_fatal_from_1_16_on() {
    let machine = Machine::new();
    machine.remove("proc/modules");
    machine.fails("modules", &ext4(), "loop for ever", "GDS_CUFILE_LIBRARY");
    for (version, passes) in [
        (1110, true),
        (1150, true),
        (1160, false),
        (1200, false),
        (0, false),
    ] {
        let gates = machine.roots().fatal(version);
        let gate = gates
            .iter()
            .find(|gate| gate.name == "modules")
            .expect("the gate");
        assert_eq!(gate.passed, passes, "version {version}: {gate:?}");
    }
}

#[test]
fn a_missing_record_is_named_with_the_lines_to_write() {
    let machine = Machine::new();
    machine.remove(RECORD);
    machine.fails(
        "udev",
        &ext4(),
        RECORD,
        "E:ID_FS_USAGE=filesystem and E:ID_FS_TYPE=ext4",
    );
}

#[test]
fn half_a_record_fails_and_the_lacking_half_is_named() {
    let machine = Machine::new();
    machine.put(RECORD, "E:ID_FS_TYPE=ext4\n");
    machine.fails(
        "udev",
        &ext4(),
        "b254:0 has no ID_FS_USAGE:",
        "E:ID_FS_USAGE=filesystem",
    );
    machine.put(RECORD, "E:ID_FS_USAGE=filesystem\n");
    machine.fails(
        "udev",
        &ext4(),
        "b254:0 has no ID_FS_TYPE:",
        "E:ID_FS_TYPE=ext4",
    );
    machine.put(RECORD, "E:ID_FS_USAGE=\nE:ID_FS_TYPE=\n");
    machine.fails(
        "udev",
        &ext4(),
        "no ID_FS_USAGE and no ID_FS_TYPE",
        "udevadm trigger",
    );
    // Names that only look alike.
    machine.put(RECORD, "E:ID_FS_USAGE_ENC=filesystem\nX:ID_FS_TYPE=ext4\n");
    assert!(!machine.gate("udev", &ext4()).passed);
}

#[test]
fn the_record_is_that_of_the_files_own_device() {
    let machine = Machine::new();
    let other = capabilities("xfs", 254, 16);
    machine.fails("udev", &other, "run/udev/data/b254:16", "E:ID_FS_TYPE=xfs");
}

#[test]
fn a_file_system_without_a_device_needs_no_record() {
    let machine = Machine::new();
    machine.remove(RECORD);
    assert!(machine.gate("udev", &capabilities("tmpfs", 0, 33)).passed);
}

#[test]
fn wsl_is_seen_in_the_kernels_name() {
    let machine = Machine::new();
    machine.put(
        "proc/version",
        "Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@x)\n",
    );
    machine.fails(
        "wsl",
        &ext4(),
        "5.15.90.1-microsoft-standard-WSL2",
        "bounce",
    );
    machine.put(
        "proc/version",
        "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)\n",
    );
    machine.fails("wsl", &ext4(), "aborts", "Linux");
}

#[test]
fn ext4_must_order_its_data() {
    let machine = Machine::new();
    for (options, passes) in [
        ("rw", true),
        ("rw,errors=remount-ro,data=ordered", true),
        ("rw,data=writeback", false),
        ("rw,data=journal", false),
    ] {
        let mounts = MOUNTS.replace("/dev/vda rw", &format!("/dev/vda {options}"));
        machine.put("proc/self/mountinfo", &mounts);
        let gate = machine.gate("ext4", &ext4());
        assert_eq!(gate.passed, passes, "{options}: {gate:?}");
        if !passes {
            assert!(gate.detail.starts_with("/ is ext4 with data="), "{gate:?}");
            assert_eq!(gate.fix, "mount / with data=ordered");
        }
        // Another file system of the same machine is not concerned.
        assert!(machine.gate("ext4", &capabilities("xfs", 254, 16)).passed);
    }
}

#[test]
fn a_file_that_the_kernel_makes_up_is_refused() {
    let machine = Machine::new();
    let proc_file = Capabilities {
        sized: false,
        ..capabilities("proc", 0, 21)
    };
    machine.fails("file", &proc_file, "proc", "buffered");
}

#[test]
fn host_memory_has_no_use_for_cufile_and_every_failure_has_a_fix() {
    let all = gates(&ext4(), false);
    let device = all
        .iter()
        .find(|gate| gate.name == "device")
        .expect("the gate");
    assert!(!device.passed && device.fix.contains("CUDA"), "{device:?}");
    // Nothing else is worth mending before it.
    assert_eq!(all[0].name, "device", "{all:?}");
    let library = all.iter().find(|gate| gate.name == "library");
    let library = library.expect("the gate");
    assert!(
        library.passed || !library.detail.contains("install"),
        "the reason does not repeat what to do: {library:?}"
    );
    assert!(
        all.iter().all(|gate| gate.passed == gate.fix.is_empty()),
        "{all:?}"
    );
    assert!(all.iter().all(|gate| !gate.detail.is_empty()), "{all:?}");
    let with_device = gates(&ext4(), true);
    assert!(
        with_device
            .iter()
            .any(|gate| gate.name == "device" && gate.passed)
    );
}

#[test]
fn direct_transfers_need_nvidia_fs_or_a_whole_peer_to_peer_set_up() {
    let machine = Machine::new();
    let (capable, why) = machine.roots().direct_capable();
    assert!(
        !capable && why.contains("nvidia-fs") && why.contains("not loaded"),
        "{why}"
    );

    let driver = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n";
    machine.put("proc/sys/kernel/osrelease", "6.12.3-cloud\n");
    machine.put("proc/driver/nvidia/version", driver);
    machine.put(
        "proc/driver/nvidia/params",
        "RegistryDwords: \"RMForceStaticBar1=1\"\n",
    );
    machine.put("sys/module/nvme_core/parameters/multipath", "N\n");
    let (capable, why) = machine.roots().direct_capable();
    assert!(capable, "{why}");

    for (file, text, lack) in [
        ("proc/sys/kernel/osrelease", "5.15.0\n", "needs 6.2"),
        (
            "proc/driver/nvidia/params",
            "RegistryDwords: \"\"\n",
            "RMForceStaticBar1",
        ),
        (
            "sys/module/nvme_core/parameters/multipath",
            "Y\n",
            "multipath",
        ),
        (
            "proc/driver/nvidia/version",
            &driver.replace("580", "550"),
            "older than 565",
        ),
        (
            "proc/driver/nvidia/version",
            &driver.replace("Open ", ""),
            "not the open one",
        ),
    ] {
        let path = machine.root.join(file);
        let before = std::fs::read_to_string(&path).expect("it is there");
        machine.put(file, text);
        let (capable, why) = machine.roots().direct_capable();
        assert!(!capable && why.contains(lack), "{file}: {why}");
        machine.put(file, &before);
    }

    machine.remove("proc/driver/nvidia/params");
    machine.put("proc/driver/nvidia-fs/version", "version: 2.25\n");
    let (capable, why) = machine.roots().direct_capable();
    assert!(capable && why.contains("version: 2.25"), "{why}");
}
