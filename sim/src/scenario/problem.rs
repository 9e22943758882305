//! Problems of a scenario file: all of them in one pass, each with file, line, column and advice.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte range in the source.
    pub span: Range<usize>,
    /// The sentence.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Everything wrong in one file.
#[derive(Clone, Debug)]
pub struct Problems {
    /// Path as given by the user.
    pub path: String,
    /// The file's text.
    pub source: String,
    /// In order of place.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Renders all problems, coloured if asked.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.list {
            let span = problem.span.start.min(self.source.len())..problem.span.end.min(self.source.len());
            let snippet = Snippet::source(self.source.as_str())
                .path(self.path.as_str())
                .annotation(AnnotationKind::Primary.span(span));
            let mut group: Group<'_> = Level::ERROR.primary_title(problem.what.as_str()).element(snippet);
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

/// Returns the known word nearest to `word`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Returns the advice for an unknown word.
pub fn advice(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.is_empty() => "nothing is known here yet".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}
