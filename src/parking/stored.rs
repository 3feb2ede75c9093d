//! Events as bytes: what an edge stores, what is sent, and what the ledger keeps forever.
//!
//! An encoded event is one byte with the version of the format, then the event in postcard. A reader that does not know a version
//! or a kind keeps the bytes and says so; it never guesses.

use super::event::{Event, EventKind, Moment, Sighting};

pub const VERSION: u8 = 1;

/// Room for an event as most cameras write it: it is encoded without moving.
const EXPECTED_BYTES: usize = 48;

/// Why bytes are no event that this program understands. They are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    #[error("it has version {0}, this program knows version {VERSION}")]
    Version(u8),
    #[error("it does not decode: {0}")]
    Malformed(String),
}

impl Event {
    pub fn to_bytes(&self) -> Vec<u8> {
        let seen = (self.seen != Sighting::default()).then_some(&self.seen);
        let mut bytes = Vec::with_capacity(EXPECTED_BYTES);
        bytes.push(VERSION);
        postcard::to_extend(&(&self.kind, self.at, seen), bytes).expect("an event always encodes")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Event, StoredError> {
        let malformed = |reason: &str| StoredError::Malformed(reason.to_owned());
        let (version, body) = bytes.split_first().ok_or_else(|| malformed("it is empty"))?;
        if *version != VERSION {
            return Err(StoredError::Version(*version));
        }
        let stored = postcard::take_from_bytes::<(EventKind, Moment, Option<Sighting>)>(body);
        let ((kind, at, seen), rest) = stored.map_err(|error| match error {
            postcard::Error::SerdeDeCustom => malformed("it contains an invalid plate or time"),
            error => malformed(&error.to_string()),
        })?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        Ok(Event { kind, at, seen: seen.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn event(json: &str) -> Event {
        Event::from_json(json.as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for json in [
            r#"{"kind":"entry","plate":"B-AB 123","at":"2026-11-23T08:15:00.250+05:30","lane":"2","camera":"n","confidence":0.5,"seen_at":"2026-11-23T08:15:00Z"}"#,
            r#"{"kind":"exit","plate":null,"at":"1969-12-31T23:59:59-11:00"}"#,
            r#"{"kind":"count","occupied":4294967295,"reason":"Zählung"}"#,
            r#"{"kind":"plate_correction","epoch":"6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0","sequence":7,"plate":"а123вс"}"#,
            r#"{"kind":"closed","reason":"flood"}"#,
            r#"{"kind":"closed","camera":"gate"}"#,
            r#"{"kind":"opened"}"#,
        ] {
            let event = event(json);
            assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event), "{json}");
        }
    }

    /// The ledger keeps these bytes for good.
    #[test]
    fn the_form_on_disk_is_this() {
        let event = event(r#"{"kind":"entry","plate":"AB1","at":"1970-01-01T00:00:01+01:00"}"#);
        // version, entry, some, 3 bytes, zigzag(-3,599,000), zigzag(60), no sighting
        let bytes = [1, 0, 1, 3, b'A', b'B', b'1', 175, 170, 183, 3, 120, 0];
        assert_eq!(event.to_bytes(), bytes);
        let closed = self::event(r#"{"kind":"closed","reason":"wet","at":"1970-01-01T00:00:01Z"}"#);
        assert_eq!(closed.to_bytes(), [1, 4, 1, 3, b'w', b'e', b't', 208, 15, 0, 0]);
        let opened = self::event(r#"{"kind":"opened","at":"1970-01-01T00:00:01Z"}"#);
        assert_eq!(opened.to_bytes(), [1, 5, 208, 15, 0, 0]);
    }

    #[test]
    fn what_this_program_does_not_know_is_said() {
        assert_eq!(Event::from_bytes(&[2, 0]), Err(StoredError::Version(2)));
        let unknown_kind = [1, 9, 0, 0, 0];
        assert!(matches!(Event::from_bytes(&unknown_kind), Err(StoredError::Malformed(_))));
        assert!(matches!(Event::from_bytes(&[]), Err(StoredError::Malformed(_))));
        let empty_plate = Event::from_bytes(&[1, 0, 1, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(empty_plate.to_string(), "it does not decode: it contains an invalid plate or time");
    }
}
