//! What the kernel itself says of the agent's kernel programs: how much there was to verify, how often they ran
//! and for how long.

use std::{collections::BTreeMap, fs, os::fd::OwnedFd};

use anyhow::Result;
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use crate::{agent::field, table::Table};

/// A kernel program. Its times are counted as long as a [`Clocks`] is held.
#[derive(Clone, Debug, Serialize)]
pub struct KernelProgram {
    id: u32,
    pub name: String,
    /// Instructions that the verifier went through, some of them many times.
    pub verified: u64,
    pub runs: u64,
    pub run_ns: u64,
}

/// The kernel's clocks around every run of a BPF program of the whole machine. They count as long as this is held,
/// and are a part of what they measure.
pub struct Clocks(#[expect(dead_code, reason = "held")] OwnedFd);

impl Clocks {
    /// # Errors
    ///
    /// Before Linux 5.8.
    pub fn start() -> Result<Self> {
        Ok(Self(enable_stats(Stats::RunTime)?))
    }
}

/// The programs of which a process has descriptors.
pub fn held_by(pid: u32) -> Result<Vec<KernelProgram>> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile; those of programs are not.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let number = |name| field(&info, name).and_then(|number| number.parse().ok());
        // Links have the number of their program too, and nothing that it counts.
        // <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L2394-L2427>
        let (Some(id), Some(runs)) = (number("prog_id"), number("run_cnt")) else { continue };
        let run_ns = number("run_time_ns").unwrap_or(0);
        let verified = number("verified_insns").unwrap_or(0);
        held.insert(id, KernelProgram { id: 0, name: String::new(), verified, runs, run_ns });
    }
    let mut programs = Vec::new();
    for info in loaded_programs() {
        // Another's may go while they are listed.
        let Ok(info) = info else { continue };
        if let Some(program) = held.remove(&u64::from(info.id())) {
            let name = info.name_as_str().unwrap_or("?").to_owned();
            programs.push(KernelProgram { id: info.id(), name, ..program });
        }
    }
    Ok(programs)
}

/// What ran between two looks at the same programs.
pub fn between(before: &[KernelProgram], after: Vec<KernelProgram>) -> Vec<KernelProgram> {
    let then = |id| before.iter().find(|program| program.id == id).map_or((0, 0), |p| (p.runs, p.run_ns));
    let since = |program: KernelProgram| {
        let (runs, run_ns) = then(program.id);
        KernelProgram { runs: program.runs - runs, run_ns: program.run_ns - run_ns, ..program }
    };
    after.into_iter().map(since).collect()
}

/// A table of what ran for a reason that `what` names.
pub fn tell(what: &str, programs: &[KernelProgram]) {
    let mut table = Table::new(["kernel program", "verified instructions", "runs", "ns a run", "", ""]);
    for program in programs {
        let mean = program.run_ns.checked_div(program.runs).map_or_else(String::new, |ns| ns.to_string());
        table.row(&[
            program.name.clone(),
            program.verified.to_string(),
            program.runs.to_string(),
            mean,
            String::new(),
            String::new(),
        ]);
    }
    println!("\nIn a round of its own, {what}; the kernel's clocks are a part of these times");
    table.print();
}
