//! How a cache is set up.

use std::time::Duration;

use super::policy::PolicyKind;
use crate::base::limits;
use crate::error::{Error, ErrorKind, Result};

/// Settings of a cache. Start from `CacheConfig::default()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes of one page: a power of two, 4 KiB to 2 MiB.
    pub page_size: u32,
    /// Device memory for pages, bytes; at least one page. What does not make a whole page in
    /// every shard stays unused.
    pub device_bytes: u64,
    /// Pinned host memory for pages that had to leave the device, bytes; 0 for none.
    pub host_bytes: u64,
    /// Which page goes when room is needed.
    pub policy: PolicyKind,
    /// Device memory that the pages of one file may take, bytes; 0 for no limit.
    pub file_limit_bytes: u64,
    /// How long a changed page may wait for its write.
    pub flush_delay: Duration,
    /// Changed pages, percent of all, from which on they are written at once; 1 to 100.
    pub dirty_percent: u32,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            page_size: 64 << 10,
            device_bytes: 256 << 20,
            host_bytes: 0,
            policy: PolicyKind::default(),
            file_limit_bytes: 0,
            flush_delay: Duration::from_millis(500),
            dirty_percent: 25,
        }
    }
}

impl CacheConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// `InvalidConfig` names the first field that breaks its rule, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        let size = u64::from(self.page_size);
        let (least, most) = (limits::CACHE_PAGE_SIZE_MIN, limits::CACHE_PAGE_SIZE_MAX);
        if !self.page_size.is_power_of_two() || !(least..=most).contains(&self.page_size) {
            return wrong(format!(
                "page_size is {}; it must be a power of two, {least} to {most} bytes",
                self.page_size
            ));
        }
        let frames = self.device_bytes / size;
        if frames == 0 || frames > limits::CACHE_PAGES_MAX {
            return wrong(format!(
                "device_bytes is {}; it must hold 1 to {} pages of {size} bytes",
                self.device_bytes,
                limits::CACHE_PAGES_MAX
            ));
        }
        let host = self.host_bytes / size;
        if (self.host_bytes > 0 && host == 0) || host > limits::CACHE_PAGES_MAX {
            return wrong(format!(
                "host_bytes is {}; it must be 0 or hold 1 to {} pages of {size} bytes",
                self.host_bytes,
                limits::CACHE_PAGES_MAX
            ));
        }
        if self.file_limit_bytes > 0 && self.file_limit_bytes < size {
            return wrong(format!(
                "file_limit_bytes is {}; it must be 0 or at least a page of {size} bytes",
                self.file_limit_bytes
            ));
        }
        if self.flush_delay > limits::CACHE_FLUSH_DELAY_MAX {
            return wrong(format!(
                "flush_delay is {:?}; it must be at most {:?}",
                self.flush_delay,
                limits::CACHE_FLUSH_DELAY_MAX
            ));
        }
        if !(1..=100).contains(&self.dirty_percent) {
            return wrong(format!(
                "dirty_percent is {}; it must be 1 to 100",
                self.dirty_percent
            ));
        }
        Ok(())
    }
}

fn wrong(text: String) -> Result<()> {
    Err(Error::new(ErrorKind::InvalidConfig, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_field_is_named() {
        CacheConfig::default().validate().expect("the default");
        let named = |change: fn(&mut CacheConfig)| {
            let mut config = CacheConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            error.message().split(' ').next().unwrap().to_owned()
        };
        assert_eq!(named(|c| c.page_size = 0), "page_size");
        assert_eq!(named(|c| c.page_size = 5000), "page_size");
        assert_eq!(named(|c| c.page_size = 4 << 20), "page_size");
        assert_eq!(named(|c| c.device_bytes = 100), "device_bytes");
        assert_eq!(named(|c| c.device_bytes = u64::MAX), "device_bytes");
        assert_eq!(named(|c| c.host_bytes = 1), "host_bytes");
        assert_eq!(named(|c| c.file_limit_bytes = 1), "file_limit_bytes");
        assert_eq!(named(|c| c.flush_delay = Duration::MAX), "flush_delay");
        assert_eq!(named(|c| c.dirty_percent = 0), "dirty_percent");
        assert_eq!(named(|c| c.dirty_percent = 101), "dirty_percent");
    }
}
