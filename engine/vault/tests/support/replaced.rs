//! An old copy takes the place of a vault in front of one of a writer's requests, while the store throttles.

use super::model::{MACHINE, Shape, history, position};
use super::{Seeded, run};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{InPlace, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::scrub::{Damage, Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, MemStore, Preparer, Vault, VaultError, VaultKeys,
    WriterSettings,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Records that are committed before the story begins, after its second writer claimed, and at all.
const BEFORE: usize = 6;
const ALL: usize = 31;

/// When what happens, in requests of the second writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    /// The copy is made in front of this one,
    pub(crate) copied: usize,
    /// and takes the place in front of this one.
    pub(crate) back: usize,
    /// Each creation is asked for so many times before it is performed.
    pub(crate) refused: usize,
    /// The answer of each slot's creation is lost once.
    pub(crate) is_doubtful: bool,
}

#[derive(Default)]
struct Course {
    /// Nothing happens before the story begins.
    is_on: bool,
    requests: usize,
    /// How often each creation was asked for.
    asked: BTreeMap<StoreKey, usize>,
    old: Option<Arc<MemStore>>,
    /// The creation that was on its way when the copy came.
    on_its_way: Option<StoreKey>,
}

/// A store whose content is another from one request on.
struct Replaced {
    new: Arc<MemStore>,
    story: Story,
    course: Mutex<Course>,
}

impl Replaced {
    /// Counts a request and returns the store that performs it.
    fn meet(&self, creates: Option<&StoreKey>) -> Arc<MemStore> {
        let mut course = self.course.lock().unwrap();
        if !course.is_on {
            return self.new.clone();
        }
        course.requests += 1;
        if course.requests == self.story.copied {
            course.old = Some(copy(&self.new));
        }
        if course.requests == self.story.back {
            course.on_its_way = creates.cloned();
        }
        match &course.old {
            Some(old) if course.requests >= self.story.back => old.clone(),
            _ => self.new.clone(),
        }
    }

    /// Tells how often this creation was asked for before.
    fn asked(&self, key: &StoreKey) -> usize {
        let mut course = self.course.lock().unwrap();
        if !course.is_on {
            return usize::MAX;
        }
        let times = course.asked.entry(key.clone()).or_default();
        *times += 1;
        *times - 1
    }
}

#[async_trait]
impl StoreAround for Replaced {
    fn inner(&self) -> &dyn RawStore {
        &*self.new
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let store = self.meet(Some(key));
        let asked = self.asked(key);
        if asked < self.story.refused {
            return Err(StoreError::Throttled { retry_after: Some(Duration::from_millis(5)) });
        }
        let answer = store.put_if_absent(key, body).await;
        if self.story.is_doubtful && asked == self.story.refused && key.as_str().contains("/log/") {
            return Err(StoreError::Ambiguous("the answer is lost".to_owned()));
        }
        answer
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.meet(None).get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.meet(None).list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.meet(None).delete(key).await
    }
}

fn copy(of: &MemStore) -> Arc<MemStore> {
    let copy = Arc::new(MemStore::new());
    for name in of.names() {
        copy.tamper(&name, of.peek(&name));
    }
    copy
}

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
        let store = Arc::new(Replaced { new, story, course: Mutex::default() });
        let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
        let mut first = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        first.commit(records[..BEFORE].to_vec(), position(BEFORE as u64)).await.unwrap();
        drop(first);
        store.course.lock().unwrap().is_on = true;
        let claimed = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await;
        let mut kept = 0;
        let told = match claimed {
            Ok(mut writer) => {
                write(&mut writer, &records, &store, &mut kept).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let course = std::mem::take(&mut *store.course.lock().unwrap());
        let Some(old) = course.old.filter(|_| course.requests >= story.back) else { return Ok(false) };
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
            let is_back = store.course.lock().unwrap().requests >= store.story.back;
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
