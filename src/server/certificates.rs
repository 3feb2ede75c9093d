//! The directory of the authority: `server certs`. It works whether a server runs or not; a running one takes changes up by itself.
//!
//! **Promise.** Each certificate that was given out is in the list of those issued. Nobody else can read a key.
//! **Kept by.** The list is on disk before the files of a certificate are. Files have mode 0600, and a lock on the directory lets one
//! command at a time change it.
//!
//! | file | content |
//! | --- | --- |
//! | `ca.pem`, `ca-key.pem` | the authority; the key is needed for issuing only |
//! | `certificate.pem`, `key.pem` | those of the server |
//! | `issued` | a line of JSON for each certificate that was issued |
//! | `revoked` | the serial of each revoked one at the beginning of a line |

use crate::codes::{self, Code, Coded};
use crate::messaging::SiteName;
use crate::store::private::hand_over_file;
use crate::transport::tls::authority::{Authority, AuthorityError, Holder, Issued};
use crate::transport::tls::certificate::Serial;
use crate::transport::tls::files::read_revoked;
use crate::transport::tls::{TlsError, TlsFiles};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("cannot use {path:?}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("there is no authority in {0:?}. To make one: server certs init --host NAME")]
    NoAuthority(PathBuf),
    #[error(
        "{0:?} has a part of an authority and not all of it. Nothing was changed. Restore ca.pem and ca-key.pem, or give another --tls-dir"
    )]
    PartOfAuthority(PathBuf),
    #[error("another command works in {0:?}. Nothing was changed. Run the command again in a moment")]
    Busy(PathBuf),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Revoked(#[from] TlsError),
    #[error("line {line} of {path:?} cannot be read: {source}. Nothing was changed")]
    Issued { path: PathBuf, line: usize, source: serde_json::Error },
    #[error(
        "no certificate with the serial {0} was issued here. Nothing was changed. To list them: server certs list"
    )]
    NoSuchSerial(Serial),
    #[error("no valid certificate names the garage {0:?}. Nothing was changed")]
    NoneForGarage(String),
}

impl Coded for CertsError {
    fn code(&self) -> Code {
        codes::CERTIFICATES_NOT_MADE
    }
}

/// A certificate as the list has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateLine {
    pub serial: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub garages: BTreeSet<SiteName>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    Valid,
    Expired,
    Revoked,
}

/// What [`CertsDir::init`] did.
pub struct Initialised {
    pub is_new: bool,
    pub issued: CertificateLine,
}

/// See the module.
pub struct CertsDir<'a> {
    dir: &'a Path,
}

