//! Compressed Arrow bodies that are decompressed in device memory by the kernel, which the
//! processor runs here: the same values as the host's decoder gives, and what the kernel does not
//! do is left to the host.

#![cfg(feature = "arrow")]
#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "formats_support/arrow_drive.rs"]
mod arrow_drive;
mod common;
mod format_kernels;
mod formats_support;
mod kernel_support;
mod late_device;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use common::{Folder, open, small_config};
use formats_support::{Random, mutate, mutations, python};
use gds_rs::device::{DecompressChunk, DecompressStatus, DecompressWork};
use gds_rs::engine::{Context, MemoryKind};
use gds_rs::error::{ErrorKind, Result};
use gds_rs::formats::arrow::{ArrowPipe, ArrowReader, LoadOptions, Unpack, to_host};
use gds_rs::formats::{Batch, MemorySource};
use late_device::{Kernels, LateDevice};

type Decompress = unsafe extern "C" fn(*const DecompressWork);

static KERNEL: OnceLock<Decompress> = OnceLock::new();
static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static CHUNKS: AtomicU64 = AtomicU64::new(0);
/// Every so many chunks are not done, 0 for none.
static REFUSED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn counted(work: *const DecompressWork) {
    // SAFETY: as the caller promises to the kernel itself.
    unsafe {
        let count = (*work).count;
        LAUNCHES.fetch_add(u64::from(count > 0), Relaxed);
        CHUNKS.fetch_add(count, Relaxed);
        KERNEL.get().unwrap()(work);
        let every = REFUSED.load(Relaxed);
        let chunks = (*work).chunks as usize as *mut DecompressChunk;
        for at in (0..count).filter(|at| every > 0 && at % every == 0) {
            let chunk = &mut *chunks.add(at as usize);
            chunk.status = DecompressStatus::Unsupported as u32;
            std::ptr::write_bytes(chunk.to as usize as *mut u8, 0xEE, chunk.to_size as usize);
        }
    }
}

/// The device, for one test at a time: the counters are those of all.
fn device() -> (Context, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut kernels: Kernels = format_kernels::format_kernels();
    KERNEL.get_or_init(|| kernels.decompress);
    kernels.decompress = counted;
    REFUSED.store(0, Relaxed);
    let device = LateDevice::with_kernels(kernels);
    (device.context(small_config(), gds_rs::io::best()), guard)
}

/// Launches and chunks of what `work` does.
fn count<T>(work: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = (LAUNCHES.load(Relaxed), CHUNKS.load(Relaxed));
    let done = work();
    let (launches, chunks) = (LAUNCHES.load(Relaxed), CHUNKS.load(Relaxed));
    (done, launches - before.0, chunks - before.1)
}

