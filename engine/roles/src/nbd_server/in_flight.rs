//! One request that the export is working on.
//!
//! The export's future is boxed once (by its trait) and polled in place first; only if it is
//! pending does it move into the set of parked requests.

use super::export::{BlockRange, Export, ExportError, ExportInfo};
use bytes::Bytes;
use futures::future::BoxFuture;
use redoubt_nbd::{BlockPiece, Errno, Op, Outbox, Request};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A request in flight; resolves to what is to be replied.
pub(super) struct InFlight<'a> {
    cookie: u64,
    cost: usize,
    work: Work<'a>,
}

enum Work<'a> {
    Read { offset: u64, length: u32, one_piece: bool, future: BoxFuture<'a, Result<Bytes, ExportError>> },
    Change(BoxFuture<'a, Result<(), ExportError>>),
    Status { length: u32, one_piece: bool, future: BoxFuture<'a, Result<Vec<BlockRange>, ExportError>> },
}

/// The outcome of a request.
pub(super) struct Finished {
    cookie: u64,
    /// Bytes that it no longer holds.
    pub(super) cost: usize,
    outcome: Outcome,
}

enum Outcome {
    Read { offset: u64, length: u32, one_piece: bool, result: Result<Bytes, ExportError> },
    Change(Result<(), ExportError>),
    Status { length: u32, one_piece: bool, result: Result<Vec<BlockRange>, ExportError> },
}

impl<'a> InFlight<'a> {
    /// Hands the request to the export; a request that needs no export is finished at once.
    pub(super) fn start(
        export: &'a dyn Export,
        info: &ExportInfo,
        request: Request,
    ) -> Result<InFlight<'a>, Finished> {
        let cookie = request.cookie;
        let at_once = |result| Finished { cookie, cost: 0, outcome: Outcome::Change(result) };
        let (cost, work) = match request.op {
            Op::Read { offset, length: 0, one_piece } => {
                let outcome = Outcome::Read { offset, length: 0, one_piece, result: Ok(Bytes::new()) };
                return Err(Finished { cookie, cost: 0, outcome });
            }
            Op::Cache { .. } | Op::Trim { length: 0, .. } | Op::WriteZeroes { length: 0, .. } => {
                return Err(at_once(Ok(())));
            }
            Op::Write { payload, .. } if payload.is_empty() => return Err(at_once(Ok(()))),
            Op::WriteZeroes { fast_only: true, .. } if !info.has_fast_zeroes => {
                return Err(at_once(Err(ExportError::Unsupported)));
            }
            Op::Read { offset, length, one_piece } => {
                let future = export.read(offset, length);
                (length as usize, Work::Read { offset, length, one_piece, future })
            }
            Op::Write { offset, payload, fua } => {
                (payload.len(), Work::Change(export.write(offset, payload, fua)))
            }
            Op::Flush => (0, Work::Change(export.flush())),
            Op::Trim { offset, length, fua } => {
                (0, Work::Change(export.trim(offset, u64::from(length), fua)))
            }
            Op::WriteZeroes { offset, length, fua, may_unmap, fast_only } => {
                let length = u64::from(length);
                (0, Work::Change(export.write_zeroes(offset, length, fua, may_unmap, fast_only)))
            }
            Op::BlockStatus { offset, length, one_piece } => {
                let future = export.block_status(offset, u64::from(length));
                (0, Work::Status { length, one_piece, future })
            }
        };
        Ok(InFlight { cookie, cost, work })
    }

    /// Returns the bytes of payload that it holds until it is finished.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }
}

impl Future for InFlight<'_> {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = self.get_mut();
        let outcome = match &mut this.work {
            Work::Read { offset, length, one_piece, future } => {
                let result = ready!(future.as_mut().poll(cx));
                Outcome::Read { offset: *offset, length: *length, one_piece: *one_piece, result }
            }
            Work::Change(future) => Outcome::Change(ready!(future.as_mut().poll(cx))),
            Work::Status { length, one_piece, future } => {
                let result = ready!(future.as_mut().poll(cx));
                Outcome::Status { length: *length, one_piece: *one_piece, result }
            }
        };
        Poll::Ready(Finished { cookie: this.cookie, cost: this.cost, outcome })
    }
}

impl Finished {
    /// Writes the reply.
    pub(super) fn reply(self, structured: bool, out: &mut Outbox) {
        let cookie = self.cookie;
        match self.outcome {
            Outcome::Read { offset, length, one_piece, result } => match result {
                Ok(payload) if payload.len() != length as usize => {
                    debug_assert!(false, "an export returned {} of {length} bytes", payload.len());
                    out.failed(cookie, Errno::Io, structured, "the export returned too little");
                }
                Ok(payload) if structured => out.read_structured(cookie, offset, payload, one_piece),
                Ok(payload) => out.read_simple(cookie, payload),
                Err(error) => out.failed(cookie, errno(&error), structured, &error.to_string()),
            },
            Outcome::Change(Ok(())) => out.done(cookie),
            Outcome::Change(Err(error)) => {
                out.failed(cookie, errno(&error), structured, &error.to_string());
            }
            Outcome::Status { length, one_piece, result } => match result {
                Ok(parts) => out.block_status(cookie, length, &pieces(&parts), one_piece),
                Err(error) => out.failed(cookie, errno(&error), structured, &error.to_string()),
            },
        }
    }
}

fn pieces(parts: &[BlockRange]) -> Vec<BlockPiece> {
    let piece =
        |part: &BlockRange| BlockPiece { length: part.length, is_hole: part.is_hole, is_zero: part.is_zero };
    parts.iter().map(piece).collect()
}

/// Maps an export's error to one of the eight that clients know.
fn errno(error: &ExportError) -> Errno {
    match error {
        ExportError::OutOfRange => Errno::Inval,
        ExportError::ReadOnly => Errno::Perm,
        ExportError::NoSpace => Errno::NoSpc,
        ExportError::Unsupported => Errno::NotSup,
        ExportError::ShuttingDown => Errno::Shutdown,
        ExportError::Io(_) => Errno::Io,
    }
}
