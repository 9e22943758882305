//! Links and sockets: directed links with delay, bandwidth, loss and cuts; streams that end with the
//! process and fall silent with the power.

use super::{Shared, lock};
use crate::oracles::Finding;
use crate::oracles::secrets::Scanner;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use redoubt_ports::{ByteStream, Endpoint, Listener, Net, NetError};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// Bytes that one direction of a stream holds before the writer waits: a common socket buffer.
const WINDOW: usize = 256 << 10;

/// How long a connect waits on a dead way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// What a lost packet costs until it is sent again.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// What a direction between two places is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// One-way delay.
    pub delay: Duration,
    /// Bytes per second.
    pub speed: u64,
    /// Loss in parts per million of writes.
    pub loss: u32,
    /// Nothing passes.
    pub cut: bool,
}

impl LinkModel {
    /// Inside a site.
    pub const LAN: LinkModel =
        LinkModel { delay: Duration::from_micros(200), speed: 120_000_000, loss: 0, cut: false };
    /// Between sites, 100 Mbit/s.
    pub const WAN: LinkModel =
        LinkModel { delay: Duration::from_millis(12), speed: 12_000_000, loss: 0, cut: false };
    /// Between sites, 8 Mbit/s.
    pub const SLOW: LinkModel =
        LinkModel { delay: Duration::from_millis(35), speed: 1_000_000, loss: 0, cut: false };
}

#[derive(Default)]
struct Pipe {
    queue: VecDeque<(Duration, Bytes)>,
    held: usize,
    last: Duration,
    ended: bool,
    silent: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    scanner: Scanner,
}

struct Direction {
    from: String,
    to: String,
    pipe: Mutex<Pipe>,
}

struct HostState {
    site: String,
    powered: bool,
    boots: u64,
}

type Accepted = (SimStream, String);

struct State {
    hosts: BTreeMap<String, HostState>,
    wan: LinkModel,
    /// Faulted links by (from, to): host or site names.
    faults: BTreeMap<(String, String), LinkModel>,
    busy: BTreeMap<(String, String), Duration>,
    listeners: BTreeMap<(String, u16), (mpsc::UnboundedSender<Accepted>, u64)>,
    pipes: Vec<Arc<Direction>>,
    next_port: u16,
}

/// All links of a world.
#[derive(Clone)]
pub struct SimNet {
    shared: Shared,
    state: Arc<Mutex<State>>,
}

