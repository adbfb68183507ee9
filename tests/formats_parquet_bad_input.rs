//! Bad input for the Parquet reader: the corpus of the fuzz target, cuts at every byte, and
//! mutations from a seed, of the whole file and of its footer. Each is loaded or refused with an
//! offset; no panic comes through, and memory stays below a factor.
//!
//! `GDS_FORMATS_MUTATIONS=n` mutations; it says where the decoder panicked inside.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]

mod parquet_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use gds_rs::engine::Context;
use gds_rs::formats::parquet::fuzzing::{self, MEMORY_LIMIT};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet_support::Random;

/// Counts what the process has allocated, and the most that it had.
struct CountingMemory;

static NOW: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(now, Relaxed);
}

// SAFETY: everything is the system's; only numbers are kept beside.
unsafe impl GlobalAlloc for CountingMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingMemory = CountingMemory;

/// Memory that a load may take, in limits: the decoded columns, joined, and placed.
const LIMITS: u64 = 5;
/// What gzip can make of a byte before it is refused.
const BESIDE: u64 = 8 << 20;

/// One input at a time: memory is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());
static PANICS: OnceLock<Mutex<BTreeMap<String, u64>>> = OnceLock::new();

fn panics() -> &'static Mutex<BTreeMap<String, u64>> {
    PANICS.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let place = place
                .rsplit("/src/index.crates.io-")
                .next()
                .unwrap_or(&place)
                .to_owned();
            if place.contains("tests/") {
                before(info);
                return;
            }
            let text = info.payload_as_str().unwrap_or_default();
            let text: String = text
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(80)
                .collect();
            let found = format!("{place}: {text}");
            if let Ok(mut panics) = PANICS.get_or_init(Mutex::default).lock() {
                *panics.entry(found).or_default() += 1;
            }
        }));
        Mutex::default()
    })
}

/// Loads an input; whether it was accepted.
fn run(context: &Context, input: &[u8], what: &str) -> bool {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let accepted = fuzzing::run(context, input);
    let took = (MOST.load(Relaxed) - before).max(0) as u64;
    let keep = || {
        let name = std::env::temp_dir().join("gds-bad-parquet");
        let _ = std::fs::write(&name, input);
        name.display().to_string()
    };
    let accepted = accepted.unwrap_or_else(|e| panic!("{what}: {e} (the input: {})", keep()));
    let allowed = LIMITS * MEMORY_LIMIT + BESIDE + 1032 * input.len() as u64;
    assert!(
        took < allowed,
        "{what}: {took} bytes of memory (the input: {})",
        keep()
    );
    accepted
}

fn table(rows: usize) -> RecordBatch {
    let some = |i: usize| i % 5 != 3;
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        for item in 0..row % 4 {
            lists
                .values()
                .append_option((item != 2).then(|| format!("item {}", row % 10)));
        }
        lists.append(row % 6 != 1);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "ints",
            Arc::new(Int32Array::from_iter(
                (0..rows).map(|i| some(i).then_some(i as i32)),
            )),
        ),
        (
            "longs",
            Arc::new(Int64Array::from_iter_values(
                (0..rows).map(|i| i as i64 * i as i64),
            )),
        ),
        (
            "doubles",
            Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64))),
        ),
        (
            "flags",
            Arc::new(BooleanArray::from_iter((0..rows).map(|i| Some(i % 3 == 0)))),
        ),
        (
            "texts",
            Arc::new(StringArray::from_iter(
                (0..rows).map(|i| some(i).then(|| format!("text {}", i % 20))),
            )),
        ),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter((0..rows).map(|i| [i as u8, 1, 2]))
                    .expect("values of one length"),
            ),
        ),
        ("lists", Arc::new(lists.finish())),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn written(rows: usize, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let table = table(rows);
    let properties = properties
        .set_max_row_group_row_count(Some(rows / 2 + 1))
        .set_data_page_row_count_limit(rows / 4 + 1)
        .set_write_batch_size(8)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).expect("a writer");
    writer.write(&table).expect("written");
    writer.close().expect("closed");
    bytes
}

/// Whole files, small: codecs, page versions and encodings.
fn seeds(rows: usize) -> Vec<Vec<u8>> {
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let two = WriterVersion::PARQUET_2_0;
    let zstd = Compression::ZSTD(Default::default());
    let encoded = |encoding| plain().set_encoding(encoding);
    let only = |builder: WriterPropertiesBuilder, pairs: &[(&str, Encoding)]| {
        pairs.iter().fold(builder, |b, (name, e)| {
            b.set_column_encoding((*name).into(), *e)
        })
    };
    vec![
        written(rows, WriterProperties::builder()),
        written(
            rows,
            WriterProperties::builder().set_compression(Compression::SNAPPY),
        ),
        written(
            rows,
            WriterProperties::builder()
                .set_writer_version(two)
                .set_compression(zstd),
        ),
        written(
            rows,
            plain().set_compression(Compression::GZIP(Default::default())),
        ),
        written(
            rows,
            plain().set_compression(Compression::BROTLI(Default::default())),
        ),
        written(
            rows,
            encoded(Encoding::PLAIN).set_compression(Compression::LZ4_RAW),
        ),
        written(
            rows,
            plain()
                .set_compression(Compression::LZ4)
                .set_writer_version(two),
        ),
        written(
            rows,
            only(
                plain().set_writer_version(two),
                &[
                    ("ints", Encoding::DELTA_BINARY_PACKED),
                    ("longs", Encoding::BYTE_STREAM_SPLIT),
                    ("doubles", Encoding::BYTE_STREAM_SPLIT),
                    ("texts", Encoding::DELTA_BYTE_ARRAY),
                    ("fixed", Encoding::DELTA_BYTE_ARRAY),
                    ("lists.list.item", Encoding::DELTA_LENGTH_BYTE_ARRAY),
                ],
            ),
        ),
    ]
}

