//! What the commands need on the machine: one row a tool, with how to see it and how to get it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{anyhow, bail};

use crate::{
    dist,
    kernel_crate::{self, LINKER, Tool},
    workspace::{Workspace, execute, is_root, on_path, say},
};

/// Checks licences and dependencies.
pub const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

const RUST_SRC: Need = Need {
    what: "rust-src",
    why: "the kernel programs are compiled with a core library of their own",
    check: |_| kernel_crate::check_rust_src(),
    install: Install::Component("rust-src"),
    optional: false,
};

const RUSTFMT: Need = Need {
    what: "rustfmt",
    why: "the format is checked",
    check: |_| answers("rustfmt"),
    install: Install::Component("rustfmt"),
    optional: false,
};

const CLIPPY: Need = Need {
    what: "clippy",
    why: "the code is linted",
    check: |_| answers("cargo-clippy"),
    install: Install::Component("clippy"),
    optional: false,
};

const BPF_LINKER: Need = Need {
    what: LINKER.name,
    why: "it links the kernel programs",
    check: |workspace| LINKER.find(workspace).map(drop),
    install: Install::Crate { tool: LINKER, opt_level: 1 },
    optional: false,
};

const DENY: Need = Need {
    what: CARGO_DENY.name,
    why: "licences and dependencies are checked",
    check: |workspace| CARGO_DENY.find(workspace).map(drop),
    install: Install::Crate { tool: CARGO_DENY, opt_level: 0 },
    optional: false,
};

const DOCKERD: Need = Need {
    what: "dockerd",
    why: "the container test starts a container",
    check: |_| on_path("dockerd").map(drop).ok_or_else(|| "dockerd is not on PATH".into()),
    install: Install::Debian(&["docker.io", "containerd", "runc"]),
    optional: true,
};

const MUSL_TARGET: Need = Need {
    what: dist::TARGET,
    why: "a program that needs nothing of its host is linked with it",
    check: |_| check_target(dist::TARGET),
    install: Install::Target(dist::TARGET),
    optional: false,
};

const MUSL_GCC: Need = Need {
    what: "musl-gcc",
    why: "compression and cryptography have parts in C",
    check: |_| on_path("musl-gcc").map(drop).ok_or_else(|| "musl-gcc is not on PATH".into()),
    install: Install::Debian(&["musl-tools"]),
    optional: false,
};

/// What building the agent needs.
pub const BUILD: &[Need] = &[RUST_SRC, BPF_LINKER];
/// What the statically linked programs need.
pub const DIST: &[Need] = &[RUST_SRC, BPF_LINKER, MUSL_TARGET, MUSL_GCC];
/// What every test needs.
pub const TEST: &[Need] = &[RUST_SRC, BPF_LINKER, MUSL_TARGET, MUSL_GCC, DOCKERD];
/// What every check needs.
pub const LINT: &[Need] = &[RUST_SRC, RUSTFMT, CLIPPY, BPF_LINKER, DENY];

/// Something that must be on the machine.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    what: &'static str,
    why: &'static str,
    /// `Err` says what is missing.
    check: fn(&Path) -> Result<(), String>,
    install: Install,
    /// Whether the command goes on without it; what needs it then says so itself.
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
enum Install {
    /// A rustup component of the pinned toolchain.
    Component(&'static str),
    /// The standard library of another target, for the pinned toolchain.
    Target(&'static str),
    /// A crate, built into the workspace's own tool directory.
    Crate { tool: Tool, opt_level: u8 },
    /// Packages of Debian and its kin.
    Debian(&'static [&'static str]),
}

/// Installs what is missing.
///
/// # Errors
///
/// One line that names what could not be installed and how to install it by hand.
pub fn ensure(workspace: &Workspace, needs: &[Need]) -> anyhow::Result<()> {
    for need in needs {
        let Err(missing) = (need.check)(&workspace.root) else { continue };
        let installed = if let Some(obstacle) = need.install.obstacle() {
            Err(anyhow!("{missing}, and {obstacle}"))
        } else {
            say(format_args!("{missing}; {}: installing it", need.why));
            need.install.run(workspace).and_then(|()| {
                (need.check)(&workspace.root).map_err(|still| anyhow!("after installing it, {still}"))
            })
        };
        match installed {
            Ok(()) => {}
            Err(error) if need.optional => {
                say(format_args!(
                    "going on without {} ({}): {error:#}; {}",
                    need.what,
                    need.why,
                    need.install.advice()
                ));
            }
            Err(error) => bail!("no {} ({}): {error:#}; {}", need.what, need.why, need.install.advice()),
        }
    }
    Ok(())
}

impl Install {
    fn run(self, workspace: &Workspace) -> anyhow::Result<()> {
        for mut command in self.commands(&workspace.root) {
            execute(command.current_dir(&workspace.root))?;
        }
        Ok(())
    }

