//! What is told of each thing that can be done to a file, done by the plain calls.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nightjar_tests::{Acted, Event, Folder, Told, file, skip_without_kernel, truth, until, watch};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::Value;

const POLICY: &str = "everything";
const CONFIGURATION: &str = "
files:
  defaults: false
  fold: 0s
  watch:
    - {name: everything, paths: [ROOT/watched], recursive: true, operations: [all]}
";

fn folder() -> Folder {
    root();
    Folder::take()
}

fn root() -> &'static Path {
    watch(CONFIGURATION, |root| fs::create_dir(root.join("elsewhere")).unwrap())
}

/// A path outside of what is watched.
fn elsewhere(name: &str) -> String {
    root().join("elsewhere").join(name).to_str().unwrap().to_owned()
}

/// What was done to mounts by a process, in the order of their times.
fn mounts(acted: &Acted) -> Vec<Event> {
    let mut events = acted.ran.events();
    events.retain(|event| event.kind() == "file.mount");
    events.sort_by_key(|event| event.nanos("time"));
    events
}

fn operations(mounts: &[Event]) -> Vec<&str> {
    mounts.iter().map(|event| event.text("file.mount.operation")).collect()
}

// Opens

#[test]
fn an_open_tells_the_file_and_what_for() {
    skip_without_kernel!();
    for (flags, told_flags) in [
        ("rdonly", &["read"][..]),
        ("wronly", &["write"]),
        ("rdwr,append", &["read", "write", "append"]),
        ("rdonly,nofollow", &["read", "nofollow"]),
    ] {
        let folder = folder();
        let acted = folder.rawfile(&format!("open file --flags {flags} --call openat"));
        let told = folder.told_by(POLICY, &acted, &["file.open"]);
        let open = truth("file.open", acted.line("open"))
            .with("file.source", "kernel")
            .with("file.call", "openat")
            .with("file.flags", told_flags)
            .without("file.created")
            .without("file.errno")
            .without("file.count");
        told.expect(&open);
    }
}

#[test]
fn a_close_after_writing_is_told_with_the_file() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("write file hello");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.modify", "file.close"]);
    told.expect(&truth("file.close", acted.line("close")).without("file.deleted"));
}

#[test]
fn the_end_of_a_process_closes_its_files() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("open file --flags rdwr");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.close"]);
    told.expect(&truth("file.close", acted.line("open")).without("file.call"));
}

#[test]
fn an_open_that_fails_is_not_told_where_nobody_asks_for_that() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile(&format!("open {} --expect ENOENT", folder.text("nothing")));
    folder.told_by(POLICY, &acted, &[]);
}

#[test]
fn a_file_that_is_made_by_an_open_is_created_and_not_opened() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("creat new --mode 640");
    let told = folder.told_by(POLICY, &acted, &["file.create", "file.close"]);
    told.expect(
        &truth("file.create", acted.line("open"))
            .with("file.source", "kernel")
            .with("file.call", "creat")
            .with("file.mode", "0640")
            .with("file.size", 0),
    );
}

#[test]
fn a_file_that_is_there_already_is_opened_and_not_created() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("open file --flags rdwr,creat --call openat2");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.close"]);
    told.expect(&truth("file.open", acted.line("open")));
}

#[test]
fn an_open_tells_how_a_file_was_to_be_made() {
    skip_without_kernel!();
    for (words, kind, flags) in [
        ("creat new", "file.create", &["write", "create", "trunc"][..]),
        ("open new --flags wronly,creat,excl", "file.create", &["write", "create", "excl"]),
        ("open file --flags rdwr,creat", "file.open", &["read", "write", "create"]),
    ] {
        let folder = folder();
        folder.rawfile(words);
        folder.settle();
        let told = Told(folder.events());
        told.expect(&file(kind).with("file.flags", flags));
    }
}

#[test]
fn pipes_sockets_and_devices_are_created() {
    skip_without_kernel!();
    for (words, kind) in [
        ("fifo", "fifo"),
        ("socket", "socket"),
        ("char --major 1 --minor 3", "char_device"),
        ("block --major 7 --minor 0", "block_device"),
        ("file", "regular"),
    ] {
        let folder = folder();
        let acted = folder.rawfile(&format!("mknod node {words}"));
        let told = folder.told_by(POLICY, &acted, &["file.create"]);
        told.expect(
            &truth("file.create", acted.line("mknod")).with("file.type", kind).with("file.call", "mknod"),
        );
    }
}

