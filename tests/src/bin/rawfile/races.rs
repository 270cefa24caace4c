//! Calls whose path changes while they are made.
//!
//! A second thread writes one name and the other over it, as fast as it can, while the first thread makes the call.
//! Who reads the path when the call begins may see another than the kernel takes. What really happened is told by
//! what has become of the files.

use std::{
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    call::Call,
    entry::Done,
    said::{Line, say},
    session::{How, Session, argument},
    truth::{File, Name},
};

/// Race a call against a thread that changes its path
#[derive(Debug, Args)]
pub struct Race {
    #[arg(value_enum, ignore_case = true)]
    act: Raced,
    a: PathBuf,
    /// Of the same length, and other only in bytes that are at most 8 apart
    b: PathBuf,
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Raced {
    /// Open one of two files that are there
    Open,
    /// Remove one of two files that are made for each round
    Unlink,
    /// Rename one of two files that are made for each round
    Rename,
}

/// A path that is one of two, by the eight bytes in which they differ.
#[derive(Debug)]
struct Flipped {
    /// Both, with slashes before them that the kernel takes for one.
    texts: [Vec<u8>; 2],
    /// Where the eight bytes are; a multiple of 8.
    offset: usize,
    words: [u64; 2],
}

const WORD: usize = 8;

// === impl Race ===

impl Race {
    pub fn run(&self) -> Result<()> {
        let mut session = Session::start(&self.how)?;
        let names = [session.name(&self.a), session.name(&self.b)].map(|name| name.path);
        let flipped = Flipped::new(&names[0], &names[1])?;
        let path = session.memory.bytes(&[&flipped.texts[0][..], &[0]].concat())?;
        // SAFETY: eight bytes inside of that string, at a multiple of 8, which this process changes only so.
        let word = unsafe { AtomicU64::from_ptr((path + flipped.offset) as *mut u64) };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    flipped.words.iter().for_each(|bytes| word.store(*bytes, Ordering::Relaxed));
                }
            });
            let raced = self.race(&mut session, path, &names);
            stop.store(true, Ordering::Relaxed);
            raced
        })
    }

    fn race(&self, session: &mut Session, path: usize, names: &[PathBuf; 2]) -> Result<()> {
        let mut happened = [0_u32; 2];
        for round in 0..self.rounds {
            for name in names {
                make(name)?;
            }
            let before = names.clone().map(|name| Name::of(None, &name));
            let (which, line) = match self.act {
                Raced::Open => open(session, path, &before)?,
                Raced::Unlink => unlink(session, path, &before)?,
                Raced::Rename => rename(session, path, &before)?,
            };
            happened[which] += 1;
            let name = &before[which];
            line.path("path", &name.path)
                .file(name.file.as_ref())
                .with("round", round)
                .with("via", self.how.via.name())
                .say()?;
        }
        say(&json!({"summary": true, "a": happened[0], "b": happened[1]}))?;
        Ok(())
    }
}

