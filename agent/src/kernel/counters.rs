//! What the kernel programs counted.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{MapData, MapError, PerCpuArray};
use nightjar_abi::hook::{DropReason, Hook, HookCounters};

type Words = [u64; HookCounters::WORDS];

/// Reads the counters of all hooks.
pub struct Counters {
    map: PerCpuArray<MapData, Words>,
    /// Programs whose runs the kernel may have skipped, by the hook that they serve.
    programs: Vec<(Hook, OwnedFd)>,
}

/// The counters of all hooks at a moment, summed over CPUs, since the agent's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample(Vec<HookCounters>);

impl Counters {
    pub(super) fn new(map: PerCpuArray<MapData, Words>, programs: Vec<(Hook, OwnedFd)>) -> Self {
        Self { map, programs }
    }

    /// Looks at these programs from now on.
    pub fn of(&mut self, programs: Vec<(Hook, OwnedFd)>) {
        self.programs = programs;
    }

    /// Takes a sample. The hooks count on meanwhile: the sums hold between samples taken at rest, and
    /// within the calls in flight under load.
    ///
    /// # Errors
    /// When the kernel does not give the map's values.
    pub fn sample(&self) -> Result<Sample, MapError> {
        let mut hooks = Vec::with_capacity(Hook::ALL.len());
        for hook in Hook::ALL {
            let mut sum = HookCounters::default();
            for cpu in self.map.get(&u32::from(*hook as u16), 0)?.iter() {
                sum.add(&HookCounters::from_words(*cpu));
            }
            hooks.push(sum);
        }
        // A program that would interrupt itself is not run; the kernel counts that, our code cannot.
        for (hook, program) in &self.programs {
            let skipped = recursion_misses(program);
            let sum = &mut hooks[*hook as usize];
            sum.seen += skipped;
            sum.dropped[DropReason::Nested as usize] += skipped;
        }
        Ok(Sample(hooks))
    }
}

/// `recursion_misses` of a program, from what the kernel says of its descriptor (5.12).
fn recursion_misses(program: &OwnedFd) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    fs::read_to_string(path)
        .ok()
        .and_then(|info| {
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        })
        .unwrap_or(0)
}

// === impl Sample ===

impl Sample {
    /// Nothing counted yet.
    #[must_use]
    pub fn zero() -> Self {
        Self(vec![HookCounters::default(); Hook::ALL.len()])
    }

    /// Counters of one hook.
    #[must_use]
    pub fn hook(&self, hook: Hook) -> &HookCounters {
        &self.0[hook as usize]
    }

    /// Records put into rings by all hooks.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.0.iter().map(|hook| hook.submitted).sum()
    }

    /// Records lost by all hooks.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.iter().map(HookCounters::dropped_total).sum()
    }

    /// Drops that are in this sample and not in an earlier one.
    #[must_use]
    pub fn dropped_since(&self, earlier: &Self) -> Vec<(Hook, DropReason, u64)> {
        let mut drops = Vec::new();
        for hook in Hook::ALL {
            let (now, then) = (self.hook(*hook), earlier.hook(*hook));
            for reason in DropReason::ALL {
                let count = now.dropped[reason as usize].saturating_sub(then.dropped[reason as usize]);
                if count > 0 {
                    drops.push((*hook, reason, count));
                }
            }
        }
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_by_hook_and_reason_once() {
        let before = Sample::zero();
        let mut after = before.clone();
        after.0[Hook::Exec as usize].dropped[DropReason::RingFull as usize] = 3;

        assert_eq!(after.dropped_since(&before), [(Hook::Exec, DropReason::RingFull, 3)]);
        assert_eq!(after.dropped_since(&after), []);
    }
}
