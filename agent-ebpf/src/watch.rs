//! Which files are watched, and repeats of what is done with them.
//!
//! The agent says of single inodes how far below them something may be watched. Whether a directory is within
//! reach of one is found by going up from it, once: the answer is kept for the directory until the agent changes
//! what is watched, or something moves.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use nightjar_abi::{
    fields::*,
    files::{
        ALL_LEVELS, FileSettings, FoldKey, Folded, KernelInode, WATCH_DEPTH, WatchKey, Watched, name_key,
    },
    record::Anchor,
};

use crate::kernel::{Access, Copied, Probed, Ptr, add, bound};

/// Bytes that the fields are in that are read of a `struct file`, on kernels without debugging aids; on others they
/// are read one by one.
pub const FILE: usize = 128;
/// As [`FILE`], of a `struct inode`.
pub const INODE: usize = 96;
/// As [`FILE`], of a `struct dentry`.
pub const DENTRY: usize = 64;

#[map]
static FILE_SETTINGS: Array<FileSettings> = Array::with_max_entries(1, 0);

/// Inodes and names that are watched.
#[map]
static WATCHED: HashMap<WatchKey, Watched> = HashMap::with_max_entries(16384, 0);

/// What was found out about directories. One that had to go for lack of room is found out about anew.
#[map]
static VERDICTS: LruHashMap<DirectoryKey, Verdict> = LruHashMap::with_max_entries(8192, 0);

/// Raised when directories may be elsewhere than they were.
#[map]
static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// What is folded, in this window and the one before.
#[map]
static FOLDED: HashMap<FoldKey, Folded> = HashMap::with_max_entries(16384, 0);

/// How the kernel numbers what the agent has just opened.
#[map]
static IDENTITY: Array<KernelInode> = Array::with_max_entries(1, 0);

// Bits of `struct file`'s `f_mode`.
// <https://github.com/torvalds/linux/blob/v6.12/include/linux/fs.h#L104-L180>
pub const FMODE_READ: u32 = 1;
pub const FMODE_WRITE: u32 = 2;
pub const FMODE_PATH: u32 = 0x4000;
pub const FMODE_CREATED: u32 = 0x10_0000;

/// `PROC_SUPER_MAGIC`
pub const PROC: u64 = 0x9FA0;

/// A directory: addresses are used again, but hardly by a directory of the same name in the same one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectoryKey {
    dentry: u64,
    inode: u64,
    parent: u64,
    name: u64,
}

/// What may concern somebody of what is in a directory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Verdict {
    epoch: u64,
    /// Inode number of the directory.
    inode: u64,
    /// As [`Watched`], counted from the directory.
    reads: u32,
    writes: u32,
    names: u32,
    /// Levels from the anchor down to the directory.
    distance: u32,
    anchor_inode: u64,
    /// Zero where there is no anchor.
    anchor_device: u32,
    /// Whether it is on a `procfs`; 0 or 1.
    is_proc: u32,
}

/// What programs put down about files, in memory for the reason that [`crate::send::Walk`] gives.
#[repr(C)]
pub struct Files {
    /// Copies of kernel structures.
    pub file: [u8; FILE],
    pub inode: [u8; INODE],
    dentry: [u8; DENTRY],
    above: [u8; DENTRY],
    /// Of the directory that was asked for last.
    verdict: Verdict,
    /// Address of the next dentry on the way up.
    climb: u64,
    /// Whether any operand of a call may concern somebody.
    pub concerns: u64,
    /// Addresses of what the operands of a call lead to.
    pub dentries: [u64; 2],
    pub mounts: [u64; 2],
}

/// Whether somebody may want to hear of a file.
pub struct Concern {
    /// Of an open that can only read.
    pub reads: bool,
    /// Of anything else.
    pub writes: bool,
    /// What makes it so.
    pub anchor: Anchor,
}

/// An anchor that is none.
pub const NO_ANCHOR: Anchor = Anchor { inode: 0, device: 0, distance: 0 };

/// The settings. `None` is impossible; the verifier wants to hear of it.
#[inline(always)]
pub fn settings() -> Option<&'static FileSettings> {
    FILE_SETTINGS.get(0)
}

/// Whether the agent itself is calling, and whether it wants an answer.
#[inline(always)]
pub fn is_own(settings: &FileSettings) -> (bool, bool) {
    let ids = bpf_get_current_pid_tgid();
    let own = ids >> 32 == settings.own_pid;
    (own, own && ids & u64::from(u32::MAX) == settings.asking_tid)
}

