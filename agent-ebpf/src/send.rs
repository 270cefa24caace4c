//! From a filled record to the ring buffer: scratch buffers, wake-up, counters.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use nightjar_abi::{
    SCRATCH_LEVELS,
    hook::{DropReason, Hook, HookCounters},
    reader,
    record::{ABI_VERSION, ARGS_MAX, Exec, Header, Kind, PATHS_MAX},
    settings::{ENVIRONMENT_MAX, ENVIRONMENT_VALUE_MAX},
};

use crate::{
    kernel::{add, bound},
    watch,
};

/// The lane of process, credential and integrity events. The agent sets the size.
#[map]
static CRITICAL: RingBuf = RingBuf::with_byte_size(4096, 0);

/// The lane of events that come in floods: those of files and sockets. The agent sets the size.
#[map]
static BULK: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static COUNTERS: PerCpuArray<HookCounters> = PerCpuArray::with_max_entries(Hook::ALL.len() as u32, 0);

/// What the reader of the ring does: [`nightjar_abi::reader`].
#[map]
static READER: Array<u32> = Array::with_max_entries(1, 0);

/// Buffers in which records of variable length are put together, [`SCRATCH_LEVELS`] for each CPU: a
/// per-CPU map's values end at 32 KiB, and a program may be preempted by another on the same CPU.
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// Room for a whole record: what the offsets in it can reach, and a mask can bound.
const RECORD_ROOM: usize = 1 << 16;

// The parts of the longest record, each bounded by its own mask, fit.
const _: () =
    assert!(size_of::<Exec>() + PATHS_MAX + ARGS_MAX + ENVIRONMENT_MAX + ENVIRONMENT_VALUE_MAX < RECORD_ROOM);

/// A buffer to build one record in.
#[repr(C)]
pub struct Scratch {
    claims: u64,
    /// The record: its fixed body, then its tail. What is behind [`RECORD_ROOM`] is never sent: a mask that bounds
    /// where the last part begins does not bound where it ends.
    pub record: [u8; RECORD_ROOM + size_of::<Exec>() + ENVIRONMENT_VALUE_MAX],
    /// A path that is being put together from its end.
    pub path: [u8; 8192],
    /// How far that is.
    pub walk: Walk,
    /// Bytes of the record's tail so far.
    pub tail: u64,
    /// How far the environment was looked through.
    pub environment: Environment,
    /// What is known of files.
    pub files: watch::Files,
}

/// State of a walk up a path.
///
/// It is kept in memory and not in registers for the verifier's sake: what is read from a map is just a number
/// to it, whatever way led there, so that all ways through a step of the walk end in the same state, and only
/// one of them is followed to the next step.
#[repr(C)]
pub struct Walk {
    /// Address of the `dentry` or `kernfs_node` that is next.
    pub node: u64,
    /// Address of the `mount` that it is in.
    pub mount: u64,
    /// Address of that mount's root.
    pub root: u64,
    /// Address of the mount at the root of the task's namespace.
    pub namespace_root: u64,
    /// Where the path begins in the buffer.
    pub start: u64,
    /// [`nightjar_abi::record::span_flags`]
    pub flags: u64,
}

/// State of a look through the environment, in memory for the reason that [`Walk`] gives.
#[repr(C)]
pub struct Environment {
    /// Address of the next variable.
    pub address: u64,
    /// Whether what is there is the rest of one that was too long.
    pub inside: u64,
    /// Bytes that were taken.
    pub taken: u64,
    /// [`nightjar_abi::record::span_flags`]
    pub flags: u64,
}

/// A scratch buffer that nobody else uses until it is given back.
pub struct Claim(*mut Scratch);

impl Claim {
    /// A free buffer of this CPU.
    ///
    /// Programs stay on their CPU but may be preempted there. Whoever raises `claims` from zero to one
    /// has the buffer; two that meet in between both see more than one and both go on to the next.
    #[inline(always)]
    pub fn take() -> Option<Self> {
        // SAFETY: no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let mut level = 0;
        while level < SCRATCH_LEVELS {
            let scratch = SCRATCH.get_ptr_mut(cpu * SCRATCH_LEVELS + level)?;
            // SAFETY: the map's own memory.
            let claims = unsafe { &raw mut (*scratch).claims };
            add(claims, 1);
            // SAFETY: as above; volatile because others change it.
            if unsafe { claims.read_volatile() } == 1 {
                return Some(Self(scratch));
            }
            add(claims, u64::MAX);
            level += 1;
        }
        None
    }

    /// The buffer.
    #[inline(always)]
    pub fn get(&self) -> *mut Scratch {
        self.0
    }

