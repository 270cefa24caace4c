//! Files that tests run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
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
///
/// Another process does it: the descriptor that this one would write through could be inherited by what other
/// tests start at that moment, and the kernel does not run a file that somebody may write.
#[must_use]
pub fn copy_of(program: impl AsRef<Path>, to: impl Into<PathBuf>, mode: u32) -> PathBuf {
    let (program, to) = (program.as_ref(), to.into());
    let copied = Command::new("cp").arg("--").args([program, &to]).status().expect("cp is there");
    assert!(copied.success(), "cannot copy {} to {}", program.display(), to.display());
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).expect("our own file");
    to
}

/// Writes a file that can be run.
pub fn make_executable(path: &Path, text: &str) {
    let written = tempfile::NamedTempFile::new().expect("a file in /tmp");
    fs::write(written.path(), text).expect("our own file");
    let _path = copy_of(written.path(), path, 0o755);
}

/// Removes a cgroup, if it is there. The kernel lets go of those below it in its own time.
pub fn remove_cgroup(path: &Path) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    while path.exists() && fs::remove_dir(path).is_err() && Instant::now() < deadline {
        thread::yield_now();
    }
}