impl CertsDir<'_> {
    pub fn of(dir: &Path) -> CertsDir<'_> {
        CertsDir { dir }
    }

    /// Makes an authority, unless there is one, and a certificate for the server. The authority's own certificate is renewed in time.
    pub fn init(&self, hosts: Vec<String>, now: Timestamp) -> Result<Initialised, CertsError> {
        make_dir(self.dir)?;
        let _lock = self.lock()?;
        let (is_new, authority) = match (self.ca().exists(), self.ca_key().exists()) {
            (true, true) => (false, self.authority()?.renewed(now)?),
            (false, false) => (true, Authority::create(now)?),
            _ => return Err(CertsError::PartOfAuthority(self.dir.to_owned())),
        };
        // Before anything is written: a host may not be valid.
        let holder = Holder::Server { hosts };
        let issued = authority.issue(&holder, now)?;
        if is_new {
            write(&self.ca_key(), authority.key().as_bytes())?;
            write(&self.ca(), authority.certificate().as_bytes())?;
        }
        let line = self.give(&authority, holder, &issued, self.dir, now)?;
        Ok(Initialised { is_new, issued: line })
    }

    /// Makes a certificate, with everything that its holder needs in `out`. Files there are replaced.
    pub fn issue(&self, holder: Holder, out: &Path, now: Timestamp) -> Result<CertificateLine, CertsError> {
        let authority = self.authority()?;
        let _lock = self.lock()?;
        let issued = authority.issue(&holder, now)?;
        make_dir(out)?;
        self.give(&authority, holder, &issued, out, now)
    }

    /// Revokes certificates by their serials, and all that name a garage. Returns those that were not revoked before.
    pub fn revoke(
        &self,
        serials: &[Serial],
        garage: Option<&SiteName>,
        now: Timestamp,
    ) -> Result<Vec<CertificateLine>, CertsError> {
        if !self.dir.is_dir() {
            return Err(CertsError::NoAuthority(self.dir.to_owned()));
        }
        let _lock = self.lock()?;
        let listed = self.list(now)?;
        if let Some(unknown) = serials.iter().find(|serial| !listed.iter().any(|(line, _)| line.has(serial)))
        {
            return Err(CertsError::NoSuchSerial(unknown.clone()));
        }
        let is_meant = |line: &CertificateLine, state| {
            let by_garage = garage.is_some_and(|garage| line.garages.contains(garage))
                && state == CertificateState::Valid;
            by_garage || serials.iter().any(|serial| line.has(serial))
        };
        let meant = listed.into_iter().filter(|(line, state)| is_meant(line, *state));
        let meant: Vec<_> = meant.collect();
        if let (Some(garage), true) = (garage, meant.is_empty()) {
            return Err(CertsError::NoneForGarage(garage.to_string()));
        }
        let fresh = meant.into_iter().filter(|(_, state)| *state != CertificateState::Revoked);
        let fresh: Vec<CertificateLine> = fresh.map(|(line, _)| line).collect();
        let path = self.revoked();
        let before = read_if_there(&path)?;
        let lines = fresh.iter().map(|line| format!("{} {now} {}\n", line.serial, line.holder()));
        let text = lines.fold(before, |text, line| text + &line);
        write(&path, text.as_bytes())?;
        Ok(fresh)
    }

    /// All certificates that were issued, the oldest first.
    pub fn list(&self, now: Timestamp) -> Result<Vec<(CertificateLine, CertificateState)>, CertsError> {
        let (path, revoked) = (self.issued(), read_revoked(&self.revoked())?);
        let text = read_if_there(&path)?;
        let state = |line: &CertificateLine| match line.serial.parse() {
            Ok(serial) if revoked.contains(&serial) => CertificateState::Revoked,
            _ if line.expires_at <= now => CertificateState::Expired,
            _ => CertificateState::Valid,
        };
        let lines = (1..).zip(text.lines()).map(|(number, text)| {
            let unreadable = |source| CertsError::Issued { path: path.clone(), line: number, source };
            let line: CertificateLine = serde_json::from_str(text).map_err(unreadable)?;
            let state = state(&line);
            Ok((line, state))
        });
        lines.collect()
    }

    /// Notes a certificate in the list, then writes its files.
    fn give(
        &self,
        authority: &Authority,
        holder: Holder,
        issued: &Issued,
        out: &Path,
        now: Timestamp,
    ) -> Result<CertificateLine, CertsError> {
        let (hosts, garages) = match holder {
            Holder::Server { hosts } => (hosts, BTreeSet::new()),
            Holder::Edge { garages } => (Vec::new(), garages),
        };
        let expires_at = issued.not_after;
        let line =
            CertificateLine { serial: issued.serial.to_string(), hosts, garages, issued_at: now, expires_at };
        let encoded = serde_json::to_string(&line).expect("texts and times always encode");
        let list = read_if_there(&self.issued())? + &encoded + "\n";
        write(&self.issued(), list.as_bytes())?;
        let files = TlsFiles::in_dir(out);
        // A daemon that looks between the two takes neither: they do not fit.
        write(&files.ca, authority.certificate().as_bytes())?;
        write(&files.key, issued.key.as_bytes())?;
        write(&files.certificate, issued.certificate.as_bytes())?;
        Ok(line)
    }

    fn authority(&self) -> Result<Authority, CertsError> {
        if !self.ca().exists() {
            return Err(CertsError::NoAuthority(self.dir.to_owned()));
        }
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).map(Zeroizing::new);
            text.map_err(|source| CertsError::File { path, source })
        };
        Ok(Authority::load(&read(self.ca())?, &read(self.ca_key())?)?)
    }

    /// Held until it is dropped.
    fn lock(&self) -> Result<File, CertsError> {
        let failed = |source| CertsError::File { path: self.dir.to_owned(), source };
        let lock = File::open(self.dir).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(CertsError::Busy(self.dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn ca(&self) -> PathBuf {
        TlsFiles::in_dir(self.dir).ca
    }
    fn ca_key(&self) -> PathBuf {
        self.dir.join("ca-key.pem")
    }
    fn issued(&self) -> PathBuf {
        self.dir.join("issued")
    }
    fn revoked(&self) -> PathBuf {
        TlsFiles::in_dir(self.dir).revoked
    }
}

impl CertificateLine {
    fn has(&self, serial: &Serial) -> bool {
        self.serial.parse().as_ref() == Ok(serial)
    }

    /// For people: `server localhost`, or `garage 1, Bull Ring`.
    pub fn holder(&self) -> String {
        let garages: Vec<&str> = self.garages.iter().map(SiteName::as_str).collect();
        match garages.is_empty() {
            true => format!("server {}", self.hosts.join(", ")),
            false => format!("garage {}", garages.join(", ")),
        }
    }
}

fn read_if_there(path: &Path) -> Result<String, CertsError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| CertsError::File { path: path.to_owned(), source }),
    }
}

