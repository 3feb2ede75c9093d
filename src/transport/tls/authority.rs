//! A small certificate authority: it makes keys and certificates, as values.
//!
//! **Promise.** A certificate of a garage cannot stand for a server, nor one of a server for a garage, nor either issue others.
//! **Kept by.** Extended key usages, which rustls checks on both ends; basic constraints with a path of length 0.
//! **Not promised.** Anything about files: see `server::certificates`.

use super::certificate::{CertificateFacts, Serial, garage_uri};
use crate::messaging::SiteName;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeSet;
use webpki::EndEntityCert;
use zeroize::{Zeroize, Zeroizing};

/// For how many days an authority is valid, and what it issues.
const AUTHORITY_DAYS: i64 = 3650;
const ISSUED_DAYS: i64 = 400;
/// Certificates are valid from some days back on: the clocks of garages are wrong.
const BEFORE_DAYS: i64 = 7;
const SERIAL_BYTES: usize = 16;

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A server, by the names and addresses at which edges reach it.
    Server { hosts: Vec<String> },
    /// An edge, by the garages for which it may speak.
    Edge { garages: BTreeSet<SiteName> },
}

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: Zeroizing<String>,
    pub serial: Serial,
    pub not_after: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    #[error("the certificate of the authority cannot be read")]
    Certificate,
    #[error(
        "the key does not belong to the certificate of the authority, or \"server certs init\" did not make them"
    )]
    OtherKey,
    #[error("the certificate of the authority expired at {0}")]
    Expired(Timestamp),
    #[error("the certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// The key and the certificate that sign others.
pub struct Authority {
    key: AuthorityKey,
    pem: String,
    not_after: Timestamp,
}

/// Its bytes are overwritten when it is dropped.
struct AuthorityKey(KeyPair);

impl Drop for AuthorityKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Authority {
    pub fn create(now: Timestamp) -> Result<Authority, AuthorityError> {
        Authority::certify(AuthorityKey(KeyPair::generate()?), now)
    }

    /// With a new certificate for the same key once half of its time has passed. What was issued before stays valid, also where only
    /// the earlier certificate is known: key and name are the same.
    pub fn renewed(self, now: Timestamp) -> Result<Authority, AuthorityError> {
        let left = self.not_after.duration_since(now);
        if left > SignedDuration::from_hours(24 * AUTHORITY_DAYS / 2) {
            return Ok(self);
        }
        Authority::certify(self.key, now)
    }

    fn certify(key: AuthorityKey, now: Timestamp) -> Result<Authority, AuthorityError> {
        let mut params = params_of(&key.0);
        params.serial_number = Some(new_serial());
        set_validity(&mut params, day(now, -BEFORE_DAYS), day(now, AUTHORITY_DAYS));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key.0)?;
        let facts = CertificateFacts::read(certificate.der()).ok_or(AuthorityError::Certificate)?;
        let pem = certificate.pem();
        Ok(Authority { key, pem, not_after: facts.not_after })
    }

    /// Reads what [`Authority::create`] made, from PEM.
    pub fn load(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let key = AuthorityKey(KeyPair::from_pem(key)?);
        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        let der = der.map_err(|_| AuthorityError::Certificate)?;
        let facts = CertificateFacts::read(&der).ok_or(AuthorityError::Certificate)?;
        {
            let parsed = EndEntityCert::try_from(&der).map_err(|_| AuthorityError::Certificate)?;
            let is_its_key = parsed.subject_public_key_info().as_ref() == key.0.subject_public_key_info();
            // What is issued names its issuer by this name, and by no other.
            if !is_its_key || !parsed.subject().ends_with(name_of(&key.0).as_bytes()) {
                return Err(AuthorityError::OtherKey);
            }
        }
        Ok(Authority { key, pem: certificate.to_owned(), not_after: facts.not_after })
    }

    /// Its certificate, which both ends trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    pub fn key(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.0.serialize_pem())
    }

    /// Makes a key and a certificate for it. It never outlives the authority.
    pub fn issue(&self, holder: &Holder, now: Timestamp) -> Result<Issued, AuthorityError> {
        if self.not_after <= now {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let key = AuthorityKey(KeyPair::generate()?);
        let mut params = CertificateParams::default();
        let (name, usage) = match holder {
            Holder::Server { .. } => ("fogpost server", ExtendedKeyUsagePurpose::ServerAuth),
            Holder::Edge { .. } => ("fogpost edge", ExtendedKeyUsagePurpose::ClientAuth),
        };
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names_of(holder)?;
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(new_serial());
        let last = day(now, ISSUED_DAYS).min(day(self.not_after, 0));
        set_validity(&mut params, day(now, -BEFORE_DAYS), last);
        let issuer = Issuer::new(params_of(&self.key.0), &self.key.0);
        let certificate = params.signed_by(&key.0, &issuer)?;
        let facts = CertificateFacts::read(certificate.der()).ok_or(AuthorityError::Certificate)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: Zeroizing::new(key.0.serialize_pem()),
            serial: facts.serial,
            not_after: facts.not_after,
        })
    }
}

fn names_of(holder: &Holder) -> Result<Vec<SanType>, AuthorityError> {
    let uri = |garage| Ok(SanType::URI(garage_uri(garage).try_into()?));
    let host = |host: &String| match host.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) if is_host_name(host) => Ok(SanType::DnsName(host.as_str().try_into()?)),
        Err(_) => Err(AuthorityError::Host(host.clone())),
    };
    match holder {
        Holder::Server { hosts } => hosts.iter().map(host).collect(),
        Holder::Edge { garages } => garages.iter().map(uri).collect(),
    }
}

fn is_host_name(text: &str) -> bool {
    rustls::pki_types::DnsName::try_from(text).is_ok()
}

/// What everything issued says of its issuer: it follows from the key alone.
fn params_of(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name_of(key));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Two authorities never share a name.
fn name_of(key: &KeyPair) -> String {
    format!("fogpost authority {}", &blake3::hash(&key.subject_public_key_info()).to_hex()[..16])
}

fn new_serial() -> SerialNumber {
    let mut bytes: [u8; SERIAL_BYTES] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and of full length
    SerialNumber::from_slice(&bytes)
}

/// The day (UTC) that is this many days after `now`.
fn day(now: Timestamp, days: i64) -> Date {
    let then = now.saturating_add(SignedDuration::from_hours(24 * days)).unwrap_or(now);
    TimeZone::UTC.to_datetime(then).date()
}

/// Each from the beginning of the day (UTC).
fn set_validity(params: &mut CertificateParams, not_before: Date, not_after: Date) {
    let begin = |day: Date| {
        rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
    };
    params.not_before = begin(not_before);
    params.not_after = begin(not_after);
}