// Content

#[test]
fn writing_is_told_once_with_the_size_before_and_after() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("write file more-than-there-was");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.modify", "file.close"]);
    told.expect(
        &truth("file.modify", acted.line("write"))
            .with("file.size", 19)
            .with("file.before.size", 7)
            .with("file.after.size", 19)
            .without("file.ongoing"),
    );
    told.expect(&truth("file.close", acted.line("close")));
}

#[test]
fn many_writes_between_open_and_close_are_one_change() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.acted("sh", &["-c", "exec 3>>file; for i in 1 2 3 4 5 6 7 8 9; do echo $i >&3; done"]);
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.modify", "file.close"]);
    told.expect(
        &file("file.modify")
            .with("file.path", folder.text("file"))
            .with("file.before.size", 7)
            .with("file.after.size", 25),
    );
}

#[test]
fn writing_again_after_a_close_is_another_change() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.acted("sh", &["-c", "printf 1 >> file; sleep 0.3; printf 2 >> file"]);
    let told = folder.told_by(
        POLICY,
        &acted,
        &["file.open", "file.modify", "file.close", "file.open", "file.modify", "file.close"],
    );
    told.expect(&file("file.modify").with("file.before.size", 7).with("file.after.size", 8));
    told.expect(&file("file.modify").with("file.before.size", 8).with("file.after.size", 9));
}

#[test]
fn writing_a_new_file_is_a_creation_and_a_change() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("write new hello");
    let told = folder.told_by(POLICY, &acted, &["file.create", "file.modify", "file.close"]);
    told.expect(&truth("file.create", acted.line("open")).with("file.size", 0));
    told.expect(&truth("file.modify", acted.line("write")).with("file.after.size", 5));
}

#[test]
fn a_file_that_is_only_closed_was_not_changed() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("open file --flags wronly");
    folder.told_by(POLICY, &acted, &["file.open", "file.close"]);
}

#[test]
fn truncating_by_path_tells_both_sizes() {
    skip_without_kernel!();
    for len in [0, 3, 100] {
        let folder = folder();
        let acted = folder.rawfile(&format!("truncate file {len}"));
        let told = folder.told_by(POLICY, &acted, &["file.truncate"]);
        told.expect(
            &truth("file.truncate", acted.line("truncate"))
                .with("file.call", "truncate")
                .with("file.before.size", 7)
                .with("file.after.size", len),
        );
    }
}

#[test]
fn truncating_a_descriptor_tells_both_sizes() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("ftruncate file 3");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.truncate", "file.close"]);
    told.expect(
        &truth("file.truncate", acted.line("truncate"))
            .with("file.call", "ftruncate")
            .with("file.source", "kernel")
            .with("file.before.size", 7)
            .with("file.after.size", 3),
    );
}

#[test]
fn a_copy_by_the_kernel_tells_source_target_and_bytes() {
    skip_without_kernel!();
    for (words, act, call) in [
        ("copy-file-range", "copy_file_range", "copy_file_range"),
        ("sendfile", "sendfile", "sendfile"),
        ("splice", "splice", "splice"),
    ] {
        let folder = folder();
        let acted = folder.rawfile(&format!("{words} file copied"));
        let kinds = ["file.open", "file.create", "file.copy", "file.modify"];
        let told = folder.told_by(POLICY, &acted, &kinds);
        let line = acted.line(act);
        let source = &line["source_file"];
        told.expect(
            &file("file.copy")
                .with("file.path", folder.text("file"))
                .of_file("file", source)
                .with("file.source", "kernel")
                .with("file.call", call)
                .with("file.bytes", 7)
                .with("file.target.path", folder.text("copied"))
                .with("file.target.inode", line["inode"].clone())
                .with("file.target.device", line["device"].clone())
                .with("file.target.mode", line["mode"].clone())
                .with("file.target.size", 7),
        );
    }
}

