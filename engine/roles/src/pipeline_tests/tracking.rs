//! What an agent keeps beside the stream: activity log, record, lock, and what its status says of them.

use super::*;

/// More than the pass of cooling that follows the time that an extent stays hot.
const REST: Duration = Duration::from_secs(60);

/// Bytes that a start behind a clean stop reads of a disk of some MiB: its ends and samples.
const FINGERPRINT: u64 = (2 << 20) + 64 * 4096;

async fn written(agent: &Agent, seed: u64) {
    agent.export("root").unwrap().write(seed * 4096, pattern(seed, 4096), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_rests_is_cold_and_a_crash_then_compares_nothing() {
    let lab = Lab::new(16_384).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 70, 40, 16_384 * 512).await;
    assert!(agent.status().hot_extents > 0);
    tokio::time::sleep(REST).await;
    assert_eq!(agent.status().hot_extents, 0);
    written(&agent, 1500).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(agent);
    let before = lab.disk.bytes_read();
    let agent = lab.agent().await;
    exact(&agent).await;
    assert_eq!(lab.disk.bytes_read() - before, 1 << 20, "one hot extent is compared");
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_frees_the_directory_and_the_next_start_compares_nothing() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 71, 40, 8_192 * 512).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let export = agent.export("root").unwrap();
    agent.stop().await.unwrap();
    assert!(export.write(0, pattern(1, 512), false).await.is_err(), "no write behind the record");
    let before = lab.disk.bytes_read();
    // The first handle is still there: only its stop has let the directory go.
    let again = lab.agent().await;
    let status = again.status();
    assert_eq!((status.generation.0, status.mode), (1, AgentMode::Exact));
    written(&again, 7).await;
    tokio::time::sleep(REST).await;
    assert_eq!(lab.disk.bytes_read() - before, FINGERPRINT, "nothing else is read, so nothing is compared");
    let content = lab.disk.content();
    let marker = again.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_somebody_wrote_to_behind_a_clean_stop_is_compared_whole() {
    let lab = Lab::new(16_384).await;
    let _server = lab.server().await;
    let mut agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 72, 40, 16_384 * 512).await;
    // A superblock, and the last sector.
    for offset in [1024, 16_383 * 512] {
        agent.stop().await.unwrap();
        drop(agent);
        lab.disk.poke(offset, &[0xed; 512]);
        let before = lab.disk.bytes_read();
        agent = lab.agent().await;
        assert!(matches!(agent.status().mode, AgentMode::Resync { is_initial: false, .. }));
        exact(&agent).await;
        assert_eq!(lab.disk.bytes_read() - before, FINGERPRINT + 16_384 * 512, "everything is compared");
        let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
        assert!(lab.point_content(marker).await == lab.disk.content(), "the point has what was written");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_is_told_and_costs_a_compare_not_a_guest() {
    let lab = Lab::new(16_384).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    tokio::time::sleep(REST).await;
    assert_eq!(agent.status().hot_extents, 0);
    lab.source.files.fail_writes(Some("extents-"));
    for seed in [10, 700, 1500] {
        written(&agent, seed).await;
    }
    let status = agent.status();
    assert!(
        status.must_compare_all && status.last_error.as_ref().is_some_and(|e| e.contains("activity log"))
    );
    drop(agent);
    lab.source.files.fail_writes(None);
    let before = lab.disk.bytes_read();
    let agent = lab.agent().await;
    assert!(matches!(agent.status().mode, AgentMode::Resync { is_initial: false, .. }));
    assert_eq!(agent.status().lag, None, "an age of nothing would say better than the truth");
    exact(&agent).await;
    assert_eq!(lab.disk.bytes_read() - before, 16_384 * 512, "everything is compared");
    assert_eq!((agent.status().must_compare_all, agent.status().last_error), (false, None));
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_can_be_written_again_is_relied_upon_again() {
    let lab = Lab::new(16_384).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    tokio::time::sleep(REST).await;
    lab.source.files.fail_writes(Some("extents-"));
    written(&agent, 10).await;
    lab.source.files.fail_writes(None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((agent.status().must_compare_all, agent.status().last_error), (false, None));
    drop(agent);
    let before = lab.disk.bytes_read();
    let agent = lab.agent().await;
    exact(&agent).await;
    assert_eq!(lab.disk.bytes_read() - before, 1 << 20, "only the hot extent is compared");
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_is_called_so_until_the_vault_has_it() {
    let lab = Lab::new(8_192).await;
    let agent = lab.agent().await;
    let is_initial =
        |agent: &Agent| matches!(agent.status().mode, AgentMode::Resync { is_initial: true, .. });
    assert!(is_initial(&agent) && agent.status().lag.is_none());
    assert!(agent.cut_marker(MarkerKind::Crash).await.is_err(), "no point before the copy is complete");
    drop(agent);
    let agent = lab.agent().await;
    assert!(is_initial(&agent), "a crash does not make a first copy complete");
    let _server = lab.server().await;
    exact(&agent).await;
    let reader = MachineReader::open(&lab.vault, MACHINE).await.unwrap();
    assert!(reader.head().exact, "the vault has the end of the copy");
    assert!(agent.status().lag.is_some());
}
