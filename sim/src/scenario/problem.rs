//! Problems of a set of scenario files: all of them in one pass, each with its code, file, line, column and
//! advice, and with the other places that belong to it.

use super::codes::Code;
use super::tree::Span;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind; `cargo sim explain CODE` says more about it.
    pub code: Code,
    /// Where.
    pub span: Span,
    /// The sentence.
    pub what: String,
    /// Other places that belong to it, with what they say.
    pub notes: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub(super) fn new(code: Code, span: Span, what: impl Into<String>) -> Problem {
        Problem { code, span, what: what.into(), notes: Vec::new(), help: None }
    }

    /// With what to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// With another place.
    pub(super) fn note(mut self, span: Span, words: impl Into<String>) -> Problem {
        self.notes.push((span, words.into()));
        self
    }
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path for messages.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Everything wrong in a scenario and the files it is made from.
#[derive(Clone, Debug)]
pub struct Problems {
    /// Files by number; the scenario's own comes first.
    pub files: Vec<SourceFile>,
    /// In order of place.
    pub list: Vec<Problem>,
}

/// One problem as it is shown, and its place for those who show it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Path of the file.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Code and sentence.
    pub what: String,
    /// As a person reads it.
    pub text: String,
}

impl Problems {
    /// Renders all problems, coloured if asked.
    pub fn render(&self, coloured: bool) -> String {
        self.shown(coloured).into_iter().map(|shown| shown.text + "\n\n").collect()
    }

    /// Returns each problem by its place.
    pub fn shown(&self, coloured: bool) -> Vec<Shown> {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let shown = |problem: &Problem| {
            let file = &self.files[problem.span.file];
            let before = &file.text[..clamp(&file.text, problem.span).start];
            Shown {
                path: file.path.clone(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
                what: format!("{}: {}", problem.code.name(), problem.what),
                text: renderer.render(&[self.group(problem)]),
            }
        };
        self.list.iter().map(shown).collect()
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = if problem.code == Code::NothingFails { Level::WARNING } else { Level::ERROR };
        let mut group = Group::with_title(level.primary_title(problem.what.as_str()).id(problem.code.name()));
        // Places of one file share a snippet; the file of the problem comes first.
        let mut files = vec![problem.span.file];
        for (span, _) in &problem.notes {
            if !files.contains(&span.file) {
                files.push(span.file);
            }
        }
        for number in files {
            let file = &self.files[number];
            let mut snippet = Snippet::source(file.text.as_str()).path(file.path.as_str());
            if number == problem.span.file {
                let place = clamp(&file.text, problem.span);
                snippet = snippet.annotation(AnnotationKind::Primary.span(place));
            }
            for (span, words) in problem.notes.iter().filter(|(span, _)| span.file == number) {
                let place = clamp(&file.text, *span);
                snippet = snippet.annotation(AnnotationKind::Context.span(place).label(words.as_str()));
            }
            group = group.element(snippet);
        }
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

fn clamp(text: &str, span: Span) -> Range<usize> {
    span.start.min(text.len())..span.end.min(text.len())
}

/// Words that are all listed as advice; of more only the nearest are.
const FEW: usize = 20;

/// How many are.
const NEAREST: usize = 5;

/// Returns the known word nearest to `word`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A slip of one letter counts in a short word as well, where it is a large part of it.
    let score = |candidate: &str| match strsim::osa_distance(word, candidate) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(word, candidate),
    };
    known
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Returns the advice for an unknown word.
pub fn advice(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.is_empty() => "nothing is known here yet".to_owned(),
        None if known.len() <= FEW => format!("known here: {}", known.join(", ")),
        None => {
            let mut by_score = known.to_vec();
            by_score.sort_by(|a, b| strsim::jaro_winkler(word, b).total_cmp(&strsim::jaro_winkler(word, a)));
            let nearest = by_score[..NEAREST].join(", ");
            format!("nearest of {}: {nearest}; sim/docs/scenarios.md has all", known.len())
        }
    }
}
