//! The `nightjar` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Start-up needs many times the memory of what follows (the kernel's type information); unlike glibc's,
/// this allocator gives it back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    nightjar::cli::main()
}
