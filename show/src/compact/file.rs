//! What lines say of files.
//!
//! ```text
//! modify  root        9632 vim              /etc/passwd  1.2 KiB -> 1.3 KiB  [accounts]
//! ```
//!
//! The path, what is special to the kind, how often, and in brackets the watch policy.

use nightjar_proto::v1::{Event, FileActivity, FileAttributes, FileMount};

use super::{Colour, Line, amount, shown};

/// The word for a kind of the family `file`, and its colour.
pub fn what(kind: &str) -> (&'static str, Colour) {
    match kind {
        "file.open" => ("open", Colour::Grey),
        "file.create" => ("create", Colour::Green),
        "file.modify" => ("modify", Colour::Yellow),
        "file.close" => ("close", Colour::Grey),
        "file.delete" => ("delete", Colour::Red),
        "file.rename" => ("rename", Colour::Yellow),
        "file.link" => ("link", Colour::Green),
        "file.attributes" => ("attrs", Colour::Magenta),
        "file.truncate" => ("trunc", Colour::Yellow),
        "file.copy" => ("copy", Colour::Green),
        "file.mkdir" => ("mkdir", Colour::Green),
        "file.rmdir" => ("rmdir", Colour::Red),
        "file.mount" => ("mount", Colour::Magenta),
        _ => ("file", Colour::Grey),
    }
}

/// What was done to which file.
pub fn about(line: &mut Line, event: &Event, file: &FileActivity) {
    line.text(&path(file));
    match &*event.kind {
        "file.open" | "file.create" | "file.close" => opened(line, file),
        "file.modify" | "file.truncate" => lengths(line, file),
        "file.rename" => renamed(line, file),
        "file.link" => {
            target(line, file);
            line.part(if file.symbolic { "  symbolic" } else { "  hard" }, Some(Colour::Grey));
        }
        "file.attributes" => attributes(line, file),
        "file.copy" => {
            target(line, file);
            line.part(&format!("  {}", amount(file.bytes)), Some(Colour::Grey));
        }
        "file.mount" => {
            if let Some(mount) = &file.mount {
                mounted(line, mount);
            }
        }
        _ => {}
    }
    if file.source == "user_memory" {
        line.part("  not proven", Some(Colour::Yellow));
    }
    if file.count > 1 {
        line.part(&format!("  x{}", file.count), Some(Colour::Yellow));
    }
    if !file.policy.is_empty() {
        line.part(&format!("  [{}]", shown(&file.policy)), Some(Colour::Blue));
    }
}

/// With signs for what is missing of it.
fn path(file: &FileActivity) -> String {
    if file.path.is_empty() {
        return if file.inode == 0 {
            "?".to_owned()
        } else {
            format!("? (inode {} of {})", file.inode, shown(&file.device))
        };
    }
    let mut text = shown(&file.path);
    if file.path_truncated {
        // What the caller gave has lost its end, what the kernel resolved its beginning.
        text = if file.source == "user_memory" { format!("{text}…") } else { format!("…{text}") };
    }
    if file.deleted {
        text.push_str(" [deleted]");
    }
    text
}

fn target(line: &mut Line, file: &FileActivity) {
    if let Some(target) = &file.target {
        line.text(&format!(" -> {}", shown(&target.path)));
        // That the first name is not proven is said at the end.
        if target.source == "user_memory" && file.source != "user_memory" {
            line.part(" not proven", Some(Colour::Yellow));
        }
    }
}

fn opened(line: &mut Line, file: &FileActivity) {
    if !file.flags.is_empty() {
        line.part(&format!("  {}", file.flags.join(" ")), Some(Colour::Grey));
    }
    if file.created {
        line.part("  created", Some(Colour::Green));
    }
    if !file.errno.is_empty() {
        line.part(&format!("  {}", file.errno), Some(Colour::Yellow));
    }
}

fn lengths(line: &mut Line, file: &FileActivity) {
    let size = |attributes: &Option<FileAttributes>| attributes.as_ref().and_then(|known| known.size);
    match (size(&file.before), size(&file.after).or(file.size)) {
        (Some(before), Some(after)) if before == after => line.text(&format!("  {}", amount(after))),
        (Some(before), Some(after)) => {
            line.text(&format!("  {} -> {}", amount(before), amount(after)));
        }
        (_, Some(after)) => line.text(&format!("  now {}", amount(after))),
        (_, None) => {}
    }
    if file.bytes > 0 {
        line.part(&format!("  wrote {}", amount(file.bytes)), Some(Colour::Grey));
    }
    if file.ongoing {
        line.part("  still writing", Some(Colour::Grey));
    }
}