#[test]
fn a_copy_in_parts_is_told_once() {
    skip_without_kernel!();
    let folder = folder();
    fs::write(folder.path("large"), vec![b'x'; 1 << 20]).unwrap();
    folder.settle();
    let acted = folder.rawfile("copy-file-range large copied");
    assert!(acted.line("copy_file_range")["steps"].as_u64().unwrap() > 8);
    let kinds = ["file.open", "file.create", "file.copy", "file.modify"];
    let told = folder.told_by(POLICY, &acted, &kinds);
    told.expect(&file("file.copy").with("file.bytes", 1 << 20).with("file.target.size", 1 << 20));
}

#[test]
fn a_copy_out_of_what_is_watched_is_told_and_so_is_one_into_it() {
    skip_without_kernel!();
    let folder = folder();
    let (out, other) = (elsewhere("copied-out"), elsewhere("to-be-copied"));
    fs::write(&other, "from elsewhere").unwrap();
    let acted = folder.rawfile(&format!("copy-file-range file {out}"));
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.copy"]);
    told.expect(
        &file("file.copy").with("file.path", folder.text("file")).with("file.target.path", out.as_str()),
    );
    let acted = folder.rawfile(&format!("copy-file-range {other} copied-in"));
    let kinds = ["file.create", "file.copy", "file.modify"];
    let told = folder.told_by(POLICY, &acted, &kinds);
    told.expect(
        &file("file.copy")
            .with("file.path", other.as_str())
            .with("file.target.path", folder.text("copied-in"))
            .with("file.bytes", 14),
    );
}

// Names

#[test]
fn a_removed_name_tells_the_file_that_it_was_of() {
    skip_without_kernel!();
    for call in ["unlink", "unlinkat"] {
        let folder = folder();
        let acted = folder.rawfile(&format!("unlink file --call {call}"));
        let told = folder.told_by(POLICY, &acted, &["file.delete"]);
        told.expect(
            &truth("file.delete", acted.line("unlink"))
                .but("file.links", 0)
                .with("file.source", "fanotify")
                .with("file.call", call)
                .without("file.deleted"),
        );
    }
}

#[test]
#[ignore = "a gap that is known: an empty file.attributes of the name that is left, sometimes"]
fn a_file_that_has_another_name_is_left_with_that() {
    skip_without_kernel!();
    let folder = folder();
    fs::hard_link(folder.path("file"), folder.path("second")).unwrap();
    folder.settle();
    let acted = folder.rawfile("unlink second");
    let told = folder.told_by(POLICY, &acted, &["file.delete"]);
    told.expect(&truth("file.delete", acted.line("unlink")).but("file.links", 1));
}

#[test]
fn a_removed_symbolic_link_is_told_and_not_what_it_led_to() {
    skip_without_kernel!();
    let folder = folder();
    std::os::unix::fs::symlink("file", folder.path("symbolic")).unwrap();
    folder.settle();
    let acted = folder.rawfile("unlink symbolic");
    let told = folder.told_by(POLICY, &acted, &["file.delete"]);
    told.expect(&truth("file.delete", acted.line("unlink")).but("file.links", 0));
}

#[test]
fn a_file_that_is_closed_after_its_name_is_gone_is_told_so() {
    skip_without_kernel!();
    let folder = folder();
    let held = File::options().append(true).open(folder.path("file")).unwrap();
    fs::remove_file(folder.path("file")).unwrap();
    let inode = held.metadata().unwrap().ino();
    drop(held);
    until("the close", || {
        let close = folder.events_of_test().into_iter().find(|event| event.kind() == "file.close")?;
        assert_eq!((close.number("file.inode"), close.field("file.deleted")), (inode, &Value::Bool(true)));
        Some(())
    });
}

#[test]
fn a_rename_tells_both_names() {
    skip_without_kernel!();
    for (words, call) in
        [("--call rename", "rename"), ("--call renameat", "renameat"), ("--flag noreplace", "renameat2")]
    {
        let folder = folder();
        let acted = folder.rawfile(&format!("rename file folder/new {words}"));
        let told = folder.told_by(POLICY, &acted, &["file.rename"]);
        told.expect(
            &truth("file.rename", acted.line("rename"))
                .with("file.target.path", folder.text("folder/new"))
                .with("file.source", "fanotify")
                .with("file.call", call)
                .without("file.replaced")
                .without("file.exchanged"),
        );
    }
}

