//! What is said to nvCOMP, and what is made of its answers: a library of the test's making
//! (`tests/fixtures/fake_nvcomp.c`) that works on ordinary memory, for both interfaces that there
//! are; versions that are not known; Parquet and Arrow whose pages and bodies it decompresses.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout)]

mod format_kernels;
mod kernel_support;
mod late_device;
mod parquet_support;

use std::ffi::{CString, c_void};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use gds_rs::device::{LibraryJob, Nvcomp};
use gds_rs::engine::{
    Buffer, Compressed, Context, DecompressCodec, DecompressStatus, MemoryKind, Stream,
};
use gds_rs::error::ErrorKind;
use gds_rs::formats::MemorySource;
use gds_rs::formats::arrow::{ArrowReader, LoadOptions, Unpack, to_host};
use gds_rs::formats::parquet::{Parquet, Selection};
use late_device::LateDevice;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet_support::common::{context, small_config};
use parquet_support::record_batch;

/// One test at a time: the libraries count for all.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A build of the fixture.
fn built(name: &str, version: u32, stream: bool) -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("libnvcomp_{}_{name}.so", std::process::id()));
    let output = cc::Build::new()
        .target(&target)
        .host(&target)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler()
        .to_command()
        .arg(format!("-DFAKE_VERSION={version}"))
        .arg("-DFAKE_RUNTIME=13000")
        .arg(format!("-DFAKE_STREAM={}", i32::from(stream)))
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fake_nvcomp.c"))
        .output()
        .expect("the C compiler runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    library
}

/// What the fixture decompresses with.
extern "C" fn decode(gzip: i32, from: *const u8, size: usize, to: *mut u8, room: usize) -> i64 {
    // SAFETY: the fixture passes what it was given on.
    let (from, to) = unsafe {
        let to = std::slice::from_raw_parts_mut(to, room);
        (std::slice::from_raw_parts(from, size), to)
    };
    let mut out = Vec::new();
    let read = match gzip {
        // One member, as the real one.
        1 => flate2::read::GzDecoder::new(from).read_to_end(&mut out),
        _ => zstd::stream::read::Decoder::new(from).and_then(|mut d| d.read_to_end(&mut out)),
    };
    match read {
        Err(_) => -1,
        Ok(_) if out.len() > room => -2,
        Ok(_) => {
            to[..out.len()].copy_from_slice(&out);
            out.len() as i64
        }
    }
}

/// A library that is loaded, and its counters.
struct Fake {
    library: &'static Nvcomp,
    handle: usize,
}

impl Fake {
    fn new(name: &str, version: u32, stream: bool) -> Self {
        let path = built(name, version, stream);
        let library: &'static Nvcomp = Box::leak(Box::new(Nvcomp::open(&path).unwrap()));
        let text = CString::new(path.to_string_lossy().as_bytes()).unwrap();
        // SAFETY: a NUL-terminated path of a library without constructors.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW) } as usize;
        let fake = Self { library, handle };
        type Decode = extern "C" fn(i32, *const u8, usize, *mut u8, usize) -> i64;
        // SAFETY: the fixture's signature.
        let set: extern "C" fn(Decode) = unsafe { std::mem::transmute(fake.find("fake_decoder")) };
        set(decode);
        std::fs::remove_file(&path).ok();
        fake
    }

    fn find(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: an open library and a NUL-terminated name.
        let found = unsafe { libc::dlsym(self.handle as *mut c_void, name.as_ptr()) };
        assert!(!found.is_null());
        found
    }

    fn ask(&self, name: &str) -> u64 {
        // SAFETY: the fixture's counters take nothing and return a number.
        let f: extern "C" fn() -> u64 = unsafe { std::mem::transmute(self.find(name)) };
        f()
    }

    fn context(&self) -> Context {
        let device = LateDevice::with_library(format_kernels::format_kernels(), self.library);
        device.context(small_config(), gds_rs::io::best())
    }
}

fn fakes() -> [Fake; 2] {
    [Fake::new("five", 5100, false), Fake::new("six", 6000, true)]
}

