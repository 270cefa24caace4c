//! What the agent can change while the programs run.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use nightjar_abi::{
    fields::*,
    settings::{CgroupKey, Settings},
};

use crate::{
    cgroup,
    kernel::{Access, Ptr},
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Cgroups of which something is left out, and what. One that had to go for lack of room is sent, and the agent
/// leaves it out.
#[map]
static FILTERED_CGROUPS: LruHashMap<CgroupKey, u64> = LruHashMap::with_max_entries(8192, 0);

/// The settings. `None` is impossible; the verifier wants to hear of it.
#[inline(always)]
pub fn get() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// Whether records of this kind (one of [`nightjar_abi::settings::leave_out`]) are left out for this task.
#[inline(always)]
pub fn leaves_out<A: Access>(task: Ptr<Task, A>, kind: u64) -> bool {
    let Some(settings) = get() else { return false };
    if settings.filters_cgroups == 0 {
        return false;
    }
    let Some((node, is_v1)) = cgroup::of(task) else { return false };
    let key = CgroupKey { id: node.get(KERNFS_ID), is_v1: u64::from(is_v1) };
    let Some(what) = FILTERED_CGROUPS.get_ptr(key) else { return false };
    // SAFETY: the map's own memory; volatile because the agent writes it.
    let what = unsafe { what.read_volatile() };
    what & kind != 0
}
