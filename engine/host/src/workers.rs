//! Computing on tokio's blocking pool, as many jobs at once as there are cores.
//!
//! What is *not* here: work that waits for a device (`blocking`), which must not queue behind jobs.

use crate::blocking;
use async_trait::async_trait;
use redoubt_ports::Workers;
use redoubt_ports::workers::Job;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Jobs at once on a large host: beyond it, memory and disks are slower than the cores.
const JOBS_MAX: usize = 8;

/// The cores of this host.
#[derive(Clone, Debug)]
pub struct HostWorkers(Arc<Semaphore>);

impl HostWorkers {
    /// Makes workers for every core, within a bound.
    pub fn new() -> HostWorkers {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        HostWorkers(Arc::new(Semaphore::new(cores.min(JOBS_MAX))))
    }
}

impl Default for HostWorkers {
    fn default() -> HostWorkers {
        HostWorkers::new()
    }
}

#[async_trait]
impl Workers for HostWorkers {
    async fn run(&self, job: Job) {
        // Held by the job itself: one that nobody waits for any more still takes its core.
        let room = self.0.clone().acquire_owned().await;
        blocking::run(move || {
            let _room = room;
            job();
        })
        .await;
    }
}
