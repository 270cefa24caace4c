//! Paths, put together from the dentries that the kernel resolved.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use nightjar_abi::{fields::*, record::span_flags};

use crate::{
    kernel::{Access, Copied, Probed, Ptr, bound, container},
    send::{Scratch, Walk},
    watch::DENTRY,
};

/// Most components of a path, mounts crossed included. What the verifier has to go through grows with its
/// square.
const DEPTH: u32 = 96;
/// Most components of a cgroup path.
const CGROUP_DEPTH: u32 = 24;
/// Highest place in the path buffer that a file path begins at; paths grow down from here.
const END: u64 = 0xFFF;
/// As [`END`], for cgroup paths.
const CGROUP_END: u64 = 0x7FF;
/// Where a name of unknown length is read to, beyond every path.
const NAME: usize = 4608;
/// Longest name, in bytes.
const NAME_MAX: u32 = 255;

/// A path in the path buffer: its bytes are `[start, start + len)`.
pub struct Path {
    pub start: u64,
    pub len: u64,
    /// [`span_flags`]
    pub flags: u32,
}

/// Writes the path of a dentry in a mount, from the root of the mount namespace, into the scratch
/// buffer.
///
/// As the kernel's `prepend_path`, except that it goes on past the root of the process (`chroot`), so
/// that the path is the one that the host sees.
/// <https://github.com/torvalds/linux/blob/v6.12/fs/d_path.c#L94-L164>
#[inline(always)]
pub fn write<A: Access>(
    scratch: *mut Scratch,
    dentry: Ptr<Dentry, A>,
    mount: Ptr<VfsMount, A>,
    namespace_root: u64,
) -> Path {
    // SAFETY: the map's own memory.
    let (walk, buffer) = unsafe { (&raw mut (*scratch).walk, (&raw mut (*scratch).path).cast::<u8>()) };
    // SAFETY: the map's own memory.
    unsafe {
        (*walk).node = dentry.address();
        (*walk).mount = container(mount, MOUNT_VFSMOUNT).map_or(0, Ptr::address);
        (*walk).root = mount.address_in(VFSMOUNT_ROOT);
        (*walk).namespace_root = namespace_root;
        (*walk).start = END;
        (*walk).flags = u64::from(span_flags::TRUNCATED);
    }
    let mut depth = 0;
    while depth < DEPTH && step(walk, buffer) {
        depth += 1;
    }
    finish::<{ END as u32 }>(walk, buffer)
}

/// Whether a mount is of a part of its file system: a bind mount of a directory.
#[inline(always)]
pub fn is_of_part(mount: Ptr<VfsMount, Probed>) -> bool {
    let root = mount.address_in(VFSMOUNT_ROOT);
    Ptr::<Dentry, Probed>::new(root as *const u8)
        .is_some_and(|root| root.address_in(DENTRY_PARENT) != root.address())
}

/// Writes the path of a dentry from the root of its file system, whatever part of that is mounted where.
#[inline(always)]
pub fn write_in_volume(
    scratch: *mut Scratch,
    dentry: Ptr<Dentry, Probed>,
    mount: Ptr<VfsMount, Probed>,
) -> Path {
    // SAFETY: the map's own memory.
    let (walk, buffer) = unsafe { (&raw mut (*scratch).walk, (&raw mut (*scratch).path).cast::<u8>()) };
    // SAFETY: the map's own memory.
    unsafe {
        (*walk).node = dentry.address();
        // Any mount, of which no dentry is the root.
        (*walk).mount = mount.address();
        (*walk).root = 0;
        (*walk).namespace_root = 0;
        (*walk).start = END;
        (*walk).flags = u64::from(span_flags::TRUNCATED);
    }
    let mut depth = 0;
    while depth < DEPTH && step(walk, buffer) {
        depth += 1;
    }
    finish::<{ END as u32 }>(walk, buffer)
}

