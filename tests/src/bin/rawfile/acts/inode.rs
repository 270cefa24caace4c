//! Acts on what a file is: its mode, owner, attributes and times.

use std::path::Path;

use anyhow::Result;

use super::wide;
use crate::{call::Call, said::Line, session::Session};

pub fn chmod(session: &mut Session, path: &Path, mode: u32) -> Result<()> {
    let call = session.choose(&[Call::Chmod, Call::Fchmodat, Call::Fchmodat2, Call::Fchmod])?;
    let mode = wide(mode);
    match call {
        Call::Chmod => by_path(session, "chmod", call, path, false, &[mode]),
        Call::Fchmod => by_descriptor(session, "chmod", call, path, &[mode]),
        _ => by_path(session, "chmod", call, path, true, &[mode, 0]),
    }
}

pub fn chown(session: &mut Session, path: &Path, uid: u32, gid: u32) -> Result<()> {
    const OF_PATH: [Call; 4] = [Call::Chown, Call::Lchown, Call::Chown32, Call::Lchown32];
    const OF_DESCRIPTOR: [Call; 2] = [Call::Fchown, Call::Fchown32];
    let call = session.choose(&[&OF_PATH[..], &[Call::Fchownat], &OF_DESCRIPTOR].concat())?;
    let owner = [wide(uid), wide(gid)];
    if OF_DESCRIPTOR.contains(&call) {
        return by_descriptor(session, "chown", call, path, &owner);
    }
    by_path(session, "chown", call, path, call == Call::Fchownat, &[&owner[..], &[0]].concat())
}

pub fn setxattr(session: &mut Session, path: &Path, name: &str, value: &str) -> Result<()> {
    let call = session.choose(&[Call::Setxattr, Call::Lsetxattr, Call::Fsetxattr])?;
    let (key, bytes) = (session.string(name)?, session.memory.bytes(value.as_bytes())?);
    let arguments = [key, bytes, value.len(), 0];
    match call {
        Call::Fsetxattr => by_descriptor(session, "setxattr", call, path, &arguments),
        _ => by_path(session, "setxattr", call, path, false, &arguments),
    }
}

pub fn removexattr(session: &mut Session, path: &Path, name: &str) -> Result<()> {
    let call = session.choose(&[Call::Removexattr, Call::Lremovexattr, Call::Fremovexattr])?;
    let key = session.string(name)?;
    match call {
        Call::Fremovexattr => by_descriptor(session, "removexattr", call, path, &[key]),
        _ => by_path(session, "removexattr", call, path, false, &[key]),
    }
}

pub fn utimens(session: &mut Session, path: &Path) -> Result<()> {
    let call = session.choose(&[Call::Utimensat])?;
    // No times are the present ones.
    by_path(session, "utimens", call, path, true, &[0, 0])
}

/// A call on what a path leads to, with a folder before the path where the call takes one.
fn by_path(
    session: &mut Session,
    act: &str,
    call: Call,
    path: &Path,
    takes_folder: bool,
    arguments: &[usize],
) -> Result<()> {
    let stops_at_link = matches!(call, Call::Lchown | Call::Lchown32 | Call::Lsetxattr | Call::Lremovexattr);
    let name = if stops_at_link { session.name(path) } else { session.followed(path) };
    let text = session.string(path)?;
    let folder = if takes_folder { vec![session.folder()] } else { Vec::new() };
    let arguments = [&folder[..], &[text], arguments].concat();
    session.act(call, &arguments, |_| {
        let line = Line::new(act).path("path", &name.path).file(name.again().as_ref());
        Ok(line.other_file("before", name.file.as_ref()))
    })?;
    Ok(())
}

fn by_descriptor(
    session: &mut Session,
    act: &str,
    call: Call,
    path: &Path,
    arguments: &[usize],
) -> Result<()> {
    let file = session.open(path, libc::O_RDONLY)?;
    session.act_on(&file, act, call, arguments)?;
    session.close(&file)
}
