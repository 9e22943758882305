//! Volumes that change their size, with and without a link.

use super::*;

/// Writes at both ends of the volume as it is now, then compares the newest point with the disk.
async fn check(lab: &Lab, agent: &Agent, seed: u64) {
    let export = agent.export("root").unwrap();
    let bytes = export.info().size_bytes;
    for offset in [0, bytes - 4096] {
        export.write(offset, pattern(seed + offset, 4096), false).await.unwrap();
    }
    let content = lab.disk.content();
    assert_eq!(content.len() as u64, bytes);
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn a_volume_grows_and_shrinks_while_its_first_copy_is_under_way() {
    for sectors in [40_000, 9_001] {
        let lab = Lab::new(20_000).await;
        lab.disk.poke(20_000 * 512 - 9, b"the end");
        let _server = lab.server().await;
        let agent = lab.agent().await;
        agent.resize("root", Sectors(sectors)).await.unwrap();
        exact(&agent).await;
        check(&lab, &agent, 1).await;
    }
}

/// Sizes on, below and above the edges of a block of a resync, an extent of the map and a part of the index.
#[tokio::test(start_paused = true)]
async fn a_volume_may_cross_every_boundary_of_the_maps_during_a_resync() {
    let lab = Lab::new(2_048).await;
    let server = lab.server().await;
    let mut agent = lab.agent().await;
    let mut crashes = 0;
    for edge in [128, 2_048, 16_384, 32_768] {
        for sectors in [edge - 1, edge + 1, edge, edge * 2 + 1, edge - 1] {
            agent.resize("root", Sectors(sectors)).await.unwrap();
            scribble(&agent, 120 + sectors, 5, sectors * 512).await;
            if sectors == edge {
                // In the middle of what the change of size began.
                drop(agent);
                agent = lab.agent().await;
                crashes += 1;
            }
        }
        exact(&agent).await;
        check(&lab, &agent, 130 + edge).await;
    }
    assert_eq!(crashes, 4);
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn sizes_that_change_while_the_link_is_down_arrive_in_order() {
    let lab = Lab::new(20_000).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 80, 30, 20_000 * 512).await;
    lab.net.cut();
    for sectors in [9_001, 30_000, 12_345] {
        agent.resize("root", Sectors(sectors)).await.unwrap();
        scribble(&agent, 81 + sectors, 10, sectors * 512).await;
    }
    lab.net.heal();
    check(&lab, &agent, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_region_that_was_cut_off_without_order_and_grown_again_reads_as_zeros() {
    let lab = Lab::new(20_000).await;
    let mut settings = lab.settings();
    settings.bounds.memory_bytes_max = 512 << 10;
    settings.bounds.spill_bytes_max = 1 << 20;
    let _server = lab.server().await;
    let agent = lab.agent_with(settings).await;
    exact(&agent).await;
    scribble(&agent, 90, 60, 20_000 * 512).await;
    lab.net.cut();
    scribble(&agent, 91, 200, 20_000 * 512).await;
    assert_eq!(agent.status().mode, AgentMode::Bitmap);
    for sectors in [5_000, 20_000] {
        agent.resize("root", Sectors(sectors)).await.unwrap();
    }
    lab.net.heal();
    exact(&agent).await;
    check(&lab, &agent, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_behind_a_resize_compares_hot_extents_only() {
    let lab = Lab::new(16_384).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    agent.resize("root", Sectors(8_192)).await.unwrap();
    drop(agent);
    let before = lab.disk.bytes_read();
    let agent = lab.agent().await;
    exact(&agent).await;
    assert_eq!(lab.disk.bytes_read() - before, 0, "log and record knew the size");
    check(&lab, &agent, 4).await;
}
