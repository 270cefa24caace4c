//! The tail of a record of variable length, put together part by part.

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};
use nightjar_abi::record::{ARGS_MAX, PATH_MAX, Span, span_flags};

use crate::{
    kernel::bound,
    path::{self, Path},
    send::Scratch,
};

/// The end of a record whose fixed part is `START` bytes long, growing. `ROOM` is one less than a power of two, and
/// no less than where its last part begins.
pub struct Tail<const START: usize, const ROOM: u32> {
    pub scratch: *mut Scratch,
}

impl<const START: usize, const ROOM: u32> Tail<START, ROOM> {
    /// Nothing yet.
    #[inline(always)]
    pub fn new(scratch: *mut Scratch) -> Self {
        // SAFETY: the map's own memory.
        unsafe { (&raw mut (*scratch).tail).write_volatile(0) };
        Self { scratch }
    }

    /// Bytes so far, kept in memory for the reason that `Walk` gives. They stay within bounds because each part
    /// does.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        // SAFETY: the map's own memory.
        unsafe { (&raw const (*self.scratch).tail).read_volatile() }
    }

    /// Where the next byte goes, bounded for the verifier.
    #[inline(always)]
    pub fn place(&self) -> *mut u8 {
        let len = bound::<ROOM>(self.len());
        // SAFETY: inside the record by the bound.
        unsafe { (&raw mut (*self.scratch).record).cast::<u8>().add(START + len as usize) }
    }

    /// What was put at the end by other means.
    #[inline(always)]
    pub fn span(&mut self, len: u64, flags: u32) -> Span {
        let before = self.len();
        let start = (START as u64 + before) as u16;
        // SAFETY: the map's own memory.
        unsafe { (&raw mut (*self.scratch).tail).write_volatile(before + len) };
        Span { start, len: len as u16, flags }
    }

    /// No bytes.
    #[inline(always)]
    pub fn nothing(&mut self) -> Span {
        self.span(0, 0)
    }

    /// A path out of the path buffer.
    #[inline(always)]
    pub fn path(&mut self, path: &Path) -> Span {
        let place = self.place();
        let len = bound::<{ PATH_MAX as u32 }>(path.len);
        // SAFETY: both ends are inside the scratch buffer by their bounds.
        unsafe { bpf_probe_read_kernel(place.cast(), len as u32, path::bytes(self.scratch, path).cast()) };
        self.span(len, path.flags)
    }

    /// A string of the kernel's, of at most `MAX` bytes (one less than a power of two).
    #[inline(always)]
    pub fn text<const MAX: u32>(&mut self, address: u64) -> Span {
        let place = self.place();
        // SAFETY: `MAX + 1` bytes from `place` on are inside the scratch buffer.
        let read = unsafe { bpf_probe_read_kernel_str(place.cast(), MAX + 1, address as *const _) };
        if read <= 0 {
            return self.span(0, span_flags::FAULT);
        }
        let len = bound::<MAX>(read as u64 - 1);
        self.span(len, if len == u64::from(MAX) { span_flags::TRUNCATED } else { 0 })
    }

    /// A string of the process's, of at most `MAX` bytes (one less than a power of two).
    #[inline(always)]
    pub fn user_text<const MAX: u32>(&mut self, address: u64) -> Span {
        let place = self.place();
        // SAFETY: `MAX + 1` bytes from `place` on are inside the scratch buffer.
        let read = unsafe { bpf_probe_read_user_str(place.cast(), MAX + 1, address as *const _) };
        if read <= 0 {
            return self.span(0, span_flags::FAULT);
        }
        let len = bound::<MAX>(read as u64 - 1);
        self.span(len, if len == u64::from(MAX) { span_flags::TRUNCATED } else { 0 })
    }

    /// The arguments, out of the process's memory: the kernel has just put them there.
    #[inline(always)]
    pub fn user(&mut self, address: u64, size: u64) -> Span {
        let (wanted, flags) =
            if size > ARGS_MAX as u64 { (ARGS_MAX as u64, span_flags::TRUNCATED) } else { (size, 0) };
        let place = self.place();
        let wanted = bound::<{ ARGS_MAX as u32 }>(wanted);
        // SAFETY: `ARGS_MAX` bytes from `place` on are inside the scratch buffer.
        let read = unsafe { bpf_probe_read_user(place.cast(), wanted as u32, address as *const _) };
        if read != 0 {
            return self.span(0, flags | span_flags::FAULT);
        }
        self.span(wanted, flags)
    }
}
