//! Tables for spreadsheets and for other programs: CSV by RFC 4180.
//!
//! **Promise.** What people wrote stays text: no cell begins as a formula, whichever separator the reader assumes.
//! **Kept by.** As the OWASP page on CSV injection recommends, an apostrophe goes before a leading `=`, `+`, `-`, `@`, tab,
//! CR or LF, and before the full-width forms, which East Asian versions of Excel take for the same. Where lists are separated
//! by semicolons, a program may split a text that we see as one cell; so the same holds after each separator in it.
//! **Not promised.** That a program reads back such a text as it was: it sees the apostrophe.

use std::borrow::Cow;
use std::io;

/// What makes a cell a formula when it stands first.
const FORMULA: &[char] = &['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// After these characters, some programs begin a new cell.
const SEPARATOR: &[char] = &[',', ';', '\t', '\r', '\n', '|'];

/// A text as a cell. Numbers need none of this, and must not go through it.
pub(in crate::parking) fn text(text: &str) -> Cow<'_, str> {
    let mut safe = String::new();
    let mut kept = 0; // up to here `text` is in `safe`
    let mut first = true;
    for (at, c) in text.char_indices() {
        if first && FORMULA.contains(&c) {
            safe.push_str(&text[kept..at]);
            safe.push('\'');
            kept = at;
        }
        // A quote opens a cell and is no part of it.
        first = SEPARATOR.contains(&c) || (first && c == '"');
    }
    if safe.is_empty() {
        return Cow::Borrowed(text);
    }
    safe.push_str(&text[kept..]);
    Cow::Owned(safe)
}

/// Writes one row. All rows of a table have as many cells as its header.
pub(in crate::parking) fn write_row<T: AsRef<[u8]>>(
    out: &mut impl io::Write,
    cells: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).buffer_capacity(1024).from_writer(out);
    writer.write_record(cells)?;
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_begins_a_cell_as_a_formula() {
        for (written, cell) in [
            ("", ""),
            ("Bull Ring", "Bull Ring"),
            ("=1+1", "'=1+1"),
            ("+49 711", "'+49 711"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t'=1"),
            ("\r=1", "'\r'=1"),
            ("＝1", "'＝1"),
            ("a=b-c", "a=b-c"),
            ("a;=1;b", "a;'=1;b"),
            ("a,\"=1", "a,\"'=1"),
            ("a\n@b", "a\n'@b"),
            ("\"=1", "\"'=1"),
            ("8 - 12; -", "8 - 12; -"),
            ("'=1", "'=1"),
        ] {
            assert_eq!(text(written), cell, "{written:?}");
        }
    }

    #[test]
    fn rows_follow_rfc_4180() {
        let mut table = Vec::new();
        for row in [["a", "b"], ["x, y", "say \"hi\""], ["", "1\n2"]] {
            write_row(&mut table, row).unwrap();
        }
        assert_eq!(String::from_utf8(table).unwrap(), "a,b\r\n\"x, y\",\"say \"\"hi\"\"\"\r\n,\"1\n2\"\r\n");
    }
}
