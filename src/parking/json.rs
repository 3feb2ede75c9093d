//! Reads one JSON object from a producer: each field is found by its name and may occur once. Errors use the terms of JSON.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

/// Why a JSON text is no event. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("JSON is written in UTF-8, and {0}: send UTF-8")]
    Encoding(String),
    #[error("this is no JSON of an event: {0}")]
    Syntax(String),
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl EventError {
    pub(super) fn field(field: &str, reason: impl fmt::Display) -> EventError {
        EventError::Field { field: field.to_owned(), reason: reason.to_string() }
    }
}

/// The name of the encoding when the bytes are not UTF-8 by their byte order mark or their zeros.
pub(super) fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [1..=255, 0, 0, 0, ..] | [0, 0, 0, 1..=255, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [1..=255, 0, ..] | [0, 1..=255, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// A body without the byte order mark of UTF-8. Other encodings are refused by name.
pub fn without_mark(body: &[u8]) -> Result<&[u8], EventError> {
    match other_encoding(body) {
        Some(encoding) => Err(EventError::Encoding(format!("this looks like {encoding}"))),
        None => Ok(body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)),
    }
}

pub(super) fn text_of(body: &[u8]) -> Result<&str, EventError> {
    let body = without_mark(body)?;
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        EventError::Encoding(format!("byte {} is {:#04x}, which is not UTF-8", at + 1, body[at]))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Text,
    TextOrNull,
    Number,
    /// From 0 to this.
    Whole(u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Text => f.write_str("a text in quotes"),
            Expected::TextOrNull => f.write_str("a text in quotes, or null,"),
            Expected::Number => f.write_str("a number"),
            Expected::Whole(most) => write!(f, "a whole number from 0 to {most}"),
        }
    }
}

