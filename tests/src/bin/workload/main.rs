//! Does the odd things that kernel tests watch: one subcommand each.
//!
//! What it says is one object of JSON on the last line of its standard output. A subcommand that ends in
//! `PROGRAM ARGUMENTS...` goes on as that program, so that they can be combined.

#![allow(unsafe_code, reason = "its whole purpose is system calls that no library offers")]

mod call;
mod credentials;
mod facts;
mod image;
mod life;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.split_first() else {
        eprintln!("usage: workload SUBCOMMAND ...");
        return ExitCode::FAILURE;
    };
    let known = facts::run(name, rest)
        || credentials::run(name, rest)
        || image::run(name, rest)
        || life::run(name, rest);
    if known {
        return ExitCode::SUCCESS;
    }
    eprintln!("workload: {name} {rest:?} is no subcommand");
    ExitCode::FAILURE
}
