//! Typed pointers to kernel structures, and the few instructions that the compiler must not touch.

use core::{arch::asm, marker::PhantomData, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use nightjar_abi::fields::{Bytes, Embedded, Field, MISSING, To};

use crate::globals;

/// How memory behind a pointer is reached.
pub trait Access {
    /// Whether a read costs a call.
    const IS_COSTLY: bool;

    /// Reads a `T`; zero where the memory is not there.
    ///
    /// # Safety
    /// `T` must be a plain number.
    unsafe fn load<T: Copy + Default>(from: *const T) -> T;
}

/// By a load that the verifier knows the type of and the kernel guards: 1 ns. Only for pointers that
/// come from the arguments of a `tp_btf` or iterator program, and what they lead to.
pub enum Typed {}

/// By the helper `bpf_probe_read_kernel`: about 27 ns, for any address.
pub enum Probed {}

impl Access for Typed {
    const IS_COSTLY: bool = false;

    #[inline(always)]
    unsafe fn load<T: Copy + Default>(from: *const T) -> T {
        // SAFETY: the verifier lets only loads from known structures pass, and the kernel turns a fault
        // in one into zero.
        unsafe { core::ptr::read_volatile(from) }
    }
}

impl Access for Probed {
    const IS_COSTLY: bool = true;

    #[inline(always)]
    unsafe fn load<T: Copy + Default>(from: *const T) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // The result needs no look: the helper fills with zeros what it cannot read, and a branch less is
        // half the states for the verifier.
        // <https://github.com/torvalds/linux/blob/v5.10/kernel/trace/bpf_trace.c#L217-L226>
        // SAFETY: the helper checks the address and writes all of `value`.
        unsafe {
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from.cast());
            value.assume_init()
        }
    }
}

/// A pointer to kernel structure `S` that is not null.
pub struct Ptr<S, A> {
    address: *const u8,
    types: PhantomData<(S, A)>,
}

impl<S, A> Clone for Ptr<S, A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, A> Copy for Ptr<S, A> {}

impl<S, A: Access> Ptr<S, A> {
    /// A pointer from a program's argument or a helper.
    #[inline(always)]
    pub fn new(address: *const u8) -> Option<Self> {
        if address.is_null() {
            return None;
        }
        // Without this the compiler moves the addition of a field's offset before the test, which the
        // verifier does not allow on a pointer that may be null. A real instruction: an empty one leaves
        // two lines of debug information at the same place, which the kernel refuses.
        let mut address = address;
        // SAFETY: a register is copied to itself.
        unsafe { asm!("{0} = {0}", inout(reg) address, options(nostack)) };
        Some(Self { address, types: PhantomData })
    }

    /// The address as a number.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.address as u64
    }

    /// Value of a number; zero where the kernel does not have the field.
    #[inline(always)]
    pub fn get<T: Copy + Default>(self, field: Field<S, T>) -> T {
        match offset(field) {
            // SAFETY: a number at the place that BTF gives it.
            Some(offset) => unsafe { A::load(self.address.add(offset).cast()) },
            None => T::default(),
        }
    }

    /// What a pointer leads to.
    #[inline(always)]
    pub fn follow<U>(self, field: Field<S, To<U>>) -> Option<Ptr<U, A>> {
        // SAFETY: as above; a pointer is a 64-bit number here.
        Ptr::new(unsafe { A::load::<u64>(self.address.add(offset(field)?).cast()) } as *const u8)
    }

    /// Where a pointer leads to, without a look whether it is null.
    #[inline(always)]
    pub fn address_in<U>(self, field: Field<S, To<U>>) -> u64 {
        match offset(field) {
            // SAFETY: as above.
            Some(offset) => unsafe { A::load(self.address.add(offset).cast()) },
            None => 0,
        }
    }

    /// Eight bytes of an embedded array, from its byte `at` on; zero where the kernel does not have it.
    #[inline(always)]
    pub fn word(self, field: Field<S, Embedded<Bytes>>, at: usize) -> u64 {
        match offset(field) {
            // SAFETY: the caller knows the array to be as long.
            Some(offset) => unsafe { A::load(self.address.add(offset + at).cast()) },
            None => 0,
        }
    }

    /// The same place as another structure: one that this is the beginning of.
    #[inline(always)]
    pub fn cast<U>(self) -> Ptr<U, A> {
        Ptr { address: self.address, types: PhantomData }
    }

    /// What an element of an embedded array of pointers leads to.
    #[inline(always)]
    pub fn follow_element<U>(self, field: Field<S, Embedded<To<U>>>, index: u32) -> Option<Ptr<U, A>> {
        let place = offset(field)? + index as usize * size_of::<u64>();
        // SAFETY: the caller knows the array to have that element.
        Ptr::new(unsafe { A::load::<u64>(self.address.add(place).cast()) } as *const u8)
    }

    /// A structure embedded in this one. Only for the helper: a typed pointer into the middle of a
    /// structure keeps the type of the whole.
    #[inline(always)]
    pub fn embedded<U>(self, field: Field<S, Embedded<U>>) -> Option<Ptr<U, Probed>> {
        // SAFETY: stays inside the structure.
        Some(Ptr { address: unsafe { self.address.add(offset(field)?) }, types: PhantomData })
    }
}

/// A kernel structure, wherever its fields are read from.
pub trait Fields<S>: Copy {
    /// How what it points to is reached.
    type Beyond: Access;

    /// Value of a number; zero where the kernel does not have the field.
    fn get<T: Copy + Default>(self, field: Field<S, T>) -> T;

