//! The daemons of this run: one server, and an edge for each garage.
//!
//! **Promise.** Each has one data directory and one set of addresses for the whole run, however often it is killed
//! and started again.
//! **Kept by.** A [`Berth`], in which one process after the other lies. Its addresses are those that the first one
//! picked, and in bad weather they are on a loopback address of their own: outgoing connections come from 127.0.0.1,
//! so that none of them can take the port that a killed daemon comes back to.

use super::children::{self, Child, ChildError, Spec};
use super::plan::Site;
use super::settings::Settings;
use fogpost::fault_proxy::FaultProxy;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc};

/// Where the daemons keep what they have.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Removed with its content when it is dropped.
    temporary: Option<TempDir>,
}

impl Place {
    /// Creates the directory that was asked for, or a temporary one.
    pub fn create(wanted: Option<&Path>) -> io::Result<Place> {
        let (path, temporary) = match wanted {
            Some(path) => (path.to_owned(), None),
            None => {
                let temporary = TempDir::with_prefix("fogpost-city-")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(path.join("logs"))?;
        Ok(Place { path, temporary })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a temporary directory, unless its data must be looked at; returns what is left.
    pub fn leave(self, keep: bool) -> Option<PathBuf> {
        match self.temporary {
            Some(temporary) if keep => Some(temporary.keep()),
            Some(_) => None,
            None => Some(self.path),
        }
    }
}

/// The place of one daemon, over all its lives.
#[derive(Debug)]
pub struct Berth {
    pub name: String,
    /// `http://127.0.0.1:5581`, the same in every life.
    pub http: String,
    spec: Spec,
    logs: PathBuf,
    /// Empty while it is dead. Locked from a kill until the next life is ready.
    child: Arc<Mutex<Option<Child>>>,
    deaths: mpsc::UnboundedSender<ChildError>,
    former_peak_rss: AtomicU64,
    former_count: AtomicU64,
}

/// A daemon that was killed, until it is up again. While this exists, nobody else touches the berth.
pub struct Vacancy {
    berth: OwnedMutexGuard<Option<Child>>,
}

impl Berth {
    /// Takes a daemon that is up; its next lives are started with `addresses` instead of those that it picked.
    fn take(
        child: Child,
        mut spec: Spec,
        addresses: Vec<OsString>,
        logs: &Path,
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> Berth {
        spec.arguments.extend(addresses);
        Berth {
            name: child.name.clone(),
            http: child.http.clone(),
            spec,
            logs: logs.to_owned(),
            child: Arc::new(Mutex::new(Some(child))),
            deaths: deaths.clone(),
            former_peak_rss: AtomicU64::new(0),
            former_count: AtomicU64::new(0),
        }
    }

    /// Returns once the daemon is up. Waits as long as it is dead.
    pub async fn up(&self) {
        drop(self.child.lock().await);
    }

    /// SIGKILL, once it is up.
    pub async fn kill(&self) -> Result<Vacancy, ChildError> {
        let mut berth = self.child.clone().lock_owned().await;
        if let Some(child) = berth.take() {
            self.former_peak_rss.fetch_max(child.peak_rss_bytes().unwrap_or(0), Ordering::Relaxed);
            child.kill().await?;
        }
        Ok(Vacancy { berth })
    }

    /// Starts it again, on the same data directory and addresses; returns once it is ready.
    ///
    /// To be called on a thread that lives as long as the city, as [`children::start`] asks: that of a runtime's worker
    /// does.
    pub async fn revive(&self, mut vacancy: Vacancy) -> Result<(), ChildError> {
        let child = children::start(self.spec.clone(), &self.logs, self.deaths.clone())?.ready().await?;
        *vacancy.berth = Some(child);
        Ok(())
    }

    /// Tells the city that this daemon cannot be had back.
    pub fn mourn(&self, error: ChildError) {
        // A city that is gone need not know.
        let _ = self.deaths.send(error);
    }

    /// What a life that ends now had counted, as far as its counter could be read.
    pub fn add_former_count(&self, count: u64) {
        self.former_count.fetch_add(count, Ordering::Relaxed);
    }

    /// What all former lives had counted, as far as their counters could be read: at least so much.
    pub fn former_count(&self) -> u64 {
        self.former_count.load(Ordering::Relaxed)
    }

    /// The most memory that any of its lives held.
    pub async fn peak_rss_bytes(&self) -> Option<u64> {
        let now = self.child.lock().await.as_ref().and_then(Child::peak_rss_bytes);
        now.max(Some(self.former_peak_rss.load(Ordering::Relaxed)).filter(|peak| *peak > 0))
    }

    async fn stop(&self) -> Result<(), String> {
        match self.child.lock().await.take() {
            Some(child) => child.stop().await,
            None => Ok(()), // It was dead, and nobody will bring it back.
        }
    }
}

/// Daemons that serve.
#[derive(Debug)]
pub struct Fleet {
    pub server: Berth,
    /// In the order of the garages.
    pub edges: Vec<Berth>,
    /// In bad weather, the ways from the edges to the server, in the same order.
    pub links: Vec<FaultProxy>,
    /// Told when a link carries events to the server.
    pub deliveries: Arc<Notify>,
}

impl Fleet {
    /// Returns once all daemons serve; the server does by `config`. The death of one is told to `deaths` from then on.
    ///
    /// To be called on a thread that lives as long as the city, as [`children::start`] asks.
    pub async fn start(
        settings: &Settings,
        config: &Path,
        place: &Path,
        sites: &[Site],
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> Result<Fleet, ChildError> {
        let logs = place.join("logs");
        let host = |berth| if settings.chaos { own_host(berth) } else { Ipv4Addr::LOCALHOST };
        let mut arguments = words(&["--log-format", settings.log_format.as_str()]);
        arguments.extend([OsString::from("--config"), config.into()]);
        let spec = Spec {
            name: "server".to_owned(),
            role: children::SERVER,
            data_dir: place.join("server"),
            arguments,
        };
        let server = host(0);
        let picking = words(&["--listen", &format!("tcp://{server}:0"), "--http", &format!("{server}:0")]);
        let child = children::start(spec.clone().with(picking), &logs, deaths.clone())?.ready().await?;
        let (http, listen) = (child.address("http.addr")?, child.socket_address("listen.addr")?);
        let picked = words(&["--listen", &format!("tcp://{listen}"), "--http", &http]);
        let server = Berth::take(child, spec, picked, &logs, deaths);

        let deliveries = Arc::new(Notify::new());
        let mut links = Vec::new();
        let mut starting = Vec::with_capacity(sites.len());
        for (index, site) in sites.iter().enumerate() {
            let name = format!("edge-{}", index + 1);
            let host = host(index + 1);
            let mut way = listen;
            if settings.chaos {
                let at = SocketAddr::from((host, 0));
                let link =
                    FaultProxy::open(at, listen, settings.seed ^ index as u64, deliveries.clone()).await;
                let link = link.map_err(|source| ChildError::NotStarted { name: name.clone(), source })?;
                way = link.address();
                links.push(link);
            }
            let capacity = site.capacity.to_string();
            let mut arguments = words(&["--server", &format!("tcp://{way}")]);
            arguments.extend(words(&["--garage-name", &site.name, "--capacity", &capacity]));
            arguments.extend(words(&["--log-format", settings.log_format.as_str()]));
            let data_dir = place.join(&name);
            let spec = Spec { name, role: children::EDGE, data_dir, arguments };
            let picking = words(&["--http", &format!("{host}:0")]);
            starting.push((spec.clone(), children::start(spec.with(picking), &logs, deaths.clone())?));
        }
        let mut edges = Vec::with_capacity(sites.len());
        for (spec, edge) in starting {
            let child = edge.ready().await?;
            let picked = words(&["--http", &child.address("http.addr")?]);
            edges.push(Berth::take(child, spec, picked, &logs, deaths));
        }
        Ok(Fleet { server, edges, links, deliveries })
    }

    /// Ends all daemons, the server last, and says which of them did not end well.
    pub async fn stop(&self) -> Vec<String> {
        let edges = self.edges.iter().map(Berth::stop);
        let mut complaints: Vec<Result<(), String>> = futures_util::future::join_all(edges).await;
        complaints.push(self.server.stop().await);
        complaints.into_iter().filter_map(Result::err).collect()
    }

    /// Lets `server verify` judge the ledger that the stopped server leaves.
    pub async fn verify_ledger(&self) -> Result<(), String> {
        let judged = children::run_task(children::SERVER, "verify", &self.server.spec.data_dir).await;
        let judged = judged.map_err(|error| format!("cannot run `server verify`: {error}"))?;
        if judged.status.success() {
            return Ok(());
        }
        let said = [judged.stdout, judged.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Err(format!("`server verify` finds fault with the ledger: {}", said.trim()))
    }
}

/// A loopback address that no other berth of this city has. Only Linux answers on all of 127.0.0.0/8.
fn own_host(berth: usize) -> Ipv4Addr {
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    // Two cities at a time rarely share one, and if they do, they still pick free ports.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let berth = berth as u8; // There are at most MAX_GARAGES.
    Ipv4Addr::new(127, high | 0x80, low, berth + 2)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogpost::traffic::recording::MAX_GARAGES;
    use std::collections::HashSet;

    #[test]
    fn every_berth_has_a_loopback_address_of_its_own() {
        let hosts: HashSet<Ipv4Addr> = (0..=MAX_GARAGES).map(own_host).collect();
        assert!(hosts.iter().all(|host| host.is_loopback() && *host != Ipv4Addr::LOCALHOST));
        assert_eq!(hosts.len(), MAX_GARAGES + 1);
    }
}
