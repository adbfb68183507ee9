//! What a store must be able to do to be measured, and which stores there are.

use std::path::Path;

/// Any error; a benchmark only prints it.
pub type Res<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How the commits of one opening are made. LMDB needs to know when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// `put_durable` and `batch(.., true)`: a commit that returned survives a power loss.
    Durable,
    /// `put` and `batch(.., false)`: a commit returns earlier; what it promises is in the row.
    Deferred,
}

/// What is the same for all engines.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of the engine's own cache of what it read.
    pub cache_bytes: u64,
    pub commits: Commits,
    /// Whether values are large: engines with a separate place for such values use it.
    pub large_values: bool,
}

/// One write of a batch.
pub enum Op<'a> {
    Put(&'a [u8], &'a [u8]),
    Delete(&'a [u8]),
}

/// A store under test. Any thread may call it.
pub trait Engine: Send + Sync {
    /// Commits one value without waiting for the disk.
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()>;
    /// Commits one value; it survives a power loss when this returns.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()>;
    /// Deletes a key without waiting for the disk.
    fn delete(&self, key: &[u8]) -> Res<()>;
    /// Copies the value into `into`, which is emptied first. Whether there was one.
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool>;
    /// Whether there is a value, by the cheapest way that the engine has.
    fn exists(&self, key: &[u8]) -> Res<bool>;
    /// Commits all or nothing.
    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()>;
    /// Calls `each` with up to `limit` keys from `from` on, in order, and their values.
    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize>;
    /// Writes out what is in memory and waits for background work, so that all the bytes that
    /// the commits so far will cost are counted.
    fn flush(&self) -> Res<()>;
    /// Makes everything that was committed durable.
    fn sync(&self) -> Res<()>;
    /// Closes as a program that ends well does.
    fn close(self: Box<Self>) -> Res<()>;
    /// Commits that return a number to wait for, where the engine has them.
    fn tickets(&self) -> Option<&dyn Tickets> {
        None
    }
}

/// Commits that return before they are durable and say later when they are.
pub trait Tickets: Sync {
    /// Commits one value and returns its number.
    fn put(&self, key: &[u8], value: &[u8]) -> Res<u64>;
    /// All commits up to this number are durable.
    fn durable(&self) -> u64;
    /// Sleeps until commit `ticket` is durable.
    fn wait(&self, ticket: u64) -> Res<()>;
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Kind {
    #[cfg(feature = "ours")]
    Ours,
    Redb,
    Fjall,
    Lmdb,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        #[cfg(feature = "ours")]
        Kind::Ours,
        Kind::Redb,
        Kind::Fjall,
        Kind::Lmdb,
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb,
    ];

    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "ours")]
            Kind::Ours => "gds_rs",
            Kind::Redb => "redb",
            Kind::Fjall => "fjall",
            Kind::Lmdb => "lmdb",
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => "rocksdb",
        }
    }

    /// What a commit of this kind promises, as rows name it.
    pub fn promise(self, commits: Commits) -> &'static str {
        if commits == Commits::Durable {
            return "synced";
        }
        match self {
            // Survives neither a kill nor a power loss before the log thread's next write, which
            // starts at once.
            #[cfg(feature = "ours")]
            Kind::Ours => "ticket, not waited for",
            // Lost at a kill, too, until the next synced commit.
            Kind::Redb => "in memory",
            Kind::Fjall => "OS buffer",
            // The environment's NOSYNC: a power loss may break the file.
            Kind::Lmdb => "OS buffer (NOSYNC)",
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => "OS buffer",
        }
    }

    /// Opens the store in `dir`, or makes one.
    pub fn open(self, dir: &Path, settings: &Settings) -> Res<Box<dyn Engine>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            #[cfg(feature = "ours")]
            Kind::Ours => Box::new(crate::ours::Ours::open(dir, settings)?),
            Kind::Redb => Box::new(crate::redb::Redb::open(dir, settings)?),
            Kind::Fjall => Box::new(crate::fjall::Fjall::open(dir, settings)?),
            Kind::Lmdb => Box::new(crate::lmdb::Lmdb::open(dir, settings)?),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => Box::new(crate::rocksdb::Rocksdb::open(dir, settings)?),
        })
    }

    /// The version that is measured.
    pub fn version(self) -> String {
        match self {
            #[cfg(feature = "ours")]
            Kind::Ours => locked("gds_rs"),
            Kind::Redb => locked("redb"),
            Kind::Fjall => locked("fjall"),
            Kind::Lmdb => format!(
                "{} (heed {})",
                ::heed::lmdb_version().string,
                locked("heed")
            ),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => crate::rocksdb::version(),
        }
    }
}

/// The version of a crate in our lock file.
fn locked(name: &str) -> String {
    let start = format!("name = \"{name}\"\nversion = \"");
    include_str!("../Cargo.lock")
        .split_once(&start)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or_else(|| "unknown".to_owned(), |(version, _)| version.to_owned())
}
