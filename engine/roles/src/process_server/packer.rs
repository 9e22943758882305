//! The task that puts one machine's staged batches into the vault.
//!
//! It owns the writer. One job at a time: take the batches from memory or read them back from the stage, open
//! them, commit them in one call. The vault's bad days are waited out here, so that the actor goes on receiving.
//!
//! Invariants
//! - PA-1 A job is retried with the same records until its outcome is certain (the writer's rule). A retry
//!   reads them from the stage: opening used up what memory held.

use super::stage::StagedBatch;
use redoubt_core::{BatchPosition, Record, WriteSeq};
use redoubt_vault::{CommitError, MachineWriter};
use redoubt_wire::StreamKey;
use std::time::Duration;
use tokio::sync::mpsc;

/// First pause after a failed commit; doubles. The vault's own retries lie within one attempt.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause: an outage's end is noticed within it.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(32);
/// Reports that wait for the actor: the outcome of the one job and a trouble before it.
const REPORTS_MAX: usize = 2;

/// Batches of one commit, oldest first, never empty.
pub(super) type Job = Vec<StagedBatch>;

impl Drop for Packer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What became of a job. All but `Trouble` end it.
pub(super) enum Report {
    /// Everything up to the position is durable in the vault.
    Done {
        position: BatchPosition,
        /// Whether the stream is exact there.
        is_exact: bool,
    },
    /// It did not succeed and is tried again after a pause.
    Trouble(String),
    /// A newer writer owns the machine.
    Fenced(String),
    /// The batch that contains this sequence cannot be used, now or later.
    Unusable { from: WriteSeq, why: String },
}

/// The actor's end of the task.
pub(super) struct Packer {
    jobs: mpsc::Sender<Job>,
    reports: mpsc::Receiver<Report>,
    task: tokio::task::JoinHandle<()>,
    is_busy: bool,
}

impl Packer {
    /// Starts the task.
    pub(super) fn start(writer: MachineWriter, key: StreamKey) -> Packer {
        let (jobs, job_queue) = mpsc::channel(1);
        let (report_queue, reports) = mpsc::channel(REPORTS_MAX);
        let task = tokio::spawn(run(writer, key, job_queue, report_queue));
        Packer { jobs, reports, task, is_busy: false }
    }

    /// Begins a commit unless one is in flight; tells whether it did.
    pub(super) fn begin(&mut self, job: Job) -> bool {
        if self.is_busy || job.is_empty() || self.jobs.try_send(job).is_err() {
            return false;
        }
        self.is_busy = true;
        true
    }

    /// Tells whether a commit is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Returns the next report. Waits for ever when no job is in flight.
    pub(super) async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => {
                self.is_busy = matches!(report, Report::Trouble(_));
                report
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the commit in flight, at most this long, unless the vault is in trouble.
    pub(super) async fn drain(&mut self, longest: Duration) {
        // After its report the task only waits for a job.
        let ended = async { while self.is_busy && !matches!(self.report().await, Report::Trouble(_)) {} };
        let _ = tokio::time::timeout(longest, ended).await;
    }
}

async fn run(
    mut writer: MachineWriter,
    key: StreamKey,
    mut jobs: mpsc::Receiver<Job>,
    reports: mpsc::Sender<Report>,
) {
    while let Some(job) = jobs.recv().await {
        let report = perform(&mut writer, &key, job, &reports).await;
        let fenced = matches!(report, Report::Fenced(_));
        if reports.send(report).await.is_err() || fenced {
            return;
        }
    }
}

async fn perform(
    writer: &mut MachineWriter,
    key: &StreamKey,
    mut job: Job,
    reports: &mpsc::Sender<Report>,
) -> Report {
    let mut pause = PAUSE_FIRST;
    loop {
        let trouble = match attempt(writer, key, &mut job).await {
            Ok(done) => return done,
            Err(Stuck::Over(report)) => return report,
            Err(Stuck::Again(trouble)) => trouble,
        };
        // A full queue means that the actor has not read the last trouble yet: nothing is lost.
        let _ = reports.try_send(Report::Trouble(trouble));
        if reports.is_closed() {
            return Report::Trouble("the process server stops".to_owned());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

enum Stuck {
    Again(String),
    Over(Report),
}

async fn attempt(writer: &mut MachineWriter, key: &StreamKey, job: &mut Job) -> Result<Report, Stuck> {
    loop {
        let records = gather(key, job).await?;
        let Some(to) = job.last().map(|batch| batch.meta.position()) else {
            return Err(Stuck::Again("a commit without batches".to_owned()));
        };
        let unusable = |from: WriteSeq, error: &CommitError| {
            Err(Stuck::Over(Report::Unusable { from, why: error.to_string() }))
        };
        let first = job[0].meta.first;
        match writer.commit(records, to).await {
            Ok(done) => {
                let is_exact = writer.head().exact;
                return Ok(Report::Done { position: done.position, is_exact });
            }
            Err(error @ CommitError::Fenced { .. }) => {
                return Err(Stuck::Over(Report::Fenced(error.to_string())));
            }
            Err(error @ CommitError::Retry(_)) => return Err(Stuck::Again(error.to_string())),
            // Nothing was written; half of it may fit.
            Err(CommitError::TooLarge { .. }) if job.len() > 1 => job.truncate(job.len().div_ceil(2)),
            Err(error @ CommitError::BadRecord { seq, .. }) => return unusable(seq, &error),
            Err(error) => return unusable(first, &error),
        }
    }
}

async fn gather(key: &StreamKey, job: &mut Job) -> Result<Vec<Record>, Stuck> {
    let mut records = Vec::new();
    for staged in job {
        let bytes = staged.take().await.map_err(|error| Stuck::Again(error.to_string()))?;
        let from = staged.meta.first;
        let unusable = |why: String| Stuck::Over(Report::Unusable { from, why });
        if redoubt_wire::peek(&bytes).ok() != Some(staged.meta) {
            return Err(unusable("the staged batch reads back differently".to_owned()));
        }
        let batch = redoubt_wire::open(key, bytes).map_err(|error| unusable(error.to_string()))?;
        records.extend(batch.records);
        tokio::task::yield_now().await;
    }
    Ok(records)
}
