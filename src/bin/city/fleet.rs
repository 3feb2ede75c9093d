//! The daemons of this run: one server, and an edge for each garage.
//!
//! **Promise.** Each has one data directory and one set of addresses for the whole run, however often it is killed and started
//! again.
//! **Kept by.** A [`DaemonSlot`], which runs one process after another. Its addresses are those that the first one picked.
//! Under chaos they are on a loopback address of their own: outgoing connections come from 127.0.0.1, so that none of them can
//! take the port that a killed daemon comes back to.

use super::children::{self, ChildDaemon, ChildError, ChildSpec};
use super::plan::GarageSite;
use super::settings::Settings;
use clap::ValueEnum;
use fogpost::fault_proxy::FaultProxy;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc};

/// One daemon, over all its processes.
#[derive(Debug)]
pub struct DaemonSlot {
    pub name: String,
    /// `http://127.0.0.1:5581`, the same for every process.
    pub http: String,
    spec: ChildSpec,
    logs: PathBuf,
    /// Empty while it is dead. Locked from a kill until the next process is ready.
    child: Arc<Mutex<Option<ChildDaemon>>>,
    deaths: mpsc::UnboundedSender<ChildError>,
    earlier_peak_rss: AtomicU64,
    earlier_count: AtomicU64,
}

/// A daemon that was killed, until it is up again. While this exists, nobody else touches the slot.
pub struct KilledDaemon {
    child: OwnedMutexGuard<Option<ChildDaemon>>,
}

