//! A maintainer alone beside that of a process server: one of them does the work.

use crate::site::{Begun, Site};
use crate::support::agent::{MACHINE, marker, write};
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, Lba, Record, Sectors, VolumeId, VolumeIndex, WriteSeq,
};
use redoubt_roles::maintainer::{Keeper, MaintainerEvent, Means, Tended, maintain};
use redoubt_vault::{MachineReader, MachineWriter, MaintainerSettings};
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

/// Records 1 to `to` of a history.
fn records(to: u64) -> Vec<Record> {
    let (volume, id, sectors) = (VolumeIndex(0), VolumeId(9), Sectors(4096));
    let change = |seq| match seq {
        1 => Change::Attach { volume, id, sectors },
        2 => Change::ResyncBegin { reason: ResyncReason::Initial },
        _ => Change::Write { volume, lba: Lba(seq), payload: vec![seq as u8; 512].into() },
    };
    (1..=to).map(|seq| Record { seq: WriteSeq(seq), change: change(seq) }).collect()
}

/// A writer of its own commits records one by one.
async fn write_log(site: &Site, to: u64) {
    let entropy = site.host.world().entropy;
    let mut writer = MachineWriter::claim(&site.vault, MACHINE, entropy).await.unwrap();
    for seq in writer.head().position.seq.0 + 1..=to {
        let at =
            BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([seq as u8; 32]) };
        writer.commit(records(seq), at).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_maintainer_alone_goes_on_with_an_old_copy_that_took_the_place_of_its_vault() {
    let site = Site::new().await;
    write_log(&site, 40).await;
    let copy = site.store.copy();
    write_log(&site, 80).await;
    let other = site.another().await;
    let (stop, stopped) = watch::channel(false);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let mut tell = move |event: MaintainerEvent<'_>| tells.lock().unwrap().push(format!("{event:?}"));
    let settings = MaintainerSettings { every: EVERY, ..MaintainerSettings::default() };
    let running = maintain(other.vault.clone(), Vec::new(), means(&other), settings, stopped, &mut tell);
    let story = async {
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(reader(&site).await.covered() > 70, "it maintains");
        site.store.restore(copy);
        // Of another life: with keys and claims of its own under the same numbers.
        for to in [60, 80, 100, 120] {
            write_log(&site, to).await;
            tokio::time::sleep(Duration::from_secs(25)).await;
        }
        let (covered, slot) = (reader(&site).await.covered(), reader(&site).await.slot());
        assert!(covered + EVERY + 1 >= slot, "it goes on: {covered} of {slot}: {:?}", told.lock().unwrap());
        stop.send(true).unwrap();
    };
    tokio::join!(running, story);
    let told = told.lock().unwrap();
    assert!(told.iter().any(|told| told.contains("Failed")), "it is told: {told:?}");
}
