//! What the kernel does not say: names of users and groups, containers.

pub mod cgroups;
pub mod container;
pub mod users;
