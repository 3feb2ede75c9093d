//! **Promise.** Nothing is sent in plain text unnoticed: outside this machine an address needs TLS, or a daemon ends with 64 and says
//! what to do; `--insecure-plaintext` is warned about at every start. A plain edge is not served at a port with TLS, nor an edge with
//! TLS at a plain port, and what it confirms stays with it.

use crate::common::daemon::{EDGE, SERVER, own_loopback_address, refused};
use crate::common::process::Process;
use crate::common::{Certs, Edge, Journal, Program, Server, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_address_outside_this_machine_needs_tls() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let edge = |address| refused(EDGE, &["--data-dir", data, "--garage-name", "1", "--server", address]);
    let server = |address| refused(SERVER, &["--data-dir", data, "--listen", address]);
    for refused in [
        edge("tcp://10.0.0.5:5555"),
        edge("tcp://books.example:5555"),
        server("tcp://0.0.0.0:5555"),
        server("tcp://[::]:0"),
    ] {
        assert_eq!(refused.code, Some(64), "{refused:?}");
        for part in ["plaintext_refused", "tls://", "server certs init", "--insecure-plaintext"] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
    // With TLS, but without certificates.
    for (refused, command) in
        [(edge("tls://10.0.0.5:5555"), "certs issue"), (server("tls://127.0.0.1:0"), "certs init")]
    {
        assert_eq!(refused.code, Some(64), "{refused:?}");
        assert!(
            refused.stderr.contains("certificates_unusable") && refused.stderr.contains(command),
            "{refused:?}"
        );
    }
    assert!(!dir.path().join("data").exists(), "a refused setting has made a directory");
}

#[test]
fn plain_text_that_is_allowed_is_warned_about_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let start = |listen: &str| {
        let own = own_loopback_address();
        let args = [
            "--data-dir",
            data.to_str().unwrap(),
            "--http",
            &own,
            "--listen",
            listen,
            "--insecure-plaintext",
        ];
        let args: Vec<String> = args.map(str::to_owned).into();
        let (mut process, ready) = Process::try_start("the server", &[], SERVER, &args, &data).unwrap();
        assert_eq!(process.stop().0, Some(0), "{ready}");
        process.log().matches("plaintext_allowed").count()
    };
    assert_eq!(start(&format!("tcp://{}", own_loopback_address())), 0, "it listens on this machine alone");
    assert_eq!((start("tcp://0.0.0.0:0"), start("tcp://0.0.0.0:0")), (1, 2));
}

#[test]
fn a_plain_edge_and_one_with_tls_are_not_served_at_the_other_kind_of_port() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    certs.issue("tls");
    certs.issue("plain");
    let (with_tls, without) = (certs.server(), Server::start(&dir.path().join("plain-server"), &[]));
    let certified = certs.of_garage("tls");
    let start = |name: &str, address: String| {
        Edge::start(&dir.path().join(name), name, &[address], &["--tls-dir", certified.to_str().unwrap()])
    };
    let plain = start("plain", with_tls.address().replace("tls://", "tcp://"));
    let tls = start("tls", without.address().replace("tcp://", "tls://"));
    for edge in [&plain, &tls] {
        Journal::default().post_entries(&edge.http(), vec!["KA1".into()]);
    }
    wait_until("the edge with TLS says why", SOON, &[&tls, &without], || tls.alarm().0 == "not_a_server");
    assert!(tls.alarm().1.contains("TLS"), "{:?}", tls.alarm());
    wait_until("the plain edge says that no server answers", SOON, &[&plain, &with_tls], || {
        plain.log().contains("server_unreachable")
    });
    assert_eq!((plain.depth(), tls.depth()), (1, 1));
    assert_eq!((with_tls.position(), without.position()), (0, 0), "nothing was taken");
}
