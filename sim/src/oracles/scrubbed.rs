//! Oracle `scrub-exact`: a scrub tells exactly the damage there is. Of a whole vault it tells none; of a damaged
//! one it names the damaged object and nothing else, and exactly the points and sectors that truly cannot be had.
//!
//! Here both sides are plain sets: what was told, and what is true. The truth is tried out: the lab knows which bytes
//! it damaged, and reads every sector of every point.
//!
//! What is *not* here: playing the scrub and trying the points (`harness/scrubbing`).

use super::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A point, by slot and ordinal.
pub type Point = (u64, u16);

/// What one point lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It cannot be had at all.
    All,
    /// Sectors of volumes.
    Sectors(BTreeSet<(u16, u64)>),
}

/// What every damaged point lacks; a point that lacks nothing is not in it.
pub type Losses = BTreeMap<Point, Loss>;

/// What a scrub told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Objects called damaged, with the bytes and what is said of them.
    pub objects: Vec<(String, Range<u64>, String)>,
    /// What the points lack; none: the scrub says that it cannot know.
    pub losses: Option<Losses>,
}

/// What was damaged.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The object; none: nothing was.
    pub object: Option<String>,
    /// The bytes that differ, of an object that is still there.
    pub bytes: Option<Range<u64>>,
    /// Whether its damage shows in anything: the loss of what nothing names does not.
    pub shows: bool,
    /// What the points lack.
    pub losses: Losses,
}

/// Compares what was told with what is true.
pub fn judge(truth: &Truth, told: &Told) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |what: String| findings.push(Finding::new("scrub-exact", what));
    for (object, _, what) in told.objects.iter().filter(|(object, ..)| Some(object) != truth.object.as_ref())
    {
        let damaged = truth.object.as_deref().unwrap_or("nothing");
        find(format!("the scrub calls {object} damaged; {damaged} is: {what}"));
    }
    if let Some(object) = &truth.object {
        let mut of =
            told.objects.iter().filter(|(name, ..)| name == object).map(|(_, bytes, _)| bytes).peekable();
        let is_named = of.peek().is_some();
        if truth.shows && !is_named {
            find(format!("the scrub does not name {object}"));
        }
        if let (Some(bytes), true) = (&truth.bytes, is_named)
            && !of.any(|told| told.start < bytes.end && bytes.start < told.end)
        {
            find(format!("the scrub names {object} without bytes {bytes:?}, which differ"));
        }
    }
    match &told.losses {
        Some(losses) => {
            let points: BTreeSet<&Point> = losses.keys().chain(truth.losses.keys()).collect();
            for point in points {
                if let Some(what) = differ(truth.losses.get(point), losses.get(point)) {
                    find(format!("point {}.{}: {what}", point.0, point.1));
                }
            }
        }
        None => find("the scrub cannot say what the damage takes".to_owned()),
    }
    findings.truncate(3);
    findings
}

fn differ(truth: Option<&Loss>, told: Option<&Loss>) -> Option<String> {
    let words = |loss: Option<&Loss>| match loss {
        None => "nothing".to_owned(),
        Some(Loss::All) => "everything".to_owned(),
        Some(Loss::Sectors(sectors)) => {
            let ends = sectors.first().zip(sectors.last());
            format!("{} sectors {ends:?}", sectors.len())
        }
    };
    (truth != told).then(|| format!("it lacks {}, the scrub says {}", words(truth), words(told)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(of: Range<u64>) -> Loss {
        Loss::Sectors(of.map(|sector| (0, sector)).collect())
    }

    fn truth() -> Truth {
        let losses = Losses::from([((3, 0), sectors(8..16)), ((4, 0), sectors(8..12))]);
        let (object, bytes) = (Some("a".to_owned()), Some(7..8));
        Truth { object, bytes, shows: true, losses }
    }

    fn told(object: &str, losses: Losses) -> Told {
        Told { objects: vec![(object.to_owned(), 0..64, String::new())], losses: Some(losses) }
    }

    #[test]
    fn what_is_true_holds_and_more_or_less_does_not() {
        let truth = truth();
        assert_eq!(judge(&truth, &told("a", truth.losses.clone())), vec![]);
        let less = Losses::from([((3, 0), sectors(8..16))]);
        let more = Losses::from([((3, 0), sectors(8..16)), ((4, 0), sectors(8..16))]);
        for wrong in [less, more, Losses::from([((3, 0), Loss::All), ((4, 0), sectors(8..12))])] {
            assert_eq!(judge(&truth, &told("a", wrong.clone())).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn another_object_other_bytes_and_not_knowing_are_found() {
        let truth = truth();
        assert_eq!(judge(&truth, &told("b", truth.losses.clone())).len(), 2, "one too many, one missing");
        let mut elsewhere = told("a", truth.losses.clone());
        elsewhere.objects[0].1 = 8..64;
        assert_eq!(judge(&truth, &elsewhere).len(), 1);
        let unknown = Told { losses: None, ..told("a", Losses::new()) };
        assert_eq!(judge(&truth, &unknown).len(), 1);
    }

    #[test]
    fn a_whole_vault_of_which_damage_is_told_is_found() {
        let (object, bytes, losses) = (None, None, Losses::new());
        let whole = Truth { object, bytes, shows: false, losses };
        assert_eq!(judge(&whole, &Told { losses: Some(Losses::new()), ..Told::default() }), vec![]);
        assert_eq!(judge(&whole, &told("a", Losses::new())).len(), 1);
    }
}
