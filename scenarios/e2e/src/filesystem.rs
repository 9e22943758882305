//! A real file system on an NBD export: nbdfuse, a loop device, mount; undone in reverse on drop.

use crate::{Place, run, text};
use anyhow::{Context, Result, ensure};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Longest wait for nbdfuse: a safety net against a hang, not a bound that a test judges.
const READY_MILLIS: libc::c_int = 60_000;

/// Says why this machine cannot mount a file system on an export, if it cannot.
pub fn missing() -> Option<String> {
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("{device} does not exist"));
        }
    }
    None
}

/// A loop device over an export.
pub struct LoopDevice {
    fuse: Child,
    directory: PathBuf,
    /// Path of the device.
    pub device: String,
}

impl LoopDevice {
    /// Attaches the default export of a socket.
    pub fn attach(place: &Place, name: &str, socket: &Path) -> Result<LoopDevice> {
        let directory = place.path(name);
        std::fs::create_dir(&directory)?;
        let ready = place.path(&format!("{name}.ready"));
        run("mkfifo", &[text(&ready)])?;
        let mut fifo = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&ready)?;
        let disk = directory.join("disk");
        let fuse = Command::new("nbdfuse")
            .args(["--pidfile", text(&ready), text(&disk), "--unix", text(socket)])
            .stdin(Stdio::null())
            .spawn()
            .context("start nbdfuse; `cargo xtask tools` installs it")?;
        let mut attached = LoopDevice { fuse, directory, device: String::new() };
        // nbdfuse writes its process id into the pipe once it serves.
        let mut poll = libc::pollfd { fd: fifo.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, which outlives the call.
        let ready = unsafe { libc::poll(&mut poll, 1, READY_MILLIS) };
        let mut pid = [0; 32];
        ensure!(ready == 1 && fifo.read(&mut pid)? > 0, "nbdfuse did not come up");
        attached.device = run("losetup", &["-f", "--show", text(&disk)])?.trim().to_owned();
        Ok(attached)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if !self.device.is_empty() {
            let _ = run("losetup", &["-d", &self.device]);
        }
        let _ = run("fusermount3", &["-u", text(&self.directory)]);
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}

/// A mounted file system.
pub struct Mounted {
    /// Where.
    pub path: PathBuf,
    _device: LoopDevice,
}

impl Mounted {
    /// Mounts a device.
    pub fn new(place: &Place, name: &str, device: LoopDevice) -> Result<Mounted> {
        let path = place.path(name);
        std::fs::create_dir(&path)?;
        run("mount", &[&device.device, text(&path)])?;
        Ok(Mounted { path, _device: device })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[text(&self.path)]);
    }
}
