//! `file.open`, `file.create` and `file.close`: what a descriptor leads to, as the kernel resolved it.

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_get_current_task_btf, bpf_probe_read_user},
    },
    macros::tracepoint,
    programs::TracePointContext,
};
use nightjar_abi::{
    fields::*,
    files::{FileSettings, FoldKey},
    hook::{DropReason, Hook},
    record::{FileInfo, FileOpen, Kind, PATH_MAX, Span, file_flags, open_facts},
    settings::leave_out,
};

use crate::{
    globals,
    kernel::{Access, Copied, Probed, Ptr, Typed, bound, opaque},
    path,
    send::{Claim, Count, Scratch},
    settings, syscall,
    tail::Tail,
    task,
    watch::{self, FILE, FMODE_CREATED, FMODE_PATH, FMODE_READ, FMODE_WRITE, Fold, INODE, NO_ANCHOR, PROC},
};

const START: usize = size_of::<FileOpen>();
const ROOM: u32 = 0x7FFF;

const AT_FDCWD: i32 = -100;
const SYS_OPEN: u32 = 2;
const SYS_CREAT: u32 = 85;
const SYS_OPENAT: u32 = 257;
const SYS_OPENAT2: u32 = 437;
const O_WRONLY: u64 = 0o1;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// What is to be done about a call.
enum Outcome {
    /// It is no event.
    Filtered,
    /// It was counted with an earlier one.
    Counted,
    /// A record of this length is to be sent.
    Send(u64),
    /// What it takes could not be read.
    Fault,
}

/// A call that opens files returned.
#[tracepoint]
pub fn file_open(ctx: TracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::FileOpen) else { return 0 };
    let Some(settings) = watch::settings() else { return 0 };
    let result = syscall::result(&ctx);
    if result < 0 && settings.failed == 0 {
        count.filtered();
        return 0;
    }
    handle(&ctx, count, settings, result, false);
    0
}

/// `close` is called: `fd` is where the result is at the end of a call.
#[tracepoint]
pub fn file_close(ctx: TracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::FileClose) else { return 0 };
    let Some(settings) = watch::settings() else { return 0 };
    handle(&ctx, count, settings, syscall::result(&ctx) & i64::from(u32::MAX), true);
    0
}

#[inline(always)]
fn handle(ctx: &TracePointContext, count: Count, settings: &FileSettings, result: i64, closes: bool) {
    let (own, asks) = watch::is_own(settings);
    if own && (closes || !asks) {
        count.filtered();
        return;
    }
    if !own && settings.all == 0 && result >= 0 && is_of_no_concern(settings, result) {
        count.filtered();
        return;
    }
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return;
    };
    let outcome = if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // Typed since 5.11: fields cost a load each.
        // SAFETY: no preconditions.
        match Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()) {
            Some(task) => look(ctx, count, settings, claim.get(), task, result, closes, own),
            None => Outcome::Fault,
        }
    } else {
        // SAFETY: no preconditions.
        match Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) {
            Some(task) => look(ctx, count, settings, claim.get(), task, result, closes, own),
            None => Outcome::Fault,
        }
    };
    match outcome {
        Outcome::Filtered => count.filtered(),
        Outcome::Counted => count.aggregated(),
        Outcome::Send(len) => count.output(claim.get(), len),
        Outcome::Fault => count.dropped(DropReason::ReadFault),
    }
    claim.release();
}

