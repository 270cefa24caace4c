//! A file system in memory that fails as it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use nightjar::deliver::spool::disk::{Disk, DiskFile, Entry, Lock, Open};

const PAGE: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub struct State {
    files: BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>,
    directories: BTreeSet<PathBuf>,
    /// Most bytes in all files; a write that goes beyond is cut short.
    pub capacity: Option<usize>,
    /// How many of the next writes fail.
    pub failing_writes: u32,
    pub failing_syncs: u32,
    pub failing_removals: u32,
    pub failing_reads: u32,
    pub is_read_only: bool,
    /// Calls to make something durable, whether they worked or not.
    pub syncs: u32,
    /// Of files that could not be made durable, by address: pages that were not written since.
    forgotten: BTreeMap<usize, BTreeSet<usize>>,
    /// After this many writes, one is cut after so many bytes, and nothing works any more: the process was killed.
    pub kill_after: Option<(u32, usize)>,
    pub is_dead: bool,
}

#[derive(Clone, Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    bytes: Arc<Mutex<Vec<u8>>>,
}

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl MemoryDisk {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let state = self.state();
        state.files.keys().filter(|path| path.extension().is_some_and(|it| it == "spool")).cloned().collect()
    }

    pub fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.state().files.get(path).cloned();
        if let Some(file) = file {
            change(&mut file.lock().unwrap());
        }
    }

    pub fn delete(&self, path: &Path) {
        self.state().files.remove(path);
    }

    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.state().files.insert(path.to_owned(), Arc::new(Mutex::new(bytes.to_owned())));
    }

    pub fn delete_all(&self) {
        let mut state = self.state();
        state.files.clear();
        state.directories.clear();
    }

    /// Files with something that is not on the disk, and that no further call to make it durable would bring there.
    pub fn forgotten(&self) -> usize {
        let state = self.state();
        let is_forgotten = |file: &&Arc<Mutex<Vec<u8>>>| {
            state.forgotten.get(&Arc::as_ptr(file).addr()).is_some_and(|pages| !pages.is_empty())
        };
        state.files.values().filter(is_forgotten).count()
    }

    pub fn used(&self) -> usize {
        self.state().files.values().map(|file| file.lock().unwrap().len()).sum()
    }

    fn may(&self, change: bool) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match () {
            () if state.is_dead => Err(error(io::ErrorKind::Other)),
            () if change && state.is_read_only => Err(error(io::ErrorKind::ReadOnlyFilesystem)),
            () => Ok(state),
        }
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.may(true)?.directories.insert(path.to_owned());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = self.open(path, Open::Create).or_else(|_| self.open(path, Open::Read))?;
        Ok(Some(file))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.may(false)?;
        if !state.directories.contains(path) {
            return Err(error(io::ErrorKind::NotFound));
        }
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        Ok(state.files.keys().map(|path| Entry { name: name(path), is_file: true }).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.may(how != Open::Read)?;
        let known = state.files.get(path).cloned();
        let bytes = match (known, how) {
            (Some(bytes), Open::Replace) => {
                bytes.lock().unwrap().clear();
                bytes
            }
            (Some(bytes), _) => bytes,
            (None, Open::Create | Open::Replace) if state.directories.contains(path.parent().unwrap()) => {
                let bytes = Arc::default();
                state.files.insert(path.to_owned(), Arc::clone(&bytes));
                bytes
            }
            _ => return Err(error(io::ErrorKind::NotFound)),
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), bytes }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.may(true)?;
        if state.failing_removals > 0 {
            state.failing_removals -= 1;
            return Err(error(io::ErrorKind::PermissionDenied));
        }
        state.files.remove(path).map(|_| ()).ok_or_else(|| error(io::ErrorKind::NotFound))
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.may(false).map(|_| ())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.may(false)?;
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(error(io::ErrorKind::Other));
        }
        let bytes = self.bytes.lock().unwrap();
        let there = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = there.len().min(into.len());
        into[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_at(&self, mut data: &[u8], offset: u64) -> io::Result<()> {
        let mut result = Ok(());
        {
            let mut state = self.disk.may(true)?;
            if state.failing_writes > 0 {
                state.failing_writes -= 1;
                data = &data[..data.len() / 2];
                result = Err(error(io::ErrorKind::Other));
            }
            if let Some((writes, bytes)) = state.kill_after {
                state.kill_after = writes.checked_sub(1).map(|writes| (writes, bytes));
                if state.kill_after.is_none() {
                    state.is_dead = true;
                    data = &data[..data.len().min(bytes)];
                    result = Err(error(io::ErrorKind::Other));
                }
            }
        }
        let offset = usize::try_from(offset).unwrap();
        let length = self.bytes.lock().unwrap().len();
        let grows = (offset + data.len()).saturating_sub(length);
        let used = self.disk.used();
        if let Some(capacity) = self.disk.state().capacity
            && grows > capacity.saturating_sub(used)
        {
            data = &data[..data.len().saturating_sub(grows - capacity.saturating_sub(used))];
            result = Err(error(io::ErrorKind::StorageFull));
        }
        if let Some(pages) = self.disk.state().forgotten.get_mut(&Arc::as_ptr(&self.bytes).addr()) {
            let written = offset / PAGE..(offset + data.len()).div_ceil(PAGE);
            pages.retain(|page| !written.contains(page));
        }
        let mut bytes = self.bytes.lock().unwrap();
        let end = (offset + data.len()).max(bytes.len());
        bytes.resize(end, 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
        result
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        drop(self.disk.may(true)?);
        self.bytes.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.may(false)?;
        state.syncs += 1;
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            let pages = (0..self.bytes.lock().unwrap().len().div_ceil(PAGE)).collect();
            state.forgotten.insert(Arc::as_ptr(&self.bytes).addr(), pages);
            return Err(error(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        drop(self.disk.may(false)?);
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn is_at(&self, path: &Path) -> bool {
        self.disk.state().files.get(path).is_some_and(|there| Arc::ptr_eq(there, &self.bytes))
    }
}
