//! **Promise.** A document of any length is sent as it was issued, byte for byte, and clients that ask for long ones and do not read them
//! take no memory from the server.

use crate::common::money::{TARIFFS, Town};
use crate::common::scale::by_scale;
use crate::common::wait_until;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

const CLIENTS: usize = 20;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const MORE_MB_MAX: u64 = 24;

#[test]
fn clients_that_do_not_read_a_long_document_take_no_memory() {
    let stays = by_scale(8_000usize, 12_000, 40_000);
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\n";
    let mut town = Town::new(&TARIFFS.replace("[operator]\n", operator), &["a"]);
    let plates: String = (0..100).map(|car| format!("ZZ {car},metro,2024-01-01\n")).collect();
    let plates = town.file("plates.csv", &format!("plate,account,valid_from\n{plates}"));
    town.operator().says(&["plates", "import", &plates]).done();
    let customer = ["--name", "Metro", "--address", "Ring 1", "--country", "DE"];
    town.operator().says(&[&["accounts", "set", "metro"][..], &customer].concat()).done();
    let first: Timestamp = "2024-01-01T01:00:00+01:00".parse().unwrap();
    let mut events = Vec::new();
    for stay in 0..stays {
        let entry = first + SignedDuration::from_secs(stay as i64 * 2_500_000 / stays as i64);
        for (kind, at) in [("entry", entry), ("exit", entry + SignedDuration::from_mins(12))] {
            let event = json!({"kind": kind, "plate": format!("ZZ {}", stay % 100), "at": at.to_string()});
            events.push((at, event.to_string()));
        }
    }
    events.sort_by_key(|(at, _)| *at);
    for batch in events.chunks(10_000) {
        town.tell_batch("a", &batch.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>());
    }
    town.operator().says(&["statements", "issue", "--month", "2024-01", "--date", "2024-02-01"]).done();
    let out = town.dir.path().join("exported");
    town.operator().says(&["documents", "export", "--out", out.to_str().unwrap()]).done();
    let issued = |ending: &str| std::fs::read(out.join(format!("2024-000001.{ending}"))).unwrap();
    let page = issued("html");
    assert!(page.len() > 300 * stays, "{} bytes", page.len());

    town.restart_server();
    town.settle();
    let before = town.server.memory().most_kb;
    let address = std::fs::read_to_string(town.server.dir().join("http.addr")).unwrap();
    let ask = |_| {
        let mut client = TcpStream::connect(address.trim()).unwrap();
        client
            .write_all(b"GET /v1/documents/2024-000001?format=html HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        client
    };
    let clients: Vec<TcpStream> = (0..CLIENTS).map(ask).collect();
    // A few get the beginning of the document, and the others have to wait for too long.
    let is_answered = |client: &TcpStream| client.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    wait_until("every client has an answer to read", ANSWERED_WITHIN, &[&town.server], || {
        clients.iter().all(is_answered)
    });
    let more_mb = (town.server.memory().most_kb - before) / 1024;
    println!("{CLIENTS} clients that do not read {} MB took {more_mb} MB", page.len() >> 20);
    assert!(more_mb < MORE_MB_MAX, "{more_mb} MB more");
    drop(clients);

    // Who reads gets all of it.
    for (format, ending) in [("html", "html"), ("json", "json"), ("csv", "csv"), ("text", "txt")] {
        let answer = town.server.http().get(&format!("/v1/documents/2024-000001?format={format}")).unwrap();
        assert_eq!((answer.status, answer.body.as_bytes()), (200, &issued(ending)[..]), "{format}");
    }
}