fn sample(size: usize, seed: u64) -> Vec<u8> {
    let word = |n: usize| format!("{}-{} ", (n as u64 * seed) % 97, n % 13);
    let mut bytes: Vec<u8> = (0..size / 4 + 1)
        .flat_map(|n| word(n).into_bytes())
        .collect();
    bytes.truncate(size);
    bytes
}

fn compress(codec: DecompressCodec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        DecompressCodec::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        DecompressCodec::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        _ => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
    }
}

/// Chunks one after the other in memory of the device, and room for what comes out, 8-aligned.
fn packed(context: &Context, pieces: &[(Vec<u8>, usize)]) -> (Buffer, Buffer, Vec<(u64, u64)>) {
    let (mut bytes, mut places, mut end) = (Vec::new(), Vec::new(), 0);
    for (piece, size) in pieces {
        places.push((bytes.len() as u64, end));
        bytes.extend(piece);
        end += size.next_multiple_of(8) as u64;
    }
    let device = MemoryKind::Device;
    let from = context.alloc(device, bytes.len() as u64).unwrap();
    let to = context.alloc(device, end.max(8)).unwrap();
    context.upload(&[(&bytes, &from, 0)]).unwrap();
    (from, to, places)
}

const CODECS: [DecompressCodec; 3] = [
    DecompressCodec::Zstd,
    DecompressCodec::Gzip,
    DecompressCodec::Snappy,
];

#[test]
fn chunks_of_all_codecs_come_out_and_bad_ones_say_so() {
    let _one = alone();
    for fake in fakes() {
        let context = fake.context();
        for codec in CODECS {
            assert!(context.can_decompress(codec).unwrap(), "{codec:?}");
        }
        let (mut pieces, mut wanted) = (Vec::new(), Vec::new());
        // More than one launch takes, of chunks that begin at any address.
        for n in 0..50_000_usize {
            let bytes = sample(1 + n % 60, n as u64 | 1);
            let mut piece = compress(CODECS[n % 3], &bytes);
            let mut size = bytes.len();
            match n % 300 {
                // Damaged, too short, too long.
                90..=92 => piece.truncate(piece.len() - 2),
                120..=122 => size += 1,
                150..=152 => size -= usize::from(size > 1),
                _ => {}
            }
            pieces.push((piece, size));
            wanted.push(bytes);
        }
        let (from, to, places) = packed(&context, &pieces);
        let list: Vec<_> = (pieces.iter().zip(&places).enumerate())
            .map(|(n, ((piece, size), (at, out)))| Compressed {
                codec: CODECS[n % 3],
                from: &from,
                from_offset: *at,
                from_size: piece.len() as u64,
                to: &to,
                to_offset: *out,
                to_size: *size as u64,
            })
            .collect();
        let launches = fake.ask("fake_launches");
        let done = context.decompress(&list).unwrap();
        assert!(fake.ask("fake_launches") - launches >= 4);
        let mut out = vec![0; to.size() as usize];
        context.download(&to, 0, &mut out).unwrap();
        for (n, done) in done.iter().enumerate() {
            let (size, at) = (pieces[n].1, places[n].1 as usize);
            let is_snappy = n % 3 == 2;
            let expected: &[DecompressStatus] = match n % 300 {
                90..=92 if is_snappy => &[DecompressStatus::Truncated, DecompressStatus::TooShort],
                90..=92 => &[DecompressStatus::Refused],
                120..=122 => &[DecompressStatus::TooShort],
                150..=152 if wanted[n].len() > 1 => &[DecompressStatus::TooLong],
                _ => &[DecompressStatus::Ok],
            };
            assert!(expected.contains(&done.status), "{n}: {:?}", done.status);
            if done.status == DecompressStatus::Ok {
                assert!(out[at..at + size] == wanted[n][..], "chunk {n}");
            }
        }
    }
}

