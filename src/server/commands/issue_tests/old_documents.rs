//! Documents whose term for plates is over.

use super::*;
use crate::parking::document::{Digests, DocumentFile, DocumentPlates, LineCar, PlateTerm};
use crate::parking::journal::Debtor;
use crate::server::applying::open_view;
use crate::server::books::Whose;
use crate::server::compact;
use crate::server::documents::{add_part, checked, document_file, without_plates, write_rendering};
use crate::server::ledger::RecordOrDamage;
use crate::server::record::Record;
use crate::server::view::billing::receivables::ReceivablesRows;
use crate::server::view::discard;
use crate::store::Purpose;
use jiff::civil::date;
use std::path::Path;

const OVER: PlateTerm = PlateTerm { years: 10, today: date(2032, 1, 1) };
const NOT_OVER: PlateTerm = PlateTerm { years: 10, today: date(2031, 12, 31) };
const PLATES: [&str; 4] = ["MM1", "MM2", "SS1", "ZZ1"];
const NUMBERS: [&str; 3] = ["2021-000001", "2021-000002", "2021-000003"];

/// Documents of two accounts and of an unregistered car, all of 2021; the last is paid in part. An earlier attempt to issue ended early.
fn town_with_old_documents() -> IssuingTown {
    let mut town = IssuingTown::new();
    for day in 1..=9 {
        for plate in PLATES {
            town.stay("a", plate, (10, day), 2);
        }
    }
    let stray = Command::DocumentPiece { issue: [9; 16], serial: 1, bytes: b"of MM1".to_vec() };
    town.ledger.record_all("me", vec![stray], 5).unwrap();
    town.shows(0);
    for scope in [IssueScope::AllAccounts, IssueScope::Plate(Plate::new("ZZ1").unwrap())] {
        let date = Some(date(2021, 1, 5));
        town.ask(ServerRequest::Issue(IssueOrder { date, ..IssuingTown::order("2020-10", scope) })).unwrap();
    }
    let csv =
        "number,account,amount,currency,date,reference\n2021-000003,,10.00,EUR,2021-02-01,\n".to_owned();
    town.ask(ServerRequest::ImportPayments { csv, dry_run: false }).unwrap();
    town
}

fn json(ledger: &Ledger, number: &str, term: PlateTerm) -> serde_json::Value {
    let file = document_file(ledger, number, term).unwrap();
    let document = checked(&file, Rendering::Json).unwrap();
    serde_json::from_slice(&write_rendering(&document, Rendering::Json, Vec::new()).unwrap()).unwrap()
}

fn names_a_plate(bytes: &[u8]) -> bool {
    PLATES.iter().any(|plate| bytes.windows(plate.len()).any(|part| part == plate.as_bytes()))
}

#[test]
fn a_document_whose_term_is_over_is_shown_without_plates_and_is_the_same_otherwise() {
    let town = town_with_old_documents();
    for number in NUMBERS {
        for rendering in Rendering::ALL {
            let shown = |term| {
                let file = document_file(&town.ledger, number, term).unwrap();
                write_rendering(&checked(&file, rendering).unwrap(), rendering, Vec::new()).unwrap()
            };
            assert!(names_a_plate(&shown(NOT_OVER)) && !names_a_plate(&shown(OVER)), "{number}");
        }
        let [mut before, after] = [NOT_OVER, OVER].map(|term| json(&town.ledger, number, term));
        before["customer"]["plate"] = serde_json::Value::Null;
        for line in before["lines"].as_array_mut().unwrap() {
            (line["plate"], line["token"]) = (serde_json::Value::Null, "~forgotten".into());
        }
        assert_eq!(after, before);
    }
}

/// What the program `documents show` reads from a server.
#[test]
fn the_parts_of_a_document_have_no_plates_once_its_term_is_over() {
    let mut town = town_with_old_documents();
    for (years, plates) in [(100, DocumentPlates::AsIssued), (1, DocumentPlates::Removed)] {
        town.operator.keep_documents_years = years;
        let (mut file, number) = (Vec::new(), NUMBERS[2].to_owned());
        let answer = town.ask(ServerRequest::Document { number, from: 0 }).unwrap();
        assert_eq!(add_part(&mut file, &answer).unwrap(), None);
        assert_eq!(checked(&file, Rendering::Text).unwrap().plates, plates);
    }
}

