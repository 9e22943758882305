//! The process server against an agent by script: what is acknowledged is in the vault or comes back.
#![cfg(not(madsim))]

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::message::{HashRequest, Message, RefusedReason};
use redoubt_core::{Change, Extent, Generation, WriteSeq};
use redoubt_ports::{Endpoint, RawStore, StoreError, StoreKey};
use redoubt_roles::process_server::{ProcessServer, PsError, PsSettings};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultKeys};
use redoubt_wire::StreamKey;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::MemHost;
use support::agent::{MACHINE, SECTORS, Session, Stream, VOLUME, marker, other_chain, write};

/// A store that can be unreachable.
#[derive(Default)]
struct Gate {
    inner: MemStore,
    is_closed: AtomicBool,
}

impl Gate {
    fn close(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the gate is closed".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl RawStore for Gate {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.check()?;
        self.inner.put_if_absent(key, body).await
    }
    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.inner.get(key, range).await
    }
    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.check()?;
        self.inner.list_after(prefix, after, limit).await
    }
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.check()?;
        self.inner.delete(key).await
    }
}

fn keys() -> VaultKeys {
    VaultKeys::new([3; 32])
}

fn stream_key() -> StreamKey {
    StreamKey::new(keys().stream_key(MACHINE))
}

/// A host, a vault, and a server to start on them.
struct Site {
    host: MemHost,
    store: Arc<Gate>,
    vault: Vault,
}

impl Site {
    async fn new() -> Site {
        let host = MemHost::new(1);
        let store = Arc::new(Gate::default());
        let vault = Vault::init(store.clone(), keys(), &*host.world().entropy).await.unwrap();
        Site { host, store, vault }
    }

    async fn start(&self) -> ProcessServer {
        let settings = PsSettings::new(Endpoint::Tcp("ps".to_owned(), 0), "ps");
        ProcessServer::start(settings, self.host.world(), self.store.clone(), keys()).await.unwrap()
    }

