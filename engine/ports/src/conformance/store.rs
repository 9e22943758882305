//! What every [`RawStore`] must do, faults aside. Each implementation runs this suite on fresh,
//! empty stores made by its factory; a broken promise panics with its name.

use crate::{RawStore, StoreError, StoreKey};
use bytes::Bytes;
use futures::future::{Future, join_all};
use std::sync::Arc;

fn key(name: &str) -> StoreKey {
    StoreKey::new(name)
}

async fn names(store: &dyn RawStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(key);
    let listed = store.list_after(prefix, after.as_ref(), limit).await.expect("a listing succeeds");
    listed.into_iter().map(|(key, _)| key.as_str().to_owned()).collect()
}

/// Runs the whole suite.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn RawStore>>,
{
    created_bytes_read_back_and_are_never_replaced(&*factory().await).await;
    ranges_are_exact_and_cut_at_the_end(&*factory().await).await;
    listings_are_sorted_bounded_and_fresh(&*factory().await).await;
    pages_of_a_listing_make_the_whole(&*factory().await).await;
    a_deleted_object_is_gone_and_missing_is_fine(&*factory().await).await;
    a_race_of_creations_has_one_winner(&*factory().await).await;
}

async fn created_bytes_read_back_and_are_never_replaced(store: &dyn RawStore) {
    let name = key("a/b/object.1");
    assert_eq!(store.get(&name, None).await, Ok(None), "an object that was never created is absent");
    store.put_if_absent(&name, Bytes::from_static(b"first")).await.expect("a new name is free");
    assert_eq!(store.get(&name, None).await, Ok(Some(Bytes::from_static(b"first"))));
    let again = store.put_if_absent(&name, Bytes::from_static(b"second")).await;
    assert_eq!(again, Err(StoreError::AlreadyExists), "a taken name is refused");
    assert_eq!(store.get(&name, None).await, Ok(Some(Bytes::from_static(b"first"))), "and not replaced");
    let empty = key("a/empty");
    store.put_if_absent(&empty, Bytes::new()).await.expect("an empty object is an object");
    assert_eq!(store.get(&empty, None).await, Ok(Some(Bytes::new())));
}

async fn ranges_are_exact_and_cut_at_the_end(store: &dyn RawStore) {
    let name = key("ranged");
    store.put_if_absent(&name, Bytes::from_static(b"0123456789")).await.expect("a new name is free");
    for (range, want) in [(0..10, &b"0123456789"[..]), (3..7, b"3456"), (9..10, b"9"), (8..12, b"89")] {
        let got = store.get(&name, Some(range.clone())).await;
        assert_eq!(got, Ok(Some(Bytes::copy_from_slice(want))), "range {range:?}");
    }
    for range in [10..12, 40..50, 3..3] {
        let got = store.get(&name, Some(range.clone())).await;
        assert_eq!(got, Ok(Some(Bytes::new())), "nothing of an object is there in range {range:?}");
    }
    assert_eq!(store.get(&key("nothing"), Some(4..4)).await, Ok(None), "nor is any range of nothing");
    assert_eq!(store.get(&key("nothing"), Some(0..4)).await, Ok(None), "a range of nothing is absent");
}

async fn listings_are_sorted_bounded_and_fresh(store: &dyn RawStore) {
    for name in ["l/3", "l/1", "l/2", "l/10", "m/1", "l2/0"] {
        store.put_if_absent(&key(name), Bytes::from_static(b"xyz")).await.expect("a new name is free");
    }
    assert_eq!(names(store, "l/", None, 100).await, ["l/1", "l/10", "l/2", "l/3"]);
    assert_eq!(names(store, "l/", None, 2).await, ["l/1", "l/10"], "no more than the limit");
    assert_eq!(names(store, "l/", Some("l/10"), 2).await, ["l/2", "l/3"], "strictly after");
    assert_eq!(names(store, "l/", Some("l/15"), 9).await, ["l/2", "l/3"], "after a name that is not there");
    assert_eq!(names(store, "none/", None, 9).await, Vec::<String>::new());
    let listed = store.list_after("m/", None, 9).await.expect("a listing succeeds");
    assert_eq!(listed, [(key("m/1"), 3)], "sizes are in bytes");
}

async fn pages_of_a_listing_make_the_whole(store: &dyn RawStore) {
    // Sorted as whole names: what follows the common part may sort before, at or after the slash.
    let all = ["p-1", "p.1", "p/a", "p/b-c", "p/b.c", "p/b/1", "p/b/2", "p/b0", "p/c/d/e", "p0", "q/1"];
    for name in all.iter().rev() {
        store.put_if_absent(&key(name), Bytes::from_static(b"x")).await.expect("a new name is free");
    }
    for prefix in ["", "p", "p/", "p/b", "p/b/", "p/c/", "q/", "q/1"] {
        let wanted: Vec<&str> = all.iter().filter(|name| name.starts_with(prefix)).copied().collect();
        for limit in 1..4 {
            let mut listed: Vec<String> = Vec::new();
            loop {
                let page = names(store, prefix, listed.last().map(String::as_str), limit).await;
                if page.is_empty() {
                    break;
                }
                listed.extend(page);
            }
            assert_eq!(listed, wanted, "all names below {prefix:?}, {limit} at a time");
        }
    }
}

async fn a_deleted_object_is_gone_and_missing_is_fine(store: &dyn RawStore) {
    let name = key("d/1");
    store.delete(&name).await.expect("deleting a missing object is fine");
    store.put_if_absent(&name, Bytes::from_static(b"x")).await.expect("a new name is free");
    store.delete(&name).await.expect("an object can be deleted");
    assert_eq!(store.get(&name, None).await, Ok(None), "a deleted object is absent");
    assert_eq!(names(store, "d/", None, 9).await, Vec::<String>::new(), "and not listed");
}

async fn a_race_of_creations_has_one_winner(store: &dyn RawStore) {
    for round in 0..4 {
        let name = key(&format!("race/{round}"));
        let racers = (0..16u8).map(|racer| store.put_if_absent(&name, Bytes::from(vec![racer; 8])));
        let results = join_all(racers).await;
        let winners: Vec<usize> = (0..16).filter(|at| results[*at].is_ok()).collect();
        assert_eq!(winners.len(), 1, "one racer wins: {results:?}");
        let winner = Bytes::from(vec![winners[0] as u8; 8]);
        assert_eq!(store.get(&name, None).await, Ok(Some(winner)), "the winner's bytes are there");
    }
}
