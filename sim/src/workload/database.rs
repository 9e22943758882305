//! The database guest: a write-ahead log, pages and flush rules, whose own recovery notices a torn or
//! reordered replica. It uses nothing of the reference model: only the bytes of an image.
//!
//! Rules the database keeps (and its recovery insists on)
//! - DB-1 The log record of transaction `t` is durable before any page of `t` is written.
//! - DB-2 A log slot is reused only after the page of its transaction is durable.
//! - DB-3 Transactions are written to the log one after another, without a gap.

use super::guest::{GuestDisk, GuestError, Recorder};
use super::pace::LONG;
use super::stamp::{Seen, recognise};
use redoubt_core::Extent;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Slots of the log, one sector each.
pub const LOG_SLOTS: u64 = 64;

/// Pages, eight sectors each, after the log.
pub const PAGES: u64 = 48;

/// Sectors of a page.
pub const PAGE_SECTORS: u64 = 8;

/// Sectors the database uses, from the start of its volume.
pub const SECTORS: u64 = LOG_SLOTS + PAGES * PAGE_SECTORS;

fn slot(transaction: u64) -> Extent {
    Extent::new(transaction % LOG_SLOTS, 1)
}

/// Returns the page that a transaction changes.
fn page(transaction: u64) -> u64 {
    (transaction.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % PAGES
}

fn page_extent(number: u64) -> Extent {
    Extent::new(LOG_SLOTS + number * PAGE_SECTORS, PAGE_SECTORS)
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last transaction in the log.
    pub last: u64,
    /// Transactions whose pages must be written again, in order.
    pub redo: Vec<u64>,
}

/// Recovers from an image of the database's sectors, or says what is wrong with it.
pub fn recover(machine: u16, volume: u16, image: &[u8]) -> Result<Recovered, String> {
    let note = |lba: u64| -> Result<u64, String> {
        let at = lba as usize * 512;
        let sector = image.get(at..at + 512).ok_or_else(|| "the image is too short".to_owned())?;
        match recognise(machine, volume, lba, sector) {
            Seen::Zero => Ok(0),
            Seen::Op(_, note) => Ok(note),
            Seen::Foreign(_) => Err(format!("sector {lba} is torn")),
        }
    };
    let mut last = 0;
    for index in 0..LOG_SLOTS {
        let transaction = note(index)?;
        if transaction != 0 && transaction % LOG_SLOTS != index {
            return Err(format!("log slot {index} holds transaction {transaction}, which belongs elsewhere"));
        }
        last = last.max(transaction);
    }
    let first = (last + 1).saturating_sub(LOG_SLOTS).max(1);
    for transaction in first..=last {
        let found = note(transaction % LOG_SLOTS)?;
        if found != transaction {
            return Err(format!("DB-3: log ends at {last}, but slot of {transaction} holds {found}"));
        }
    }
    let mut needed = vec![0; PAGES as usize];
    let settled = first - 1;
    for transaction in (1..first).rev().take(4096) {
        let slot = &mut needed[page(transaction) as usize];
        *slot = transaction.max(*slot);
    }
    for number in 0..PAGES {
        for lba in page_extent(number).lba.0..page_extent(number).end() {
            let found = note(lba)?;
            if found > last {
                return Err(format!("DB-1: page {number} holds transaction {found}; the log ends at {last}"));
            }
            if found < needed[number as usize] {
                let needed = needed[number as usize];
                return Err(format!(
                    "DB-2: page {number} holds {found}, but {needed} was settled before slot reuse at {settled}"
                ));
            }
        }
    }
    Ok(Recovered { last, redo: (first..=last).collect() })
}

/// Runs the database on one volume until `stop`, or until the disk is gone. After an error of the
/// device it recovers from what the disk holds, as a database does.
pub async fn run(
    recorder: Recorder,
    disk: Arc<dyn GuestDisk>,
    volume: u16,
    pause: Duration,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        match serve(&recorder, disk.as_ref(), volume, pause, &stop).await {
            Err(GuestError::Gone) => return,
            Err(GuestError::Io(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(()) => {}
        }
    }
}

async fn serve(
    recorder: &Recorder,
    disk: &dyn GuestDisk,
    volume: u16,
    pause: Duration,
    stop: &AtomicBool,
) -> Result<(), GuestError> {
    let image = disk.read(Extent::new(0, SECTORS)).await?;
    let recovered = recover(recorder.machine, volume, &image).map_err(GuestError::Io)?;
    // What was read may still be volatile, and a redo depends on it (DB-1).
    recorder.flush(disk, volume).await?;
    for transaction in recovered.redo {
        recorder.write(disk, volume, page_extent(page(transaction)), transaction, false).await?;
    }
    recorder.flush(disk, volume).await?;
    let mut transaction = recovered.last;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(pause).await;
        if pause > LONG && stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        transaction += 1;
        let durable = transaction.is_multiple_of(3);
        recorder.write(disk, volume, slot(transaction), transaction, durable).await?;
        if !durable {
            recorder.flush(disk, volume).await?;
        }
        recorder.write(disk, volume, page_extent(page(transaction)), transaction, false).await?;
        if transaction.is_multiple_of(LOG_SLOTS / 2) {
            recorder.flush(disk, volume).await?;
        }
    }
    Ok(())
}
