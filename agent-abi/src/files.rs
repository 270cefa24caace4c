//! What the kernel programs and the agent agree on about files: what is watched, what is folded, which system
//! calls change files and where in their arguments the names are.

/// A key of the map `WATCHED`: an inode, or a name in a directory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// Inode number; of a name, that of the directory it is in.
    pub inode: u64,
    /// [`name_key`] of a name; zero for the inode itself.
    pub name: u64,
    /// Device in the kernel's own form: `major << 20 | minor`.
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}

/// A value of the map `WATCHED`: how far below the inode (1: itself, 2: and what is in it, and so on) something may
/// be watched, so that it is worth a record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watched {
    /// Opens that can only read.
    pub reads: u32,
    /// Everything else.
    pub writes: u32,
    /// Whether `WATCHED` has names in this directory of which reads are wanted; 0 or 1.
    pub names: u32,
    /// Zero.
    pub reserved: u32,
}

/// Levels that have no end.
pub const ALL_LEVELS: u32 = 255;

/// Directories up from a file that are looked for in `WATCHED`.
pub const WATCH_DEPTH: u32 = 48;

/// A key for a file name: its first eight bytes, its last eight and its length, mixed. Names that differ may have the
/// same; the agent looks at the name itself.
#[must_use]
#[inline(always)]
pub fn name_key(head: u64, last: u64, len: u64) -> u64 {
    // Never zero, which stands for the inode itself.
    (head ^ last.rotate_left(29) ^ (len << 56)) | 1
}

/// [`name_key`] of a name of at most 255 bytes, as the kernel programs make it.
#[must_use]
pub fn key_of_name(name: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    let head = word(&name[..name.len().min(8)]);
    let last = if name.len() > 8 { word(&name[name.len() - 8..]) } else { 0 };
    name_key(head, last, name.len() as u64)
}

/// A key of the map `FOLDED`: who did what to which file.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FoldKey {
    /// Inode number.
    pub inode: u64,
    /// When the process started: `CLOCK_BOOTTIME` nanoseconds of its leader.
    pub start: u64,
    /// `task_struct.self_exec_id`
    pub exec_id: u64,
    /// Device of the inode.
    pub device: u32,
    /// Process ID.
    pub pid: u32,
    /// `O_*` flags of the open file.
    pub flags: u32,
    /// Hook, and the lowest bit of the window that it is counted in.
    pub hook_and_window: u32,
}

/// A value of the map `FOLDED`: repeats of what was told once.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many, the first not counted.
    pub count: u64,
    /// Time of the last, nanoseconds since boot.
    pub last: u64,
}

/// The value of the map `FILE_SETTINGS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// Raised by the agent when it has changed what is watched.
    pub epoch: u64,
    /// Every open is wanted, wherever; 0 or 1.
    pub all: u64,
    /// Opens that failed are wanted; 0 or 1.
    pub failed: u64,
    /// Whether some inode is watched for itself, wherever its names are: 1 for opens that can only read, 2 for
    /// everything else.
    pub hard_links: u64,
    /// Number of the window in which repeats are folded now; zero: they are not.
    pub window: u64,
    /// The agent's process ID: what it does with files is not told.
    pub own_pid: u64,
    /// Thread of the agent that wants to know how the kernel numbers what it opens; zero: none.
    pub asking_tid: u64,
    /// Names on `/proc` (its first eight bytes, zeros at their end) of which every open is wanted.
    pub proc_names: [u64; PROC_NAMES],
}

/// Most names on `/proc`.
pub const PROC_NAMES: usize = 4;

impl FileSettings {
    /// Numbers that settings consist of.
    pub const WORDS: usize = 7 + PROC_NAMES;

    /// The numbers that settings consist of, in the order of the fields.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let fields =
            [self.epoch, self.all, self.failed, self.hard_links, self.window, self.own_pid, self.asking_tid];
        for (word, field) in words.iter_mut().zip(fields.into_iter().chain(self.proc_names)) {
            *word = field;
        }
        words
    }
}

const _: () = assert!(size_of::<FileSettings>() == FileSettings::WORDS * size_of::<u64>());

/// The value of the map `IDENTITY`: how the kernel numbers what [`FileSettings::asking_tid`] has just opened.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelInode {
    /// Raised with every answer.
    pub answers: u64,
    /// Inode number.
    pub inode: u64,
    /// Device.
    pub device: u64,
}

/// Where a call has what it acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere.
    None,
    /// A descriptor in this argument.
    Fd(u8),
    /// A name in this argument, from the working directory.
    Name(u8),
    /// A name in the second argument, from the directory in the first.
    At(u8, u8),
}

