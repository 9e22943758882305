//! Running other programs, loudly.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Flags that turn a cargo command into a build of the lab.
pub(crate) const LAB_CONFIG: [&str; 2] = ["--config", "target.'cfg(all())'.rustflags=['--cfg','madsim']"];

/// Returns the top of the checkout.
pub(crate) fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout exists")
}

/// Makes a cargo command that runs at the top of the checkout.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(top());
    // An environment RUSTFLAGS would silently replace the lab's cfg, so it is not passed on.
    command.env_remove("RUSTFLAGS");
    command
}

/// Runs the command with its output shown; an error names the command line.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{status}: {line}");
    }
    Ok(())
}

/// Runs the command and returns what it printed on stdout.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        bail!("{}: {line}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
