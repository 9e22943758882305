//! Where the promises of scenarios stand in their files, for those who show failures beside them.

use super::repository::path_in;
use crate::cli::files;
use redoubt_reports::{Place, Places};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Returns the places of scenarios, by name. One that is in no file has none.
pub(super) fn of<'a>(
    directory: &Path,
    root: &Path,
    names: impl Iterator<Item = &'a str>,
) -> Result<Places, u8> {
    let paths = files::paths(directory, &files::PLAYED)?;
    let mut places = Places::new();
    for name in names {
        if let Some(path) = file_of(&paths, name) {
            let place = place(&files::read(path)?, path_in(root, path));
            places.insert(name.to_owned(), place);
        }
    }
    Ok(places)
}

/// Returns the file of a scenario: the one of its name, or of what stands before the values of its matrix.
fn file_of<'a>(paths: &'a [PathBuf], name: &str) -> Option<&'a PathBuf> {
    let is_of =
        |stem: &str| name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    paths.iter().filter(|path| is_of(&files::stem(path))).max_by_key(|path| files::stem(path).len())
}

fn place(source: &str, file: String) -> Place {
    let (root, _) = DeTable::parse_recoverable(source);
    let line = |at: usize| source[..at.min(source.len())].matches('\n').count() as u64 + 1;
    let root = root.get_ref();
    // `why` says what is wrong if it does not hold.
    let why = root.iter().find(|(key, _)| key.get_ref() == "why").map(|(key, _)| line(key.span().start));
    let mut place = Place { file, line: why.unwrap_or(1), ..Place::default() };
    let Some(DeValue::Table(expect)) = root.get("expect").map(Spanned::get_ref) else { return place };
    for (key, value) in expect.iter() {
        let items: Vec<(&str, u64)> = match value.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| Some((text(item)?, line(item.span().start)))).collect()
            }
            _ => Vec::new(),
        };
        let own = line(key.span().start);
        for (text, at) in items {
            let (oracle, whole) = match key.get_ref().as_ref() {
                "always" => (text, text.to_owned()),
                "sometimes" => ("sometimes", format!("sometimes {text}")),
                "objectives" => ("objective", format!("objective {text}")),
                "eventually" if text.starts_with("converges") => ("converges", "converges".to_owned()),
                // What is promised to be protected again is judged as an objective.
                "eventually" => ("objective", format!("objective {text}")),
                _ => continue,
            };
            place.promises.entry(oracle.to_owned()).or_insert(own);
            place.promises.insert(whole, at);
        }
    }
    place
}

fn text<'a>(value: &'a Spanned<DeValue<'_>>) -> Option<&'a str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "format = 1\nwhy = \"x\"\n[expect]\nobjectives = [\n  \"lag.max <= 2 s\",\n  \"loss.max <= rpo\",\n]\n\
        always = [\"prefix\"]\neventually = [\"converges within 60 s\", \"protected(erp) within 9 s of cut\"]\n\
        sometimes = [\n  \"spilled\",\n  \"resync-done\",\n]\n";

    #[test]
    fn each_promise_has_its_line() {
        let place = place(SOURCE, "a.toml".into());
        let line = |promise: &str| place.promises.get(promise).copied();
        assert_eq!(place.line, 2);
        assert_eq!([line("objective lag.max <= 2 s"), line("objective loss.max <= rpo")], [Some(5), Some(6)]);
        assert_eq!([line("prefix"), line("converges")], [Some(8), Some(9)]);
        assert_eq!([line("sometimes spilled"), line("sometimes resync-done")], [Some(11), Some(12)]);
        assert_eq!(line("secrets"), None);
        assert!(line("objective").is_some());
    }

    #[test]
    fn a_scenario_of_a_matrix_is_in_the_file_of_its_name() {
        let paths = ["a/wan.toml", "a/wan.slow.toml", "a/wa.toml"].map(PathBuf::from);
        let of = |name: &str| file_of(&paths, name).map(|path| files::stem(path));
        assert_eq!(of("wan"), Some("wan".into()));
        assert_eq!(of("wan.flash"), Some("wan".into()));
        assert_eq!(of("wan.slow.flash"), Some("wan.slow".into()));
        assert_eq!(of("canary"), None);
    }
}