/// Whether nobody wants to hear of what a descriptor leads to, as far as that is known.
#[inline(always)]
fn is_of_no_concern(settings: &FileSettings, fd: i64) -> bool {
    let file = if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        match Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()) {
            Some(task) => watch::file_of(task, fd as u64),
            None => 0,
        }
    } else {
        // SAFETY: no preconditions.
        match Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) {
            Some(task) => watch::file_of(task, fd as u64),
            None => 0,
        }
    };
    file != 0 && watch::is_of_no_concern(settings, file)
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "one caller, inlined: one step after another"
)]
fn look<A: Access>(
    ctx: &TracePointContext,
    count: Count,
    settings: &FileSettings,
    scratch: *mut Scratch,
    task: Ptr<Task, A>,
    result: i64,
    closes: bool,
    own: bool,
) -> Outcome {
    if result < 0 {
        return match failed(ctx, count, scratch, task, result) {
            Some(len) => Outcome::Send(len),
            None => Outcome::Fault,
        };
    }
    // SAFETY: the map's own memory.
    let files = unsafe { &raw mut (*scratch).files };
    // SAFETY: as above.
    let (file_copy, inode_copy) = unsafe { (&raw mut (*files).file, &raw mut (*files).inode) };
    // The descriptor may be gone by now, closed by another thread, and a close of none is usual.
    let Some(file) = Copied::<File, FILE>::read(file_copy, watch::file_of(task, result as u64)) else {
        return Outcome::Filtered;
    };
    let mode = file.get(FILE_MODE);
    if closes && mode & FMODE_PATH != 0 {
        return Outcome::Filtered;
    }
    let Some(inode) = Copied::<Inode, INODE>::read(inode_copy, file.address_in(FILE_INODE)) else {
        return Outcome::Filtered;
    };
    let Some(volume) = Ptr::<SuperBlock, Probed>::new(inode.address_in(INODE_SB) as *const u8) else {
        return Outcome::Filtered;
    };
    let device = volume.get(SB_DEV);
    if own {
        watch::answer(inode.get(INODE_NUMBER), device);
        return Outcome::Filtered;
    }
    let kind = u32::from(inode.get(INODE_MODE)) & S_IFMT;
    let is_directory = kind == S_IFDIR;
    let all = settings.all != 0;
    if is_directory && !all {
        return Outcome::Filtered;
    }
    let dentry = file.address_in(FILE_DENTRY);
    let Some(concern) = watch::file(files, settings, dentry, inode, device, kind == S_IFREG) else {
        return Outcome::Fault;
    };
    let only_reads = mode & (FMODE_WRITE | FMODE_CREATED) == 0;
    let wanted = concern.reads
        || (!only_reads && concern.writes)
        || (settings.proc_names[0] != 0 && is_wanted_on_proc(settings, dentry, volume));
    if !wanted && !all {
        return Outcome::Filtered;
    }
    if settings::leaves_out(task, leave_out::FILES) {
        return Outcome::Filtered;
    }
    let flags = file.get(FILE_FLAGS);
    let window = if mode & FMODE_CREATED == 0 { settings.window } else { 0 };
    let hook = if closes { Hook::FileClose } else { Hook::FileOpen };
    let Some(who) = task::task_ref(task) else { return Outcome::Fault };
    let mut told_one_by_one = window == 0;
    if !told_one_by_one {
        let key = FoldKey {
            inode: inode.get(INODE_NUMBER),
            start: who.start,
            exec_id: who.exec_id,
            device,
            pid: who.pid,
            flags,
            hook_and_window: (hook as u32) << 1 | (window & 1) as u32,
        };
        match watch::fold(&key) {
            Fold::Counted => return Outcome::Counted,
            Fold::First => {}
            Fold::NoRoom => told_one_by_one = true,
        }
    }
    let asked = if closes {
        0
    } else {
        match arguments(syscall::number_of(ctx)) {
            Some((_, _, asked)) => asked,
            None => 0,
        }
    };
    // SAFETY: the record begins with room for a `FileOpen`, at a multiple of eight.
    let record: *mut FileOpen = unsafe { (&raw mut (*scratch).record).cast() };
    let mut facts = if all { open_facts::ALL } else { 0 };
    if mode & FMODE_CREATED != 0 && !closes {
        facts |= open_facts::CREATED;
    }
    if mode & FMODE_READ != 0 {
        facts |= open_facts::READ;
    }
    if mode & FMODE_WRITE != 0 {
        facts |= open_facts::WRITE;
    }
    if mode & FMODE_PATH != 0 {
        facts |= open_facts::PATH;
    }
    if closes {
        facts |= open_facts::CLOSED;
    }
    // SAFETY: `record` is our own memory.
    unsafe {
        if task::write_info(&raw mut (*record).info, task).is_none() {
            return Outcome::Fault;
        }
        if !write_file(&raw mut (*record).file, file, inode, device) {
            return Outcome::Fault;
        }
        (*record).anchor = if wanted { concern.anchor } else { NO_ANCHOR };
        (*record).size = inode.get(INODE_SIZE);
        (*record).open_flags = flags;
        (*record).asked_flags = asked;
        (*record).reserved = 0;
        (*record).facts = facts;
        (*record).call = if closes { 0 } else { syscall::number_of(ctx) };
        (*record).errno = 0;
        (*record).dirfd = AT_FDCWD;
        (*record).window = if told_one_by_one { 0 } else { window as u32 };
        (*record).name = Span { start: START as u16, len: 0, flags: 0 };
    }
    let mut tail = Tail::<START, ROOM>::new(scratch);
    let (Some(dentry), Some(mount)) =
        (Ptr::<Dentry, Probed>::new(dentry as *const u8), Ptr::new(file.address_in(FILE_MNT) as *const u8))
    else {
        return Outcome::Fault;
    };
    let path = path::write(scratch, dentry, mount, task::mount_root(task));
    let path = tail.path(&path);
    // SAFETY: as above.
    unsafe { (*record).path = path };
    let volume = if concern.anchor.device != 0 && path::is_of_part(mount) {
        tail.path(&path::write_in_volume(scratch, dentry, mount))
    } else {
        tail.nothing()
    };
    let len = START as u64 + bound::<{ u16::MAX as u32 }>(tail.len());
    // SAFETY: as above.
    unsafe {
        (*record).volume = volume;
        (*record).header = count.header(Kind::FileOpen, len);
    }
    Outcome::Send(len)
}

