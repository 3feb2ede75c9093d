//! Both ends in one process, with certificates made for the test.

use super::acceptor::MustEnd;
use super::authority::{Authority, Holder, Issued};
use super::connector::TlsFailure;
use super::live::Reload;
use super::*;
use crate::codes::{self, Code};
use crate::messaging::SiteName;
use crate::transport::ServerAddress;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const MADE: &str = "2026-11-27T12:00:00Z";

fn made() -> Timestamp {
    MADE.parse().unwrap()
}

fn shortly_after() -> Timestamp {
    made() + SignedDuration::from_hours(1)
}

fn garages(names: &[&str]) -> BTreeSet<SiteName> {
    names.iter().map(|name| SiteName::new(name).unwrap()).collect()
}

fn of_edge(names: &[&str]) -> Holder {
    Holder::Edge { garages: garages(names) }
}

fn of_server() -> Holder {
    Holder::Server { hosts: vec!["localhost".into(), "127.0.0.1".into()] }
}

/// A directory with the files of one end.
struct End {
    dir: TempDir,
    serial: certificate::Serial,
}

impl End {
    fn new(authority: &Authority, holder: &Holder) -> End {
        let end = End { dir: tempfile::tempdir().unwrap(), serial: certificate::Serial::new(&[]) };
        end.renewed(authority, holder)
    }

    fn renewed(mut self, authority: &Authority, holder: &Holder) -> End {
        let issued = authority.issue(holder, made()).unwrap();
        put(self.dir.path(), authority, &issued);
        self.serial = issued.serial;
        self
    }

    fn files(&self) -> TlsFiles {
        TlsFiles::in_dir(self.dir.path())
    }

    fn acceptor(&self) -> Acceptor {
        Acceptor::open(self.files(), shortly_after).unwrap()
    }

    fn connector(&self) -> Connector {
        Connector::open(self.files(), shortly_after).unwrap()
    }
}

fn put(dir: &Path, authority: &Authority, issued: &Issued) {
    let files = TlsFiles::in_dir(dir);
    for (path, text) in [
        (&files.ca, authority.certificate()),
        (&files.key, &*issued.key),
        (&files.certificate, &issued.certificate),
    ] {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }
}

/// What each side says of a connection over which a byte went each way.
async fn meet(acceptor: &Acceptor, connector: &Connector) -> (io::Result<TlsPeer>, Result<(), TlsFailure>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: ServerAddress = format!("tls://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, peer) = acceptor.accept(stream).await?;
        stream.read_u8().await?;
        stream.write_u8(2).await?;
        stream.flush().await?;
        Ok(peer)
    };
    let client = async {
        let mut stream = connector.connect(&address).await?;
        let exchanged = async {
            stream.write_u8(1).await?;
            stream.flush().await?;
            stream.read_u8().await.map(drop)
        };
        exchanged.await.map_err(|error| connector.explain(&error))
    };
    timeout(Duration::from_secs(20), async { tokio::join!(server, client) }).await.unwrap()
}

