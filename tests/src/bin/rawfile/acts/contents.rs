//! Acts on what is in a file.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::{Bits, opening::Opening};
use crate::{
    call::Call,
    said::Line,
    session::{Session, argument},
};

/// What `fallocate` does with room.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Room {
    Allocate,
    KeepSize,
    PunchHole,
    ZeroRange,
    CollapseRange,
    InsertRange,
}

pub fn truncate(session: &mut Session, path: &Path, len: u64) -> Result<()> {
    let of_path = [Call::Truncate, Call::Truncate64];
    let call = session.choose(&[of_path, [Call::Ftruncate, Call::Ftruncate64]].concat())?;
    let is_wide = matches!(call, Call::Truncate64 | Call::Ftruncate64);
    let len = if is_wide { halves(len).to_vec() } else { vec![whole(len)] };
    if of_path.contains(&call) {
        let name = session.followed(path);
        let arguments = [vec![session.string(path)?], len].concat();
        session.act(call, &arguments, |_| {
            Ok(Line::new("truncate").path("path", &name.path).file(name.again().as_ref()))
        })?;
        return Ok(());
    }
    let file = session.open(path, libc::O_WRONLY)?;
    session.act_on(&file, "truncate", call, &len)?;
    session.close(&file)
}

pub fn fallocate(session: &mut Session, path: &Path, mode: Room, offset: u64, len: u64) -> Result<()> {
    let call = session.choose(&[Call::Fallocate])?;
    let mode = argument(mode.bits());
    let arguments = if session.is_narrow() {
        [&[mode], &halves(offset)[..], &halves(len)].concat()
    } else {
        vec![mode, whole(offset), whole(len)]
    };
    let file = session.open(path, libc::O_WRONLY | libc::O_CREAT)?;
    session.act_on(&file, "fallocate", call, &arguments)?;
    session.close(&file)
}

pub fn write(session: &mut Session, path: &Path, text: &str, opening: &Opening) -> Result<()> {
    let call = session.choose(&[Call::Write, Call::Pwrite64])?;
    let data = session.memory.bytes(text.as_bytes())?;
    let flags = if opening.has_flags() { opening.flags() } else { libc::O_WRONLY | libc::O_CREAT };
    let file = session.open(path, flags)?;
    let place = if call == Call::Pwrite64 { &[0, 0][..] } else { &[] };
    session.act_on(&file, "write", call, &[&[data, text.len()], place].concat())?;
    session.close(&file)
}

/// A length as 64-bit calls take it.
fn whole(len: u64) -> usize {
    usize::try_from(len).expect("pointers of 64 bits")
}

/// A length as 32-bit calls take it.
fn halves(len: u64) -> [usize; 2] {
    [len & u64::from(u32::MAX), len >> 32].map(whole)
}

// === impl Room ===

impl Bits for Room {
    fn bits(self) -> i32 {
        match self {
            Self::Allocate => 0,
            Self::KeepSize => libc::FALLOC_FL_KEEP_SIZE,
            Self::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Self::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            Self::CollapseRange => libc::FALLOC_FL_COLLAPSE_RANGE,
            Self::InsertRange => libc::FALLOC_FL_INSERT_RANGE,
        }
    }
}
