//! A running `redoubt` process: started, asked, killed, stopped.
//!
//! Readiness is read from the process's own output, never guessed by waiting.

use crate::nbd::Client;
use crate::{binary, run, text};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// One running process; killed when dropped.
pub struct Service {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// What it announced: its exports, or its address.
    pub announced: Value,
}

impl Service {
    /// Starts the binary and returns when it has announced itself on stdout.
    pub fn start(arguments: &[&str]) -> Result<Service> {
        let mut child = Command::new(binary())
            .args(arguments)
            .args(["--format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start redoubt")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line.is_empty() {
            bail!("redoubt {} ended with {}", arguments.join(" "), child.wait()?);
        }
        let announced = serde_json::from_str(&line).with_context(|| line.clone())?;
        Ok(Service { child, _stdout: stdout, announced })
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and returns how it ended.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)
    }

    /// Stops it as Ctrl-C does, and returns how it ended.
    pub fn interrupt(self) -> Result<ExitStatus> {
        self.signal(libc::SIGINT)
    }

    fn signal(mut self, signal: libc::c_int) -> Result<ExitStatus> {
        // SAFETY: a plain system call; the child has not been waited for, so the id is its own.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        anyhow::ensure!(sent == 0, "cannot send signal {signal}");
        Ok(self.child.wait()?)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the status of the service of a state directory.
pub fn status(state: &Path) -> Result<Value> {
    let text = run(binary(), &["status", "--state", text(state), "--format", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

/// Watches the status of the service of a state directory until `enough` says so, and returns that
/// status. Fails when the service ends; how long it takes is the test runner's business.
pub fn watch(state: &Path, enough: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut child = Command::new(binary())
        .args(["status", "--watch", "--format", "json", "--state", text(state)])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut last = Value::Null;
    let mut found = None;
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        last = serde_json::from_str(&line?)?;
        if enough(&last) {
            found = Some(last.clone());
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    found.with_context(|| format!("the service ended before its status was as expected; last: {last}"))
}

/// A site: where the state and the vault of one protected machine are.
pub struct Site {
    /// State directory.
    pub state: PathBuf,
    /// Vault directory.
    pub vault: PathBuf,
}

impl Site {
    /// Names the directories of a site in a place.
    pub fn new(place: &crate::Place) -> Site {
        Site { state: place.path("state"), vault: place.path("vault") }
    }

    /// Starts `redoubt up` with a short interval between points and more arguments.
    pub fn up(&self, arguments: &[&str]) -> Result<Service> {
        let fixed =
            ["up", "--state", text(&self.state), "--vault", text(&self.vault), "--point-interval", "500ms"];
        Service::start(&[&fixed, arguments].concat())
    }

    /// Starts `redoubt up` for one disk, erp, and connects to it at a socket.
    pub fn protect(&self, image: &Path, socket: &Path, more: &[&str]) -> Result<(Service, Client)> {
        let (disk, listen) = (format!("erp={}", text(image)), format!("unix:{}", text(socket)));
        let service = self.up(&[&["--disk", &disk, "--listen", &listen], more].concat())?;
        Ok((service, Client::connect(socket, "erp")?))
    }

    /// Returns the status now.
    pub fn status(&self) -> Result<Value> {
        status(&self.state)
    }

    /// As [`watch`], for this site's service.
    pub fn watch(&self, enough: impl Fn(&Value) -> bool) -> Result<Value> {
        watch(&self.state, enough)
    }

    /// Waits until a recovery point holds everything written so far, and returns its name.
    pub fn caught_up(&self) -> Result<String> {
        let issued = self.status()?["watermarks"]["issued"].as_u64().context("issued")?;
        let reached =
            |status: &Value| status["newest_point"]["seq"].as_u64().is_some_and(|seq| seq >= issued);
        let status = self.watch(|status| status["state"] == "protected" && reached(status))?;
        Ok(status["newest_point"]["point"].as_str().context("point")?.to_owned())
    }

    /// Returns the names of all points, oldest first, as the vault alone tells them.
    pub fn points(&self) -> Result<Vec<String>> {
        let list = run(binary(), &["points", "--vault", text(&self.vault), "--format", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let points = list["points"].as_array().context("points")?;
        Ok(points.iter().filter_map(|point| point["point"].as_str().map(str::to_owned)).collect())
    }

    /// Serves a point at a socket, from the vault alone.
    pub fn mount(&self, point: &str, socket: &Path, more: &[&str]) -> Result<Service> {
        let listen = format!("unix:{}", text(socket));
        let fixed = ["mount", point, "--vault", text(&self.vault), "--listen", &listen];
        Service::start(&[&fixed, more].concat())
    }
}
