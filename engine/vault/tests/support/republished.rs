//! An old copy takes the place of a vault in front of one of a maintainer's requests, while the store throttles.

use super::model::{MACHINE, Shape, history, position};
use super::old_copy::rounds;
use super::replaced_store::{Course, Replaced, Story, copy};
use super::stranger::{KEY, proof};
use super::{Seeded, run};
use redoubt_core::Record;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::StoreKey;
use redoubt_vault::inspect::{Dump, Inspector, Value};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Vault, VaultError, VaultKeys,
    WriterSettings,
};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// Commits, of one record each, before the story begins, and at all.
const BEFORE: usize = 6;
const ALL: usize = 24;
/// Slots of one version: some have nothing to index.
const EVERY: u64 = 2;
/// Names deleted at once (GD-1).
const AT_ONCE: usize = 8;
/// Calls after the copy came: it is called again, as a process server does.
const AGAIN: usize = 3;

/// What happens to the store without a copy: the requests of these effects.
pub(crate) fn effects(refused: usize, is_doubtful: bool) -> Vec<usize> {
    let story = Story { copied: usize::MAX, back: usize::MAX, refused, is_doubtful };
    let (course, told) = run(play(vault(), story));
    assert_eq!(told, None, "nothing happens to the vault");
    course.effects
}

/// Plays the story: a maintainer claims a machine that another maintained, and follows its log, which grows until the copy
/// comes. Of what it publishes behind the copy there is everything that it rests on, but for the version that was on its
/// way when the copy came. Tells what is wrong with it.
pub(crate) fn nothing_is_published_that_needs_what_is_gone(story: Story) -> Result<(), String> {
    let (course, told) = run(play(vault(), story));
    run(check(course)).map_err(|what| format!("{story:?}: {what}; the maintainer ended with {told:?}"))
}

fn history_of(dice: &Seeded) -> Vec<Record> {
    history(dice, Shape { percent: 0, writers: 1, length: ALL as u64, wide: false })
}

/// A vault of a machine with a log, of which some is folded.
fn vault() -> Arc<MemStore> {
    static VAULT: OnceLock<Arc<MemStore>> = OnceLock::new();
    let make = || {
        let (dice, store) = (Seeded::new(5), Arc::new(MemStore::new()));
        run(async {
            let vault = Vault::init(store.clone(), VaultKeys::new(KEY), &*dice).await.unwrap();
            let (mut writer, records) = (writer(&vault, &dice).await, history_of(&Seeded::new(5)));
            for done in 1..=BEFORE {
                writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
            }
            let mut maintainer = claim(&vault, &dice).await.unwrap();
            rounds(&mut maintainer, writer.slot()).await.unwrap();
        });
        store
    };
    copy(VAULT.get_or_init(make))
}

async fn writer(vault: &Vault, dice: &Arc<Seeded>) -> MachineWriter {
    let settings = WriterSettings { inline_bytes: 1 << 10, segment_bytes: 2 << 10, key_units: u64::MAX };
    MachineWriter::claim_with(vault, MACHINE, dice.clone(), settings).await.unwrap()
}

async fn play(new: Arc<MemStore>, story: Story) -> (Course, Option<VaultError>) {
    let (dice, records) = (Seeded::new(6), history_of(&Seeded::new(5)));
    let store = Replaced::new(&new, story, "/cat/");
    let behind = Vault::open(store.clone(), VaultKeys::new(KEY)).await.unwrap();
    let vault = Vault::open(new, VaultKeys::new(KEY)).await.unwrap();
    let mut writer = writer(&vault, &dice).await;
    store.begin();
    let mut told = None;
    match claim(&behind, &dice).await {
        Err(error) => told = Some(error),
        Ok(mut maintainer) => {
            let (mut done, mut again) = (BEFORE, AGAIN);
            while done < ALL && again > 0 {
                if store.others() {
                    done += 1;
                    writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
                } else {
                    again -= 1;
                }
                told = rounds(&mut maintainer, writer.slot()).await.err().or(told);
            }
        }
    }
    (store.end(), told)
}

