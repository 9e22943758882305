//! Flushes of the protected disk that fail: who is told, and what the next start compares (decision 0006).

use super::*;

/// Stops the agent and tells whether the next start compares the disk.
async fn is_compared_after_a_stop(lab: &Lab, agent: Agent) -> bool {
    exact(&agent).await;
    agent.stop().await.unwrap();
    drop(agent);
    lab.agent().await.status().generation.0 == 2
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_failed_unseen_fails_the_guests_next_one_and_the_stop_is_not_clean() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 70, 20, 8_192 * 512).await;
    let export = agent.export("root").unwrap();
    lab.disk.fail_flushes(1);
    let flushed = tokio::time::timeout(PATIENCE, async {
        while lab.disk.flushes_to_fail() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    flushed.await.expect("the agent flushes by itself");
    tokio::time::sleep(Duration::from_millis(10)).await;
    export.flush().await.expect_err("the guest is told of the flush that it did not see");
    export.flush().await.expect("it is told once");
    drop(export);
    assert!(is_compared_after_a_stop(&lab, agent).await, "the stop was not clean");
}

#[tokio::test(start_paused = true)]
async fn a_guests_failed_flush_is_told_once_and_the_stop_is_not_clean() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    let export = agent.export("root").unwrap();
    export.write(0, pattern(71, 4096), false).await.unwrap();
    lab.disk.fail_flushes(1);
    export.flush().await.expect_err("the disk failed it");
    export.flush().await.expect("it is told once");
    drop(export);
    assert!(is_compared_after_a_stop(&lab, agent).await, "the stop was not clean");
}

#[tokio::test(start_paused = true)]
async fn a_durable_write_that_failed_counts_as_a_failed_flush_and_a_plain_one_does_not() {
    for fua in [true, false] {
        let lab = Lab::new(8_192).await;
        let _server = lab.server().await;
        let agent = lab.agent().await;
        exact(&agent).await;
        let export = agent.export("root").unwrap();
        lab.disk.fail_writes(1);
        export.write(0, pattern(72, 4096), fua).await.expect_err("the disk failed it");
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(export);
        assert_eq!(is_compared_after_a_stop(&lab, agent).await, fua, "fua: {fua}");
    }
}
