//! Bytes as hexadecimal text, and values in them, for answers in JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// `None`: the text was not made by [`hex`].
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| rest.is_empty())
}

/// An answer for another copy of this program. `form` says what it looks like: another form is of another version.
pub fn packed(form: u32, part: &impl Serialize) -> Value {
    let bytes = postcard::to_stdvec(part).expect("parts always encode");
    json!({ "form": form, "part": hex(&bytes) })
}

/// Reads what [`packed`] made. `Err`: why it cannot be read.
pub fn unpacked<T: DeserializeOwned>(form: u32, answer: &Value) -> Result<T, String> {
    if answer["form"] != form {
        return Err(format!("it has the form {}, not {form}", answer["form"]));
    }
    let bytes = answer["part"].as_str().and_then(unhex).ok_or("it is not in hexadecimal digits")?;
    postcard::from_bytes(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!((hex(&[]), unhex("")), (String::new(), Some(Vec::new())));
        assert_eq!((unhex("0"), unhex("0g"), unhex("ää")), (None, None, None));
    }
}
