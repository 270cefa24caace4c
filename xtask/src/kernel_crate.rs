//! How the kernel crate is compiled. `agent/build.rs` includes this file to build the object and `cargo xtask`
//! uses it to lint the same code with the same flags, so the recipe is written once.
//!
//! One stable compiler serves everything: `RUSTC_BOOTSTRAP=1` opens `-Z build-std` (there is no prebuilt
//! `core` for BPF targets) and the few unstable features of aya-ebpf. rustc emits LLVM bitcode for BPF
//! targets; bpf-linker makes an ELF object of it and turns the debug information into BTF.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The package and its one binary.
pub const PACKAGE: &str = "nightjar-ebpf";

/// Kernels of both supported architectures, x86-64 and arm64, are little-endian.
pub const TARGET: &str = "bpfel-unknown-none";

const LINKER_VARIABLE: &str = "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER";

/// The linker. Older releases emit BTF that kernels refuse, newer ones want an LLVM newer than rustc's.
pub const LINKER: Tool = Tool { name: "bpf-linker", version: "0.10.4" };

/// Variables of an outer cargo or its user that would change what the kernel build produces. The rest, such as
/// the jobserver in `CARGO_MAKEFLAGS`, is wanted.
const LEAKS: [&str; 9] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

/// A program of which exactly one version will do.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Name of the program and of the crate that has it.
    pub name: &'static str,
    /// The version, as `--version` prints it.
    pub version: &'static str,
}

impl Tool {
    /// Where `cargo xtask` installs tools: inside `target/`, so that nothing outside the tree changes.
    pub fn root(workspace: &Path) -> PathBuf {
        workspace.join("target/tools")
    }

    /// The program as installed by `cargo xtask`, else on `PATH`.
    ///
    /// # Errors
    ///
    /// One line that says what is missing or which wrong version was found where.
    pub fn find(self, workspace: &Path) -> Result<PathBuf, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut wrong = String::new();
        for dir in [Self::root(workspace).join("bin")].into_iter().chain(env::split_paths(&path)) {
            let program = dir.join(self.name);
            if !program.is_file() {
                continue;
            }
            match version_of(&program) {
                Some(version) if version == self.version => return Ok(program),
                found => {
                    let found = found.as_deref().unwrap_or("of no readable version");
                    wrong = format!(" ({} is {found})", program.display());
                }
            }
        }
        Err(format!("{} {} is missing{wrong}", self.name, self.version))
    }
}

/// The sources of `core`, which `-Z build-std` compiles.
///
/// # Errors
///
/// One line that says where they were expected.
pub fn check_rust_src() -> Result<(), String> {
    let library = sysroot()?.join("lib/rustlib/src/rust/library");
    if library.join("core/Cargo.toml").is_file() {
        Ok(())
    } else {
        Err(format!("the rust-src component is missing (no {})", library.display()))
    }
}

/// `cargo SUBCOMMAND` on the kernel crate, for a host of CPU architecture `arch`.
///
/// `target_dir` must not be the target directory of a running cargo: the child would wait for its lock forever.
///
/// # Errors
///
/// One line that says what is missing on this machine.
pub fn cargo(subcommand: &str, workspace: &Path, target_dir: &Path, arch: &str) -> Result<Command, String> {
    check_rust_src()?;
    let linker = LINKER.find(workspace)?;
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .ok_or("neither CARGO_HOME nor HOME is set")?;
    let remaps = [(workspace, "/nightjar"), (&home, "/cargo"), (&sysroot()?, "/rust")];

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([subcommand, "--package", PACKAGE, "--bin", PACKAGE, "--release"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .current_dir(workspace);
    // A profile set by environment for the agent, such as CARGO_PROFILE_RELEASE_STRIP, would cost the BTF.
    let profiles = env::vars_os()
        .map(|(key, _)| key)
        .filter(|key| key.to_str().is_some_and(|key| key.starts_with("CARGO_PROFILE_")));
    for key in LEAKS.into_iter().map(Into::into).chain(profiles) {
        cargo.env_remove(key);
    }
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch, &remaps))
        // Not `-Clinker`: rustflags are part of every symbol's hash and the path differs between machines.
        .env(LINKER_VARIABLE, linker);
    Ok(cargo)
}

/// Flags for every crate of the object, in the encoding of `CARGO_ENCODED_RUSTFLAGS`.
fn rustflags(arch: &str, remaps: &[(&Path, &str)]) -> String {
    let mut flags = vec![
        // aya-ebpf chooses the layout of `pt_regs` by it.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // The linker makes BTF from debug information, and only when told to.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // What the linker asks of LLVM by default makes of each array that is filled with zeros a call to a loop over
        // its bytes: hundreds of nanoseconds, and steps of the verifier.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
    ];
    // BTF keeps the path of each source line: without this, two checkouts give two different objects.
    flags.extend(remaps.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    flags.join("\x1f")
}

pub fn sysroot() -> Result<PathBuf, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("{} does not run: {error}", rustc.display()))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    fs::canonicalize(&path).map_err(|error| format!("sysroot `{}` of rustc: {error}", path.display()))
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

/// `1.2.3` of `name 1.2.3 (commit date)`.
fn parse_version(text: &str) -> Option<&str> {
    text.split_whitespace().nth(1).filter(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_second_word() {
        assert_eq!(parse_version("bpf-linker 0.10.4\n"), Some("0.10.4"));
        assert_eq!(parse_version("rustfmt 1.8.0-stable (abc 2026-01-01)"), Some("1.8.0-stable"));
        assert_eq!(parse_version("error: no such thing"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn flags_are_separated_as_cargo_wants_and_may_contain_spaces() {
        assert_eq!(
            rustflags("x86_64", &[(Path::new("/a b"), "/nightjar")]).split('\x1f').collect::<Vec<_>>(),
            [
                "--cfg=bpf_target_arch=\"x86_64\"",
                "-Cdebuginfo=2",
                "-Clink-arg=--btf",
                "-Clink-arg=--disable-expand-memcpy-in-order",
                "--remap-path-prefix=/a b=/nightjar",
            ]
        );
    }

    #[test]
    fn a_missing_tool_is_named_with_its_version() {
        let error = Tool { name: "no-such-linker", version: "1.2.3" }.find(Path::new("/nowhere"));
        assert_eq!(error, Err("no-such-linker 1.2.3 is missing".into()));
    }
}
