//! Oracle `nothing-left-behind`: at rest, a few versions of the catalogue after the last fault, the store holds nothing of
//! dead writers and maintainers that nobody names, no catalogue but the newest three, and not much more than what the
//! kept points show and what was written last (I15, R-26 to R-28 seen from the other side: what may go does go).
//!
//! Judged from names and sizes in the store, and from the content of the kept points as they were restored.
//!
//! What is *not* here: who names what of sealed objects; a scrub tells what nothing names (`harness/leftovers`).

use super::Finding;
use std::collections::BTreeMap;

/// Catalogues that stay.
const CATALOGUES: usize = 3;
/// What shows of a unit may be a part of it, and what shows of a segment a third: so much is stored for each byte that a
/// kept point shows, at most.
const TIMES: u64 = 6;
/// What tables, folds and catalogues of a small machine take, whatever it holds.
const BESIDE: u64 = 512 << 10;

/// A machine's part of the store at rest.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Objects with their sizes.
    pub objects: BTreeMap<String, u64>,
    /// Those that were written lately: no round has looked at them yet, or the newest points need them.
    pub recent: u64,
    /// Objects that nothing names.
    pub orphans: Vec<String>,
    /// Bytes of content that the kept points show, each version of a sector once.
    pub shown: u64,
}

/// Judges what is left of a machine.
pub fn judge(name: &str, rest: &Rest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find =
        |what: String| findings.push(Finding::new("nothing-left-behind", format!("{name}: {what}")));
    let claimed = |role: &str| {
        let of = |name: &String| name.split_once(&format!("/claim/{role}/")).map(|(_, epoch)| hex(epoch));
        rest.objects.keys().filter_map(of).max().unwrap_or(0)
    };
    let (writer, maintainer) = (claimed("w"), claimed("m"));
    let is_dead = |orphan: &&String| match orphan.split('/').skip(2).collect::<Vec<_>>().as_slice() {
        ["seg", epoch, _] => hex(epoch) < writer,
        ["cseg" | "idx" | "fold", epoch, _] => hex(epoch) < maintainer,
        _ => false,
    };
    let dead: Vec<&String> = rest.orphans.iter().filter(is_dead).collect();
    if let Some(first) = dead.first() {
        find(format!("{} objects of the dead are left that nothing names, first {first}", dead.len()));
    }
    let catalogues = rest.objects.keys().filter(|name| name.contains("/cat/")).count();
    if catalogues > CATALOGUES {
        find(format!("{catalogues} catalogues are left"));
    }
    let held: u64 = rest.objects.values().sum();
    let most = rest.recent + TIMES * rest.shown + BESIDE;
    if held > most {
        let (recent, shown) = (rest.recent, rest.shown);
        find(format!(
            "it holds {held} bytes; {shown} show at its points and {recent} are new, so {most} are enough"
        ));
    }
    findings
}

fn hex(number: &str) -> u64 {
    u64::from_str_radix(number, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest() -> Rest {
        let names = ["claim/w/00000002", "claim/m/00000003", "cat/1", "cat/2", "cat/3", "log/01"];
        let objects = names.iter().map(|name| (format!("g/m/{name}"), 1000)).collect();
        Rest { objects, recent: 1000, orphans: Vec::new(), shown: 4096 }
    }

    #[test]
    fn what_the_living_upload_may_be_there_and_what_the_dead_left_may_not() {
        assert_eq!(judge("a", &rest()), vec![]);
        for (orphan, is_wrong) in [
            ("g/m/seg/00000002/aa", false),
            ("g/m/seg/00000001/aa", true),
            ("g/m/idx/00000003/aa", false),
            ("g/m/fold/00000002/aa", true),
        ] {
            let orphans = vec![orphan.to_owned()];
            assert_eq!(judge("a", &Rest { orphans, ..rest() }).len(), usize::from(is_wrong), "{orphan}");
        }
    }

    #[test]
    fn a_fourth_catalogue_and_space_that_is_not_given_back_are_found() {
        let mut more = rest();
        more.objects.insert("g/m/cat/4".to_owned(), 1000);
        assert_eq!(judge("a", &more).len(), 1);
        let mut more = rest();
        more.objects.insert("g/m/seg/00000001/bb".to_owned(), BESIDE + 7 * 4096);
        assert_eq!(judge("a", &more).len(), 1);
    }
}