impl DaemonSlot {
    /// Takes a daemon that is up. Its next processes are started with `addresses` instead of those that it picked.
    fn take(
        child: ChildDaemon,
        spec: ChildSpec,
        addresses: Vec<OsString>,
        logs: &Path,
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> DaemonSlot {
        DaemonSlot {
            name: child.name.clone(),
            http: child.http.clone(),
            spec: spec.with(addresses),
            logs: logs.to_owned(),
            child: Arc::new(Mutex::new(Some(child))),
            deaths: deaths.clone(),
            earlier_peak_rss: AtomicU64::new(0),
            earlier_count: AtomicU64::new(0),
        }
    }

    /// Returns once the daemon is up. Waits as long as it is dead.
    pub async fn up(&self) {
        drop(self.child.lock().await);
    }

    /// SIGKILL, once it is up.
    pub async fn kill(&self) -> Result<KilledDaemon, ChildError> {
        let mut child = self.child.clone().lock_owned().await;
        if let Some(child) = child.take() {
            self.earlier_peak_rss.fetch_max(child.peak_rss_bytes().unwrap_or(0), Ordering::Relaxed);
            child.kill().await?;
        }
        Ok(KilledDaemon { child })
    }

    /// Starts it again, on the same data directory and addresses; returns once it is ready.
    ///
    /// To be called on a thread that lives as long as the city, as [`children::start`] asks: a worker of the runtime does.
    pub async fn revive(&self, mut killed: KilledDaemon) -> Result<(), ChildError> {
        let child = children::start(self.spec.clone(), &self.logs, self.deaths.clone()).await?;
        *killed.child = Some(child);
        Ok(())
    }

    /// Tells the city that this daemon cannot be had back.
    pub fn report_death(&self, error: ChildError) {
        // It fails when the city is gone already; then nobody needs to know.
        let _ = self.deaths.send(error);
    }

    /// Notes what a process that ends now had counted, as far as its counter could be read.
    pub fn add_earlier_count(&self, count: u64) {
        self.earlier_count.fetch_add(count, Ordering::Relaxed);
    }

    /// What all earlier processes had counted, as far as their counters could be read: at least this much.
    pub fn earlier_count(&self) -> u64 {
        self.earlier_count.load(Ordering::Relaxed)
    }

    /// The most memory that any of its processes held.
    pub async fn peak_rss_bytes(&self) -> Option<u64> {
        let now = self.child.lock().await.as_ref().and_then(ChildDaemon::peak_rss_bytes);
        now.max(Some(self.earlier_peak_rss.load(Ordering::Relaxed)).filter(|peak| *peak > 0))
    }

    async fn stop(&self) -> Result<(), String> {
        match self.child.lock().await.take() {
            Some(child) => child.stop().await,
            None => Ok(()), // It was dead, and will not come back.
        }
    }

    /// Runs a command of this daemon's program on its data directory; returns what it printed. `Err` says what went wrong.
    pub async fn run_command(&self, arguments: &[&str]) -> Result<String, String> {
        let words = arguments.join(" ");
        let ran = children::run_command(self.spec.role, arguments, &self.spec.data_dir).await;
        let ran = ran.map_err(|error| format!("cannot run `{} {words}`: {error}", self.name))?;
        let said = [&ran.stdout[..], &ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if ran.status.success() { Ok(said) } else { Err(format!("`{} {words}` failed: {said}", self.name)) }
    }
}

/// Daemons that serve.
#[derive(Debug)]
pub struct Fleet {
    pub server: DaemonSlot,
    /// In the order of the garages.
    pub edges: Vec<DaemonSlot>,
    /// Under chaos, the connections from the edges to the server, in the same order.
    pub links: Vec<FaultProxy>,
    /// Notified when a link carries events to the server.
    pub deliveries: Arc<Notify>,
}

impl Fleet {
    /// Returns once all daemons serve; the server with the file `config`. From then on the death of one is sent to `deaths`.
    ///
    /// To be called on a thread that lives as long as the city, as [`children::start`] asks.
    pub async fn start(
        settings: &Settings,
        config: &Path,
        dir: &Path,
        sites: &[GarageSite],
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> Result<Fleet, ChildError> {
        let logs = dir.join("logs");
        let host = |slot| if settings.flags.chaos { own_host(slot) } else { Ipv4Addr::LOCALHOST };
        let log_format = settings.flags.log_format.to_possible_value().expect("no format is hidden");
        let log_format = words(&["--log-format", log_format.get_name()]);

        let mut arguments = log_format.clone();
        arguments.extend([OsString::from("--config"), config.into()]);
        let (name, data_dir) = ("server".to_owned(), dir.join("server"));
        let spec = ChildSpec { name, role: children::SERVER, data_dir, arguments };
        let picking =
            words(&["--listen", &format!("tcp://{}:0", host(0)), "--http", &format!("{}:0", host(0))]);
        let child = children::start(spec.clone().with(picking), &logs, deaths.clone()).await?;
        let (http, listen) = (child.address("http.addr")?, child.address("listen.addr")?);
        let picked = words(&["--listen", &format!("tcp://{listen}"), "--http", &http.to_string()]);
        let server = DaemonSlot::take(child, spec, picked, &logs, deaths);

        let deliveries = Arc::new(Notify::new());
        let mut links = Vec::new();
        let mut starting = Vec::with_capacity(sites.len());
        for (index, site) in sites.iter().enumerate() {
            let name = format!("edge-{}", index + 1);
            let mut connect_to = listen;
            if settings.flags.chaos {
                let at = SocketAddr::from((host(index + 1), 0));
                let seed = settings.flags.seed ^ index as u64;
                let link = FaultProxy::open(at, listen, seed, deliveries.clone()).await;
                let link = link.map_err(|source| ChildError::NotStarted { name: name.clone(), source })?;
                connect_to = link.address();
                links.push(link);
            }
            let capacity = site.capacity.to_string();
            let mut arguments = words(&["--server", &format!("tcp://{connect_to}"), "--capacity", &capacity]);
            arguments.extend(words(&["--garage-name", &site.name]));
            arguments.extend(log_format.clone());
            let data_dir = dir.join(&name);
            let spec = ChildSpec { name, role: children::EDGE, data_dir, arguments };
            starting.push(Self::start_edge(spec, host(index + 1), &logs, deaths));
        }
        let edges = futures_util::future::try_join_all(starting).await?;
        Ok(Fleet { server, edges, links, deliveries })
    }

    async fn start_edge(
        spec: ChildSpec,
        host: Ipv4Addr,
        logs: &Path,
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> Result<DaemonSlot, ChildError> {
        let picking = words(&["--http", &format!("{host}:0")]);
        let child = children::start(spec.clone().with(picking), logs, deaths.clone()).await?;
        let picked = words(&["--http", &child.address("http.addr")?.to_string()]);
        Ok(DaemonSlot::take(child, spec, picked, logs, deaths))
    }

    /// Ends all daemons, the server last, and says which of them did not end well.
    pub async fn stop(&self) -> Vec<String> {
        let edges = self.edges.iter().map(DaemonSlot::stop);
        let mut complaints: Vec<Result<(), String>> = futures_util::future::join_all(edges).await;
        complaints.push(self.server.stop().await);
        complaints.into_iter().filter_map(Result::err).collect()
    }
}

/// A loopback address that no other slot of this city has. Only Linux answers on all of 127.0.0.0/8.
fn own_host(slot: usize) -> Ipv4Addr {
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    // Two cities at a time rarely share one, and if they do, they still pick free ports.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let slot = slot as u8; // There are at most MAX_GARAGES.
    Ipv4Addr::new(127, high | 0x80, low, slot + 2)
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
    fn every_slot_has_a_loopback_address_of_its_own() {
        let hosts: HashSet<Ipv4Addr> = (0..=MAX_GARAGES).map(own_host).collect();
        assert!(hosts.iter().all(|host| host.is_loopback() && *host != Ipv4Addr::LOCALHOST));
        assert_eq!(hosts.len(), MAX_GARAGES + 1);
    }
}
