//! Text for a terminal: columns that stand below each other, and names of strangers made harmless.
//!
//! Counts columns of the screen, not characters. Knows no terminal and nothing of what is shown.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: &str = "  ";

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Names.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A text without what would move the cursor, colour the screen or turn the reading direction: such characters are
/// written as `\u{1b}`.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many columns of the screen a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text, cut so that it takes no more than `room` columns; `…` stands where something is missing.
#[must_use]
pub fn cut(text: &str, room: usize) -> Cow<'_, str> {
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut left = room.saturating_sub(1);
    let mut short = String::new();
    for c in text.chars() {
        let takes = c.width().unwrap_or(0);
        if takes > left {
            break;
        }
        left -= takes;
        short.push(c);
    }
    if room > 0 {
        short.push('…');
    }
    Cow::Owned(short)
}

/// One line of cells, each in a column of its width. A longer cell is whole, and what follows it stands further right.
#[must_use]
pub fn line<'t>(cells: impl IntoIterator<Item = (&'t str, usize, Side)>) -> String {
    let mut line = String::new();
    for (at, (text, room, side)) in cells.into_iter().enumerate() {
        if at > 0 {
            line.push_str(GAP);
        }
        let pad = room.saturating_sub(width(text));
        if side == Side::Right {
            line.extend(std::iter::repeat_n(' ', pad));
        }
        line.push_str(text);
        if side == Side::Left {
            line.extend(std::iter::repeat_n(' ', pad));
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// A table below its titles, as wide as it has to be; a line break ends each line.
#[must_use]
pub fn table(titles: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<_> = titles.iter().map(|(title, _)| width(title)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(cell).max(*widest);
        }
    }
    let columns = || titles.iter().zip(&widths).map(|((title, side), room)| (*title, *room, *side));
    let mut text = line(columns());
    text.push('\n');
    for row in rows {
        let cells = columns().zip(row).map(|((_, room, side), cell)| (&**cell, room, side));
        text.push_str(&line(cells));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_spelled_out() {
        for (text, clean) in [
            ("add", "add"),
            ("größer 加", "größer 加"),
            ("\u{1b}[2Ja\nb", "\\u{1b}[2Ja\\u{a}b"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}\u{200f}", "a\\u{202e}b\\u{2066}\\u{200f}"),
        ] {
            assert_eq!(harmless(text), clean);
        }
    }

    #[test]
    fn a_text_is_cut_by_columns() {
        for (text, room, short) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("加加", 4, "加加"),
            ("加加", 3, "加…"),
            ("加加", 2, "…"),
            ("ab", 1, "…"),
            ("ab", 0, ""),
        ] {
            assert_eq!(cut(text, room), short, "{text:?} in {room}");
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let titles = [("NAME", Side::Left), ("N", Side::Right), ("WHY", Side::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&titles, &[row(["加", "10", ""]), row(["a", "1", "x"])]);
        assert_eq!(text, "NAME   N  WHY\n加    10\na      1  x\n");
        assert_eq!(table(&titles, &[]), "NAME  N  WHY\n");
        let long = line([("longer", 2, Side::Left), ("x", 1, Side::Left)]);
        assert_eq!(long, "longer  x");
    }
}
