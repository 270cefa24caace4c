//! Calls that change files: what they were given, what it leads to, and what they returned.
//!
//! One program serves all calls: a map says of each where in its arguments the descriptors and names are.
//! Descriptors are followed to the kernel's own open files. Names are read from the memory of the process after
//! the call, with the directory that they start from; what the kernel made of them is the agent's to find out.

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_get_current_task_btf},
    macros::{map, tracepoint},
    maps::{Array, LruHashMap},
    programs::TracePointContext,
};
use nightjar_abi::{
    fields::*,
    files::{CALLS_LEN, CallShape, FileSettings, shape_flags},
    hook::{DropReason, Hook},
    record::{FileCall, FileInfo, Kind, Operand, PATH_MAX, Span, operand},
    settings::leave_out,
};

use crate::{
    file_open::describe,
    globals,
    kernel::{Access, Copied, Probed, Ptr, Typed, bound, opaque},
    path,
    send::{Claim, Count, Scratch},
    settings, syscall,
    tail::Tail,
    task,
    watch::{self, FILE, INODE, NO_ANCHOR},
};

const START: usize = size_of::<FileCall>();
const ROOM: u32 = 0x7FFF;
// Two names and four paths fit before the text.
/// Longest text, the target of a symbolic link.
const TEXT_MAX: u32 = PATH_MAX as u32;

const AT_FDCWD: i32 = -100;
const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;

// Commands of `ioctl` that copy.
// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/fs.h#L263-L264>
const FICLONE: u64 = 0x4004_9409;

#[map]
static CALLS: Array<CallShape> = Array::with_max_entries(CALLS_LEN, 0);

/// Pipes that something watched was spliced into, by inode number.
#[map]
static PIPES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// A call that changes files returned.
#[tracepoint]
pub fn file_call(ctx: TracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::FileCall) else { return 0 };
    let Some(shape) = CALLS.get(syscall::number_of(&ctx)) else {
        count.filtered();
        return 0;
    };
    handle(&ctx, count, *shape);
    0
}

#[inline(always)]
fn handle(ctx: &TracePointContext, count: Count, shape: CallShape) {
    let Some(settings) = watch::settings() else { return };
    let result = syscall::result(ctx);
    let (own, _) = watch::is_own(settings);
    // Nearly always it is called for something else.
    let is_other = shape.flags & shape_flags::IOCTL != 0 && command() != FICLONE;
    if result < 0 || shape.flags == 0 || own || is_other {
        count.filtered();
        return;
    }
    if shape.flags & shape_flags::MOVES != 0 {
        watch::moved();
    }
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return;
    };
    let outcome = if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        match Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()) {
            Some(task) => look(ctx, count, settings, shape, claim.get(), task, result),
            None => None,
        }
    } else {
        // SAFETY: no preconditions.
        match Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) {
            Some(task) => look(ctx, count, settings, shape, claim.get(), task, result),
            None => None,
        }
    };
    match outcome {
        Some(0) => count.filtered(),
        Some(len) => count.output(claim.get(), len),
        None => count.dropped(DropReason::ReadFault),
    }
    claim.release();
}

/// What `ioctl` was called for.
#[inline(always)]
fn command() -> u64 {
    // SAFETY: no preconditions.
    let task = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8);
    task.and_then(syscall::registers).map_or(0, |registers| registers.get(REGISTERS_ARG2))
}