/// Goes up by one component or across one mount; whether there is more to go.
#[inline(always)]
fn step(walk: *mut Walk, buffer: *mut u8) -> bool {
    // SAFETY: the map's own memory; volatile so that it stays there, see `Walk`.
    unsafe {
        let mut bytes = MaybeUninit::uninit();
        let node = (&raw const (*walk).node).read_volatile();
        let Some(dentry) = Copied::<Dentry, DENTRY>::read(bytes.as_mut_ptr(), node) else { return false };
        let Some(mount) = Ptr::<Mount, Probed>::new((&raw const (*walk).mount).read_volatile() as *const u8)
        else {
            return false;
        };
        if node == (&raw const (*walk).root).read_volatile() {
            let parent = mount.address_in(MOUNT_PARENT);
            if parent == mount.address() {
                let attached = parent == (&raw const (*walk).namespace_root).read_volatile();
                let flags = if attached { 0 } else { span_flags::UNREACHABLE };
                (&raw mut (*walk).flags).write_volatile(u64::from(flags));
                return false;
            }
            let root = Ptr::<Mount, Probed>::new(parent as *const u8)
                .and_then(|parent| parent.embedded(MOUNT_VFSMOUNT))
                .map_or(0, |mount| mount.address_in(VFSMOUNT_ROOT));
            (&raw mut (*walk).node).write_volatile(mount.address_in(MOUNT_MOUNTPOINT));
            (&raw mut (*walk).mount).write_volatile(parent);
            (&raw mut (*walk).root).write_volatile(root);
            return true;
        }

        let parent = dentry.address_in(DENTRY_PARENT);
        let len = u64::from(dentry.get(DENTRY_NAME_LEN));
        let name = dentry.address_in(DENTRY_NAME);
        if parent == node {
            // Not in the tree of the mount: a file that never had a place in one (a memfd), which has a name
            // all the same, or a directory that was moved away from under the mount.
            (&raw mut (*walk).flags).write_volatile(u64::from(span_flags::UNREACHABLE));
            if len > 1 {
                prepend::<{ END as u32 }>(walk, buffer, name, len);
            }
            return false;
        }
        (&raw mut (*walk).node).write_volatile(parent);
        prepend::<{ END as u32 }>(walk, buffer, name, len)
    }
}

/// Writes the path of a cgroup, from the root of its hierarchy, into the scratch buffer.
#[inline(always)]
pub fn write_cgroup<A: Access>(scratch: *mut Scratch, node: Ptr<KernfsNode, A>) -> Path {
    // SAFETY: the map's own memory.
    let (walk, buffer) = unsafe { (&raw mut (*scratch).walk, (&raw mut (*scratch).path).cast::<u8>()) };
    // SAFETY: the map's own memory.
    unsafe {
        (*walk).node = node.address();
        (*walk).start = CGROUP_END;
        (*walk).flags = u64::from(span_flags::TRUNCATED);
    }
    let mut depth = 0;
    while depth < CGROUP_DEPTH && step_cgroup(walk, buffer) {
        depth += 1;
    }
    finish::<{ CGROUP_END as u32 }>(walk, buffer)
}

/// Goes up by one cgroup; whether there is more to go.
#[inline(always)]
fn step_cgroup(walk: *mut Walk, buffer: *mut u8) -> bool {
    // SAFETY: the map's own memory, as in `step`.
    unsafe {
        let Some(node) =
            Ptr::<KernfsNode, Probed>::new((&raw const (*walk).node).read_volatile() as *const u8)
        else {
            return false;
        };
        let parent = node.address_in(KERNFS_PARENT);
        if parent == 0 {
            (&raw mut (*walk).flags).write_volatile(0);
            return false;
        }
        // 256 bytes from `NAME` on are inside the buffer.
        let name = buffer.add(NAME);
        let read =
            bpf_probe_read_kernel_str(name.cast(), NAME_MAX + 1, node.address_in(KERNFS_NAME) as *const _);
        if read <= 0 {
            return false;
        }
        (&raw mut (*walk).node).write_volatile(parent);
        prepend::<{ CGROUP_END as u32 }>(walk, buffer, name as u64, read as u64 - 1)
    }
}

/// Writes `/name` before what is there; whether there was room for it.
#[inline(always)]
fn prepend<const MASK: u32>(walk: *mut Walk, buffer: *mut u8, name: u64, len: u64) -> bool {
    // SAFETY: the map's own memory, as in `step`.
    let start = unsafe { (&raw const (*walk).start).read_volatile() };
    if len > u64::from(NAME_MAX) || len + 1 > start {
        return false;
    }
    let start = bound::<MASK>(start.wrapping_sub(len).wrapping_sub(1));
    // Bounded anew where it is used: the comparisons on the way here make 6.12's verifier forget.
    let len = bound::<NAME_MAX>(len);
    // SAFETY: `start` is at most `MASK`, `len` at most 255: inside the buffer.
    unsafe {
        buffer.add(start as usize).write(b'/');
        bpf_probe_read_kernel(buffer.add(start as usize + 1).cast(), len as u32, name as *const _);
        (&raw mut (*walk).start).write_volatile(start);
    }
    true
}

#[inline(always)]
fn finish<const MASK: u32>(walk: *mut Walk, buffer: *mut u8) -> Path {
    let end = u64::from(MASK);
    // SAFETY: the map's own memory, as in `step`.
    let (mut start, flags) =
        unsafe { ((&raw const (*walk).start).read_volatile(), (&raw const (*walk).flags).read_volatile()) };
    if start == end {
        start = end - 1;
        // SAFETY: inside the buffer.
        unsafe { buffer.add(start as usize).write(b'/') };
    }
    let start = bound::<MASK>(start);
    Path { start, len: end - start, flags: flags as u32 }
}

/// Pointer into the path buffer.
#[inline(always)]
pub fn bytes(scratch: *mut Scratch, path: &Path) -> *const u8 {
    // SAFETY: the start is bounded by the buffer.
    unsafe { (&raw const (*scratch).path).cast::<u8>().add(path.start as usize) }
}
