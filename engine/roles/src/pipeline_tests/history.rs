//! What a change of the disks must not cost: points from before it, and work in proportion to what was written.

use super::*;

/// Sectors of a block of a resync.
const BLOCK: u64 = 128;

async fn point(lab: &Lab, agent: &Agent) -> (MarkerId, Vec<u8>) {
    exact(agent).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
    (marker, content)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_added_leaves_old_points_as_they_were_and_is_in_new_ones() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 100, 40, 8_192 * 512).await;
    let (before, content) = point(&lab, &agent).await;

    let added = MemDisk::new(4_096);
    added.poke(4_096 * 512 - 12, b"there before");
    lab.source.disks.add("sdb", Arc::clone(&added));
    agent.protect(VolumeSpec::new("data", "sdb")).await.unwrap();
    assert!(agent.cut_marker(MarkerKind::Crash).await.is_err(), "no point without the new disk");
    scribble(&agent, 101, 40, 8_192 * 512).await;
    agent.export("data").unwrap().write(0, pattern(102, 8192), false).await.unwrap();
    let (after, _) = point(&lab, &agent).await;
    assert!(lab.volume_content(after, VolumeIndex(1)).await == added.content(), "the new disk");
    assert!(lab.point_content(before).await == content, "a point from before the disk was added");
}

#[tokio::test(start_paused = true)]
async fn points_from_before_a_resize_stay_and_have_the_size_of_their_time() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    let mut points = Vec::new();
    for (round, sectors) in [8_192, 12_000, 1_000, 8_192, 3_001].into_iter().enumerate() {
        if round > 0 {
            agent.resize("root", Sectors(sectors)).await.unwrap();
        }
        scribble(&agent, 110 + round as u64, 25, sectors * 512).await;
        points.push(point(&lab, &agent).await);
    }
    for (marker, content) in points {
        assert!(lab.point_content(marker).await == content, "a point of {} bytes", content.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_long_outage_costs_is_what_was_written_in_it() {
    let lab = Lab::new(65_536).await;
    let mut settings = lab.settings();
    settings.bounds.memory_bytes_max = 512 << 10;
    settings.bounds.spill_bytes_max = 1 << 20;
    let _server = lab.server().await;
    let agent = lab.agent_with(settings).await;
    point(&lab, &agent).await;
    lab.net.cut();
    let export = agent.export("root").unwrap();
    // The same hundred blocks are written again and again, far beyond what can be held.
    for round in 0..10 {
        for block in 0..100 {
            let offset = block * 5 * BLOCK * 512;
            export.write(offset, pattern(round * 100 + block, 4096), false).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(agent.status().mode, AgentMode::Bitmap);
    let before = lab.disk.bytes_read();
    lab.net.heal();
    point(&lab, &agent).await;
    // A block that is under way when something else ends the session is read twice; what was not written, never.
    let blocks = (lab.disk.bytes_read() - before) / (BLOCK * 512);
    assert!((100..150).contains(&blocks), "{blocks} of 512 blocks are read for 100 that were written");
}

#[tokio::test(start_paused = true)]
async fn many_small_writes_share_few_syncs() {
    const WRITES: u64 = 2_000;
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    point(&lab, &agent).await;
    let syncs = || lab.source.files.syncs() + lab.target.files.syncs();
    let before = syncs();
    let export = agent.export("root").unwrap();
    for count in 0..WRITES {
        export.write(count % 500 * 4096, pattern(count, 512), false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    point(&lab, &agent).await;
    let spent = syncs() - before;
    assert!(spent * 10 < WRITES, "{spent} syncs for {WRITES} writes");
}