fn renamed(line: &mut Line, file: &FileActivity) {
    target(line, file);
    if file.exchanged {
        line.part(" exchanging both", Some(Colour::Yellow));
    } else if file.replaced.is_some() {
        line.part(" replacing it", Some(Colour::Yellow));
    }
}

/// What changed as `mode 0644 -> 4755`; of what has no two values here, the name alone.
fn attributes(line: &mut Line, file: &FileActivity) {
    let number = |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let before = file.before.clone().unwrap_or_default();
    let after = file.after.clone().unwrap_or_default();
    for name in &file.changed {
        match &**name {
            "mode" if !after.mode.is_empty() => {
                let was = if before.mode.is_empty() { "?" } else { &before.mode };
                line.text(&format!("  mode {was} -> {}", after.mode));
            }
            "owner" if after.uid.is_some() => {
                line.text(&format!("  owner {} -> {}", number(before.uid), number(after.uid)));
            }
            "group" if after.gid.is_some() => {
                line.text(&format!("  group {} -> {}", number(before.gid), number(after.gid)));
            }
            "xattr" if !file.xattr.is_empty() => line.text(&format!("  xattr {}", shown(&file.xattr))),
            _ => line.text(&format!("  {name}")),
        }
    }
}

fn mounted(line: &mut Line, mount: &FileMount) {
    line.text(&format!("  {}", mount.operation));
    if !mount.source.is_empty() {
        line.text(&format!(" of {}", shown(&mount.source)));
    }
    let words: Vec<&str> = [&mount.filesystem].into_iter().chain(&mount.flags).map(String::as_str).collect();
    let words = words.join(" ");
    if !words.trim().is_empty() {
        line.part(&format!("  {}", shown(words.trim())), Some(Colour::Grey));
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{FileReplaced, FileTarget, Process, event::Body};

    use super::*;
    use crate::compact::{Style, line};

    /// What stands after who did it.
    fn said(kind: &str, file: FileActivity) -> String {
        let process =
            Process { pid: 9632, user: "root".to_owned(), comm: "vim".to_owned(), ..Process::default() };
        let text = whole(kind, Some(process), file);
        text.split_once("vim              ").unwrap().1.trim_end_matches('\n').to_owned()
    }

    fn whole(kind: &str, process: Option<Process>, file: FileActivity) -> String {
        let event =
            Event { kind: kind.to_owned(), process, body: Some(Body::File(file)), ..Event::default() };
        let mut text = String::new();
        line(&event, Style::default(), &mut text);
        text
    }

    fn named(path: &str) -> FileActivity {
        FileActivity { path: path.to_owned(), source: "kernel".to_owned(), ..FileActivity::default() }
    }

    fn sized(size: u64) -> FileAttributes {
        FileAttributes { size: Some(size), ..FileAttributes::default() }
    }

    fn to(path: &str, source: &str) -> FileTarget {
        FileTarget { path: path.to_owned(), source: source.to_owned(), ..FileTarget::default() }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_change_tells_length_before_and_after_and_the_policy() {
        let file = FileActivity {
            before: Some(sized(1_280)),
            after: Some(sized(1_340)),
            policy: "accounts".to_owned(),
            ..named("/etc/passwd")
        };
        assert_eq!(said("file.modify", file), "/etc/passwd  1.2 KiB -> 1.3 KiB  [accounts]");
    }

    #[test]
    fn an_open_tells_how_and_what_came_of_it_and_how_often() {
        let open = |file| said("file.open", FileActivity { flags: words(&["read"]), ..file });
        let shadow = named("/etc/shadow");
        assert_eq!(
            open(FileActivity { policy: "secrets".to_owned(), count: 12, ..shadow.clone() }),
            "/etc/shadow  read  x12  [secrets]"
        );
        assert_eq!(
            open(FileActivity { errno: "EACCES".to_owned(), ..shadow.clone() }),
            "/etc/shadow  read  EACCES"
        );
        assert_eq!(open(FileActivity { created: true, ..shadow }), "/etc/shadow  read  created");
    }

    #[test]
    fn a_rename_tells_the_new_name_and_whether_something_lost_it() {
        let file = FileActivity { target: Some(to("/etc/b", "")), ..named("/etc/a") };
        assert_eq!(said("file.rename", file.clone()), "/etc/a -> /etc/b");
        let replacing = FileActivity { replaced: Some(FileReplaced::default()), ..file };
        assert_eq!(said("file.rename", replacing.clone()), "/etc/a -> /etc/b replacing it");
        let exchanged = FileActivity { exchanged: true, ..replacing };
        assert_eq!(said("file.rename", exchanged), "/etc/a -> /etc/b exchanging both");
    }

    #[test]
    fn a_name_from_the_memory_of_the_caller_is_said_not_to_be_proven() {
        let file = FileActivity { source: "user_memory".to_owned(), ..named("/tmp/x") };
        assert_eq!(said("file.delete", file.clone()), "/tmp/x  not proven");
        let both = FileActivity { target: Some(to("/tmp/y", "")), ..file };
        assert_eq!(said("file.rename", both), "/tmp/x -> /tmp/y  not proven");
        let second =
            FileActivity { target: Some(to("/tmp/y", "user_memory")), symbolic: true, ..named("/tmp/x") };
        assert_eq!(said("file.link", second), "/tmp/x -> /tmp/y not proven  symbolic");
    }

    #[test]
    fn attributes_tell_both_values_where_there_are_two() {
        let attributes = |mode: &str, uid| {
            Some(FileAttributes { mode: mode.to_owned(), uid: Some(uid), ..FileAttributes::default() })
        };
        let file = FileActivity {
            changed: words(&["mode", "owner", "times", "xattr"]),
            before: attributes("0644", 1000),
            after: attributes("4755", 0),
            xattr: "security.capability".to_owned(),
            ..named("/tmp/x")
        };
        assert_eq!(
            said("file.attributes", file),
            "/tmp/x  mode 0644 -> 4755  owner 1000 -> 0  times  xattr security.capability"
        );
    }

    #[test]
    fn other_kinds_tell_what_is_special_to_them() {
        let copy = FileActivity { target: Some(to("/srv/x", "")), bytes: 1 << 20, ..named("/tmp/x") };
        assert_eq!(said("file.copy", copy), "/tmp/x -> /srv/x  1.0 MiB");
        let truncated = FileActivity { size: Some(0), ..named("/tmp/x") };
        assert_eq!(said("file.truncate", truncated), "/tmp/x  now 0 B");
        let mount = FileMount {
            operation: "mount".to_owned(),
            source: "/dev/sdb1".to_owned(),
            filesystem: "ext4".to_owned(),
            flags: words(&["nosuid"]),
        };
        let mount = FileActivity { mount: Some(mount), ..named("/mnt") };
        assert_eq!(said("file.mount", mount), "/mnt  mount of /dev/sdb1  ext4 nosuid");
        assert_eq!(said("file.mkdir", named("/tmp/a\nb")), r"/tmp/a\nb");
    }

    #[test]
    fn what_is_missing_of_a_path_is_said() {
        let cut = |source: &str| {
            let source = source.to_owned();
            said("file.open", FileActivity { source, path_truncated: true, ..named("a/b") })
        };
        assert_eq!(cut("kernel"), "…a/b");
        assert_eq!(cut("user_memory"), "a/b…  not proven");
        assert_eq!(said("file.open", FileActivity { deleted: true, ..named("/tmp/x") }), "/tmp/x [deleted]");
        assert_eq!(said("file.open", named("")), "?");
        let numbered = FileActivity { inode: 7, device: "8:1".to_owned(), ..named("") };
        assert_eq!(said("file.open", numbered), "? (inode 7 of 8:1)");
    }

    #[test]
    fn who_did_it_can_be_unknown() {
        let text = whole("file.create", None, named("/srv/x"));
        assert_eq!(text, "00:00:00.000  create  ?              ? ?                /srv/x\n");
    }

    #[test]
    fn every_kind_of_the_family_has_a_word() {
        let kinds = nightjar_proto::KINDS.iter().map(|kind| kind.name);
        let mut words: Vec<_> =
            kinds.filter(|kind| kind.starts_with("file.")).map(|kind| what(kind).0).collect();
        assert!(!words.contains(&"file") && words.iter().all(|word| word.len() <= 6), "{words:?}");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 13);
    }
}