/// Tells the agent how the kernel numbers a file.
#[inline(always)]
pub fn answer(inode: u64, device: u32) {
    let Some(answer) = IDENTITY.get_ptr_mut(0) else { return };
    // SAFETY: the map's own memory; the agent asks by one thread.
    unsafe {
        (*answer).inode = inode;
        (*answer).device = u64::from(device);
        (&raw mut (*answer).answers).write_volatile((*answer).answers + 1);
    }
}

/// Directories may be elsewhere from now on.
#[inline(always)]
pub fn moved() {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        add(epoch, 1);
    }
}

#[inline(always)]
fn epoch(settings: &FileSettings) -> u64 {
    // SAFETY: the map's own memory; volatile because others change it.
    let moves = EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { epoch.read_volatile() });
    settings.epoch.wrapping_add(moves)
}

/// Whether what is in a directory concerns somebody: by the dentry of the directory, and the device of its file
/// system.
#[inline(always)]
fn verdict(
    files: *mut Files,
    settings: &FileSettings,
    directory: u64,
    device: u32,
) -> Option<*const Verdict> {
    // SAFETY: the map's own memory.
    let (copy, verdict) = unsafe { (&raw mut (*files).above, &raw mut (*files).verdict) };
    let dentry = Copied::<Dentry, DENTRY>::read(copy, directory)?;
    let inode = dentry.address_in(DENTRY_INODE);
    let key = key(directory, dentry);
    let epoch = epoch(settings);
    if let Some(known) = VERDICTS.get_ptr(key) {
        // SAFETY: the map's own memory.
        if unsafe { (*known).epoch } == epoch {
            return Some(known);
        }
    }
    let node = Ptr::<Inode, Probed>::new(inode as *const u8)?;
    let is_proc =
        Ptr::<SuperBlock, Probed>::new(node.address_in(INODE_SB) as *const u8)?.get(SB_MAGIC) == PROC;
    // SAFETY: the map's own memory.
    unsafe {
        *verdict = Verdict {
            epoch,
            inode: node.get(INODE_NUMBER),
            reads: 0,
            writes: 0,
            names: 0,
            distance: 0,
            anchor_inode: 0,
            anchor_device: 0,
            is_proc: u32::from(is_proc),
        };
        (&raw mut (*files).climb).write_volatile(directory);
    }
    let mut level = 0;
    while level < WATCH_DEPTH && climb(files, level, device) {
        level += 1;
    }
    // Without room it is found out again the next time.
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be on the stack, which is small"
    )]
    // SAFETY: as above.
    let _found_out_again = VERDICTS.insert(key, unsafe { &*verdict }, 0);
    Some(verdict)
}

/// Looks at the directory `level` levels up; whether there is one above it.
#[inline(always)]
fn climb(files: *mut Files, level: u32, device: u32) -> bool {
    // SAFETY: the map's own memory; volatile so that it stays there, see `Walk`.
    unsafe {
        let node = (&raw const (*files).climb).read_volatile();
        let Some(dentry) = Copied::<Dentry, DENTRY>::read(&raw mut (*files).dentry, node) else {
            return false;
        };
        let Some(inode) = Ptr::<Inode, Probed>::new(dentry.address_in(DENTRY_INODE) as *const u8) else {
            return false;
        };
        let number = inode.get(INODE_NUMBER);
        if let Some(watched) = WATCHED.get_ptr(WatchKey { inode: number, name: 0, device, reserved: 0 }) {
            let verdict = &raw mut (*files).verdict;
            let reads = left((*watched).reads, level);
            let writes = left((*watched).writes, level);
            let names = if level == 0 { (*watched).names } else { 0 };
            if reads > (&raw const (*verdict).reads).read_volatile() {
                (&raw mut (*verdict).reads).write_volatile(reads);
            }
            if writes > (&raw const (*verdict).writes).read_volatile() {
                (&raw mut (*verdict).writes).write_volatile(writes);
            }
            if names != 0 {
                (&raw mut (*verdict).names).write_volatile(names);
            }
            if (reads > 1 || writes > 1 || names != 0)
                && (&raw const (*verdict).anchor_device).read_volatile() == 0
            {
                (&raw mut (*verdict).anchor_inode).write_volatile(number);
                (&raw mut (*verdict).anchor_device).write_volatile(device);
                (&raw mut (*verdict).distance).write_volatile(level);
            }
        }
        let parent = dentry.address_in(DENTRY_PARENT);
        (&raw mut (*files).climb).write_volatile(parent);
        parent != node
    }
}