fn code_of(failed: Result<(), TlsFailure>) -> Option<Code> {
    match failed {
        Err(TlsFailure::Certificates(code, _)) => Some(code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_speaks_for_the_garages_of_its_certificate() {
    let authority = Authority::create(made()).unwrap();
    let edge = End::new(&authority, &of_edge(&["1", "Bull Ring"]));
    let (peer, connected) = meet(&End::new(&authority, &of_server()).acceptor(), &edge.connector()).await;
    connected.unwrap();
    let peer = peer.unwrap();
    assert_eq!(peer.serial, edge.serial);
    assert_eq!(peer.garages.into_iter().collect::<BTreeSet<_>>(), garages(&["1", "Bull Ring"]));
}

#[tokio::test]
async fn an_authority_that_is_loaded_again_issues_what_its_own_certificate_vouches_for() {
    let first = Authority::create(made()).unwrap();
    let loaded = Authority::load(first.certificate(), &first.key()).unwrap();
    let (server, edge) = (End::new(&first, &of_server()), End::new(&loaded, &of_edge(&["1"])));
    meet(&server.acceptor(), &edge.connector()).await.1.unwrap();
    let renewed = loaded.renewed(made() + SignedDuration::from_hours(24 * 365 * 6)).unwrap();
    assert_ne!(renewed.certificate(), first.certificate());
    meet(&End::new(&renewed, &of_server()).acceptor(), &edge.connector()).await.1.unwrap();
    let other = Authority::create(made()).unwrap();
    assert!(Authority::load(first.certificate(), &other.key()).is_err());
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_ends() {
    let (ours, theirs) = (Authority::create(made()).unwrap(), Authority::create(made()).unwrap());
    let server = End::new(&ours, &of_server());
    let stranger = End::new(&theirs, &of_edge(&["1"]));
    let (_, connected) = meet(&server.acceptor(), &stranger.connector()).await;
    assert_eq!(code_of(connected), Some(codes::SERVER_NOT_TRUSTED));
    // One that trusts the server, and shows what another authority issued.
    fs::write(stranger.files().ca, ours.certificate()).unwrap();
    let (peer, connected) = meet(&server.acceptor(), &stranger.connector()).await;
    assert!(peer.is_err());
    assert_eq!(code_of(connected), Some(codes::CERTIFICATE_REFUSED));
}

/// The key of a garage is on a computer that anybody in the garage may open.
#[tokio::test]
async fn the_certificate_of_a_garage_cannot_stand_for_the_server() {
    let authority = Authority::create(made()).unwrap();
    let edge = End::new(&authority, &of_edge(&["1"]));
    let posing = End::new(&authority, &of_edge(&["2"]));
    let (_, connected) = meet(&posing.acceptor(), &edge.connector()).await;
    assert_eq!(code_of(connected), Some(codes::SERVER_NOT_TRUSTED));
    let server_as_edge = End::new(&authority, &of_server());
    let (peer, _) = meet(&End::new(&authority, &of_server()).acceptor(), &server_as_edge.connector()).await;
    assert!(peer.is_err());
}

#[tokio::test]
async fn a_certificate_for_other_hosts_is_refused() {
    let authority = Authority::create(made()).unwrap();
    let server = End::new(&authority, &Holder::Server { hosts: vec!["elsewhere.example".into()] });
    let (_, connected) = meet(&server.acceptor(), &End::new(&authority, &of_edge(&["1"])).connector()).await;
    assert_eq!(code_of(connected), Some(codes::SERVER_NOT_TRUSTED));
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_connection_ends() {
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let acceptor = server.acceptor();
    let (peer, _) = meet(&acceptor, &edge.connector()).await;
    let peer = peer.unwrap();
    assert!(timeout(Duration::from_millis(50), acceptor.must_end(&peer)).await.is_err());
    let watching = tokio::spawn({
        let (acceptor, peer) = (acceptor.clone(), peer.clone());
        async move { acceptor.must_end(&peer).await }
    });
    fs::write(server.files().revoked, format!("# ours\n\n{} because\n", edge.serial)).unwrap();
    assert!(matches!(acceptor.reload(), Reload::TakenUp));
    assert_eq!(timeout(Duration::from_secs(20), watching).await.unwrap().unwrap(), MustEnd::Revoked);
    let (peer, connected) = meet(&acceptor, &edge.connector()).await;
    assert!(peer.is_err());
    let TlsFailure::Certificates(code, text) = connected.unwrap_err() else { panic!() };
    assert_eq!(code, codes::CERTIFICATE_REFUSED);
    assert!(text.contains("revoked") && text.contains(&edge.serial.to_string()), "{text}");
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_tried_again() {
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let acceptor = server.acceptor();
    assert!(matches!(acceptor.reload(), Reload::Unchanged));
    let right = fs::read(server.files().certificate).unwrap();
    for wrong in ["revoked", "certificate", "key"] {
        let files = server.files();
        let (path, content) = match wrong {
            "revoked" => (&files.revoked, &b"no serial\n"[..]),
            "certificate" => (&files.certificate, &right[..right.len() / 2]),
            _ => (&files.key, &b""[..]),
        };
        let before = fs::read(path).unwrap_or_default();
        fs::write(path, content).unwrap();
        assert!(matches!(acceptor.reload(), Reload::Refused(_)), "{wrong}");
        assert!(matches!(acceptor.reload(), Reload::Unchanged), "{wrong}: it is said once");
        meet(&acceptor, &edge.connector()).await.1.unwrap();
        fs::write(path, before).unwrap();
        assert!(matches!(acceptor.reload(), Reload::TakenUp), "{wrong}");
    }
    let (files, first) = (server.files(), acceptor.expiries());
    let server = server.renewed(&authority, &of_server());
    fs::write(&files.key, authority.issue(&of_server(), made()).unwrap().key.as_bytes()).unwrap();
    assert!(matches!(acceptor.reload(), Reload::Refused(_)), "the key of another certificate");
    assert_eq!(acceptor.expiries(), first);
    drop(server);
}

#[tokio::test]
async fn an_edge_whose_files_cannot_be_used_says_so_until_they_can() {
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let right = fs::read(edge.files().key).unwrap();
    fs::write(edge.files().key, "").unwrap();
    let connector = edge.connector();
    let nowhere = "tls://127.0.0.1:1".parse().unwrap();
    assert_eq!(code_of(connector.connect(&nowhere).await.map(drop)), Some(codes::CERTIFICATES_UNUSABLE));
    fs::write(edge.files().key, right).unwrap();
    assert!(matches!(connector.reload(), Reload::TakenUp));
    meet(&server.acceptor(), &connector).await.1.unwrap();
    fs::remove_file(edge.files().key).unwrap();
    assert!(Connector::open(edge.files(), shortly_after).is_err_and(|error| error.is_missing_file()));
}

/// The clocks of garages are wrong: one that lost its battery shows 1970.
#[tokio::test]
async fn an_edge_whose_clock_is_behind_its_own_certificate_still_connects() {
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let behind = Connector::open(edge.files(), || Timestamp::UNIX_EPOCH).unwrap();
    meet(&server.acceptor(), &behind).await.1.unwrap();
    let ahead = Connector::open(edge.files(), || "2030-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let (_, connected) = meet(&server.acceptor(), &ahead).await;
    assert_eq!(code_of(connected), Some(codes::SERVER_NOT_TRUSTED));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_an_open_connection_ends() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    fn now() -> Timestamp {
        Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap()
    }
    NOW.store(shortly_after().as_second(), Ordering::Relaxed);
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let acceptor = Acceptor::open(server.files(), now).unwrap();
    let (peer, _) = meet(&acceptor, &edge.connector()).await;
    let expiries = edge.connector().expiries();
    assert_eq!(
        expiries.iter().map(|expiry| (expiry.certificate, expiry.days_left)).collect::<Vec<_>>(),
        [("own", 399), ("authority", 3649)]
    );
    assert!(!expiries[0].is_soon());
    NOW.store((made() + SignedDuration::from_hours(24 * 401)).as_second(), Ordering::Relaxed);
    assert_eq!(
        timeout(Duration::from_secs(20), acceptor.must_end(&peer.unwrap())).await,
        Ok(MustEnd::Expired)
    );
    assert!(acceptor.expiries()[0].is_soon() && acceptor.expiries()[0].days_left < 0);
    let (_, connected) = meet(&acceptor, &edge.connector()).await;
    assert_eq!(code_of(connected), Some(codes::CERTIFICATE_REFUSED));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_refused_on_both_ends() {
    let authority = Authority::create(made()).unwrap();
    let (server, edge) = (End::new(&authority, &of_server()), End::new(&authority, &of_edge(&["1"])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let plain_client = async {
        let mut stream = TcpStream::connect(local).await.unwrap();
        stream.write_all(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        server.acceptor().accept(stream).await.map(drop)
    };
    assert!(tokio::join!(plain_client, accepting).1.is_err());
    let plain_server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    };
    let connector = edge.connector();
    let address = format!("tls://{local}").parse().unwrap();
    let (_, connected) = tokio::join!(plain_server, connector.connect(&address));
    assert_eq!(code_of(connected.map(drop)), Some(codes::NOT_A_SERVER));
}
