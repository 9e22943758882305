//! One connection: challenge, proof, then messages to and from the machine's actor.
//!
//! Invariants
//! - PC-1 No machine learns of a connection before it proved that it holds that machine's key.
//! - PC-2 Every wait on the peer has a deadline; after the proof the receiver's silence limit is it.

use super::actor::{Caller, ToActor};
use super::outbox::Outbox;
use super::shared::{Shared, stopped};
use redoubt_core::message::{DETAIL_BYTES_MAX, Hello, Message, RefusedReason};
use redoubt_core::receiver::SessionId;
use redoubt_ports::ByteStream;
use redoubt_wire::{Decoder, FrameError, MessageError, encode, verify};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// From the connection to a whole `Hello`; the agent's own limit for an attempt is 15 s.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// A peer that takes no bytes for this long is gone: the receiver's silence limit.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Room made for one read.
const READ_BYTES: usize = 256 << 10;

/// Why the connection is ended from here.
struct Refusal(RefusedReason, String);

impl Refusal {
    fn protocol(error: &FrameError) -> Refusal {
        let reason = match error {
            FrameError::Version(_) | FrameError::Message { error: MessageError::Versions(_), .. } => {
                RefusedReason::Version
            }
            _ => RefusedReason::Protocol,
        };
        Refusal(reason, error.to_string())
    }
}

/// Makes a refusal whose detail fits the wire.
pub(super) fn refused(reason: RefusedReason, mut detail: String) -> Message {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    Message::Refused { reason, detail }
}

/// A session that its machine's actor knows.
struct Joined {
    session: SessionId,
    actor: mpsc::Sender<ToActor>,
}

/// Serves the connection until it or the process server ends.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: Box<dyn ByteStream>,
    peer: String,
    _room: OwnedSemaphorePermit,
) {
    let (read, write) = tokio::io::split(stream);
    let outbox = Arc::new(Outbox::default());
    let mut joined = None;
    {
        let talk = async {
            if let Err(Refusal(reason, detail)) = converse(&shared, read, &outbox, &peer, &mut joined).await {
                tracing::info!(peer, %reason, detail, "refusing an agent");
                outbox.push(refused(reason, detail));
            }
            outbox.close();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = pump(write, &outbox) => {}
            () = talk => {}
        }
    }
    if let Some(Joined { session, actor }) = joined {
        // Fails only if the actor ended, which ended its sessions.
        let _ = actor.send(ToActor::Gone(session)).await;
    }
}

/// Writes what the outbox holds until it is closed or the peer takes nothing more.
async fn pump(mut write: WriteHalf<Box<dyn ByteStream>>, outbox: &Outbox) {
    while let Some(message) = outbox.next().await {
        let put = async {
            for part in encode(&message) {
                write.write_all(&part).await?;
            }
            write.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_DEADLINE, put).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = tokio::time::timeout(WRITE_DEADLINE, write.shutdown()).await;
}

/// Reads one message; `None` at the end of the stream.
async fn receive(
    read: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<Option<Message>, Refusal> {
    loop {
        if let Some(message) = decoder.next().map_err(|error| Refusal::protocol(&error))? {
            return Ok(Some(message));
        }
        match read.read_buf(decoder.space(READ_BYTES)).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

async fn converse(
    shared: &Arc<Shared>,
    mut read: impl AsyncRead + Unpin,
    outbox: &Arc<Outbox>,
    peer: &str,
    joined: &mut Option<Joined>,
) -> Result<(), Refusal> {
    let mut challenge = [0; 32];
    shared.world.entropy.fill(&mut challenge);
    outbox.push(Message::Challenge(challenge));
    let mut decoder = Decoder::new();
    let Some(hello) = hello(&mut read, &mut decoder, shared.stop.clone()).await? else { return Ok(()) };
    let Some(key) = shared.stream_key(hello.machine) else {
        return Err(Refusal(RefusedReason::UnknownMachine, format!("machine {}", hello.machine)));
    };
    if !verify(&key, &challenge, &hello) {
        let detail = format!("machine {} proved another stream key than the vault's", hello.machine);
        return Err(Refusal(RefusedReason::WrongKey, detail));
    }
    let machine = hello.machine;
    let Some(actor) = shared.actor(machine) else {
        return Err(Refusal(RefusedReason::Busy, "this process server has no room for a machine".to_owned()));
    };
    let session = shared.next_session();
    tracing::info!(peer, %machine, session = session.0, generation = %hello.generation, "an agent says hello");
    *joined = Some(Joined { session, actor: actor.clone() });
    let outbox = outbox.clone();
    if actor.send(ToActor::Hello(Caller { session, hello, outbox })).await.is_err() {
        return Ok(());
    }
    while let Some(message) = receive(&mut read, &mut decoder).await? {
        if let Message::HashRequest(request) = &message
            && !request.is_valid()
        {
            return Err(Refusal(
                RefusedReason::Protocol,
                "a hash request is not aligned or too long".to_owned(),
            ));
        }
        if let Message::Batch(batch) = &message
            && redoubt_wire::key_of(&batch.bytes) != Some(key.id())
        {
            // Staged, it could never be opened. No agent of this engine sends one.
            let detail = "a batch is sealed under another stream key than the one that was proved".to_owned();
            return Err(Refusal(RefusedReason::WrongKey, detail));
        }
        if actor.send(ToActor::Received(session, message)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for the agent's first word; `None` if it left or the process server stops.
async fn hello(
    read: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    stop: watch::Receiver<bool>,
) -> Result<Option<Hello>, Refusal> {
    let first = tokio::time::timeout(HELLO_DEADLINE, receive(read, decoder));
    let first = tokio::select! {
        biased;
        () = stopped(stop) => return Ok(None),
        first = first => first,
    };
    match first {
        Ok(Ok(Some(Message::Hello(hello)))) => Ok(Some(hello)),
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(_))) => Err(Refusal(RefusedReason::Protocol, "the first message is no hello".to_owned())),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal(RefusedReason::Protocol, "no hello in time".to_owned())),
    }
}
