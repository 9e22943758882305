//! The files a scenario is made from: finding them, reading them, putting them together.
//!
//! `extends` names a file whose values hold unless this one gives its own: tables are merged key by key, anything
//! else is replaced as a whole, `[timeline] also` is added. `estate` may name a file, or extend one; `weather`
//! names one. What is *not* here: what any value means.

use super::codes::Code;
use super::problem::{Problem, SourceFile, nearest};
use super::tree::{self, Key, Node, Span, Table, Val};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that may extend each other in a row; more is a maze.
const DEPTH_MAX: usize = 8;

/// Where files come from.
pub trait Library {
    /// Returns the path and the text of the file with this name; none if there is none.
    fn read(&self, name: &str) -> Option<SourceFile>;
    /// Returns the names of all files, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// No files at all: scenarios stand on their own.
#[derive(Debug)]
pub struct Nothing;

impl Library for Nothing {
    fn read(&self, _name: &str) -> Option<SourceFile> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Files in memory, by name.
impl Library for BTreeMap<&str, &str> {
    fn read(&self, name: &str) -> Option<SourceFile> {
        let text = self.get(name)?;
        Some(SourceFile { path: name.to_owned(), text: (*text).to_owned() })
    }

    fn names(&self) -> Vec<String> {
        self.keys().map(|name| (*name).to_owned()).collect()
    }
}

/// Directories, searched in order.
#[derive(Clone, Debug)]
pub struct Directories(pub Vec<PathBuf>);

impl Library for Directories {
    fn read(&self, name: &str) -> Option<SourceFile> {
        let found = self.0.iter().map(|directory| directory.join(name)).find(|path| path.is_file())?;
        let text = std::fs::read_to_string(&found).ok()?;
        Some(SourceFile { path: found.display().to_string(), text })
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (directory, below) in self.0.iter().flat_map(|d| ["", "estates", "weather"].map(|b| (d, b))) {
            for name in toml_files(&directory.join(below)) {
                names.push(if below.is_empty() { name } else { format!("{below}/{name}") });
            }
        }
        names
    }
}

fn toml_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    names
}

/// What is read so far.
pub(super) struct Sources<'a> {
    library: &'a dyn Library,
    pub(super) files: Vec<SourceFile>,
    pub(super) problems: Vec<Problem>,
    /// Why each file was read: the place that names it.
    reasons: BTreeMap<usize, (Span, &'static str)>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(library: &'a dyn Library, path: &str, text: &str) -> Sources<'a> {
        let files = vec![SourceFile { path: path.to_owned(), text: text.to_owned() }];
        Sources { library, files, problems: Vec::new(), reasons: BTreeMap::new() }
    }

    /// Reads the first file and everything it stands on; returns one tree.
    pub(super) fn scenario(&mut self) -> Node {
        let root = tree::parse(0, &self.files[0].text.clone(), &mut self.problems);
        self.complete(root, &mut vec![0])
    }

    /// Reads the first file as one of `estates/`.
    pub(super) fn estate(&mut self) -> Node {
        let root = tree::parse(0, &self.files[0].text.clone(), &mut self.problems);
        self.extended(root, &mut vec![0])
    }

    /// Reads the weather that a scenario names.
    pub(super) fn weather(&mut self, name: &Node) -> Option<Node> {
        let text = name.text()?.to_owned();
        let number = self.open(&format!("weather/{text}.toml"), name.span, "this weather", &[])?;
        Some(tree::parse(number, &self.files[number].text.clone(), &mut self.problems))
    }

    /// Says where a problem of another file comes from.
    pub(super) fn with_reason(&self, mut problem: Problem) -> Problem {
        let mut file = problem.span.file;
        while let Some((span, words)) = self.reasons.get(&file) {
            problem = problem.note(*span, format!("{words} is read from here"));
            file = span.file;
        }
        problem
    }

    fn complete(&mut self, mut root: Node, trail: &mut Vec<usize>) -> Node {
        let Val::Table(table) = &mut root.value else { return root };
        if let Some(estate) = table.get_mut("estate") {
            let taken = std::mem::replace(&mut estate.value, Val::Bool(false));
            let whole = Node { span: estate.span, value: taken };
            *estate = self.estate_of(whole, trail);
        }
        let Some((_, base)) = table.remove("extends") else { return root };
        let Some(base) = self.base(&base, "the file that is extended", trail) else { return root };
        let base = self.complete(base, trail);
        trail.pop();
        // Each file says for itself what it is about.
        merge(without(base, &["title", "why"]), root)
    }

    fn estate_of(&mut self, estate: Node, trail: &mut Vec<usize>) -> Node {
        if estate.text().is_none() {
            return self.extended(estate, trail);
        }
        let Some(base) = self.base(&estate, "this estate", trail) else {
            return Node { span: estate.span, value: Val::Table(Table::default()) };
        };
        let base = self.extended(base, trail);
        trail.pop();
        without(base, super::estate::SAYS)
    }

    /// An estate that extends a file.
    fn extended(&mut self, mut estate: Node, trail: &mut Vec<usize>) -> Node {
        let Val::Table(table) = &mut estate.value else { return estate };
        let Some((_, base)) = table.remove("extends") else { return estate };
        let Some(base) = self.base(&base, "this estate", trail) else { return estate };
        let base = self.extended(base, trail);
        trail.pop();
        merge(without(base, super::estate::SAYS), estate)
    }

    /// Reads the file that a value names, and notes it on the trail.
    fn base(&mut self, name: &Node, words: &'static str, trail: &mut Vec<usize>) -> Option<Node> {
        let Some(text) = name.text().map(str::to_owned) else {
            let what = format!("the name of a file is a string, not {}", name.kind());
            self.problems.push(Problem::new(Code::WrongType, name.span, what));
            return None;
        };
        let number = self.open(&text, name.span, words, trail)?;
        trail.push(number);
        Some(tree::parse(number, &self.files[number].text.clone(), &mut self.problems))
    }

    fn open(&mut self, name: &str, span: Span, words: &'static str, trail: &[usize]) -> Option<usize> {
        let Some(file) = self.library.read(name) else {
            let names = self.library.names();
            let near = nearest(name, names.iter().map(String::as_str));
            let help = near
                .map_or("it is looked for beside this file and among the scenarios".to_owned(), |near| {
                    format!("did you mean {near:?}?")
                });
            self.problems
                .push(Problem::new(Code::NoFile, span, format!("there is no file {name:?}")).help(help));
            return None;
        };
        let is_known = trail.iter().any(|number| self.files[*number].path == file.path);
        if is_known || trail.len() >= DEPTH_MAX {
            let mut problem =
                Problem::new(Code::FileCircle, span, format!("{name:?} is extended by itself in the end"));
            for number in trail {
                if let Some((span, _)) = self.reasons.get(number) {
                    problem = problem.note(*span, "by way of this");
                }
            }
            self.problems.push(problem);
            return None;
        }
        let number = self.files.len();
        self.files.push(file);
        self.reasons.insert(number, (span, words));
        Some(number)
    }
}

/// Takes keys away that each file has for itself.
fn without(mut node: Node, keys: &[&str]) -> Node {
    if let Val::Table(table) = &mut node.value {
        keys.iter().for_each(|key| drop(table.remove(key)));
    }
    node
}

/// Puts the values of `own` over those of `base`.
fn merge(base: Node, own: Node) -> Node {
    let (Val::Table(mut under), Val::Table(over)) = (base.value, own.value.clone()) else { return own };
    for (key, node) in over.0 {
        match under.remove(&key.name) {
            Some((_, below)) if node.table().is_some() => under.0.push((key, merge(below, node))),
            Some((_, below)) if key.name == "also" => under.0.push((key, both(below, node))),
            _ => under.0.push((key, node)),
        }
    }
    under.0.sort_by_key(|(key, _): &(Key, Node)| key.span);
    Node { span: own.span, value: Val::Table(under) }
}

/// Steps that several files in a row add.
fn both(base: Node, own: Node) -> Node {
    match (base.value, own.value) {
        (Val::List(mut first), Val::List(second)) => {
            first.extend(second);
            Node { span: own.span, value: Val::List(first) }
        }
        (_, value) => Node { span: own.span, value },
    }
}
