//! The headers of a POST request that describe its body, and its idempotency key.

use crate::codes;
use crate::http::Problem;
use crate::messaging::page::KEY_MAX;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;

/// Checks that a body is plain text of one of these media types, the first of which is the one to advise.
pub(super) fn check_content(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let unsupported = |code, detail: String| {
        let detail = format!("{detail}. Nothing was stored");
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).code(code))
    };
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    for encoding in encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let encoding = String::from_utf8_lossy(encoding.trim_ascii()).to_ascii_lowercase();
        if !matches!(encoding.as_str(), "" | "identity") {
            let detail = format!(
                "Content-Encoding: {encoding:?} is not supported: send the body as it is, without this header"
            );
            return unsupported(codes::UNSUPPORTED_CONTENT_ENCODING, detail);
        }
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase());
    if !parts.next().is_some_and(|essence| types.contains(&essence.as_str())) {
        let detail = format!("send it with \"Content-Type: {}\"", types[0]);
        return unsupported(codes::UNSUPPORTED_MEDIA_TYPE, detail);
    }
    let charset = parts.find_map(|part| Some(part.strip_prefix("charset=")?.trim_matches('"').to_owned()));
    match charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii" | "") => Ok(()),
        Some(other) => {
            let detail = format!("Content-Type: JSON must be in UTF-8, not in {other:?}: send UTF-8");
            unsupported(codes::UNSUPPORTED_CHARSET, detail)
        }
    }
}

/// The header `Idempotency-Key`, either as plain text (1 to 255 visible ASCII characters) or as the quoted string of the draft
/// standard (RFC 8941, section 3.3.3; spaces are allowed there). Both forms of one key are one key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Bytes>, String> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err("it is given more than once: send one key for each event or batch".into());
    }
    let text = value.as_bytes();
    let key = match text.strip_prefix(b"\"") {
        Some(rest) => unquoted(rest)?,
        None if text.iter().all(u8::is_ascii_graphic) => text.to_vec(),
        None => {
            return Err(format!(
                "a key has 1 to {KEY_MAX} visible ASCII characters; put a key with spaces in quotes"
            ));
        }
    };
    match key.len() {
        1..=KEY_MAX => Ok(Some(key.into())),
        length => Err(format!("a key has 1 to {KEY_MAX} visible ASCII characters, this one has {length}")),
    }
}

/// The text between quotes; `rest` is what follows the opening quote.
fn unquoted(rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut key = Vec::with_capacity(rest.len());
    let mut rest = rest.iter();
    let unclosed = || "its closing quote is missing".to_owned();
    loop {
        match rest.next().ok_or_else(unclosed)? {
            b'"' if rest.as_slice().is_empty() => return Ok(key),
            b'"' => {
                return Err(
                    "something follows its closing quote; within quotes, write a quote as \\\"".into()
                );
            }
            b'\\' => match rest.next().ok_or_else(unclosed)? {
                c @ (b'"' | b'\\') => key.push(*c),
                _ => {
                    return Err(
                        "within quotes, a backslash is allowed only before a quote or a backslash".into()
                    );
                }
            },
            c @ b' '..=b'~' => key.push(*c),
            _ => return Err("within quotes, only ASCII characters from space to ~ are allowed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn key(values: &[&str]) -> Result<Option<Bytes>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        idempotency_key(&headers)
    }

    /// `"k-7"` and `k-7` were two keys, so that a producer whose library was updated stored its event twice.
    #[test]
    fn a_key_is_one_key_with_and_without_quotes() {
        for (bare, quoted) in [("k-7", "\"k-7\""), ("a\"b\\c", r#""a\"b\\c""#), ("'k'", "\"'k'\"")] {
            assert_eq!(key(&[bare]).unwrap().unwrap(), bare.as_bytes());
            assert_eq!(key(&[quoted]), key(&[bare]), "{quoted}");
        }
        assert_eq!(key(&["\"shift 7, lane 2\""]).unwrap().unwrap(), &b"shift 7, lane 2"[..]);
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn what_is_not_a_key_is_refused_with_the_reason() {
        let long = "k".repeat(256);
        for (values, reason) in [
            (&["\"k"][..], "closing quote is missing"),
            (&["\""], "closing quote is missing"),
            (&["\"k\\\""], "closing quote is missing"),
            (&["\"k\\"], "closing quote is missing"),
            (&["\"a\"b\""], "something follows its closing quote"),
            (&["\"a\";n=1"], "something follows its closing quote"),
            (&["\"a\\n\""], "a backslash is allowed only before"),
            (&["\"a\u{fc}\""], "from space to ~"),
            (&["\"a\tb\""], "from space to ~"),
            (&["a b"], "with spaces in quotes"),
            (&["\u{fc}"], "visible ASCII characters"),
            (&["\"\""], "this one has 0"),
            (&[""], "this one has 0"),
            (&[long.as_str()], "this one has 256"),
            (&["k", "k"], "more than once"),
        ] {
            let error = key(values).unwrap_err();
            assert!(error.contains(reason), "{values:?}: {error}");
        }
    }

    proptest! {
        /// The oracle is the writer of RFC 8941.
        #[test]
        fn what_is_written_in_quotes_is_read(text in "[ -~]{1,255}") {
            let written = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(key(&[&written]).unwrap().unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn only_plain_utf_8_of_the_right_type_is_taken() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let mut map = HeaderMap::new();
            headers.for_each(|(name, value)| {
                map.append(name, value);
            });
            check_content(&map, &["application/json"]).map_err(|problem| problem.code.as_str())
        };
        let json = ("content-type", "application/json");
        assert_eq!(check(&[json]), Ok(()));
        assert_eq!(check(&[("content-type", "Application/JSON; charset=\"UTF-8\"")]), Ok(()));
        assert_eq!(check(&[json, ("content-encoding", "identity")]), Ok(()));
        for encoding in ["gzip", "identity, br", "deflate", "x-gzip", "utf-8"] {
            let problem = check(&[json, ("content-encoding", encoding)]);
            assert_eq!(problem, Err("unsupported_content_encoding"), "{encoding}");
        }
        let two = [json, ("content-encoding", "identity"), ("content-encoding", "gzip")];
        assert_eq!(check(&two), Err("unsupported_content_encoding"));
        assert_eq!(check(&[("content-type", "application/json;charset=utf-16")]), Err("unsupported_charset"));
        assert_eq!(check(&[("content-type", "text/plain")]), Err("unsupported_media_type"));
        assert_eq!(check(&[]), Err("unsupported_media_type"));
    }
}
