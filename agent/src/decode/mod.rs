//! Record bytes to typed records.
//!
//! Any bytes give a [`Record`] or a named [`DecodeError`]: the programs that made them are ours, but
//! another version of them, or a kernel that does not do what we think, must be seen and not believed.

mod body;

use nightjar_abi::record::{
    ABI_VERSION, Anchor, Credentials, Creds, Exec, ExecFailed, Exit, FileCall, FileInfo, FileOpen, Fork,
    Header, Kind, Namespaces, NewCgroup, Operand, Snapshot, SocketCall, SocketInfo, SocketState, Span,
    TaskInfo, TaskRef, span_flags,
};

/// A record, its texts borrowed from the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// [`Exec`]
    Exec(ExecRecord<'a>),
    /// [`ExecFailed`]
    ExecFailed(ExecFailed, Text<'a>),
    /// [`Fork`]
    Fork(Fork),
    /// [`Exit`]
    Exit(Exit),
    /// [`Credentials`]
    Credentials(Credentials),
    /// [`Snapshot`]
    Snapshot(SnapshotRecord<'a>),
    /// [`NewCgroup`]
    NewCgroup(NewCgroup, Text<'a>),
    /// [`FileOpen`]
    FileOpen(FileOpenRecord<'a>),
    /// [`FileCall`]
    FileCall(FileCallRecord<'a>),
    /// [`SocketCall`]
    SocketCall(SocketCallRecord<'a>),
    /// [`SocketState`]
    SocketState(SocketState),
}

/// What a process did with a socket, with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketCallRecord<'a> {
    /// The fixed part.
    pub body: SocketCall,
    /// Name of a unix socket.
    pub path: Text<'a>,
}

/// A file that was opened, with its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOpenRecord<'a> {
    /// The fixed part.
    pub body: FileOpen,
    /// Path of the file.
    pub path: Text<'a>,
    /// Path asked for, of failed calls.
    pub name: Text<'a>,
    /// Path within the file system, where a part of that is mounted.
    pub volume: Text<'a>,
}

/// A call that changed files, with its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCallRecord<'a> {
    /// The fixed part.
    pub body: FileCall,
    /// The first thing it acted on.
    pub first: OperandTexts<'a>,
    /// The second.
    pub second: OperandTexts<'a>,
    /// What a link leads to, the name of an attribute.
    pub text: Text<'a>,
}

/// Texts of an [`Operand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperandTexts<'a> {
    /// Path of the open file, or of the directory that the name starts from.
    pub path: Text<'a>,
    /// The name.
    pub name: Text<'a>,
    /// Of the path, within the file system, where a part of that is mounted.
    pub volume: Text<'a>,
}

/// An exec with its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecRecord<'a> {
    /// The fixed part.
    pub body: Exec,
    /// Path of the file that runs.
    pub exe: Text<'a>,
    /// Working directory.
    pub cwd: Text<'a>,
    /// Path given to the call.
    pub filename: Text<'a>,
    /// Interpreter that a script names; empty where there is none.
    pub interp: Text<'a>,
    /// Path of the cgroup.
    pub cgroup_path: Text<'a>,
    /// Arguments, each ended by a zero byte.
    pub args: Text<'a>,
    /// Environment variables that may be among those asked for, each ended by a zero byte.
    pub environment: Text<'a>,
}

/// A process of the snapshot with its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRecord<'a> {
    /// The fixed part.
    pub body: Snapshot,
    /// Path of the file that runs.
    pub exe: Text<'a>,
    /// Working directory.
    pub cwd: Text<'a>,
    /// Path of the cgroup.
    pub cgroup_path: Text<'a>,
}

/// Bytes of a record's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes that are there.
    pub bytes: &'a [u8],
    /// More were, but not all could be taken.
    pub truncated: bool,
    /// A path that does not lead to the root of the mount namespace.
    pub unreachable: bool,
    /// They could not be read.
    pub unreadable: bool,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a header, or less than the kind's fixed part.
    #[error("record of {len} bytes is shorter than its fixed part of {needed}")]
    Short {
        /// Bytes there are.
        len: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The header's length is another than the ring's.
    #[error("record says it is {stated} bytes long but {len} came")]
    Length {
        /// What the header says.
        stated: u32,
        /// What came.
        len: usize,
    },
    /// Made by other programs than this agent's.
    #[error("record has version {found}, this agent reads version {ABI_VERSION}")]
    Version {
        /// Version found.
        found: u16,
    },
    /// A kind that does not exist.
    #[error("record has the unknown kind {0}")]
    Kind(u16),
    /// A text that reaches out of its record.
    #[error("{field} of a record reaches from {start} over {len} bytes, outside the record's tail")]
    Span {
        /// Name of the text.
        field: &'static str,
        /// Where it starts.
        start: u16,
        /// Its length.
        len: u16,
    },
}

