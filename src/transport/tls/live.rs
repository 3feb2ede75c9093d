//! What one end shows and trusts, as its files are now.
//!
//! **Promise.** New files are in force from the next connection on. Files that cannot be used, such as a key that is still being
//! copied, change nothing: what was in force stays, and the next look tries again.

use super::certificate::{CertificateFacts, Serial};
use super::files::{Loaded, Stamp, TlsError, TlsFiles};
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The wall clock. It belongs to the daemon, so that a test can move it.
pub type WallClock = fn() -> Timestamp;

/// A configuration of rustls, `C`, that follows the files.
pub struct Live<C> {
    files: TlsFiles,
    clock: WallClock,
    build: Build<C>,
    state: watch::Sender<FilesState<C>>,
}

type Build<C> = fn(&Loaded, Arc<CryptoProvider>, Arc<dyn TimeProvider>) -> Result<C, TlsError>;

pub(super) struct FilesState<C> {
    /// The files as they were when they were last read.
    stamp: Stamp,
    current: Result<Arc<InForce<C>>, Arc<TlsError>>,
}

/// What is in force.
pub struct InForce<C> {
    pub config: Arc<C>,
    pub revoked: BTreeSet<Serial>,
    pub own: CertificateFacts,
    authority: CertificateFacts,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Reload {
    Unchanged,
    TakenUp,
    /// They changed and cannot be used; what was in force before still is.
    Refused(TlsError),
}

/// When a certificate of ours expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// "own", or "authority" for that of the authority.
    pub certificate: &'static str,
    pub at: Timestamp,
    pub days_left: i64,
}

/// Warnings begin this many days before a certificate expires.
const WARN_DAYS: i64 = 30;

impl Expiry {
    pub fn is_soon(&self) -> bool {
        self.days_left < WARN_DAYS
    }
}

impl<C> Live<C> {
    /// Reads the files. On an error there is nothing to show and nobody to trust yet: [`Live::in_force`] returns it until files that
    /// can be used are found.
    pub(super) fn new(files: TlsFiles, clock: WallClock, build: Build<C>) -> Live<C> {
        let stamp = files.stamp();
        let current = load(&files, clock, build).map(Arc::new).map_err(Arc::new);
        Live { files, clock, build, state: watch::Sender::new(FilesState { stamp, current }) }
    }

    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What is in force, or why there is nothing yet.
    pub fn in_force(&self) -> Result<Arc<InForce<C>>, Arc<TlsError>> {
        self.state.borrow().current.clone()
    }

    /// Reads the files again if they changed. It reads the disk, so not on a thread of the runtime.
    pub fn reload(&self) -> Reload {
        let stamp = self.files.stamp();
        {
            let state = self.state.borrow();
            if state.stamp == stamp {
                return Reload::Unchanged;
            }
        }
        match load(&self.files, self.clock, self.build) {
            Ok(loaded) => {
                self.state.send_replace(FilesState { stamp, current: Ok(Arc::new(loaded)) });
                Reload::TakenUp
            }
            Err(error) => {
                // Not sent: nothing changed for those who wait. Other files have another stamp, so they are tried.
                self.state.send_if_modified(|state| {
                    state.stamp = stamp;
                    false
                });
                Reload::Refused(error)
            }
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<FilesState<C>> {
        self.state.subscribe()
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// When our own certificate and that of the authority expire; empty while nothing is in force.
    pub fn expiries(&self) -> Vec<Expiry> {
        let Ok(in_force) = self.in_force() else { return Vec::new() };
        let days_left = |at: Timestamp| at.duration_since(self.now()).as_hours().div_euclid(24);
        [("own", &in_force.own), ("authority", &in_force.authority)]
            .map(|(certificate, facts)| {
                let at = facts.not_after;
                Expiry { certificate, at, days_left: days_left(at) }
            })
            .into()
    }
}

fn load<C>(files: &TlsFiles, clock: WallClock, build: Build<C>) -> Result<InForce<C>, TlsError> {
    let loaded = files.load()?;
    let time = Arc::new(BoundedClock { clock, not_before: loaded.own.not_before });
    let config = build(&loaded, Arc::new(rustls::crypto::ring::default_provider()), time)?;
    let (own, authority, revoked) = (loaded.own.clone(), loaded.authority.clone(), loaded.revoked.clone());
    Ok(InForce { config: Arc::new(config), revoked, own, authority })
}

/// The time by which certificates are judged. A clock that shows a time before our own certificate was made is certainly wrong, as
/// that of a garage's computer after a power cut is; it then counts as showing that time, so that events go on being delivered.
#[derive(Debug)]
struct BoundedClock {
    clock: WallClock,
    not_before: Timestamp,
}

impl TimeProvider for BoundedClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = (self.clock)().max(self.not_before).as_second();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).ok()?)))
    }
}