/// Describes an open file.
#[inline(always)]
pub fn write_file(
    to: *mut FileInfo,
    file: Copied<File, FILE>,
    inode: Copied<Inode, INODE>,
    device: u32,
) -> bool {
    let Some(dentry) = Ptr::<Dentry, Probed>::new(file.address_in(FILE_DENTRY) as *const u8) else {
        return false;
    };
    let Some(mount) = Ptr::<VfsMount, Probed>::new(file.address_in(FILE_MNT) as *const u8) else {
        return false;
    };
    let hashed =
        dentry.address_in(DENTRY_HASHED) != 0 || dentry.address_in(DENTRY_PARENT) == dentry.address();
    describe(to, inode, device, mount.get(VFSMOUNT_FLAGS), hashed);
    true
}

/// Describes what an inode is.
#[inline(always)]
pub fn describe(to: *mut FileInfo, inode: Copied<Inode, INODE>, device: u32, mount_flags: u32, hashed: bool) {
    // SAFETY: `to` points into a record of ours.
    unsafe {
        *to = FileInfo {
            inode: inode.get(INODE_NUMBER),
            device,
            links: inode.get(INODE_NLINK),
            mode: u32::from(inode.get(INODE_MODE)),
            uid: inode.get(INODE_UID),
            gid: inode.get(INODE_GID),
            mount_flags,
            flags: if hashed { 0 } else { file_flags::UNLINKED },
            reserved: 0,
        };
    }
}

#[inline(always)]
fn is_wanted_on_proc(settings: &FileSettings, dentry: u64, volume: Ptr<SuperBlock, Probed>) -> bool {
    if volume.get(SB_MAGIC) != PROC {
        return false;
    }
    Ptr::<Dentry, Probed>::new(dentry as *const u8).is_some_and(|dentry| {
        watch::is_proc_name(settings, dentry.address_in(DENTRY_NAME), dentry.get(DENTRY_NAME_LEN))
    })
}