#[test]
fn a_document_that_is_not_as_it_was_issued_is_refused_before_its_plates_are_removed() {
    let town = town_with_old_documents();
    let [first, second] = [0, 1].map(|at| document_file(&town.ledger, NUMBERS[at], NOT_OVER).unwrap());
    let (first, second) =
        (ReadDocument::from_bytes(&first).unwrap(), ReadDocument::from_bytes(&second).unwrap());
    let forged = |digests: &Digests| {
        let mut file =
            DocumentFile::begin(Vec::new(), DocumentPlates::AsIssued, &first.head, digests).unwrap();
        first.pieces.iter().try_for_each(|piece| file.piece(piece)).unwrap();
        file.finish().unwrap()
    };
    let refused = without_plates(&forged(&second.digests)).unwrap_err().to_string();
    assert!(refused.contains("not the one that was issued"), "{refused}");
    let new = without_plates(&forged(&first.digests)).unwrap();
    assert_eq!(without_plates(&new).unwrap(), new, "there is nothing left to remove");
    assert_ne!(ReadDocument::from_bytes(&new).unwrap().digests, first.digests);
}

#[test]
fn a_plate_does_not_find_a_document_whose_term_is_over() {
    let town = town_with_old_documents();
    let found =
        |whose: &Whose, term| town.books().issued(("2020-10".parse().unwrap(), whose), term).unwrap().len();
    let (car, account) = (Whose::Plate("ZZ1".into()), Whose::Account("miller".into()));
    assert_eq!([found(&car, NOT_OVER), found(&car, OVER)], [1, 0]);
    assert_eq!([found(&account, NOT_OVER), found(&account, OVER)], [1, 1]);
}