#[test]
fn a_rename_tells_what_it_replaced() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("rename file other");
    let told = folder.told_by(POLICY, &acted, &["file.rename"]);
    let line = acted.line("rename");
    let replaced = |name: &str| line["replaced"][name].clone();
    told.expect(
        &truth("file.rename", line)
            .with("file.target.path", folder.text("other"))
            .with("file.replaced.inode", replaced("inode"))
            .with("file.replaced.size", 13)
            .with("file.replaced.mode", replaced("mode"))
            .with("file.replaced.uid", 0)
            .with("file.replaced.gid", 0)
            .without("file.exchanged"),
    );
}

#[test]
fn names_that_change_places_are_one_rename() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("exchange file other");
    let told = folder.told_by(POLICY, &acted, &["file.rename"]);
    let line = acted.line("rename");
    told.expect(
        &truth("file.rename", line)
            .with("file.target.path", folder.text("other"))
            .with("file.exchanged", true)
            .with("file.replaced.inode", line["replaced"]["inode"].clone()),
    );
}

#[test]
fn after_names_changed_places_each_file_is_known_by_its_new_one() {
    skip_without_kernel!();
    let folder = folder();
    folder.rawfile("exchange file other");
    folder.settle();
    let acted = folder.rawfile("unlink other");
    let told = folder.told_by(POLICY, &acted, &["file.delete"]);
    told.expect(&truth("file.delete", acted.line("unlink")).but("file.links", 0).with("file.size", 7));
}

#[test]
fn a_folder_that_is_renamed_has_its_files_by_the_new_name() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("rename folder renamed");
    let told = folder.told_by(POLICY, &acted, &["file.rename"]);
    told.expect(
        &file("file.rename")
            .with("file.path", folder.text("folder"))
            .with("file.target.path", folder.text("renamed"))
            .with("file.type", "directory")
            .with("file.inode", acted.line("rename")["inode"].clone()),
    );
    let acted = folder.rawfile("truncate renamed/inside 2");
    let told = folder.told_by(POLICY, &acted, &["file.truncate"]);
    told.expect(&truth("file.truncate", acted.line("truncate")).with("file.before.size", 6));
    let acted = folder.rawfile("unlink renamed/inside");
    let told = folder.told_by(POLICY, &acted, &["file.delete"]);
    told.expect(&truth("file.delete", acted.line("unlink")).but("file.links", 0));
}

#[test]
fn a_file_that_is_moved_away_is_told_with_where_it_went() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile(&format!("rename file {}", elsewhere("moved-away")));
    let told = folder.told_by(POLICY, &acted, &["file.rename"]);
    told.expect(
        &truth("file.rename", acted.line("rename")).with("file.target.path", elsewhere("moved-away")),
    );
}

#[test]
fn a_hard_link_tells_the_new_name_and_the_old_one() {
    skip_without_kernel!();
    for call in ["link", "linkat"] {
        let folder = folder();
        let acted = folder.rawfile(&format!("link file folder/second --call {call}"));
        let told = folder.told_by(POLICY, &acted, &["file.link"]);
        let line = acted.line("link");
        told.expect(
            &file("file.link")
                .with("file.path", folder.text("folder/second"))
                .with("file.target.path", folder.text("file"))
                .of_file("file", line)
                .with("file.links", 2)
                .with("file.call", call)
                .with("file.source", "fanotify")
                .without("file.symbolic"),
        );
    }
}

#[test]
fn a_symbolic_link_tells_its_text() {
    skip_without_kernel!();
    for call in ["symlink", "symlinkat"] {
        let folder = folder();
        let acted = folder.rawfile(&format!("symlink ../that/leads/nowhere symbolic --call {call}"));
        let told = folder.told_by(POLICY, &acted, &["file.link"]);
        told.expect(
            &truth("file.link", acted.line("symlink"))
                .with("file.target.path", "../that/leads/nowhere")
                .with("file.symbolic", true)
                .with("file.call", call),
        );
    }
}

