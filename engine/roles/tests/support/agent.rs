//! An agent by script: it says what a test tells it to say, and checks nothing.

use super::MemHost;
use redoubt_core::change::ResyncReason;
use redoubt_core::message::{
    HashReply, HashRequest, Hello, Message, PROTOCOL_VERSIONS, RefusedReason, VolumeInfo, Welcome,
};
use redoubt_core::{
    Batch, BatchPosition, Chain, Change, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    SealedBatch, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{ByteStream, Endpoint};
use redoubt_wire::{Decoder, StreamKey, encode, prove, seal};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const MACHINE: MachineId = MachineId(0xA1);
pub(crate) const VOLUME: VolumeIndex = VolumeIndex(0);
pub(crate) const SECTORS: u64 = 4096;
/// An answer that takes longer will never come; paused time makes it cheap.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);

/// The stream as its source makes it.
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) generation: Generation,
    pub(crate) at: BatchPosition,
}

impl Stream {
    pub(crate) fn new(key: StreamKey) -> Stream {
        Stream { key, generation: Generation(1), at: BatchPosition::default() }
    }

    /// Seals the next batch and goes on behind it.
    pub(crate) fn batch(&mut self, changes: Vec<Change>) -> SealedBatch {
        let first = self.at.seq.0 + 1;
        let records = changes.into_iter().enumerate();
        let records = records.map(|(at, change)| Record { seq: WriteSeq(first + at as u64), change });
        let batch = Batch::new(self.generation, records.collect()).unwrap();
        let sealed = seal(&self.key, MACHINE, &batch, self.at.chain);
        self.at = sealed.meta.position();
        sealed
    }

    /// The first batch of a stream: one volume, and an initial resync that ends at once.
    pub(crate) fn opening(&mut self) -> SealedBatch {
        let attach = Change::Attach { volume: VOLUME, id: VolumeId(7), sectors: Sectors(SECTORS) };
        let begin = Change::ResyncBegin { reason: ResyncReason::Initial };
        self.batch(vec![attach, begin, Change::ResyncEnd])
    }
}

pub(crate) fn write(lba: u64, fill: u8, sectors: usize) -> Change {
    Change::Write { volume: VOLUME, lba: Lba(lba), payload: vec![fill; sectors * 512].into() }
}

pub(crate) fn marker(id: u128) -> Change {
    Change::Marker(Marker { id: MarkerId(id), kind: MarkerKind::Crash, wall: WallTime(5) })
}

/// One connection.
pub(crate) struct Session {
    stream: Box<dyn ByteStream>,
    decoder: Decoder,
}

impl Session {
    /// Connects and says hello; the answer is `Welcome` or `Refused`.
    pub(crate) async fn open(host: &MemHost, to: &Endpoint, from: &Stream) -> (Session, Message) {
        let stream = host.world().net.connect(to).await.unwrap();
        let mut session = Session { stream, decoder: Decoder::new() };
        let Some(Message::Challenge(challenge)) = session.receive().await else { panic!("no challenge") };
        let volume = VolumeInfo { index: VOLUME, id: VolumeId(7), sectors: Sectors(SECTORS) };
        let mut hello = Hello {
            versions: PROTOCOL_VERSIONS,
            machine: MACHINE,
            generation: from.generation,
            volumes: vec![volume],
            names: redoubt_core::Names::default(),
            held: None,
            newest: from.at,
            proof: [0; 32],
        };
        prove(&from.key, &challenge, &mut hello);
        session.send(&Message::Hello(hello)).await;
        let answer = session.receive().await.expect("an answer to the hello");
        (session, answer)
    }

    /// Opens a session that must be welcomed.
    pub(crate) async fn welcomed(host: &MemHost, to: &Endpoint, from: &Stream) -> (Session, Welcome) {
        match Session::open(host, to, from).await {
            (session, Message::Welcome(welcome)) => (session, welcome),
            (_, answer) => panic!("no welcome: {answer:?}"),
        }
    }

    /// Opens a session that must be refused.
    pub(crate) async fn refused(host: &MemHost, to: &Endpoint, from: &Stream) -> (RefusedReason, String) {
        match Session::open(host, to, from).await.1 {
            Message::Refused { reason, detail } => (reason, detail),
            answer => panic!("not refused: {answer:?}"),
        }
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        for part in encode(message) {
            self.stream.write_all(&part).await.unwrap();
        }
    }

    pub(crate) async fn send_batch(&mut self, batch: &SealedBatch) {
        self.send(&Message::Batch(batch.clone())).await;
    }

    /// Returns the next message; `None` when the server closed.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let read = self.stream.read_buf(self.decoder.space(1 << 16));
            let read = tokio::time::timeout(ANSWER_DEADLINE, read).await.expect("an answer in time");
            if read.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Reads until the batch is staged.
    pub(crate) async fn staged(&mut self, seq: WriteSeq) {
        self.acknowledged(|staged, _| staged.seq >= seq).await;
    }

    /// Reads until the batch is vaulted.
    pub(crate) async fn vaulted(&mut self, seq: WriteSeq) {
        self.acknowledged(|_, vaulted| vaulted.seq >= seq).await;
    }

    async fn acknowledged(&mut self, enough: impl Fn(BatchPosition, BatchPosition) -> bool) {
        loop {
            match self.receive().await {
                Some(Message::Ack { staged, vaulted, .. }) if enough(staged, vaulted) => return,
                Some(Message::Ack { .. } | Message::Pong(_)) => {}
                other => panic!("no acknowledgement but {other:?}"),
            }
        }
    }

    /// Reads until the session is refused.
    pub(crate) async fn refusal(&mut self) -> RefusedReason {
        loop {
            match self.receive().await {
                Some(Message::Refused { reason, .. }) => return reason,
                Some(_) => {}
                None => panic!("closed without a refusal"),
            }
        }
    }

    pub(crate) async fn hashes(&mut self, request: HashRequest) -> HashReply {
        self.send(&Message::HashRequest(request)).await;
        loop {
            match self.receive().await {
                Some(Message::HashReply(reply)) => return reply,
                Some(Message::Ack { .. }) => {}
                other => panic!("no digests but {other:?}"),
            }
        }
    }
}

/// A chain of another history.
pub(crate) fn other_chain() -> Chain {
    Chain([9; 32])
}