/// Directory, address of the name and flags that a call was given.
#[inline(always)]
fn arguments(call: u32) -> Option<(i32, u64, u32)> {
    // SAFETY: no preconditions.
    let registers =
        syscall::registers(Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)?)?;
    let (first, second, third) =
        (registers.get(REGISTERS_ARG1), registers.get(REGISTERS_ARG2), registers.get(REGISTERS_ARG3));
    let (dirfd, name, mut flags) = match call {
        SYS_OPEN => (AT_FDCWD, first, second),
        SYS_CREAT => (AT_FDCWD, first, O_CREAT | O_WRONLY | O_TRUNC),
        SYS_OPENAT | SYS_OPENAT2 => (first as i32, second, third),
        // By a handle: there is no name.
        _ => (first as i32, 0, third),
    };
    if call == SYS_OPENAT2 {
        let how = flags;
        flags = 0;
        // SAFETY: the first member of `struct open_how`, to our own memory.
        unsafe { bpf_probe_read_user((&raw mut flags).cast(), 8, how as *const _) };
    }
    Some((dirfd, name, flags as u32))
}

/// Dentry and mount of the directory that a relative name starts from; zeros where there is none.
#[inline(always)]
fn starts_from<A: Access>(scratch: *mut Scratch, task: Ptr<Task, A>, dirfd: i32) -> (u64, u64) {
    if dirfd == AT_FDCWD {
        return match task.follow(TASK_FS) {
            Some(fs) => (opaque(fs.address_in(FS_PWD_DENTRY)), opaque(fs.address_in(FS_PWD_MNT))),
            None => (0, 0),
        };
    }
    // SAFETY: the map's own memory.
    let copy = unsafe { &raw mut (*scratch).files.file };
    match Copied::<File, FILE>::read(copy, watch::file_of(task, u64::from(dirfd as u32))) {
        Some(file) => (opaque(file.address_in(FILE_DENTRY)), opaque(file.address_in(FILE_MNT))),
        None => (0, 0),
    }
}

/// Builds the record of a call that failed; gives its length.
#[inline(always)]
fn failed<A: Access>(
    ctx: &TracePointContext,
    count: Count,
    scratch: *mut Scratch,
    task: Ptr<Task, A>,
    result: i64,
) -> Option<u64> {
    let call = syscall::number_of(ctx);
    let (dirfd, name, flags) = arguments(call)?;
    let mut tail = Tail::<START, ROOM>::new(scratch);
    let place = tail.place();
    let name = tail.user_text::<{ PATH_MAX as u32 }>(name);
    // SAFETY: inside the scratch buffer.
    let is_absolute = name.len > 0 && unsafe { place.read_volatile() } == b'/';
    let from = if is_absolute { (0, 0) } else { starts_from(scratch, task, dirfd) };
    let (dentry, mount) = from;
    let base = match (
        Ptr::<Dentry, Probed>::new(dentry as *const u8),
        Ptr::<VfsMount, Probed>::new(mount as *const u8),
    ) {
        (Some(dentry), Some(mount)) => {
            tail.path(&path::write(scratch, dentry, mount, task::mount_root(task)))
        }
        _ => tail.nothing(),
    };
    let len = START as u64 + bound::<{ u16::MAX as u32 }>(tail.len());
    // SAFETY: the record begins with room for a `FileOpen`, at a multiple of eight.
    unsafe {
        let record: *mut FileOpen = (&raw mut (*scratch).record).cast();
        task::write_info(&raw mut (*record).info, task)?;
        (*record).file = FileInfo::NONE;
        (*record).anchor = NO_ANCHOR;
        (*record).size = 0;
        (*record).open_flags = 0;
        (*record).asked_flags = flags;
        (*record).reserved = 0;
        (*record).facts = 0;
        (*record).call = call;
        (*record).errno = result.unsigned_abs() as u32;
        (*record).dirfd = dirfd;
        (*record).window = 0;
        (*record).path = base;
        (*record).name = name;
        (*record).volume = Span { start: START as u16, len: 0, flags: 0 };
        (*record).header = count.header(Kind::FileOpen, len);
    }
    Some(len)
}
