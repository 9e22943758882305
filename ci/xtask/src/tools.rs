//! Programs that others wrote, needed by tests and benches: found, or installed.

use crate::{command, servers};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// A program, or a file by its whole path where no program stands for it, and the Debian package that has it.
const TOOLS: [(&str, &str); 16] = [
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    // The tests run this module with Debian's interpreter, whichever other one is first on PATH.
    ("/usr/lib/python3/dist-packages/nbd.py", "python3-libnbd"),
    ("fusermount3", "fuse3"),
    ("nbdkit", "nbdkit"),
    ("fio", "fio"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("sqlite3", "sqlite3"),
    ("mkfs.ext4", "e2fsprogs"),
    // Reads the lab's reports as a person does.
    ("chromium-headless-shell", "chromium-headless-shell"),
    // The object store servers run with these.
    ("node", "nodejs"),
    ("npm", "npm"),
    // Debian's interpreter makes no environments without it.
    ("/usr/share/doc/python3-venv", "python3-venv"),
];

/// Peers that only benches compare with.
const PEERS: [(&str, &str); 4] =
    [("taskset", "util-linux"), ("rsync", "rsync"), ("borg", "borgbackup"), ("restic", "restic")];

/// Where programs are looked for; root's PATH may lack the sbin directories.
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Tells whether the program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    // Joining a whole path gives that path.
    PLACES.iter().any(|place| Path::new(place).join(program).exists())
}

/// Installs what tests need and is missing; needs root for that.
pub(crate) fn install() -> Result<()> {
    install_missing(&TOOLS)?;
    servers::install()
}

/// As [`install`], with the peers of the benches.
pub(crate) fn install_with_peers() -> Result<()> {
    install_missing(&[&TOOLS[..], &PEERS].concat())?;
    servers::install()
}

fn install_missing(tools: &[(&str, &'static str)]) -> Result<()> {
    let mut packages: Vec<&str> =
        tools.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    println!("installing {}", packages.join(" "));
    if !is_installed("apt-get") {
        bail!("missing programs; install the equivalents of these Debian packages: {}", packages.join(" "));
    }
    let mut update = Command::new("apt-get");
    update.args(["-qq", "update"]);
    command::run(update).context("apt-get update (root is needed to install test tools)")?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(&packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    command::run(install)
}
