//! Comments of a file, and the lines they belong to.
//!
//! A comment on a line of its own belongs to what comes next, one behind something to that. So comments move
//! with what they are about when keys are put in order.

use std::collections::BTreeMap;

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) start: usize,
    pub(super) text: String,
    /// Whether nothing else stands on its line.
    pub(super) is_alone: bool,
}

/// Finds the comments of a file: `#` outside of strings.
pub(super) fn find(source: &str) -> Vec<Comment> {
    let bytes = source.as_bytes();
    let mut comments = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                let end = source[at..].find('\n').map_or(source.len(), |length| at + length);
                let line = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
                comments.push(Comment {
                    start: at,
                    text: source[at..end].trim_end().to_owned(),
                    is_alone: source[line..at].trim().is_empty(),
                });
                at = end;
            }
            quote @ (b'"' | b'\'') => at = behind(source, at, quote),
            _ => at += 1,
        }
    }
    comments
}

/// Returns the place behind the string that begins at `at`.
fn behind(source: &str, at: usize, quote: u8) -> usize {
    let bytes = source.as_bytes();
    let is_long = bytes[at..].starts_with(&[quote; 3]);
    let width = if is_long { 3 } else { 1 };
    let mut at = at + width;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 2,
            c if c == quote && (!is_long || bytes[at..].starts_with(&[quote; 3])) => return at + width,
            b'\n' if !is_long => return at,
            _ => at += 1,
        }
    }
    source.len()
}

/// Something that gets a line of its own: a key with its value, a header, an item of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What belongs to one line.
#[derive(Clone, Debug, Default)]
pub(super) struct Around {
    pub(super) before: Vec<String>,
    pub(super) behind: Vec<String>,
    /// Whether an empty line stands before it.
    pub(super) is_apart: bool,
}

/// Comments by the start of the line they belong to, and those behind the last line of a list or of the file,
/// by the start of the list; that of the file is `usize::MAX`.
#[derive(Debug, Default)]
pub(super) struct Attached {
    lines: BTreeMap<usize, Around>,
    tails: BTreeMap<usize, Vec<String>>,
}

impl Attached {
    /// Attaches each comment. `lists` are the lists whose items may get lines.
    pub(super) fn new(source: &str, lines: &[Line], lists: &[Line]) -> Attached {
        let mut attached = Attached::default();
        let comments = find(source);
        for comment in &comments {
            attached.place(source, comment, lines, lists);
        }
        for line in lines {
            // An empty line before the comments of a line is before the line as well.
            let gap = source[..line.start].trim_end_matches([' ', '\t', '{', '[']);
            let mut above = gap.trim_end_matches('\n');
            let mut is_apart = gap.len() - above.len() > 1;
            while !is_apart {
                let last = above.rfind('\n').map_or(above, |newline| &above[newline + 1..]);
                if !last.trim_start().starts_with('#') {
                    break;
                }
                let rest = &above[..above.len() - last.len()];
                above = rest.trim_end_matches('\n');
                is_apart = rest.len() - above.len() > 1;
            }
            attached.lines.entry(line.start).or_default().is_apart = is_apart;
        }
        attached
    }

    fn place(&mut self, source: &str, comment: &Comment, lines: &[Line], lists: &[Line]) {
        let at = comment.start;
        let text = comment.text.clone();
        let within =
            lists.iter().filter(|list| list.start < at && at < list.end).max_by_key(|list| list.start);
        let is_inside =
            |line: &&Line| within.is_none_or(|list| line.start > list.start && line.end <= list.end);
        // In the middle of something that stays on one line: before it.
        let middle = lines.iter().filter(is_inside).find(|line| line.start < at && at < line.end);
        let is_list = |line: &Line| lists.iter().any(|list| list.end == line.end && list.start >= line.start);
        if let Some(line) = middle
            && !is_list(line)
        {
            self.lines.entry(line.start).or_default().before.push(text);
            return;
        }
        if !comment.is_alone {
            let ended =
                lines.iter().filter(is_inside).filter(|line| line.end <= at).max_by_key(|line| line.end);
            if let Some(line) = ended
                && !source[line.end..at].contains('\n')
            {
                self.lines.entry(line.start).or_default().behind.push(text);
                return;
            }
        }
        let next =
            lines.iter().filter(is_inside).filter(|line| line.start > at).min_by_key(|line| line.start);
        match (next, within) {
            (Some(line), _) => self.lines.entry(line.start).or_default().before.push(text),
            (None, Some(list)) => self.tails.entry(list.start).or_default().push(text),
            (None, None) => self.tails.entry(usize::MAX).or_default().push(text),
        }
    }

    /// Returns what belongs to the line that starts here.
    pub(super) fn around(&self, start: usize) -> Around {
        self.lines.get(&start).cloned().unwrap_or_default()
    }

    /// Returns what stands behind the last item of the list that starts here.
    pub(super) fn tail(&self, start: usize) -> &[String] {
        self.tails.get(&start).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_sign_in_a_string_is_no_comment() {
        let source = "a = \"# \\\" #\" # one\nb = '#' # two\nc = \"\"\"\n# no \" #\n\"\"\"\n  # three";
        let texts: Vec<_> =
            find(source).into_iter().map(|comment| (comment.text, comment.is_alone)).collect();
        assert_eq!(texts, [("# one".into(), false), ("# two".into(), false), ("# three".into(), true)]);
    }
}
