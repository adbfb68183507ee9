//! What the accesses of a file have in common, and how far ahead that is worth reading.

use gds_rs::prefetch::window::Window;
use gds_rs::prefetch::{Detector, Pattern};

const CHUNK: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// A detector that has seen reads of a page at these offsets.
fn seen(offsets: impl IntoIterator<Item = u64>) -> Detector {
    let mut detector = Detector::new(CHUNK);
    for offset in offsets {
        detector.record(offset, PAGE);
    }
    detector
}

/// Offsets without order, from splitmix64.
fn random(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|i| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z >> 24) % (1 << 20) * PAGE
    })
}

#[test]
fn fewer_than_four_accesses_are_unknown() {
    assert_eq!(seen((0..3).map(|i| i * PAGE)).pattern(), Pattern::Unknown);
    assert_eq!(
        seen((0..4).map(|i| i * PAGE)).pattern(),
        Pattern::Sequential
    );
}

#[test]
fn steps_forward_within_a_chunk_are_sequential() {
    let offsets = [0u64, 4096, 8192, 70_000, 70_001, 72_000, 100_000];
    assert_eq!(seen(offsets).pattern(), Pattern::Sequential);
}

#[test]
fn reads_longer_than_a_chunk_that_follow_each_other_are_sequential() {
    let mut detector = Detector::new(CHUNK);
    for i in 0..6 {
        detector.record(i * 10 * CHUNK, 10 * CHUNK);
    }
    assert_eq!(detector.pattern(), Pattern::Sequential);
}

#[test]
fn more_than_eight_of_ten_steps_must_follow_to_be_sequential() {
    // 10 steps: jumps far forward at some, a page forward at the others.
    let with_jumps = |jumps: u64| {
        let mut at = 0;
        let mut offsets = vec![at];
        for step in 0..10 {
            at += if step < jumps {
                (100 + step * 50) * CHUNK
            } else {
                PAGE
            };
            offsets.push(at);
        }
        seen(offsets).pattern()
    };
    assert_eq!(with_jumps(1), Pattern::Sequential);
    assert_ne!(with_jumps(2), Pattern::Sequential);
}

#[test]
fn equal_steps_are_strided_forward_and_backward() {
    let stride = 5 * CHUNK;
    let forward = seen((0..8).map(|i| i * stride));
    assert_eq!(
        forward.pattern(),
        Pattern::Strided {
            stride: stride as i64
        }
    );
    let backward = seen((0..8).rev().map(|i| i * stride));
    assert_eq!(
        backward.pattern(),
        Pattern::Strided {
            stride: -(stride as i64)
        }
    );
}

