//! Bytes of the agent's durable record, and what an agent does with what it finds at its start.
//!
//! Two slots of [`SLOT_BYTES`] in one file, written in turn (slot = counter mod 2) and synced each
//! time, so that a torn write damages only the slot that is being replaced. A write that failed is
//! repeated with the same counter. At the first start both slots are written before anything else
//! happens; a damaged slot beside an empty one therefore means that the first start never completed,
//! unless a spill or an activity log says otherwise. Every other start that is not clean also writes
//! both slots before it goes on: a slot that rots later is then at most one step ahead of the other.
//!
//! | bytes | content (all numbers LE) |
//! |---|---|
//! | 0..8 | magic `RDBAGST1` |
//! | 8..16 | counter of the write |
//! | 16..32 | machine id |
//! | 32..40, 40..48, 48..56 | generation, last issued sequence, end of the reserved block |
//! | 56, 57, 58..60 | clean stop (0/1), flags (bit 0 resync open, bit 1 compare all, bit 2 first copy not complete), number of volumes |
//! | 60..108, 108..156, 156..204 | sealed, staged, vaulted position: generation, sequence, chain |
//! | 204.. | per volume 60 bytes: index (2), flags (2: bit 0 = fingerprint known), id (16), sectors (8), fingerprint (32) |
//! | 8 before the last 32 | number of the marks |
//! | last 32 | BLAKE3 over everything before |
//!
//! Invariants
//! - AS-1 For every combination of findings exactly one row of the table `ROWS` matches.
//! - AS-2 Each start that is not clean gets a larger generation (ID-2).
//! - AS-3 When in doubt, refuse: no row guesses that a non-empty history is not there.
//! - AS-4 A record steps at most one generation and one reserved block beyond the record before it;
//!   a start from the older slot therefore skips one of each (ID-1, ID-2).
//!
//! What is *not* here: the file, the extent map's log ([`crate::extent_log`]).

use crate::extent_log::{LogError, LogImage};
use crate::extent_map::StartMarks;
use crate::ids::{BatchPosition, Chain, Generation, MachineId, VolumeId, VolumeIndex, WriteSeq};
use crate::planted::{self, Bug};
use crate::sequencer::RESERVE_BLOCK;
use crate::units::Sectors;
use thiserror::Error;

/// Bytes of one slot; the second begins here.
pub const SLOT_BYTES: usize = 16 << 10;
/// Volumes of one machine; keeps the record inside a slot.
pub const VOLUMES_MAX: usize = 256;

const MAGIC: &[u8; 8] = b"RDBAGST1";
const FIXED: usize = 204;
const PER_VOLUME: usize = 60;
const SUM_AT: usize = SLOT_BYTES - 32;
const MARKS_AT: usize = SUM_AT - 8;

/// One volume as the agent last knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Ordinal in the stream.
    pub index: VolumeIndex,
    /// Lasting identity.
    pub id: VolumeId,
    /// Size.
    pub sectors: Sectors,
    /// Cheap digest of the content, taken at a clean stop.
    pub fingerprint: Option<[u8; 32]>,
}

/// What the agent must know after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// Machine that owns the directory.
    pub machine: MachineId,
    /// Generation of the stream.
    pub generation: Generation,
    /// Last sequence issued; exact only after a clean stop.
    pub issued: WriteSeq,
    /// No sequence beyond this one was ever issued.
    pub reserved_until: WriteSeq,
    /// Written by a clean stop: memory spilled, disks flushed.
    pub is_clean: bool,
    /// A resync was open; it goes on after the restart.
    pub is_resync_open: bool,
    /// The first copy of some volume is not complete in the vault.
    pub is_initial: bool,
    /// An activity log may lack marks: a start from this record compares everything, whatever else
    /// it says (see [`crate::extent_map::ExtentMap::must_compare_all`]).
    pub must_compare_all: bool,
    /// Number of the marks in the activity logs. Those of this number and of later ones may have been
    /// disowned in the vault (see [`crate::agent`], DL-1).
    pub marks_number: u64,
    /// Last batch sealed; exact only after a clean stop.
    pub sealed: BatchPosition,
    /// Last position known to be staged.
    pub staged: BatchPosition,
    /// Last position known to be vaulted.
    pub vaulted: BatchPosition,
    /// Volumes by ordinal, at most [`VOLUMES_MAX`].
    pub volumes: Vec<VolumeRecord>,
}

