//! A protected volume as NBD clients see it. A write's whole way runs on the client's own task.

use super::guarded::Guarded;
use super::shell::Shell;
use super::waiters::Waiting;
use super::workers::failure;
use crate::nbd_server::byte_range::{ByteRange, failure as told, whole_sectors};
use crate::nbd_server::{BlockRange, Export, ExportError, ExportInfo};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::agent::AgentEvent;
use redoubt_core::planted::{self, Bug};
use redoubt_core::splitter::{IoFailure, IoId, Op};
use redoubt_core::{Extent, VolumeIndex};
use redoubt_ports::{Disk, IoError, IoKind};
use std::sync::Arc;
use std::time::Duration;

/// How late the planted bugs of this file are.
const PLANTED_DELAY: Duration = Duration::from_millis(100);

pub(super) struct VolumeExport {
    pub(super) shell: Arc<Shell>,
    pub(super) volume: VolumeIndex,
    pub(super) name: String,
    pub(super) disk: Arc<dyn Disk>,
}

/// What a started operation does on the disk.
enum Work {
    /// Writes bytes that may begin and end inside a sector.
    Write {
        offset: u64,
        payload: Bytes,
        fua: bool,
    },
    Zero {
        extent: Extent,
        unmap: bool,
        fua: bool,
    },
    Resize(redoubt_core::Sectors),
}

impl Work {
    /// Tells whether the disk makes something durable for it.
    fn is_durable(&self) -> bool {
        match self {
            Work::Write { fua, .. } | Work::Zero { fua, .. } => *fua,
            Work::Resize(_) => true,
        }
    }
}

impl VolumeExport {
    fn run(&self, op: Op, work: Work) -> Guarded {
        let (shell, disk, volume) = (Arc::clone(&self.shell), Arc::clone(&self.disk), self.volume);
        Guarded::new(Arc::clone(&shell), operate(shell, disk, volume, op, work))
    }

    /// Changes the size of the volume and its disk.
    pub(super) async fn resize(&self, sectors: redoubt_core::Sectors) -> Result<(), ExportError> {
        self.run(Op::Resize { sectors }, Work::Resize(sectors)).await
    }

    fn extent(&self, offset: u64, length: u64) -> Result<Extent, ExportError> {
        Extent::covering_bytes(offset, length).ok_or(ExportError::OutOfRange)
    }

    /// Zeroes a byte range: whole sectors at once, the torn ends as written zeros.
    async fn zero(
        &self,
        offset: u64,
        length: u64,
        op: impl Fn(Extent) -> Op,
        (unmap, fua): (bool, bool),
    ) -> Result<(), ExportError> {
        let range = ByteRange::new(offset, length);
        for end in range.torn_ends() {
            self.write(end.offset, Bytes::from(vec![0; end.length as usize]), fua).await?;
        }
        match range.inner() {
            Some(extent) => self.run(op(extent), Work::Zero { extent, unmap, fua }).await,
            None => Ok(()),
        }
    }
}

async fn operate(
    shell: Arc<Shell>,
    disk: Arc<dyn Disk>,
    volume: VolumeIndex,
    op: Op,
    work: Work,
) -> Result<(), ExportError> {
    let (io, started) = {
        let mut core = shell.lock();
        if core.is_stopping {
            return Err(ExportError::ShuttingDown);
        }
        let io = core.machine.next_io();
        (io, shell.ask(&mut core, io, AgentEvent::Submit { volume, io, op }))
    };
    // Into a hot extent without an overlap the answer is here already: no wait, no hop.
    granted(started).await?;
    let is_durable = work.is_durable();
    let done = perform(&*disk, &op, work).await;
    let result = done.as_ref().map(|_| ()).map_err(failure);
    if is_durable && matches!(result, Err(IoFailure::Device | IoFailure::NoSpace)) {
        // The error may be that of other writes, which no flush will report any more.
        shell.step(AgentEvent::FlushFailed { volume, is_told: true });
    }
    let answer = match &done {
        Ok(_) => Ok(()),
        Err(error) => Err(told(error)),
    };
    let ended = AgentEvent::Done { volume, io, result, payload: done.ok().flatten() };
    if result.is_ok() && matches!(op, Op::Resize { .. }) {
        return resized(&shell, io, ended).await;
    }
    if planted::is_order_late(&op) {
        let late = Arc::clone(&shell);
        shell.tasks.spawn(async move {
            tokio::time::sleep(PLANTED_DELAY).await;
            late.step(ended);
        });
        return answer;
    }
    // The stamp and the acknowledgement are one step.
    shell.step(ended);
    while planted::active(Bug::GuestWaitsForSpool) && shell.lock().machine.is_bitmap() {
        tokio::time::sleep(PLANTED_DELAY).await;
    }
    answer
}

