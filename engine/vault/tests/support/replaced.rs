//! An old copy takes the place of a vault in front of one of a writer's requests, while the store throttles.

use super::model::{MACHINE, Shape, history, position};
use super::replaced_store::{Replaced, Story};
use super::{Seeded, run};
use redoubt_ports::InPlace;
use redoubt_vault::scrub::{Damage, Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, MemStore, Preparer, Vault, VaultError, VaultKeys,
    WriterSettings,
};
use std::sync::Arc;

/// Records that are committed before the story begins, after its second writer claimed, and at all.
const BEFORE: usize = 6;
const ALL: usize = 31;

fn keys() -> VaultKeys {
    VaultKeys::new([5; 32])
}

/// Plays the story. Whatever the copy lacks, what the writer put behind it is nothing that the copy's log cannot
/// follow, but for the slot that was on its way when it came, of which an error told. Tells whether the copy came, and
/// what is wrong with it.
pub(crate) fn nothing_is_put_that_needs_what_is_gone(story: Story) -> Result<bool, String> {
    let dice = Seeded::new(11);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: ALL as u64, wide: false });
    let settings = WriterSettings { inline_bytes: 1 << 10, segment_bytes: 2 << 10, key_units: 9 };
    run(async {
        let new = Arc::new(MemStore::new());
        let store = Replaced::new(&new, story, "/log/");
        let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
        let mut first = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        first.commit(records[..BEFORE].to_vec(), position(BEFORE as u64)).await.unwrap();
        drop(first);
        store.begin();
        let claimed = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await;
        let mut kept = 0;
        let told = match claimed {
            Ok(mut writer) => {
                write(&mut writer, &records, &store, &mut kept).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if !store.is_back() {
            return Ok(false);
        }
        let course = store.end();
        let old = course.old.expect("the copy was made before it came");
        let stray = course.on_its_way.filter(|name| name.as_str().contains("/log/"));
        let stray = stray.filter(|name| told.as_ref().is_err_and(|told| told.contains(name.as_str())));
        if let Some(stray) = stray {
            old.tamper(&stray, None);
        }
        check(&old, kept)
            .await
            .map_err(|what| format!("{story:?}: {what}; the writer ended with {told:?}"))?;
        Ok(true)
    })
}

/// Commits what is left, prepared two at a time; `kept` becomes the last position that was acknowledged and whose slot
/// was put after the copy came.
async fn write(
    writer: &mut MachineWriter,
    records: &[redoubt_core::Record],
    store: &Replaced,
    kept: &mut u64,
) -> Result<(), CommitError> {
    let mut preparer: Preparer = writer.preparer();
    let mut done = BEFORE;
    while done < records.len() {
        let mut prepared = Vec::new();
        for _ in 0..2 {
            done = records.len().min(done + 7);
            prepared.push(preparer.prepare(records[..done].to_vec(), position(done as u64)).await?);
        }
        for commit in &prepared {
            let is_back = store.is_back();
            let committed = writer.publish(commit).await?;
            if is_back {
                *kept = committed.position.seq.0;
            }
        }
    }
    Ok(())
}

/// The copy is whole, its log can be claimed, and it has what was acknowledged behind it.
async fn check(old: &Arc<MemStore>, kept: u64) -> Result<(), String> {
    let told = |error: VaultError| error.to_string();
    let vault = Vault::open(old.clone(), keys()).await.map_err(told)?;
    let scrub = Scrub::with_keys(old.clone(), keys(), Arc::new(InPlace), ScrubSettings::default()).await;
    let scrub = scrub.map_err(|error| error.to_string())?;
    let report = scrub.machine(MACHINE, &ScrubWatch::default()).await.map_err(|error| error.to_string())?;
    // A key whose twin was not put yet takes nothing.
    let takes = |damage: &&Damage| !matches!(damage.takes, Takes::Nothing(_));
    let damage: Vec<&Damage> = report.damage.iter().filter(takes).collect();
    if !damage.is_empty() || !report.lost.is_empty() {
        return Err(format!("{damage:?}"));
    }
    let reader = MachineReader::open(&vault, MACHINE).await.map_err(told)?;
    if reader.head().position.seq.0 < kept {
        return Err(format!("{kept} was acknowledged"));
    }
    MachineWriter::claim(&vault, MACHINE, Seeded::new(1)).await.map_err(told)?;
    Ok(())
}