impl AgentRecord {
    /// The record of a machine that never ran: nothing is protected yet.
    pub fn first(machine: MachineId) -> AgentRecord {
        AgentRecord {
            machine,
            generation: Generation(1),
            issued: WriteSeq(0),
            reserved_until: WriteSeq(0),
            is_clean: true,
            is_resync_open: false,
            is_initial: true,
            must_compare_all: false,
            marks_number: 0,
            sealed: BatchPosition::default(),
            staged: BatchPosition::default(),
            vaulted: BatchPosition::default(),
            volumes: Vec::new(),
        }
    }

    /// Returns how the extent map of a volume starts, given its activity log and whether the start's
    /// decision names the volume as changed. Only a record of a clean stop makes a clean start.
    pub fn start_marks(&self, is_changed: bool, log: Result<LogImage, LogError>) -> StartMarks {
        match log {
            Ok(image) if !self.must_compare_all && !is_changed => {
                if self.is_clean && !self.is_resync_open && image.pages_damaged == 0 {
                    StartMarks::Clean { image, issued: self.issued }
                } else {
                    StartMarks::CompareMarked(image)
                }
            }
            _ => StartMarks::CompareAll,
        }
    }
}

/// What a slot holds.
#[expect(clippy::large_enum_variant, reason = "two values per start of an agent")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Never written: all zeros or not there.
    Empty,
    /// Written, but does not read back.
    Damaged,
    /// The record, with the counter of its write.
    Valid(u64, AgentRecord),
}

/// Encodes one slot; it goes to offset `counter % 2 * SLOT_BYTES`. Durable after a sync.
pub fn encode_slot(counter: u64, record: &AgentRecord) -> Vec<u8> {
    assert!(record.volumes.len() <= VOLUMES_MAX, "a machine has at most {VOLUMES_MAX} volumes");
    let mut out = Vec::with_capacity(SLOT_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&counter.to_le_bytes());
    out.extend_from_slice(&record.machine.0.to_le_bytes());
    for number in [record.generation.0, record.issued.0, record.reserved_until.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let flags = u8::from(record.is_resync_open)
        | u8::from(record.must_compare_all) << 1
        | u8::from(record.is_initial) << 2;
    out.extend_from_slice(&[u8::from(record.is_clean), flags]);
    out.extend_from_slice(&(record.volumes.len() as u16).to_le_bytes());
    for position in [record.sealed, record.staged, record.vaulted] {
        out.extend_from_slice(&position.generation.0.to_le_bytes());
        out.extend_from_slice(&position.seq.0.to_le_bytes());
        out.extend_from_slice(&position.chain.0);
    }
    for volume in &record.volumes {
        out.extend_from_slice(&volume.index.0.to_le_bytes());
        out.extend_from_slice(&u16::from(volume.fingerprint.is_some()).to_le_bytes());
        out.extend_from_slice(&volume.id.0.to_le_bytes());
        out.extend_from_slice(&volume.sectors.0.to_le_bytes());
        out.extend_from_slice(&volume.fingerprint.unwrap_or_default());
    }
    out.resize(MARKS_AT, 0);
    out.extend_from_slice(&record.marks_number.to_le_bytes());
    let sum = blake3::hash(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn position(bytes: &[u8], at: usize) -> BatchPosition {
    BatchPosition {
        generation: Generation(number(bytes, at)),
        seq: WriteSeq(number(bytes, at + 8)),
        chain: Chain(field(bytes, at + 16)),
    }
}

/// Returns the counter of the next write: it goes to the slot that does not hold the newest record.
pub fn next_counter(a: &Slot, b: &Slot) -> u64 {
    let counter = |slot: &Slot| match slot {
        Slot::Valid(counter, _) => Some(*counter),
        _ => None,
    };
    counter(a).max(counter(b)).map_or(0, |newest| newest + 1)
}

/// Decodes one slot; never panics, whatever the bytes.
pub fn decode_slot(bytes: &[u8]) -> Slot {
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    if bytes.len() != SLOT_BYTES
        || &bytes[..8] != MAGIC
        || blake3::hash(&bytes[..SUM_AT]) != field(bytes, SUM_AT)
    {
        return Slot::Damaged;
    }
    let count = usize::from(u16::from_le_bytes(field(bytes, 58)));
    if count > VOLUMES_MAX {
        return Slot::Damaged;
    }
    let volumes = bytes[FIXED..].chunks_exact(PER_VOLUME).take(count).map(|v| VolumeRecord {
        index: VolumeIndex(u16::from_le_bytes(field(v, 0))),
        id: VolumeId(u128::from_le_bytes(field(v, 4))),
        sectors: Sectors(number(v, 20)),
        fingerprint: (v[2] & 1 == 1).then(|| field(v, 28)),
    });
    let record = AgentRecord {
        machine: MachineId(u128::from_le_bytes(field(bytes, 16))),
        generation: Generation(number(bytes, 32)),
        issued: WriteSeq(number(bytes, 40)),
        reserved_until: WriteSeq(number(bytes, 48)),
        is_clean: bytes[56] == 1,
        is_resync_open: bytes[57] & 1 == 1,
        must_compare_all: bytes[57] & 2 == 2,
        is_initial: bytes[57] & 4 == 4,
        marks_number: number(bytes, MARKS_AT),
        sealed: position(bytes, 60),
        staged: position(bytes, 108),
        vaulted: position(bytes, 156),
        volumes: volumes.collect(),
    };
    Slot::Valid(number(bytes, 8), record)
}

/// What the spill file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spill {
    /// Nothing, or there is no file.
    Empty,
    /// Intact batches.
    Held,
    /// Intact batches up to some place, then damage.
    Damaged,
}

/// A disk as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFact {
    /// Volume it belongs to.
    pub id: VolumeId,
    /// Size now.
    pub sectors: Sectors,
    /// Digest now, computed as at a clean stop.
    pub fingerprint: Option<[u8; 32]>,
}

/// What lies beside the record in the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// What the spill file holds.
    pub spill: Spill,
    /// An activity log of any volume exists, readable or not: a first start was completed once.
    pub has_extent_log: bool,
}