    /// Returns sector `lba` as the newest point, or the head, has it.
    async fn sector(&self, lba: u64) -> Bytes {
        let reader = MachineReader::open(&self.vault, MACHINE).await.unwrap();
        reader.head_view().read(VOLUME, Extent::new(lba, 1)).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn batches_become_recovery_points_with_equal_bytes() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, welcome) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!((welcome.staged, welcome.exact), (stream.at, false));
    session.send_batch(&stream.opening()).await;
    session.send_batch(&stream.batch(vec![write(0, 0x11, 8), write(100, 0x22, 1), marker(1)])).await;
    session.send_batch(&stream.batch(vec![write(4, 0x33, 2), marker(2)])).await;
    session.vaulted(stream.at.seq).await;
    let reader = MachineReader::open(&site.vault, MACHINE).await.unwrap();
    let points = reader.points();
    assert_eq!(points.len(), 2);
    let mut expected = vec![0x11; 8 * 512];
    let first = reader.view(points[0].id).unwrap();
    assert_eq!(first.read(VOLUME, Extent::new(0, 8)).await.unwrap(), expected);
    expected[4 * 512..6 * 512].fill(0x33);
    let second = reader.view(points[1].id).unwrap();
    assert_eq!(second.read(VOLUME, Extent::new(0, 8)).await.unwrap(), expected);
    let machine = &server.status().machines[&MACHINE];
    assert!(machine.is_connected && machine.vaulted == stream.at && machine.stage_bytes == 0);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_sent_again_is_acknowledged_and_changes_nothing() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    let opening = stream.opening();
    session.send_batch(&opening).await;
    session.staged(stream.at.seq).await;
    session.send_batch(&opening).await;
    session.staged(stream.at.seq).await;
    session.send_batch(&stream.batch(vec![write(0, 1, 1), marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(0).await, vec![1; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_a_fork_and_an_old_generation_are_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let at = server.endpoint();
    let mut stream = Stream::new(stream_key());
    stream.generation = Generation(5);
    let (mut session, _) = Session::welcomed(&site.host, &at, &stream).await;
    session.send_batch(&stream.opening()).await;
    session.staged(stream.at.seq).await;
    let begin = stream.at;
    stream.batch(vec![write(0, 1, 1)]);
    session.send_batch(&stream.batch(vec![write(1, 1, 1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Gap);
    stream.at = begin;
    stream.at.chain = other_chain();
    let (mut session, _) = Session::welcomed(&site.host, &at, &stream).await;
    session.send_batch(&stream.batch(vec![write(0, 1, 1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fork);
    stream.generation = Generation(4);
    assert_eq!(Session::refused(&site.host, &at, &stream).await.0, RefusedReason::OldGeneration);
    server.stop().await;
    // The generation survives the loss of everything that was not synced.
    site.host.files.cut_power();
    let server = site.start().await;
    let refused = Session::refused(&site.host, &server.endpoint(), &stream).await;
    assert_eq!(refused.0, RefusedReason::OldGeneration);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_stream_key_and_a_wrong_vault_key_are_named() {
    let site = Site::new().await;
    let server = site.start().await;
    let wrong = Stream::new(StreamKey::new([1; 32]));
    let (reason, detail) = Session::refused(&site.host, &server.endpoint(), &wrong).await;
    assert_eq!(reason, RefusedReason::WrongKey);
    assert!(detail.contains("key"), "{detail}");
    assert!(server.status().machines.is_empty(), "CN-1: an unproven hello leaves no trace");
    server.stop().await;
    let settings = PsSettings::new(Endpoint::Tcp("ps".to_owned(), 0), "ps");
    let other = VaultKeys::new([4; 32]);
    let started = ProcessServer::start(settings, site.host.world(), site.store.clone(), other).await;
    assert!(matches!(started, Err(PsError::Vault(_))));
}

#[tokio::test(start_paused = true)]
async fn staged_data_survives_a_crash_and_a_power_cut_and_reaches_the_vault() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1), marker(1)])).await;
    session.send_batch(&stream.batch(vec![write(10, 0x55, 1)])).await;
    session.staged(stream.at.seq).await;
    drop(server);
    site.host.files.cut_power();
    site.store.close(false);
    let server = site.start().await;
    let (mut session, welcome) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!((welcome.staged, welcome.exact), (stream.at, true));
    assert!(welcome.vaulted.seq < stream.at.seq);
    session.vaulted(stream.at.seq).await;
    session.send_batch(&stream.batch(vec![write(11, 0x66, 1), marker(2)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(9).await, vec![0x44; 512]);
    assert_eq!(site.sector(10).await, vec![0x55; 512]);
    assert_eq!(site.sector(11).await, vec![0x66; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_stage_without_an_agent_reaches_the_vault() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1), marker(1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.store.close(false);
    let server = site.start().await;
    let mut rounds = 0;
    while server.status().machines.get(&MACHINE).is_none_or(|machine| machine.vaulted != stream.at) {
        // Paused time: each round lets every task run until it waits for a later moment.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        rounds += 1;
        assert!(rounds < 600, "{:?}", server.status());
    }
    assert_eq!(MachineReader::open(&site.vault, MACHINE).await.unwrap().points().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_loss_of_the_stage_the_welcome_shows_what_the_vault_holds() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    let vaulted = stream.at;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.host.files.lose_everything();
    site.store.close(false);
    let server = site.start().await;
    let (mut session, welcome) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!((welcome.staged, welcome.vaulted, welcome.exact), (vaulted, vaulted, true));
    // A resync may jump over what was lost.
    let begin = Change::ResyncBegin { reason: ResyncReason::StageLost };
    session.send_batch(&stream.batch(vec![begin, write(9, 0x77, 1), Change::ResyncEnd, marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(9).await, vec![0x77; 512]);
}

#[tokio::test(start_paused = true)]
async fn damage_in_the_middle_of_the_stage_hides_what_lies_behind_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(1, 1, 1)])).await;
    let good = stream.at;
    session.send_batch(&stream.batch(vec![write(2, 2, 8)])).await;
    let lost = stream.at.seq;
    session.send_batch(&stream.batch(vec![write(3, 3, 1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    let name = site.host.files.names().into_iter().find(|name| name.starts_with("stage-")).unwrap();
    site.host.files.tamper(&name, |bytes| {
        // Within the middle batch of 8 sectors: before the last one of 1 sector.
        let at = bytes.len() - 1500;
        bytes[at] ^= 1;
    });
    site.store.close(false);
    let server = site.start().await;
    let (mut session, welcome) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!(welcome.staged, good);
    assert!(good.seq < lost);
    stream.at = good;
    session.send_batch(&stream.batch(vec![write(2, 5, 8), marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(1).await, vec![1; 512]);
    assert_eq!(site.sector(2).await, vec![5; 512]);
    assert_eq!(site.sector(3).await, vec![5; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_full_stage_ends_the_session_and_serves_again_when_there_is_room() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.staged(stream.at.seq).await;
    let before = stream.at;
    site.host.files.set_room(Some(200));
    let batch = stream.batch(vec![write(0, 9, 64), marker(1)]);
    session.send_batch(&batch).await;
    assert_eq!(session.refusal().await, RefusedReason::StageFailed);
    assert_eq!(Session::refused(&site.host, &server.endpoint(), &stream).await.0, RefusedReason::StageFailed);
    site.host.files.set_room(None);
    let mut session = loop {
        match Session::open(&site.host, &server.endpoint(), &stream).await {
            (session, Message::Welcome(welcome)) => {
                assert_eq!(welcome.staged, before);
                break session;
            }
            (_, Message::Refused { reason: RefusedReason::StageFailed, .. }) => {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            (_, answer) => panic!("{answer:?}"),
        }
    };
    session.send_batch(&batch).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(63).await, vec![9; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_writer_fences_the_machine() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap();
    session.send_batch(&stream.batch(vec![write(0, 9, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fenced);
    assert_eq!(Session::refused(&site.host, &server.endpoint(), &stream).await.0, RefusedReason::Fenced);
    assert!(server.status().machines[&MACHINE].is_fenced);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_vault_is_waited_out_while_the_stage_fills() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    site.store.close(true);
    for round in 0..50 {
        session
            .send_batch(&stream.batch(vec![write(round, round as u8, 1), marker(u128::from(round))]))
            .await;
        session.staged(stream.at.seq).await;
        session.send(&Message::Ping(round)).await;
    }
    site.store.close(false);
    session.vaulted(stream.at.seq).await;
    assert_eq!(MachineReader::open(&site.vault, MACHINE).await.unwrap().points().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn digests_show_everything_up_to_the_sequence_asked_for() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.send_batch(&stream.batch(vec![write(128, 0x12, 128)])).await;
    let after = stream.at.seq;
    let request = HashRequest { id: 4, volume: VOLUME, extent: Extent::new(0, SECTORS), after };
    let reply = session.hashes(request).await;
    assert!(reply.id == 4 && reply.as_of >= after);
    let written = *blake3::hash(&[0x12; 65536]).as_bytes();
    let mut expected = vec![None; (SECTORS / 128) as usize];
    expected[1] = Some(written);
    assert_eq!(reply.blocks, expected);
    let crooked = HashRequest { id: 5, volume: VOLUME, extent: Extent::new(1, 8), after: WriteSeq(0) };
    session.send(&Message::HashRequest(crooked)).await;
    assert_eq!(session.refusal().await, RefusedReason::Protocol);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_vault_refuses_costs_a_resync_and_nothing_more() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    let (mut session, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    session.send_batch(&stream.opening()).await;
    session.vaulted(stream.at.seq).await;
    let good = stream.at;
    // Beyond the volume's end.
    session.send_batch(&stream.batch(vec![write(SECTORS, 1, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::StageFailed);
    stream.at = good;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let (mut session, welcome) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!(welcome.staged, good);
    session.send_batch(&stream.batch(vec![write(0, 8, 1), marker(2)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(0).await, vec![8; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_replaces_the_older_one_and_silence_ends_it() {
    let site = Site::new().await;
    let server = site.start().await;
    let stream = Stream::new(stream_key());
    let (mut older, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    let (mut newer, _) = Session::welcomed(&site.host, &server.endpoint(), &stream).await;
    assert_eq!(older.refusal().await, RefusedReason::Replaced);
    assert_eq!(older.receive().await, None);
    newer.send(&Message::Ping(3)).await;
    assert_eq!(newer.receive().await, Some(Message::Pong(3)));
    assert_eq!(newer.receive().await, None, "silence ends the session");
    assert!(!server.status().machines[&MACHINE].is_connected);
}
