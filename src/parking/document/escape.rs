//! Escapes what people wrote: a page shows it as text, and never interprets it.

use std::fmt::{self, Display, Write};

pub(in crate::parking) struct Text<'a>(pub(in crate::parking) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A text in a string of a style sheet: everything except ASCII letters and digits is written as its code point, so that neither
/// the string nor the element can end in it.
pub(in crate::parking) struct StyleText<'a>(pub(in crate::parking) &'a str);

impl Display for StyleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_ascii_alphanumeric() => f.write_char(c),
            c if c.is_control() => f.write_str("\\fffd "),
            c => write!(f, "\\{:x} ", u32::from(c)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_as_it_is() {
        for (text, shown) in [
            ("Müller & Söhne", "Müller &amp; Söhne"),
            ("<script>\"'", "&lt;script&gt;&quot;&#39;"),
            ("&lt;", "&amp;lt;"),
            ("a\u{0}b\nc", "a\u{fffd}b\u{fffd}c"),
        ] {
            assert_eq!(Text(text).to_string(), shown);
        }
    }

    #[test]
    fn a_text_ends_neither_a_string_of_a_style_sheet_nor_the_sheet() {
        assert_eq!(StyleText("No 7").to_string(), "No\\20 7");
        assert_eq!(StyleText("\";}</style>ä").to_string(), "\\22 \\3b \\7d \\3c \\2f style\\3e \\e4 ");
        assert_eq!(StyleText("\\\n").to_string(), "\\5c \\fffd ");
    }
}
