//! Every field of a configuration has a rule, and a broken one is named with its value.

use gds_rs::config::{Config, DEVICE_AUTO, DEVICE_HOST, Profile, parse_device, parse_size};
use gds_rs::{Error, ErrorKind};

fn refused(change: impl FnOnce(&mut Config)) -> Error {
    let mut config = Config::default();
    change(&mut config);
    let error = config.validate().expect_err("the field breaks its rule");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error
}

#[test]
fn every_profile_is_valid_and_as_the_specification_says() {
    for profile in [
        Profile::LowLatency,
        Profile::Balanced,
        Profile::HighThroughput,
    ] {
        Config::profile(profile)
            .validate()
            .expect("a profile is valid");
    }
    let low = Config::profile(Profile::LowLatency);
    assert_eq!(
        (low.buffer_size, low.prefetch_slots, low.max_outstanding_io),
        (65536, 2, 4)
    );
    assert_eq!(
        (low.double_buffering, low.batch_mode, low.max_batch_size),
        (false, false, 1)
    );
    assert_eq!(low.prefetch_distance, 256 << 10);
    let high = Config::profile(Profile::HighThroughput);
    assert_eq!(
        (
            high.buffer_size,
            high.prefetch_slots,
            high.max_outstanding_io
        ),
        (64 << 20, 16, 64)
    );
    assert_eq!(
        (high.prefetch_distance, high.max_batch_size),
        (256 << 20, 32)
    );
    let balanced = Config::default();
    assert_eq!(
        (balanced.buffer_size, balanced.prefetch_distance),
        (16 << 20, 64 << 20)
    );
    assert_eq!(
        (balanced.buffer_count(), balanced.total_gpu_memory()),
        (2, (16 << 20) * 2 * 8)
    );
}

#[test]
fn every_wrong_field_is_named() {
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 16] = [
        ("buffer_size", |c| c.buffer_size = 32 << 10),
        ("buffer_size", |c| c.buffer_size = 3 << 20),
        ("buffer_size", |c| c.buffer_size = 2 << 30),
        ("alignment", |c| c.alignment = 0),
        ("alignment", |c| c.alignment = 4095),
        ("alignment", |c| {
            c.alignment = 2 << 20;
            c.buffer_size = 1 << 20;
        }),
        ("prefetch_slots", |c| c.prefetch_slots = 0),
        ("max_outstanding_io", |c| c.max_outstanding_io = 0),
        ("prefetch_distance", |c| c.prefetch_distance += 1),
        ("gpu_device", |c| c.gpu_device = -3),
        ("max_batch_size", |c| {
            c.max_batch_size = c.max_outstanding_io + 1
        }),
        ("poll_interval_us", |c| c.poll_interval_us = 1_000_001),
        ("io_threads", |c| c.io_threads = 129),
        ("max_retries", |c| c.max_retries = 17),
        ("backoff_ms", |c| c.backoff_ms = 10_001),
        ("probe_timeout_ms", |c| c.probe_timeout_ms = 0),
    ];
    for (field, change) in cases {
        let error = refused(change);
        assert!(
            error.message().starts_with(&format!("{field} is ")),
            "{field}: {error}"
        );
        assert!(error.message().contains("must"), "{error}");
    }
}

#[test]
fn environment_overrides_fields_and_names_what_it_cannot_read() {
    let get = |name: &str| match name {
        "GDS_PROFILE" => Some("low-latency".to_owned()),
        "GDS_DEVICE" => Some("cuda:3".to_owned()),
        "GDS_BUFFER_SIZE" => Some("1M".to_owned()),
        "GDS_CHECKSUM" => Some("on".to_owned()),
        _ => None,
    };
    let config = Config::default()
        .with_variables(get)
        .expect("all can be read");
    assert_eq!(
        (config.gpu_device, config.buffer_size, config.checksum),
        (3, 1 << 20, true)
    );
    assert_eq!(config.max_outstanding_io, 4, "from the profile");
    for name in gds_rs::config::VARIABLES.iter().map(|(name, _)| *name) {
        let error = Config::default()
            .with_variables(|n| (n == name).then(|| "nonsense".to_owned()))
            .expect_err(name);
        assert!(
            error.message().starts_with(&format!("{name}=nonsense")),
            "{error}"
        );
    }
}

#[test]
fn sizes_and_devices_are_read_as_people_write_them() {
    assert_eq!(parse_size("4096"), Some(4096));
    assert_eq!(parse_size("64KiB"), Some(65536));
    assert_eq!(parse_size("2g"), Some(2 << 30));
    assert_eq!(parse_size("99999999T"), None);
    assert_eq!(parse_size("-1"), None);
    assert_eq!(parse_device("auto"), Some(DEVICE_AUTO));
    assert_eq!(parse_device("host"), Some(DEVICE_HOST));
    assert_eq!(parse_device("cuda:2"), Some(2));
    assert_eq!(parse_device("gpu"), None);
}
