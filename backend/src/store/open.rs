//! Opens a data directory, and puts in order what a crash has left.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use super::{
    EVENTS, WAL,
    damage::{Damage, ENDING},
    index::Index,
    partition::{self, Partition, PartitionError},
    record::Record,
    segment::{self, Segment},
    state::{Catalog, Condition, Counters, State, count},
};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is in use by another nightjar-backend; stop that, or give this one another --data", path = .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("{path}: {error}; the data directory must be readable and writable for this user", path = .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What is there, its lock, and the number that the next file of the log gets.
///
/// # Errors
/// When another process has it, or it cannot be read.
pub fn open(dir: &Path) -> Result<(State, File, u64), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { path, error }
    };
    for dir in [dir, &dir.join(WAL), &dir.join(EVENTS)] {
        // Events of all hosts are for their owner alone.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    }
    segment::sync_dir(dir).map_err(failed(dir))?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"));
    let lock = lock.map_err(failed(&dir.join("lock")))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| OpenError::InUse(dir.to_owned()))?;

    let counters = Counters::default();
    let files = |dir: &Path| list(dir).map_err(failed(dir));
    let (mut logs, mut damaged) = (BTreeMap::new(), Vec::new());
    for path in files(&dir.join(WAL))? {
        match segment::name_of(&path) {
            Some((number, _)) if path.is_file() => drop(logs.insert(number, path)),
            None if Damage::of(&path).is_some() => damaged.push(path),
            _ => foreign(&path, &counters),
        }
    }
    let mut next_number = logs.keys().next_back().map_or(1, |number| number + 1);

    let mut catalog = Catalog::default();
    let mut index = Index::default();
    for path in parquet_files(&dir.join(EVENTS), &files, &counters)? {
        let Some((_, first, last)) = partition::name_of(&path) else {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                // It never got its name: the log still has all that is in it.
                let _stays_without_harm = fs::remove_file(&path);
            } else if Damage::of(&path).is_some() {
                damaged.push(path);
            } else {
                foreign(&path, &counters);
            }
            continue;
        };
        next_number = next_number.max(last + 1);
        match Partition::open(path.clone()) {
            Ok((partition, known)) => {
                catalog.partitions.push(Arc::new(partition));
                index.extend(known);
            }
            Err(PartitionError::Io { path, error }) => return Err(OpenError::Io { path, error }),
            Err(error) if (first..=last).all(|number| logs.contains_key(&number)) => {
                count(&counters.damaged_partitions, 1);
                tracing::warn!("{error}; the log still has its events, and it is made again");
                let _made_again = fs::remove_file(&path);
            }
            Err(error) => damaged.extend(put_aside(&path, &error, &counters)),
        }
    }
    catalog.partitions.sort_by_key(|partition| partition.first);

    let mut known = Known { index, begun_by: None };
    for (number, path) in logs {
        let converted = |partition: &Arc<Partition>| (partition.first..=partition.last).contains(&number);
        if catalog.partitions.iter().any(converted) {
            let _counts_no_more = fs::remove_file(&path);
            continue;
        }
        let opened = Segment::open(path.clone(), |record| known.take(number, record));
        let (segment, found) = opened.map_err(failed(&path))?;
        count(&counters.torn, found.torn);
        count(&counters.damaged, found.damaged);
        if found.torn + found.damaged > 0 {
            tracing::warn!("{}: {} bytes torn, {} damaged", path.display(), found.torn, found.damaged);
        }
        catalog.segments.insert(number, Arc::new(segment));
    }
    let state = State {
        dir: dir.to_owned(),
        catalog: RwLock::new(catalog),
        index: RwLock::new(known.index),
        damages: Mutex::default(),
        condition: watch::Sender::new(Condition::Ready),
        dead: watch::Sender::new(None),
        committed: watch::Sender::new(0),
        kept_by: AtomicU64::new(0),
        counters,
    };
    for path in &damaged {
        state.list_damage(path);
    }
    Ok((state, lock, next_number))
}

/// The index, while the log is read.
struct Known {
    index: Index,
    /// The first file of the log that said what was before it.
    begun_by: Option<u64>,
}

// === impl Known ===

impl Known {
    fn take(&mut self, file: u64, record: Record) {
        match record {
            Record::Checkpoint(part) if *self.begun_by.get_or_insert(file) == file => {
                self.index.extend(part.into());
            }
            // Later files say what the files before them have said already, unless these are damaged.
            Record::Checkpoint(part) => self.index.catch_up(part),
            Record::Batch(stored) => {
                if let Some(batch) = stored.batch.filter(|batch| self.index.is_new(batch)) {
                    self.index.begin(&batch, stored.starts_after);
                    self.index.add(&batch, stored.received);
                }
            }
        }
    }
}

fn foreign(path: &Path, counters: &Counters) {
    count(&counters.foreign, 1);
    tracing::warn!("{} is not of this program, and is left alone", path.display());
}

/// Gives it another name, by which it is listed. It may have that of one that was found before to be damaged in part.
fn put_aside(path: &Path, error: &PartitionError, counters: &Counters) -> Option<PathBuf> {
    count(&counters.damaged_partitions, 1);
    tracing::error!("{error}; it is put aside as .damaged, its events are lost, and gaps lists it");
    let aside = path.with_extension(ENDING);
    let renamed = fs::rename(path, &aside);
    renamed.inspect_err(|error| tracing::error!("{}: {error}", path.display())).ok().map(|()| aside)
}

fn parquet_files(
    events: &Path,
    files: &impl Fn(&Path) -> Result<Vec<PathBuf>, OpenError>,
    counters: &Counters,
) -> Result<Vec<PathBuf>, OpenError> {
    let mut found = Vec::new();
    for path in files(events)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            foreign(&path, counters);
        }
    }
    Ok(found)
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
