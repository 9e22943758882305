//! The vault's bad days: an outage, and a batch that it cannot take.

use crate::site::Begun;
use crate::support::agent::{MACHINE, SECTORS, marker, write};
use redoubt_core::message::{Message, RefusedReason};

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_vault_is_waited_out_while_the_stage_fills() {
    let Begun { site, server: _server, mut stream, mut session } = Begun::new().await;
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
    assert_eq!(site.points().await, 50);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_vault_refuses_costs_a_resync_and_nothing_more() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let good = stream.at;
    // Beyond the volume's end.
    session.send_batch(&stream.batch(vec![write(SECTORS, 1, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::StageFailed);
    stream.at = good;
    let (mut session, welcome) = site.welcomed_after(&server, &stream, RefusedReason::StageFailed).await;
    assert_eq!(welcome.staged, good);
    session.send_batch(&stream.batch(vec![write(0, 8, 1), marker(2)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(0).await, vec![8; 512]);
}

/// A full store is the vault's trouble: the stage keeps what it has, and nobody is refused.
#[tokio::test(start_paused = true)]
async fn a_full_store_is_waited_out_while_the_stage_fills() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    site.store.fill(true);
    for round in 0..50 {
        session
            .send_batch(&stream.batch(vec![write(round, round as u8, 1), marker(u128::from(round))]))
            .await;
        session.staged(stream.at.seq).await;
        session.send(&Message::Ping(round)).await;
    }
    let told = server.status().machines[&MACHINE].last_error.clone();
    assert!(told.is_some_and(|told| told.contains("the store is full")));
    site.store.fill(false);
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.points().await, 50);
}