/// When a record was made, in nanoseconds since boot; `None` if it is no record.
#[must_use]
pub fn time_of(bytes: &[u8]) -> Option<u64> {
    fixed::<Header>(bytes).ok().map(|header| header.time)
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are not a record of this version, with what is wrong about them.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let header: Header = fixed(bytes)?;
    if header.abi != ABI_VERSION {
        return Err(DecodeError::Version { found: header.abi });
    }
    if header.len as usize != bytes.len() {
        return Err(DecodeError::Length { stated: header.len, len: bytes.len() });
    }
    let kind = Kind::from_number(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    Ok(match kind {
        Kind::Exec => {
            let body: Exec = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<Exec>() };
            Record::Exec(ExecRecord {
                body,
                exe: tail.text("exe", body.exe)?,
                cwd: tail.text("cwd", body.cwd)?,
                filename: tail.text("filename", body.filename)?,
                interp: tail.text("interp", body.interp)?,
                cgroup_path: tail.text("cgroup_path", body.cgroup_path)?,
                args: tail.text("args", body.args)?,
                environment: tail.text("environment", body.environment)?,
            })
        }
        Kind::ExecFailed => {
            let body: ExecFailed = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<ExecFailed>() };
            Record::ExecFailed(body, tail.text("filename", body.filename)?)
        }
        Kind::Fork => Record::Fork(fixed(bytes)?),
        Kind::Exit => Record::Exit(fixed(bytes)?),
        Kind::Credentials => Record::Credentials(fixed(bytes)?),
        Kind::NewCgroup => {
            let body: NewCgroup = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<NewCgroup>() };
            Record::NewCgroup(body, tail.text("path", body.path)?)
        }
        Kind::FileOpen => {
            let body: FileOpen = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<FileOpen>() };
            Record::FileOpen(FileOpenRecord {
                body,
                path: tail.text("path", body.path)?,
                name: tail.text("name", body.name)?,
                volume: tail.text("volume", body.volume)?,
            })
        }
        Kind::FileCall => {
            let body: FileCall = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<FileCall>() };
            let operand = |operand: &Operand| {
                Ok(OperandTexts {
                    path: tail.text("path", operand.path)?,
                    name: tail.text("name", operand.name)?,
                    volume: tail.text("volume", operand.volume)?,
                })
            };
            Record::FileCall(FileCallRecord {
                body,
                first: operand(&body.first)?,
                second: operand(&body.second)?,
                text: tail.text("text", body.text)?,
            })
        }
        Kind::SocketCall => {
            let body: SocketCall = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<SocketCall>() };
            Record::SocketCall(SocketCallRecord { body, path: tail.text("path", body.path)? })
        }
        Kind::SocketState => Record::SocketState(fixed(bytes)?),
        Kind::Snapshot => {
            let body: Snapshot = fixed(bytes)?;
            let tail = Tail { bytes, start: size_of::<Snapshot>() };
            Record::Snapshot(SnapshotRecord {
                body,
                exe: tail.text("exe", body.exe)?,
                cwd: tail.text("cwd", body.cwd)?,
                cgroup_path: tail.text("cgroup_path", body.cgroup_path)?,
            })
        }
    })
}

/// Splits bytes that are records one after another, as the task iterator gives them, into single ones. An
/// impossible length ends it: what follows cannot be found.
pub fn split(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let len = match fixed::<Header>(bytes) {
            Ok(header)
                if header.len as usize >= size_of::<Header>() && header.len as usize <= bytes.len() =>
            {
                header.len as usize
            }
            Ok(header) => {
                let error = DecodeError::Length { stated: header.len, len: bytes.len() };
                bytes = &[];
                return Some(Err(error));
            }
            Err(error) => {
                bytes = &[];
                return Some(Err(error));
            }
        };
        let (record, rest) = bytes.split_at(len);
        bytes = rest;
        Some(Ok(record))
    })
}

/// Bytes up to the first zero: names that the kernel pads.
#[must_use]
pub fn padded(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..len]
}

fn fixed<T: body::Body>(bytes: &[u8]) -> Result<T, DecodeError> {
    body::read(bytes).ok_or(DecodeError::Short { len: bytes.len(), needed: size_of::<T>() })
}

/// What follows the fixed part.
struct Tail<'a> {
    bytes: &'a [u8],
    start: usize,
}

