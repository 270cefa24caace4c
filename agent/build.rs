//! Builds the kernel programs and leaves the object in `OUT_DIR/nightjar-ebpf` for the agent to embed.

#[path = "../xtask/src/kernel_crate.rs"]
mod kernel_crate;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Output},
};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// Everything the object is made of; the compiler itself is watched by cargo.
const INPUTS: [&str; 6] = [
    "agent-ebpf/Cargo.toml",
    "agent-ebpf/src",
    "agent-abi/Cargo.toml",
    "agent-abi/src",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = variable("CARGO_MANIFEST_DIR")?.parent().map(Path::to_owned).ok_or("no workspace")?;
    let out_dir = variable("OUT_DIR")?;
    let arch =
        env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| format!("CARGO_CFG_TARGET_ARCH: {error}"))?;

    let target_dir = outer_target_dir(&out_dir)?.join("bpf");
    let mut cargo = kernel_crate::cargo("build", &workspace, &target_dir, &arch)
        .map_err(|missing| format!("{missing}: `cargo xtask build` installs it"))?;
    // With --quiet only warnings and errors are left on stderr.
    let Output { status, stderr, .. } =
        cargo.arg("--quiet").output().map_err(|error| format!("{cargo:?} does not run: {error}"))?;
    let messages = String::from_utf8_lossy(&stderr);
    if !status.success() {
        return Err(format!("{messages}\nthe kernel programs do not build ({status})"));
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    let object = target_dir.join(kernel_crate::TARGET).join("release").join(kernel_crate::PACKAGE);
    let out = out_dir.join(kernel_crate::PACKAGE);
    without_debug_information(&object, &out).map_err(|error| format!("{}: {error}", object.display()))
}

/// Copies the object without what the linker has made BTF of: three quarters of it, which nobody reads at run time.
fn without_debug_information(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let object = fs::read(from)?;
    let mut elf = Builder::read(&*object)?;
    for section in &mut elf.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    // LLVM keeps the names of sections with those of symbols, and the writer does not.
    if !elf.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = elf.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    let mut smaller = Vec::new();
    elf.write(&mut smaller)?;
    Ok(fs::write(to, smaller)?)
}

fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(Into::into).ok_or_else(|| format!("{name} is not set: run by cargo only"))
}

/// The target directory of the cargo that runs this script, which no variable names: `OUT_DIR` is
/// `TARGET_DIR[/TRIPLE]/PROFILE/build/PACKAGE/out`. One kernel build there serves all profiles and triples.
fn outer_target_dir(out_dir: &Path) -> Result<&Path, String> {
    let dir =
        out_dir.ancestors().nth(4).ok_or_else(|| format!("OUT_DIR {} is too short", out_dir.display()))?;
    let triple = env::var_os("TARGET");
    Ok(match dir.parent() {
        Some(parent) if dir.file_name() == triple.as_deref() => parent,
        _ => dir,
    })
}
