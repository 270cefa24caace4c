//! The kernel's own audit, which what we replace rests on.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// The rule everybody has who records commands.
pub const EXECVE: [&str; 8] = ["-a", "always,exit", "-F", "arch=b64", "-S", "execve", "-k", "nightjar-bench"];
/// What Debian and Fedora ship; the kernel's 64 makes every exec wait.
const BACKLOG: &str = "8192";

/// Audit rules that are ours. Once audit was on, every later task pays some 80 ns a system call until a
/// rule says that none is audited: [`Audit::off`] leaves that rule, and so does dropping this.
pub struct Audit {
    backlog: String,
}

impl Audit {
    /// # Errors
    ///
    /// Without `auditctl`, and where somebody else uses audit: their rules would have to go.
    pub fn take() -> Result<Self> {
        let rules = auditctl(&["-l"])?;
        if !rules.contains("No rules") && rules.trim() != "-a never,task" {
            bail!("audit rules are loaded on this host; the benchmark would delete them");
        }
        let status = auditctl(&["-s"])?;
        let value = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
        };
        if value("enabled ") != "0" || value("pid ") != "0" {
            bail!("audit is on or has a daemon on this host; the benchmark would turn it off");
        }
        Ok(Self { backlog: value("backlog_limit ").to_owned() })
    }

    /// Records what this rule says. No daemon reads the records: the kernel's part of the cost alone.
    pub fn on(rule: &[&str]) -> Result<()> {
        auditctl(&["-D"])?;
        auditctl(&["-b", BACKLOG])?;
        auditctl(rule)?;
        auditctl(&["-e", "1"]).map(drop)
    }

    /// As if it had never been on, for tasks that start from now on.
    pub fn off(&self) -> Result<()> {
        let (backlog, forget) = (["-b", &self.backlog], ["-a", "task,never"]);
        // Each counts by itself, so all are tried before any is complained about.
        let results = [auditctl(&["-e", "0"]), auditctl(&["-D"]), auditctl(&backlog), auditctl(&forget)];
        results.into_iter().collect::<Result<Vec<_>>>().map(drop)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Err(error) = self.off() {
            eprintln!(
                "bench: cannot turn audit off ({error:#}); do: \
                 auditctl -e 0; auditctl -D; auditctl -a task,never"
            );
        }
    }
}

fn auditctl(args: &[&str]) -> Result<String> {
    let output = Command::new("auditctl")
        .args(args)
        .output()
        .context("--audit needs auditctl: apt-get install auditd, and stop its daemon")?;
    if !output.status.success() {
        bail!("auditctl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
