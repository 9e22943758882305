//! Sockets: TCP without Nagle's delay, and Unix sockets.
//!
//! What is *not* here: deadlines (callers have them) and encryption.

use crate::socket_file::{SocketFile, bind};
use async_trait::async_trait;
use redoubt_ports::{ByteStream, Endpoint, Listener, Net, NetError};
use std::io::ErrorKind;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

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
                stream.set_nodelay(true).map_err(|e| failed(to, e))?;
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
        stream.set_nodelay(true).map_err(|e| failed(&self.endpoint, e))?;
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
