//! Frozen globals: set by the agent before load, constants to the verifier.

use aya_ebpf::Global;
use nightjar_abi::fields;

/// Offsets of [`fields::TABLE`], in its order.
#[unsafe(no_mangle)]
static FIELD_OFFSETS: [u32; fields::COUNT] = [0; fields::COUNT];

/// Whether the kernel has the helper `bpf_task_pt_regs` (5.15).
#[unsafe(no_mangle)]
pub static HAVE_TASK_PT_REGS: Global<u8> = Global::new(0);

/// Value of a row of the kernel-field table, or [`fields::MISSING`].
#[inline(always)]
pub fn field(row: usize) -> u32 {
    // SAFETY: `row` comes from a `Field` or is checked by its caller to be one; the array has a place
    // for each. Volatile, or the compiler would use the zeros above.
    unsafe { core::ptr::read_volatile((&raw const FIELD_OFFSETS).cast::<u32>().add(row)) }
}
