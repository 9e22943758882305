//! Servers under measurement: started on a Unix socket, their CPU time read, always stopped.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until its socket is there.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server; killed on drop.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) socket: PathBuf,
}

impl Server {
    /// Starts `command` and waits until it answers at `socket`.
    pub(crate) fn start(mut command: Command, socket: &Path) -> Result<Server> {
        let _ = std::fs::remove_file(socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let line = format!("{command:?}");
        let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        let start = Instant::now();
        while greet(socket).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("{line} ended with {status}");
            }
            if start.elapsed() > START_MAX {
                let _ = child.kill();
                bail!("{line} did not listen on {} in time", socket.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Server { child, socket: socket.to_owned() })
    }

    /// Moves every thread but the first one to another processor; threads that they start follow them.
    pub(crate) fn move_helpers(&self, cpu: u32) -> Result<()> {
        let pid = self.child.id().to_string();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = entry?.file_name().to_string_lossy().into_owned();
            if thread != pid {
                let mut command = Command::new("taskset");
                command.args(["--pid", "--cpu-list", &cpu.to_string(), &thread]);
                // A helper may have ended since; then there is nothing to move.
                command.output().context("taskset")?;
            }
        }
        Ok(())
    }

    /// Returns the CPU seconds that all threads have used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        ticks(&format!("/proc/{}/stat", self.child.id()))
    }

    /// As [`Server::cpu_seconds`], for the first thread alone: in our service that is the agent.
    pub(crate) fn first_thread_seconds(&self) -> Result<f64> {
        ticks(&format!("/proc/{0}/task/{0}/stat", self.child.id()))
    }
}

fn ticks(path: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path)?;
    // The program's name may hold blanks; the fields after its bracket do not.
    let fields: Vec<&str> = text.rsplit_once(')').context("/proc stat")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Takes a server's greeting and leaves with the farewell of the protocol, so that nobody logs an error.
fn greet(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START_MAX))?;
    stream.read_exact(&mut [0; 18])?;
    // Client flags (fixed newstyle, no zeroes), then the option that ends the handshake.
    stream.write_all(&3u32.to_be_bytes())?;
    stream.write_all(b"IHAVEOPT\0\0\0\x02\0\0\0\0")?;
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
