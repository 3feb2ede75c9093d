//! **Promise.** Private keys are in their files and in memory alone: no log, answer or error has a part of one, at any level of the log, and
//! when the files are mixed up.

use crate::common::daemon::{SERVER, refused};
use crate::common::{Certs, Edge, Journal, Program, wait_until};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Everything is logged, by the libraries too.
const TALKATIVE: &[&str] = &["env", "RUST_LOG=trace"];

/// The lines of a key in PEM that nobody else may know: the first one is mostly the name of its algorithm.
fn secret_lines(key: &str) -> Vec<&str> {
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).skip(1).collect();
    assert!(lines.iter().any(|line| line.len() > 20), "no key in PEM");
    lines
}

/// Whether it is said, with the code, that this file cannot be used.
fn says_unusable(said: &str, file: &str) -> bool {
    said.lines().any(|line| line.contains("certificates_unusable") && line.contains(file))
}

#[test]
fn no_key_is_in_a_log_an_answer_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let garage = certs.of_garage("1");
    let mut said = certs.run(&["issue", "--garage", "1", "--out", garage.to_str().unwrap()]);
    said += &certs.run(&["list", "--json"]);
    let of_server = certs.of_server();
    let keys = [of_server.join("ca-key.pem"), of_server.join("key.pem"), garage.join("key.pem")];
    let keys = keys.map(|path| fs::read_to_string(path).unwrap());
    let secrets: Vec<&str> = keys.iter().flat_map(|key| secret_lines(key)).collect();

    let server = certs.server_under(TALKATIVE);
    let tls_dir = ["--tls-dir", garage.to_str().unwrap()];
    let edge = Edge::start_under(TALKATIVE, &dir.path().join("edge-1"), "1", &[server.address()], &tls_dir);
    Journal::default().post_entries(&edge.http(), vec!["KA1".into()]);
    wait_until("it is served", SOON, &[&server, &edge], || edge.is_drained());
    assert!(server.log().contains("\"DEBUG\""), "the log is not as talkative as this test wants it");

    let other = dir.path().join("other");
    let own = ["--data-dir", other.to_str().unwrap(), "--tls-dir", of_server.to_str().unwrap()];
    let args = [&own[..], &["--listen", "tls://127.0.0.1:0"]].concat();
    // The key has lost its last line, which is no secret; then the key stands where the certificate belongs, which is read first.
    for (file, end) in [("key.pem", "-----END"), ("certificate.pem", "\n")] {
        for (dir, key) in [(&of_server, &keys[1]), (&garage, &keys[2])] {
            fs::write(dir.join(file), key.rsplit_once(end).unwrap().0).unwrap();
        }
        server.hang_up();
        edge.hang_up();
        for program in [&server as &dyn Program, &edge] {
            wait_until(&format!("{file} is refused"), SOON, &[], || says_unusable(&program.log(), file));
        }
        let started = refused(SERVER, &args).stderr;
        assert!(says_unusable(&started, file), "{started}");
        said += &started;
    }
    said += &(server.log() + &edge.log());
    for secret in secrets {
        assert!(!said.contains(secret), "a part of a private key was shown");
    }
}
