//! Which events are wanted: by kind, program, user, container and cgroup.

use nightjar_abi::settings::leave_out;
use nightjar_proto::v1::Event;
use wildmatch::WildMatch;

use super::Kinds;

/// What conditions look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `process.exec`
    pub kind: &'a str,
    /// Path of the executable.
    pub exe: &'a str,
    /// Real and effective user: number and name (empty where there is none).
    pub users: [(u32, &'a str); 2],
    /// ID of the container; empty where there is none.
    pub container: &'a str,
    /// Path of the cgroup.
    pub cgroup: &'a str,
    /// It is in another user namespace than the first, where anybody can mount any file at any path.
    pub in_own_user_namespace: bool,
}

/// Conditions, all of which must hold. Where a list is empty there is no condition.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Kinds of events; none: all.
    pub kinds: Option<Kinds>,
    /// Globs over the path of the executable.
    pub exes: Vec<WildMatch>,
    /// Globs over the name or the number of users.
    pub users: Vec<WildMatch>,
    /// Whether one of real and effective user is enough. Else both must fit: a set-user-ID program is then
    /// not taken for what its caller does.
    pub either_user: bool,
    /// Globs over the container's ID, see [`container_glob`].
    pub containers: Vec<WildMatch>,
    /// Globs over the path of the cgroup.
    pub cgroups: Vec<WildMatch>,
}

/// What becomes of an event that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is exported.
    Keep,
    /// It is left out and counted.
    Drop,
}

/// Rules, of which the first that fits decides. What none fits is kept.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<(Action, Match)>);

/// A container's ID, or the beginning of one, or any glob: `*` for whatever is in a container.
#[must_use]
pub fn container_glob(text: &str) -> WildMatch {
    // At least one more character would have to be there for `?*`: nothing is no container.
    if text == "*" { WildMatch::new("?*") } else { WildMatch::new(&format!("{text}*")) }
}

/// A container's ID, unless its cgroup is where users make their own.
fn believed<'a>(container: &'a str, cgroup: &str) -> &'a str {
    if cgroup.starts_with("/user.slice/") { "" } else { container }
}

fn any(globs: &[WildMatch], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

// === impl Facts ===

impl<'a> Facts<'a> {
    /// Of a finished event.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        let mut facts = Self { kind: &event.kind, ..Self::default() };
        let Some(process) = &event.process else { return facts };
        facts.exe = process.exe.as_ref().map_or("", |exe| &exe.path);
        let uid = process.uid.unwrap_or(u32::MAX);
        let euid = process.euid.unwrap_or(uid);
        let euser = if euid == uid { &process.user } else { &process.euser };
        facts.users = [(uid, &process.user), (euid, euser)];
        facts.container = process.container.as_ref().map_or("", |container| &container.id);
        facts.cgroup = process.cgroup.as_ref().map_or("", |cgroup| &cgroup.path);
        facts
    }
}

// === impl Match ===

impl Match {
    /// Whether events of a kind can fit.
    #[must_use]
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.include(kind))
    }

    /// Whether all conditions hold.
    #[must_use]
    pub fn fits(&self, facts: &Facts<'_>) -> bool {
        let is_user =
            |(uid, name): &(u32, &str)| any(&self.users, name) || any(&self.users, &uid.to_string());
        self.is_kind(facts.kind)
            && any(&self.exes, facts.exe)
            && any(&self.containers, facts.container)
            && any(&self.cgroups, facts.cgroup)
            && (self.users.is_empty()
                || if self.either_user {
                    facts.users.iter().any(is_user)
                } else {
                    facts.users.iter().all(is_user)
                })
    }

    /// Whether all conditions hold where only kind, container and cgroup are known; `None`: it depends.
    fn fits_cgroup(&self, kind: &str, container: &str, cgroup: &str) -> Option<bool> {
        let can = self.is_kind(kind) && any(&self.containers, container) && any(&self.cgroups, cgroup);
        match (can, self.exes.is_empty() && self.users.is_empty()) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }
}