    /// Eight bytes of an embedded array, from its byte `at` on; zero where the kernel does not have it.
    fn word(self, field: Field<S, Embedded<Bytes>>, at: usize) -> u64;

    /// What a pointer leads to.
    fn follow<U>(self, field: Field<S, To<U>>) -> Option<Ptr<U, Self::Beyond>>;
}

impl<S, A: Access> Fields<S> for Ptr<S, A> {
    type Beyond = A;

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: Field<S, T>) -> T {
        Self::get(self, field)
    }

    #[inline(always)]
    fn word(self, field: Field<S, Embedded<Bytes>>, at: usize) -> u64 {
        Self::word(self, field, at)
    }

    #[inline(always)]
    fn follow<U>(self, field: Field<S, To<U>>) -> Option<Ptr<U, A>> {
        Self::follow(self, field)
    }
}

impl<S, const N: usize> Fields<S> for Copied<S, N> {
    type Beyond = Probed;

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: Field<S, T>) -> T {
        Self::get(self, field)
    }

    #[inline(always)]
    fn word(self, field: Field<S, Embedded<Bytes>>, at: usize) -> u64 {
        match offset(field) {
            // SAFETY: inside the copy; the place is a constant to the verifier.
            Some(offset) if offset + at + size_of::<u64>() <= N => unsafe {
                self.bytes.add(offset + at).cast::<u64>().read_unaligned()
            },
            _ => self.original.word(field, at),
        }
    }

    #[inline(always)]
    fn follow<U>(self, field: Field<S, To<U>>) -> Option<Ptr<U, Probed>> {
        Ptr::new(self.address_in(field) as *const u8)
    }
}

/// The first `N` bytes of a kernel structure, copied in one go: several fields for the price of one.
pub struct Copied<S, const N: usize> {
    bytes: *const u8,
    original: Ptr<S, Probed>,
}

impl<S, const N: usize> Clone for Copied<S, N> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, const N: usize> Copy for Copied<S, N> {}

impl<S, const N: usize> Copied<S, N> {
    /// Copies what is at `address`, over all of `to`, which need not be filled: to fill it is a loop over its bytes.
    #[inline(always)]
    pub fn read(to: *mut [u8; N], address: u64) -> Option<Self> {
        let original = Ptr::new(address as *const u8)?;
        // SAFETY: the helper checks the address and fills with zeros what it cannot read.
        unsafe { bpf_probe_read_kernel(to.cast(), N as u32, address as *const _) };
        Some(Self { bytes: to.cast(), original })
    }

    /// Value of a number; zero where the kernel does not have the field.
    #[inline(always)]
    pub fn get<T: Copy + Default>(self, field: Field<S, T>) -> T {
        match offset(field) {
            // SAFETY: inside the copy; the place is a constant to the verifier.
            Some(offset) if offset + size_of::<T>() <= N => unsafe {
                self.bytes.add(offset).cast::<T>().read_volatile()
            },
            _ => self.original.get(field),
        }
    }

    /// Where a pointer leads to.
    #[inline(always)]
    pub fn address_in<U>(self, field: Field<S, To<U>>) -> u64 {
        match offset(field) {
            // SAFETY: as above.
            Some(offset) if offset + size_of::<u64>() <= N => unsafe {
                self.bytes.add(offset).cast::<u64>().read_volatile()
            },
            _ => self.original.address_in(field),
        }
    }
}

/// The structure that embeds this one (`container_of`).
#[inline(always)]
pub fn container<S, U, A>(part: Ptr<U, A>, field: Field<S, Embedded<U>>) -> Option<Ptr<S, Probed>> {
    // SAFETY: the caller knows that `part` is embedded so; the result is only read by the helper.
    Some(Ptr { address: unsafe { part.address.sub(offset(field)?) }, types: PhantomData })
}

/// Whether the kernel has a field.
#[inline(always)]
pub fn has<S, T>(field: Field<S, T>) -> bool {
    globals::field(field.row()) != MISSING
}

/// A value of the table that is no field: a size, an enumerator, a count.
#[inline(always)]
pub fn number(row: Field<(), nightjar_abi::fields::Number>) -> u32 {
    globals::field(row.row())
}

#[inline(always)]
fn offset<S, T>(field: Field<S, T>) -> Option<usize> {
    match globals::field(field.row()) {
        MISSING => None,
        offset => Some(offset as usize),
    }
}

/// `value & MASK`, done where the verifier sees it. The compiler drops a mask that it can prove to be
/// idle, but the verifier cannot follow the proof; and a value that is masked anew in each pass of a loop
/// looks the same in each pass, so that the verifier stops early.
#[inline(always)]
pub fn bound<const MASK: u32>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: one instruction on a register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack));
    }
    value
}

/// `*counter += n`, whole even when another program of ours runs in between on the same CPU.
#[inline(always)]
pub fn add(counter: *mut u64, n: u64) {
    // SAFETY: the caller owns the counter; the instruction exists on every kernel that has ring buffers.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) n, options(nostack)) };
}

/// The same number, of which the compiler knows nothing: it would make a branch of what was written without one.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nostack, pure, nomem)) };
    value
}

/// Numbers in a map that must be written and read where it says so: see [`crate::send::Walk`].
pub mod volatile {
    /// Writes to the map's own memory.
    #[inline(always)]
    pub fn set(to: *mut u64, value: u64) {
        // SAFETY: callers hand over members of a map's value.
        unsafe { to.write_volatile(value) };
    }

    /// Reads from the map's own memory.
    #[inline(always)]
    pub fn get(from: *const u64) -> u64 {
        // SAFETY: as above.
        unsafe { from.read_volatile() }
    }
}