#[test]
fn outputs_that_do_not_begin_where_they_must_are_left_out() {
    let _one = alone();
    let fake = Fake::new("places", 5101, false);
    let context = fake.context();
    let bytes = sample(1000, 3);
    let piece = compress(DecompressCodec::Zstd, &bytes);
    let (from, _, _) = packed(&context, &[(piece.clone(), 8)]);
    let to = context.alloc(MemoryKind::Device, 4096).unwrap();
    let at = |to_offset, to_size| Compressed {
        codec: DecompressCodec::Zstd,
        from: &from,
        from_offset: 0,
        from_size: piece.len() as u64,
        to: &to,
        to_offset,
        to_size,
    };
    let done = context
        .decompress(&[at(3, 1000), at(1024, 1000), at(2048, 0)])
        .unwrap();
    let statuses: Vec<_> = done.iter().map(|done| done.status).collect();
    use DecompressStatus::{Ok, Unsupported};
    assert_eq!(statuses, [Unsupported, Ok, Unsupported]);
}

#[test]
fn a_library_of_another_version_is_as_good_as_none() {
    let _one = alone();
    for (name, version, stream) in [
        ("old", 4200, false),
        ("odd", 5000, false),
        ("new", 7000, true),
    ] {
        let path = built(name, version, stream);
        let error = Nvcomp::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        assert!(
            error.message().contains(&format!("version {version}")),
            "{error}"
        );
        std::fs::remove_file(path).ok();
    }
    // Of a version that should have it, without a function.
    let path = built("lacks", 6000, false);
    let error = Nvcomp::open(&path).unwrap_err();
    assert!(
        error
            .message()
            .contains("nvcompBatchedZstdDecompressGetTempSize"),
        "{error}"
    );
    std::fs::remove_file(path).ok();
    let error = Nvcomp::open(Path::new("/nowhere/libnvcomp.so.5")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.message().contains("GDS_NVCOMP_LIBRARY"), "{error}");
    let fake = Fake::new("driver", 5100, false);
    assert!(fake.library.on_driver(13_000).is_ok() && fake.library.on_driver(14_010).is_ok());
    let error = fake.library.on_driver(12_080).unwrap_err();
    assert!(error.message().contains("CUDA 13"), "{error}");
    assert!(
        fake.library.to_string().contains("nvCOMP 5.1.0, "),
        "{}",
        fake.library
    );
}