/// Builds the record; gives its length, zero where it is no event.
#[inline(always)]
fn look<A: Access>(
    ctx: &TracePointContext,
    count: Count,
    settings: &FileSettings,
    shape: CallShape,
    scratch: *mut Scratch,
    task: Ptr<Task, A>,
    result: i64,
) -> Option<u64> {
    // SAFETY: the record begins with room for a `FileCall`, at a multiple of eight.
    let record: *mut FileCall = unsafe { (&raw mut (*scratch).record).cast() };
    // SAFETY: the map's own memory.
    let files = unsafe { &raw mut (*scratch).files };
    // SAFETY: no preconditions.
    let registers =
        syscall::registers(Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)?)?;
    // SAFETY: `record` is our own memory.
    unsafe {
        (*record).args = [
            registers.get(REGISTERS_ARG1),
            registers.get(REGISTERS_ARG2),
            registers.get(REGISTERS_ARG3),
            registers.get(REGISTERS_ARG4),
            registers.get(REGISTERS_ARG5),
            registers.get(REGISTERS_ARG6),
        ];
        let everything = settings.all | u64::from(shape.flags & shape_flags::ALWAYS);
        (&raw mut (*files).concerns).write_volatile(everything);
    }
    let mut tail = Tail::<START, ROOM>::new(scratch);
    find(settings, scratch, task, record, &mut tail, 0, shape.first_fd, shape.first_name);
    find(settings, scratch, task, record, &mut tail, 1, shape.second_fd, shape.second_name);
    // SAFETY: as above.
    let mut concerns = unsafe { (&raw const (*files).concerns).read_volatile() } != 0;
    if shape.flags & shape_flags::COPIES != 0 {
        concerns = through_pipe(record, concerns);
    }
    if !concerns || settings::leaves_out(task, leave_out::FILES) {
        return Some(0);
    }

    let root = task::mount_root(task);
    place(scratch, record, &mut tail, 0, root);
    place(scratch, record, &mut tail, 1, root);
    let text = match argument(record, shape.text) {
        Some(address) => tail.user_text::<TEXT_MAX>(address),
        None => tail.nothing(),
    };
    let len = START as u64 + bound::<{ u16::MAX as u32 }>(tail.len());
    // SAFETY: as above.
    unsafe {
        task::write_info(&raw mut (*record).info, task)?;
        (*record).result = result;
        (*record).call = syscall::number_of(ctx);
        (*record).reserved = 0;
        (*record).text = text;
        (*record).reserved2 = 0;
        (*record).header = count.header(Kind::FileCall, len);
    }
    Some(len)
}

/// An argument, counted from 1; none where that is zero.
#[inline(always)]
fn argument(record: *mut FileCall, n: u8) -> Option<u64> {
    if n == 0 {
        return None;
    }
    let n = bound::<7>(u64::from(n) - 1);
    // SAFETY: what is behind the sixth is still inside the record.
    Some(unsafe { (&raw const (*record).args).cast::<u64>().add(n as usize).read_volatile() })
}

#[inline(always)]
fn operand_of(record: *mut FileCall, n: usize) -> *mut Operand {
    // SAFETY: the record is our own memory.
    unsafe { if n == 0 { &raw mut (*record).first } else { &raw mut (*record).second } }
}

/// Finds what an operand leads to, and whether it may concern somebody.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined")]
fn find<A: Access>(
    settings: &FileSettings,
    scratch: *mut Scratch,
    task: Ptr<Task, A>,
    record: *mut FileCall,
    tail: &mut Tail<START, ROOM>,
    n: usize,
    fd: u8,
    name: u8,
) {
    let nothing = Span { start: START as u16, len: 0, flags: 0 };
    let to = operand_of(record, n);
    // SAFETY: the map's own memory.
    unsafe {
        *to = Operand {
            file: FileInfo::NONE,
            anchor: NO_ANCHOR,
            size: 0,
            fd: AT_FDCWD,
            what: operand::NONE,
            path: nothing,
            name: nothing,
            volume: nothing,
        };
        (&raw mut (*scratch).files.dentries).cast::<u64>().add(n).write_volatile(0);
        (&raw mut (*scratch).files.mounts).cast::<u64>().add(n).write_volatile(0);
    }
    if fd == 0 && name == 0 {
        return;
    }
    let descriptor = argument(record, fd).map_or(AT_FDCWD, |fd| fd as i32);
    let (mut is_absolute, mut is_single) = (false, true);
    let mut what = operand::FILE;
    let mut span = nothing;
    if let Some(address) = argument(record, name) {
        let place = tail.place();
        // SAFETY: inside the scratch buffer.
        unsafe { *place.cast::<[u64; 8]>() = [0; 8] };
        span = tail.user_text::<{ PATH_MAX as u32 }>(address);
        // SAFETY: as above.
        let first = unsafe { place.read_volatile() };
        is_absolute = first == b'/';
        is_single = span.len < 64 && !has_slash(place);
        // `AT_EMPTY_PATH`: the descriptor itself is meant.
        what = if first == 0 && fd != 0 { operand::FILE } else { operand::NAME };
    }
    // What the name starts from. Opaque: the compiler would make one load of what are loads through pointers of
    // different kinds, which the verifier does not take.
    let (dentry, mount) = if what == operand::NAME && (is_absolute || descriptor == AT_FDCWD) {
        let Some(fs) = task.follow(TASK_FS) else { return };
        if is_absolute {
            (opaque(fs.address_in(FS_ROOT_DENTRY)), opaque(fs.address_in(FS_ROOT_MNT)))
        } else {
            (opaque(fs.address_in(FS_PWD_DENTRY)), opaque(fs.address_in(FS_PWD_MNT)))
        }
    } else {
        // SAFETY: the map's own memory.
        let copy = unsafe { &raw mut (*scratch).files.file };
        let Some(file) = Copied::<File, FILE>::read(copy, watch::file_of(task, u64::from(descriptor as u32)))
        else {
            return;
        };
        (opaque(file.address_in(FILE_DENTRY)), opaque(file.address_in(FILE_MNT)))
    };
    let Some(node) = Ptr::<Dentry, Probed>::new(dentry as *const u8) else { return };
    // SAFETY: the map's own memory.
    let copy = unsafe { &raw mut (*scratch).files.inode };
    let Some(inode) = Copied::<Inode, INODE>::read(copy, node.address_in(DENTRY_INODE)) else { return };
    let Some(volume) = Ptr::<SuperBlock, Probed>::new(inode.address_in(INODE_SB) as *const u8) else {
        return;
    };
    let device = volume.get(SB_DEV);
    // SAFETY: the map's own memory.
    let files = unsafe { &raw mut (*scratch).files };
    let (concerns, anchor) = if what == operand::FILE {
        match watch::file(files, settings, dentry, inode, device, true) {
            Some(concern) => (concern.reads || concern.writes, concern.anchor),
            None => (false, NO_ANCHOR),
        }
    } else {
        let (below, anchor) = watch::directory(files, settings, dentry, device).unwrap_or((true, NO_ANCHOR));
        (below || is_absolute || !is_single, anchor)
    };
    // SAFETY: the map's own memory.
    unsafe {
        if concerns {
            (&raw mut (*files).concerns).write_volatile(1);
        }
        (&raw mut (*files).dentries).cast::<u64>().add(n).write_volatile(dentry);
        (&raw mut (*files).mounts).cast::<u64>().add(n).write_volatile(mount);
        let hashed = node.address_in(DENTRY_HASHED) != 0 || node.address_in(DENTRY_PARENT) == dentry;
        describe(&raw mut (*to).file, inode, device, 0, hashed);
        (*to).anchor = anchor;
        (*to).size = inode.get(INODE_SIZE);
        (*to).fd = descriptor;
        (*to).what = what;
        (*to).name = span;
    }
}

