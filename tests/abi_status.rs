//! Numbers that programs hold never change: statuses and the other enums of the header.

mod abi_common;

use std::collections::BTreeSet;
use std::ffi::CStr;

use abi_common::{header, list};
use gds_rs::ffi::status::gds_status_string;

/// Type, name and number of every enum value that the header gives, in its order.
fn enum_values() -> Vec<(String, String, i32)> {
    let header = header();
    let mut values = Vec::new();
    let mut of = None;
    for line in header.lines() {
        if let Some(name) = line
            .strip_prefix("GDS_ENUM(")
            .and_then(|l| l.split(')').next())
        {
            of = Some(name);
        } else if line == "};" {
            of = None;
        } else if let (Some(of), Some((name, number))) = (of, line.trim().split_once(" = ")) {
            let number = number
                .trim_end_matches(',')
                .parse()
                .expect("a number is written");
            values.push((of.to_owned(), name.to_owned(), number));
        }
    }
    values
}

#[test]
fn statuses_are_pinned() {
    let found: Vec<String> = enum_values()
        .iter()
        .filter(|(of, _, _)| of == "gds_status_t")
        .map(|(_, name, number)| format!("{name} {number}"))
        .collect();
    assert!(found.len() >= 35, "the header was read: {found:?}");
    assert_eq!(
        found,
        list("status_codes.txt"),
        "statuses are added, never changed"
    );
}

#[test]
fn other_enums_are_pinned() {
    let found: Vec<String> = enum_values()
        .iter()
        .filter(|(of, _, _)| of != "gds_status_t")
        .map(|(of, name, number)| format!("{of} {name} {number}"))
        .collect();
    assert_eq!(found, list("enums.txt"), "values are added, never changed");
}

#[test]
fn every_status_has_words_of_its_own_and_other_numbers_are_unknown() {
    let text = |number: i32| {
        // SAFETY: never NULL, NUL-terminated, static.
        unsafe { CStr::from_ptr(gds_status_string(number)) }
            .to_str()
            .expect("ASCII")
            .to_owned()
    };
    let known: BTreeSet<i32> = enum_values()
        .iter()
        .filter(|(of, _, _)| of == "gds_status_t")
        .map(|(_, _, number)| *number)
        .collect();
    let words: BTreeSet<String> = known.iter().map(|number| text(*number)).collect();
    assert_eq!(words.len(), known.len(), "two statuses share their words");
    assert!(
        words.iter().all(|w| !w.is_empty() && w != "unknown status"),
        "{words:?}"
    );
    for number in (-3..130).chain([i32::MIN, i32::MAX]) {
        assert_eq!(
            text(number) == "unknown status",
            !known.contains(&number),
            "{number}"
        );
    }
}
