//! The daemons of this run: one server, and an edge for each garage.

use super::children::{self, Child, ChildError, Spec};
use super::plan::Site;
use super::settings::Settings;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::sync::mpsc;

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

/// Daemons that serve.
#[derive(Debug)]
pub struct Fleet {
    pub server: Child,
    /// In the order of the garages.
    pub edges: Vec<Child>,
}

impl Fleet {
    /// Returns once all daemons serve. The death of one is told to `deaths` from then on.
    ///
    /// To be called on a thread that lives as long as the city, as [`children::start`] asks.
    pub async fn start(
        settings: &Settings,
        place: &Path,
        sites: &[Site],
        deaths: &mpsc::UnboundedSender<ChildError>,
    ) -> Result<Fleet, ChildError> {
        let logs = place.join("logs");
        let mut arguments = words(&["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]);
        arguments.extend(words(&["--log-format", settings.log_format.as_str()]));
        if let Some(config) = &settings.config {
            arguments.extend([OsString::from("--config"), config.into()]);
        }
        let spec = Spec {
            name: "server".to_owned(),
            role: children::SERVER,
            data_dir: place.join("server"),
            arguments,
        };
        let server = children::start(spec, &logs, deaths.clone())?.ready().await?;
        let listen = format!("tcp://{}", server.address("listen.addr")?);
        let mut starting = Vec::with_capacity(sites.len());
        for (index, site) in sites.iter().enumerate() {
            let name = format!("edge-{}", index + 1);
            let capacity = site.capacity.to_string();
            let mut arguments = words(&["--server", &listen, "--http", "127.0.0.1:0"]);
            arguments.extend(words(&["--garage-name", &site.name, "--capacity", &capacity]));
            arguments.extend(words(&["--log-format", settings.log_format.as_str()]));
            let data_dir = place.join(&name);
            let spec = Spec { name, role: children::EDGE, data_dir, arguments };
            starting.push(children::start(spec, &logs, deaths.clone())?);
        }
        let mut edges = Vec::with_capacity(sites.len());
        for edge in starting {
            edges.push(edge.ready().await?);
        }
        Ok(Fleet { server, edges })
    }

    /// Ends all daemons, the server last, and says which of them did not end well.
    pub async fn stop(self) -> Vec<String> {
        let edges = self.edges.into_iter().map(Child::stop);
        let mut complaints: Vec<Result<(), String>> = futures_util::future::join_all(edges).await;
        complaints.push(self.server.stop().await);
        complaints.into_iter().filter_map(Result::err).collect()
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