/// What a call does to what it acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Opens a file, perhaps a new one.
    Open,
    /// Takes a name away.
    Delete,
    /// Takes a directory away.
    Rmdir,
    /// Gives a file another name in place of the one it has.
    Rename,
    /// Gives a file one more name.
    Link,
    /// Makes a symbolic link.
    Symlink,
    /// Makes a directory.
    Mkdir,
    /// Makes a special file.
    Mknod,
    /// Changes the size.
    Truncate,
    /// Changes the permissions.
    Mode,
    /// Changes the owner.
    Owner,
    /// Changes the times.
    Times,
    /// Sets an extended attribute.
    SetXattr,
    /// Takes an extended attribute away.
    RemoveXattr,
    /// Copies from one file into another.
    Copy,
    /// Mounts a file system, or a directory elsewhere.
    Mount,
    /// Takes a mount away.
    Umount,
    /// Moves a mount.
    MoveMount,
    /// Changes what the root directory is.
    PivotRoot,
    /// Changes a mount.
    MountSetattr,
    /// Makes a mount, or a copy of one, that is attached nowhere yet.
    DetachedMount,
}

/// A system call that changes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number on x86-64.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub act: Act,
    /// The first thing it acts on: the old name, the source.
    pub first: Place,
    /// The second: the new name, the destination.
    pub second: Place,
    /// An argument that is a text, if any: what a symbolic link leads to, the name of an attribute, a device.
    pub text: Option<u8>,
}

macro_rules! calls {
    (@exit $name:literal) => { concat!("sys_exit_", $name) };
    (@exit $name:literal $exit:literal) => { concat!("sys_exit_", $exit) };
    ($($number:literal $name:literal $([$exit:literal])? $act:ident $first:expr, $second:expr, $text:expr;)*) => {
        /// Every call, its number that of x86-64.
        /// <https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_64.tbl>
        pub const CALLS: &[Call] = &[$(Call {
            number: $number, name: $name, act: Act::$act, first: $first, second: $second, text: $text,
        },)*];

        /// Where the calls return, opening ones aside.
        pub const CALL_EXITS: &[&str] = &[$(calls!(@exit $name $($exit)?),)*];
    };
}

calls! {
    16 "ioctl" Copy Place::Fd(2), Place::Fd(0), None;
    40 "sendfile" ["sendfile64"] Copy Place::Fd(1), Place::Fd(0), None;
    76 "truncate" Truncate Place::Name(0), Place::None, None;
    77 "ftruncate" Truncate Place::Fd(0), Place::None, None;
    82 "rename" Rename Place::Name(0), Place::Name(1), None;
    83 "mkdir" Mkdir Place::Name(0), Place::None, None;
    84 "rmdir" Rmdir Place::Name(0), Place::None, None;
    86 "link" Link Place::Name(0), Place::Name(1), None;
    87 "unlink" Delete Place::Name(0), Place::None, None;
    88 "symlink" Symlink Place::Name(1), Place::None, Some(0);
    90 "chmod" Mode Place::Name(0), Place::None, None;
    91 "fchmod" Mode Place::Fd(0), Place::None, None;
    92 "chown" Owner Place::Name(0), Place::None, None;
    93 "fchown" Owner Place::Fd(0), Place::None, None;
    94 "lchown" Owner Place::Name(0), Place::None, None;
    132 "utime" Times Place::Name(0), Place::None, None;
    133 "mknod" Mknod Place::Name(0), Place::None, None;
    155 "pivot_root" PivotRoot Place::Name(0), Place::Name(1), None;
    165 "mount" Mount Place::Name(1), Place::Name(0), Some(2);
    166 "umount2" ["umount"] Umount Place::Name(0), Place::None, None;
    188 "setxattr" SetXattr Place::Name(0), Place::None, Some(1);
    189 "lsetxattr" SetXattr Place::Name(0), Place::None, Some(1);
    190 "fsetxattr" SetXattr Place::Fd(0), Place::None, Some(1);
    197 "removexattr" RemoveXattr Place::Name(0), Place::None, Some(1);
    198 "lremovexattr" RemoveXattr Place::Name(0), Place::None, Some(1);
    199 "fremovexattr" RemoveXattr Place::Fd(0), Place::None, Some(1);
    235 "utimes" Times Place::Name(0), Place::None, None;
    258 "mkdirat" Mkdir Place::At(0, 1), Place::None, None;
    259 "mknodat" Mknod Place::At(0, 1), Place::None, None;
    260 "fchownat" Owner Place::At(0, 1), Place::None, None;
    263 "unlinkat" Delete Place::At(0, 1), Place::None, None;
    264 "renameat" Rename Place::At(0, 1), Place::At(2, 3), None;
    265 "linkat" Link Place::At(0, 1), Place::At(2, 3), None;
    266 "symlinkat" Symlink Place::At(1, 2), Place::None, Some(0);
    268 "fchmodat" Mode Place::At(0, 1), Place::None, None;
    275 "splice" Copy Place::Fd(0), Place::Fd(2), None;
    280 "utimensat" Times Place::At(0, 1), Place::None, None;
    316 "renameat2" Rename Place::At(0, 1), Place::At(2, 3), None;
    326 "copy_file_range" Copy Place::Fd(0), Place::Fd(2), None;
    428 "open_tree" DetachedMount Place::At(0, 1), Place::None, None;
    429 "move_mount" MoveMount Place::At(0, 1), Place::At(2, 3), None;
    432 "fsmount" DetachedMount Place::Fd(0), Place::None, None;
    442 "mount_setattr" MountSetattr Place::At(0, 1), Place::None, None;
    452 "fchmodat2" Mode Place::At(0, 1), Place::None, None;
    463 "setxattrat" SetXattr Place::At(0, 1), Place::None, Some(3);
    466 "removexattrat" RemoveXattr Place::At(0, 1), Place::None, Some(3);
}

