//! The file that holds sealed batches in order: `.hrl` at the agent, the stage at the process server.
//!
//! Header, 40 bytes: magic (4), version (2), zero (2), machine (16), file number (8), zero (4), CRC-32C
//! of the 36 bytes before (4). Then entries: length (4), CRC-32C of length and batch (4), sealed batch.
//!
//! What a scan finds decides what may be used:
//!
//! | tail | when | used | what follows |
//! |---|---|---|---|
//! | Clean | the last entry ends at the end of the file | all | append goes on |
//! | Torn | the broken entry has no whole entry behind it | all before it | cut there, append goes on |
//! | Damaged | a whole entry lies behind the broken one | all before it | report; the rest is lost, resync |
//!
//! A damaged last entry looks like an unfinished append, so Torn may hide acknowledged data. A durable length
//! in each entry would not help: it names what was synced before that entry, never the entry itself, and a
//! whole entry behind a broken one gives Damaged already; knowing more costs a second sync per acknowledgement.
//! It need not be known here, because a shorter run shows elsewhere. A stage that lost its end says so by the
//! staged position of `Welcome`: the agent, which forgot those batches, still remembers their ranges until
//! they are vaulted, decides Gap and resyncs them (`spool::resume`). A spill that lost its end no longer
//! ends where the record of a clean stop says; after an unclean stop the marked extents are compared anyway.
//!
//! Invariants
//! - BF-1 Entries behind a broken one are never used: order would have a hole.
//!
//! What is *not* here: file names, when to sync (the spool and the receiver), the batch's format.

use crate::ids::MachineId;
use crate::planted::{self, Bug};
use crate::sealed::{SEALED_BYTES_MAX, SEALED_HEADER_BYTES};
use bytes::Bytes;
use thiserror::Error;

/// Magic of the agent's spill file.
pub const SPILL_MAGIC: [u8; 4] = *b"RHRL";
/// Magic of the process server's stage file.
pub const STAGE_MAGIC: [u8; 4] = *b"RSTG";
/// Bytes of the file header.
pub const FILE_HEADER_BYTES: usize = 40;
/// Bytes before each batch.
pub const ENTRY_HEADER_BYTES: usize = 8;

const VERSION: u16 = 1;

/// Encodes the header of a new file.
pub fn file_header(magic: [u8; 4], machine: MachineId, number: u64) -> Bytes {
    let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
    header.extend_from_slice(&magic);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 2]);
    header.extend_from_slice(&machine.0.to_le_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header.into()
}

/// Encodes an entry as two parts; the batch is not copied.
pub fn entry(batch: &Bytes) -> [Bytes; 2] {
    let length = (batch.len() as u32).to_le_bytes();
    let mut head = Vec::with_capacity(ENTRY_HEADER_BYTES);
    head.extend_from_slice(&length);
    head.extend_from_slice(&entry_crc(length, batch).to_le_bytes());
    [head.into(), batch.clone()]
}

fn entry_crc(length: [u8; 4], batch: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), batch)
}

/// Why a file is not used at all. Shorter than its header it never held anything durable. A newer format or
/// another machine's file is for a person to sort out: start nothing, remove nothing. The rest is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// Shorter than its header: it was never synced, so it held nothing durable.
    #[error("the file ends inside its header")]
    Short,
    /// Another kind of file.
    #[error("the file has another magic")]
    Magic,
    /// Written by a newer engine.
    #[error("file format {0} is unknown; this engine reads format 1")]
    Version(u16),
    /// Damaged header.
    #[error("the file header fails its checksum")]
    Checksum,
    /// Another machine's file.
    #[error("the file belongs to machine {0}")]
    OtherMachine(MachineId),
}

/// What lies behind the last usable entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// An append that never finished; cut the file at this offset.
    Torn(u64),
    /// A broken entry at this offset with whole entries behind it: acknowledged data is lost.
    Damaged(u64),
}

/// One usable entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedEntry {
    /// Where the batch starts in the file (behind its entry header).
    pub offset: u64,
    /// The sealed batch, a slice of the file.
    pub bytes: Bytes,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// File number from the header.
    pub number: u64,
    /// Usable entries in order.
    pub entries: Vec<ScannedEntry>,
    /// What lies behind them.
    pub tail: Tail,
}

fn field<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

fn header(file: &[u8], magic: [u8; 4], machine: MachineId) -> Result<u64, FileError> {
    if file.len() < FILE_HEADER_BYTES {
        return Err(FileError::Short);
    }
    let version = u16::from_le_bytes(field(file, 4).ok_or(FileError::Short)?);
    let owner = MachineId(u128::from_le_bytes(field(file, 8).ok_or(FileError::Short)?));
    let number = u64::from_le_bytes(field(file, 24).ok_or(FileError::Short)?);
    let crc = u32::from_le_bytes(field(file, 36).ok_or(FileError::Short)?);
    if file[..4] != magic {
        return Err(FileError::Magic);
    }
    if crc32c::crc32c(&file[..36]) != crc {
        return Err(FileError::Checksum);
    }
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    if owner != machine {
        return Err(FileError::OtherMachine(owner));
    }
    Ok(number)
}

