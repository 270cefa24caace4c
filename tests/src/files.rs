//! Files that tests run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A new folder that any user may read; removed when dropped.
#[must_use]
pub fn folder_for_all() -> TempDir {
    let folder = tempfile::Builder::new().prefix("nightjar-test-").tempdir().expect("a folder in /tmp");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    folder
}

/// Copies a program; its mode bits are `mode`.
#[must_use]
pub fn copy_of(program: impl AsRef<Path>, to: impl Into<PathBuf>, mode: u32) -> PathBuf {
    let (program, to) = (program.as_ref(), to.into());
    fs::copy(program, &to)
        .unwrap_or_else(|error| panic!("cannot copy {} to {}: {error}", program.display(), to.display()));
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).expect("our own file");
    to
}

/// Writes a file that can be run.
pub fn make_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// Removes a cgroup, if it is there. The kernel lets go of those below it in its own time.
pub fn remove_cgroup(path: &Path) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    while path.exists() && fs::remove_dir(path).is_err() && Instant::now() < deadline {
        thread::yield_now();
    }
}
