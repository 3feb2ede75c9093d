//! **Promise.** Private keys are in their files and in memory alone: no log, answer or error has a part of one, at any level of the log, and
//! when the files are mixed up.

use crate::common::daemon::{SERVER, refused};
use crate::common::{Certs, Edge, Journal, Program, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Everything is logged, by the libraries too.
const TALKATIVE: &[&str] = &["env", "RUST_LOG=trace"];

/// The lines of a key in PEM that nobody else may know: the first one is mostly the name of its algorithm.
fn secret_lines(key: &Path) -> Vec<String> {
    let text = fs::read_to_string(key).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("-----")).skip(1);
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(lines.iter().any(|line| line.len() > 20), "{key:?}");
    lines
}

#[test]
fn no_key_is_in_a_log_an_answer_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let garage = certs.of_garage("1");
    let mut said = certs.run(&["issue", "--garage", "1", "--out", garage.to_str().unwrap()]);
    said += &certs.run(&["list", "--json"]);
    let keys =
        [certs.of_server().join("ca-key.pem"), certs.of_server().join("key.pem"), garage.join("key.pem")];
    let secrets: Vec<String> = keys.iter().flat_map(|key| secret_lines(key)).collect();

    let server = certs.server_under(TALKATIVE);
    let tls_dir = ["--tls-dir", garage.to_str().unwrap()];
    let edge = Edge::start_under(TALKATIVE, &dir.path().join("edge-1"), "1", &[server.address()], &tls_dir);
    Journal::default().post_entries(&edge.http(), vec!["KA1".into()]);
    wait_until("it is served", SOON, &[&server, &edge], || edge.is_drained());
    assert!(server.log().contains("\"DEBUG\""), "the log is not as talkative as this test wants it");

    // The key stands where a certificate belongs, and half of it where the key belongs.
    for dir in [certs.of_server(), garage.clone()] {
        let key = fs::read_to_string(dir.join("key.pem")).unwrap();
        fs::write(dir.join("certificate.pem"), &key).unwrap();
        fs::write(dir.join("key.pem"), &key[..key.len() / 2]).unwrap();
    }
    server.hang_up();
    edge.hang_up();
    for program in [&server as &dyn Program, &edge] {
        wait_until("the files are refused", SOON, &[], || program.log().contains("certificates_unusable"));
    }
    let data = dir.path().join("other");
    let tls_dir = certs.of_server();
    let args = [
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "tls://127.0.0.1:0",
        "--tls-dir",
        tls_dir.to_str().unwrap(),
    ];
    said += &refused(SERVER, &args).stderr;
    assert!(said.contains("certificates_unusable"), "{said}");
    said += &(server.log() + &edge.log());
    for secret in secrets {
        assert!(!said.contains(&secret), "a part of a private key was shown");
    }
}
