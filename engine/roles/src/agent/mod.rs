//! The agent: the async shell around the machine of one protected machine.
//!
//! ```text
//! let agent = Agent::start(settings, world, key).await?;   // Result<Agent, AgentError>
//! agent.protect(VolumeSpec::new("root", "/dev/sdb")).await?;
//! let export: Arc<dyn Export> = agent.export("root")?;
//! let marker: MarkerId = agent.cut_marker(MarkerKind::Crash).await?;
//! let status: AgentStatus = agent.status();
//! agent.stop().await?;
//! ```

mod settings;
mod status;

pub use settings::*;
pub use status::*;