// === impl Filter ===

impl Filter {
    /// In this order.
    #[must_use]
    pub fn new(rules: Vec<(Action, Match)>) -> Self {
        Self(rules)
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an event of this is wanted.
    ///
    /// Nobody can hide behind a rule by a name that anybody can take: a path in a user namespace of one's own, a
    /// cgroup that looks like a container's in one's own part of the hierarchy. Such a process is not dropped for it.
    #[must_use]
    pub fn keeps(&self, facts: &Facts<'_>) -> bool {
        let claims = Facts { container: believed(facts.container, facts.cgroup), ..*facts };
        let first = self.0.iter().find(|(action, conditions)| match action {
            Action::Keep => conditions.fits(facts),
            Action::Drop => {
                let by_path_of_its_own = facts.in_own_user_namespace && !conditions.exes.is_empty();
                !by_path_of_its_own && conditions.fits(&claims)
            }
        });
        first.is_none_or(|(action, _)| *action == Action::Keep)
    }

    /// Records that need not be made for a cgroup, since whatever else they say they would be dropped: bits of
    /// [`leave_out`].
    ///
    /// Forks and exits are always made: the process table lives on them. Nor does anything that depends on the
    /// program or the user end in the kernel: an exec by somebody who is not watched may be the parent of one
    /// who is, as with sudo.
    #[must_use]
    pub fn left_out_of(&self, container: &str, cgroup: &str) -> u64 {
        const KINDS: [(&str, u64); 3] = [
            ("process.exec", leave_out::EXEC),
            ("process.exec_failed", leave_out::EXEC_FAILED),
            ("process.credentials", leave_out::CREDENTIALS),
        ];
        let is_dropped = |kind: &str| {
            let decides = self.0.iter().find_map(|(action, conditions)| {
                let container = match action {
                    Action::Keep => container,
                    Action::Drop => believed(container, cgroup),
                };
                match (conditions.fits_cgroup(kind, container, cgroup), action) {
                    (Some(true), action) => Some(*action),
                    // Somebody may be kept by it.
                    (None, Action::Keep) => Some(Action::Keep),
                    // On whom it does not fit the rules below decide.
                    (Some(false), _) | (None, Action::Drop) => None,
                }
            });
            decides == Some(Action::Drop)
        };
        KINDS.iter().filter(|(kind, _)| is_dropped(kind)).fold(0, |bits, (_, bit)| bits | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: Facts<'_> = Facts {
        kind: "process.exec",
        exe: "/usr/bin/ls",
        users: [(33, "www-data"), (33, "www-data")],
        container: "",
        cgroup: "/system.slice/nginx.service",
        in_own_user_namespace: false,
    };
    const IN_CONTAINER: Facts<'_> = Facts { container: "0123abcd", cgroup: "/docker/0123abcd", ..EXEC };

    fn globs(globs: &[&str]) -> Vec<WildMatch> {
        globs.iter().map(|glob| WildMatch::new(glob)).collect()
    }

    fn kinds(glob: &str) -> Kinds {
        Kinds::of(&[glob.to_owned()]).unwrap()
    }

    fn drop_if(conditions: Match) -> Filter {
        Filter::new(vec![(Action::Drop, conditions)])
    }

    #[test]
    fn without_rules_everything_is_kept() {
        assert!(Filter::default().keeps(&EXEC));
        assert_eq!(Filter::default().left_out_of("", "/"), 0);
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let both = drop_if(Match {
            kinds: Some(kinds("process.*")),
            exes: globs(&["/bin/*", "/usr/bin/l?"]),
            ..Match::default()
        });
        assert!(!both.keeps(&EXEC));
        assert!(both.keeps(&Facts { exe: "/usr/sbin/ls", ..EXEC }));
        assert!(both.keeps(&Facts { kind: "file.open", ..EXEC }));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let only_containers = Filter::new(vec![
            (Action::Keep, Match { containers: vec![container_glob("*")], ..Match::default() }),
            (Action::Drop, Match::default()),
        ]);
        assert!(only_containers.keeps(&IN_CONTAINER));
        assert!(!only_containers.keeps(&EXEC));
    }

    #[test]
    fn users_have_names_and_numbers() {
        for user in ["www-data", "33", "www-*"] {
            assert!(!drop_if(Match { users: globs(&[user]), ..Match::default() }).keeps(&EXEC), "{user}");
        }
        assert!(drop_if(Match { users: globs(&["3"]), ..Match::default() }).keeps(&EXEC));
    }

    #[test]
    fn a_program_that_runs_with_more_rights_than_its_user_has_is_not_dropped_with_the_user() {
        let sudo = Facts { users: [(33, "www-data"), (0, "root")], ..EXEC };
        let users = globs(&["www-data"]);
        assert!(drop_if(Match { users: users.clone(), ..Match::default() }).keeps(&sudo));
        assert!(!drop_if(Match { users, either_user: true, ..Match::default() }).keeps(&sudo));
    }

    #[test]
    fn nobody_hides_behind_a_path_or_a_cgroup_of_its_own_making() {
        let by_path = drop_if(Match { exes: globs(&["/usr/bin/ls"]), ..Match::default() });
        assert!(!by_path.keeps(&EXEC));
        assert!(by_path.keeps(&Facts { in_own_user_namespace: true, ..EXEC }));
        let by_container = drop_if(Match { containers: vec![container_glob("*")], ..Match::default() });
        let own = "/user.slice/user-33.slice/user@33.service/docker-0123abcd.scope";
        assert!(!by_container.keeps(&IN_CONTAINER));
        assert!(by_container.keeps(&Facts { cgroup: own, ..IN_CONTAINER }));
        assert_eq!(by_container.left_out_of("0123abcd", own), 0);
    }

    #[test]
    fn a_container_is_known_by_the_beginning_of_its_id() {
        let by = |text| drop_if(Match { containers: vec![container_glob(text)], ..Match::default() });
        assert!(!by("0123").keeps(&IN_CONTAINER));
        assert!(!by("0123abcd").keeps(&IN_CONTAINER));
        assert!(by("123").keeps(&IN_CONTAINER));
        assert!(by("0123").keeps(&EXEC) && by("*").keeps(&EXEC));
    }

    #[test]
    fn the_kernel_leaves_out_what_the_cgroup_alone_decides() {
        let all = leave_out::EXEC | leave_out::EXEC_FAILED | leave_out::CREDENTIALS;
        let nginx = Match { cgroups: globs(&["/system.slice/nginx*"]), ..Match::default() };
        assert_eq!(drop_if(nginx.clone()).left_out_of("", EXEC.cgroup), all);
        assert_eq!(drop_if(nginx.clone()).left_out_of("", "/user.slice"), 0);
        let execs = Match { kinds: Some(kinds("process.exec")), ..nginx.clone() };
        assert_eq!(drop_if(execs).left_out_of("", EXEC.cgroup), leave_out::EXEC);
        // One of them may be kept.
        let but_root = Match { users: globs(&["root"]), ..Match::default() };
        let filter = Filter::new(vec![(Action::Keep, but_root), (Action::Drop, nginx.clone())]);
        assert_eq!(filter.left_out_of("", EXEC.cgroup), 0);
        // One of them may be dropped before: then all of them are.
        let ls = Match { exes: globs(&["/usr/bin/ls"]), ..Match::default() };
        let filter = Filter::new(vec![(Action::Drop, ls), (Action::Drop, nginx.clone())]);
        assert_eq!(filter.left_out_of("", EXEC.cgroup), all);
        // By the program: it may be somebody's parent.
        let program = Match { exes: globs(&["/usr/bin/ls"]), ..nginx };
        assert_eq!(drop_if(program).left_out_of("", EXEC.cgroup), 0);
        let containers = Match { containers: vec![container_glob("*")], ..Match::default() };
        assert_eq!(drop_if(containers).left_out_of("0123", "/docker/0123"), all);
    }
}
