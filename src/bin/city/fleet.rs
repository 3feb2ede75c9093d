//! The daemons of this run: one server, and an edge for each garage.
//!
//! **Promise.** Each has one data directory and one set of addresses for the whole run, however often it is killed and started
//! again. One that ends by itself is reported with its status and the end of its log.
//! **Kept by.** A [`DaemonSlot`], which runs one process after another, and [`Fleet::first_death`], which looks at all of them
//! whenever a child of this process ends. Under chaos daemons listen on loopback addresses of their own, at ports from which no outgoing connection comes, so that
//! nobody takes the port that a killed daemon comes back to.

use super::children::{self, ChildError, ChildSpec};
use super::plan::GarageSite;
use super::settings::Settings;
use clap::ValueEnum;
use fogpost::fault_proxy::FaultProxy;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Where daemons listen under chaos: Linux gives ports from 61,000 on to nobody who does not ask for them.
const HTTP_PORT: u16 = 61_080;
const LISTEN_PORT: u16 = 61_055;

/// SIGKILL, by which chaos ends a child.
const KILL_SIGNAL: i32 = rustix::process::Signal::KILL.as_raw();

#[derive(Debug)]
enum SlotState {
    Up(Child),
    Down,
    /// It ended by itself, or could not be started again. Nobody knows yet.
    Failed(ChildError),
}

#[derive(Debug)]
pub struct DaemonSlot {
    /// `http://127.0.0.1:5581`, the same for every process.
    pub http: String,
    pub spec: ChildSpec,
    /// Locked from a kill until the next process is ready.
    state: Arc<Mutex<SlotState>>,
    earlier_peak_rss: AtomicU64,
}

/// A daemon that was killed, until it is up again. While this exists, nobody else touches the slot.
pub struct KilledDaemon(OwnedMutexGuard<SlotState>);

impl DaemonSlot {
    async fn start(spec: ChildSpec) -> Result<Arc<DaemonSlot>, ChildError> {
        let child = spec.start().await?;
        let http = format!("http://{}", spec.address("http.addr")?);
        let state = Arc::new(Mutex::new(SlotState::Up(child)));
        Ok(Arc::new(DaemonSlot { http, spec, state, earlier_peak_rss: AtomicU64::new(0) }))
    }

    pub async fn up(&self) {
        drop(self.state.lock().await);
    }

    /// SIGKILL, once it is up. `None`: it had ended by itself, which [`Fleet::first_death`] reports.
    pub async fn kill(&self) -> Option<KilledDaemon> {
        let mut state = self.state.clone().lock_owned().await;
        let SlotState::Up(child) = &mut *state else {
            return None;
        };
        self.earlier_peak_rss.fetch_max(children::peak_rss_of(child).unwrap_or(0), Ordering::Relaxed);
        match children::kill(child).await {
            Ok(status) if status.signal() == Some(KILL_SIGNAL) => {
                *state = SlotState::Down;
                Some(KilledDaemon(state))
            }
            ended => {
                *state = SlotState::Failed(self.spec.ended(ended));
                None
            }
        }
    }

    /// Starts it again, on the same data directory and addresses; returns once it is ready. If it cannot be had back,
    /// [`Fleet::first_death`] reports it.
    pub async fn revive(&self, mut killed: KilledDaemon) {
        *killed.0 = match self.spec.start().await {
            Ok(child) => SlotState::Up(child),
            Err(error) => SlotState::Failed(error),
        };
    }

    /// Returns when it has ended, if neither chaos nor the city ended it.
    async fn death(&self) -> ChildError {
        // Each change of the state comes with the end of a process, and is seen once the state is unlocked again.
        let mut child_ended = signal(SignalKind::child()).expect("this process may wait for its children");
        loop {
            if let Some(death) = self.take_death().await {
                return death;
            }
            child_ended.recv().await;
        }
    }

    /// Why it is not up, if neither chaos nor the city ended it; once.
    async fn take_death(&self) -> Option<ChildError> {
        let mut state = self.state.lock().await;
        if let SlotState::Up(child) = &mut *state {
            *state = SlotState::Failed(self.spec.ended(Ok(child.try_wait().ok()??)));
        }
        match std::mem::replace(&mut *state, SlotState::Down) {
            SlotState::Failed(error) => Some(error),
            SlotState::Up(_) | SlotState::Down => None,
        }
    }

    pub async fn peak_rss_bytes(&self) -> Option<u64> {
        let now = match &*self.state.lock().await {
            SlotState::Up(child) => children::peak_rss_of(child),
            SlotState::Down | SlotState::Failed(_) => None,
        };
        now.max(Some(self.earlier_peak_rss.load(Ordering::Relaxed)).filter(|peak| *peak > 0))
    }