/// What to do at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new machine: write both slots, then `ResyncBegin{Initial}`.
    FirstStart,
    /// Send the spill, then go on; no sequence is burnt.
    CleanResume(AgentRecord),
    /// Send the intact spill, then `ResyncBegin{UncleanStop}` and compare marked extents. The record has
    /// its new generation.
    UncleanStop(AgentRecord),
    /// Send the intact spill, then `ResyncBegin{Untracked}`; compare these volumes whole, the others
    /// where marked. The record has its new generation.
    Untracked(AgentRecord, Vec<VolumeId>),
    /// Do not start.
    Refuse(StartRefused),
}

/// Why an agent does not start; a person must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartRefused {
    /// No slot reads back.
    #[error(
        "the agent's record is damaged; its sequences are unknown. Enrol the machine again in an empty directory"
    )]
    RecordLost,
    /// There is a spill or an activity log but no record.
    #[error(
        "a spill file or an activity log lies here without this agent's record; restore the record, or empty the directory"
    )]
    OrphanedState,
    /// The directory is another machine's.
    #[error("the state directory belongs to machine {0}; give each machine its own directory")]
    OtherMachine(MachineId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    None,
    Lost,
    Foreign,
    Clean,
    Unclean,
}

#[derive(Clone, Copy, Debug)]
struct Facts {
    record: Record,
    spill: Spill,
    has_extent_log: bool,
    disks_same: bool,
}

