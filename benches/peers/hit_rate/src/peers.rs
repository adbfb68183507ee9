//! Real caches of other projects, driven in one thread with pages as keys.

/// quick_cache: hits of `get`, insertion of what is missing.
pub fn quick_cache(accesses: &[u32], cache: usize) -> u64 {
    let peer = quick_cache::sync::Cache::<u32, ()>::new(cache);
    let mut hits = 0;
    for page in accesses {
        if peer.get(page).is_some() {
            hits += 1;
        } else {
            peer.insert(*page, ());
        }
    }
    hits
}

/// moka: its housekeeping runs between accesses, as it would in its own time.
pub fn moka(accesses: &[u32], cache: usize) -> u64 {
    let peer = moka::sync::Cache::<u32, ()>::new(cache as u64);
    let mut hits = 0;
    for (i, page) in accesses.iter().enumerate() {
        if peer.get(page).is_some() {
            hits += 1;
        } else {
            peer.insert(*page, ());
        }
        if i % 32 == 0 {
            peer.run_pending_tasks();
        }
    }
    hits
}

/// foyer's memory cache with its S3-FIFO.
pub fn foyer(accesses: &[u32], cache: usize) -> u64 {
    let peer = foyer_memory::CacheBuilder::new(cache)
        .with_shards(16)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .build::<foyer_memory::CacheProperties>();
    let mut hits = 0;
    for page in accesses {
        if peer.get(page).is_some() {
            hits += 1;
        } else {
            peer.insert(*page, ());
        }
    }
    hits
}
