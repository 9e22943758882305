//! Mistakes in a settings file, shown where they are: line, column, caret, suggestion.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;
use std::path::Path;

/// One mistake.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) title: String,
    pub(crate) span: Range<usize>,
    /// Short words at the caret.
    pub(crate) label: String,
    /// What to write instead.
    pub(crate) help: Option<String>,
}

/// Distance up to which another word is likely what was meant (Jaro-Winkler, 1 is equal).
const SIMILAR: f64 = 0.75;

/// Returns the known word that is most like `word`, if any is.
pub(crate) fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &&str| strsim::jaro_winkler(word, candidate);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= SIMILAR).then_some(best)
}

/// Shows all mistakes, in the order of the file.
pub(crate) fn render(path: &Path, source: &str, mut mistakes: Vec<Mistake>) -> String {
    mistakes.sort_by_key(|mistake| mistake.span.start);
    let renderer = Renderer::plain();
    let path = path.display().to_string();
    let shown = mistakes.iter().map(|mistake| {
        let end = mistake.span.end.clamp(mistake.span.start, source.len());
        let annotation =
            AnnotationKind::Primary.span(mistake.span.start.min(end)..end).label(mistake.label.as_str());
        let group = Group::with_title(Level::ERROR.primary_title(mistake.title.as_str()))
            .element(Snippet::source(source).path(path.as_str()).annotation(annotation));
        let group = match &mistake.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        };
        renderer.render(&[group])
    });
    shown.collect::<Vec<_>>().join("\n\n")
}
