//! Makes calls on sockets in every odd way, so that tests can see whether each is seen.
//!
//! It prints one line of JSON for each act, with the truth as this program knows it by itself: both ends as
//! `getsockname` and `getpeername` tell them, by which thread, how it ended, how much went which way. It exits with 0
//! if every call ended as it should, with 77 and `{"skipped": REASON}` where the kernel lacks what was asked for, else
//! with 1.
//!
//! What waits for something waits for a line on standard input, or its end.

#![allow(unsafe_code, reason = "its whole purpose is system calls that no library offers")]

mod address;
mod call;
#[path = "../rawfile/child.rs"]
#[expect(dead_code, reason = "children of this program say what they do by themselves")]
mod child;
mod churn;
mod connect;
mod datagrams;
mod hand;
#[cfg(target_arch = "x86_64")]
#[path = "../rawfile/int80.rs"]
mod int80;
mod memory;
mod namespace;
mod operations;
mod others;
mod protocol;
mod races;
mod said;
mod serve;
mod socket;
#[path = "../rawfile/uring.rs"]
#[expect(dead_code, reason = "threads of rings are what files are asked about only")]
mod uring;
mod way;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::said::Skipped;

/// Make calls on sockets in odd ways, and tell the truth about each
#[derive(Debug, Parser)]
#[command(name = "rawnet", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Connect(connect::Connect),
    Serve(serve::Serve),
    Adopt(hand::Adopt),
    Send(datagrams::Send),
    Answer(datagrams::Answer),
    Race(races::Race),
    Churn(churn::Churn),
    Many(churn::Many),
    Unshare(namespace::Unshare),
    #[command(flatten)]
    Other(others::Other),
}

/// As Automake's tests end that are skipped.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let result = Cli::parse().command.run();
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(Ok(())) = error.downcast_ref::<Skipped>().map(Skipped::say) {
        return SKIPPED.into();
    }
    eprintln!("rawnet: {error:#}");
    ExitCode::FAILURE
}

// === impl Command ===

impl Command {
    fn run(&self) -> Result<()> {
        match self {
            Self::Connect(connect) => connect.run(),
            Self::Serve(serve) => serve.run(),
            Self::Adopt(adopt) => adopt.run(),
            Self::Send(send) => send.run(),
            Self::Answer(answer) => answer.run(),
            Self::Race(race) => race.run(),
            Self::Churn(churn) => churn.run(),
            Self::Many(many) => many.run(),
            Self::Unshare(unshare) => unshare.run(),
            Self::Other(other) => other.run(),
        }
    }
}