/// Calls that open files, by their numbers on x86-64.
pub const OPENS: &[(u32, &str)] =
    &[(2, "open"), (85, "creat"), (257, "openat"), (304, "open_by_handle_at"), (437, "openat2")];

/// Where these return.
pub const OPEN_EXITS: &[&str] =
    &["sys_exit_open", "sys_exit_creat", "sys_exit_openat", "sys_exit_open_by_handle_at", "sys_exit_openat2"];

/// Highest number of a call in [`CALLS`], and one more: as many places the map `CALLS` has.
pub const CALLS_LEN: u32 = 512;

/// A value of the map `CALLS`: a [`Call`] in numbers. An argument is counted from 1; zero: there is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallShape {
    /// [`shape_flags`]
    pub flags: u32,
    /// Argument with the first descriptor, or the directory that the first name starts from.
    pub first_fd: u8,
    /// Argument with the first name.
    pub first_name: u8,
    /// Argument with the second descriptor or directory.
    pub second_fd: u8,
    /// Argument with the second name.
    pub second_name: u8,
    /// Argument with a text.
    pub text: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Flags of a [`CallShape`].
pub mod shape_flags {
    /// There is such a call.
    pub const KNOWN: u32 = 1;
    /// Where directories are may be another after it.
    pub const MOVES: u32 = 2;
    /// Wanted wherever it is.
    pub const ALWAYS: u32 = 4;
    /// Copies, perhaps into a pipe.
    pub const COPIES: u32 = 8;
    /// Only for one of the many things that it can be called for.
    pub const IOCTL: u32 = 16;
}

/// Number of `ioctl`.
const IOCTL: u32 = 16;

impl CallShape {
    /// Numbers that a shape consists of.
    pub const WORDS: usize = 2;

    /// In numbers.
    #[must_use]
    pub const fn of(call: &Call) -> Self {
        const fn place(place: Place) -> (u8, u8) {
            match place {
                Place::None => (0, 0),
                Place::Fd(fd) => (fd + 1, 0),
                Place::Name(name) => (0, name + 1),
                Place::At(fd, name) => (fd + 1, name + 1),
            }
        }
        let (first_fd, first_name) = place(call.first);
        let (second_fd, second_name) = place(call.second);
        let text = match call.text {
            Some(text) => text + 1,
            None => 0,
        };
        let act = match call.act {
            Act::Rename | Act::Rmdir => shape_flags::MOVES,
            Act::Mount | Act::Umount | Act::MoveMount | Act::PivotRoot => {
                shape_flags::MOVES | shape_flags::ALWAYS
            }
            Act::MountSetattr | Act::DetachedMount => shape_flags::ALWAYS,
            Act::Copy => shape_flags::COPIES,
            _ => 0,
        };
        let only = if call.number == IOCTL { shape_flags::IOCTL } else { 0 };
        let flags = shape_flags::KNOWN | act | only;
        Self { flags, first_fd, first_name, second_fd, second_name, text, reserved: [0; 7] }
    }

    /// The numbers that a shape consists of, as they lie in memory.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let [a, b, c, d] = self.flags.to_ne_bytes();
        let first = [a, b, c, d, self.first_fd, self.first_name, self.second_fd, self.second_name];
        let second = [self.text, 0, 0, 0, 0, 0, 0, 0];
        [u64::from_ne_bytes(first), u64::from_ne_bytes(second)]
    }
}

const _: () = assert!(size_of::<CallShape>() == CallShape::WORDS * size_of::<u64>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_keys_that_tell_them_apart() {
        let names: [&[u8]; 7] =
            [b"shadow", b"shadow-", b"gshadow", b"id_rsa", b"id_rsa.pub", b"id_ed25519", b"a"];
        for (n, name) in names.iter().enumerate() {
            assert_ne!(key_of_name(name), 0);
            for other in &names[..n] {
                assert_ne!(key_of_name(name), key_of_name(other));
            }
        }
    }

    #[test]
    fn every_call_has_a_place_of_its_own() {
        for (n, call) in CALLS.iter().enumerate() {
            assert!(call.number < CALLS_LEN, "{}", call.name);
            assert!(CALLS[..n].iter().all(|other| other.number != call.number), "{}", call.name);
        }
    }

    #[test]
    fn shapes_count_arguments_from_one() {
        let shape = CallShape::of(CALLS.iter().find(|call| call.name == "renameat2").unwrap());
        assert_eq!((shape.first_fd, shape.first_name, shape.second_fd, shape.second_name), (1, 2, 3, 4));
        let words = shape.to_words();
        assert_eq!(words[0].to_ne_bytes()[4..], [1, 2, 3, 4]);
    }
}
