//! Which source this lab was built from: a seed means nothing without it.

use super::pool;
use redoubt_reports::model::Build;
use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("git").arg("-C").arg(here).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns version, commit and the planted bug that is active.
pub(super) fn build() -> Build {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let is_changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit.map(|id| if is_changed { format!("{id}+") } else { id }),
        planted_bug: pool::active().map(|bug| bug.name()),
    }
}