async fn claim(vault: &Vault, dice: &Arc<Seeded>) -> Result<Maintainer, VaultError> {
    let keep = Ladder::new(vec![Rule::Newest { count: 3, which: Which::Any }]);
    let of = MaintainerSettings { every: EVERY, keep, ..MaintainerSettings::default() };
    Maintainer::claim(vault, MACHINE, dice.clone(), of).await
}

/// What was published into the copy rests on what is there, and the copy can be maintained and is whole.
async fn check(course: Course) -> Result<(), String> {
    let (old, as_made) = (course.old.expect("it was made"), course.as_made.expect("as well"));
    if let Some(stray) = course.on_its_way.filter(|name| name.as_str().contains("/cat/")) {
        old.tamper(&stray, None);
    }
    // What deletions on their way took is put back.
    if course.taken.len() > AT_ONCE {
        return Err(format!("GD-1: {:?} were deleted", course.taken));
    }
    course.taken.iter().for_each(|name| old.tamper(name, as_made.peek(name)));
    let published: Vec<StoreKey> =
        catalogues(&old).filter(|name| as_made.peek(name) != old.peek(name)).collect();
    for name in &published {
        rests_on_what_is_there(&old, name).await?;
    }
    let vault = Vault::open(old.clone(), VaultKeys::new(KEY)).await.unwrap();
    let mut maintainer = claim(&vault, &Seeded::new(7)).await.map_err(|error| error.to_string())?;
    let slot = MachineReader::open(&vault, MACHINE).await.map_err(|error| error.to_string())?.slot();
    rounds(&mut maintainer, slot).await.map_err(|error| format!("it cannot be maintained: {error}"))?;
    let proof = proof(&old);
    match (&proof.broken, &proof.damage[..], &proof.hits[..]) {
        (None, [], []) => Ok(()),
        found => Err(format!("it is not whole: {found:?}")),
    }
}

fn catalogues(store: &MemStore) -> impl Iterator<Item = StoreKey> {
    store.names().into_iter().filter(|name| name.as_str().contains("/cat/"))
}

/// PB-3, by the format's document: a version needs its maintainer's claim, the slot that it ends with, and all tables and
/// folds that it names.
async fn rests_on_what_is_there(old: &Arc<MemStore>, name: &StoreKey) -> Result<(), String> {
    let inspector = Inspector::new(old.clone(), VaultKeys::new(KEY));
    let dump = inspector.dump(name).await.unwrap().expect("it was listed");
    assert_eq!(dump.findings, [], "{name}");
    let (maintainer, slot) = (number(&dump, "maintainer's epoch"), number(&dump, "slot"));
    let names: BTreeSet<String> = old.names().into_iter().map(|name| name.to_string()).collect();
    let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
    if !ends(&format!("/claim/m/{maintainer:08x}")) {
        return Err(format!("PB-3: {name} is by maintainer {maintainer}, which nobody claimed"));
    }
    if !ends(&format!("/log/{slot:016x}")) {
        return Err(format!("PB-3: {name} covers slot {slot}, which is missing"));
    }
    let named = dump.parts.iter().filter(|part| ["tables", "folds"].contains(&part.title.as_str()));
    for row in named.flat_map(|part| &part.rows) {
        let Value::Text(uuid) = &row[1] else { panic!("{row:?}") };
        if !ends(uuid) {
            return Err(format!("PB-3: {name} names {uuid}, which is missing"));
        }
    }
    Ok(())
}

fn number(dump: &Dump, of: &str) -> u64 {
    let mut fields = dump.parts.iter().flat_map(|part| &part.fields);
    match fields.find(|field| field.name == of).map(|field| &field.value) {
        Some(Value::Number(number)) => *number,
        found => panic!("{of}: {found:?}"),
    }
}
