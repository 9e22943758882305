//! One client's connection: handshake, then requests and replies until somebody leaves.
//!
//! - CN-1 Every request taken from the client runs to its end, even if the client is gone: an
//!   export's future is never dropped half done, except by the drain deadline.
//! - CN-2 At most [`MAX_REQUESTS`] requests and about [`MAX_BYTES`] of payloads and replies are held;
//!   beyond that the client waits in its socket.
//! - CN-3 A reply is sent as soon as there is nothing else to do, or [`SEND_BYTES`] have gathered.
//! - CN-4 A busy client does not keep other tasks from running: after [`MAX_ROUNDS`] it waits its turn.
//!
//! Everything runs in one task without channels: at queue depth 1 a request costs one read and
//! one write of the socket, and the export's future is polled where it was made.

use super::export::{Export, ExportDirectory, ExportInfo};
use super::in_flight::InFlight;
use super::serve::stopped;
use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redoubt_nbd::{
    Bounds, ExportFacts, Handshake, Incoming, Negotiated, Outbox, ProtocolError, Step, Transmission,
};
use redoubt_ports::ByteStream;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// Requests in flight on one connection; Linux sends 128, QEMU 64.
const MAX_REQUESTS: usize = 256;
/// Payloads and replies held for one connection: two of the largest requests.
const MAX_BYTES: usize = 64 << 20;
/// Replies that make a write to the socket worth it although more requests wait.
const SEND_BYTES: usize = 128 << 10;
/// Size of the read buffer: a Unix socket hands over about 200 KiB at most.
const READ_BYTES: usize = 256 << 10;
/// Least free space worth a read: a page and its header.
const LEAST_READ_BYTES: usize = 8 << 10;
/// Parts in one vectored write.
const MAX_SLICES: usize = 64;
/// Rounds of one poll before other tasks get their turn: with a full queue each is about 100 us.
const MAX_ROUNDS: usize = 8;
/// A client that does not finish the handshake in this time is cut off; people at a prompt do.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(120);

/// How a connection ended without anybody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client ended the handshake without choosing an export.
    Declined,
    /// The client disconnected, with or without saying so.
    ClientLeft,
    /// The server was stopped.
    Stopped,
}

impl std::fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ConnectionEnd::Declined => "no export was chosen",
            ConnectionEnd::ClientLeft => "the client disconnected",
            ConnectionEnd::Stopped => "the server stops",
        })
    }
}

/// Serves one client. Returns after every request that was taken has run; see CN-1. An error is the
/// client's or the network's: nothing is left to do for the caller.
pub async fn serve_connection(
    mut stream: Box<dyn ByteStream>,
    directory: Arc<dyn ExportDirectory>,
    stop: watch::Receiver<bool>,
) -> io::Result<ConnectionEnd> {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut out = Outbox::new();
    let mut stopping = pin!(stopped(stop));
    let agreed = tokio::select! {
        biased;
        () = &mut stopping => return Ok(ConnectionEnd::Stopped),
        agreed = tokio::time::timeout(
            HANDSHAKE_DEADLINE,
            shake_hands(&mut stream, directory.as_ref(), &mut input, &mut out),
        ) => agreed.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??,
    };
    let Some((agreed, export)) = agreed else { return Ok(ConnectionEnd::Declined) };
    let mut connection = Connection {
        stream,
        export: export.as_ref(),
        agreed,
        decoder: Transmission::new(),
        input,
        out,
        in_flight: FuturesUnordered::new(),
        held_bytes: 0,
        is_starved: true,
        end: None,
        broken: None,
    };
    poll_fn(|cx| connection.poll(cx, stopping.as_mut())).await
}

async fn shake_hands(
    stream: &mut Box<dyn ByteStream>,
    directory: &dyn ExportDirectory,
    input: &mut BytesMut,
    out: &mut Outbox,
) -> io::Result<Option<(Negotiated, Arc<dyn Export>)>> {
    let mut handshake = Handshake::new(out.tail());
    let mut last_found = None;
    loop {
        if out.len() >= SEND_BYTES {
            // Few bytes of options can ask for many of names.
            stream.write_all_buf(out.tail()).await?;
        }
        match handshake.step(input, out.tail()) {
            Step::NeedInput => {
                stream.write_all_buf(out.tail()).await?;
                stream.flush().await?;
                input.reserve(LEAST_READ_BYTES);
                if stream.read_buf(input).await? == 0 {
                    return Ok(None);
                }
            }
            Step::Lookup(name) => {
                last_found = directory.lookup(&name).await;
                let facts = last_found.as_deref().map(facts_of);
                handshake.looked_up(facts.as_ref(), out.tail());
            }
            Step::List => handshake.listed(&directory.list().await, out.tail()),
            Step::Transmit(agreed) => return Ok(last_found.map(|export| (agreed, export))),
            Step::Close => {
                stream.write_all_buf(out.tail()).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
        }
    }
}

fn facts_of(export: &dyn Export) -> ExportFacts {
    let info = export.info();
    ExportFacts {
        size_bytes: info.size_bytes,
        read_only: info.read_only,
        can_multi_conn: info.can_multi_conn,
        can_trim: info.can_trim,
        description: export.description(),
    }
}

struct Connection<'a> {
    stream: Box<dyn ByteStream>,
    export: &'a dyn Export,
    agreed: Negotiated,
    decoder: Transmission,
    input: BytesMut,
    out: Outbox,
    in_flight: FuturesUnordered<InFlight<'a>>,
    /// Payload bytes of the requests in flight.
    held_bytes: usize,
    /// The decoder found no whole request in the input. Only then is more read, which bounds the
    /// input to one request and one read.
    is_starved: bool,
    /// Set: no more requests are taken.
    end: Option<ConnectionEnd>,
    /// Set: the socket is of no use any more; only CN-1 keeps the connection.
    broken: Option<io::Error>,
}