/// A changed copy: bits, bytes, numbers, a cut, something put in or taken out. Changes fall into
/// the last `near` bytes.
fn mutate(bytes: &[u8], near: usize, random: &mut Random) -> Vec<u8> {
    let mut made = bytes.to_vec();
    for _ in 0..=random.below(4) {
        if made.is_empty() {
            break;
        }
        let first = made.len().saturating_sub(near);
        let at = first + random.below((made.len() - first) as u64) as usize;
        match random.below(8) {
            0 | 1 => made[at] ^= 1 << random.below(8),
            2 | 3 => made[at] = random.next() as u8,
            4 => made[at] = [0, 0x7f, 0x80, 0xff][random.below(4) as usize],
            5 => {
                let end = (at + 5).min(made.len());
                let big = [0xff, 0xff, 0xff, 0xff, 0x0f];
                made[at..end].copy_from_slice(&big[..end - at]);
            }
            6 => {
                made.insert(at, random.next() as u8);
            }
            _ => {
                made.remove(at);
            }
        }
    }
    made
}

/// The same file with the length of its footer put right, so that changes of it are seen.
fn with_footer_length(mut bytes: Vec<u8>, before: &[u8]) -> Vec<u8> {
    let (now, then) = (bytes.len(), before.len());
    let tail: [u8; 4] = before[then - 8..then - 4].try_into().expect("four bytes");
    let length = i64::from(u32::from_le_bytes(tail)) + now as i64 - then as i64;
    if now >= 8 && length > 0 {
        bytes[now - 8..now - 4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[now - 4..].copy_from_slice(b"PAR1");
    }
    bytes
}

fn mutations() -> u64 {
    let given = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn mutations_are_loaded_or_refused_within_bounds() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    panics();
    let context = fuzzing::context().expect("a context");
    let seeds = seeds(24);
    for seed in &seeds {
        assert!(run(&context, seed, "a seed"), "seeds are whole");
    }
    let mut random = Random(77);
    let (mut accepted, total) = (0, mutations());
    for number in 0..total {
        let seed = &seeds[random.below(seeds.len() as u64) as usize];
        let tail: [u8; 4] = seed[seed.len() - 8..seed.len() - 4]
            .try_into()
            .expect("four bytes");
        let footer = u32::from_le_bytes(tail) as usize + 8;
        let near = if number % 2 == 0 { footer } else { seed.len() };
        let changed = with_footer_length(mutate(seed, near, &mut random), seed);
        accepted += u64::from(run(&context, &changed, &format!("mutation {number}")));
    }
    println!("{total} mutations, {accepted} accepted");
    let panics = panics().lock().unwrap_or_else(|e| e.into_inner());
    for (place, count) in &*panics {
        println!("the decoder panicked inside {count} times at {place}");
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    panics();
    let context = fuzzing::context().expect("a context");
    let file = &seeds(6)[1];
    for size in 0..file.len() {
        assert!(
            !run(&context, &file[..size], &format!("cut at {size}")),
            "cut at {size}"
        );
        // A cut before a footer that is there.
        let mut hole = file[..size].to_vec();
        let tail: [u8; 4] = file[file.len() - 8..file.len() - 4]
            .try_into()
            .expect("four bytes");
        let footer = u32::from_le_bytes(tail) as usize + 8;
        if size + 1 < file.len() - footer {
            hole.extend_from_slice(&file[file.len() - footer..]);
            run(&context, &hole, &format!("a hole from {size} on"));
        }
    }
}

#[test]
fn the_corpus_of_the_fuzz_target_is_replayed() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    panics();
    let context = fuzzing::context().expect("a context");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/parquet");
    if std::env::var_os("GDS_BLESS").is_some() {
        std::fs::create_dir_all(&folder).expect("a folder");
        for (number, seed) in seeds(5).iter().enumerate() {
            std::fs::write(folder.join(format!("made-{number}")), seed).expect("written");
        }
    }
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is checked in") {
        let path = entry.expect("an entry").path();
        let input = std::fs::read(&path).expect("read");
        let accepted = run(&context, &input, &path.display().to_string());
        let whole = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("made"));
        assert_eq!(accepted, whole, "{}", path.display());
        count += 1;
    }
    assert!(count > 5);
}
