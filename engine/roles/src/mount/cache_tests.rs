//! The local cache alone: its bound, what it finds again, what it throws away.

use super::*;
use crate::testing::MemFiles;
use redoubt_ports::IoKind;

const MIB: usize = 1 << 20;

fn part(id: u128) -> (PartId, Bytes) {
    (PartId(id), Bytes::from(vec![id as u8 ^ 0x5a; 64 << 10]))
}

async fn taken(files: &MemFiles) -> u64 {
    let mut bytes = 0;
    for name in files.list().await.unwrap() {
        bytes += files.open(&name, OpenMode::Existing).await.unwrap().len().await.unwrap();
    }
    bytes
}

async fn held(cache: &LocalCache, ids: std::ops::Range<u128>) -> Vec<u128> {
    let mut held = Vec::new();
    for id in ids {
        if let Some(bytes) = cache.get(PartId(id)).await {
            assert_eq!(bytes, part(id).1, "part {id}");
            held.push(id);
        }
    }
    held
}

#[tokio::test(start_paused = true)]
async fn the_bound_holds_and_the_oldest_go_first() {
    let files = Arc::new(MemFiles::default());
    let cache = LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.unwrap();
    for id in 0..600 {
        cache.offer(vec![part(id)]);
        // A bundle that waits for its room; what is offered gives way to nobody.
        cache.keep(vec![part(id)]).await;
        assert!(taken(&files).await <= CACHE_BYTES_MIN, "{id}");
        assert!(cache.status().bytes >= taken(&files).await, "{id}");
    }
    let held = held(&cache, 0..600).await;
    assert_eq!(held, (600 - held.len() as u128..600).collect::<Vec<_>>());
    assert!(held.len() > 200, "{}", held.len());
    assert!(
        !cache.keep(vec![part(700), part(701)]).await || cache.has(PartId(held[0])),
        "nothing is given up"
    );
}

#[tokio::test(start_paused = true)]
async fn a_killed_mount_is_gone_on_with_and_a_torn_file_is_thrown_away() {
    let files = Arc::new(MemFiles::default());
    files.open("control.sock", OpenMode::CreateNew).await.unwrap();
    let cache = LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.unwrap();
    for id in 0..40 {
        assert!(cache.keep(vec![part(id)]).await);
    }
    assert_eq!(LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.err().unwrap().kind, IoKind::Busy);
    drop(cache);
    let cache = LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.unwrap();
    let found = held(&cache, 0..40).await;
    assert!(found.len() >= 15 && found.len() < 40, "files of 1 MiB, the last one torn: {}", found.len());
    assert_eq!(found, (0..found.len() as u128).collect::<Vec<_>>());
    // Bytes that changed meanwhile are forgotten, not returned.
    let file = files.open("part-00000000", OpenMode::Existing).await.unwrap();
    file.write_at(100, &[Bytes::from_static(b"other")]).await.unwrap();
    assert_eq!((cache.get(PartId(0)).await, cache.has(PartId(0)), cache.has(PartId(1))), (None, false, true));
    assert!(cache.keep(vec![part(0)]).await);
    assert_eq!(cache.get(PartId(0)).await, Some(part(0).1), "kept again");
    cache.remove().await.unwrap();
    assert_eq!(files.list().await.unwrap(), ["control.sock"], "nothing of it is left, and nothing else went");
    assert!(!cache.keep(vec![part(1)]).await);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_cannot_be_written_says_so_and_serves_what_it_has() {
    let files = Arc::new(MemFiles::default());
    let cache = LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.unwrap();
    assert!(cache.keep(vec![part(1)]).await);
    files.fail_writes(Some("part-"));
    assert!(!cache.keep(vec![part(2)]).await);
    assert!(cache.status().trouble.is_some_and(|trouble| trouble.contains("part-")));
    files.fail_writes(None);
    assert!(!cache.keep(vec![part(3)]).await, "a full disk is not filled again");
    assert_eq!(held(&cache, 0..4).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_bound_gives_the_oldest_up_at_once() {
    let files = Arc::new(MemFiles::default());
    let cache = LocalCache::open(files.clone(), 4 * CACHE_BYTES_MIN).await.unwrap();
    for id in 0..800 {
        assert!(cache.keep(vec![part(id)]).await);
    }
    assert!(taken(&files).await > (48 * MIB) as u64);
    drop(cache);
    let cache = LocalCache::open(files.clone(), CACHE_BYTES_MIN).await.unwrap();
    assert!(taken(&files).await <= CACHE_BYTES_MIN);
    assert!(!cache.has(PartId(0)) && cache.status().bytes > 0);
}