#[test]
fn a_folder_is_made_and_removed() {
    skip_without_kernel!();
    for (made, removed) in [("mkdir", "rmdir"), ("mkdirat", "unlinkat")] {
        let folder = folder();
        let acted = folder.rawfile(&format!("mkdir new --mode 750 --call {made}"));
        let told = folder.told_by(POLICY, &acted, &["file.mkdir"]);
        told.expect(&truth("file.mkdir", acted.line("mkdir")).with("file.call", made));
        let acted = folder.rawfile(&format!("rmdir new --call {removed}"));
        let told = folder.told_by(POLICY, &acted, &["file.rmdir"]);
        let line = acted.line("rmdir");
        told.expect(
            &file("file.rmdir")
                .with("file.path", folder.text("new"))
                .with("file.type", "directory")
                .with("file.inode", line["inode"].clone())
                .with("file.mode", "0750")
                .with("file.call", removed),
        );
    }
}

// Attributes

#[test]
fn a_change_of_mode_tells_both() {
    skip_without_kernel!();
    for call in ["chmod", "fchmodat", "fchmodat2"] {
        let folder = folder();
        let acted = folder.rawfile(&format!("chmod file 4711 --call {call}"));
        let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
        told.expect(
            &truth("file.attributes", acted.line("chmod"))
                .with("file.call", call)
                .with("file.changed", ["mode"].as_slice())
                .with("file.before.mode", "0644")
                .with("file.after.mode", "4711")
                .without("file.xattr"),
        );
    }
}

#[test]
fn a_change_of_mode_of_an_open_file_tells_both() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("fchmod file 600");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.attributes"]);
    told.expect(
        &truth("file.attributes", acted.line("chmod"))
            .with("file.source", "kernel")
            .with("file.before.mode", "0644")
            .with("file.after.mode", "0600"),
    );
}

#[test]
fn a_change_of_the_mode_of_a_folder_is_told() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("chmod folder 700");
    let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
    told.expect(
        &truth("file.attributes", acted.line("chmod"))
            .with("file.before.mode", "0755")
            .with("file.after.mode", "0700"),
    );
}

#[test]
fn a_change_of_owner_tells_both() {
    skip_without_kernel!();
    for (words, call) in [("chown --call chown", "chown"), ("chown --call fchownat", "fchownat")] {
        let folder = folder();
        let acted = folder.rawfile(&format!("{words} file 1 2"));
        let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
        told.expect(
            &truth("file.attributes", acted.line("chown"))
                .with("file.call", call)
                .with("file.changed", ["owner", "group"].as_slice())
                .with("file.before.uid", 0)
                .with("file.before.gid", 0)
                .with("file.after.uid", 1)
                .with("file.after.gid", 2),
        );
    }
}

#[test]
fn a_change_of_the_owner_of_an_open_file_tells_both() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("fchown file 3 4");
    let told = folder.told_by(POLICY, &acted, &["file.open", "file.attributes"]);
    told.expect(
        &truth("file.attributes", acted.line("chown")).with("file.before.uid", 0).with("file.after.uid", 3),
    );
}

#[test]
fn a_change_of_times_tells_the_new_ones() {
    skip_without_kernel!();
    let folder = folder();
    let before = folder.path("file").metadata().unwrap();
    let acted = folder.rawfile("utimens file");
    let after = folder.path("file").metadata().unwrap();
    let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
    let event = told.expect(
        &truth("file.attributes", acted.line("utimens"))
            .with("file.call", "utimensat")
            .with("file.changed", ["times"].as_slice()),
    );
    let modified = |metadata: &fs::Metadata| {
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
    };
    assert_eq!(event.nanos("file.before.modified"), modified(&before));
    assert_eq!(event.nanos("file.after.modified"), modified(&after));
}

#[test]
fn an_extended_attribute_is_told_by_its_name() {
    skip_without_kernel!();
    for (words, act, call) in [
        ("setxattr file user.some value --call setxattr", "setxattr", "setxattr"),
        ("setxattr file user.some value --call lsetxattr", "setxattr", "lsetxattr"),
        ("removexattr file user.some --call removexattr", "removexattr", "removexattr"),
    ] {
        let folder = folder();
        if act == "removexattr" {
            setxattr(folder.path("file"), "user.some", b"value", XattrFlags::empty()).unwrap();
            folder.settle();
        }
        let acted = folder.rawfile(words);
        let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
        told.expect(
            &truth("file.attributes", acted.line(act))
                .with("file.call", call)
                .with("file.changed", ["xattr"].as_slice())
                .with("file.xattr", "user.some"),
        );
    }
}

