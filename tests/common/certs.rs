//! An authority of `server certs`, and what it issues.

use super::daemon::{Edge, SERVER, Server, own_loopback_address};
use super::process::command;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The certificates of a server and its edges, below a directory of the test.
pub struct Certs {
    root: PathBuf,
    /// Where the server is: its certificate names it.
    own: String,
}

impl Certs {
    pub fn new(root: &Path) -> Certs {
        let certs = Certs { root: root.to_owned(), own: own_loopback_address() };
        certs.renew_of_server();
        certs
    }

    pub fn of_server(&self) -> PathBuf {
        self.root.join("server-certs")
    }

    /// Where the certificate of a garage is.
    pub fn of_garage(&self, garage: &str) -> PathBuf {
        self.root.join(format!("{garage}-certs"))
    }

    /// Makes a certificate for the server, the first time with the authority.
    pub fn renew_of_server(&self) {
        let (host, _) = self.own.rsplit_once(':').unwrap();
        self.run(&["init", "--host", host]);
    }

    /// Makes a certificate for the edge of a garage, and puts it where [`Certs::edge`] finds it. Returns its serial.
    pub fn issue(&self, garage: &str) -> String {
        let said =
            self.run(&["issue", "--garage", garage, "--out", self.of_garage(garage).to_str().unwrap()]);
        said.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// `server certs ARGS`; what it says.
    pub fn run(&self, args: &[&str]) -> String {
        let dir = self.of_server();
        let args = [&["certs"], args, &["--tls-dir", dir.to_str().unwrap()]].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let output = command(SERVER, &args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The list of those that were issued, the oldest first.
    pub fn list(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.run(&["list", "--json"])).unwrap();
        answer["certificates"].as_array().unwrap().clone()
    }

    /// A server with TLS, whose certificate names its address.
    pub fn server(&self) -> Server {
        self.server_under(&[])
    }

    /// The same under another program, such as a tracer, which must leave the pid to the server.
    pub fn server_under(&self, tracer: &[&str]) -> Server {
        self.server_with(tracer, &[])
    }

    /// The same with more settings.
    pub fn server_with(&self, tracer: &[&str], more: &[&str]) -> Server {
        let dir = self.of_server();
        let extra = [&["--tls-dir", dir.to_str().unwrap()], more].concat();
        Server::start_at(&self.own, tracer, &self.root.join("server"), &extra)
    }

    /// The edge of a garage, with the certificate of the garage `certified`.
    pub fn edge(&self, garage: &str, certified: &str, server: &Server) -> Edge {
        let certs = self.of_garage(certified);
        let extra = ["--tls-dir", certs.to_str().unwrap(), "--board-interval-ms", "100"];
        Edge::start(&self.root.join(format!("edge-{garage}")), garage, &[server.address()], &extra)
    }
}
