//! The task that puts one machine's staged batches into the vault.
//!
//! It owns the writer. A job is prepared (its batches taken from memory or read back from the stage, opened,
//! packed, their segments stored) and then published (its slot put, the claim looked at). While one is published
//! the next one is prepared. The vault's bad days are waited out here, so that the actor goes on receiving.
//!
//! Invariants
//! - PA-1 A job is retried with the same records until its outcome is certain (the writer's rule). A retry
//!   reads them from the stage: opening used up what memory held.
//! - PA-2 Jobs end in the order in which they began; at most one is published and one prepared.
//! - PA-3 After a job that cannot be used the jobs behind it are dropped: the actor begins anew behind what it kept.

use super::stage::StagedBatch;
use redoubt_core::receiver::COMMITS_AT_ONCE;
use redoubt_core::{BatchPosition, Names, Record, WriteSeq};
use redoubt_ports::{Chance, Rare};
use redoubt_vault::{CommitError, MachineWriter, Naming, Prepared, Preparer};
use redoubt_wire::StreamKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// First pause after a failed commit; doubles. The vault's own retries lie within one attempt.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause: an outage's end is noticed within it.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(32);
/// How long a commit that is forced to be late waits before it is published.
const LATE_COMMIT: Duration = Duration::from_millis(700);
/// Reports that wait for the actor: an outcome and the troubles of both halves.
const REPORTS_MAX: usize = 3;

/// Batches of one commit, oldest first, never empty.
pub(super) type Job = Vec<StagedBatch>;

impl Drop for Packer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What became of a job. `Trouble` and part of it done do not end it.
pub(super) enum Report {
    /// Everything up to the position is durable in the vault.
    Done {
        position: BatchPosition,
        /// Whether the stream is exact there.
        is_exact: bool,
        /// Whether that was all of the job.
        ends_job: bool,
    },
    /// It did not succeed and is tried again after a pause.
    Trouble(String),
    /// A newer writer owns the machine, or the log is not the one that was claimed.
    Fenced(String),
    /// The batch that contains this sequence cannot be used, now or later.
    Unusable { from: WriteSeq, why: String },
}

/// The actor's end of the task.
pub(super) struct Packer {
    jobs: mpsc::Sender<(u64, Job)>,
    reports: mpsc::Receiver<Report>,
    naming: Naming,
    task: tokio::task::JoinHandle<()>,
    /// Jobs that have not ended.
    under_way: usize,
    /// Last sequence of the newest of them.
    end: WriteSeq,
    /// Counts the jobs that could not be used (PA-3).
    round: u64,
}

impl Packer {
    /// Starts the task.
    pub(super) fn start(writer: MachineWriter, key: StreamKey, chance: Arc<dyn Chance>) -> Packer {
        let (jobs, job_queue) = mpsc::channel(COMMITS_AT_ONCE);
        let (report_queue, reports) = mpsc::channel(REPORTS_MAX);
        let line = Line {
            preparer: writer.preparer(),
            key,
            jobs: job_queue,
            reports: report_queue.clone(),
            job: Vec::new(),
            taken: 0,
            round: 0,
            chance,
        };
        let naming = writer.naming();
        let task = tokio::spawn(run(writer, line, report_queue));
        Packer { jobs, reports, naming, task, under_way: 0, end: WriteSeq(0), round: 0 }
    }

    /// Begins a job, which must follow the one before it.
    pub(super) fn begin(&mut self, job: Job) {
        let Some(end) = job.last().map(|batch| batch.meta.last) else { return };
        // The task ended if it takes none: then nothing ends any more, as after being fenced.
        if self.jobs.try_send((self.round, job)).is_ok() {
            (self.under_way, self.end) = (self.under_way + 1, end);
        }
    }

    /// Says what the machine and its volumes are called: the next commit tells the vault.
    pub(super) fn name(&self, names: Names) {
        self.naming.tell(names);
    }

    /// Tells whether it takes no further job now.
    pub(super) fn is_full(&self) -> bool {
        self.under_way == COMMITS_AT_ONCE
    }

    /// Returns the last sequence of the jobs under way.
    pub(super) fn end(&self) -> Option<WriteSeq> {
        (self.under_way > 0).then_some(self.end)
    }

    /// Returns the next report. Waits for ever when no job is under way.
    pub(super) async fn report(&mut self) -> Report {
        let Some(report) = self.reports.recv().await else { return std::future::pending().await };
        match &report {
            Report::Trouble(_) | Report::Done { ends_job: false, .. } => {}
            Report::Done { .. } => self.under_way -= 1,
            Report::Fenced(_) => self.under_way = 0,
            Report::Unusable { .. } => (self.under_way, self.round) = (0, self.round + 1),
        }
        report
    }

    /// Waits for the jobs under way, at most this long, unless the vault is in trouble.
    pub(super) async fn drain(&mut self, longest: Duration) {
        // After its last report the task only waits for a job.
        let ended =
            async { while self.under_way > 0 && !matches!(self.report().await, Report::Trouble(_)) {} };
        let _ = tokio::time::timeout(longest, ended).await;
    }
}

/// A commit to be published.
struct Ready {
    commit: Prepared,
    ends_job: bool,
}

/// What comes out of preparing.
enum Next {
    Ready(Box<Ready>),
    /// The job is over (PA-3).
    Unusable(Report),
    /// The process server stops.
    Stopped,
}

/// The machine's writer is fenced, or nobody listens any more.
struct Ended;

