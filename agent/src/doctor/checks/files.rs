//! Whether files can be watched, and how many are.

use std::error::Error as _;

use nightjar_proto::KINDS;

use crate::{
    doctor::{Finding, host::Host},
    files::{
        fanotify::FanotifyError,
        limits,
        policy::Policies,
        resolve::{Root, resolve},
    },
};

/// The kernel's notifications.
pub(in crate::doctor) fn fanotify(host: &Host) -> Finding {
    match &host.facts.fanotify {
        Ok(features) if features.rename => Finding::ok("tells of files and their names"),
        Ok(_) => Finding::limited(
            "tells of files and their names, of a rename as if one file went and another came",
            "which name a file had before it was renamed, where no system call is seen that did it",
            "run Linux 5.17 or later",
        ),
        Err(error) => refused(error),
    }
}

fn refused(error: &FanotifyError) -> Finding {
    const LOST: &str = "changes of content (file.modify, file.close); what 32-bit calls and io_uring do with files; \
                        the certainty of names that system calls were given";
    let text = error.to_string();
    // They say what is wrong and then what to do.
    let (found, mend) = text.split_once("; ").unwrap_or((&text, "let the agent call fanotify_init"));
    match error.source() {
        Some(source) => Finding::limited(format!("{found}: {source}"), LOST, mend),
        None => Finding::limited(found, LOST, mend),
    }
}

/// What the watch policies cover as files are now.
pub(super) fn watched(host: &Host) -> Finding {
    let config = host.config();
    let files = &config.files;
    if !KINDS.iter().any(|kind| kind.name.starts_with("file.") && config.records(kind.name)) {
        return Finding::ok("none: the setting kinds leaves no events of files");
    }
    let policies = match Policies::compile(files.policies()) {
        Ok(policies) => policies,
        // The agent does not start with it, which another check tells.
        Err(error) => return Finding::unknown(error.to_string()),
    };
    if !host.may_watch() {
        return Finding::unknown("not counted: that needs root");
    }
    let root = Root { fs: host.path("/"), prefix: String::new(), containers_only: false };
    let found = resolve(&policies, &root, limits(files.directories as usize), &mut |_, _| {});
    let count = format!("{} files in {} directories", found.files, found.directories);
    if found.truncated {
        return Finding::limited(
            format!("{count}, and more that watch policies cover"),
            "some of what is done in the directories that are left",
            format!("raise files.directories (now {}), or let policies cover less", files.directories),
        );
    }
    if files.all {
        return Finding::ok(format!("{count} by watch policies, and opens of all others (files.all)"));
    }
    Finding::ok(count)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::{
        config::Watch,
        doctor::{Outcome, host::testing::Fixture},
        files::fanotify::Features,
        service::Capability,
    };

    #[test]
    fn each_refusal_of_fanotify_says_what_to_do() {
        for error in [
            FanotifyError::NotPermitted,
            FanotifyError::NotBuilt,
            FanotifyError::TooOld,
            FanotifyError::TooManyGroups,
            FanotifyError::Open(Errno::NOMEM),
        ] {
            let finding = refused(&error);
            assert_eq!(finding.result, Outcome::Limited);
            assert!(finding.found.starts_with("cannot watch files by fanotify"), "{finding:?}");
            assert!(!finding.mend.is_empty() && !finding.found.contains(&finding.mend), "{finding:?}");
        }
        assert!(refused(&FanotifyError::Open(Errno::NOMEM)).found.contains("memory"));
    }

    #[test]
    fn fanotify_that_does_not_know_renames_is_less() {
        assert_eq!(fanotify(&Fixture::new().host).result, Outcome::Ok);
        let old =
            Fixture::new().facts(|facts| facts.fanotify = Ok(Features { target_fid: true, rename: false }));
        assert_eq!(fanotify(&old.host).result, Outcome::Limited);
    }

    fn watching(paths: &[&str]) -> Fixture {
        let watch = Watch {
            name: "test".to_owned(),
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            recursive: true,
            ignore: Vec::new(),
            operations: vec!["all".to_owned()],
            containers: false,
        };
        Fixture::new().file("/srv/a/b/file", "").file("/srv/other", "").configured(|config| {
            (config.files.defaults, config.files.watch) = (false, vec![watch]);
        })
    }

    #[test]
    fn what_is_watched_is_counted() {
        assert_eq!(watched(&watching(&["/srv"]).host), Finding::ok("2 files in 4 directories"));
        let all = watching(&["/srv"]).configured(|config| config.files.all = true);
        assert!(watched(&all.host).found.contains("files.all"));
    }

    #[test]
    fn more_directories_than_may_be_watched_is_told_with_the_setting() {
        let many = (0..40).fold(watching(&["/srv"]), |fixture, n| fixture.folder(&format!("/srv/{n}")));
        let finding = watched(&many.configured(|config| config.files.directories = 16).host);
        assert_eq!(finding.result, Outcome::Limited, "{finding:?}");
        assert!(finding.mend.contains("files.directories (now 16)"), "{finding:?}");
    }

    #[test]
    fn what_is_not_asked_for_is_not_counted() {
        let without = watching(&["/srv"]).configured(|config| config.kinds = vec!["process.*".to_owned()]);
        assert!(watched(&without.host).found.starts_with("none: "));
        assert_eq!(watched(&watching(&["/srv"]).without(Capability::Bpf).host).result, Outcome::Unknown);
    }
}