/// On `Err` it is another value, in words.
pub(super) fn check(value: &Value, expected: Expected) -> Result<(), String> {
    let is_expected = match expected {
        Expected::Text => value.is_string(),
        Expected::TextOrNull => value.is_string() || value.is_null(),
        Expected::Number => value.is_number(),
        Expected::Whole(most) => value.as_u64().is_some_and(|number| number <= most),
    };
    let found = match value {
        _ if is_expected => return Ok(()),
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "true or false".to_owned(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Err(format!("{found} stands where {expected} belongs"))
}

/// The values of these fields, in their order; `None` for what is missing. A field that has another name or stands twice is refused by
/// name, but only of what is JSON to its end.
pub(super) fn fields<const N: usize>(
    text: &str,
    names: &[&'static str; N],
) -> Result<[Option<Value>; N], EventError> {
    let reading = Cell::new(None);
    let mut parser = serde_json::Deserializer::from_str(text);
    let syntax = |error: serde_json::Error| {
        let place = reading.get().map_or_else(String::new, |name| format!(", in the value of {name:?}"));
        EventError::Syntax(format!("{error}{place}"))
    };
    let object = Object { names, reading: &reading };
    let (values, wrong) = (&mut parser).deserialize_map(object).map_err(syntax)?;
    parser.end().map_err(syntax)?;
    wrong.map_or(Ok(values), Err)
}

struct Object<'n, const N: usize> {
    names: &'n [&'static str; N],
    /// The field whose value is being read.
    reading: &'n Cell<Option<&'static str>>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = ([Option<Value>; N], Option<EventError>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in braces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut values = [const { None }; N];
        let mut wrong = None;
        while let Some(Name(name)) = object.next_key()? {
            let place = self.names.iter().position(|known| *known == name);
            self.reading.set(place.map(|place| self.names[place]));
            let value = object.next_value()?;
            self.reading.set(None);
            match place {
                Some(place) if values[place].is_none() => values[place] = Some(value),
                Some(_) => {
                    let reason = format!("duplicate field `{name}`: an object says each thing once");
                    wrong.get_or_insert(EventError::field(&name, reason));
                }
                None => {
                    let known = self.names.join(", ");
                    let reason = format!("unknown field `{name}`: an event has {known}");
                    wrong.get_or_insert(EventError::field(&name, reason));
                }
            }
        }
        Ok((values, wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<[Option<Value>; 2], String> {
        fields(text, &["a", "b"]).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_read_in_whatever_order_they_stand() {
        assert_eq!(read(r#"{"b":7,"a":"x"}"#), Ok([Some(json!("x")), Some(json!(7))]));
        assert_eq!(read(r#"{"\u0061":null}"#), Ok([Some(Value::Null), None]));
        for (written, value) in [
            ("-1", json!(-1)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("[1,[2]]", json!([1, [2]])),
            ("{\"a\":{},\"a\":1}", json!({"a": 1})),
            ("\"\\\"\"", json!("\"")),
        ] {
            assert_eq!(read(&format!("{{\"a\":{written}}}")), Ok([Some(value), None]));
        }
    }

    /// The name of a duplicate field was shown as ".", and types were those of Rust: "expected u32".
    #[test]
    fn what_is_wrong_is_said_by_name_and_in_the_words_of_json() {
        for (text, reason) in [
            (r#"{"a":1,"b":2,"a":3}"#, "a: duplicate field `a`"),
            (r#"{"a":1,"\u0061":3}"#, "a: duplicate field `a`"),
            (r#"{"a":1,"c":[1]}"#, "c: unknown field `c`: an event has a, b"),
            (r#"{"a":1e999}"#, "in the value of \"a\""),
            (r#"{"b":tru}"#, "in the value of \"b\""),
            (r#"{"a":1} {}"#, "trailing characters"),
            (r#"{"a":1,"a":2"#, "EOF while parsing"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let said = |value: Value, expected| check(&value, expected).unwrap_err();
        let text = said(json!(7), Expected::Text);
        assert_eq!(text, "the number 7 stands where a text in quotes belongs");
        let whole = |value| said(value, Expected::Whole(9));
        assert_eq!(whole(json!(-1)), "the number -1 stands where a whole number from 0 to 9 belongs");
        assert_eq!(whole(json!(10)), "the number 10 stands where a whole number from 0 to 9 belongs");
        assert_eq!(whole(Value::Null), "null stands where a whole number from 0 to 9 belongs");
        assert_eq!(said(json!("x"), Expected::Number), "a text stands where a number belongs");
    }

    /// UTF-16 was "not an object in braces", and so was an object behind a byte order mark.
    #[test]
    fn other_encodings_are_named_and_a_mark_of_utf_8_is_passed_over() {
        let text = r#"{"a":1}"#;
        assert_eq!(text_of(text.as_bytes()), Ok(text));
        assert_eq!(text_of(format!("\u{feff}{text}").as_bytes()), Ok(text));
        let utf_16 = |bytes: fn(u16) -> [u8; 2], text: &str| text.encode_utf16().flat_map(bytes).collect();
        let utf_32 = |bytes: fn(u32) -> [u8; 4], text: &str| {
            text.chars().flat_map(|c| bytes(u32::from(c))).collect::<Vec<u8>>()
        };
        for text in [text.to_owned(), format!("\u{feff}{text}")] {
            let two: [Vec<u8>; 2] = [utf_16(u16::to_le_bytes, &text), utf_16(u16::to_be_bytes, &text)];
            for bytes in two {
                assert_eq!(text_of(&bytes), Err(EventError::Encoding("this looks like UTF-16".into())));
            }
            for bytes in [utf_32(u32::to_le_bytes, &text), utf_32(u32::to_be_bytes, &text)] {
                assert_eq!(text_of(&bytes), Err(EventError::Encoding("this looks like UTF-32".into())));
            }
        }
        let latin_1 = text_of(b"{\"a\":\"\xfc\"}").unwrap_err().to_string();
        assert!(latin_1.contains("byte 7 is 0xfc, which is not UTF-8"), "{latin_1}");
        assert_eq!(text_of(b""), Ok(""));
    }
}
