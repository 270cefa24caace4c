//! How long to wait before the next attempt to reach the backend.

use std::time::Duration;

/// Waits that grow with each failure, each of random length between nothing and a bound that doubles ("full jitter"): so
/// that a thousand agents do not come back at once when a backend is started again.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// The bound is `first` after one failure and never above `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// After a failure: how long to wait.
    pub fn wait(&mut self) -> Duration {
        let mut bytes = [0; 4];
        // Without random bytes all wait the longest, which is safe.
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK).is_ok();
        self.wait_with(if filled { u32::from_ne_bytes(bytes) } else { u32::MAX })
    }

    /// The bound of all waits.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn wait_with(&mut self, random: u32) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

impl Default for Backoff {
    /// From a quarter of a second to ten: a thousand agents are a hundred attempts a second then.
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_and_begins_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(6));
        let mut bounds =
            |count| (0..count).map(|_| backoff.wait_with(u32::MAX).as_secs()).collect::<Vec<_>>();
        assert_eq!(bounds(5), [1, 2, 4, 6, 6]);
        backoff.reset();
        assert_eq!(backoff.wait_with(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn a_thousand_failures_are_no_overflow() {
        let mut backoff = Backoff::default();
        assert!((0..1000).all(|_| backoff.wait() <= Duration::from_secs(10)));
    }

    #[test]
    fn waits_are_spread_over_the_whole_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(backoff.wait_with(0), Duration::ZERO);
        let waits: Vec<_> = (0..200).map(|_| backoff.wait()).collect();
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(250)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(750)));
    }
}
