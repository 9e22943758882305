//! Markdown from words that nobody vouches for: what a run said is never markup, never a command, never invisible.

/// Returns a text without what would act on a terminal or hide from a reader: controls, and letters that turn the
/// direction of writing, are written out. At most `longest` letters stay.
pub(crate) fn clean(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for letter in text.chars().take(longest) {
        match letter {
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            _ if is_invisible(letter) => out.extend(letter.escape_unicode()),
            _ => out.push(letter),
        }
    }
    let left = text.chars().count().saturating_sub(longest);
    if left > 0 {
        out.push_str(&format!("… ({left} more letters)"));
    }
    out
}

fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns a text on one line.
pub(crate) fn line(text: &str, longest: usize) -> String {
    clean(text, longest).replace('\n', " ⏎ ")
}

fn longest_run_of_ticks(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0)
}

/// Returns a text as code within a line.
pub(crate) fn code(text: &str, longest: usize) -> String {
    let text = line(text, longest);
    if text.trim().is_empty() {
        return "` `".to_owned();
    }
    let fence = "`".repeat(longest_run_of_ticks(&text) + 1);
    // A space beside a tick is part of the fence.
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Returns a text as a link if it is a plain address, else as code.
pub(crate) fn link(text: &str, longest: usize) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~:/?#@!$&'+,;=%".contains(letter);
    match text.starts_with("https://") && text.len() <= longest && text.chars().all(is_plain) {
        true => format!("<{text}>"),
        false => code(text, longest),
    }
}

/// Returns a text as code within a cell of a table, where a bar would begin the next one.
pub(crate) fn cell(text: &str, longest: usize) -> String {
    code(text, longest).replace('|', "\\|")
}

/// Returns a text as a block of code.
pub(crate) fn block(text: &str, longest: usize) -> String {
    let text = clean(text, longest);
    let fence = "`".repeat(longest_run_of_ticks(&text).max(2) + 1);
    format!("{fence}text\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_the_code_it_stands_in() {
        assert_eq!(code("a``b", 9), "```a``b```");
        assert_eq!(code("`", 9), "`` ` ``");
        assert_eq!(code("a\nb", 9), "`a ⏎ b`");
        assert_eq!(cell("a|b", 9), "`a\\|b`");
        assert_eq!(block("x\n```\n# y\n", 99), "````text\nx\n```\n# y\n````\n");
        assert_eq!(code("", 9), "` `");
        assert_eq!(link("https://a.example/i/1?x#y", 99), "<https://a.example/i/1?x#y>");
        assert_eq!(link("https://a>x", 99), "`https://a>x`");
    }

    #[test]
    fn nothing_is_invisible_and_nothing_is_endless() {
        assert_eq!(clean("\u{1b}[31mred\u{202e}", 99), "\\u{1b}[31mred\\u{202e}");
        assert_eq!(clean("abcdef", 4), "abcd… (2 more letters)");
        assert_eq!(line("a\r\nb", 9), "a\\u{d} ⏎ b");
    }
}
