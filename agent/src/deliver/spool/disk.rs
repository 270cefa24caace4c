//! What the spool asks of a file system, as traits, so that tests can make every one of these calls fail.

use std::{
    fmt::Debug,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

/// A file that is open. All access is by offset, so that readers and the writer share nothing.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads at `offset` until `into` is full or the file ends; returns how many bytes were read.
    ///
    /// # Errors
    /// When the file system says so.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. On an error some of them may have been written.
    ///
    /// # Errors
    /// When the file system says so: full, read-only, broken.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, which gives the space back.
    ///
    /// # Errors
    /// When the file system says so.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns when what was written would survive a loss of power.
    ///
    /// # Errors
    /// When the file system says so. What was written before may be gone then, and asking again does not tell.
    fn sync(&self) -> io::Result<()>;

    /// Size in bytes.
    ///
    /// # Errors
    /// When the file system says so.
    fn size(&self) -> io::Result<u64>;

    /// Whether this is still the file that one finds at `path`: not if it was deleted, moved or replaced.
    fn is_at(&self, path: &Path) -> bool;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Open {
    /// It must be there.
    Read,
    /// It must be there.
    Write,
    /// It is made if need be, and emptied if it was there.
    Replace,
    /// It is made if need be.
    Create,
}

/// A name in a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Without the directory. A name that is not UTF-8 has replacement characters, so that it matches none of ours.
    pub name: String,
    /// A regular file, neither directory nor link.
    pub is_file: bool,
}

/// Keeps others out of a directory for as long as it lives: the file that is locked.
pub type Lock = Arc<dyn DiskFile>;

/// A file system.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory that only its owner may enter, and those above it. It may be there already.
    ///
    /// # Errors
    /// When the file system says so.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock of a directory: the file `path`. `None` if another process has it, or this one by another call.
    ///
    /// # Errors
    /// When the file system says so.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;

    /// What is in a directory, in any order.
    ///
    /// # Errors
    /// When the file system says so.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Opens a file.
    ///
    /// # Errors
    /// When the file system says so.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the file system says so.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when names made in and removed from a directory would survive a loss of power.
    ///
    /// # Errors
    /// When the file system says so.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The file system of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

// === impl HostDisk ===

impl Disk for HostDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        // On a file system that is read-only the lock of an earlier run will do: flock asks for no right to write.
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = open.or_else(|error| File::open(path).map_err(|_| error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // For people who look who has it. Nothing depends on it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Some(Arc::new(file)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entry = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok(Entry { name, is_file: entry.file_type()?.is_file() })
        };
        std::fs::read_dir(path)?.map(entry).collect()
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::Replace => options.write(true).create(true).truncate(true),
            Open::Create => options.write(true).create(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, mut into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while !into.is_empty() {
            match FileExt::read_at(self, into, offset + read as u64) {
                Ok(0) => break,
                Ok(count) => {
                    read += count;
                    into = &mut into[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_at(&self, path: &Path) -> bool {
        let Ok(ours) = self.metadata() else { return false };
        std::fs::symlink_metadata(path)
            .is_ok_and(|there| there.dev() == ours.dev() && there.ino() == ours.ino())
    }
}

/// The process that has a lock, as far as its file tells.
pub(super) fn holder(lock: &Path) -> String {
    let mut text = String::new();
    let read = File::open(lock).and_then(|file| file.take(16).read_to_string(&mut text));
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
