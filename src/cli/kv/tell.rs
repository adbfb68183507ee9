//! `gds kv stats` and `gds kv verify`: what a store says of itself, and whether it is so.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::Global;
use super::super::output::{Outcome, bytes_text, gigabytes_per_second, say, say_json, time_text};
use super::{hex, named, open};
use crate::error::{Error, ErrorKind};
use crate::kv::store::{KvStats, Store};
use crate::metrics::Latency;

/// Problems that are printed.
const SHOWN: usize = 20;

pub(super) fn stats(global: &Global, path: &Path) -> Outcome {
    let began = Instant::now();
    let store = open(path)?;
    let seconds = began.elapsed().as_secs_f64();
    let stats = store.stats();
    if global.json {
        let mut object = stats_json(&stats);
        object["store"] = path.to_string_lossy().into();
        object["uuid"] = hex(&store.uuid()).into();
        object["open_seconds"] = seconds.into();
        return say_json(&object);
    }
    let config = store.config();
    let used = stats.segments - stats.segments_free;
    say(format_args!(
        "{}, uuid {}",
        path.display(),
        hex(&store.uuid())
    ))?;
    say(format_args!(
        "  keys      {}, {} alive, {} of memory for keys and references",
        stats.keys,
        bytes_text(stats.live_bytes),
        bytes_text(stats.index_bytes)
    ))?;
    say(format_args!(
        "  space     {}: {used} of {} segments of {} in use, {} of them for the index",
        bytes_text(stats.size_bytes),
        stats.segments,
        bytes_text(stats.segment_bytes),
        stats.segments_meta
    ))?;
    say(format_args!(
        "  log       {} of {} in use, {} records so far",
        bytes_text(stats.wal_used_bytes),
        bytes_text(stats.wal_ring_bytes),
        stats.durable_lsn
    ))?;
    say(format_args!(
        "  limits    keys up to {} bytes, values up to {} in the log",
        store.key_max(),
        bytes_text(config.inline_max as u64)
    ))?;
    say(format_args!(
        "  opening   {} in {} reads of the disk, {}",
        bytes_text(stats.read_bytes),
        stats.reads,
        time_text((seconds * 1e9) as u64)
    ))
}

fn latency_json(latency: &Latency) -> Value {
    json!({
        "mean": latency.mean_ns,
        "p50": latency.p50_ns,
        "p99": latency.p99_ns,
        "p99.9": latency.p999_ns,
        "max": latency.max_ns,
    })
}

/// Every number that a store has of itself; times in nanoseconds.
pub(super) fn stats_json(stats: &KvStats) -> Value {
    /// Numbers by the names of their fields.
    macro_rules! numbers {
        ($($field:ident)*) => {
            Value::Object(
                [$((stringify!($field).to_owned(), json!(stats.$field))),*]
                    .into_iter()
                    .collect(),
            )
        };
    }
    let mut object = numbers!(
        keys index_bytes memtable_bytes snapshots durable_lsn appended_lsn segment_bytes segments
        segments_free segments_meta live_bytes size_bytes pins user_bytes written_bytes
        write_amplification read_bytes reads writes durable_writes flushes checkpoints gc_rounds
        gc_bytes cache_hits cache_misses cache_bytes vectored_reads vectored_writes
        coalesced_writes io_uring_ops hardware_crc_ops total_iops iops peak_iops
        wal_vectored_writes wal_hardware_crc_ops batched_checksums wal_records wal_commits
        wal_batches wal_commits_per_batch_max wal_stalls wal_used_bytes wal_ring_bytes elapsed_ns
        poisoned
    );
    object["latency_ns"] = json!({
        "read": latency_json(&stats.read_latency),
        "write": latency_json(&stats.write_latency),
        "durable_write": latency_json(&stats.durable_latency),
        "flush": latency_json(&stats.flush_latency),
        "wal_sync": latency_json(&stats.wal_sync_latency),
        "get": latency_json(&stats.get_latency),
        "put": latency_json(&stats.put_latency),
        "put_async": latency_json(&stats.put_async_latency),
    });
    object["last_error"] = match &stats.last_error {
        Some(error) => error.message().into(),
        None => Value::Null,
    };
    object
}

pub(super) fn verify(global: &Global, path: &Path) -> Outcome {
    let store: Store = open(path)?;
    let began = Instant::now();
    let report = store.verify()?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(report.bytes, seconds);
    let shown = report.first.iter().take(SHOWN);
    if global.json {
        let problems = shown.map(|problem| {
            json!({
                "key_hex": hex(&problem.key),
                "key": problem.key.escape_ascii().to_string(),
                "error": problem.error.message(),
                "offset": problem.error.offset(),
            })
        });
        say_json(&json!({
            "keys": report.keys,
            "bytes": report.bytes,
            "problems": report.problems,
            "first_problems": problems.collect::<Vec<_>>(),
            "seconds": seconds,
            "gb_per_second": rate,
        }))?;
    } else {
        for problem in shown {
            let whose = match problem.key.is_empty() {
                true => "the store".to_owned(),
                false => format!("'{}'", problem.key.escape_ascii()),
            };
            say(format_args!(
                "{whose}: {}",
                problem.error.message().replace('\n', " ")
            ))?;
        }
        say(format_args!(
            "{} values, {} read and compared in {seconds:.3} s, {rate:.2} GB/s: {}",
            report.keys,
            bytes_text(report.bytes),
            if report.is_clean() {
                "all is well"
            } else {
                "damaged"
            }
        ))?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let message = format!(
        "verify {}: {} problems; values that cannot be read are lost, all others can be copied \
         into a new store",
        path.display(),
        report.problems
    );
    Err(Error::new(ErrorKind::Corrupted, message).into())
}

pub(super) fn repair(global: &Global, path: &Path) -> Outcome {
    let report = Store::repair(path).map_err(|e| named(path, &e))?;
    let lost = report.lost.len();
    let shown = report.lost.iter().take(SHOWN);
    let uncertain = report.uncertain_keys.iter().take(SHOWN);
    if global.json {
        let problems = shown.map(|problem| {
            json!({
                "key_hex": hex(&problem.key),
                "key": problem.key.escape_ascii().to_string(),
                "error": problem.error.message(),
            })
        });
        return say_json(&json!({
            "was_clean": report.was_clean,
            "rebuilt": report.rebuilt,
            "reason": report.reason.as_ref().map(Error::message),
            "keys": report.keys,
            "lost": lost,
            "first_lost": problems.collect::<Vec<_>>(),
            "from_summaries": report.from_summaries,
            "uncertain": report.uncertain,
            "first_uncertain": uncertain.map(|key| key.escape_ascii().to_string())
                .collect::<Vec<_>>(),
        }));
    }
    if report.was_clean {
        return say(format_args!(
            "{}: nothing to repair, {} keys",
            path.display(),
            report.keys
        ));
    }
    if let Some(reason) = &report.reason {
        say(format_args!("it could not be opened: {}", reason.message()))?;
    }
    for problem in shown {
        let key = problem.key.escape_ascii();
        say(format_args!(
            "lost: '{key}': {}",
            problem.error.message().replace('\n', " ")
        ))?;
    }
    for key in uncertain {
        let key = key.escape_ascii();
        say(format_args!("uncertain: '{key}' may have been deleted"))?;
    }
    say(format_args!(
        "{}: {}, {} keys, {lost} lost, {} uncertain",
        path.display(),
        if report.rebuilt {
            "the index was rebuilt"
        } else {
            "damaged values were dropped"
        },
        report.keys,
        report.uncertain
    ))
}
