//! How often the log says that there is no connection: a backend that is away for a night is not a line every ten seconds.

use std::time::Duration;

use tokio::time::Instant;

/// After this time the same problem is told once more.
const AGAIN: Duration = Duration::from_mins(10);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Notices(Option<(String, Instant)>);

// === impl Notices ===

impl Notices {
    /// Whether to tell of a problem: it is the first, another one than was told last, or that was long ago.
    pub(super) fn is_due(&mut self, problem: &str, now: Instant) -> bool {
        let is_told =
            self.0.as_ref().is_some_and(|(told, when)| told == problem && now.duration_since(*when) < AGAIN);
        if !is_told {
            self.0 = Some((problem.to_owned(), now));
        }
        !is_told
    }

    /// There is a connection. True if it was told that there was none.
    pub(super) fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_when_it_comes_when_it_changes_and_now_and_then() {
        let mut notices = Notices::default();
        let start = Instant::now();
        let mut due = |problem, seconds| notices.is_due(problem, start + Duration::from_secs(seconds));
        assert!(due("refused", 0));
        assert!(!due("refused", 1));
        assert!(due("no route", 2));
        assert!(due("refused", 3));
        assert_eq!((4..1803).filter(|seconds| due("refused", *seconds)).collect::<Vec<_>>(), [603, 1203]);
        assert!(notices.is_over());
        assert!(!notices.is_over(), "it is told once");
        assert!(notices.is_due("refused", start + Duration::from_secs(1804)));
    }
}
