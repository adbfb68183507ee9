//! Says which way a file's bytes would take, and why not a better one.

use std::fmt;

use super::Path;
use super::choice;
use super::file::FileInner;
use super::shared::Shared;
use crate::config::PathPolicy;
use crate::io::{cufile, residency};

/// Which way a large read of a file into device memory would take, and what stands against the
/// others.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The way of most bytes.
    pub path: Path,
    /// What was found out about the file, the device and the machine: name and value.
    pub facts: Vec<(String, String)>,
    /// Each way, best first.
    pub ways: Vec<Way>,
}

/// One way, and whether it can be used.
#[derive(Debug, Clone)]
pub struct Way {
    /// The way.
    pub path: Path,
    /// Whether this file can take it.
    pub usable: bool,
    /// Why, or why not.
    pub reason: String,
    /// What to do to make it usable; "" when nothing helps or nothing is needed.
    pub fix: String,
}

pub(super) fn explain(shared: &Shared, file: &FileInner) -> Explanation {
    let facts = facts(shared, file);
    let host = shared.device.is_host();
    let ways = vec![
        cufile_way(shared, file),
        cached_way(shared, file, host),
        direct_way(file, host),
    ];
    let policy = shared.config.path;
    let usable = |path: Path| ways.iter().any(|w| w.path == path && w.usable);
    let warm = is_warm(file);
    let (cached, direct) = if host {
        (Path::Host, Path::HostDirect)
    } else {
        (Path::PageCache, Path::Bounce)
    };
    let path = match policy {
        PathPolicy::CuFile if usable(Path::CuFile) => Path::CuFile,
        PathPolicy::Direct if usable(direct) => direct,
        PathPolicy::Buffered => cached,
        _ if warm || !usable(direct) => cached,
        _ if usable(Path::CuFile) && shared.trials.verdict(file) == Some(true) => Path::CuFile,
        _ => direct,
    };
    Explanation { path, facts, ways }
}

fn facts(shared: &Shared, file: &FileInner) -> Vec<(String, String)> {
    let caps = file.descriptors.capabilities();
    let info = shared.device.info();
    let mut facts = vec![
        (
            "file".to_owned(),
            file.descriptors.path().display().to_string(),
        ),
        (
            "size".to_owned(),
            file.descriptors
                .size()
                .map_or_else(|e| e.to_string(), bytes),
        ),
        ("file system".to_owned(), caps.file_system.to_owned()),
        (
            "block device".to_owned(),
            format!("{}:{}", caps.device_major, caps.device_minor),
        ),
        ("resident".to_owned(), resident(file)),
        ("device".to_owned(), info.name.clone()),
        (
            "Zstandard".to_owned(),
            match shared.device.library() {
                Ok(library) => format!("on the device, by {library}"),
                Err(error) => format!("on the host: {}", error.message()),
            },
        ),
        ("file I/O".to_owned(), shared.io.name().to_owned()),
        (
            "transfer threads".to_owned(),
            shared.thread_count.to_string(),
        ),
    ];
    if caps.direct_offset_alignment > 0 {
        let text = format!(
            "offsets {} bytes, memory {} bytes",
            caps.direct_offset_alignment, caps.direct_memory_alignment
        );
        facts.push(("direct I/O alignment".to_owned(), text));
    }
    facts
}

fn bytes(size: u64) -> String {
    format!("{size} bytes")
}

fn resident(file: &FileInner) -> String {
    let size = file.descriptors.size().unwrap_or(0);
    match residency(file.descriptors.buffered(), 0, size) {
        Ok(r) if r.pages > 0 => format!(
            "{} of {} pages ({} %), {} dirty",
            r.cached,
            r.pages,
            r.cached * 100 / r.pages,
            r.dirty
        ),
        Ok(_) => "nothing to hold".to_owned(),
        Err(error) => format!("unknown: {error}"),
    }
}

fn is_warm(file: &FileInner) -> bool {
    let size = file.descriptors.size().unwrap_or(0);
    size > 0 && choice::range_is_warm(file, 0, size)
}

fn cufile_way(shared: &Shared, file: &FileInner) -> Way {
    let way = |usable, reason: String, fix: String| Way {
        path: Path::CuFile,
        usable,
        reason,
        fix,
    };
    let gates = cufile::gates(file.descriptors.capabilities(), !shared.device.is_host());
    if let Some(gate) = gates.into_iter().find(|g| !g.passed) {
        return way(false, gate.detail, gate.fix);
    }
    let (direct, why) = cufile::direct_capable();
    if !direct {
        return way(
            true,
            format!("it would run in compatibility mode, a copy through host memory: {why}"),
            "load nvidia-fs or enable PCI P2PDMA to let cuFile go direct".to_owned(),
        );
    }
    match shared.trials.verdict(file) {
        Some(true) => way(
            true,
            "it was measured to be the fastest here".to_owned(),
            String::new(),
        ),
        Some(false) => way(
            true,
            "it was measured to be slower than bounce here".to_owned(),
            String::new(),
        ),
        None => way(
            true,
            "it can go direct; the first large read measures it".to_owned(),
            String::new(),
        ),
    }
}

fn cached_way(shared: &Shared, file: &FileInner, host: bool) -> Way {
    let path = if host { Path::Host } else { Path::PageCache };
    let reason = if shared.config.path == PathPolicy::Direct && file.direct().is_some() {
        "not taken: the configuration asks for direct I/O"
    } else if is_warm(file) {
        "the file is in the page cache: copying it from there is faster than the disk"
    } else {
        "taken piece by piece for what is in the page cache"
    };
    Way {
        path,
        usable: true,
        reason: reason.to_owned(),
        fix: String::new(),
    }
}

fn direct_way(file: &FileInner, host: bool) -> Way {
    let path = if host { Path::HostDirect } else { Path::Bounce };
    if file.direct().is_some() {
        let reason = if host {
            "O_DIRECT straight into aligned memory, for what is not in the page cache"
        } else {
            "O_DIRECT into pinned staging memory, for what is not in the page cache"
        };
        return Way {
            path,
            usable: true,
            reason: reason.to_owned(),
            fix: String::new(),
        };
    }
    let caps = file.descriptors.capabilities();
    let why = caps.direct_reason.clone();
    Way {
        path,
        usable: false,
        reason: why.unwrap_or_else(|| "the file refused an aligned direct request".to_owned()),
        fix: "put the file on a file system with O_DIRECT (ext4, xfs)".to_owned(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "path: {}", self.path)?;
        for (name, value) in &self.facts {
            writeln!(f, "  {name}: {value}")?;
        }
        for way in &self.ways {
            let can = if way.usable { "usable" } else { "not usable" };
            writeln!(f, "{}: {can}: {}", way.path, way.reason)?;
            if !way.fix.is_empty() {
                writeln!(f, "  to do: {}", way.fix)?;
            }
        }
        Ok(())
    }
}
