//! Paths, put together from the dentries that the kernel resolved.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use nightjar_abi::{fields::*, record::span_flags};

use crate::{
    kernel::{Access, Ptr, bound, container},
    send::Scratch,
};

/// Most components of a path, mounts crossed included.
const DEPTH: u32 = 128;
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
pub fn write<A, B>(scratch: *mut Scratch, dentry: Ptr<Dentry, A>, mount: Ptr<VfsMount, B>) -> Option<Path>
where
    A: Access,
    B: Access,
{
    // SAFETY: the map's own memory.
    let buffer = unsafe { (&raw mut (*scratch).path).cast::<u8>() };
    let mut dentry = dentry.probed();
    let mut root = mount.probed().follow(VFSMOUNT_ROOT)?.address();
    let mut mount = container(mount, MOUNT_VFSMOUNT)?;
    let mut start = END;
    let mut flags = span_flags::TRUNCATED;

    let mut depth = 0;
    while depth < DEPTH {
        depth += 1;
        if dentry.address() == root {
            let Some(parent) = mount.follow(MOUNT_PARENT) else { break };
            if parent.address() == mount.address() {
                flags = 0;
                break;
            }
            let Some(mountpoint) = mount.follow(MOUNT_MOUNTPOINT) else { break };
            let Some(parents_root) = parent.embedded(MOUNT_VFSMOUNT).and_then(|m| m.follow(VFSMOUNT_ROOT))
            else {
                break;
            };
            (dentry, mount, root) = (mountpoint, parent, parents_root.address());
            continue;
        }
        let Some(parent) = dentry.follow(DENTRY_PARENT) else { break };
        if parent.address() == dentry.address() {
            // The root of a file system that is not the root of the mount: not mounted any more, or
            // never (a memfd).
            flags = 0;
            break;
        }
        let len = u64::from(dentry.get(DENTRY_NAME_LEN) & NAME_MAX);
        if len + 1 > start {
            break;
        }
        let Some(name) = dentry.follow(DENTRY_NAME) else { break };
        start = prepend::<{ END as u32 }>(buffer, start, name.address(), len);
        dentry = parent;
    }
    Some(finish::<{ END as u32 }>(buffer, start, flags))
}

/// Writes the path of a cgroup, from the root of its hierarchy, into the scratch buffer.
#[inline(always)]
pub fn write_cgroup<A: Access>(scratch: *mut Scratch, node: Ptr<KernfsNode, A>) -> Path {
    // SAFETY: the map's own memory.
    let buffer = unsafe { (&raw mut (*scratch).path).cast::<u8>() };
    let mut node = node.probed();
    let mut start = CGROUP_END;
    let mut flags = span_flags::TRUNCATED;

    let mut depth = 0;
    while depth < CGROUP_DEPTH {
        depth += 1;
        let Some(parent) = node.follow(KERNFS_PARENT) else {
            flags = 0;
            break;
        };
        let Some(name) = node.follow(KERNFS_NAME) else { break };
        // SAFETY: 256 bytes from `NAME` on are inside the buffer.
        let read = unsafe {
            bpf_probe_read_kernel_str(buffer.add(NAME).cast(), NAME_MAX + 1, name.address() as *const _)
        };
        if read <= 0 {
            flags |= span_flags::FAULT;
            break;
        }
        let len = bound::<NAME_MAX>(read as u64 - 1);
        if len + 1 > start {
            break;
        }
        start = prepend::<{ CGROUP_END as u32 }>(buffer, start, buffer.wrapping_add(NAME) as u64, len);
        node = parent;
    }
    finish::<{ CGROUP_END as u32 }>(buffer, start, flags)
}

/// Writes `/name` before `start`; gives the new start.
#[inline(always)]
fn prepend<const MASK: u32>(buffer: *mut u8, start: u64, name: u64, len: u64) -> u64 {
    let start = bound::<MASK>(start.wrapping_sub(len).wrapping_sub(1));
    // Bounded anew where it is used: the comparisons on the way here make 6.12's verifier forget.
    let len = bound::<NAME_MAX>(len);
    // SAFETY: `start` is at most `MASK`, `len` at most 255: inside the buffer.
    unsafe {
        buffer.add(start as usize).write(b'/');
        bpf_probe_read_kernel(buffer.add(start as usize + 1).cast(), len as u32, name as *const _);
    }
    start
}

#[inline(always)]
fn finish<const MASK: u32>(buffer: *mut u8, start: u64, flags: u32) -> Path {
    let end = u64::from(MASK);
    let mut start = start;
    if start == end {
        start = end - 1;
        // SAFETY: inside the buffer.
        unsafe { buffer.add(start as usize).write(b'/') };
    }
    let start = bound::<MASK>(start);
    Path { start, len: end - start, flags }
}

/// Pointer into the path buffer.
#[inline(always)]
pub fn bytes(scratch: *mut Scratch, path: &Path) -> *const u8 {
    // SAFETY: the start is bounded by the buffer.
    unsafe { (&raw const (*scratch).path).cast::<u8>().add(path.start as usize) }
}
