//! Sockets of a host: connecting, listening, and the bounded queue between the two.

use super::super::lock;
use super::SimNet;
use super::stream::{SimStream, pair};
use async_trait::async_trait;
use redoubt_ports::{ByteStream, Endpoint, Listener, Net, NetError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// How long a connect waits on a dead way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Connections that wait to be accepted, as many as the production listener asks its system for. Beyond
/// it a listener does not answer, and the client tries again until its time-out.
const BACKLOG: usize = 1024;

/// How often a client tries again while nobody answers.
const SYN_RETRY: Duration = Duration::from_secs(1);

/// Ports that a listener gets if it asks for any.
const ANY_PORT: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A stream on its way to `accept`, and who made it.
type Accepted = (SimStream, String);

/// A listener as clients find it.
pub(super) struct Listening {
    queue: mpsc::Sender<Accepted>,
    token: u64,
}

/// Sockets of one host.
pub(in crate::ports) struct HostNet {
    pub(super) net: SimNet,
    pub(super) host: String,
}

struct SimListener {
    net: SimNet,
    at: (String, u16),
    token: u64,
    queue: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = lock(&self.net.state);
        if state.listeners.get(&self.at).is_some_and(|listener| listener.token == self.token) {
            state.listeners.remove(&self.at);
        }
    }
}

impl HostNet {
    /// Waits for the way there and back; tells whether somebody can answer.
    async fn reach(&self, name: &str) -> bool {
        let (way, way_back) = (self.net.way(&self.host, name), self.net.way(name, &self.host));
        let ways = || (self.net.link(way), self.net.link(way_back));
        let ((there, back), shared) = (ways(), &self.net.shared);
        tokio::time::sleep(shared.draw(&there.delay) + shared.draw(&back.delay)).await;
        let (there, back) = ways();
        !there.cut && !back.cut && self.net.is_powered(name)
    }

    /// Knocks once. None if the listener does not answer.
    fn knock(&self, name: &str, port: u16) -> Option<Result<SimStream, NetError>> {
        let refused = || Some(Err(NetError::Refused(Endpoint::Tcp(name.to_owned(), port))));
        let at = (name.to_owned(), port);
        let Some(queue) = lock(&self.net.state).listeners.get(&at).map(|found| found.queue.clone()) else {
            return refused();
        };
        match queue.try_reserve() {
            Ok(place) => {
                let (ours, theirs) = pair(&self.net, &self.host, name);
                place.send((theirs, self.host.clone()));
                Some(Ok(ours))
            }
            Err(TrySendError::Closed(())) => refused(),
            Err(TrySendError::Full(())) => None,
        }
    }
}

fn no_unix(endpoint: &Endpoint) -> NetError {
    NetError::Failed(endpoint.clone(), "the lab has no Unix sockets".into())
}

#[async_trait]
impl Net for HostNet {
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError> {
        let Endpoint::Tcp(name, port) = to else { return Err(no_unix(to)) };
        let began = self.net.shared.now();
        while self.net.shared.now() - began < CONNECT_TIMEOUT {
            if self.reach(name).await
                && let Some(answer) = self.knock(name, *port)
            {
                return answer.map(|stream| Box::new(stream) as Box<dyn ByteStream>);
            }
            tokio::time::sleep(SYN_RETRY).await;
        }
        Err(NetError::TimedOut(to.clone()))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError> {
        let Endpoint::Tcp(_, port) = at else { return Err(no_unix(at)) };
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut state = lock(&self.net.state);
        let is_free = |port: &u16| !state.listeners.contains_key(&(self.host.clone(), *port));
        let found = if *port == 0 { ANY_PORT.into_iter().find(is_free) } else { Some(*port).filter(is_free) };
        let Some(port) = found else { return Err(NetError::InUse(at.clone())) };
        state.listens += 1;
        let (key, token) = ((self.host.clone(), port), state.listens);
        state.listeners.insert(key.clone(), Listening { queue: sender, token });
        drop(state);
        let queue = tokio::sync::Mutex::new(receiver);
        Ok(Box::new(SimListener { net: self.net.clone(), at: key, token, queue }))
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
        let mut queue = self.queue.lock().await;
        match queue.recv().await {
            Some((stream, peer)) => Ok((Box::new(stream), peer)),
            None => std::future::pending().await,
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.at.0.clone(), self.at.1)
    }
}
