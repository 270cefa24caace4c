//! Makes file system calls in every odd way, so that tests can see whether each is seen.
//!
//! It prints one line of JSON for each act, with the truth as this program knows it by itself: which file, by which
//! thread, how it ended. It exits with 0 if every call ended as it should, with 77 and `{"skipped": REASON}` where
//! the kernel lacks what was asked for, else with 1.
//!
//! What the program itself looks at it does by `stat` and `readlink`, so that between its start and its end it opens
//! no files of its own, but with `--verify`. What a call needs to be open has a line as well, with
//! `"preparation": true`. Files that a race needs in each round are made without a word.

#![allow(unsafe_code, reason = "its whole purpose is system calls that no library offers")]

mod acts;
mod call;
mod child;
mod descriptors;
mod entry;
#[cfg(target_arch = "x86_64")]
mod int80;
mod loops;
mod memory;
mod mounts;
mod opened;
mod opens;
mod operations;
mod races;
mod random;
mod said;
mod session;
mod storm;
mod transfers;
mod truth;
mod uring;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::said::{FailedAsExpected, Skipped};

/// Make file system calls in odd ways, and tell the truth about each
#[derive(Debug, Parser)]
#[command(name = "rawfile", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Act(acts::Act),
    #[command(flatten)]
    Open(opens::Open),
    #[command(flatten)]
    Descriptor(descriptors::Descriptor),
    #[command(flatten)]
    Transfer(transfers::Transfer),
    #[command(flatten)]
    Mount(mounts::Mount),
    #[command(flatten)]
    Loop(loops::Loop),
    Race(races::Race),
    Random(random::Random),
    Storm(storm::Storm),
}

/// As Automake's tests end that are skipped.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let result = Cli::parse().command.run();
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.is::<FailedAsExpected>() {
        return ExitCode::SUCCESS;
    }
    if let Some(Ok(())) = error.downcast_ref::<Skipped>().map(Skipped::say) {
        return SKIPPED.into();
    }
    eprintln!("rawfile: {error:#}");
    ExitCode::FAILURE
}

// === impl Command ===

impl Command {
    fn run(&self) -> Result<()> {
        match self {
            Self::Act(act) => act.run(),
            Self::Open(open) => open.run(),
            Self::Descriptor(descriptor) => descriptor.run(),
            Self::Transfer(transfer) => transfer.run(),
            Self::Mount(mount) => mount.run(),
            Self::Loop(repeated) => repeated.run(),
            Self::Race(race) => race.run(),
            Self::Random(random) => random.run(),
            Self::Storm(storm) => storm.run(),
        }
    }
}