/// Levels that are left `level` levels further down.
#[inline(always)]
fn left(levels: u32, level: u32) -> u32 {
    if levels >= ALL_LEVELS { levels } else { levels.saturating_sub(level) }
}

/// Whether it is known that nobody wants to hear of an open file, for what is known of its directory. This is what
/// most opens come to, so it takes no more than it must.
#[inline(always)]
pub fn is_of_no_concern(settings: &FileSettings, file: u64) -> bool {
    let mut bytes = MaybeUninit::uninit();
    let Some(file) = Copied::<File, FILE>::read(bytes.as_mut_ptr(), file) else { return false };
    let can_write = file.get(FILE_MODE) & (FMODE_WRITE | FMODE_CREATED) != 0;
    if settings.hard_links & if can_write { 2 } else { 1 } != 0 {
        return false;
    }
    let Some(own) = Ptr::<Dentry, Probed>::new(file.address_in(FILE_DENTRY) as *const u8) else {
        return false;
    };
    let directory = own.address_in(DENTRY_PARENT);
    let mut bytes = MaybeUninit::uninit();
    let Some(dentry) = Copied::<Dentry, DENTRY>::read(bytes.as_mut_ptr(), directory) else { return false };
    let Some(verdict) = VERDICTS.get_ptr(key(directory, dentry)) else { return false };
    // SAFETY: the map's own memory.
    let verdict = unsafe { &*verdict };
    let concerns = if can_write { verdict.writes | verdict.reads } else { verdict.reads };
    verdict.epoch == epoch(settings) && concerns <= 1 && verdict.names == 0 && verdict.is_proc == 0
}

#[inline(always)]
fn key(directory: u64, dentry: Copied<Dentry, DENTRY>) -> DirectoryKey {
    DirectoryKey {
        dentry: directory,
        inode: dentry.address_in(DENTRY_INODE),
        parent: dentry.address_in(DENTRY_PARENT),
        name: dentry.get(DENTRY_NAME_HASH),
    }
}

/// Whether somebody may want to hear of what is done with a file, by its dentry and its inode. `by_place`: also for
/// where it is; else only for itself.
#[inline(always)]
pub fn file(
    files: *mut Files,
    settings: &FileSettings,
    dentry: u64,
    inode: Copied<Inode, INODE>,
    device: u32,
    by_place: bool,
) -> Option<Concern> {
    let mut concern = Concern { reads: false, writes: false, anchor: NO_ANCHOR };
    if by_place {
        of_place(files, settings, dentry, device, &mut concern)?;
    }
    if !by_place || (settings.hard_links != 0 && inode.get(INODE_NLINK) > 1) {
        let number = inode.get(INODE_NUMBER);
        if let Some(watched) = WATCHED.get_ptr(WatchKey { inode: number, name: 0, device, reserved: 0 }) {
            // SAFETY: the map's own memory.
            let watched = unsafe { &*watched };
            let (reads, writes) = (watched.reads > 0, watched.writes > 0);
            if !(concern.reads || concern.writes) && (reads || writes) {
                concern.anchor = Anchor { inode: number, device, distance: 0 };
            }
            concern.reads |= reads;
            concern.writes |= writes;
        }
    }
    Some(concern)
}

/// Whether somebody may want to hear of what is done with a file because of where it is.
#[inline(always)]
fn of_place(
    files: *mut Files,
    settings: &FileSettings,
    dentry: u64,
    device: u32,
    concern: &mut Concern,
) -> Option<()> {
    // SAFETY: the map's own memory.
    let own = Copied::<Dentry, DENTRY>::read(unsafe { &raw mut (*files).dentry }, dentry)?;
    let (name, len) = (own.address_in(DENTRY_NAME), own.get(DENTRY_NAME_LEN));
    let verdict = verdict(files, settings, own.address_in(DENTRY_PARENT), device)?;
    // SAFETY: the map's own memory.
    let verdict = unsafe { &*verdict };
    let (mut reads, writes) = (verdict.reads > 1, verdict.writes > 1);
    if verdict.names != 0 && !reads {
        let key = WatchKey { inode: verdict.inode, name: key_of(name, len), device, reserved: 0 };
        reads = WATCHED.get_ptr(key).is_some();
    }
    (concern.reads, concern.writes) = (reads, writes);
    if verdict.anchor_device != 0 && (reads || writes) {
        concern.anchor = Anchor {
            inode: verdict.anchor_inode,
            device: verdict.anchor_device,
            distance: verdict.distance + 1,
        };
    }
    Some(())
}

