//! An agent and a process server as two processes: settings in files, TCP between them, one key.

use crate::service::{Service, status, watch};
use crate::{Place, text};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

/// Where the two are, and how each is told what to do.
pub struct Pair {
    server_settings: PathBuf,
    agent_settings: PathBuf,
    /// State directory of the process server.
    pub server_state: PathBuf,
    /// State directory of the agent.
    pub agent_state: PathBuf,
    /// Vault of the process server.
    pub vault: PathBuf,
    /// Where the agent serves its disk `erp`.
    pub socket: PathBuf,
}

impl Pair {
    /// Starts a process server at a free port and writes the settings of both. The agent is not started.
    pub fn new(place: &Place, disk: &str, more: &str) -> Result<(Pair, Service)> {
        let pair = Pair {
            server_settings: place.path("server.toml"),
            agent_settings: place.path("agent.toml"),
            server_state: place.path("server"),
            agent_state: place.path("agent"),
            vault: place.path("vault"),
            socket: place.path("erp.sock"),
        };
        pair.write_server("tcp:127.0.0.1:0")?;
        let server = pair.start_server()?;
        let listen = server.announced["listen"].as_str().context("listen")?.to_owned();
        // The next life listens at the port that the agent knows.
        pair.write_server(&listen)?;
        let settings = format!(
            "state = {:?}\nkey = {:?}\nprocess-servers = {listen:?}\nlisten = {:?}\npoint-interval = \"500ms\"\n{more}\n\
             [[disk]]\nname = \"erp\"\npath = {disk:?}\n",
            pair.agent_state,
            place.path("vault.key"),
            format!("unix:{}", text(&pair.socket)),
        );
        std::fs::write(&pair.agent_settings, settings)?;
        Ok((pair, server))
    }

    fn write_server(&self, listen: &str) -> Result<()> {
        let settings =
            format!("state = {:?}\nvault = {:?}\nlisten = {listen:?}\n", self.server_state, self.vault);
        Ok(std::fs::write(&self.server_settings, settings)?)
    }

    /// Starts the process server.
    pub fn start_server(&self) -> Result<Service> {
        Service::start(&["process-server", "--config", text(&self.server_settings)])
    }

    /// Starts the agent, with more arguments.
    pub fn start_agent(&self, more: &[&str]) -> Result<Service> {
        Service::start(&[&["agent", "--config", text(&self.agent_settings)], more].concat())
    }

    /// Waits until the process server has more than `points` points, and returns how many.
    pub fn more_points(&self, points: u64) -> Result<u64> {
        let count = |status: &Value| status["machines"][0]["points"].as_u64().unwrap_or(0);
        Ok(count(&watch(&self.server_state, |status| count(status) > points)?))
    }

    /// Waits until a recovery point holds everything written so far, and returns its name.
    pub fn caught_up(&self) -> Result<String> {
        let issued = status(&self.agent_state)?["watermarks"]["issued"].as_u64().context("issued")?;
        watch(&self.agent_state, |status| status["state"] == "protected" && status["connected"] == true)?;
        let newest = |status: &Value| status["machines"][0]["newest_point"].clone();
        let status = watch(&self.server_state, |status| newest(status)["seq"].as_u64() >= Some(issued))?;
        Ok(newest(&status)["point"].as_str().context("point")?.to_owned())
    }
}
