//! Operations whose clients go away: run to their end while the agent works, let go when it crashes.

use super::{Lab, exact, pattern};
use crate::agent::Agent;
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;

const BYTES: u64 = 64 << 20;
const COLD: u64 = 40 << 20;

/// An agent whose extents are cold: all vaulted and flushed.
async fn cold_agent(lab: &Lab) -> Agent {
    let agent = lab.agent().await;
    exact(&agent).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    agent
}

/// A write that waits for the mark of its extent when its client leaves.
macro_rules! waiting_write {
    ($export:expr) => {{
        let mut write = Box::pin($export.write(COLD, pattern(1, 4096), false));
        assert!((&mut write).now_or_never().is_none(), "a first write waits for its mark");
        write
    }};
}

#[tokio::test(start_paused = true)]
async fn a_write_is_done_although_its_client_has_gone() {
    let lab = Lab::new(BYTES / 512).await;
    let _server = lab.server().await;
    let agent = cold_agent(&lab).await;
    let export = agent.export("root").unwrap();
    drop(waiting_write!(export));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lab.disk.content()[COLD as usize..][..4096] == pattern(1, 4096)[..]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_lets_go_of_what_clients_left() {
    let lab = Lab::new(BYTES / 512).await;
    let _server = lab.server().await;
    let before = Arc::strong_count(&lab.disk);
    for client_leaves_first in [true, false] {
        let agent = cold_agent(&lab).await;
        let export = agent.export("root").unwrap();
        let write = waiting_write!(export);
        if client_leaves_first {
            drop(write);
            drop(agent);
        } else {
            drop(agent);
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(write);
        }
        drop(export);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&lab.disk), before, "client leaves first: {client_leaves_first}");
    }
}