#[test]
fn the_value_of_an_extended_attribute_is_not_told() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("setxattr file user.some ZQXJKVWYZ");
    let told = folder.told_by(POLICY, &acted, &["file.attributes"]);
    assert!(!told.0[0].field("file").to_string().contains("ZQXJ"), "{told}");
}

#[test]
fn an_access_control_list_is_told_as_one() {
    /// `struct posix_acl_xattr_entry`, of version 2: tag, permissions, ID
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/posix_acl_xattr.h>
    const ENTRIES: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)];
    skip_without_kernel!();
    let folder = folder();
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(ENTRIES.into_iter().flat_map(entry)).collect();
    setxattr(folder.path("file"), "system.posix_acl_access", &list, XattrFlags::empty()).unwrap();
    let event = until("the access control list", || folder.events_of_test().into_iter().next());
    assert_eq!((event.kind(), event.list("file.changed")), ("file.attributes", vec!["acl"]), "{event}");
    assert_eq!(event.text("file.path"), folder.text("file"));
}

// Mounts

#[test]
fn a_bind_mount_is_told_with_what_is_mounted_and_so_is_its_end() {
    skip_without_kernel!();
    let folder = folder();
    fs::create_dir(folder.path("there")).unwrap();
    let acted = folder.rawfile_in(&["unshare", "-m"], "open-bind folder there inside").unwrap();
    let told = folder.told(&acted, &["file.mount", "file.open", "file.mount"]);
    let mount = |operation| {
        file("file.mount")
            .with("process.pid", acted.ran.pid)
            .with("file.path", folder.text("there"))
            .with("file.mount.operation", operation)
    };
    told.expect(&mount("bind").with("file.mount.source", folder.text("folder")).with("file.call", "mount"));
    told.expect(&mount("umount").with("file.call", "umount2"));
}

#[test]
fn a_file_system_is_told_by_its_type() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("mount-tmpfs folder --unshare");
    let told = folder.told(&acted, &["file.mount"]);
    told.expect(
        &file("file.mount")
            .with("process.pid", acted.ran.pid)
            .with("file.path", folder.text("folder"))
            .with("file.mount.operation", "mount")
            .with("file.mount.source", "tmpfs")
            .with("file.mount.filesystem", "tmpfs"),
    );
}

#[test]
fn a_mount_that_moves_is_told_with_both_places() {
    skip_without_kernel!();
    for (words, call) in [("", "mount"), ("--new-api", "move_mount")] {
        let folder = folder();
        fs::create_dir(folder.path("there")).unwrap();
        let acted = folder.rawfile(&format!("move-mount folder there --unshare {words}"));
        let told = folder.told(&acted, &["file.mount", "file.mount"]);
        told.expect(
            &file("file.mount")
                .with("file.mount.operation", "move")
                .with("file.path", folder.text("there"))
                .with("file.mount.source", folder.text("folder"))
                .with("file.call", call),
        );
    }
}

#[test]
fn mounts_by_the_new_calls_are_told() {
    skip_without_kernel!();
    for (words, made) in [("", "mount"), ("--source folder", "clone")] {
        let folder = folder();
        fs::create_dir(folder.path("there")).unwrap();
        let acted = folder.rawfile(&format!("new-mount-api there --unshare {words}"));
        let mounts = mounts(&acted);
        assert_eq!(operations(&mounts), ["change", made, "attach"], "{mounts:?}");
        assert_eq!(mounts[2].text("file.path"), folder.text("there"));
        assert_eq!(mounts[2].text("file.call"), "move_mount");
    }
}

#[test]
fn another_root_is_told() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("pivot-root folder --unshare");
    let mounts = mounts(&acted);
    assert_eq!(operations(&mounts), ["change", "bind", "pivot_root", "umount"], "{mounts:?}");
    assert_eq!(mounts[3].list("file.mount.flags"), ["detach"], "{}", mounts[3]);
}
