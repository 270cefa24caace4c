//! What the kernel does not say: names of users and groups, containers.
