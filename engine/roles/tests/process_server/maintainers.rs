//! A maintainer alone beside that of a process server: one of them does the work.

use crate::site::{Begun, Site};
use crate::support::agent::{MACHINE, marker, write};
use redoubt_roles::maintainer::{Keeper, MaintainerEvent, Means, Tended, maintain};
use redoubt_vault::{MachineReader, MaintainerSettings};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Slots that make a round worth its puts, here.
const EVERY: u64 = 4;

async fn begun() -> Begun {
    let site = Site::new().await;
    let mut settings = site.settings();
    settings.index_slots = EVERY;
    Begun::with(site, settings).await
}

fn means(site: &Site) -> Means {
    let world = site.host.world();
    Means { clock: world.clock, entropy: world.entropy }
}

async fn commit(begun: &mut Begun, slots: u64) {
    for round in 0..slots {
        let batch = begun.stream.batch(vec![write(round, 1, 1), marker(u128::from(round))]);
        begun.session.send_batch(&batch).await;
        begun.session.vaulted(begun.stream.at.seq).await;
    }
}

async fn reader(site: &Site) -> MachineReader {
    MachineReader::open(&site.vault, MACHINE).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_claimed_last_maintains_and_who_stands_still_is_replaced() {
    let mut begun = begun().await;
    commit(&mut begun, 20).await;
    assert!(reader(&begun.site).await.covered() > 0, "the server maintains");
    let other = begun.site.another().await;
    let settings = MaintainerSettings { every: EVERY, ..MaintainerSettings::default() };
    let mut alone = Keeper::new(other.vault.clone(), MACHINE, means(&other), settings);
    while alone.tend(reader(&other).await.slot() - 1).await.unwrap() != Tended::Idle {}
    // The server learns that it is superseded when it wants to publish; both may then be behind for a round.
    commit(&mut begun, 20).await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(alone.tend(reader(&other).await.slot() - 1).await.unwrap());
    }
    assert!(all.iter().any(|tended| matches!(tended, Tended::Wrote(_))), "{all:?}");
    assert_eq!(all.last(), Some(&Tended::Idle), "{all:?}");
    let covered = reader(&begun.site).await.covered();
    // Nobody calls upon the other any more.
    commit(&mut begun, 100).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(reader(&begun.site).await.covered() > covered + 50, "the server took the work back");
    let mut tended = alone.tend(reader(&other).await.slot() - 1).await.unwrap();
    if tended == Tended::Idle {
        commit(&mut begun, EVERY + 1).await;
        tended = alone.tend(reader(&other).await.slot() - 1).await.unwrap();
    }
    assert!(matches!(tended, Tended::Superseded(_)), "{tended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_maintainer_alone_keeps_every_machine_of_a_vault_in_order_until_it_is_stopped() {
    let site = Site::new().await;
    let mut settings = site.settings();
    settings.index_slots = 1 << 40;
    let mut begun = Begun::with(site, settings).await;
    commit(&mut begun, 70).await;
    assert_eq!(reader(&begun.site).await.covered(), 0, "the server leaves it alone");
    let other = begun.site.another().await;
    let (stop, stopped) = watch::channel(false);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let mut tell = move |event: MaintainerEvent<'_>| tells.lock().unwrap().push(format!("{event:?}"));
    let settings = MaintainerSettings::default();
    let running = maintain(other.vault.clone(), Vec::new(), means(&other), settings, stopped, &mut tell);
    let waiting = async {
        tokio::time::sleep(Duration::from_secs(25)).await;
        stop.send(true).unwrap();
    };
    tokio::join!(running, waiting);
    assert!(reader(&begun.site).await.covered() >= 64);
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("Wrote"), "{told:?}");
}
