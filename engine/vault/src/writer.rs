//! The writer of one machine's log: claim, seal, commit.
//!
//! Invariants
//! - WR-1 Claims are dense and never deleted: epoch e+1 absent after my slot is durable proves that
//!   nobody took over before.
//! - WR-2 A commit succeeds only after (segments durable) -> (slot mine) -> (claim e+1 absent).
//! - WR-3 One slot is in flight; its bytes are kept and put again until the answer is certain.
//! - WR-4 Records at or below the head's position are dropped: delivery may repeat.
//! - WR-5 A record that does not read back is never put.
//! - WR-6 A commit is published only behind the very head it was prepared for.
//! - WR-7 What a slot rests on, the slot before it and the segments that it names, is there right before each attempt to
//!   put it (VS-6), and was there still when it is acknowledged: nothing is acknowledged behind a gap. An old copy may
//!   take a vault's place at any time.
//!
//! What is *not* here: packing and storing segments (`prepare`), which may run ahead of the slots.

use crate::chain::LogTail;
use crate::claims::{Claim, ClaimWatch, take_claim};
use crate::error::{CommitError, VaultError};
use crate::key_ring::{DataKey, KeyRing};
use crate::log::{self, Body, HeadState, Header, Kind};
use crate::names::{self, Role};
use crate::prepare::{Prepared, Preparer, Task, put_segment};
use crate::reader::PointId;
use crate::sealing::SealingKey;
use crate::segment::TARGET_BYTES;
use crate::store::{self, Created, Guarded, Seen};
use crate::vault::Vault;
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{BatchPosition, MachineId, Names, Record};
use redoubt_ports::{Entropy, InPlace, StoreKey, Workers};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A commit whose only segment is at most this goes into its log slot: one put in total.
const INLINE_BYTES_MAX: usize = 4 << 20;
/// Units that one data key seals: 256 TiB of changes. A bound for the sake of having one: each object has a key of
/// its own, so no cipher comes near its limits.
const KEY_UNITS: u64 = 1 << 32;
/// Slots after which a writer looks for a newer data key: one request in as many commits.
const KEY_LOOK_SLOTS: u64 = 64;
/// What that may cost a commit that is durable already; it is looked for again later.
const KEY_LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// How a writer cuts commits into objects. Readers need to know none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// A commit whose only segment has at most so many bytes goes into its log slot.
    pub inline_bytes: usize,
    /// A segment is closed when its units reach this many bytes; larger values than the default
    /// are cut to it, since readers bound what they accept.
    pub segment_bytes: usize,
    /// A data key that sealed so many units is followed by a new one.
    pub key_units: u64,
}

impl Default for WriterSettings {
    fn default() -> WriterSettings {
        let (inline_bytes, segment_bytes) = (INLINE_BYTES_MAX, TARGET_BYTES);
        WriterSettings { inline_bytes, segment_bytes, key_units: KEY_UNITS }
    }
}

/// Slots of older epochs adopted while sealing; an older writer has one slot in flight.
const ADOPT_MAX: u32 = 1024;

/// What a successful commit made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitDone {
    /// Recovery points that exist now and did not before this call, in order.
    pub points: Vec<PointId>,
    /// Newest slot of the log.
    pub slot: u64,
    /// Everything up to here is in the vault: this may be acknowledged as vaulted.
    pub position: BatchPosition,
}

/// How a writer that is busy is told of names.
#[derive(Clone, Debug, Default)]
pub struct Naming(Arc<Mutex<Names>>);

impl Naming {
    /// Says what the machine and its volumes are called from the next commit on.
    pub fn tell(&self, names: Names) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Adds what was told to what the log knows.
    fn add_to(&self, head: &mut HeadState, known: &Names) {
        head.names.clone_from(known);
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let HeadState { names, volumes, .. } = head;
        names.learn(&told, |id| volumes.values().any(|volume| volume.id == id));
    }
}

/// A slot whose outcome is not known yet.
struct Pending {
    bytes: Bytes,
    /// What it rests on.
    rests: Vec<Seen>,
    points: Vec<PointId>,
    /// The tail once the slot is ours.
    after: LogTail,
}

/// The right to write one machine's log, until a newer claim exists.
pub struct MachineWriter {
    vault: Vault,
    machine: MachineId,
    keys: KeyRing,
    key: SealingKey,
    key_units: u64,
    entropy: Arc<dyn Entropy>,
    uuid: u128,
    claim: Claim,
    tail: LogTail,
    preparer: Preparer,
    pending: Option<Pending>,
    /// The newest slot; none in an empty log.
    newest: Option<Seen>,
    /// The newest object that it rests on; once the log is sealed, the seal itself.
    rests: Option<Seen>,
    /// Points whose slot is durable but whose claim check has not succeeded yet.
    unreported: Vec<PointId>,
    /// Why it can commit nothing more.
    over: Option<CommitError>,
    /// The newest slot known to be durable, for whoever follows the log.
    durable: watch::Sender<u64>,
    naming: Naming,
}

