//! Bad input for the parsers of tensors: the corpus of the fuzz targets, cuts at every byte, and
//! mutations from a seed. Each is accepted with what fits its input, or refused with an offset; no
//! panic, and no more memory than a few times the input.
//!
//! `GDS_FORMATS_MUTATIONS=n` mutations a parser.

#![allow(clippy::print_stdout)]

mod common;
mod counting_memory;
mod formats_support;

use std::path::Path;

use common::{Folder, context, open};
use counting_memory::most_of;
use formats_support::{Random, mutate, mutations};
use gds_rs::formats::fuzzing::Target;
use gds_rs::formats::tensor::Tensors;

/// Memory for each byte of the input: the copy of it, a window, and 16 for what is made of it.
const FACTOR: isize = 24;
/// Memory that a parser may take for nothing, bytes.
const BESIDE: isize = 64 << 10;

/// Runs a parser, and gives whether it accepted the input.
fn run(target: Target, input: &[u8], what: &str) -> bool {
    let (accepted, took) = most_of(|| target.run(input));
    let accepted = accepted.unwrap_or_else(|e| {
        let name = std::env::temp_dir().join(format!("gds-bad-{}", target.name()));
        let _ = std::fs::write(&name, input);
        panic!(
            "{} {what}: {e} (the input: {})",
            target.name(),
            name.display()
        )
    });
    let allowed = BESIDE + FACTOR * input.len() as isize;
    assert!(
        took < allowed,
        "{} {what}: {took} bytes of memory for {}",
        target.name(),
        input.len()
    );
    accepted
}

fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder.join(target.name()))
        .expect("the corpus is checked in")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|p| std::fs::read(p).expect("read"))
        .collect()
}

#[test]
fn the_corpus_is_accepted_and_every_cut_of_it_refused() {
    for target in Target::ALL {
        let inputs = corpus(target);
        assert!(inputs.len() > 1);
        for (number, input) in inputs.iter().enumerate() {
            let accepted = run(target, input, &format!("input {number}"));
            if !matches!(target, Target::Detect) {
                assert!(accepted, "{} input {number}", target.name());
            }
            for size in 0..input.len() {
                let accepted = run(
                    target,
                    &input[..size],
                    &format!("input {number} cut at {size}"),
                );
                // GGUF may lack the padding behind its last tensor.
                let whole = matches!(target, Target::Detect)
                    || (target == Target::Gguf && input[size..].iter().all(|b| *b == 0));
                assert!(
                    !accepted || whole,
                    "{} {number} cut at {size}",
                    target.name()
                );
            }
        }
    }
}

#[test]
fn mutations_are_accepted_or_refused_within_bounds() {
    for (seed, target) in Target::ALL.into_iter().enumerate() {
        let inputs = corpus(target);
        let mut random = Random(1000 + seed as u64);
        let mut accepted = 0;
        let count = mutations();
        for number in 0..count {
            let input = &inputs[random.below(inputs.len() as u64) as usize];
            let near = if number % 2 == 0 { 64 } else { input.len() };
            let changed = mutate(input, near, &mut random);
            accepted += u64::from(run(target, &changed, &format!("mutation {number}")));
        }
        println!("{}: {count} mutations, {accepted} accepted", target.name());
    }
}

/// Numbers and texts where the header has others: a mutation of bytes seldom finds these.
#[test]
fn json_that_is_almost_right_is_refused() {
    let inputs = corpus(Target::Safetensors);
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "-1",
        "1e9",
        "18446744073709551615",
        "18446744073709551616",
        "\\u0000",
        "__metadata__",
        "\"dtype\"",
        "F32",
        "F4",
        "9999999999",
        "[[[[[[[[",
        "{\"a\":",
        " ",
        "\u{7f}",
    ];
    let mut random = Random(77);
    for number in 0..mutations() {
        let input = &inputs[random.below(inputs.len() as u64) as usize];
        let length = u64::from_le_bytes(*input.first_chunk().expect("a length")) as usize;
        let mut text = input[8..8 + length].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(text.len() as u64 + 1) as usize;
            let more = pieces[random.below(pieces.len() as u64) as usize];
            let gone = (random.below(12) as usize).min(text.len() - at);
            text.splice(at..at + gone, more.bytes());
        }
        let mut changed = (text.len() as u64).to_le_bytes().to_vec();
        changed.extend(&text);
        changed.extend(&input[8 + length..]);
        run(Target::Safetensors, &changed, &format!("text {number}"));
    }
    let deep = |text: String| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.bytes());
        bytes
    };
    for text in [
        format!("{{\"a\":{}", "{\"b\":".repeat(50_000)),
        format!("{{\"a\":{{\"x\":{}", "[".repeat(100_000)),
        format!(
            "{{\"__metadata__\":{{{}\"\":\"\"}}}}",
            "\"\":\"\",".repeat(20_000)
        ),
        format!("{{\"a\":{{\"shape\":[{}0]}}}}", "0,".repeat(100_000)),
    ] {
        assert!(!run(Target::Safetensors, &deep(text), "deep or long"));
    }
}

/// The same through files: an error, never a panic, and the file is closed.
#[test]
fn damaged_files_answer_with_an_error() {
    let folder = Folder::new();
    let context = context();
    let mut random = Random(5);
    let path = folder.path("damaged");
    for number in 0..200 {
        let target = [Target::Safetensors, Target::Gguf][number % 2];
        let inputs = corpus(target);
        let changed = mutate(&inputs[number % inputs.len()], 100, &mut random);
        std::fs::write(&path, &changed).expect("written");
        let file = open(&context, &path);
        if let Err(error) = Tensors::open(&file) {
            assert_eq!(error.path(), Some(path.as_path()), "{error}");
        }
    }
}