impl<'a> Tail<'a> {
    fn text(&self, field: &'static str, span: Span) -> Result<Text<'a>, DecodeError> {
        let outside = DecodeError::Span { field, start: span.start, len: span.len };
        let start = usize::from(span.start);
        if start < self.start {
            return Err(outside);
        }
        let bytes = self.bytes.get(start..start + usize::from(span.len)).ok_or(outside)?;
        Ok(Text {
            bytes,
            truncated: span.flags & span_flags::TRUNCATED != 0,
            unreachable: span.flags & span_flags::UNREACHABLE != 0,
            unreadable: span.flags & span_flags::FAULT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fork(len: u32, abi: u16, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Fork>()];
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&abi.to_ne_bytes());
        bytes[6..8].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    fn fork_len() -> u32 {
        u32::try_from(size_of::<Fork>()).unwrap()
    }

    fn exec(tail: &[u8], spans: [(u16, u16); 7]) -> Vec<u8> {
        let fixed = size_of::<Exec>();
        let mut bytes = vec![0; fixed];
        let total = u32::try_from(fixed + tail.len()).unwrap();
        bytes[0..4].copy_from_slice(&total.to_ne_bytes());
        bytes[4..6].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(Kind::Exec as u16).to_ne_bytes());
        let first = std::mem::offset_of!(Exec, exe);
        for (index, (start, len)) in spans.into_iter().enumerate() {
            let at = first + index * size_of::<Span>();
            bytes[at..at + 2].copy_from_slice(&start.to_ne_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&len.to_ne_bytes());
        }
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_name() {
        let error = decode(&fork(fork_len(), ABI_VERSION + 1, Kind::Fork as u16)).unwrap_err();
        assert_eq!(error, DecodeError::Version { found: ABI_VERSION + 1 });
    }

    #[test]
    fn a_record_that_lies_about_its_length_is_refused() {
        let error = decode(&fork(fork_len() + 8, ABI_VERSION, Kind::Fork as u16)).unwrap_err();
        assert_eq!(error, DecodeError::Length { stated: fork_len() + 8, len: size_of::<Fork>() });
    }

    #[test]
    fn a_kind_that_does_not_exist_is_refused() {
        assert_eq!(decode(&fork(fork_len(), ABI_VERSION, 99)).unwrap_err(), DecodeError::Kind(99));
    }

    #[test]
    fn a_record_shorter_than_its_kind_is_refused() {
        let bytes = &mut fork(24, ABI_VERSION, Kind::Fork as u16)[..24];
        assert_eq!(decode(bytes).unwrap_err(), DecodeError::Short { len: 24, needed: size_of::<Fork>() });
        assert!(matches!(decode(&[]), Err(DecodeError::Short { .. })));
    }

    #[test]
    fn texts_are_found_in_the_tail() {
        let fixed = u16::try_from(size_of::<Exec>()).unwrap();
        let bytes = exec(
            b"/bin/lsls\0-l\0A=1\0",
            [(fixed, 7), (fixed, 0), (fixed, 0), (fixed, 0), (fixed, 0), (fixed + 7, 6), (fixed + 13, 4)],
        );
        let Record::Exec(record) = decode(&bytes).unwrap() else { panic!("not an exec") };
        assert_eq!(record.exe.bytes, b"/bin/ls");
        assert_eq!(record.args.bytes, b"ls\0-l\0");
        assert_eq!(record.environment.bytes, b"A=1\0");
    }

    #[test]
    fn a_text_outside_the_tail_is_refused_by_name() {
        let fixed = u16::try_from(size_of::<Exec>()).unwrap();
        let none = (fixed, 0);
        let bytes = exec(b"abc", [(fixed, 3), (fixed, 4), none, none, none, none, none]);
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Span { field: "cwd", start: fixed, len: 4 });
        let bytes = exec(b"abc", [(0, 3), none, none, none, none, none, none]);
        assert!(matches!(decode(&bytes), Err(DecodeError::Span { field: "exe", .. })));
    }

    #[test]
    fn records_in_a_row_are_told_apart_and_a_bad_length_ends_it() {
        let mut bytes = fork(fork_len(), ABI_VERSION, Kind::Fork as u16);
        bytes.extend(fork(3, ABI_VERSION, Kind::Fork as u16));
        let parts: Vec<_> = split(&bytes).collect();
        assert_eq!(parts.len(), 2);
        assert!(parts[0].is_ok());
        assert!(matches!(parts[1], Err(DecodeError::Length { stated: 3, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_give_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let _either = decode(&bytes);
            for part in split(&bytes) {
                let _either = part.and_then(decode);
            }
        }

        #[test]
        fn any_bytes_behind_a_true_header_give_a_record_or_an_error(
            kind in 0_u16..11,
            mut bytes in proptest::collection::vec(any::<u8>(), 24..2048),
        ) {
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[0..4].copy_from_slice(&len.to_ne_bytes());
            bytes[4..6].copy_from_slice(&ABI_VERSION.to_ne_bytes());
            bytes[6..8].copy_from_slice(&kind.to_ne_bytes());
            let _either = decode(&bytes);
        }
    }
}