/// Makes a file that is not there. Nothing is said of it.
fn make(path: &Path) -> Result<()> {
    if File::at(path).is_none() {
        let made = fs::File::options().append(true).create_new(true).open(path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}

fn open(session: &mut Session, path: usize, names: &[Name; 2]) -> Result<(usize, Line)> {
    let call = session.choose(&[Call::Open, Call::Openat])?;
    let arguments = match call {
        Call::Open => vec![path, 0],
        _ => vec![session.folder(), path, 0],
    };
    let fd = expect(call, session.call(call, &arguments)?)?;
    // SAFETY: just opened, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
    let file = File::of(&fd)?;
    let which = names.iter().position(|name| name.file.as_ref() == Some(&file));
    let which = which.with_context(|| format!("opened a third file: {file:?}"))?;
    Ok((which, Line::new("open").with("call", call.name()).with("fd", fd.as_raw_fd())))
}

fn unlink(session: &mut Session, path: usize, names: &[Name; 2]) -> Result<(usize, Line)> {
    let call = session.choose(&[Call::Unlink, Call::Unlinkat])?;
    let arguments = match call {
        Call::Unlink => vec![path],
        _ => vec![session.folder(), path, 0],
    };
    expect(call, session.call(call, &arguments)?)?;
    Ok((gone(names)?, Line::new("unlink").with("call", call.name())))
}

fn rename(session: &mut Session, path: usize, names: &[Name; 2]) -> Result<(usize, Line)> {
    let call = session.choose(&[Call::Rename, Call::Renameat, Call::Renameat2])?;
    let mut target = names[0].path.clone().into_os_string();
    target.push(".renamed");
    // Over those of the last round, lest memory runs out.
    let bytes = [target.as_bytes(), &[0]].concat();
    let to = session.memory.bytes_once(&bytes)?;
    let (folder, flags) = (session.folder(), argument(0));
    let arguments = match call {
        Call::Rename => vec![path, to],
        Call::Renameat => vec![folder, path, folder, to],
        _ => vec![folder, path, folder, to, flags],
    };
    expect(call, session.call(call, &arguments)?)?;
    let which = gone(names)?;
    ensure!(File::at(&target) == names[which].file, "{} is another file than was renamed", target.display());
    Ok((which, Line::new("rename").with("call", call.name()).path("new_path", target)))
}

/// Which name no longer leads to anything.
fn gone(names: &[Name; 2]) -> Result<usize> {
    let gone: Vec<usize> = (0..2).filter(|which| names[*which].again().is_none()).collect();
    ensure!(gone.len() == 1, "{} of two names are gone; it should be one", gone.len());
    Ok(gone[0])
}

fn expect(call: Call, done: Done) -> Result<usize> {
    done.with_context(|| format!("{} of a path that changes", call.name()))
}

// === impl Flipped ===

impl Flipped {
    /// Puts as many slashes before absolute paths that the bytes that differ are in one aligned word: it is written
    /// at once, so that there is never a mixture of both names.
    fn new(a: &Path, b: &Path) -> Result<Self> {
        let texts = [a, b].map(|path| path.as_os_str().as_bytes());
        let (a, b) = (a.display(), b.display());
        ensure!(texts[0].len() == texts[1].len(), "{a} and {b} are not of the same length");
        let differs = |at: &usize| texts[0][*at] != texts[1][*at];
        let first =
            (0..texts[0].len()).find(differs).with_context(|| format!("{a} is the only name; give two"))?;
        let last = (0..texts[0].len()).rfind(differs).expect("the first differs");
        ensure!(
            last - first < WORD,
            "{a} and {b} differ in bytes that are {WORD} or more apart; use names that differ in fewer"
        );
        let slashes = (0..WORD).find(|slashes| (first + slashes) / WORD == (last + slashes) / WORD);
        let slashes = slashes.expect("eight bytes fit in a word of eight");
        let texts = texts.map(|text| {
            let mut text = [&b"/".repeat(slashes)[..], text].concat();
            // The word may reach beyond the zero at the end, which only more zeros may follow.
            text.resize(text.len().next_multiple_of(WORD), 0);
            text
        });
        let offset = (first + slashes) / WORD * WORD;
        let word = |text: &Vec<u8>| text[offset..offset + WORD].try_into().map(u64::from_ne_bytes);
        let words = [&texts[0], &texts[1]].map(|text| word(text).expect("eight bytes"));
        Ok(Self { texts, offset, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_in_one_aligned_word() {
        let names =
            [("/a", "/b"), ("/folder/a", "/folder/b"), ("/a-b", "/b-a"), ("/1/a------a", "/1/b------b")];
        for (a, b) in names {
            let flipped = Flipped::new(Path::new(a), Path::new(b)).unwrap();
            let mut text = flipped.texts[0].clone();
            text[flipped.offset..flipped.offset + WORD].copy_from_slice(&flipped.words[1].to_ne_bytes());
            assert_eq!(text, flipped.texts[1]);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.trim_end_matches('\0').trim_start_matches('/'), b.trim_start_matches('/'));
        }
    }

    #[test]
    fn names_that_differ_too_far_apart_are_refused() {
        assert!(Flipped::new(Path::new("/a-------a"), Path::new("/b-------b")).is_err());
        assert!(Flipped::new(Path::new("/a"), Path::new("/ab")).is_err());
        assert!(Flipped::new(Path::new("/a"), Path::new("/a")).is_err());
    }
}