impl SimNet {
    pub(super) fn new(shared: Shared) -> SimNet {
        let state = State {
            hosts: BTreeMap::new(),
            wan: LinkModel::WAN,
            faults: BTreeMap::new(),
            busy: BTreeMap::new(),
            listeners: BTreeMap::new(),
            pipes: Vec::new(),
            next_port: 40_000,
        };
        SimNet { shared, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn add_host(&self, name: &str, site: &str) {
        let host = HostState { site: site.to_owned(), powered: true, boots: 0 };
        lock(&self.state).hosts.insert(name.to_owned(), host);
    }

    pub(super) fn at(&self, host: &str) -> HostNet {
        HostNet { net: self.clone(), host: host.to_owned() }
    }

    /// Sets what lies between the sites.
    pub fn set_wan(&self, model: LinkModel) {
        lock(&self.state).wan = model;
    }

    /// Returns the directions that a link's name means: `wan`, `a->b`, `a<->b`.
    fn ends(link: &str) -> Vec<(String, String)> {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        if link == "wan" {
            return vec![pair("source", "target"), pair("target", "source")];
        }
        if let Some((a, b)) = link.split_once("<->") {
            return vec![pair(a, b), pair(b, a)];
        }
        link.split_once("->").map(|(a, b)| vec![pair(a, b)]).unwrap_or_default()
    }

    /// Changes a link by name; `None` heals it.
    pub fn set_link(&self, link: &str, change: Option<&dyn Fn(LinkModel) -> LinkModel>) {
        let mut state = lock(&self.state);
        for (from, to) in SimNet::ends(link) {
            let plain = state.plain(&from, &to);
            match change {
                Some(change) => {
                    state.faults.insert((from, to), change(plain));
                }
                None => {
                    state.faults.remove(&(from, to));
                }
            }
        }
        state.wake_all();
    }

    /// Heals every link.
    pub fn heal_all(&self) {
        let mut state = lock(&self.state);
        state.faults.clear();
        state.wake_all();
    }

    pub(super) fn set_power(&self, host: &str, powered: bool) {
        let mut state = lock(&self.state);
        if let Some(host) = state.hosts.get_mut(host) {
            host.powered = powered;
            host.boots += u64::from(!powered);
        }
        for direction in &state.pipes {
            if direction.from != host && direction.to != host {
                continue;
            }
            let mut pipe = lock(&direction.pipe);
            if powered {
                // The new system knows nothing of old connections: it answers them with a reset.
                pipe.reset |= pipe.silent;
            } else {
                pipe.silent = true;
            }
            pipe.wake();
        }
        state.pipes.retain(|direction| Arc::strong_count(direction) > 1);
    }

    /// Returns what lies between a host and a place now.
    pub(super) fn link(&self, from: &str, to: &str) -> LinkModel {
        lock(&self.state).link(from, to)
    }

    pub(super) fn is_powered(&self, host: &str) -> bool {
        lock(&self.state).hosts.get(host).is_none_or(|host| host.powered)
    }
}

impl State {
    fn site<'a>(&'a self, place: &'a str) -> &'a str {
        self.hosts.get(place).map_or(place, |host| host.site.as_str())
    }

    fn plain(&self, from: &str, to: &str) -> LinkModel {
        if self.site(from) == self.site(to) { LinkModel::LAN } else { self.wan }
    }

    fn link(&self, from: &str, to: &str) -> LinkModel {
        let mut model = self.plain(from, to);
        let (from_site, to_site) = (self.site(from), self.site(to));
        let mut names = vec![(from, to), (from, to_site), (from_site, to)];
        if from_site != to_site {
            names.push((from_site, to_site));
        }
        for (a, b) in names {
            if let Some(fault) = self.faults.get(&(a.to_owned(), b.to_owned())) {
                model.cut |= fault.cut;
                model.loss = model.loss.max(fault.loss);
                model.speed = model.speed.min(fault.speed);
            }
        }
        model
    }

    fn wake_all(&mut self) {
        self.pipes.retain(|direction| Arc::strong_count(direction) > 1);
        for direction in &self.pipes {
            lock(&direction.pipe).wake();
        }
    }
}

impl Pipe {
    fn wake(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// One end of a stream.
struct SimStream {
    net: SimNet,
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut pipe = lock(&self.outgoing.pipe);
        pipe.ended = true;
        pipe.wake();
        drop(pipe);
        let mut pipe = lock(&self.incoming.pipe);
        // Where the power is gone, nobody is left to send a reset.
        pipe.reset |= !pipe.silent;
        pipe.wake();
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let link = this.net.link(&this.incoming.from, &this.incoming.to);
        let now = this.net.shared.now();
        let direction = Arc::clone(&this.incoming);
        let mut pipe = lock(&direction.pipe);
        pipe.reader = Some(cx.waker().clone());
        if pipe.silent && !pipe.reset || link.cut {
            return Poll::Pending;
        }
        let (silent, ended) = (pipe.silent, pipe.ended);
        match pipe.queue.front_mut() {
            Some((ready, bytes)) if *ready <= now => {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    pipe.queue.pop_front();
                }
                pipe.held -= count;
                if let Some(waker) = pipe.writer.take() {
                    waker.wake();
                }
                Poll::Ready(Ok(()))
            }
            Some((ready, _)) => {
                let mut timer = Box::pin(tokio::time::sleep(*ready - now));
                let polled = timer.as_mut().poll(cx);
                this.timer = Some(timer);
                if polled.is_ready() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            None if silent => Poll::Ready(Err(reset())),
            None if ended => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let shared = &this.net.shared;
        let now = shared.now();
        let direction = Arc::clone(&this.outgoing);
        let mut state = lock(&this.net.state);
        let link = state.link(&direction.from, &direction.to);
        let mut pipe = lock(&direction.pipe);
        if pipe.reset && !link.cut {
            return Poll::Ready(Err(reset()));
        }
        let room = WINDOW - pipe.held.min(WINDOW);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let piece = &bytes[..bytes.len().min(room).min(64 << 10)];
        if pipe.scanner.push(piece) {
            let what = format!("guest data in the clear on the link {} -> {}", direction.from, direction.to);
            shared.trace.finding(Finding::new("secrets", what));
        }
        let way = (state.site(&direction.from).to_owned(), state.site(&direction.to).to_owned());
        let busy = state.busy.entry(way).or_default();
        let start = now.max(*busy);
        *busy = start + Duration::from_nanos(piece.len() as u64 * 1_000_000_000 / link.speed.max(1));
        let mut ready = *busy + link.delay + shared.micros(0, 300);
        while shared.chance(link.loss) {
            ready += RETRANSMIT;
        }
        pipe.last = ready.max(pipe.last);
        let ready = pipe.last;
        pipe.held += piece.len();
        pipe.queue.push_back((ready, Bytes::copy_from_slice(piece)));
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        shared.trace.event(now, &direction.to, piece);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.outgoing.pipe);
        pipe.ended = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

/// Sockets of one host.
pub(super) struct HostNet {
    net: SimNet,
    host: String,
}

struct SimListener {
    net: SimNet,
    at: (String, u16),
    token: u64,
    queue: tokio::sync::Mutex<mpsc::UnboundedReceiver<Accepted>>,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = lock(&self.net.state);
        if state.listeners.get(&self.at).is_some_and(|listener| listener.1 == self.token) {
            state.listeners.remove(&self.at);
        }
    }
}

#[async_trait]
impl Net for HostNet {
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError> {
        let Endpoint::Tcp(name, port) = to else {
            return Err(NetError::Failed(to.clone(), "the lab has no Unix sockets".into()));
        };
        let (there, back) = (self.net.link(&self.host, name), self.net.link(name, &self.host));
        tokio::time::sleep(there.delay + back.delay).await;
        let (there, back) = (self.net.link(&self.host, name), self.net.link(name, &self.host));
        if there.cut || back.cut || !self.net.is_powered(name) {
            tokio::time::sleep(CONNECT_TIMEOUT).await;
            return Err(NetError::TimedOut(to.clone()));
        }
        let direction = |from: &str, to: &str| {
            Arc::new(Direction {
                from: from.to_owned(),
                to: to.to_owned(),
                pipe: Mutex::new(Pipe::default()),
            })
        };
        let (forth, back) = (direction(&self.host, name), direction(name, &self.host));
        let end = |incoming: &Arc<Direction>, outgoing: &Arc<Direction>| SimStream {
            net: self.net.clone(),
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            timer: None,
        };
        let (ours, theirs) = (end(&back, &forth), end(&forth, &back));
        let sender = {
            let mut state = lock(&self.net.state);
            state.pipes.extend([forth, back]);
            state.listeners.get(&(name.clone(), *port)).map(|listener| listener.0.clone())
        };
        let Some(sender) = sender else { return Err(NetError::Refused(to.clone())) };
        sender.send((theirs, self.host.clone())).map_err(|_| NetError::Refused(to.clone()))?;
        Ok(Box::new(ours))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError> {
        let Endpoint::Tcp(_, port) = at else {
            return Err(NetError::Failed(at.clone(), "the lab has no Unix sockets".into()));
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = lock(&self.net.state);
        state.next_port += 1;
        let token = u64::from(state.next_port);
        let port = if *port == 0 { state.next_port } else { *port };
        let key = (self.host.clone(), port);
        if state.listeners.contains_key(&key) {
            return Err(NetError::InUse(at.clone()));
        }
        state.listeners.insert(key.clone(), (sender, token));
        Ok(Box::new(SimListener {
            net: self.net.clone(),
            at: key,
            token,
            queue: tokio::sync::Mutex::new(receiver),
        }))
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
