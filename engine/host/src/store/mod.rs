//! Stores of vaults: a local directory, or a bucket of S3, Azure Blob Storage or Google Cloud Storage.
//!
//! What is *not* here: retries, the reading back of uncertain results, the admission of a store
//! (`redoubt-vault`).

mod cloud;
mod connect;
mod credentials;
mod http;
mod local;
mod pace;
mod url;

pub use local::LocalStore;
pub use pace::RATE_MIN;
pub use url::{Cloud, StoreUrl, UrlError};

use redoubt_ports::{IoError, RawStore};
use std::path::PathBuf;
use std::sync::Arc;

/// Which store, and how to reach it. Holds no secret, only where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Place of the store.
    pub url: StoreUrl,
    /// Address of a server that speaks a cloud's protocol, instead of the cloud's own.
    pub endpoint: Option<String>,
    /// File of credentials, read over those of the environment.
    pub credentials: Option<PathBuf>,
    /// Most bytes per second that are sent, on average; at least [`RATE_MIN`].
    pub rate_max: Option<u64>,
}

impl StoreSettings {
    /// Makes settings with nothing but a place.
    pub fn new(url: StoreUrl) -> StoreSettings {
        StoreSettings { url, endpoint: None, credentials: None, rate_max: None }
    }
}

/// Why a store cannot be opened. Nothing was asked of it yet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] IoError),
    /// The file of credentials cannot be used.
    #[error("cannot use credentials file {path}: {why}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong, without its content.
        why: String,
    },
    /// The settings do not make a client.
    #[error("cannot use store {url}: {why}")]
    Client {
        /// Place of the store.
        url: String,
        /// What is missing or wrong.
        why: String,
    },
}

/// Opens a store; asks nothing of a cloud yet, and changes nothing.
pub fn open(settings: &StoreSettings) -> Result<Arc<dyn RawStore>, StoreOpenError> {
    let store: Arc<dyn RawStore> = match &settings.url {
        StoreUrl::Directory(path) => Arc::new(LocalStore::open(path)?),
        StoreUrl::Bucket { cloud, bucket, prefix } => {
            let parts = connect::connect(*cloud, bucket, settings)?;
            Arc::new(cloud::CloudStore::new(parts, *cloud, bucket, prefix))
        }
    };
    match settings.rate_max {
        Some(rate) => Ok(Arc::new(pace::Paced::new(store, rate))),
        None => Ok(store),
    }
}

/// Tells objects of vaults from what else may lie in their place: a key file, an upload at work.
fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c))
}
