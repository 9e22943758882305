//! The programs under measurement, started the same way each time: ours and the peers'.

use super::place::Place;
use super::server::Server;
use crate::command::{output, top};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a service may take to bring everything it has into the vault.
const CATCH_UP_MAX: Duration = Duration::from_secs(300);
/// Pause between two looks at a service that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Returns a command that runs on one processor, if one is given.
pub(crate) fn pinned(program: &Path, pin: Option<u32>) -> Command {
    match pin {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Returns the production binary.
pub(crate) fn redoubt() -> PathBuf {
    top().join("target/release/redoubt")
}

/// Starts our NBD server on a disk without replication.
pub(crate) fn plain(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.path("plain.sock");
    let mut command = pinned(&redoubt(), pin);
    command.arg("bench-plain").arg("--disk").arg(disk);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    Server::start(command, &socket)
}

/// Starts nbdkit's file plugin.
pub(crate) fn nbdkit(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.path("nbdkit.sock");
    let mut command = pinned(Path::new("nbdkit"), pin);
    command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(disk);
    Server::start(command, &socket)
}

/// Starts qemu-nbd.
pub(crate) fn qemu_nbd(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.path("qemu.sock");
    let mut command = pinned(Path::new("qemu-nbd"), pin);
    command.args(["--persistent", "--shared=8", "--format=raw", "--cache=writeback"]);
    command.arg("--socket").arg(&socket).arg(disk);
    Server::start(command, &socket)
}

/// One protected machine: agent and process server in one process, a vault in a directory.
pub(crate) struct Protected {
    /// The running service.
    pub(crate) server: Server,
    state: PathBuf,
    /// The vault directory.
    pub(crate) vault: PathBuf,
}

/// What `redoubt status` says, as far as benches care.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    /// `protected` once the first copy is complete in the vault.
    pub(crate) state: String,
    /// Age of the oldest change that is not staged; `None` while nothing is promised.
    pub(crate) lag_ms: Option<u64>,
    /// Watermarks of the stream.
    pub(crate) watermarks: Watermarks,
    /// Newest recovery point in the vault.
    pub(crate) newest_point: Option<Point>,
}

/// Watermarks of the stream.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Watermarks {
    pub(crate) issued: u64,
    pub(crate) vaulted: u64,
}

/// A recovery point.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Point {
    /// Wall time of its marker.
    pub(crate) wall_ms: u64,
}

#[derive(Deserialize)]
struct Points {
    points: Vec<Point>,
}

impl Protected {
    /// Protects a disk; returns when the export answers, long before the first copy is complete.
    pub(crate) fn start(
        place: &Place,
        name: &str,
        disk: &Path,
        interval: &str,
        pin: Option<u32>,
    ) -> Result<Protected> {
        let socket = place.path(&format!("{name}.sock"));
        let (state, vault) = (place.path(&format!("{name}.state")), place.path(&format!("{name}.vault")));
        let mut command = pinned(&redoubt(), pin);
        command.arg("up").arg("--state").arg(&state).arg("--vault").arg(&vault);
        command.arg("--disk").arg(format!("bench={}", disk.display()));
        command.args(["--point-interval", interval]);
        command.arg("--listen").arg(format!("unix:{}", socket.display()));
        Ok(Protected { server: Server::start(command, &socket)?, state, vault })
    }

    /// Asks for the status.
    pub(crate) fn status(&self) -> Result<Status> {
        let mut command = Command::new(redoubt());
        command.args(["status", "--format", "json", "--state"]).arg(&self.state);
        serde_json::from_str(&output(command)?).context("the status")
    }

    /// Returns the wall times of all recovery points, oldest first, as the vault tells them.
    pub(crate) fn points(&self) -> Result<Vec<u64>> {
        let mut command = Command::new(redoubt());
        command.args(["points", "--format", "json", "--state"]).arg(&self.state);
        let list: Points = serde_json::from_str(&output(command)?).context("the points")?;
        Ok(list.points.iter().map(|point| point.wall_ms).collect())
    }

    /// Waits until the stream is exact and everything issued is in the vault.
    pub(crate) fn caught_up(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            let marks = status.watermarks;
            if status.state == "protected" && marks.vaulted >= marks.issued {
                return Ok(());
            }
            if start.elapsed() > CATCH_UP_MAX {
                bail!("the vault has not caught up within {} s: {status:?}", CATCH_UP_MAX.as_secs());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