impl std::fmt::Debug for MachineWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineWriter({}, epoch {})", self.machine, self.claim.epoch)
    }
}

impl MachineWriter {
    /// Claims the machine with the default settings: see [`MachineWriter::claim_with`].
    pub async fn claim(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
    ) -> Result<MachineWriter, VaultError> {
        MachineWriter::claim_with(vault, machine, entropy, WriterSettings::default()).await
    }

    /// Claims the machine, reads its log and seals it against older writers. On return no older
    /// writer can succeed with a commit. `Fenced` and `Store` errors leave the vault usable;
    /// `NotAdmitted` comes before anything of the machine is touched.
    pub async fn claim_with(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
        settings: WriterSettings,
    ) -> Result<MachineWriter, VaultError> {
        vault.probe_again(&*entropy).await?;
        vault.vouch().await?;
        let uuid = if planted::active(Bug::SealTwiceAlike) { machine.0 } else { entropy.id() };
        let keys = KeyRing::new(vault, machine);
        let key = vault.key_to_seal_with(machine, &*entropy).await?;
        keys.learn(&key);
        let key = SealingKey::new(key);
        let (tail, newest) = LogTail::at_end(vault, machine, &keys).await?;
        let newest = newest.map(|bytes| (seen_slot(vault, machine, tail.slot, &bytes), bytes));
        if let Some((seen, bytes)) = &newest {
            // Found is not durable: its writer may have died before its sync.
            let vouched = vault.store.create_if(std::slice::from_ref(seen), &seen.name, bytes).await?;
            if let Guarded::Gone(gone) = vouched {
                return Err(went_away(gone));
            }
        }
        let (key_units, dice) = (settings.key_units, entropy.clone());
        let claim = take_claim(vault, machine, Role::Writer, uuid, tail.epoch).await?;
        let epoch = claim.epoch;
        let workers = Arc::new(InPlace);
        let (vault, head) = (vault.clone(), tail.head.clone());
        let task =
            Task { vault: vault.clone(), machine, settings, entropy, workers, key: key.clone(), epoch };
        let preparer = Preparer::new(task, head);
        let (pending, unreported, over) = (None, Vec::new(), None);
        let (newest, rests) = (newest.map(|(seen, _)| seen), None);
        let (durable, _) = watch::channel(0);
        let mut writer = MachineWriter {
            vault,
            machine,
            keys,
            key,
            key_units,
            entropy: dice,
            uuid,
            claim,
            tail,
            preparer,
            pending,
            newest,
            rests,
            unreported,
            over,
            durable,
            naming: Naming::default(),
        };
        writer.seal().await?;
        writer.preparer.go_to(&writer.tail.head);
        Ok(writer)
    }

    /// Has segments packed by these workers, instead of in place.
    pub fn with_workers(mut self, workers: Arc<dyn Workers>) -> MachineWriter {
        self.preparer.set_workers(workers);
        self
    }

    /// Makes a preparer that begins at the head: what it prepares is for [`MachineWriter::publish`], in order.
    pub fn preparer(&self) -> Preparer {
        self.preparer.another()
    }

    /// Returns the head after the newest slot that this writer knows to be durable.
    pub fn head(&self) -> &HeadState {
        &self.tail.head
    }

    /// Returns this writer's epoch.
    pub fn epoch(&self) -> u64 {
        self.claim.epoch
    }

    /// Returns this writer's claim, to be looked at while the writer is busy.
    pub fn watch(&self) -> ClaimWatch {
        ClaimWatch { claim: self.claim.clone(), durable: self.durable.subscribe() }
    }

    /// Returns what it is told of names with.
    pub fn naming(&self) -> Naming {
        self.naming.clone()
    }

    /// Returns the newest slot known.
    pub fn slot(&self) -> u64 {
        self.tail.slot
    }

    /// Makes records durable, up to and including `to`, which must be the position of the last one.
    ///
    /// `Ok`: everything up to `to` survives the loss of this host. `Retry`: deliver the same again.
    /// Records may repeat what was committed before. Dropping the future is like a lost reply: call
    /// again on the same writer, or claim anew.
    pub async fn commit(
        &mut self,
        records: Vec<Record>,
        to: BatchPosition,
    ) -> Result<CommitDone, CommitError> {
        self.check_right()?;
        self.settle().await?;
        self.preparer.go_to(&self.tail.head);
        let prepared = self.preparer.prepare(records, to).await?;
        self.publish(&prepared).await
    }

