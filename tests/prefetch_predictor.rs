//! The model that learns which step follows the last steps.

use gds_rs::prefetch::Predictor;

fn cycle(steps: &[i64], count: usize) -> impl Iterator<Item = i64> {
    steps.iter().copied().cycle().take(count)
}

fn taught(steps: impl IntoIterator<Item = i64>) -> Predictor {
    let mut predictor = Predictor::new();
    for step in steps {
        predictor.record(step);
    }
    predictor
}

/// Steps without order, from splitmix64.
fn random(count: u64) -> impl Iterator<Item = i64> {
    (1..=count).map(|i| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 20) % 100_000) as i64 - 50_000
    })
}

#[test]
fn it_learns_a_sequence_that_repeats() {
    let mut predictor = taught(cycle(&[3, 5, -2], 60));
    assert!(predictor.is_on(), "{}", predictor.accuracy());
    assert_eq!(predictor.predict(6), [3, 5, -2, 3, 5, -2]);
    predictor.record(3);
    assert_eq!(predictor.predict(2), [5, -2]);
}

#[test]
fn it_learns_a_sequence_that_needs_more_than_the_last_step() {
    // After +1 comes +1 or +4: only two steps together tell.
    let predictor = taught(cycle(&[1, 1, 4], 60));
    assert_eq!(predictor.predict(5), [1, 1, 4, 1, 1]);
    // Here only three do.
    let predictor = taught(cycle(&[2, 2, 2, -9], 88));
    assert_eq!(predictor.predict(5), [2, 2, 2, -9, 2]);
}

#[test]
fn it_says_nothing_before_it_is_sure() {
    let mut predictor = Predictor::new();
    assert!(predictor.predict(4).is_empty());
    for step in [3, 5, -2, 3] {
        predictor.record(step);
        assert!(predictor.predict(4).is_empty());
    }
    assert!(!predictor.is_on());
}

#[test]
fn it_is_off_on_random_steps() {
    let predictor = taught(random(2000));
    assert!(!predictor.is_on());
    assert!(predictor.accuracy() < 0.05, "{}", predictor.accuracy());
    assert!(predictor.predict(8).is_empty());
}

#[test]
fn it_is_off_where_its_predictions_are_wrong() {
    // Steps of a small set in random order: every context is known, and none tells.
    let predictor = taught(random(3000).map(|step| step.rem_euclid(5)));
    let (made, right) = predictor.counts();
    assert_eq!(made, 3000);
    assert!(right * 2 < made, "{right} of {made}");
    assert!(predictor.accuracy() < 0.5);
    assert!(!predictor.is_on());
}

#[test]
fn it_switches_itself_off_when_the_sequence_ends() {
    let mut predictor = taught(cycle(&[3, 5, -2], 60));
    assert!(predictor.is_on());
    let mut wrong = 0;
    for step in random(64) {
        predictor.record(step);
        if predictor.is_on() {
            wrong += 1;
        }
    }
    assert!(!predictor.is_on());
    assert!(wrong < 16, "{wrong} steps to give up");
}

#[test]
fn its_shadow_predictions_switch_it_on_again() {
    let mut predictor = taught(cycle(&[3, 5, -2], 60).chain(random(64)));
    assert!(!predictor.is_on());
    for step in cycle(&[3, 5, -2], 30) {
        predictor.record(step);
    }
    assert!(predictor.is_on(), "{}", predictor.accuracy());
    assert_eq!(predictor.predict(3), [3, 5, -2]);
}

#[test]
fn it_forgets_a_sequence_for_a_new_one() {
    let predictor = taught(cycle(&[3, 5, -2], 90).chain(cycle(&[3, 7, 11], 90)));
    assert_eq!(predictor.predict(3), [3, 7, 11]);
}
