//! **Promise.** A time is RFC 3339 with an offset, and counts to the millisecond, at every door and for every program. What is
//! something else is refused with the true reason.

use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};

fn entry(at: &str) -> Value {
    json!({"kind": "entry", "plate": "B-AB 1", "at": at})
}

/// A second 60 was stored as second 59 of any minute; a zone behind an offset was refused because "it lacks the offset";
/// +25:00 and the year -1 were stored.
#[test]
fn a_time_that_is_not_rfc_3339_is_refused_with_the_true_reason() {
    let town = Town::new(TARIFFS, &["a"]);
    let config = town.file("tariffs.toml", TARIFFS);
    for (at, reason) in [
        ("2026-11-02T08:15:60+01:00", "not a leap second"),
        ("2026-11-02T08:15:00+01:00[Europe/Berlin]", "it ends with [Europe/Berlin]"),
        ("2026-11-02T08:15:00+25:00", "from -23:59 to +23:59"),
        ("-000001-11-02T08:15:00Z", "0000 to 9999"),
        ("9999-12-31T08:15:00Z", "between 0000-01-02 and 9999-12-30"),
    ] {
        for field in ["at", "seen_at"] {
            let mut event = entry("2026-11-02T08:15:00Z");
            event[field] = json!(at);
            let detail = town.edges["a"].http().post_event(&event).unwrap().problem(400);
            assert!(detail.starts_with(&format!("{field}: ")) && detail.contains(reason), "{at}: {detail}");
        }
        let price = ["tariffs", "price", "--config", &config, "--garage", "a", "--entry=2026-01-01T00:00Z"];
        let said = town.operator().says(&[&price[..], &[&format!("--exit={at}")]].concat());
        assert!(said.code == Some(64) && said.stderr.contains(reason), "{at}: {said:?}");
        let id = "a/d5947e0f-1414-4ac6-8009-21147bb78df6/1";
        let left = format!("--left={at}");
        let said = town.operator().says(&["stays", "close", id, &left, "--reason", "r"]);
        assert!(said.code == Some(64) && said.stderr.contains(reason), "{at}: {said:?}");
    }
    assert_eq!(town.server.applied_of("a"), 0);
}

/// A leap second, and what follows in the same second, keep their order; a stay that is longer by a part of a millisecond costs
/// what `tariffs price` says. It was once 5.00 there and 2.50 on the bill.
#[test]
fn what_a_stay_costs_is_the_same_for_the_bill_and_for_the_price_list() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let config = town.file("tariffs.toml", TARIFFS);
    for (number, entered, left, amount) in [
        (1, "2026-11-02T08:00:00+01:00", "2026-11-02T09:00:00.0002+01:00", 250),
        (2, "2026-11-02T08:00:00+01:00", "2026-11-02T09:00:00.001+01:00", 500),
        (3, "2026-11-02T08:00:00.0009+01:00", "2026-11-02T09:00:00.0011+01:00", 500),
        (4, "2026-11-30T23:59:60.9Z", "2026-12-01T00:10:00Z", 0),
        (5, "2026-11-30T23:59:60.9Z", "2026-12-01T00:10:00.0019Z", 250),
    ] {
        let plate = format!("AA{number}");
        for (kind, at) in [("entry", entered), ("exit", left)] {
            town.tell("a", &json!({"kind": kind, "plate": plate, "at": at}));
        }
        let charged = format!("{plate} unregistered {amount} charged");
        assert_eq!(town.short(&format!("&plate={plate}")), [charged], "{entered} to {left}");
        let price = ["tariffs", "price", "--config", &config, "--garage", "a", "--json", "--entry", entered];
        let said = town.operator().says(&[&price[..], &["--exit", left]].concat()).json();
        assert_eq!(said["amount"], amount, "{entered} to {left}: {said}");
    }
    let charge = &town.charges("&plate=AA5")[0];
    assert_eq!(charge["entered_at"], "2026-12-01T01:00:00+01:00");
    assert_eq!(charge["left_at"], "2026-12-01T01:10:00.001+01:00");
}
