//! What is accepted, refused and answered in a session.

use crate::site::{Begun, Site, stream_key};
use crate::support::agent::{MACHINE, SECTORS, Stream, VOLUME, marker, other_chain, write};
use redoubt_core::message::{HashRequest, Message, RefusedReason};
use redoubt_core::{Extent, Generation, WriteSeq};
use redoubt_ports::Endpoint;
use redoubt_roles::process_server::{ProcessServer, PsError, PsSettings};
use redoubt_vault::{MachineReader, VaultKeys};
use redoubt_wire::StreamKey;

#[tokio::test(start_paused = true)]
async fn batches_become_recovery_points_with_equal_bytes() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
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
    let Begun { site, server: _server, mut stream, mut session } = Begun::new().await;
    let batch = stream.batch(vec![write(0, 7, 1)]);
    for _ in 0..2 {
        session.send_batch(&batch).await;
        session.staged(stream.at.seq).await;
    }
    session.send_batch(&stream.batch(vec![write(0, 1, 1), marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(0).await, vec![1; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_a_fork_and_an_old_generation_are_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let mut stream = Stream::new(stream_key());
    stream.generation = Generation(5);
    let (mut session, _) = site.welcomed(&server, &stream).await;
    session.send_batch(&stream.opening()).await;
    session.staged(stream.at.seq).await;
    let begin = stream.at;
    stream.batch(vec![write(0, 1, 1)]);
    session.send_batch(&stream.batch(vec![write(1, 1, 1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Gap);
    stream.at = begin;
    stream.at.chain = other_chain();
    let (mut session, _) = site.welcomed(&server, &stream).await;
    session.send_batch(&stream.batch(vec![write(0, 1, 1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fork);
    stream.generation = Generation(4);
    assert_eq!(site.refused(&server, &stream).await.0, RefusedReason::OldGeneration);
    server.stop().await;
    // The generation survives the loss of everything that was not synced.
    site.host.files.cut_power();
    let server = site.start().await;
    assert_eq!(site.refused(&server, &stream).await.0, RefusedReason::OldGeneration);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_stream_key_and_a_wrong_vault_key_are_named() {
    let site = Site::new().await;
    let server = site.start().await;
    let wrong = Stream::new(StreamKey::new([1; 32]));
    let (reason, detail) = site.refused(&server, &wrong).await;
    assert_eq!(reason, RefusedReason::WrongKey);
    assert!(detail.contains("key"), "{detail}");
    assert!(server.status().machines.is_empty(), "PC-1: an unproven hello leaves no trace");
    server.stop().await;
    let settings = PsSettings::new(Endpoint::Tcp("ps".to_owned(), 0), "ps");
    let other = VaultKeys::new([4; 32]);
    let started = ProcessServer::start(settings, site.host.world(), site.store.clone(), other).await;
    assert!(matches!(started, Err(PsError::Vault(_))));
}

#[tokio::test(start_paused = true)]
async fn digests_show_everything_up_to_the_sequence_asked_for() {
    let Begun { server: _server, mut stream, mut session, .. } = Begun::new().await;
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
async fn a_newer_session_replaces_the_older_one_and_silence_ends_it() {
    let Begun { site, server, stream, session: mut older } = Begun::new().await;
    let (mut newer, _) = site.welcomed(&server, &stream).await;
    assert_eq!(older.refusal().await, RefusedReason::Replaced);
    assert_eq!(older.receive().await, None);
    newer.send(&Message::Ping(3)).await;
    assert_eq!(newer.receive().await, Some(Message::Pong(3)));
    assert_eq!(newer.receive().await, None, "silence ends the session");
    assert!(!server.status().machines[&MACHINE].is_connected);
}
