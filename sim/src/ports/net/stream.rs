//! Streams: bytes that wait for their time of arrival, and what ends or silences them.

use super::super::lock;
use super::{SimNet, Way};
use crate::oracles::Finding;
use crate::oracles::secrets::Scanner;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one direction of a stream holds before the writer waits: a common socket buffer.
const WINDOW: usize = 256 << 10;

/// Most bytes of one write: what a sender hands to the link at once.
const PIECE: usize = 64 << 10;

/// One direction's bytes.
#[derive(Default)]
pub(super) struct Pipe {
    queue: VecDeque<(Duration, Bytes)>,
    held: usize,
    last: Duration,
    ended: bool,
    pub(super) silent: bool,
    pub(super) reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    scanner: Scanner,
}

/// A direction between two hosts, for one stream.
pub(super) struct Direction {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) way: Way,
    pub(super) pipe: Mutex<Pipe>,
}

impl Pipe {
    /// Everything under way arrives by this time.
    pub(super) fn arrive_by(&mut self, latest: Duration) {
        for (ready, _) in &mut self.queue {
            *ready = latest.min(*ready);
        }
        self.last = latest.min(self.last);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

type Timer = Option<Pin<Box<tokio::time::Sleep>>>;

/// One end of a stream.
pub(super) struct SimStream {
    net: SimNet,
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    read_timer: Timer,
    write_timer: Timer,
}

/// Makes the two ends of a stream between two hosts, the first host's end first.
pub(super) fn pair(net: &SimNet, a: &str, b: &str) -> (SimStream, SimStream) {
    let direction = |from: &str, to: &str| {
        let (way, pipe) = (net.way(from, to), Mutex::new(Pipe::default()));
        Arc::new(Direction { from: from.to_owned(), to: to.to_owned(), way, pipe })
    };
    let (forth, back) = (direction(a, b), direction(b, a));
    lock(&net.state).pipes.extend([Arc::clone(&forth), Arc::clone(&back)]);
    let end = |incoming: &Arc<Direction>, outgoing: &Arc<Direction>| SimStream {
        net: net.clone(),
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        read_timer: None,
        write_timer: None,
    };
    (end(&back, &forth), end(&forth, &back))
}

/// Wakes the task after the time.
fn wake_after(timer: &mut Timer, time: Duration, cx: &mut Context<'_>) {
    let mut sleep = Box::pin(tokio::time::sleep(time));
    if sleep.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    *timer = Some(sleep);
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
        let link = this.net.link(this.incoming.way);
        let now = this.net.shared.now();
        let direction = Arc::clone(&this.incoming);
        let mut pipe = lock(&direction.pipe);
        pipe.reader = Some(cx.waker().clone());
        if pipe.silent && !pipe.reset || link.cut {
            if link.cut {
                this.net.shared.trace.bite("link.cut");
            }
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
                wake_after(&mut this.read_timer, *ready - now, cx);
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
        let (from, to) = (direction.from.as_str(), direction.to.as_str());
        let (link, wait) = this.net.entrance(direction.way, bytes.len() as u64);
        let mut pipe = lock(&direction.pipe);
        if pipe.reset && !link.cut {
            return Poll::Ready(Err(reset()));
        }
        let room = WINDOW - pipe.held.min(WINDOW);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(wait) = wait {
            pipe.writer = Some(cx.waker().clone());
            wake_after(&mut this.write_timer, wait, cx);
            return Poll::Pending;
        }
        let piece = &bytes[..bytes.len().min(room).min(PIECE)];
        if pipe.scanner.push(piece) {
            let what = format!("guest data in the clear on the link {from} -> {to}");
            shared.trace.finding(Finding::new("secrets", what));
        }
        let ready = this.net.carry(direction.way, piece.len() as u64, super::FIXED);
        pipe.last = ready.max(pipe.last);
        let ready = pipe.last;
        pipe.held += piece.len();
        pipe.queue.push_back((ready, Bytes::copy_from_slice(piece)));
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        shared.trace.event(now, to, piece);
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
