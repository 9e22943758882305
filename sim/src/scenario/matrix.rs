//! `[matrix]`: one file, several scenarios. Each combination of values takes the place of `$name` wherever it
//! stands.

use super::codes::Code;
use super::problem::Problem;
use super::tree::{Node, Table, Val};
use std::collections::{BTreeMap, BTreeSet};

/// Most combinations of one file.
const CELLS_MAX: usize = 64;

/// One combination.
pub(super) struct Cell {
    /// What its values add to the name of the scenario.
    pub(super) suffix: String,
    /// The tree with the values in place.
    pub(super) root: Node,
}

/// Names and values of a matrix, in the order of the file.
type Axes = Vec<(String, Vec<String>)>;

/// Returns the combinations; without a matrix, or with a broken one, the tree as it is.
pub(super) fn cells(root: &Node, problems: &mut Vec<Problem>) -> Vec<Cell> {
    let as_it_is = || vec![Cell { suffix: String::new(), root: root.clone() }];
    let Some(matrix) = root.table().and_then(|table| table.get("matrix")) else { return as_it_is() };
    let told = problems.len();
    let axes = axes(matrix, root, problems);
    let count = axes.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    if count.is_none_or(|count| count > CELLS_MAX) {
        let what = format!("the matrix has more than {CELLS_MAX} combinations");
        let problem = Problem::new(Code::TooMany, matrix.span, what);
        problems.push(problem.help("leave values out, or make two files of it"));
    }
    if problems.len() > told {
        // What stands for a value cannot be judged; the first combination stands for all.
        let first: BTreeMap<&str, &str> = axes
            .iter()
            .filter_map(|(name, values)| Some((name.as_str(), values.first()?.as_str())))
            .collect();
        let root = replaced(root, &first, &mut BTreeSet::new());
        return vec![Cell { suffix: String::new(), root }];
    }
    let mut cells: Vec<BTreeMap<&str, &str>> = vec![BTreeMap::new()];
    for (name, values) in &axes {
        let with = |cell: &BTreeMap<_, _>, value| {
            let mut cell = cell.clone();
            cell.insert(name.as_str(), value);
            cell
        };
        cells = cells
            .iter()
            .flat_map(|cell| values.iter().map(move |value| with(cell, value.as_str())))
            .collect();
    }
    let mut used = BTreeSet::new();
    let made = cells.iter().map(|cell| {
        let suffix = axes.iter().map(|(name, _)| format!(".{}", slug(cell[name.as_str()]))).collect();
        Cell { suffix, root: replaced(root, cell, &mut used) }
    });
    let made: Vec<Cell> = made.collect();
    for (key, _) in matrix.table().into_iter().flat_map(Table::iter) {
        if !used.contains(&key.name) {
            let what = format!("the matrix varies {:?}, and nothing uses it", key.name);
            let problem = Problem::new(Code::UnusedVariable, key.span, what);
            problems.push(problem.help(format!("use it as \"${}\", or delete it", key.name)));
        }
    }
    made
}

fn axes(matrix: &Node, root: &Node, problems: &mut Vec<Problem>) -> Axes {
    let Some(table) = matrix.table() else {
        problems.push(Problem::new(Code::WrongType, matrix.span, "[matrix] must be a table"));
        return Vec::new();
    };
    let vary = root.table().and_then(|table| table.get("vary")).and_then(Node::table);
    let mut axes = Vec::new();
    for (key, node) in table.iter() {
        if let Some((other, _)) = vary.and_then(|vary| vary.0.iter().find(|(name, _)| name.name == key.name))
        {
            let what = format!("{:?} is drawn by [vary] as well", key.name);
            problems.push(Problem::new(Code::Twice, key.span, what).note(other.span, "there"));
        }
        let values: Vec<String> = node
            .list()
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.text().map(str::to_owned))
            .collect();
        let is_whole = node.list().is_some_and(|items| items.len() == values.len() && !items.is_empty());
        if !is_whole {
            let problem = Problem::new(Code::WrongType, node.span, "a matrix takes lists of strings");
            problems.push(problem.help(format!("write {} = [\"flash\", \"spinning\"]", key.name)));
        }
        let slugs: BTreeSet<String> = values.iter().map(|value| slug(value)).collect();
        if is_whole && slugs.len() < values.len() {
            let what = "two of these values give scenarios of the same name";
            problems.push(Problem::new(Code::Twice, node.span, what));
        }
        axes.push((key.name.clone(), values));
    }
    axes
}

/// Returns a value as a part of a name.
fn slug(value: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = value.chars().map(plain).collect();
    text.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// Returns the tree with each `$name` replaced; `[matrix]` itself goes.
fn replaced(node: &Node, values: &BTreeMap<&str, &str>, used: &mut BTreeSet<String>) -> Node {
    let value = match &node.value {
        Val::Text(text) => Val::Text(text_with(text, values, used)),
        Val::List(items) => Val::List(items.iter().map(|item| replaced(item, values, used)).collect()),
        Val::Table(table) => {
            let kept = table.iter().filter(|(key, _)| key.name != "matrix");
            Val::Table(Table(kept.map(|(key, node)| (key.clone(), replaced(node, values, used))).collect()))
        }
        other => other.clone(),
    };
    Node { span: node.span, value }
}

fn text_with(text: &str, values: &BTreeMap<&str, &str>, used: &mut BTreeSet<String>) -> String {
    let mut parts = text.split('$');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).unwrap_or(part.len());
        match values.get(&part[..end]) {
            Some(value) => {
                used.insert(part[..end].to_owned());
                out.push_str(value);
                out.push_str(&part[end..]);
            }
            None => {
                out.push('$');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_place_of_their_names_and_of_nothing_else() {
        let values = BTreeMap::from([("cut", "5 s"), ("on", "ps1")]);
        let mut used = BTreeSet::new();
        assert_eq!(text_with("$cut + $gap + 1 s", &values, &mut used), "5 s + $gap + 1 s");
        assert_eq!(text_with("$cutting", &values, &mut used), "$cutting");
        assert_eq!(used, BTreeSet::from(["cut".to_owned()]));
        assert_eq!(slug("2 MiB"), "2-mib");
    }
}
