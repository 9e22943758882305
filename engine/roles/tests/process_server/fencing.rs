//! Two process servers and one log: the one the agent talks to writes it (RC-7).

use crate::site::Begun;
use crate::support::agent::{MACHINE, Session, marker, write};
use redoubt_core::message::RefusedReason;
use redoubt_roles::process_server::ProcessServer;
use redoubt_vault::MachineWriter;

fn is_fenced(server: &ProcessServer) -> bool {
    server.status().machines[&MACHINE].is_fenced
}

#[tokio::test(start_paused = true)]
async fn a_newer_writer_fences_the_machine_until_the_agent_comes_again() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap();
    session.send_batch(&stream.batch(vec![write(0, 9, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fenced);
    assert!(is_fenced(&server));
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!(welcome.staged, stream.at, "what was staged continues the vault: it is kept");
    session.vaulted(stream.at.seq).await;
    assert!(!is_fenced(&server));
    assert_eq!(site.sector(0).await, vec![9; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_server_stays_fenced_until_the_agent_comes() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let other = MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap();
    session.send_batch(&stream.batch(vec![write(0, 9, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fenced);
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert!(is_fenced(&server));
    let next = MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap();
    assert_eq!(next.epoch(), other.epoch() + 1, "nobody claimed in between");
}

#[tokio::test(start_paused = true)]
async fn an_old_generation_does_not_take_the_log_back() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap();
    session.send_batch(&stream.batch(vec![write(0, 9, 1), marker(1)])).await;
    assert_eq!(session.refusal().await, RefusedReason::Fenced);
    stream.generation.0 -= 1;
    assert_eq!(site.refused(&server, &stream).await.0, RefusedReason::OldGeneration);
    assert!(is_fenced(&server));
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_another_server_overtook_is_given_up() {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    site.store.close(true);
    let begin = stream.at;
    session.send_batch(&stream.batch(vec![write(0, 1, 1)])).await;
    session.staged(stream.at.seq).await;
    // The agent goes on elsewhere, with what the first server has not vaulted and more.
    stream.at = begin;
    let elsewhere = site.another().await;
    let second = elsewhere.start().await;
    let (mut session, welcome) = elsewhere.welcomed(&second, &stream).await;
    assert_eq!(welcome.staged, begin);
    session.send_batch(&stream.batch(vec![write(0, 2, 1), write(1, 2, 1), marker(1)])).await;
    session.vaulted(stream.at.seq).await;
    // The stale commit meets the claim of the second server.
    site.store.close(false);
    crate::site::until("the first server is fenced", || is_fenced(&server)).await;
    let (mut session, welcome) = site.welcomed(&server, &stream).await;
    assert_eq!((welcome.staged, welcome.vaulted, welcome.exact), (stream.at, stream.at, true));
    session.send_batch(&stream.batch(vec![write(2, 3, 1), marker(2)])).await;
    session.vaulted(stream.at.seq).await;
    assert_eq!(server.status().machines[&MACHINE].stage_bytes, 0);
    assert_eq!([site.sector(0).await, site.sector(2).await], [vec![2; 512], vec![3; 512]]);
}

/// The agent moves `rounds` times; each move must be served at once.
async fn wander(rounds: u32) -> u64 {
    let Begun { site, server, mut stream, mut session } = Begun::new().await;
    let elsewhere = site.another().await;
    let second = elsewhere.start().await;
    for round in 0..rounds {
        let (place, server) = if round % 2 == 0 { (&elsewhere, &second) } else { (&site, &server) };
        let welcome;
        (session, welcome) = place.welcomed(server, &stream).await;
        assert_eq!((welcome.staged, welcome.vaulted), (stream.at, stream.at), "round {round}");
        session
            .send_batch(
                &stream.batch(vec![write(u64::from(round), round as u8, 1), marker(u128::from(round) + 9)]),
            )
            .await;
        session.vaulted(stream.at.seq).await;
    }
    assert_eq!(site.points().await, rounds as usize);
    let last: Session = session;
    drop(last);
    MachineWriter::claim(&site.vault, MACHINE, site.host.world().entropy).await.unwrap().epoch()
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_wanders_is_served_everywhere_from_what_the_vault_holds() {
    let claims = wander(7).await;
    assert_eq!(claims, 1 + 7 + 1, "one claim for each move, and the test's own");
}