impl Connection<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stopping: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<io::Result<ConnectionEnd>> {
        if self.end.is_none() && stopping.poll(cx).is_ready() {
            self.end = Some(ConnectionEnd::Stopped);
        }
        for _ in 0..MAX_ROUNDS {
            let mut progress = self.reap(cx);
            progress |= self.take_requests(cx);
            progress |= self.send(cx);
            progress |= self.receive(cx);
            if self.in_flight.is_empty()
                && let Some(end) = self.end
            {
                if let Some(error) = self.broken.take() {
                    return Poll::Ready(Err(error));
                }
                if self.out.is_empty() {
                    return Pin::new(&mut self.stream).poll_shutdown(cx).map(|_| Ok(end));
                }
            }
            if !progress {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Replies to parked requests that have finished.
    fn reap(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while !self.in_flight.is_empty()
            && let Poll::Ready(Some(finished)) = self.in_flight.poll_next_unpin(cx)
        {
            self.held_bytes -= finished.cost;
            finished.reply(self.agreed.structured, &mut self.out);
            progress = true;
        }
        progress
    }

    fn has_room(&self) -> bool {
        self.end.is_none()
            && self.in_flight.len() < MAX_REQUESTS
            && self.held_bytes + self.out.len() < MAX_BYTES
    }

    /// Takes requests from the input and starts them.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        self.is_starved = false;
        while self.has_room() && self.out.len() < SEND_BYTES {
            let (export, agreed) = (self.export, &self.agreed);
            let mut info = None;
            let bounds = || bounds_of(info.insert(export.info()), agreed);
            let incoming = match self.decoder.next(&mut self.input, bounds) {
                Ok(Some(incoming)) => incoming,
                Ok(None) => {
                    self.is_starved = true;
                    break;
                }
                Err(error) => {
                    self.fail(protocol_error(error));
                    break;
                }
            };
            progress = true;
            match incoming {
                Incoming::Disconnect => self.end = Some(ConnectionEnd::ClientLeft),
                Incoming::Refused { cookie, is_read, errno } => {
                    // A simple error reply is legal for everything but a structured read.
                    self.out.failed(cookie, errno, is_read && self.agreed.structured, "refused");
                }
                Incoming::Request(request) => {
                    // A payload that came in several reads was checked when its header came.
                    let info = info.unwrap_or_else(|| export.info());
                    let mut request = match InFlight::start(export, &info, request) {
                        Ok(request) => request,
                        Err(finished) => {
                            finished.reply(self.agreed.structured, &mut self.out);
                            continue;
                        }
                    };
                    match Pin::new(&mut request).poll(cx) {
                        Poll::Ready(finished) => finished.reply(self.agreed.structured, &mut self.out),
                        Poll::Pending => {
                            self.held_bytes += request.cost();
                            self.in_flight.push(request);
                        }
                    }
                }
            }
        }
        progress
    }

    /// Sends what waits, as far as the socket takes it.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while !self.out.is_empty() && self.broken.is_none() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.out.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let sent = match &slices[..count] {
                [only] => stream.poll_write(cx, only),
                several => stream.poll_write_vectored(cx, several),
            };
            match sent {
                Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    self.out.advance(sent);
                    progress = true;
                }
                Poll::Ready(Err(error)) => self.fail(error),
                Poll::Pending => break,
            }
        }
        progress
    }

    /// Reads once, if a request is incomplete.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_starved || self.end.is_some() {
            return false;
        }
        let missing = self.decoder.wanted_bytes().saturating_sub(self.input.len());
        if self.input.capacity() - self.input.len() < missing.max(LEAST_READ_BYTES) {
            self.input.reserve(missing.max(READ_BYTES));
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Ready(Ok(0)) => self.end = Some(ConnectionEnd::ClientLeft),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending => return false,
        }
        true
    }

    fn fail(&mut self, error: io::Error) {
        self.end = Some(ConnectionEnd::ClientLeft);
        self.broken = Some(error);
        self.out = Outbox::new();
    }
}

fn bounds_of(info: &ExportInfo, agreed: &Negotiated) -> Bounds {
    Bounds {
        size_bytes: info.size_bytes,
        read_only: info.read_only,
        can_trim: info.can_trim,
        structured: agreed.structured,
        allocation_context: agreed.allocation_context,
    }
}

fn protocol_error(error: ProtocolError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
