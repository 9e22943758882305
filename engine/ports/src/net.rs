//! Byte streams between hosts, and to local clients.
//!
//! A stream may fall silent for ever (power loss, partition): every wait on it needs a deadline.
//! The end of a stream is never relied upon as a message.

use async_trait::async_trait;
use std::fmt;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where to listen or connect: `tcp:HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// Path of a Unix socket.
    Unix(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint; write tcp:HOST:PORT or unix:PATH")]
pub struct EndpointError(pub String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Endpoint::Unix(path.to_owned())) };
        }
        let rest = text.strip_prefix("tcp:").ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Endpoint::Tcp(host.to_owned(), port.parse().map_err(|_| wrong())?))
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Nobody listens there.
    #[error("{0} refused the connection")]
    Refused(Endpoint),
    /// No answer in time.
    #[error("{0} did not answer in time")]
    TimedOut(Endpoint),
    /// The address is taken by another process.
    #[error("{0} is in use by another process")]
    InUse(Endpoint),
    /// Anything else, in the system's words.
    #[error("{0}: {1}")]
    Failed(Endpoint, String),
}

/// A connected stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Sockets of one host.
#[async_trait]
pub trait Net: Send + Sync {
    /// Connects; gives up by itself after the system's time-out, so callers add their own.
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError>;

    /// Starts to listen. Port 0 asks for any free port.
    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError>;
}

/// A listening socket; closed on drop.
#[async_trait]
pub trait Listener: Send + Sync {
    /// Returns the next connection and who made it.
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError>;

    /// Returns the address with the real port.
    fn endpoint(&self) -> Endpoint;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_written() {
        for text in ["tcp:127.0.0.1:9443", "unix:/run/redoubt.sock", "tcp:ps1:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "tcp:", "tcp:host", "tcp:host:99999", "unix:", "http://x"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
