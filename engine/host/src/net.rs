//! Sockets: TCP without Nagle's delay and with probes of silent peers, and Unix sockets.
//!
//! What is *not* here: deadlines (callers have them) and encryption.

use crate::socket_file::{SocketFile, bind};
use async_trait::async_trait;
use redoubt_ports::{ByteStream, Endpoint, Listener, Net, NetError};
use rustix::net::sockopt;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A silent TCP peer is probed after this long.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Time between probes.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// Probes without an answer that end a connection: a host that lost its power is noticed within two
/// minutes, though an idle client of an export may be silent for ever.
const PROBES: u32 = 4;

/// Sends small messages at once, and finds out when the peer's host is gone.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    Ok(sockopt::set_tcp_keepcnt(stream, PROBES)?)
}

/// Sockets of this host.
#[derive(Debug, Clone, Copy)]
pub struct HostNet;

pub(crate) fn failed(endpoint: &Endpoint, error: std::io::Error) -> NetError {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => NetError::Refused(endpoint.clone()),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            NetError::TimedOut(endpoint.clone())
        }
        ErrorKind::AddrInUse => NetError::InUse(endpoint.clone()),
        _ => NetError::Failed(endpoint.clone(), error.to_string()),
    }
}

#[async_trait]
impl Net for HostNet {
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError> {
        match to {
            Endpoint::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| failed(to, e))?;
                prepare(&stream).map_err(|e| failed(to, e))?;
                Ok(Box::new(stream))
            }
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(|e| failed(to, e))?)),
        }
    }

    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError> {
        match at {
            Endpoint::Tcp(host, port) => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(|e| failed(at, e))?;
                let port = listener.local_addr().map_err(|e| failed(at, e))?.port();
                Ok(Box::new(HostTcp { listener, endpoint: Endpoint::Tcp(host.clone(), port) }))
            }
            Endpoint::Unix(path) => {
                let (listener, file) = bind(path)?;
                Ok(Box::new(HostUnix { listener, endpoint: at.clone(), _file: file }))
            }
        }
    }
}

struct HostTcp {
    listener: TcpListener,
    endpoint: Endpoint,
}

#[async_trait]
impl Listener for HostTcp {
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
        let (stream, peer) = self.listener.accept().await.map_err(|e| failed(&self.endpoint, e))?;
        prepare(&stream).map_err(|e| failed(&self.endpoint, e))?;
        Ok((Box::new(stream), format!("tcp:{peer}")))
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

struct HostUnix {
    listener: UnixListener,
    endpoint: Endpoint,
    /// Removes the name when the listener goes.
    _file: SocketFile,
}

#[async_trait]
impl Listener for HostUnix {
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
        let (stream, _) = self.listener.accept().await.map_err(|e| failed(&self.endpoint, e))?;
        let peer = stream.peer_cred().ok().and_then(|cred| cred.pid());
        Ok((Box::new(stream), peer.map_or("unix".to_owned(), |pid| format!("unix:pid {pid}"))))
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_whose_host_is_gone_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(at), listener.accept());
        for stream in [connected.unwrap(), accepted.unwrap().0] {
            assert!(!sockopt::socket_keepalive(&stream).unwrap(), "the system's default");
            prepare(&stream).unwrap();
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            let silence = sockopt::tcp_keepidle(&stream).unwrap()
                + sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
            assert_eq!(silence, Duration::from_secs(120));
        }
    }
}