impl Facts {
    fn has_history(self) -> bool {
        self.spill != Spill::Empty || self.has_extent_log
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    First,
    Orphan,
    Lost,
    Foreign,
    Untracked,
    Clean,
    Unclean,
}

/// A row: when it applies, and what follows.
type Row = (fn(Facts) -> bool, Outcome);

/// The recovery table.
const ROWS: [Row; 7] = [
    (|f| f.record == Record::None && !f.has_history(), Outcome::First),
    (|f| f.record == Record::None && f.has_history(), Outcome::Orphan),
    (|f| f.record == Record::Lost, Outcome::Lost),
    (|f| f.record == Record::Foreign, Outcome::Foreign),
    (|f| matches!(f.record, Record::Clean | Record::Unclean) && !f.disks_same, Outcome::Untracked),
    (|f| f.record == Record::Clean && f.disks_same && f.spill != Spill::Damaged, Outcome::Clean),
    (
        |f| {
            f.disks_same
                && (f.record == Record::Unclean || f.record == Record::Clean && f.spill == Spill::Damaged)
        },
        Outcome::Unclean,
    ),
];

fn changed_volumes(record: &AgentRecord, disks: &[DiskFact]) -> Vec<VolumeId> {
    let known = |id| record.volumes.iter().find(|volume| volume.id == id);
    let is_same = |disk: &DiskFact| {
        known(disk.id).is_some_and(|volume| {
            // The guest changes the content while it runs: a digest counts only after a clean stop.
            let content = !record.is_clean
                || volume.fingerprint.is_none()
                || volume.fingerprint == disk.fingerprint
                || planted::active(Bug::TrustStoppedDisks);
            volume.sectors == disk.sectors && content
        })
    };
    disks.iter().filter(|disk| !is_same(disk)).map(|disk| disk.id).collect()
}

/// Decides how to start from what was found. `disks` are the disks to protect now.
/// The record in the decision is to be written, with [`next_counter`]; after a start that is neither
/// first nor clean in both slots (AS-4), before anything is stamped.
pub fn recover(a: Slot, b: Slot, beside: Beside, machine: MachineId, disks: &[DiskFact]) -> Decision {
    let torn_first = matches!((&a, &b), (Slot::Empty, Slot::Damaged) | (Slot::Damaged, Slot::Empty));
    let any_damaged = a == Slot::Damaged || b == Slot::Damaged;
    let newest = [a, b].into_iter().filter_map(|slot| match slot {
        Slot::Valid(counter, record) => Some((counter, record)),
        _ => None,
    });
    let newest = newest.max_by_key(|(counter, _)| *counter).map(|(_, record)| record);
    let newest = newest.map(|mut record| {
        if any_damaged {
            // The damaged slot may have been newer and relied upon: one write reserves at most one
            // more block and raises the generation at most by one (ID-1, ID-2).
            record.is_clean = false;
            record.reserved_until = WriteSeq(record.reserved_until.0 + RESERVE_BLOCK);
            record.generation = Generation(record.generation.0 + 1);
            // It may have disowned the activity log; a write torn while it did so is as much a reason.
            record.must_compare_all = true;
        }
        // A stop is not clean if marks may be missing.
        record.is_clean &= !record.must_compare_all;
        record
    });
    let kind = match &newest {
        None if any_damaged && !torn_first => Record::Lost,
        None => Record::None,
        Some(record) if record.machine != machine => Record::Foreign,
        Some(record) if record.is_clean => Record::Clean,
        Some(_) => Record::Unclean,
    };
    let changed = newest.as_ref().map(|record| changed_volumes(record, disks)).unwrap_or_default();
    // A volume that is gone changes the set: the stream must say so.
    let is_complete =
        newest.as_ref().is_none_or(|r| r.volumes.iter().all(|v| disks.iter().any(|disk| disk.id == v.id)));
    let Beside { spill, has_extent_log } = beside;
    let facts = Facts { record: kind, spill, has_extent_log, disks_same: changed.is_empty() && is_complete };
    let mut rows = ROWS.iter().filter(|(applies, _)| applies(facts));
    let (_, outcome) = rows.next().expect("AS-1: no row matches");
    assert!(rows.next().is_none(), "AS-1: two rows match {facts:?}");
    let raised = |record: Option<AgentRecord>| {
        let mut record = record.expect("AS-1: this row has a record");
        record.generation = Generation(record.generation.0 + 1);
        record.is_clean = false;
        record
    };
    match outcome {
        Outcome::First => Decision::FirstStart,
        Outcome::Orphan => Decision::Refuse(StartRefused::OrphanedState),
        Outcome::Lost => Decision::Refuse(StartRefused::RecordLost),
        Outcome::Foreign => {
            Decision::Refuse(StartRefused::OtherMachine(newest.expect("AS-1: this row has a record").machine))
        }
        Outcome::Untracked => Decision::Untracked(raised(newest), changed),
        Outcome::Clean => Decision::CleanResume(newest.expect("AS-1: this row has a record")),
        Outcome::Unclean => Decision::UncleanStop(raised(newest)),
    }
}

#[cfg(test)]
mod tests;
