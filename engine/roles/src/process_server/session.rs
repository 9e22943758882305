//! One connection to the process server: challenge, hello, then frames both ways.
//!
//! Deadlines: the agent must say hello in time, and each write must make progress; silence after that
//! ends the session in the receiver.

use super::Shared;
use super::machine::{Machine, OUTGOING_MAX};
use redoubt_core::message::{Hello, Message, RefusedReason};
use redoubt_core::receiver::{ReceiverEvent, SessionId};
use redoubt_ports::ByteStream;
use redoubt_wire::{Decoder, StreamKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// From the connection to the agent's hello; equals the agent's own limit for the handshake.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);
/// One frame must leave within this time.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Opening a machine claims its log and scans its stage.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;

pub(super) async fn serve(shared: Arc<Shared>, stream: Box<dyn ByteStream>, id: SessionId) {
    let (mut incoming, outgoing) = tokio::io::split(stream);
    let (send, queue) = mpsc::channel(OUTGOING_MAX);
    let mut challenge = [0; 32];
    shared.world.entropy.fill(&mut challenge);
    if send.try_send(Some(Message::Challenge(challenge))).is_err() {
        return;
    }
    let reading = async {
        let mut decoder = Decoder::new();
        let hello = tokio::time::timeout(HELLO_DEADLINE, next(&mut incoming, &mut decoder)).await;
        let Ok(Some(Message::Hello(hello))) = hello else { return };
        let machine = match admit(&shared, &challenge, &hello).await {
            Ok((machine, _)) => machine,
            Err((reason, detail)) => {
                let _ = send.try_send(Some(Message::Refused { reason, detail }));
                let _ = send.try_send(None);
                // The writer closes the connection; nothing more is read.
                std::future::pending::<()>().await;
                return;
            }
        };
        machine.connect(id, send.clone());
        machine.step(ReceiverEvent::Hello { session: id, hello, proven: true });
        while let Some(message) = next(&mut incoming, &mut decoder).await {
            machine.step(ReceiverEvent::Received(id, message));
        }
        machine.disconnect(id);
    };
    let writing = write(outgoing, queue);
    tokio::select! {
        biased;
        () = writing => {}
        () = reading => {}
    }
    shared.forget(id);
}

/// Checks who speaks and opens the machine.
async fn admit(
    shared: &Shared,
    challenge: &[u8; 32],
    hello: &Hello,
) -> Result<(Arc<Machine>, StreamKey), (RefusedReason, String)> {
    let unknown =
        || (RefusedReason::UnknownMachine, format!("machine {} is not enrolled here", hello.machine));
    let key = shared.settings.machines.get(&hello.machine).cloned().ok_or_else(unknown)?;
    if !redoubt_wire::verify(&key, challenge, hello) {
        return Err((RefusedReason::WrongKey, "the proof does not match".to_owned()));
    }
    let opened = tokio::time::timeout(OPEN_DEADLINE, shared.machine(hello.machine, &key)).await;
    let busy = |mut detail: String| {
        tracing::warn!(role = "process-server", machine = %hello.machine, "{detail}");
        detail.truncate(redoubt_core::message::DETAIL_BYTES_MAX / 4);
        (RefusedReason::Busy, detail)
    };
    match opened {
        Ok(Ok(machine)) => Ok((machine, key)),
        Ok(Err(error)) => Err(busy(error)),
        Err(_) => Err(busy("the vault did not answer in time".to_owned())),
    }
}

/// Reads the next message; `None` at the end, on an error, or when the bytes are no frames.
pub(crate) async fn next<R: AsyncRead + Unpin>(reader: &mut R, decoder: &mut Decoder) -> Option<Message> {
    loop {
        match decoder.next() {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection is closed");
                return None;
            }
        }
        match reader.read_buf(decoder.space(READ_BYTES)).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Writes messages until `None`, the end of the queue, or an error.
pub(crate) async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Option<Message>>) {
    while let Some(Some(message)) = queue.recv().await {
        let frame = async {
            for part in redoubt_wire::encode(&message) {
                writer.write_all(&part).await?;
            }
            writer.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_DEADLINE, frame).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = tokio::time::timeout(WRITE_DEADLINE, writer.shutdown()).await;
}