    /// Gives the buffer back.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: the map's own memory.
        add(unsafe { &raw mut (*self.0).claims }, u64::MAX);
    }
}

/// Counters of a hook on this CPU, and what it can say of a call.
#[derive(Clone, Copy)]
pub struct Count(*mut HookCounters, Hook);

impl Count {
    /// Counts that the hook was reached. `None` when the agent is leaving.
    #[inline(always)]
    pub fn seen(hook: Hook) -> Option<Self> {
        // SAFETY: the map's own memory; volatile because the agent writes it.
        if unsafe { READER.get_ptr(0)?.read_volatile() } == reader::LEFT {
            return None;
        }
        let counters = COUNTERS.get_ptr_mut(hook as u32)?;
        // SAFETY: the map's own memory.
        add(unsafe { &raw mut (*counters).seen }, 1);
        Some(Self(counters, hook))
    }

    /// The call is no event.
    #[inline(always)]
    pub fn filtered(self) {
        // SAFETY: the map's own memory.
        add(unsafe { &raw mut (*self.0).filtered }, 1);
    }

    /// The call only raised the count of an earlier record.
    #[inline(always)]
    pub fn aggregated(self) {
        // SAFETY: the map's own memory.
        add(unsafe { &raw mut (*self.0).aggregated }, 1);
    }

    /// The record is lost.
    #[inline(always)]
    pub fn dropped(self, reason: DropReason) {
        // SAFETY: the map's own memory; `reason` is an index of the array.
        add(unsafe { (&raw mut (*self.0).dropped).cast::<u64>().add(reason as usize) }, 1);
    }

    #[inline(always)]
    fn submitted(self) {
        // SAFETY: the map's own memory.
        add(unsafe { &raw mut (*self.0).submitted }, 1);
    }

    /// Room for a record of fixed size in the ring; counts the drop if there is none.
    #[inline(always)]
    pub fn reserve<T: 'static>(self) -> Option<RingBufEntry<T>> {
        let entry = if self.1.is_bulk() { BULK.reserve::<T>(0) } else { CRITICAL.reserve::<T>(0) };
        if entry.is_none() {
            self.dropped(DropReason::RingFull);
        }
        entry
    }

    /// Sends a reserved record.
    #[inline(always)]
    pub fn submit<T: 'static>(self, entry: RingBufEntry<T>) {
        entry.submit(wake_up());
        self.submitted();
    }

    /// Sends the first `len` bytes of a scratch buffer's record.
    #[inline(always)]
    pub fn output(self, scratch: *mut Scratch, len: u64) {
        const LONGEST: u32 = RECORD_ROOM as u32 - 1;
        if len > u64::from(LONGEST) {
            self.dropped(DropReason::TooBig);
            return;
        }
        // Known by now, but forgotten by verifiers before 6.12.
        let len = bound::<LONGEST>(len);
        let ring = if self.1.is_bulk() { &raw const BULK } else { &raw const CRITICAL };
        // SAFETY: `len` is bounded by the masks of the parts; the verifier holds it against the map's size.
        let sent = unsafe {
            aya_ebpf::helpers::generated::bpf_ringbuf_output(
                ring.cast_mut().cast(),
                (&raw mut (*scratch).record).cast(),
                len,
                wake_up(),
            )
        };
        if sent == 0 {
            self.submitted();
        } else {
            self.dropped(DropReason::RingFull);
        }
    }

    /// Head of a record of this hook, made now.
    #[inline(always)]
    pub fn header(self, kind: Kind, len: u64) -> Header {
        header(kind, self.1 as u16, len)
    }
}

/// Head of a record.
#[inline(always)]
pub fn header(kind: Kind, hook: u16, len: u64) -> Header {
    Header {
        len: len as u32,
        abi: ABI_VERSION,
        kind: kind as u16,
        // SAFETY: no preconditions.
        time: unsafe { bpf_ktime_get_boot_ns() },
        // SAFETY: no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() },
        hook,
        reserved: 0,
    }
}

/// Waking the reader costs microseconds, so a record does it only when the reader has gone to sleep
/// because nothing came for a while; else it comes by itself after a nap. See [`nightjar_abi::reader`].
#[inline(always)]
fn wake_up() -> u64 {
    let Some(state) = READER.get_ptr_mut(0) else { return u64::from(BPF_RB_NO_WAKEUP) };
    // SAFETY: the map's own memory; volatile because the agent writes it.
    if unsafe { state.read_volatile() } != reader::SLEEPS {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    // SAFETY: as above.
    unsafe { state.write_volatile(reader::AWAKE) };
    u64::from(BPF_RB_FORCE_WAKEUP)
}