#[test]
fn without_a_library_the_device_says_so() {
    let kernels = LateDevice::with_kernels(format_kernels::format_kernels());
    let kernels = kernels.context(small_config(), gds_rs::io::best());
    for context in [kernels, context()] {
        assert!(!context.can_decompress(DecompressCodec::Zstd).unwrap());
        let memory = context.alloc(MemoryKind::Device, 64).unwrap();
        let chunk = Compressed {
            codec: DecompressCodec::Gzip,
            from: &memory,
            from_offset: 0,
            from_size: 32,
            to: &memory,
            to_offset: 32,
            to_size: 32,
        };
        let error = context.decompress(&[chunk]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
    }
}

/// NVIDIA's own answers to what needs no GPU: `GDS_TEST_NVCOMP` is the path of its libnvcomp.so.
#[test]
fn the_real_library_is_understood() {
    let Some(path) = std::env::var_os("GDS_TEST_NVCOMP") else {
        println!("skipped: GDS_TEST_NVCOMP does not say where nvCOMP is");
        return;
    };
    let library = Nvcomp::open(Path::new(&path)).unwrap();
    for codec in [DecompressCodec::Zstd, DecompressCodec::Gzip] {
        let job = LibraryJob {
            codec,
            count: 100,
            largest: 1 << 16,
            total: 100 << 16,
        };
        let needs = library.needs(&job, Stream(0)).unwrap();
        println!("{library}: {codec:?} {needs:?}");
        let aligns = [needs.from_align, needs.to_align, needs.temporary_align];
        assert!(
            aligns
                .iter()
                .all(|align| align.is_power_of_two() && *align <= 256)
        );
        assert!(needs.temporary < 1 << 30);
    }
    let error = library.needs(
        &LibraryJob {
            codec: DecompressCodec::Snappy,
            count: 1,
            largest: 1,
            total: 1,
        },
        Stream(0),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotSupported);
}

fn table(rows: i64) -> RecordBatch {
    let texts = (0..rows).map(|i| (i % 5 != 0).then(|| format!("text {}", i % 301)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("t", Arc::new(StringArray::from_iter(texts))),
        (
            "f",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|i| i as f64 / 3.0),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn pages_of_parquet_are_decompressed_by_it_and_what_it_refuses_by_the_host() {
    let _one = alone();
    for fake in fakes() {
        let (device, host) = (fake.context(), context());
        let table = table(3000);
        let codecs = [
            Compression::ZSTD(ZstdLevel::default()),
            Compression::GZIP(GzipLevel::default()),
        ];
        for codec in codecs {
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_data_page_row_count_limit(700)
                .set_write_batch_size(100)
                .build();
            let mut bytes = Vec::new();
            let mut writer =
                ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
            writer.write(&table).unwrap();
            writer.close().unwrap();
            let open = |bytes: &[u8]| {
                let source = Arc::new(MemorySource::new(bytes.to_vec(), "in memory"));
                Parquet::open_source(source, None).unwrap()
            };
            let before = fake.ask("fake_chunks");
            let batch = open(&bytes).load(&device, &Selection::default()).unwrap();
            let pages = fake.ask("fake_chunks") - before;
            // A page of gzip may have several members, which it does not take.
            let wanted = matches!(codec, Compression::ZSTD(_));
            assert_eq!(pages >= 3 * 4, wanted, "{codec}: {pages} pages");
            assert!(wanted || pages == 0, "{codec}: {pages} pages");
            assert_eq!(record_batch(&device, &batch), table);
            // Damage anywhere is answered as the host answers it.
            let (mut same, mut refused) = (0, 0);
            for at in (8..bytes.len() / 2).step_by(293) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x41;
                let load = |context: &Context| open(&damaged).load(context, &Selection::default());
                match (load(&host), load(&device)) {
                    (Ok(one), Ok(other)) => {
                        let one = record_batch(&host, &one);
                        assert_eq!(one, record_batch(&device, &other), "{codec} {at}");
                        same += 1;
                    }
                    (Err(one), Err(other)) => {
                        assert_eq!(one.kind(), other.kind(), "{codec} {at}");
                        refused += 1;
                    }
                    // Of a field of a header that only the host looks at.
                    (Err(_), Ok(other)) => assert_eq!(record_batch(&device, &other), table),
                    (Ok(_), Err(other)) => panic!("{codec} {at}: {other}"),
                }
            }
            println!("{codec}: {pages} pages, {same} the same, {refused} refused by both");
            assert!(refused > 3);
        }
    }
}

#[test]
fn bodies_of_arrow_are_decompressed_by_it() {
    let _one = alone();
    for fake in fakes() {
        let context = fake.context();
        let table = table(20_000);
        let options = IpcWriteOptions::default();
        let options = options
            .try_with_compression(Some(CompressionType::ZSTD))
            .unwrap();
        let schema = table.schema();
        let file = FileWriter::try_new_with_options(Vec::new(), &schema, options);
        let mut file = file.unwrap();
        file.write(&table).unwrap();
        let bytes = file.into_inner().unwrap();
        let reader = ArrowReader::from_source(Arc::new(MemorySource::new(bytes, "in memory")));
        let options = LoadOptions {
            unpack: Unpack::Device,
            ..LoadOptions::default()
        };
        let before = fake.ask("fake_chunks");
        let reader = reader.unwrap();
        let mut batches = reader.load(&context, &[0, 1, 2], 0..1, &options).unwrap();
        let batch = batches.next_batch().unwrap().unwrap();
        assert!(fake.ask("fake_chunks") - before >= 4);
        for (ours, theirs) in batch.columns.iter().zip(table.columns()) {
            let ours = arrow_array::make_array(to_host(&context, ours).unwrap());
            assert_eq!(&ours, theirs);
        }
    }
}
