//! Clients of the clouds: settings and credentials in, an `object_store` client out.
//!
//! Whatever the environment says, every client has our deadlines, makes one request per call and creates
//! objects conditionally.

use super::credentials::{self, Credential};
use super::http::{Connector, causes, no_retries, options};
use super::url::Cloud;
use super::{StoreOpenError, StoreSettings};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use std::sync::Arc;

/// The two sides of one client.
pub(super) struct Client {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) names: Arc<dyn PaginatedListStore>,
}

impl Client {
    fn of<T: ObjectStore + PaginatedListStore>(both: T) -> Client {
        let both = Arc::new(both);
        Client { objects: both.clone(), names: both }
    }
}

/// Variables that may name a server without TLS, as the endpoint of the settings may.
const ENDPOINTS: [&str; 5] =
    ["aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3", "azure_endpoint", "azure_storage_endpoint"];

/// Makes the client; asks nothing of the store yet.
pub(super) fn connect(
    cloud: Cloud,
    bucket: &str,
    settings: &StoreSettings,
) -> Result<Client, StoreOpenError> {
    let wrong = |why: String| StoreOpenError::Client { url: settings.url.to_string(), why };
    let given = credentials::collect(cloud, settings.credentials.as_deref())?;
    let endpoint = settings.endpoint.as_deref().map(|text| text.trim_end_matches('/'));
    if let Some(why) = endpoint.and_then(judge) {
        return Err(wrong(why));
    }
    let named = |one: &&Credential| ENDPOINTS.contains(&one.name.as_str());
    let address = endpoint.or(given.iter().rfind(named).map(|one| one.value.as_str()));
    let is_plain = address.is_some_and(|address| address.starts_with("http://"));
    let client = match cloud {
        Cloud::S3 => s3(bucket, endpoint, &given, is_plain),
        Cloud::Azure => azure(bucket, endpoint, &given, is_plain),
        Cloud::Google => google(bucket, endpoint, &given, is_plain),
    };
    client.map_err(wrong)
}

/// Says what is wrong with the address of a server, if anything is.
fn judge(endpoint: &str) -> Option<String> {
    let rest = endpoint.strip_prefix("https://").or(endpoint.strip_prefix("http://"));
    match rest {
        None => Some("its endpoint is no http:// or https:// address".to_owned()),
        Some(rest) if rest.contains(['@', '?', '#']) => {
            Some("credentials do not belong in its endpoint; use the environment or a file".to_owned())
        }
        Some(_) => None,
    }
}

/// The innermost cause says it best, and holds no address.
fn cause(error: object_store::Error) -> String {
    causes(&error).last().map(ToString::to_string).unwrap_or_default()
}

/// Applies each credential whose name is known.
fn apply<B, K: std::str::FromStr>(
    mut builder: B,
    given: &[Credential],
    with: fn(B, K, String) -> B,
) -> Result<B, String> {
    for one in given {
        match one.name.parse::<K>() {
            Ok(key) => builder = with(builder, key, one.value.clone()),
            // The tools of a cloud have variables that mean nothing here.
            Err(_) if !one.is_ours => {}
            Err(_) => return Err(format!("{:?} is no known credential; mind the spelling", one.name)),
        }
    }
    Ok(builder)
}

fn s3(bucket: &str, endpoint: Option<&str>, given: &[Credential], is_plain: bool) -> Result<Client, String> {
    let builder = apply(AmazonS3Builder::new(), given, AmazonS3Builder::with_config)?;
    let builder = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Not every server that speaks S3 knows the bulk form.
        .with_disable_bulk_delete(true)
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    builder.build().map(Client::of).map_err(cause)
}

fn azure(
    container: &str,
    endpoint: Option<&str>,
    given: &[Credential],
    is_plain: bool,
) -> Result<Client, String> {
    let builder = apply(MicrosoftAzureBuilder::new(), given, MicrosoftAzureBuilder::with_config)?;
    let builder = builder
        .with_container_name(container)
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.to_owned()),
        None => builder,
    };
    builder.build().map(Client::of).map_err(cause)
}

fn google(
    bucket: &str,
    endpoint: Option<&str>,
    given: &[Credential],
    is_plain: bool,
) -> Result<Client, String> {
    let builder = apply(GoogleCloudStorageBuilder::new(), given, GoogleCloudStorageBuilder::with_config)?;
    let builder = builder
        .with_bucket_name(bucket)
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let builder = match endpoint {
        Some(endpoint) => builder.with_base_url(endpoint),
        None => builder,
    };
    builder.build().map(Client::of).map_err(cause)
}
