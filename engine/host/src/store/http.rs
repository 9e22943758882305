//! The requests of a cloud store as they are answered: every refusal with its status, its code and the wish
//! to be left alone for a while, which `object_store` keeps to itself.
//!
//! - HR-1 One call is one request. Repeating is decided in `redoubt-vault` alone.
//! - HR-2 What a store sends is bounded before it is kept, and what is shown of it holds no address: an
//!   address may hold a signature.

use async_trait::async_trait;
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue, RetryConfig};
use std::time::Duration;

/// Longest time to open a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for a whole request: 32 MiB at a little over 1 MiB/s, as the attempts of the vault.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// What is read of the body of a refusal; the code stands in its first lines.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// What is shown of a store's own message.
const MESSAGE_CHARS_MAX: usize = 200;

/// A request that was answered, but not with success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {status} {code}: {message}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The store's own name of the error, such as `NoSuchKey`; empty if it gave none.
    pub(super) code: String,
    pub(super) message: String,
    /// When to come back, if the store said so.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    /// Finds the refusal below an error of `object_store`.
    pub(super) fn below(error: &object_store::Error) -> Option<&Refusal> {
        causes(error).find_map(|cause| cause.downcast_ref::<Refusal>())
    }
}

/// The error and what it was caused by, outermost first.
pub(super) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Options of every client.
pub(super) fn options(is_plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(REQUEST_DEADLINE)
        .with_connect_timeout(CONNECT_DEADLINE)
        .with_allow_http(is_plain)
        .with_user_agent(HeaderValue::from_static(concat!("redoubt/", env!("CARGO_PKG_VERSION"))))
}

/// HR-1.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Makes clients whose refusals can be told apart.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Whoever comes second finds a provider that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(HttpClient::new(Watched(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Watched(HttpClient);

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let named = header("x-ms-error-code").map(str::to_owned);
        let mut body = Vec::new();
        let mut parts = response.into_body().bytes_stream();
        while let Some(Ok(part)) = parts.next().await {
            body.extend_from_slice(&part[..part.len().min(REFUSAL_BYTES_MAX - body.len())]);
            if body.len() == REFUSAL_BYTES_MAX {
                break;
            }
        }
        let body = String::from_utf8_lossy(&body);
        let code = named.or_else(|| element(&body, "Code").map(str::to_owned)).unwrap_or_default();
        let message = element(&body, "Message").unwrap_or("no explanation").chars();
        let message = message.take(MESSAGE_CHARS_MAX).take_while(|c| *c != '\n').collect();
        Err(HttpError::new(HttpErrorKind::Unknown, Refusal { status, code, message, retry_after }))
    }
}

/// Returns the text of the first XML element of this name; the three clouds answer with flat ones.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_the_answers_of_the_clouds() {
        let body =
            "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>It is\nnot</Message></Error>";
        assert_eq!(element(body, "Code"), Some("NoSuchKey"));
        assert_eq!(element("<html>404</html>", "Code"), None);
        assert_eq!(element("<Code>cut", "Code"), None);
    }
}