fn make_dir(dir: &Path) -> Result<(), CertsError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)
        .and_then(|()| hand_over_file(dir))
        .map_err(|source| CertsError::File { path: dir.to_owned(), source })
}

/// Replaces a file by one with mode 0600 that is on disk.
fn write(path: &Path, content: &[u8]) -> Result<(), CertsError> {
    let written = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        hand_over_file(new.path())?;
        new.persist(path)?;
        File::open(dir)?.sync_all()
    };
    written().map_err(|source| CertsError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use std::os::unix::fs::PermissionsExt;

    fn now() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn garages(names: &[&str]) -> BTreeSet<SiteName> {
        names.iter().map(|name| SiteName::new(name).unwrap()).collect()
    }

    #[test]
    fn what_was_issued_is_listed_and_revoked_by_serial_or_by_garage() {
        let dir = tempfile::tempdir().unwrap();
        let (own, out) = (dir.path().join("certs"), dir.path().join("g1"));
        let certs = CertsDir::of(&own);
        assert!(matches!(
            certs.issue(Holder::Edge { garages: garages(&["1"]) }, &out, now()),
            Err(CertsError::NoAuthority(_))
        ));
        let made = certs.init(vec!["localhost".into(), "127.0.0.1".into()], now()).unwrap();
        assert!(made.is_new);
        let first = certs.issue(Holder::Edge { garages: garages(&["1"]) }, &out, now()).unwrap();
        let second =
            certs.issue(Holder::Edge { garages: garages(&["1", "Bull Ring"]) }, &out, now()).unwrap();
        let other =
            certs.issue(Holder::Edge { garages: garages(&["2"]) }, &dir.path().join("g2"), now()).unwrap();
        let states =
            || -> Vec<_> { certs.list(now()).unwrap().into_iter().map(|(_, state)| state).collect() };
        let (valid, revoked) = (CertificateState::Valid, CertificateState::Revoked);
        assert_eq!(states(), [valid; 4]);

        let serial = [first.serial.to_uppercase().parse().unwrap()];
        assert_eq!(certs.revoke(&serial, None, now()).unwrap(), [first]);
        assert_eq!(states(), [valid, revoked, valid, valid]);
        assert_eq!(certs.revoke(&serial, None, now()).unwrap(), [], "it is revoked already");
        assert_eq!(certs.revoke(&[], garages(&["1"]).first(), now()).unwrap(), [second]);
        assert_eq!(states(), [valid, revoked, revoked, valid]);
        let none = certs.revoke(&[], garages(&["3"]).first(), now());
        assert!(matches!(none, Err(CertsError::NoneForGarage(_))));
        let unknown = certs.revoke(&["ab".parse().unwrap()], None, now());
        assert!(matches!(unknown, Err(CertsError::NoSuchSerial(_))));
        let later = other.expires_at;
        let last = certs.list(later).unwrap().into_iter().map(|(_, state)| state).collect::<Vec<_>>();
        assert_eq!(last, [CertificateState::Expired, revoked, revoked, CertificateState::Expired]);
    }

    #[test]
    fn a_second_init_keeps_the_authority_and_no_file_is_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("certs");
        let certs = CertsDir::of(&own);
        let host = || vec!["a.example".to_owned()];
        let first = certs.init(host(), now()).unwrap();
        let read = |name: &str| fs::read(own.join(name)).unwrap();
        let (ca, certificate) = (read("ca.pem"), read("certificate.pem"));
        let second = certs.init(host(), now()).unwrap();
        assert!(!second.is_new && second.issued.serial != first.issued.serial);
        assert_eq!(read("ca.pem"), ca);
        assert_ne!(read("certificate.pem"), certificate);
        for entry in fs::read_dir(&own).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
        }
        let years = SignedDuration::from_hours(24 * 365 * 6);
        certs.init(host(), now() + years).unwrap();
        assert_ne!(read("ca.pem"), ca, "half of its time has passed");
        let wrong = certs.init(vec!["not a host".into()], now());
        assert!(matches!(wrong, Err(CertsError::Authority(AuthorityError::Host(_)))));
        fs::remove_file(own.join("ca-key.pem")).unwrap();
        assert!(matches!(certs.init(host(), now()), Err(CertsError::PartOfAuthority(_))));
    }

    #[test]
    fn two_commands_do_not_work_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        let certs = CertsDir::of(dir.path());
        certs.init(vec!["a.example".into()], now()).unwrap();
        let held = certs.lock().unwrap();
        assert!(matches!(certs.revoke(&[], None, now()), Err(CertsError::Busy(_))));
        drop(held);
        assert_eq!(certs.revoke(&[], None, now()).unwrap(), []);
    }
}