/// All pieces of documents in a ledger, by position.
fn pieces(ledger: &Ledger) -> BTreeMap<u64, (u64, Vec<u8>)> {
    let pieces = ledger.records(1).filter_map(|found| match found.unwrap() {
        (
            position,
            RecordOrDamage::Record(Record::Command {
                command: Command::DocumentPiece { serial, bytes, .. },
                ..
            }),
        ) => Some((position, (serial, bytes))),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn a_compacted_ledger_has_old_documents_without_plates_under_their_numbers() {
    let mut town = town_with_old_documents();
    // One that cannot be read.
    let issue = [7; 16];
    let piece = Command::DocumentPiece { issue, serial: 4, bytes: b"no document".to_vec() };
    let from = town.ledger.record_all("me", vec![piece], 5).unwrap();
    let put = Command::Issue { issue, from, first: 4, last: 4, date: date(2021, 1, 6) };
    town.ledger.record_all("me", vec![put], 5).unwrap();
    town.shows(0);
    let dir = tempfile::tempdir().unwrap();
    let compacted = |ledger: &Ledger, view: &View, name: &str, term| {
        let path = dir.path().join(name);
        let changed = compact::write((ledger, view), &path, term).unwrap();
        let ledger = Ledger::open(Store::open(&path, Purpose::Server).unwrap()).unwrap();
        let view = open_view(&ledger).unwrap();
        (ledger, view, (changed.documents, changed.unreadable.into_iter().collect::<Vec<_>>()))
    };
    let (same, _, changed) = compacted(&town.ledger, &town.view, "same", NOT_OVER);
    assert_eq!((pieces(&same), changed), (pieces(&town.ledger), (0, vec![])));

    let (ledger, view, changed) = compacted(&town.ledger, &town.view, "new", OVER);
    assert_eq!(changed, (3, vec![4]));
    let (before, after) = (pieces(&town.ledger), pieces(&ledger));
    assert!(before.keys().eq(after.keys()), "positions stay");
    assert_eq!(after.values().next().unwrap().1, b"", "the attempt that ended early");
    assert_eq!(after.values().last(), before.values().last(), "what cannot be read stays");
    for number in NUMBERS {
        assert_eq!(json(&ledger, number, NOT_OVER), json(&town.ledger, number, OVER));
        let file = document_file(&ledger, number, NOT_OVER).unwrap();
        let document = ReadDocument::from_bytes(&file).unwrap();
        assert_eq!(document.plates, DocumentPlates::Removed);
        assert!(lines_of(&document.pieces).all(|line| matches!(line.unwrap().car, LineCar::Token(_))));
    }
    let rows = |ledger: &Ledger| -> Vec<(Vec<u8>, Vec<u8>)> {
        ledger.store().range(b"vbi", b"vbl").map(Result::unwrap).collect()
    };
    let (of_views, last) = (rows(&ledger), documents::last(town.ledger.store()).unwrap());
    assert!(rows(&town.ledger).iter().any(|(key, _)| names_a_plate(key)));
    assert!(of_views.iter().all(|(key, row)| !names_a_plate(key) && !names_a_plate(row)));
    assert_eq!(documents::last(ledger.store()).unwrap(), last);
    let balance = |ledger: &Ledger| {
        let found = ReceivablesRows::on(ledger.store()).read(|books| books.document(3));
        let found = found.unwrap().unwrap();
        (found.debtor.clone(), found.paid().minor(), found.open().minor())
    };
    let (debtor, paid, open) = balance(&ledger);
    assert_eq!((debtor, paid), (Debtor::PlateRemoved { document: 3 }, 1000));
    assert_eq!((paid, open), (balance(&town.ledger).1, balance(&town.ledger).2));

    let (again, _, changed) = compacted(&ledger, &view, "again", OVER);
    assert_eq!((pieces(&again), rows(&again), changed), (after, of_views.clone(), (0, vec![4])));
    discard(ledger.store()).unwrap();
    open_view(&ledger).unwrap();
    assert_eq!(rows(&ledger), of_views, "a rebuild begins with them");
}

/// A server on the compacted ledger of a town. It has the same documents directory, whose copies have plates.
fn compacted_town(town: &IssuingTown, to: &Path) -> IssuingTown {
    compact::write((&town.ledger, &town.view), to, OVER).unwrap();
    let ledger = Ledger::open(Store::open(to, Purpose::Server).unwrap()).unwrap();
    let (operator, dir) = (town.operator.clone(), Arc::clone(&town.dir));
    let mut new = IssuingTown::of(Disk::default(), ledger, operator, dir);
    new.view = open_view(&new.ledger).unwrap();
    new
}

fn import(town: &mut IssuingTown, from: &Path) -> Result<(u64, u64), String> {
    let path = from.to_str().unwrap().to_owned();
    let answer = town.ask(ServerRequest::ImportDocuments { path, dry_run: false });
    let answer = answer.map_err(|error| error.to_string())?;
    let number = |field: &str| answer[field].as_u64().unwrap();
    Ok((number("documents"), number("known")))
}

/// Writes documents as an export does when their term is over.
fn export(town: &IssuingTown, to: &Path) {
    fs::create_dir(to).unwrap();
    for number in NUMBERS {
        fs::write(to.join(export_name(number)), document_file(&town.ledger, number, OVER).unwrap()).unwrap();
    }
}

/// The old copies were refused, as other documents of the same numbers, and with them all that was beside them.
#[test]
fn a_copy_is_the_document_of_its_number_whether_it_has_lost_its_plates_or_the_ledger_has() {
    let mut town = town_with_old_documents();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut compacted = compacted_town(&town, &at("compacted"));
    export(&town, &at("exported"));
    for from in [town.dir.path().to_owned(), at("exported")] {
        for town in [&mut town, &mut compacted] {
            let position = town.ledger.position();
            assert_eq!(import(town, &from), Ok((0, 3)));
            assert_eq!(town.ledger.position(), position);
        }
    }
    // Documents of the same numbers that charge something else.
    let mut other = IssuingTown::new();
    for plate in ["MM1", "SS1"] {
        other.stay("a", plate, (10, 3), 1);
    }
    let order = IssuingTown::order("2020-10", IssueScope::AllAccounts);
    other.ask(ServerRequest::Issue(IssueOrder { date: Some(date(2021, 1, 5)), ..order })).unwrap();
    fs::create_dir(at("others")).unwrap();
    let file = document_file(&other.ledger, NUMBERS[0], OVER).unwrap();
    fs::write(at("others").join(export_name(NUMBERS[0])), file).unwrap();
    for from in [other.dir.path().to_owned(), at("others")] {
        for town in [&mut town, &mut compacted] {
            let refused = import(town, &from).unwrap_err();
            assert!(refused.contains("2021-000001 was issued with another content"), "{refused}");
        }
    }
}

#[test]
fn a_damaged_document_is_brought_back_by_its_copy_also_where_it_had_lost_its_plates() {
    let mut town = town_with_old_documents();
    let dir = tempfile::tempdir().unwrap();
    let shown = json(&town.ledger, NUMBERS[0], OVER);
    export(&town, &dir.path().join("exported"));
    let mut compacted = compacted_town(&town, &dir.path().join("compacted"));
    for town in [&mut town, &mut compacted] {
        for (position, _) in pieces(&town.ledger).into_iter().filter(|(_, (serial, _))| *serial == 1) {
            town.ledger.store().put(&[b"r", &position.to_be_bytes()[..]].concat(), b"damaged").unwrap();
        }
        assert!(document_file(&town.ledger, NUMBERS[0], OVER).is_err());
    }
    let refused = import(&mut town, &dir.path().join("exported")).unwrap_err();
    assert!(
        refused.contains("Give a copy with plates") && refused.contains("Nothing was recorded"),
        "{refused}"
    );
    let copies = town.dir.path().to_owned();
    for town in [&mut town, &mut compacted] {
        assert_eq!(import(town, &copies), Ok((1, 2)));
        assert_eq!(json(&town.ledger, NUMBERS[0], OVER), shown);
        assert_eq!(
            town.issue("2020-12")["documents"].as_array().unwrap().len(),
            0,
            "nothing is charged again"
        );
    }
}