#[test]
fn a_stride_may_jitter_by_a_tenth_of_a_chunk() {
    let jitter = [0, 900, 100, 1200, 300, 700, 500, 1100];
    let offsets = (0..8).map(|i| i * 4 * CHUNK + jitter[i as usize]);
    match seen(offsets).pattern() {
        Pattern::Strided { stride } => {
            assert!(stride.abs_diff(4 * CHUNK as i64) < CHUNK / 10, "{stride}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_odd_first_step_does_not_hide_the_stride() {
    let offsets = std::iter::once(999 * CHUNK).chain((0..9).map(|i| i * 3 * CHUNK));
    assert_eq!(
        seen(offsets).pattern(),
        Pattern::Strided {
            stride: 3 * CHUNK as i64
        }
    );
}

#[test]
fn steps_that_are_hardly_ever_alike_are_random() {
    assert_eq!(seen(random(64)).pattern(), Pattern::Random);
}

#[test]
fn a_few_steps_that_come_back_without_a_majority_are_unknown() {
    let steps = [7, 30, 90];
    let mut at = 0;
    let offsets = (0..40).map(|i| {
        at += steps[i % 3] * CHUNK;
        at
    });
    assert_eq!(seen(offsets).pattern(), Pattern::Unknown);
}

#[test]
fn looking_at_the_same_place_again_changes_nothing() {
    let offsets = (0..8u64).flat_map(|i| std::iter::repeat_n(i * 4 * CHUNK, 20));
    assert_eq!(
        seen(offsets).pattern(),
        Pattern::Strided {
            stride: 4 * CHUNK as i64
        }
    );
}

#[test]
fn only_the_last_64_accesses_count() {
    let strided = |from: u64| (0..64).map(move |i| from + i * 3 * CHUNK);
    assert_eq!(
        seen(random(500).chain(strided(7))).pattern(),
        Pattern::Strided {
            stride: 3 * CHUNK as i64
        }
    );
}

#[test]
fn the_largest_offsets_do_not_overflow() {
    let detector = seen([0, u64::MAX, 0, u64::MAX, 0, i64::MAX as u64, 1]);
    let _ = detector.pattern();
    assert!(!detector.is_forward(-1));
}

#[test]
fn the_trend_follows_a_change_within_four_steps() {
    let first = (0..60).map(|i| i * 2 * CHUNK);
    let then = (0..5).map(|i| (1000 + i * 9) * CHUNK);
    let detector = seen(first.chain(then));
    assert_eq!(detector.trend(), Some(9 * CHUNK as i64));
    assert_eq!(
        detector.pattern(),
        Pattern::Strided {
            stride: 2 * CHUNK as i64
        },
        "the pattern still is that of the 64 accesses"
    );
}

#[test]
fn the_trend_finds_a_stride_among_other_accesses() {
    // Two of three steps are the stride; the rest are jumps to and fro.
    let mut at = 1 << 40;
    let offsets: Vec<u64> = (0..40u64)
        .map(|i| {
            at += match i % 3 {
                2 => (i + 50) * CHUNK,
                _ => 6 * CHUNK,
            };
            at
        })
        .collect();
    assert_eq!(seen(offsets).trend(), Some(6 * CHUNK as i64));
}

#[test]
fn half_of_the_steps_are_no_majority() {
    let mut at = 0;
    let offsets = (0..64u64).map(|i| {
        at += if i % 2 == 0 {
            3 * CHUNK
        } else {
            (100 + i) * CHUNK
        };
        at
    });
    assert_eq!(seen(offsets).trend(), None);
    assert_eq!(seen(random(64)).trend(), None);
}

#[test]
fn a_window_doubles_on_use_and_halves_on_waste() {
    let mut window = Window::new(CHUNK, 8 * CHUNK);
    let mut sizes = vec![window.size()];
    for _ in 0..4 {
        window.grow();
        window.useful();
        sizes.push(window.size());
    }
    let wanted: Vec<u64> = [1, 2, 4, 8, 8].map(|n| n * CHUNK).to_vec();
    assert_eq!(sizes, wanted);
    window.wasted();
    assert_eq!(window.size(), 4 * CHUNK);
    window.wasted();
    window.wasted();
    assert_eq!(window.size(), CHUNK, "one chunk is the least");
}

#[test]
fn a_window_that_cannot_double_stops_at_its_limit() {
    let mut window = Window::new(CHUNK, 3 * CHUNK);
    window.grow();
    window.grow();
    assert_eq!(window.size(), 3 * CHUNK);
    assert_eq!(Window::new(CHUNK, 0).size(), CHUNK);
}

#[test]
fn a_window_is_off_below_one_half_and_on_again_when_it_would_pay() {
    let mut window = Window::new(CHUNK, 64 * CHUNK);
    window.wasted();
    assert!(window.is_on(), "one miss is no proof");
    while window.accuracy() >= 0.5 {
        assert!(window.is_on());
        window.wasted();
    }
    assert!(!window.is_on());
    assert_eq!(window.size(), 0);
    window.grow();
    assert_eq!(window.size(), 0, "what is off does not grow");
    let mut tries = 0;
    while !window.is_on() {
        window.useful();
        tries += 1;
        assert!(tries < 20);
    }
    assert!(window.accuracy() > 0.5);
    assert_eq!(window.size(), CHUNK);
}