async fn run(mut writer: MachineWriter, mut line: Line, reports: mpsc::Sender<Report>) {
    let mut ready: Option<Box<Ready>> = None;
    loop {
        let publish = async {
            match ready.take() {
                Some(ready) => publish(&mut writer, ready, &reports).await,
                None => Ok(()),
            }
        };
        let prepare = async { Ok::<Next, Ended>(line.next().await) };
        // A fenced writer's next commit is given up at once.
        match futures::future::try_join(publish, prepare).await {
            Ok(((), Next::Ready(next))) => ready = Some(next),
            Ok(((), Next::Unusable(report))) => {
                line.begin_anew();
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            Ok(((), Next::Stopped)) | Err(Ended) => return,
        }
    }
}

/// Puts the commit's slot, however long it takes, and reports.
async fn publish(
    writer: &mut MachineWriter,
    ready: Box<Ready>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), Ended> {
    let mut pause = PAUSE_FIRST;
    loop {
        let error = match writer.publish(&ready.commit).await {
            Ok(done) => {
                let (position, is_exact) = (done.position, writer.head().exact);
                let report = Report::Done { position, is_exact, ends_job: ready.ends_job };
                return reports.send(report).await.map_err(|_| Ended);
            }
            Err(error) => error,
        };
        if let CommitError::WentBack { .. } = &error {
            tracing::error!(%error, "the log ends here for this writer; it is claimed anew");
        }
        if matches!(error, CommitError::Fenced { .. } | CommitError::WentBack { .. }) {
            let _ = reports.send(Report::Fenced(error.to_string())).await;
            return Err(Ended);
        }
        if !wait(reports, error.to_string(), &mut pause).await {
            return Err(Ended);
        }
    }
}

/// Reports the trouble and waits before the next attempt. False if nobody listens any more.
async fn wait(reports: &mpsc::Sender<Report>, trouble: String, pause: &mut Duration) -> bool {
    // A full queue means that the actor has not read the last trouble yet: nothing is lost.
    let _ = reports.try_send(Report::Trouble(trouble));
    if reports.is_closed() {
        return false;
    }
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE_MAX);
    true
}

enum Stuck {
    Again(String),
    Unusable(Report),
}

/// Prepares the jobs, one after another.
struct Line {
    preparer: Preparer,
    key: StreamKey,
    jobs: mpsc::Receiver<(u64, Job)>,
    reports: mpsc::Sender<Report>,
    /// What is left of the job.
    job: Job,
    /// Batches of it that the next commit takes; fewer than all if all did not fit.
    taken: usize,
    round: u64,
    chance: Arc<dyn Chance>,
}

impl Line {
    /// Prepares the next commit, however long it takes.
    async fn next(&mut self) -> Next {
        while self.job.is_empty() {
            match self.jobs.recv().await {
                Some((round, job)) if round == self.round => {
                    let is_small = self.chance.forces(Rare::SmallCommit);
                    self.taken = if is_small { job.len().min(1) } else { job.len() };
                    self.job = job;
                }
                Some(_) => {}
                None => return Next::Stopped,
            }
        }
        let mut pause = PAUSE_FIRST;
        loop {
            let trouble = match self.attempt().await {
                Ok(ready) => {
                    if self.chance.forces(Rare::LateCommit) {
                        tokio::time::sleep(LATE_COMMIT).await;
                    }
                    return Next::Ready(Box::new(ready));
                }
                Err(Stuck::Unusable(report)) => return Next::Unusable(report),
                Err(Stuck::Again(trouble)) => trouble,
            };
            if !wait(&self.reports, trouble, &mut pause).await {
                return Next::Stopped;
            }
        }
    }

    fn begin_anew(&mut self) {
        self.job.clear();
        self.round += 1;
    }

    async fn attempt(&mut self) -> Result<Ready, Stuck> {
        loop {
            let records = gather(&self.key, &*self.chance, &mut self.job[..self.taken]).await?;
            let (first, to) = (self.job[0].meta.first, self.job[self.taken - 1].meta.position());
            let unusable =
                |from, error: CommitError| Stuck::Unusable(Report::Unusable { from, why: error.to_string() });
            match self.preparer.prepare(records, to).await {
                Ok(commit) => {
                    self.job.drain(..self.taken);
                    self.taken = self.job.len();
                    return Ok(Ready { commit, ends_job: self.job.is_empty() });
                }
                // Nothing was written; half of it may fit.
                Err(CommitError::TooLarge { .. }) if self.taken > 1 => self.taken = self.taken.div_ceil(2),
                Err(error @ CommitError::BadRecord { seq, .. }) => return Err(unusable(seq, error)),
                Err(error @ (CommitError::Retry(_) | CommitError::StoreFull(_) | CommitError::Denied(_))) => {
                    return Err(Stuck::Again(error.to_string()));
                }
                Err(error) => return Err(unusable(first, error)),
            }
        }
    }
}

/// Takes the batches and opens them.
async fn gather(
    key: &StreamKey,
    chance: &dyn Chance,
    batches: &mut [StagedBatch],
) -> Result<Vec<Record>, Stuck> {
    let mut records = Vec::new();
    for staged in batches {
        let is_read = chance.forces(Rare::StageFromFile);
        let bytes = if is_read { staged.read().await } else { staged.take().await };
        let bytes = bytes.map_err(|error| Stuck::Again(error.to_string()))?;
        let from = staged.meta.first;
        let unusable = |why: String| Stuck::Unusable(Report::Unusable { from, why });
        if redoubt_wire::peek(&bytes).ok() != Some(staged.meta) {
            return Err(unusable("the staged batch reads back differently".to_owned()));
        }
        let batch = redoubt_wire::open(key, bytes).map_err(|error| unusable(error.to_string()))?;
        records.extend(batch.records);
        tokio::task::yield_now().await;
    }
    Ok(records)
}