/// Whether there is a slash in the first 64 bytes, of which those that are not of the text are zero.
#[inline(always)]
fn has_slash(text: *const u8) -> bool {
    const SLASHES: u64 = 0x2F2F_2F2F_2F2F_2F2F;
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut any = 0;
    let mut word = 0;
    while word < 8 {
        // SAFETY: inside the scratch buffer.
        let bytes = unsafe { text.cast::<u64>().add(word).read_unaligned() } ^ SLASHES;
        // A byte that is zero now was a slash.
        any |= bytes.wrapping_sub(ONES) & !bytes & HIGHS;
        word += 1;
    }
    any != 0
}

/// Adds the path of what an operand leads to.
#[inline(always)]
fn place(scratch: *mut Scratch, record: *mut FileCall, tail: &mut Tail<START, ROOM>, n: usize, root: u64) {
    // SAFETY: the map's own memory.
    let (dentry, mount) = unsafe {
        (
            (&raw const (*scratch).files.dentries).cast::<u64>().add(n).read_volatile(),
            (&raw const (*scratch).files.mounts).cast::<u64>().add(n).read_volatile(),
        )
    };
    let (Some(dentry), Some(mount)) =
        (Ptr::<Dentry, Probed>::new(dentry as *const u8), Ptr::<VfsMount, Probed>::new(mount as *const u8))
    else {
        return;
    };
    let path = path::write(scratch, dentry, mount, root);
    let path = tail.path(&path);
    // SAFETY: as above.
    let to = unsafe {
        let to = operand_of(record, n);
        (*to).path = path;
        to
    };
    // SAFETY: as above.
    if unsafe { (*to).anchor.device } != 0 && path::is_of_part(mount) {
        let volume = tail.path(&path::write_in_volume(scratch, dentry, mount));
        // SAFETY: as above.
        unsafe { (*to).volume = volume };
    }
}

/// Whether a copy concerns somebody, one that goes through a pipe included: what is watched is put into the pipe
/// by one call and taken out by another.
#[inline(always)]
fn through_pipe(record: *mut FileCall, concerns: bool) -> bool {
    // SAFETY: the record is our own memory.
    let (from, to) = unsafe { ((*record).first.file, (*record).second.file) };
    if from.mode & S_IFMT == S_IFIFO {
        return concerns || PIPES.get_ptr(from.inode).is_some();
    }
    if concerns && to.mode & S_IFMT == S_IFIFO {
        // Without room the second half is told of no source.
        let _no_room = PIPES.insert(to.inode, 1, 0);
    }
    concerns
}