/// Whether somebody may want to hear of what is done with a name in a directory, and by which anchor.
#[inline(always)]
pub fn directory(
    files: *mut Files,
    settings: &FileSettings,
    directory: u64,
    device: u32,
) -> Option<(bool, Anchor)> {
    // SAFETY: the map's own memory.
    let verdict = unsafe { &*verdict(files, settings, directory, device)? };
    let wanted = verdict.reads > 1 || verdict.writes > 1 || verdict.names != 0;
    let anchor = if verdict.anchor_device == 0 {
        NO_ANCHOR
    } else {
        Anchor { inode: verdict.anchor_inode, device: verdict.anchor_device, distance: verdict.distance }
    };
    Some((wanted, anchor))
}

/// [`name_key`] of a name in kernel memory.
#[inline(always)]
fn key_of(name: u64, len: u32) -> u64 {
    let len = bound::<255>(u64::from(len));
    let (mut head, mut last) = (0_u64, 0_u64);
    let first = if len < 8 { len } else { 8 };
    // SAFETY: at most eight bytes to eight bytes of our own.
    unsafe {
        bpf_probe_read_kernel((&raw mut head).cast(), bound::<15>(first) as u32 & 15, name as *const _);
        if len > 8 {
            bpf_probe_read_kernel((&raw mut last).cast(), 8, (name + len - 8) as *const _);
        }
    }
    name_key(head, last, len)
}

/// Whether a file of this name on `/proc` is wanted.
#[inline(always)]
pub fn is_proc_name(settings: &FileSettings, name: u64, len: u32) -> bool {
    if len > 8 {
        return false;
    }
    let mut head = 0_u64;
    // SAFETY: as above.
    unsafe {
        bpf_probe_read_kernel((&raw mut head).cast(), bound::<15>(u64::from(len)) as u32, name as *const _)
    };
    settings.proc_names.contains(&head)
}

/// What became of an act that may be a repeat.
#[derive(PartialEq, Eq)]
pub enum Fold {
    /// It was counted.
    Counted,
    /// It is the first: to be told.
    First,
    /// There is no room to count repeats: to be told, like those.
    NoRoom,
}

/// Counts an act if it is a repeat of one in this window.
#[inline(always)]
pub fn fold(key: &FoldKey) -> Fold {
    /// `BPF_NOEXIST`: another processor may be first.
    const IF_ABSENT: u64 = 1;
    if counted(key) {
        return Fold::Counted;
    }
    match FOLDED.insert(key, Folded { count: 0, last: 0 }, IF_ABSENT) {
        Ok(()) => Fold::First,
        Err(_) if counted(key) => Fold::Counted,
        Err(_) => Fold::NoRoom,
    }
}

#[inline(always)]
fn counted(key: &FoldKey) -> bool {
    let Some(folded) = FOLDED.get_ptr_mut(key) else { return false };
    // SAFETY: the map's own memory; of two at once either may be the last.
    unsafe {
        add(&raw mut (*folded).count, 1);
        (&raw mut (*folded).last).write_volatile(bpf_ktime_get_boot_ns());
    }
    true
}

/// The open file behind a descriptor of a task; zero where there is none.
#[inline(always)]
pub fn file_of<A: Access>(task: Ptr<Task, A>, fd: u64) -> u64 {
    let table = task.follow(TASK_FILES).and_then(|files| files.follow(FILES_TABLE));
    let Some(table) = table else { return 0 };
    if fd >= u64::from(table.get(FDTABLE_MAX)) {
        return 0;
    }
    let files = table.address_in(FDTABLE_FILES);
    let mut file = 0_u64;
    // SAFETY: the helper checks the address and fills with zeros what it cannot read.
    unsafe { bpf_probe_read_kernel((&raw mut file).cast(), 8, (files + fd * 8) as *const _) };
    file
}
