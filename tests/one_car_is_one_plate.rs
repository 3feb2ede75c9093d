//! **Promise.** A car has one plate, however its camera writes it: its stay ends, and it is charged to the account that it is
//! registered for. What is not a plate is refused, with the way to count the car all the same.

use crate::common::money::{TARIFFS, Town};
use serde_json::json;

/// Widths, digits of other scripts and variation selectors once made cars of their own: the stay never ended, and the charge
/// went to `unregistered`.
#[test]
fn a_stay_ends_and_is_charged_however_its_two_cameras_write_the_plate() {
    let mut town = Town::new(TARIFFS, &["a"]);
    for (number, (registered, entered, left, plate)) in [
        ("B-AB 123", "ＢＡＢ１２３", "b\u{fe0f}ab\u{200b}123", "BAB123"),
        ("٣٢١", "۳۲۱", "３２１", "321"),
        ("D", "d", "Ｄ", "D"),
    ]
    .into_iter()
    .enumerate()
    {
        let account = format!("account-{number}");
        town.operator().says(&["plates", "add", registered, &account, "--from", "2026-11-01"]).done();
        town.tell("a", &json!({"kind": "entry", "plate": entered, "at": "2026-11-03T08:00:00+01:00"}));
        town.tell("a", &json!({"kind": "exit", "plate": left, "at": "2026-11-03T10:30:00+01:00"}));
        let charged = format!("{plate} {account} 750 charged");
        assert_eq!(town.short(&format!("&account={account}")), [charged]);
    }
    assert_eq!(town.anomalies(), [""; 0]);
    town.verify();
}

/// The refusal of `½` or of seventeen letters said nothing about how to count the car.
#[test]
fn what_is_not_a_plate_is_refused_with_the_advice_to_send_null() {
    let town = Town::new(TARIFFS, &["a"]);
    let http = town.edges["a"].http();
    for plate in ["½A", "A´1", "1\u{20e3}", "ABCDEFGH123456789", "?", "", "\u{fe0f}"] {
        for kind in ["entry", "exit"] {
            let detail = http.post_event(&json!({"kind": kind, "plate": plate})).unwrap().problem(400);
            assert!(detail.contains("send null when the plate cannot be read"), "{plate}: {detail}");
        }
    }
    assert_eq!(http.post_event(&json!({"kind": "entry", "plate": null})).unwrap().status, 201);
}
