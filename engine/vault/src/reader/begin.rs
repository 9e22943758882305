//! What a reader begins with: the newest catalogue that can be used, what is left of one after damage, folds alone, or
//! the whole log; and the log behind it.

use super::{Inner, PointId, State};
use crate::avoid::{Avoid, Damage};
use crate::chain::{CATALOGUE_TRIES, is_cut, may_begin, newest_begin, no_begin};
use crate::error::{StoreFailure, VaultError};
use crate::fold;
use crate::index::{Catalogue, Tail};
use crate::load::STRETCH_SLOTS;
use crate::maintainer::CATALOGUES_TRIED;
use crate::names;
use crate::opening;

/// A state, and what is wrong with the log behind it.
type Loaded = (State, Option<VaultError>);

impl State {
    fn to_load() -> State {
        State { index: Tail::to_load(), ..State::default() }
    }

    fn of(catalogue: Catalogue) -> State {
        let mut state = State::to_load();
        state.begin_at(catalogue);
        state
    }
}

impl Inner {
    /// Opens the newest usable catalogue, or an empty state, and follows the log to its end or to
    /// what is wrong with it.
    pub(super) async fn load(&self, avoid: &mut Avoid) -> Result<Loaded, VaultError> {
        let loaded = self.load_all(avoid, None).await;
        // Nobody is told later what was true now (EA-1).
        self.log.vault.store.settle();
        loaded
    }

    /// As [`Inner::load`]; a catalogue that has the point asked for is enough, and the log behind it is not read.
    pub(super) async fn load_all(
        &self,
        avoid: &mut Avoid,
        at: Option<PointId>,
    ) -> Result<Loaded, VaultError> {
        let mut tries = 1;
        loop {
            let state = self.begin(avoid, at).await?;
            let (state, damage) = self.follow(state, at).await?;
            let Some(damage) = damage else { return Ok((state, None)) };
            if state.tail.slot == 0
                && is_cut(&self.log, &self.stored).await?
                && let Some(listed) = self.listed().await?
            {
                self.tell(VaultError::damaged(names::catalogues(self.log.machine), "no catalogue is left"));
                return self.follow(listed, at).await;
            }
            if tries == CATALOGUE_TRIES || !self.is_overtaken(state.tail.slot).await? {
                return Ok((state, Some(damage)));
            }
            tries += 1;
        }
    }

    /// Follows the log behind what a state holds.
    async fn follow(&self, mut state: State, at: Option<PointId>) -> Result<Loaded, VaultError> {
        let mut damage = None;
        while !at.is_some_and(|id| state.stored.has(id)) {
            let stretch = self.log.stretch(state.tail.clone(), STRETCH_SLOTS).await;
            let outcome = stretch.outcome.clone();
            state.tail = stretch.append(&mut state.index, &mut state.points);
            match outcome {
                Ok(true) => break,
                Ok(false) => {}
                Err(found @ VaultError::Damaged { .. }) => {
                    damage = Some(found);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        state.index.settle();
        Ok((state, damage))
    }

    /// Tells whether the log behind a slot was folded since it was read up to there.
    pub(super) async fn is_overtaken(&self, slot: u64) -> Result<bool, VaultError> {
        Ok(newest_begin(&self.log.vault, self.log.machine).await? > slot + 1)
    }

    /// Returns a state of the newest catalogue that can be used; tells what is wrong with newer ones.
    async fn begin(&self, avoid: &mut Avoid, at: Option<PointId>) -> Result<State, VaultError> {
        let mut tries = 1;
        loop {
            match self.try_begin(avoid, at).await {
                // What was listed may have made room for newer ones.
                Err(VaultError::Damaged { .. }) if tries < CATALOGUE_TRIES => tries += 1,
                found => return found,
            }
        }
    }

    async fn try_begin(&self, avoid: &mut Avoid, at: Option<PointId>) -> Result<State, VaultError> {
        let prefix = names::catalogues(self.log.machine);
        let listed = self.log.vault.store.page(&prefix, None, CATALOGUES_TRIED).await?;
        let mut damaged: Vec<(Damage, Catalogue)> = Vec::new();
        for (name, _) in &listed {
            let Some(version) = names::catalogue_version(name, self.log.machine) else {
                self.tell(VaultError::damaged(name, "no catalogue has this name"));
                continue;
            };
            match self.catalogue(version, at).await? {
                Ok(catalogue) => match avoid.of(&catalogue) {
                    None => return Ok(State::of(catalogue)),
                    Some(damage) => damaged.push((damage, catalogue)),
                },
                Err(what) => {
                    avoid.spoilt(version);
                    self.tell(VaultError::damaged(name, what));
                }
            }
        }
        damaged.retain(|(damage, catalogue)| *damage < Damage::All && catalogue.mark.slot > 0);
        damaged.sort_by_key(|(damage, _)| *damage);
        for (damage, catalogue) in damaged {
            let (version, folded) = (catalogue.version, catalogue.folded());
            if damage == Damage::Runs {
                return Ok(State::of(folded));
            }
            match self.anew(folded).await {
                Err(error @ VaultError::Damaged { .. }) => {
                    avoid.spoilt(version);
                    self.tell(error);
                }
                state => return state,
            }
        }
        if listed.is_empty() || !is_cut(&self.log, &self.stored).await? {
            return Ok(State::to_load());
        }
        match self.listed().await? {
            Some(state) => Ok(state),
            None if may_begin(&self.log).await? => Ok(State::to_load()),
            None => Err(no_begin(self.log.machine, listed.len())),
        }
    }

    /// Returns a state of all that folds say, if no catalogue can be used; none if there are none.
    async fn listed(&self) -> Result<Option<State>, VaultError> {
        match fold::newest_listed(&self.log).await? {
            Some(catalogue) => Ok(Some(self.anew(catalogue).await?)),
            None => Ok(None),
        }
    }

    /// Returns a state in which folded runs are indexed anew, of their folds.
    async fn anew(&self, mut catalogue: Catalogue) -> Result<State, VaultError> {
        let runs = std::mem::take(&mut catalogue.runs);
        let mut state = State::of(catalogue);
        for run in &runs {
            let (mut segments, mut zeros) = (Vec::new(), Vec::new());
            for info in &run.folds {
                let fold = self.log.fold(info).await?;
                let name = || names::fold(self.log.machine, info.epoch, info.uuid);
                let fold = fold.map_err(|what| VaultError::damaged(name(), what))?;
                segments.extend(self.log.folded_tables(fold.rows).await?);
                zeros.extend(fold.zeros);
            }
            state.index.add_folded(&segments, &zeros);
        }
        Ok(state)
    }

    /// Reads a version of the catalogue, if it can be used. Unless it has the point asked for, it must fit to
    /// the log, which is asked for on the way.
    async fn catalogue(
        &self,
        version: u64,
        at: Option<PointId>,
    ) -> Result<Result<Catalogue, String>, StoreFailure> {
        let catalogue = match self.stored.decoded(version).await? {
            Ok((catalogue, _)) => catalogue,
            Err(what) => return Ok(Err(what)),
        };
        if at.is_some_and(|id| catalogue.has(id)) {
            return Ok(Ok(catalogue));
        }
        opening::go_on(&self.log.vault.store, self.log.machine, &catalogue).await;
        Ok(match self.stored.fits(&catalogue).await? {
            true => Ok(catalogue),
            false => Err("the log's slot it ends with is missing or another".to_owned()),
        })
    }
}