    /// Why there is no point in trying.
    fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Component(_) if on_path("rustup").is_none() => Some("there is no rustup"),
            Self::Debian(_) if on_path("apt-get").is_none() => Some("this is not a Debian-like system"),
            Self::Debian(_) if !is_root() => Some("only root installs packages"),
            _ => None,
        }
    }

    fn commands(self, workspace: &Path) -> Vec<Command> {
        match self {
            Self::Component(name) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["component", "add", "--toolchain", toolchain(), name]);
                vec![rustup]
            }
            Self::Target(name) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["target", "add", "--toolchain", toolchain(), name]);
                vec![rustup]
            }
            Self::Crate { tool, opt_level } => {
                let root = Tool::root(workspace);
                let mut cargo = Command::new("cargo");
                cargo
                    .args(["install", tool.name, "--locked", "--version"])
                    .arg(format!("={}", tool.version))
                    // The check has found that what is there is not it.
                    .arg("--force")
                    .args([Path::new("--root"), &root, Path::new("--target-dir"), &root.join("build")])
                    // Minutes of optimizing would not come back.
                    .env("CARGO_PROFILE_RELEASE_LTO", "off")
                    .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", opt_level.to_string())
                    .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "64")
                    .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
                vec![cargo]
            }
            Self::Debian(packages) => {
                let apt_get = |args: &[&str]| {
                    let mut command = Command::new("apt-get");
                    command.args(["--quiet", "--yes"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
                    command
                };
                vec![
                    apt_get(&["update"]),
                    apt_get(&[&["install", "--no-install-recommends"], packages].concat()),
                ]
            }
        }
    }

    /// How to do it by hand.
    fn advice(self) -> String {
        match self {
            Self::Component(name) => {
                format!("install {name} of Rust {} with rustup or your distribution", toolchain())
            }
            Self::Target(name) => {
                format!("install the standard library of Rust {} for {name} with rustup", toolchain())
            }
            Self::Crate { tool, .. } => {
                format!("cargo says why above; {} {} anywhere on PATH will do too", tool.name, tool.version)
            }
            Self::Debian(packages) => format!("to install it: apt-get install {}", packages.join(" ")),
        }
    }
}

/// Whether programs for another target can be built.
fn check_target(name: &str) -> Result<(), String> {
    let library = kernel_crate::sysroot()?.join("lib/rustlib").join(name).join("lib");
    if library.is_dir() {
        Ok(())
    } else {
        Err(format!("the library of {name} is missing (no {})", library.display()))
    }
}

/// The toolchain that rust-toolchain.toml pins.
fn toolchain() -> &'static str {
    channel(include_str!("../../rust-toolchain.toml")).expect("rust-toolchain.toml has a channel")
}

fn channel(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
}

/// Being on `PATH` is not enough: rustup has a proxy there for each component, installed or not.
fn answers(program: &str) -> Result<(), String> {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("{program} is missing")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::command_line;

    fn lines(install: Install) -> Vec<String> {
        install.commands(Path::new("/checkout")).iter().map(command_line).collect()
    }

    #[test]
    fn components_are_added_to_the_pinned_toolchain() {
        assert_eq!(
            lines(Install::Component("rust-src")),
            [format!("rustup component add --toolchain {} rust-src", toolchain())]
        );
    }

    #[test]
    fn crates_are_built_and_kept_inside_the_target_directory() {
        assert_eq!(
            lines(Install::Crate { tool: LINKER, opt_level: 1 }),
            ["cargo install bpf-linker --locked --version =0.10.4 --force \
              --root /checkout/target/tools --target-dir /checkout/target/tools/build"]
        );
    }

    #[test]
    fn packages_are_installed_from_a_fresh_list_without_questions() {
        assert_eq!(
            lines(Install::Debian(&["docker.io", "runc"])),
            [
                "apt-get --quiet --yes update",
                "apt-get --quiet --yes install --no-install-recommends docker.io runc"
            ]
        );
    }

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        assert_eq!(channel("[toolchain]\nchannel = \"1.2.3\"\nprofile = \"minimal\"\n"), Some("1.2.3"));
        assert_eq!(channel("[toolchain]\n"), None);
    }
}
