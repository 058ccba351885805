//! Text from outside, such as names of files, for a terminal or a log.

/// The text with its control characters, and those that turn the direction of writing, escaped as
/// Rust does: a name can neither command a terminal nor forge a line.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        // Unicode, chapter 23.2: embeddings, overrides and isolates, and separators of lines.
        let turns = matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        let separates = matches!(character, '\u{2028}' | '\u{2029}');
        match character.is_control() || turns || separates {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_text_is_escaped() {
        assert_eq!(printable("é 猫/1.jpg"), "é 猫/1.jpg");
        assert_eq!(printable("a\x1b[2J\n\u{202e}b"), r"a\u{1b}[2J\n\u{202e}b");
    }
}
