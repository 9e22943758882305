//! The state of a mount: what it serves, what its cache holds, how far its hydration is.

use super::Health;
use crate::output;
use crate::units::show_size;
use redoubt_roles::mount::{CacheStatus, HydrationState, HydrationStatus};
use serde::{Deserialize, Serialize};

/// A mount at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountReport {
    pub(crate) service: String,
    pub(crate) health: Health,
    pub(crate) point: String,
    pub(crate) volume: String,
    pub(crate) uri: String,
    pub(crate) cache_bytes: u64,
    pub(crate) cache_bytes_max: u64,
    /// `None` unless it was asked for.
    pub(crate) hydration: Option<HydrationReport>,
    pub(crate) last_error: Option<String>,
}

/// How far a hydration is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HydrationReport {
    pub(crate) state: HydrationWord,
    /// Of the volume; 100 only when it is complete.
    pub(crate) percent: u64,
    pub(crate) data_bytes: u64,
    pub(crate) damaged_bytes: u64,
}

/// What a hydration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HydrationWord {
    Running,
    Waiting,
    Complete,
    NoRoom,
}

impl HydrationReport {
    fn new(status: &HydrationStatus) -> HydrationReport {
        let state = match status.state {
            HydrationState::Running => HydrationWord::Running,
            HydrationState::Waiting(_) => HydrationWord::Waiting,
            HydrationState::Complete => HydrationWord::Complete,
            HydrationState::NoRoom => HydrationWord::NoRoom,
        };
        let part = (u128::from(status.done_bytes) * 100).checked_div(u128::from(status.total_bytes));
        let percent = match state {
            HydrationWord::Complete => 100,
            _ => part.map_or(0, |part| part.min(99) as u64),
        };
        let (data_bytes, damaged_bytes) = (status.data_bytes, status.damaged_bytes);
        HydrationReport { state, percent, data_bytes, damaged_bytes }
    }

    fn words(&self) -> String {
        match self.state {
            HydrationWord::Running => format!("{} %", self.percent),
            HydrationWord::Waiting => format!("{} %, waits for the vault", self.percent),
            HydrationWord::Complete => "complete".to_owned(),
            HydrationWord::NoRoom => format!("{} %, the cache is full", self.percent),
        }
    }
}

impl MountReport {
    /// Judges a mount: ok while it can do what it was asked to.
    pub(crate) fn new(
        [point, volume, uri]: [String; 3],
        cache: &CacheStatus,
        hydration: Option<&HydrationStatus>,
    ) -> MountReport {
        let waits = hydration.and_then(|status| match &status.state {
            HydrationState::Waiting(why) => Some(why.clone()),
            HydrationState::NoRoom => Some("the cache is full; mount again with a larger --cache".to_owned()),
            _ => None,
        });
        let damage = hydration.and_then(|status| status.damage.clone());
        let last_error = cache.trouble.clone().or(damage).or(waits);
        MountReport {
            service: "mount".to_owned(),
            health: if last_error.is_none() { Health::Ok } else { Health::Warning },
            point,
            volume,
            uri,
            cache_bytes: cache.bytes,
            cache_bytes_max: cache.bytes_max,
            hydration: hydration.map(HydrationReport::new),
            last_error,
        }
    }

    /// Says it in a few words, for a monitoring system.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("point {} of {}", self.point, self.volume)];
        words.extend(self.hydration.as_ref().map(|hydration| format!("hydrated {}", hydration.words())));
        words.extend(self.last_error.clone());
        words
    }
}

/// Shows it to people.
pub(crate) fn show(report: &MountReport) -> String {
    let hydration = report.hydration.as_ref();
    let table = output::table(
        &["HEALTH", "VOLUME", "POINT", ">IN CACHE", ">AT MOST", "HYDRATED", ">DATA", ">DAMAGED"],
        vec![vec![
            report.health.cell(),
            report.volume.clone().into(),
            report.point.clone().into(),
            show_size(report.cache_bytes).into(),
            show_size(report.cache_bytes_max).into(),
            hydration.map_or("-".to_owned(), HydrationReport::words).into(),
            hydration.map_or("-".to_owned(), |hydration| show_size(hydration.data_bytes)).into(),
            hydration.map_or("-".to_owned(), |hydration| show_size(hydration.damaged_bytes)).into(),
        ]],
    );
    let mut text = format!("{table}\n\n serving {}\n", report.uri);
    if let Some(error) = &report.last_error {
        text += &format!(" trouble: {error}\n");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> MountReport {
        let cache = CacheStatus { bytes: 3 << 30, bytes_max: 8 << 30, has_parts: true, trouble: None };
        let hydration = HydrationStatus {
            state: HydrationState::Waiting("cannot read g/x (9 attempts): unavailable".to_owned()),
            done_bytes: 40 << 30,
            total_bytes: 100 << 30,
            data_bytes: 9 << 30,
            damaged_bytes: 0,
            damage: None,
        };
        let names = ["17.0", "erp", "nbd+unix:///erp?socket=/tmp/point.sock"].map(str::to_owned);
        MountReport::new(names, &cache, Some(&hydration))
    }

    #[test]
    fn a_mount_that_waits_for_its_vault_is_shown_in_one_glance() {
        insta::assert_snapshot!(show(&report()));
    }

    #[test]
    fn a_mount_is_well_until_something_keeps_it_from_what_it_was_asked() {
        let cache = CacheStatus { bytes: 1, bytes_max: 2, has_parts: true, trouble: None };
        let names = || ["1.0", "erp", "nbd://x/erp"].map(str::to_owned);
        assert_eq!(MountReport::new(names(), &cache, None).health, Health::Ok);
        let full = CacheStatus { trouble: Some("no space".to_owned()), ..cache };
        assert_eq!(MountReport::new(names(), &full, None).health, Health::Warning);
        assert_eq!(report().hydration.map(|hydration| hydration.percent), Some(40));
    }
}