/// Numbers, texts with nulls that pass a block of 64 KiB, a dictionary and lists.
fn record_batch(from: i64, rows: i64) -> RecordBatch {
    let all = from..from + rows;
    let texts = all
        .clone()
        .map(|i| (i % 3 != 0).then(|| format!("text {} of many", i % 1000)));
    let words = all
        .clone()
        .map(|i| ["red", "green", "blue"][i as usize % 3]);
    let lists = all
        .clone()
        .map(|i| (i % 7 != 0).then(|| (0..i as i32 % 4).map(Some)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("numbers", Arc::new(Int64Array::from_iter_values(all))),
        ("texts", Arc::new(StringArray::from_iter(texts))),
        (
            "words",
            Arc::new(words.collect::<DictionaryArray<Int32Type>>()),
        ),
        (
            "lists",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn options(codec: CompressionType) -> IpcWriteOptions {
    let plain = IpcWriteOptions::default();
    plain.try_with_compression(Some(codec)).unwrap()
}

fn file_of(batches: &[RecordBatch], codec: CompressionType) -> Vec<u8> {
    let schema = batches[0].schema();
    let file = FileWriter::try_new_with_options(Vec::new(), &schema, options(codec));
    let mut file = file.unwrap();
    batches.iter().for_each(|batch| file.write(batch).unwrap());
    file.into_inner().unwrap()
}

fn stream_of(batches: &[RecordBatch], codec: CompressionType) -> Vec<u8> {
    let schema = batches[0].schema();
    let stream = StreamWriter::try_new_with_options(Vec::new(), &schema, options(codec));
    let mut stream = stream.unwrap();
    for batch in batches {
        stream.write(batch).unwrap();
    }
    stream.into_inner().unwrap()
}

fn on(unpack: Unpack) -> LoadOptions {
    LoadOptions {
        unpack,
        ..LoadOptions::default()
    }
}

fn of_bytes(bytes: Vec<u8>) -> ArrowReader {
    ArrowReader::from_source(Arc::new(MemorySource::new(bytes, "bytes"))).unwrap()
}

fn load(context: &Context, reader: &ArrowReader, load: &LoadOptions) -> Result<Vec<Batch>> {
    let columns: Vec<usize> = (0..reader.schema().fields().len()).collect();
    let all = 0..reader.batch_count();
    reader.load(context, &columns, all, load)?.collect()
}

fn same(context: &Context, ours: &Batch, theirs: &RecordBatch) {
    for (ours, theirs) in ours.columns.iter().zip(theirs.columns()) {
        let ours = arrow_array::make_array(to_host(context, ours).unwrap());
        assert_eq!(&ours, theirs);
    }
}

#[test]
fn frames_of_files_go_to_the_device_as_they_are_and_come_out_there() {
    let ((context, _one), folder) = (device(), Folder::new());
    let written: Vec<_> = (0..5).map(|n| record_batch(n * 9000, 9000)).collect();
    let codec = CompressionType::LZ4_FRAME;
    let forms = [
        ("file", file_of(&written, codec)),
        ("stream", stream_of(&written, codec)),
    ];
    for (name, data) in forms {
        let path = folder.path(name);
        std::fs::write(&path, &data).unwrap();
        let reader = ArrowReader::open(&open(&context, &path)).unwrap();
        let before = context.metrics().read.bytes;
        let done = count(|| load(&context, &reader, &on(Unpack::Device)).unwrap());
        let read = context.metrics().read.bytes - before;
        let (batches, launches, chunks) = done;
        for (ours, theirs) in batches.iter().zip(&written) {
            same(&context, ours, theirs);
        }
        assert_eq!(batches.len(), 5);
        // Three that are on their way are one launch, two are another, and the dictionaries.
        assert!(
            launches <= 2 + reader.dictionary_count() as u64,
            "{launches} launches"
        );
        assert!(chunks >= 5 * 7, "{chunks} chunks");
        // By the engine, once.
        assert!(
            read > 0 && read <= data.len() as u64,
            "{read} of {}",
            data.len()
        );
        let done = count(|| load(&context, &reader, &on(Unpack::Host)).unwrap());
        assert_eq!((done.1, done.2), (0, 0), "told not to");
        assert_eq!(
            format!("{:?}", done.0[4].schema),
            format!("{:?}", batches[4].schema)
        );
    }
}

#[test]
fn sources_without_a_file_pipes_and_memory_of_the_caller_do_the_same() {
    let (context, _one) = device();
    let written = [record_batch(0, 5000), record_batch(9, 5000)];
    let data = stream_of(&written, CompressionType::LZ4_FRAME);
    let reader = of_bytes(data.clone());
    let (batches, _, chunks) = count(|| load(&context, &reader, &on(Unpack::Device)).unwrap());
    assert!(chunks > 10);
    batches
        .iter()
        .zip(&written)
        .for_each(|(a, b)| same(&context, a, b));

    let from = std::io::Cursor::new(data);
    let mut pipe = ArrowPipe::open(&context, from, "a pipe", &on(Unpack::Device)).unwrap();
    for theirs in &written {
        let (batch, launches, chunks) = count(|| pipe.next_batch().unwrap().unwrap());
        assert!(launches > 0 && chunks > 5);
        same(&context, &batch, theirs);
    }

    let plan = reader.plan(1, &[0, 1, 2, 3]).unwrap();
    let buffer = context
        .alloc(MemoryKind::Device, plan.size() + 128)
        .unwrap();
    let how = on(Unpack::Device);
    let place = |plan| reader.batch_in(plan, &[0, 1, 2, 3], &buffer, 128, &how);
    let (batch, launches, _) = count(|| place(&plan).unwrap());
    assert!(launches > 0);
    same(&context, &batch, &written[1]);
}

#[test]
fn what_the_kernel_does_not_do_is_done_by_the_host() {
    let (context, _one) = device();
    let written = [record_batch(0, 5000), record_batch(9, 5000)];
    let zstd = of_bytes(file_of(&written, CompressionType::ZSTD));
    let (batches, launches, _) = count(|| load(&context, &zstd, &on(Unpack::Device)).unwrap());
    assert_eq!(launches, 0, "there is no kernel for it");
    batches
        .iter()
        .zip(&written)
        .for_each(|(a, b)| same(&context, a, b));
    let lz4 = of_bytes(file_of(&written, CompressionType::LZ4_FRAME));
    for every in [1, 3] {
        REFUSED.store(every, Relaxed);
        let (batches, _, chunks) = count(|| load(&context, &lz4, &on(Unpack::Device)).unwrap());
        assert!(chunks > 10);
        batches
            .iter()
            .zip(&written)
            .for_each(|(a, b)| same(&context, a, b));
    }
}

#[test]
fn few_buffers_are_for_the_host_and_many_for_the_device() {
    let (context, _one) = device();
    let few = of_bytes(file_of(
        &[record_batch(0, 2000)],
        CompressionType::LZ4_FRAME,
    ));
    let (batches, launches, _) = count(|| load(&context, &few, &LoadOptions::default()).unwrap());
    assert_eq!((batches.len(), launches), (1, 0));
    let written: Vec<_> = (0..600).map(|n| record_batch(n * 100, 100)).collect();
    let numbers: Vec<_> = written.iter().map(|b| b.project(&[0]).unwrap()).collect();
    let many = of_bytes(file_of(&numbers, CompressionType::LZ4_FRAME));
    let ahead = LoadOptions {
        ahead: 599,
        ..LoadOptions::default()
    };
    let (batches, launches, chunks) = count(|| load(&context, &many, &ahead).unwrap());
    assert_eq!((launches, chunks), (1, 600), "all of them at once");
    batches
        .iter()
        .zip(&numbers)
        .for_each(|(a, b)| same(&context, a, b));
}

#[test]
fn damage_is_told_with_its_place() {
    let (context, _one) = device();
    let numbers = record_batch(0, 8000).project(&[0]).unwrap();
    let data = file_of(&[numbers], CompressionType::LZ4_FRAME);
    let magic = 0x184D_2204_u32.to_le_bytes();
    let frame = data.windows(4).position(|four| four == magic).unwrap();
    let mut found = 0;
    for at in frame..frame + 300 {
        let mut damaged = data.clone();
        damaged[at] ^= 0x10;
        let reader = of_bytes(damaged);
        match load(&context, &reader, &on(Unpack::Device)) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                assert_eq!(error.offset(), Some(frame as u64), "{error}");
                found += 1;
            }
        }
    }
    assert!(found > 20, "{found} found");
}

#[test]
fn mutations_are_answered_as_on_the_host() {
    let (context, _one) = device();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arrow_ipc");
    let names = [
        "dictionaries-lz4.stream",
        "nested-lz4.stream",
        "views-lz4.stream",
    ];
    let files = names.map(|name| std::fs::read(folder.join(name)).unwrap());
    for file in &files {
        let (loaded, _, chunks) = count(|| arrow_drive::drive(&context, file));
        assert!(loaded > 0 && chunks > 0);
    }
    let mut random = Random(0xDE1CE);
    let (loaded, _, chunks) = count(|| {
        let rounds = 0..mutations() / 4;
        let one = |round: u64| {
            let file = &files[round as usize % files.len()];
            arrow_drive::drive(&context, &mutate(file, file.len(), &mut random))
        };
        rounds.map(one).sum::<usize>()
    });
    println!("{loaded} batches loaded, {chunks} chunks for the kernel");
    assert!(chunks > 100);
}

/// Files of pyarrow: what is in the corpus, and long buffers of linked blocks.
fn of_pyarrow(folder: &Folder) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let given = std::env::var_os("GDS_TEST_DATA").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let mut folders = vec![given.unwrap_or(root).join("arrow-testing/data")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("lz4")
                && name.contains("arrow-ipc-stream/integration")
                && (name.ends_with(".arrow_file") || name.ends_with(".stream"))
            {
                all.push(path);
            }
        }
    }
    if all.is_empty() {
        println!("skipped: no file of arrow-testing is there");
    }
    if let Some(python) = python("pyarrow") {
        let script = "
import sys, pyarrow as pa, pyarrow.ipc as ipc
n = 60000
table = pa.table({
    'i': pa.array([i * i % 9973 for i in range(n)], pa.int64()),
    's': pa.array([None if i % 11 == 0 else 'word %d' % (i % 777) for i in range(n)]),
    'l': pa.array([[i, i + 1] if i % 3 else None for i in range(n)], pa.list_(pa.int32())),
    'd': pa.array(['k%d' % (i % 50) for i in range(n)]).dictionary_encode(),
    'f': pa.array([i / 7 for i in range(n)], pa.float64()),
})
options = ipc.IpcWriteOptions(compression='lz4')
with ipc.new_file(sys.argv[1], table.schema, options=options) as file:
    file.write_table(table, max_chunksize=25000)
";
        let path = folder.path("pyarrow.arrow_file");
        let run = Command::new(python)
            .args(["-c", script])
            .arg(&path)
            .output();
        let run = run.unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        all.push(path);
    }
    all
}

#[test]
fn files_of_pyarrow_are_the_same_on_both_ways() {
    let ((context, _one), folder) = (device(), Folder::new());
    let (mut files, mut all) = (0, 0);
    for path in of_pyarrow(&folder) {
        let reader = ArrowReader::open(&open(&context, &path)).unwrap();
        let (ours, _, chunks) = count(|| load(&context, &reader, &on(Unpack::Device)));
        let theirs = load(&context, &reader, &on(Unpack::Host)).unwrap();
        let ours = ours.unwrap();
        assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            for (ours, theirs) in ours.columns.iter().zip(&theirs.columns) {
                let ours = to_host(&context, ours).unwrap();
                assert_eq!(
                    ours,
                    to_host(&context, theirs).unwrap(),
                    "{}",
                    path.display()
                );
            }
        }
        (files, all) = (files + 1, all + chunks);
    }
    println!("{files} files, {all} chunks by the kernel");
    assert!(files == 0 || all > 0);
}
