//! The search for the smallest link that keeps a promise. It supposes that a larger link keeps whatever a smaller one
//! does.
//!
//! What is *not* here: playing (a [`Trial`] is handed in).

use redoubt_reports::capacity::Link;

/// A link is searched up to so many times, and down to such a part of, what is given.
const FAR: u64 = 64;

/// Who plays.
pub(in crate::cli) trait Trial {
    /// Links that can be tried at once.
    fn at_once(&self) -> usize;
    /// Tries each of these links.
    fn try_all(&self, links: &[u64]) -> Result<Vec<Link>, u8>;
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// All links that were tried, the slowest first.
    pub(super) tried: Vec<Link>,
    pub(super) smallest: Option<u64>,
    pub(super) is_bound_by_scale: bool,
}

/// Searches from a link that was tried, down to `floor`, as close as `within` percent.
pub(super) fn smallest(trial: &dyn Trial, given: &Link, floor: u64, within: u64) -> Result<Found, u8> {
    let mut tried = vec![given.clone()];
    let (mut low, mut high) = if given.is_kept { (None, Some(given.link)) } else { (Some(given.link), None) };
    loop {
        let links = next(low, high, given.link, floor, within, trial.at_once());
        if links.is_empty() {
            break;
        }
        for one in trial.try_all(&links)? {
            if one.is_kept {
                high = Some(high.map_or(one.link, |high| high.min(one.link)));
            } else {
                low = Some(low.map_or(one.link, |low| low.max(one.link)));
            }
            tried.push(one);
        }
        // A link that keeps what a larger one does not is luck: the larger one decides.
        if let (Some(below), Some(above)) = (low, high)
            && below >= above
        {
            let kept = tried.iter().filter(|one| one.is_kept && one.link > below).map(|one| one.link);
            high = kept.min();
        }
    }
    tried.sort_by_key(|one| one.link);
    Ok(Found {
        smallest: high,
        is_bound_by_scale: high.is_some() && low.is_none() && high == Some(floor),
        tried,
    })
}

/// Returns the links to be tried next; none if the search is over.
fn next(
    low: Option<u64>,
    high: Option<u64>,
    given: u64,
    floor: u64,
    within: u64,
    at_once: usize,
) -> Vec<u64> {
    let mut links: Vec<u64> = match (low, high) {
        (None, Some(high)) => {
            let least = floor.max(given / FAR).min(high);
            (1..=at_once as u32).map(|step| (high >> step).max(least)).filter(|link| *link < high).collect()
        }
        (Some(low), None) => {
            let most = given.saturating_mul(FAR);
            (1..=at_once as u32)
                .map(|step| low.saturating_mul(1 << step).min(most))
                .filter(|link| *link > low)
                .collect()
        }
        (Some(low), Some(high)) if high as f64 > low as f64 * (1.0 + within as f64 / 100.0) => {
            let ratio = high as f64 / low as f64;
            let part = |step: usize| ratio.powf(step as f64 / (at_once + 1) as f64);
            (1..=at_once)
                .map(|step| (low as f64 * part(step)) as u64)
                .filter(|l| (low + 1..high).contains(l))
                .collect()
        }
        _ => Vec::new(),
    };
    links.sort_unstable();
    links.dedup();
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Line {
        needs: u64,
        at_once: usize,
        asked: Cell<usize>,
    }

    impl Trial for Line {
        fn at_once(&self) -> usize {
            self.at_once
        }

        fn try_all(&self, links: &[u64]) -> Result<Vec<Link>, u8> {
            assert!(links.len() <= self.at_once);
            self.asked.set(self.asked.get() + 1);
            Ok(links.iter().map(|link| tried(*link, self.needs)).collect())
        }
    }

    fn tried(link: u64, needs: u64) -> Link {
        let (is_kept, missed) = (link >= needs, Vec::new());
        let (lag_p99_ms, loss_p99_ms, is_crowded) = (None, None, false);
        Link { link, verdict: String::new(), is_kept, lag_p99_ms, loss_p99_ms, is_crowded, missed }
    }

    fn search(given: u64, needs: u64, floor: u64, at_once: usize) -> (Found, usize) {
        let line = Line { needs, at_once, asked: Cell::new(0) };
        let found = smallest(&line, &tried(given, needs), floor, 5).unwrap();
        (found, line.asked.get())
    }

    #[test]
    fn the_smallest_link_is_found_from_above_and_from_below() {
        for given in [1_000_000, 40_000_000] {
            for at_once in 1..4 {
                let (found, asked) = search(given, 10_500_000, 1, at_once);
                let smallest = found.smallest.unwrap();
                assert!((10_500_000..=11_025_000).contains(&smallest), "{given} {at_once}: {smallest}");
                assert!(asked < 12, "{asked}");
                assert!(found.tried.is_sorted_by_key(|one| one.link));
            }
        }
    }

    #[test]
    fn more_cores_ask_less_often() {
        assert!(search(40_000_000, 10_500_000, 1, 4).1 < search(40_000_000, 10_500_000, 1, 1).1);
    }

    #[test]
    fn a_scale_may_end_the_search_and_a_link_may_never_do() {
        let (found, _) = search(1_000_000, 10, 300_000, 2);
        assert_eq!((found.smallest, found.is_bound_by_scale), (Some(300_000), true));
        let (found, _) = search(1000, u64::MAX, 1, 2);
        assert_eq!((found.smallest, found.tried.last().unwrap().link), (None, 64_000));
    }
}
