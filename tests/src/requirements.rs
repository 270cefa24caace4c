//! What a test needs of its host, and what to do where that is missing.

use std::{
    env,
    io::{self, Write},
    path::Path,
};

/// Leaves a test that needs the kernel programs where they cannot be loaded.
#[macro_export]
macro_rules! skip_without_kernel {
    () => {
        if let Some(reason) = $crate::missing_for_kernel_tests() {
            $crate::skip(&reason);
            return;
        }
    };
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// Where `CI=true`: there nothing may be skipped.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{name} cannot be skipped where CI=true: {reason}");
    // Past the test runner, which would swallow it.
    let _no_reader = writeln!(io::stderr(), "skipped {name}: {reason}");
}

/// Why kernel programs cannot be loaded here, if they cannot.
#[must_use]
pub fn missing_for_kernel_tests() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("loading kernel programs needs root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel was built without BTF".to_owned());
    }
    match aya::programs::loaded_programs().next() {
        Some(Err(error)) => Some(format!("the kernel does not let us use BPF: {error}")),
        Some(Ok(_)) | None => None,
    }
}