    /// Makes a prepared commit part of the log. Its preparer must have begun at this writer's head, and the
    /// commits that it prepared before must have been published.
    ///
    /// As for [`MachineWriter::commit`]: after `Retry`, or when the future was dropped, publish the same again.
    pub async fn publish(&mut self, commit: &Prepared) -> Result<CommitDone, CommitError> {
        self.check_right()?;
        self.settle().await?;
        self.keep_key().await;
        if self.tail.head.position != commit.head.position {
            if self.tail.head.position != commit.from {
                let (after, found) = (self.tail.head.position.seq, commit.from.seq.next());
                return Err(CommitError::Gap { after, found });
            }
            self.put_in_flight(commit);
            self.settle().await?;
        }
        if let Some(late) = &commit.late {
            let name = names::segment(self.machine, self.claim.epoch, late.uuid);
            put_segment(&self.vault, name, late.bytes.clone()).await?;
        }
        self.confirm().await?;
        let (slot, position) = (self.tail.slot, self.tail.head.position);
        Ok(CommitDone { points: std::mem::take(&mut self.unreported), slot, position })
    }

    /// Encodes the commit's record for the next slot and puts it in flight.
    fn put_in_flight(&mut self, commit: &Prepared) {
        let slot = self.tail.slot + 1;
        let points = (0..commit.points.len()).map(|at| PointId { slot, ordinal: at as u16 }).collect();
        let units: u64 = commit.segments.iter().map(|row| u64::from(row.units)).sum();
        let mut head = commit.head.clone();
        self.naming.add_to(&mut head, &self.tail.head.names);
        let body = Body {
            from: commit.from.seq,
            head,
            points: commit.points.clone(),
            segments: commit.segments.clone(),
            sealed: self.sealed_with(&commit.key) + units,
        };
        let inline = commit.inline.as_deref();
        let bytes =
            Bytes::from(log::encode(&self.header(Kind::Commit, &commit.key), &body, &commit.key.key, inline));
        let mut after = self.tail.clone();
        let read = after.accept(&self.vault, self.machine, &commit.key.key, &bytes);
        assert!(read.is_ok(), "WR-5: a writer reads what it is about to put: {read:?}");
        let rests = self.newest.iter().chain(&commit.stored).cloned().collect();
        self.pending = Some(Pending { bytes, rests, points, after });
    }

