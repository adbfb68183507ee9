//! The disks that a crash may have left of a run, opened one by one.

use std::sync::Arc;

use super::bytes;
use super::oracle::contents;
use super::workload::Run;
use crate::error::ErrorKind;
use crate::kv::sim::{SimDisk, Survivors, TEAR_ANYWHERE, TEAR_BLOCK, TEAR_SECTOR};
use crate::kv::store::Store;

/// Which images of a run are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Every n-th moment.
    pub step: usize,
    /// Random sets of what was not durable, at each of these moments.
    pub subsets: u64,
    /// Torn writes at each, for each of three units.
    pub tears: u64,
    /// Every n-th image is verified whole and used on.
    pub thorough: usize,
    /// Every n-th image crashes again while it is opened, 0 = none.
    pub second: usize,
}

/// Opens an image and compares what it holds with what may be there; hands the store on.
///
/// # Errors
/// What is wrong, in words.
pub fn open(run: &Run, image: SimDisk, moment: usize) -> Result<(Arc<SimDisk>, Store), String> {
    let disk = Arc::new(image);
    let store = Store::open_on(disk.clone(), run.config.clone())
        .map_err(|e| format!("moment {moment}: open: {e:?}"))?;
    let found = contents(&store).map_err(|e| format!("moment {moment}: {e}"))?;
    run.oracle.check(&found, moment)?;
    Ok((disk, store))
}

/// Checks one image: it opens and holds a right prefix; with `thorough` also that it verifies,
/// and takes a new commit that survives the next crash (so opening twice gives the same).
///
/// # Errors
/// What is wrong, in words.
pub fn check(run: &Run, image: SimDisk, moment: usize, thorough: bool) -> Result<(), String> {
    let (disk, store) = open(run, image, moment)?;
    if !thorough {
        return Ok(());
    }
    let report = store
        .verify()
        .map_err(|e| format!("moment {moment}: verify: {e:?}"))?;
    if !report.is_clean() {
        return Err(format!("moment {moment}: verify: {report:?}"));
    }
    let mut found = contents(&store)?;
    let value = bytes(moment as u64, 5000);
    match store.put(b"after the crash", &value) {
        Ok(_) => drop(found.insert(b"after the crash".to_vec(), value)),
        Err(e) if e.kind() == ErrorKind::NoSpace => {}
        Err(e) => return Err(format!("moment {moment}: put after the crash: {e:?}")),
    }
    drop(store);
    // A third run: what was acknowledged after the crash survives the next one.
    let image = disk
        .image(disk.now(), Survivors::None)
        .map_err(|e| format!("{e:?}"))?;
    let again = Store::open_on(Arc::new(image), run.config.clone())
        .map_err(|e| format!("moment {moment}: open again: {e:?}"))?;
    if contents(&again)? != found {
        return Err(format!(
            "moment {moment}: the second opening found something else"
        ));
    }
    Ok(())
}

/// Looks at the crash images of a run; how many there were.
///
/// # Errors
/// The first that is wrong, in words.
pub fn check_images(run: &Run, effort: Effort) -> Result<usize, String> {
    check_images_until(run, effort, &mut |_| true)
}

/// As `check_images`, until `go_on`, which is told how many there were so far, says no.
///
/// # Errors
/// As `check_images`.
pub fn check_images_until(
    run: &Run,
    effort: Effort,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<usize, String> {
    let mut images = 0;
    // Before the store was made there need not be one.
    let made = run.oracle.begins().unwrap_or(usize::MAX);
    let first = made.next_multiple_of(effort.step.max(1));
    for moment in (first..=run.disk.now()).step_by(effort.step.max(1)) {
        for survivors in kinds(effort) {
            let said = |e: String| format!("{survivors:?} {e}");
            let image = run
                .disk
                .image(moment, survivors)
                .map_err(|e| said(format!("moment {moment}: {e:?}")))?;
            images += 1;
            if effort.second > 0 && images % effort.second == 0 {
                images += check_second(run, image.copy(), moment).map_err(said)?;
            }
            let thorough = images % effort.thorough.max(1) == 0;
            check(run, image, moment, thorough).map_err(said)?;
            if !go_on(images) {
                return Ok(images);
            }
        }
    }
    Ok(images)
}

fn kinds(effort: Effort) -> impl Iterator<Item = Survivors> {
    let subsets = (0..effort.subsets).map(|seed| Survivors::Some { seed });
    let tears = (0..effort.tears).flat_map(|seed| {
        [TEAR_SECTOR, TEAR_BLOCK, TEAR_ANYWHERE].map(|unit| Survivors::Torn { seed, unit })
    });
    [Survivors::None, Survivors::All]
        .into_iter()
        .chain(subsets)
        .chain(tears)
}

/// Crashes at every moment of an opening, and opens again.
fn check_second(run: &Run, image: SimDisk, moment: usize) -> Result<usize, String> {
    let (disk, store) = open(run, image, moment)?;
    let found = contents(&store)?;
    drop(store);
    let mut images = 0;
    for second in 0..=disk.now() {
        let torn = Survivors::Torn {
            seed: moment as u64,
            unit: TEAR_SECTOR,
        };
        for survivors in [Survivors::None, torn] {
            let image = disk
                .image(second, survivors)
                .map_err(|e| format!("{e:?}"))?;
            let store = Store::open_on(Arc::new(image), run.config.clone())
                .map_err(|e| format!("moment {moment}, second crash at {second}: {e:?}"))?;
            if contents(&store)? != found {
                return Err(format!(
                    "moment {moment}: another state after a second crash at {second}"
                ));
            }
            images += 1;
        }
    }
    Ok(images)
}