    /// `Err` says how it ended, if not with success after it was asked to.
    async fn stop(&self) -> Result<(), String> {
        if let Some(death) = self.take_death().await {
            return Err(death.to_string());
        }
        let name = &self.spec.name;
        match &mut *self.state.lock().await {
            SlotState::Up(child) => match children::stop(child).await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => {
                    Err(format!("{name} was asked to stop, and ended with {}", children::in_words(status)))
                }
                Err(error) => Err(format!("{name} could not be stopped: {error}")),
            },
            SlotState::Down | SlotState::Failed(_) => Ok(()), // Its death was reported.
        }
    }
}

#[derive(Debug)]
pub struct Fleet {
    pub server: Arc<DaemonSlot>,
    pub edges: Vec<Arc<DaemonSlot>>,
    /// Under chaos, the connections from the edges to the server, in the same order.
    pub links: Vec<Arc<FaultProxy>>,
}

impl Fleet {
    /// Returns once all daemons serve; the server with the file `config`.
    /// To be called where [`ChildSpec::start`] is.
    pub async fn start(
        settings: &Settings,
        config: &Path,
        dir: &Path,
        sites: &[GarageSite],
    ) -> Result<Fleet, ChildError> {
        let chaos = settings.flags.chaos;
        let log_format = settings.flags.log_format.to_possible_value().expect("no format is hidden");
        let address = |slot, port| {
            let (host, port) = if chaos { (own_host(slot), port) } else { (Ipv4Addr::LOCALHOST, 0) };
            SocketAddr::from((host, port))
        };
        let spec = |name: &str, role, slot, mut arguments: Vec<OsString>| {
            let http = address(slot, HTTP_PORT).to_string();
            arguments.extend(words(["--http", &http, "--log-format", log_format.get_name()]));
            let (data_dir, log) = (dir.join(name), dir.join("logs").join(format!("{name}.log")));
            ChildSpec { name: name.to_owned(), role, data_dir, log, arguments }
        };

        let scheme = if settings.flags.tls { "tls" } else { "tcp" };
        let mut arguments = words(["--listen", &format!("{scheme}://{}", address(0, LISTEN_PORT))]);
        arguments.extend([OsString::from("--config"), config.into()]);
        let server = spec("server", children::SERVER, 0, arguments);
        if settings.flags.tls {
            let hosts = (0..=sites.len()).map(|slot| address(slot, LISTEN_PORT).ip().to_string()).collect();
            make_certificates(&server, hosts, dir, sites).await?;
        }
        let server = DaemonSlot::start(server).await?;
        let listen = server.spec.address("listen.addr")?;

        let (mut links, mut starting) = (Vec::new(), Vec::new());
        for (slot, site) in (1..).zip(sites) {
            let name = format!("edge-{slot}");
            let mut connect_to = listen;
            if chaos {
                let link = FaultProxy::open(address(slot, LISTEN_PORT), listen).await;
                let link = link.map_err(|source| ChildError::NotStarted { name: name.clone(), source })?;
                connect_to = link.address();
                links.push(Arc::new(link));
            }
            let (server, capacity) = (format!("{scheme}://{connect_to}"), site.capacity.to_string());
            let arguments =
                words(["--server", &server, "--capacity", &capacity, "--garage-name", &site.name]);
            starting.push(DaemonSlot::start(spec(&name, children::EDGE, slot, arguments)));
        }
        let edges = futures_util::future::try_join_all(starting).await?;
        Ok(Fleet { server, edges, links })
    }

    /// Returns when a daemon has ended by itself, or could not be started again.
    pub async fn first_death(&self) -> ChildError {
        let slots = std::iter::once(&self.server).chain(&self.edges);
        futures_util::future::select_all(slots.map(|slot| Box::pin(slot.death()))).await.0
    }

    /// Ends all daemons, the server last, and says which of them did not end well.
    pub async fn stop(&self) -> Vec<String> {
        let edges = self.edges.iter().map(|edge| edge.stop());
        let mut complaints: Vec<Result<(), String>> = futures_util::future::join_all(edges).await;
        complaints.push(self.server.stop().await);
        complaints.into_iter().filter_map(Result::err).collect()
    }
}

/// Makes the certificates of the server and of all edges, where each looks for its own.
async fn make_certificates(
    server: &ChildSpec,
    hosts: Vec<String>,
    dir: &Path,
    sites: &[GarageSite],
) -> Result<(), ChildError> {
    let not_made = |why| ChildError::NotStarted { name: "certs".into(), source: io::Error::other(why) };
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    server.run_command(&[&["certs", "init", "--host"], &hosts[..]].concat()).await.map_err(not_made)?;
    for (slot, site) in (1..).zip(sites) {
        let out = dir.join(format!("edge-{slot}-certs")).to_string_lossy().into_owned();
        let issue = ["certs", "issue", "--garage", &site.name, "--out", &out];
        server.run_command(&issue).await.map_err(not_made)?;
    }
    Ok(())
}

/// A loopback address that no other slot of this city has. Two cities at a time rarely share one.
fn own_host(slot: usize) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let slot = slot as u8; // There are at most MAX_GARAGES.
    Ipv4Addr::new(127, high | 0x80, low, slot + 2)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
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
