//! Two commits in flight: the next one's segments are in the store before the slot of the one before it.

use crate::site::{Begun, Site, until};
use crate::support::agent::{MACHINE, marker, write};
use redoubt_core::message::RefusedReason;
use redoubt_vault::{MachineWriter, WriterSettings};

/// Sectors of a write; a batch with one is as large as a commit of these tests may be.
const SECTORS: usize = 16;
const COMMITS: u64 = 6;

/// A server whose commits are one batch each, with its slots kept out while several commits wait.
async fn held_up() -> Begun {
    let site = Site::new().await;
    let mut settings = site.settings();
    settings.commit_bytes_max = SECTORS as u64 * 512;
    settings.objects = WriterSettings { inline_bytes: 0, ..WriterSettings::default() };
    let mut begun = Begun::with(site, settings).await;
    begun.site.store.keep_slots_out(true);
    let before = begun.site.store.segments();
    for number in 0..COMMITS {
        let changes = vec![write(number * 16, number as u8 + 1, SECTORS), marker(u128::from(number))];
        begun.session.send_batch(&begun.stream.batch(changes)).await;
        begun.session.staged(begun.stream.at.seq).await;
    }
    let stored = || begun.site.store.segments() - before;
    until("the segments of two commits", || stored() == 2).await;
    begun
}

async fn shows_all(site: &Site) {
    assert_eq!(site.points().await as u64, COMMITS);
    for number in 0..COMMITS {
        assert_eq!(site.sector(number * 16).await, vec![number as u8 + 1; 512]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_commit_is_prepared_ahead_and_no_more() {
    let Begun { site, server: _server, stream, mut session } = held_up().await;
    let before = site.store.segments();
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(site.store.segments(), before, "the third commit waits for the first one's slot");
    site.store.keep_slots_out(false);
    session.vaulted(stream.at.seq).await;
    shows_all(&site).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_with_a_commit_prepared_ahead_loses_nothing() {
    let Begun { site, server, stream, session } = held_up().await;
    drop((server, session));
    site.store.keep_slots_out(false);
    let server = site.start().await;
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!(welcome.staged, stream.at, "what was staged is staged");
    session.vaulted(stream.at.seq).await;
    shows_all(&site).await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_with_a_commit_prepared_ahead_gives_both_up_until_the_agent_comes() {
    let Begun { site, server, stream, mut session } = held_up().await;
    let elsewhere = site.another().await;
    MachineWriter::claim(&elsewhere.vault, MACHINE, elsewhere.host.world().entropy).await.unwrap();
    site.store.keep_slots_out(false);
    assert_eq!(session.refusal().await, RefusedReason::Fenced);
    assert_eq!(site.points().await, 0, "nothing of a fenced writer is in the log");
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!(welcome.staged, stream.at);
    session.vaulted(stream.at.seq).await;
    shows_all(&site).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_batch_behind_a_commit_in_flight_costs_only_itself() {
    let Begun { site, server, mut stream, mut session } = held_up().await;
    let good = stream.at;
    session.send_batch(&stream.batch(vec![write(1 << 40, 1, SECTORS)])).await;
    session.staged(stream.at.seq).await;
    site.store.keep_slots_out(false);
    assert_eq!(session.refusal().await, RefusedReason::StageFailed);
    stream.at = good;
    let (mut session, welcome) = site.welcomed_after(&server, &stream, RefusedReason::StageFailed).await;
    assert_eq!((welcome.staged, welcome.vaulted), (good, good), "the commits before it ended first");
    shows_all(&site).await;
    session.send_batch(&stream.batch(vec![write(0, 99, 1), marker(99)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(site.sector(0).await, vec![99; 512]);
}