    /// Finds out what became of the slot in flight, if there is one (WR-3).
    async fn settle(&mut self) -> Result<(), CommitError> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let name = names::slot(self.machine, self.tail.slot + 1);
        match self.vault.store.create_if(looked_at(&pending.rests), &name, &pending.bytes).await? {
            Guarded::Created(Created::Mine) => {
                let Some(pending) = self.pending.take() else { return Ok(()) };
                self.tail = pending.after;
                self.newest = Some(seen_slot(&self.vault, self.machine, self.tail.slot, &pending.bytes));
                self.rests = store::newest(&pending.rests).cloned();
                self.durable.send_replace(self.tail.slot);
                self.unreported.extend(pending.points);
                Ok(())
            }
            Guarded::Created(Created::Other(found)) => {
                let by = log::peek(&found).map_or(self.claim.epoch + 1, |(header, _)| header.epoch);
                Err(self.end(CommitError::Fenced { by }))
            }
            Guarded::Gone(gone) => {
                // A newer writer's maintainer deletes what no slot names.
                if let Some(by) = self.claim.newer().await? {
                    return Err(self.end(CommitError::Fenced { by }));
                }
                // An attempt before the last one may have put it.
                let slot = seen_slot(&self.vault, self.machine, self.tail.slot + 1, &pending.bytes);
                Err(self.end(self.went_back(gone, Some(&slot)).await))
            }
        }
    }

    /// WR-1, WR-7: looks for a newer claim, and whether what the newest slot rests on is there still. Must start after
    /// everything to be acknowledged is durable.
    async fn confirm(&mut self) -> Result<(), CommitError> {
        // All of it was there before the slot was put, so an old copy that came since lacks the newest.
        let rests = self.vault.store.gone(looked_at(self.rests.as_slice()));
        let (newer, gone) = futures::future::join(self.claim.newer(), rests).await;
        if let Some(by) = newer? {
            return Err(self.end(CommitError::Fenced { by }));
        }
        match gone? {
            None => Ok(()),
            Some(gone) => Err(self.end(self.went_back(gone, self.newest.as_ref()).await)),
        }
    }

    /// The vault is another now; `slot` may lie behind what is gone, or be gone as well.
    async fn went_back(&self, gone: StoreKey, slot: Option<&Seen>) -> CommitError {
        let mut behind = None;
        if let Some(slot) = slot.filter(|slot| slot.name != gone) {
            // Whatever cannot be looked at may be there.
            let is_there = !matches!(self.vault.store.gone(std::slice::from_ref(slot)).await, Ok(Some(_)));
            behind = is_there.then(|| slot.name.to_string());
        }
        CommitError::WentBack { gone: gone.to_string(), behind }
    }

    /// Nothing is committed any more.
    fn end(&mut self, why: CommitError) -> CommitError {
        self.over.insert(why).clone()
    }

    fn check_right(&self) -> Result<(), CommitError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Puts this epoch's seal behind the log, adopting slots that older writers still win.
    async fn seal(&mut self) -> Result<(), VaultError> {
        for _ in 0..ADOPT_MAX {
            if self.tail.epoch >= self.claim.epoch {
                return Err(VaultError::Fenced { by: self.tail.epoch });
            }
            let head = self.tail.head.clone();
            let (points, segments, key) = (Vec::new(), Vec::new(), self.key.now());
            let sealed = self.sealed_with(&key);
            let body = Body { from: head.position.seq, head, points, segments, sealed };
            let bytes = Bytes::from(log::encode(&self.header(Kind::Seal, &key), &body, &key.key, None));
            let name = names::slot(self.machine, self.tail.slot + 1);
            // A copy that has the claim has the data key, which was there before it.
            let rests: Vec<Seen> = self.newest.iter().chain([&self.claim.seen]).cloned().collect();
            let created = self.vault.store.create_if(looked_at(&rests), &name, &bytes).await?;
            let taken = match &created {
                Guarded::Created(Created::Mine) => &bytes,
                Guarded::Created(Created::Other(found)) => found,
                Guarded::Gone(gone) => return Err(went_away(gone)),
            };
            let key = self.tail.key(self.machine, &self.keys, taken).await?;
            self.tail.accept(&self.vault, self.machine, &key, taken)?;
            let seen = seen_slot(&self.vault, self.machine, self.tail.slot, taken);
            self.newest = Some(seen.clone());
            if created == Guarded::Created(Created::Mine) {
                self.durable.send_replace(self.tail.slot);
                if let Some(by) = self.claim.newer().await? {
                    return Err(VaultError::Fenced { by });
                }
                if let Some(gone) = self.vault.store.gone(looked_at(&rests)).await? {
                    return Err(went_away(gone));
                }
                self.rests = Some(seen);
                return Ok(());
            }
        }
        Err(VaultError::ClaimRace)
    }

    /// Goes over to a newer data key, if somebody made one or this one has sealed enough. Whatever goes wrong is
    /// tried again later: the old key is as good.
    async fn keep_key(&mut self) {
        let now = self.key.now();
        let is_used_up = self.tail.dek == now.id && self.tail.sealed >= self.key_units;
        if !is_used_up && !self.tail.slot.is_multiple_of(KEY_LOOK_SLOTS) {
            return;
        }
        let newer = async {
            match self.vault.newer_key_to_seal_with(self.machine, now.id).await {
                Ok(None) if is_used_up => self.vault.next_data_key(self.machine, &*self.entropy).await.ok(),
                found => found.ok().flatten(),
            }
        };
        if let Ok(Some(key)) = tokio::time::timeout(KEY_LOOK_DEADLINE, newer).await {
            self.keys.learn(&key);
            self.key.set(key);
        }
    }

    /// Returns how many units were sealed with the key so far, as the log counts them.
    fn sealed_with(&self, key: &DataKey) -> u64 {
        if self.tail.dek == key.id { self.tail.sealed } else { 0 }
    }

    fn header(&self, kind: Kind, key: &DataKey) -> Header {
        Header {
            vault: self.vault.uuid,
            machine: self.machine,
            slot: self.tail.slot + 1,
            epoch: self.claim.epoch,
            writer: self.uuid,
            kind,
            prev: self.tail.digest,
            dek: key.id,
        }
    }
}

/// A slot as its next one is to see it.
fn seen_slot(vault: &Vault, machine: MachineId, slot: u64, bytes: &Bytes) -> Seen {
    vault.store.seen(names::slot(machine, slot), &bytes[..log::HEADER_BYTES.min(bytes.len())])
}

/// What to look at, unless a planted bug looks at nothing.
fn looked_at(rests: &[Seen]) -> &[Seen] {
    if planted::active(Bug::SkipLookBack) { &[] } else { rests }
}

fn went_away(name: impl ToString) -> VaultError {
    VaultError::damaged(name, "it went away while the log was claimed")
}
