//! Uploads that nobody will ever name: of a writer or maintainer that died, or was overtaken, before it published.
//!
//! Invariants
//! - OR-1 An upload of epoch E is an orphan only if a later epoch has *sealed*: a record of a higher epoch in the chain
//!   (writers), a catalogue of a higher epoch (maintainers). From then on nothing of epoch E is published (a record
//!   of it would be void; TN-1), so what is not named yet never will be. A claim alone seals nothing.
//! - OR-2 The names in use are read *no earlier* than the seal: what epoch E published before it was sealed is among
//!   them. When the uploads were listed does not matter: one that comes later is no less an orphan.
//! - OR-3 No age and no clock takes part.
//!
//! What is *not* here: garbage ([`super::Tenure::deletable`]): what a version named once. It is found again here
//! if a delete was lost or undone.

/// Returns the orphans of a listing of uploads with their epochs. `sealed` is the newest epoch that sealed; `is_used`
/// tells what the chain's tail and the last [`super::CATALOGUES_KEPT`] versions of the catalogue need, and what the newest
/// version has as garbage: the others need it. Garbage of older versions that came back is an orphan like any other.
pub fn orphans<N>(
    listed: impl IntoIterator<Item = (N, u64)>,
    sealed: u64,
    is_used: impl Fn(&N) -> bool,
) -> Vec<N> {
    let old = listed.into_iter().filter(|(_, epoch)| *epoch < sealed).map(|(name, _)| name);
    old.filter(|name| !is_used(name)).collect()
}
