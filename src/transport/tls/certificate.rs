//! What a certificate says: its serial, the garages that it may speak for, how long it is valid.
//!
//! rustls has verified a peer's certificate before it is read here, so this code decides nothing about trust.

use crate::messaging::SiteName;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use webpki::EndEntityCert;

const GARAGE_URI: &str = "fogpost://garage/";
/// All but the unreserved characters of RFC 3986 are encoded, so that a name has one spelling.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The name of a garage as a certificate has it: `fogpost://garage/Bull%20Ring`.
pub fn garage_uri(garage: &SiteName) -> String {
    format!("{GARAGE_URI}{}", utf8_percent_encode(garage.as_str(), ENCODED))
}

/// The garage that a URI of a certificate names; `None` for any other URI, and for another spelling of a name.
fn garage_of(uri: &str) -> Option<SiteName> {
    let name = percent_decode_str(uri.strip_prefix(GARAGE_URI)?).decode_utf8().ok()?;
    let garage = SiteName::new(&name).ok()?;
    (garage_uri(&garage) == uri).then_some(garage)
}

/// The number that an authority gave to a certificate, without leading zeros. Written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    pub fn new(big_endian: &[u8]) -> Serial {
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        Serial(big_endian[zeros..].to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the serial of a certificate: hexadecimal digits, such as 1f09ab33")]
pub struct SerialError(String);

impl FromStr for Serial {
    type Err = SerialError;

    /// As other programs write it, too: in upper case, with colons, without its leading zero.
    fn from_str(text: &str) -> Result<Serial, SerialError> {
        let error = || SerialError(text.to_owned());
        let mut digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(error());
        }
        if digits.len() % 2 == 1 {
            digits.insert(0, b'0');
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.map(|bytes| Serial::new(&bytes)).ok_or_else(error)
    }
}

/// A certificate as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    pub serial: Serial,
    /// The garages that its holder may speak for.
    pub garages: BTreeSet<SiteName>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// `None`: it cannot be read as an X.509 certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<CertificateFacts> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let (not_before, not_after) = validity(certificate)?;
        Some(CertificateFacts {
            serial: Serial::new(parsed.serial()),
            garages: parsed.valid_uri_names().filter_map(garage_of).collect(),
            not_before,
            not_after,
        })
    }
}

/// The validity of a certificate (RFC 5280, section 4.1), which webpki checks and does not show.
fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let within = |(tag, content, _)| (tag == SEQUENCE).then_some(content);
    let to_be_signed = within(element(within(element(certificate)?)?)?)?;
    let (tag, _, mut rest) = element(to_be_signed)?;
    // The version is optional. Serial, algorithm of the signature and issuer follow.
    for _ in 0..if tag == VERSION { 3 } else { 2 } {
        (_, _, rest) = element(rest)?;
    }
    let (_, not_before, rest) =
        element(within(element(rest)?)?).map(|(tag, text, rest)| (tag, time(tag, text), rest))?;
    let (tag, text, _) = element(rest)?;
    Some((not_before?, time(tag, text)?))
}

/// The first element of a DER encoding: its tag, its content, and what comes after it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = input.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        _ => return None, // longer than any certificate that TLS carries
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` (of 1950 to 2049) or GeneralizedTime `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        UTC_TIME => format!("{}{text}", if text.get(..2)? >= "50" { "19" } else { "20" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let moment = DateTime::strptime("%Y%m%d%H%M%SZ", &text).ok()?;
    TimeZone::UTC.to_timestamp(moment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_garage_has_one_spelling_in_a_certificate() {
        for name in ["1", "Bull Ring", "Parkhaus Süd/2", "100%", "a?b#c", "*"] {
            let garage = SiteName::new(name).unwrap();
            assert_eq!(garage_of(&garage_uri(&garage)), Some(garage), "{name}");
        }
        assert_eq!(garage_uri(&SiteName::new("Bull Ring").unwrap()), "fogpost://garage/Bull%20Ring");
        for other in [
            "fogpost://garage/Bull Ring",
            "fogpost://garage/%42ull",
            "fogpost://garage/",
            "fogpost://garage/%FF",
            "FOGPOST://garage/1",
            "https://garage/1",
            "fogpost://garage/1/",
        ] {
            assert_eq!(garage_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_serial_is_read_in_every_usual_spelling() {
        let serial = Serial::new(&[0, 0x0a, 0xbc]);
        assert_eq!(serial.to_string(), "0abc");
        for text in ["0abc", "0A:BC", "abc", "000abc"] {
            assert_eq!(text.parse(), Ok(serial.clone()), "{text}");
        }
        for text in ["", ":", "0x1", "12 34", "ü"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        let read = |tag, text: &str| time(tag, text.as_bytes()).map(|time| time.to_string());
        assert_eq!(read(0x17, "261127201400Z").as_deref(), Some("2026-11-27T20:14:00Z"));
        assert_eq!(read(0x17, "991231235959Z").as_deref(), Some("1999-12-31T23:59:59Z"));
        assert_eq!(read(0x18, "20500101000000Z").as_deref(), Some("2050-01-01T00:00:00Z"));
        for (tag, text) in
            [(0x17, "2"), (0x17, "2611272014Z"), (0x18, "261127201400Z"), (0x02, "261127201400Z")]
        {
            assert_eq!(read(tag, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let authority =
            super::super::authority::Authority::create("2026-11-27T00:00:00Z".parse().unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
        assert!(CertificateFacts::read(&certificate).is_some());
        for end in 0..certificate.len() {
            assert_eq!(validity(&certificate[..end]), None);
        }
    }
}
