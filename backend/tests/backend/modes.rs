//! Who may read what the backend keeps.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rustix::{fs::Mode, process::umask};

use crate::process::{Backend, free_address};

#[test]
fn what_is_made_on_the_disk_is_for_its_owner_alone_whatever_the_umask_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    // Inherited by the backend; other tests do not look at modes.
    let before = umask(Mode::empty());
    let backend = Backend::start(&path, free_address(), &[]);
    umask(before);
    // It may be there for others too.
    assert_eq!(mode(&path) & 0o777, 0o755);
    let mut modes = Vec::new();
    let mut folders = vec![path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            modes.push((path.clone(), mode(&path)));
            folders.extend(path.is_dir().then_some(path));
        }
    }
    let names = ["registry.redb", "backend.sock", "lock", "wal", "tls"].map(|name| path.join(name));
    assert!(names.iter().all(|name| modes.iter().any(|(path, _)| path == name)), "{modes:?}");
    // The root is what agents check the backend against.
    modes.retain(|(path, _)| !path.ends_with("tls/ca.pem"));
    let open: Vec<_> = modes.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open.is_empty(), "{open:?}");
    backend.stop();
}

#[test]
fn a_data_directory_that_is_made_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let backend = Backend::start(&path, free_address(), &[]);
    assert_eq!(mode(&path) & 0o777, 0o700);
    backend.stop();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode()
}
