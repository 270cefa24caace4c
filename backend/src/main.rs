//! The `nightjar-backend` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightjar_backend::cli::main()
}
