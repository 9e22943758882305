//! The process server: receives streams, stages them durably, packs them into the vault.
//!
//! ```text
//! let server = ProcessServer::start(settings, world, store, keys).await?;   // store: Arc<dyn RawStore>
//! server.endpoint();          // Endpoint with the real port
//! server.status();            // PsStatus
//! server.stop().await;
//! ```

mod settings;

pub use settings::*;