/// Returns the end of the whole entry at this offset.
fn whole_entry(file: &[u8], at: usize) -> Option<usize> {
    let length = field::<4>(file, at)?;
    let crc = u32::from_le_bytes(field(file, at + 4)?);
    let bytes = u32::from_le_bytes(length) as usize;
    if !(SEALED_HEADER_BYTES..=SEALED_BYTES_MAX).contains(&bytes) {
        return None;
    }
    let start = at + ENTRY_HEADER_BYTES;
    let batch = file.get(start..start + bytes)?;
    (entry_crc(length, batch) == crc).then_some(start + bytes)
}

/// Looks for a whole entry anywhere behind a broken one. A batch starts with its own magic, so that
/// only few offsets cost a checksum.
fn has_entry_behind(file: &[u8], broken: usize) -> bool {
    (broken + 1..file.len().saturating_sub(ENTRY_HEADER_BYTES)).any(|at| {
        field::<4>(file, at + ENTRY_HEADER_BYTES) == Some(crate::sealed::SEALED_MAGIC)
            && whole_entry(file, at).is_some()
    })
}

/// Reads a whole file back after a restart.
pub fn scan(file: &Bytes, magic: [u8; 4], machine: MachineId) -> Result<Scan, FileError> {
    let number = header(file, magic, machine)?;
    let mut entries = Vec::new();
    let mut at = FILE_HEADER_BYTES;
    while let Some(end) = whole_entry(file, at) {
        let start = at + ENTRY_HEADER_BYTES;
        entries.push(ScannedEntry { offset: start as u64, bytes: file.slice(start..end) });
        at = end;
    }
    if planted::active(Bug::DropLastSpillRecord) && magic == SPILL_MAGIC {
        entries.pop();
    }
    let tail = match (at == file.len(), has_entry_behind(file, at)) {
        (true, _) => Tail::Clean,
        (false, false) => Tail::Torn(at as u64),
        (false, true) => Tail::Damaged(at as u64),
    };
    Ok(Scan { number, entries, tail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MACHINE: MachineId = MachineId(5);

    fn batch(fill: u8, extra: usize) -> Bytes {
        let mut bytes = vec![fill; SEALED_HEADER_BYTES + extra];
        bytes[..4].copy_from_slice(&crate::sealed::SEALED_MAGIC);
        bytes.into()
    }

    fn file(batches: &[Bytes]) -> Vec<u8> {
        let mut file = file_header(SPILL_MAGIC, MACHINE, 3).to_vec();
        batches.iter().flat_map(entry).for_each(|part| file.extend_from_slice(&part));
        file
    }

    fn scanned(file: Vec<u8>) -> Scan {
        scan(&file.into(), SPILL_MAGIC, MACHINE).unwrap()
    }

    #[test]
    fn a_damaged_middle_is_reported_and_nothing_behind_it_is_used() {
        let mut bytes = file(&[batch(1, 9), batch(2, 9), batch(3, 9)]);
        let second = FILE_HEADER_BYTES + ENTRY_HEADER_BYTES + SEALED_HEADER_BYTES + 9;
        bytes[second + 40] ^= 1;
        let scan = scanned(bytes);
        assert_eq!((scan.entries.len(), scan.tail), (1, Tail::Damaged(second as u64)));
    }

    #[test]
    fn a_file_of_another_kind_machine_or_version_is_refused() {
        let good = Bytes::from(file(&[]));
        assert_eq!(scan(&good, STAGE_MAGIC, MACHINE), Err(FileError::Magic));
        let other = scan(&good, SPILL_MAGIC, MachineId(6));
        assert_eq!(other, Err(FileError::OtherMachine(MACHINE)));
        assert_eq!(scan(&good.slice(..39), SPILL_MAGIC, MACHINE), Err(FileError::Short));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_file_cut_anywhere_gives_the_whole_entries_before_the_cut(
            sizes in prop::collection::vec(0usize..60, 0..6), cut in any::<prop::sample::Index>()
        ) {
            let batches: Vec<Bytes> = sizes.iter().enumerate().map(|(i, n)| batch(i as u8, *n)).collect();
            let whole = file(&batches);
            let cut = FILE_HEADER_BYTES + cut.index(whole.len() - FILE_HEADER_BYTES + 1);
            let mut ends = vec![FILE_HEADER_BYTES];
            for batch in &batches {
                ends.push(ends[ends.len() - 1] + ENTRY_HEADER_BYTES + batch.len());
            }
            let scan = scanned(whole[..cut].to_vec());
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            prop_assert_eq!(scan.entries.len(), kept);
            prop_assert!(scan.entries.iter().zip(&batches).all(|(found, batch)| found.bytes == *batch));
            let tail = if ends[kept] == cut { Tail::Clean } else { Tail::Torn(ends[kept] as u64) };
            prop_assert_eq!(scan.tail, tail);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes.clone().into(), SPILL_MAGIC, MACHINE);
            let mut file = file(&[]);
            file.extend_from_slice(&bytes);
            let _ = scan(&file.into(), SPILL_MAGIC, MACHINE);
        }
    }
}
