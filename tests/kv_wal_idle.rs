//! An idle log costs no processor time: its thread does not even wake up.

mod kv_support;

use std::time::{Duration, Instant};

use kv_support::Rig;

/// How often the log thread has gone to sleep or was put to sleep.
fn switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let status = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        (name.trim() == "gds-kv-log").then(|| std::fs::read_to_string(path.join("status")).ok())?
    });
    let lines: Vec<String> = status.collect();
    assert_eq!(lines.len(), 1, "one log thread");
    let count = |line: &str| line.split(':').nth(1)?.trim().parse::<u64>().ok();
    lines[0]
        .lines()
        .filter(|l| l.contains("ctxt_switches"))
        .filter_map(count)
        .sum()
}

#[test]
fn the_log_thread_sleeps_until_there_is_work() {
    let rig = Rig::create(64 << 10);
    rig.commit(1, &[b"x"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.wal.stats().trailers == 0 {
        assert!(Instant::now() < deadline, "no empty batch came");
        std::thread::sleep(Duration::from_millis(5));
    }
    // It may still be on its way to sleep.
    std::thread::sleep(Duration::from_millis(100));
    let before = switches();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches(), before, "it woke up without work");
    rig.commit(2, &[b"y"]);
    assert!(switches() > before, "the count counts");
}
