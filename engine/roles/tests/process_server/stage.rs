//! What is staged: crashes, losses, damage, a full directory, and an agent that stays away.

use crate::site::{Begun, until};
use crate::support::agent::{MACHINE, Stream, marker, write};
use redoubt_core::Change;
use redoubt_core::change::ResyncReason;
use redoubt_core::message::RefusedReason;
use redoubt_wire::StreamKey;

#[tokio::test(start_paused = true)]
async fn staged_data_survives_a_crash_and_a_power_cut_and_reaches_the_vault() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1), marker(1)])).await;
    session.send_batch(&stream.batch(vec![write(10, 0x55, 1)])).await;
    session.staged(stream.at.seq).await;
    drop(server);
    site.host.files.cut_power();
    site.store.close(false);
    let server = site.start().await;
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
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
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1), marker(1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.store.close(false);
    let server = site.start().await;
    let status = || server.status().machines.get(&MACHINE).map(|machine| machine.vaulted);
    until("everything staged is vaulted", || status() == Some(stream.at)).await;
    assert_eq!(site.points().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stage_of_another_key_waits_for_that_key_or_for_its_agent() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let others = StreamKey::new([7; 32]);
    let mut settings = site.settings();
    settings.machines.insert(MACHINE, others.clone());
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1), marker(1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.store.close(false);

    let server = site.start_with(settings.clone()).await;
    let told = || server.status().machines.get(&MACHINE).and_then(|machine| machine.last_error.clone());
    until("the stage is of another key", || told().is_some_and(|told| told.contains("another vault key")))
        .await;
    server.stop().await;

    let server = site.start().await;
    let vaulted = || server.status().machines.get(&MACHINE).map(|machine| machine.vaulted);
    until("that key puts it into the vault", || vaulted() == Some(stream.at)).await;
    let vaulted = stream.at;
    let (mut session, _) = site.welcomed(&server, &stream).await;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x55, 1), marker(2)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.store.close(false);

    let server = site.start_with(settings).await;
    let mut stream = Stream::new(others);
    stream.at = vaulted;
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!((welcome.staged, welcome.vaulted), (vaulted, vaulted), "the agent compares what was given up");
    session.send_batch(&stream.batch(vec![write(9, 0x66, 1), marker(3)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(9).await, vec![0x66; 512]);
}

#[tokio::test(start_paused = true)]
async fn after_the_loss_of_the_stage_the_welcome_shows_what_the_vault_holds() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let vaulted = stream.at;
    site.store.close(true);
    session.send_batch(&stream.batch(vec![write(9, 0x44, 1)])).await;
    session.staged(stream.at.seq).await;
    server.stop().await;
    site.host.files.lose_everything();
    site.store.close(false);
    let server = site.start().await;
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!((welcome.staged, welcome.vaulted, welcome.exact), (vaulted, vaulted, true));
    // A resync may jump over what was lost.
    let begin = Change::ResyncBegin { reason: ResyncReason::StageLost };
    session.send_batch(&stream.batch(vec![begin, write(9, 0x77, 1), Change::ResyncEnd, marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(9).await, vec![0x77; 512]);
}

#[tokio::test(start_paused = true)]
async fn damage_in_the_middle_of_the_stage_hides_what_lies_behind_it() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
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
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
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
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let before = stream.at;
    site.host.files.set_room(Some(200));
    let batch = stream.batch(vec![write(0, 9, 64), marker(1)]);
    session.send_batch(&batch).await;
    assert_eq!(session.refusal().await, RefusedReason::StageFailed);
    assert_eq!(site.refused(&server, &stream).await.0, RefusedReason::StageFailed);
    site.host.files.set_room(None);
    let (mut session, welcome) = site.welcomed_after(&server, &stream, RefusedReason::StageFailed).await;
    assert_eq!(welcome.staged, before);
    session.send_batch(&batch).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(63).await, vec![9; 512]);
}