async fn flush(shell: Arc<Shell>, disk: Arc<dyn Disk>, volume: VolumeIndex) -> Result<(), ExportError> {
    {
        let mut core = shell.lock();
        if core.is_stopping {
            return Err(ExportError::ShuttingDown);
        }
        core.machine.guest_flush_begun(volume);
    }
    let flushed = disk.flush().await;
    if flushed.is_err() {
        shell.step(AgentEvent::FlushFailed { volume, is_told: true });
    }
    let owes_error = shell.lock().machine.guest_flush_ended(volume);
    flushed.map_err(|error| told(&error))?;
    if owes_error {
        return Err(ExportError::Io("an earlier flush of this disk failed".to_owned()));
    }
    Ok(())
}

/// A resize is over once log and record know the new size.
async fn resized(shell: &Shell, io: IoId, ended: AgentEvent) -> Result<(), ExportError> {
    let completed = shell.ask(&mut shell.lock(), io, ended);
    granted(completed).await
}

async fn granted(waiting: Waiting) -> Result<(), ExportError> {
    waiting.answer().await.ok_or(ExportError::ShuttingDown)?.map_err(refusal)
}

async fn perform(disk: &dyn Disk, op: &Op, work: Work) -> Result<Option<Bytes>, IoError> {
    match (work, op) {
        (Work::Write { offset, payload, fua }, Op::Write { extent, .. }) => {
            // The splitter keeps others away.
            let payload = whole_sectors(disk, offset, payload).await?;
            disk.write(*extent, payload.clone(), fua).await?;
            Ok(Some(payload))
        }
        (Work::Zero { extent, unmap, fua }, _) => {
            disk.write_zeroes(extent, unmap, fua).await?;
            Ok(None)
        }
        (Work::Resize(sectors), _) => {
            disk.resize(sectors).await?;
            Ok(None)
        }
        (Work::Write { .. }, _) => {
            Err(IoError::new(IoKind::Unsupported, "write", "the operation is no write"))
        }
    }
}

fn refusal(failure: IoFailure) -> ExportError {
    match failure {
        IoFailure::OutOfRange { .. } => ExportError::OutOfRange,
        IoFailure::NoSpace => ExportError::NoSpace,
        IoFailure::Unsupported => ExportError::Unsupported,
        IoFailure::Device | IoFailure::Overloaded => ExportError::Io(failure.to_string()),
    }
}

#[async_trait]
impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        let sectors = self.shell.lock().machine.sectors(self.volume);
        ExportInfo {
            size_bytes: sectors.unwrap_or_default().bytes(),
            read_only: false,
            can_multi_conn: true,
            can_trim: true,
            has_fast_zeroes: false,
        }
    }

    fn description(&self) -> Option<String> {
        Some(format!("{} of {}, protected", self.name, self.shell.settings.name))
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        ByteRange::new(offset, u64::from(length)).read(&*self.disk).await.map_err(|error| told(&error))
    }

    async fn write(&self, offset: u64, payload: Bytes, fua: bool) -> Result<(), ExportError> {
        let extent = self.extent(offset, payload.len() as u64)?;
        self.run(Op::Write { extent, fua }, Work::Write { offset, payload, fua }).await
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        fua: bool,
        may_unmap: bool,
        fast_only: bool,
    ) -> Result<(), ExportError> {
        if fast_only {
            return Err(ExportError::Unsupported);
        }
        let op = |extent| Op::WriteZeroes { extent, fua, may_unmap };
        self.zero(offset, length, op, (may_unmap, fua)).await
    }

    async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ExportError> {
        // Sectors that are trimmed in part keep their content: a trim promises nothing.
        match ByteRange::new(offset, length).inner() {
            Some(extent) => self.run(Op::Trim { extent }, Work::Zero { extent, unmap: true, fua }).await,
            None => Ok(()),
        }
    }

    async fn flush(&self) -> Result<(), ExportError> {
        let (shell, disk, volume) = (Arc::clone(&self.shell), Arc::clone(&self.disk), self.volume);
        // Guarded: its error must be heard even if the client has gone, the system says it only once.
        Guarded::new(Arc::clone(&shell), flush(shell, disk, volume)).await
    }

    async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<BlockRange>, ExportError> {
        ByteRange::new(offset, length).status(&*self.disk).await.map_err(|error| told(&error))
    }
}
