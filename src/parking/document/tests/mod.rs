//! What documents promise as a whole: golden renderings, hostile texts, streams, files.

mod samples;

use super::*;
use crate::parking::journal::Debtor;
use crate::parking::money::Amount;
use crate::parking::register::Account;
use crate::parking::tariff::TariffSet;
use crate::parking::{Month, Plate};
use proptest::prelude::*;
use samples::*;
use std::convert::Infallible;
use std::path::Path;

type Document = (DocumentHead, Vec<DocumentLine>);

fn rendered(rendering: Rendering, (head, lines): &Document) -> String {
    let lines = lines.iter().cloned().map(Ok::<_, DocumentError>);
    String::from_utf8(render(rendering, head, lines, Vec::new()).unwrap()).unwrap()
}

/// Compares all renderings with the files that stand beside this one. To make the files of a new layout, run with FOGPOST_GOLDEN=1.
fn is_golden(name: &str, document: &Document) {
    for rendering in Rendering::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/parking/document/tests");
        let path = folder.join(rendering.file_name(name));
        let page = rendered(rendering, document);
        if std::env::var_os("FOGPOST_GOLDEN").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(page, golden, "{path:?}: documents that were issued with layout 1 would look different");
    }
}

/// These files never change: a customer has such documents.
#[test]
fn documents_of_layout_1_look_like_this_forever() {
    is_golden("invoice", &invoice());
    is_golden("credit_note", &credit_note());
    let (mut head, lines) = document(None, vec![]);
    head.customer = holder_of_a_car();
    is_golden("empty_draft", &(head, lines));
}

#[test]
fn a_negative_total_makes_a_credit_note_and_nothing_is_due() {
    let ((invoice, _), (credit_note, _), (empty, _)) = (invoice(), credit_note(), document(issue(9), vec![]));
    let facts = |head: &DocumentHead| (head.kind(), head.totals.gross.minor(), head.due_date());
    let due = jiff::civil::date(2026, 12, 16);
    assert_eq!(facts(&invoice), (DocumentKind::Invoice, 3950, Some(due)));
    assert_eq!(facts(&credit_note), (DocumentKind::CreditNote, -1250, None));
    assert_eq!(facts(&empty), (DocumentKind::Invoice, 0, None));
    assert_eq!(
        credit_note.corrects.len(),
        1,
        "one document is named once, however many of its lines are corrected"
    );
    let (draft, _) = document(None, vec![stay(0, 1, "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z", 1)]);
    assert_eq!(facts(&draft), (DocumentKind::Invoice, 250, None));
}

#[test]
fn bookkeeping_sees_each_month_of_supply_and_no_draft() {
    let (invoice, _) = invoice();
    let summary = invoice.summary().unwrap();
    assert_eq!((summary.serial, summary.due), (7, jiff::civil::date(2026, 12, 16)));
    let totals = summary.totals.iter();
    let totals: Vec<_> =
        totals.map(|sum| (sum.month.to_string(), sum.net.minor(), sum.vat.minor())).collect();
    let expected = [("2026-11", 467, 33), ("2026-10", 840, 160), ("2026-11", 1849, 351), ("2026-11", 250, 0)];
    assert_eq!(totals, expected.map(|(month, net, vat)| (month.to_owned(), net, vat)));
    assert_eq!(credit_note().0.summary().map(|summary| summary.due), Some(jiff::civil::date(2026, 12, 2)));
    assert_eq!(DocumentHead { issue: None, ..invoice }.summary(), None);
}

/// The texts of a page without tags.
fn words(page: &str) -> String {
    let body = page.split_once("<body>").unwrap().1;
    body.split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join("|")
}

/// Article 226 of Directive 2006/112/EC; the credit note also by Article 219.
#[test]
fn people_find_on_paper_what_the_law_asks_for() {
    let invoice = invoice();
    for page in [words(&rendered(Rendering::Html, &invoice)), rendered(Rendering::Text, &invoice)] {
        for fact in [
            "2 Dec 2026",
            "2026-000007",
            "DE 123 456 789",
            "DE 987 654 321",
            "Stadtwerke Musterstadt Parken GmbH",
            "Hauptstraße 12",
            "Am Hafen 4",
            "20457 Hamburg",
            "SML1234",
            "30 Nov 2026",
            "Sun 1 Nov 2026",
            "07:05:12",
            "4 × 2.50 = 10.00",
            "19 % VAT",
            "7 % VAT",
            "No VAT: exempt under section 4 number 12 UStG.",
            "Please pay 39.50 EUR by 16 Dec 2026.",
            "DE89 3704 0044 0532 0130 00",
            "covered by the contract Miller day",
            "Corrects 2026-000003 of 3 Nov 2026: charged until now 5.00, correct amount 7.50",
            "Reason: later facts changed this stay",
            "01:30:00 (UTC+02:00)",
        ] {
            assert!(page.contains(fact), "{fact}\n{page}");
        }
        assert!(
            !page.contains(".250") && !page.contains(".9 ") && !page.contains("09.9"),
            "milliseconds: {page}"
        );
        assert!(!page.contains("0c38-4f0e"), "an epoch: {page}");
    }
    let credit_note = credit_note();
    for page in [words(&rendered(Rendering::Html, &credit_note)), rendered(Rendering::Text, &credit_note)] {
        for fact in [
            "This credit note corrects 2026-000003 of 3 Nov 2026.",
            "Reason: barrier out of order, waited 40 minutes",
            "12.50 EUR are credited to your account.",
        ] {
            assert!(page.contains(fact), "{fact}\n{page}");
        }
        assert!(!page.contains("Please pay"), "{page}");
    }
}

#[test]
fn a_draft_cannot_be_taken_for_an_invoice() {
    let (mut head, lines) = invoice();
    head.issue = None;
    let draft = (head, lines);
    for rendering in [Rendering::Html, Rendering::Text] {
        let page = rendered(rendering, &draft);
        assert!(page.contains("DRAFT") && page.contains("This is a draft and not an invoice."), "{page}");
        assert!(!page.contains("Please pay") && !page.contains("2026-000007"), "{page}");
    }
    let json: serde_json::Value = serde_json::from_str(&rendered(Rendering::Json, &draft)).unwrap();
    assert_eq!(
        (json["draft"].as_bool(), json["number"].is_null(), json["due_date"].is_null()),
        (Some(true), true, true)
    );
    assert!(rendered(Rendering::Csv, &draft).contains("\r\nDRAFT,invoice,,miller,"));
}

#[test]
fn a_page_needs_nothing_else_and_prints_its_header_on_every_sheet() {
    let page = rendered(Rendering::Html, &invoice());
    for word in ["http:", "https:", "url(", "@import", "<script", "<link", "<img", "src="] {
        assert!(!page.contains(word), "{word}");
    }
    for rule in ["@page", "size: A4", "@media print", "table-header-group", "break-inside: avoid"] {
        assert!(page.contains(rule), "{rule}");
    }
}

#[test]
fn a_document_whose_lines_do_not_make_its_totals_is_not_shown() {
    let refused = |change: &dyn Fn(&mut DocumentHead, &mut Vec<DocumentLine>)| {
        let (mut head, mut lines) = invoice();
        change(&mut head, &mut lines);
        let lines = lines.into_iter().map(Ok::<_, DocumentError>);
        Digests::of(&head, lines).unwrap_err().to_string()
    };
    let cent = |amount: Amount| Amount::of_minor(amount.minor() + 1);
    assert!(refused(&|_, lines| drop(lines.pop())).contains("do not make its totals"));
    assert!(refused(&|_, lines| drop(lines.remove(2))).contains("its totals"), "a line that costs nothing");
    assert!(refused(&|_, lines| lines[0].amount.gross = cent(lines[0].amount.gross)).contains("its totals"));
    assert!(refused(&|_, lines| lines[0].amount.net = cent(lines[0].amount.net)).contains("its totals"));
    assert!(
        refused(&|_, lines| lines[6].amount.gross = cent(lines[6].amount.gross))
            .contains("line 7 is not the difference")
    );
    assert!(refused(&|_, lines| lines[0].amount.rate = Some(9)).contains("line 1 has no VAT rate"));
    assert!(refused(&|_, lines| lines[0].amount.rate = None).contains("line 1 has no VAT rate"));
    assert!(refused(&|head, _| head.totals.gross = cent(head.totals.gross)).contains("its totals"));
    assert!(refused(&|_, lines| lines[0].month = Month::EPOCH).contains("its totals"));
    assert!(refused(&|head, _| drop(head.supplies.pop())).contains("its totals"));
    assert!(refused(&|head, _| head.layout = 2).contains("layout 2"));
}

/// From the price of a stay to what its line says.
#[test]
fn a_price_explains_itself_on_the_line() {
    let line = |vat: &str| {
        let toml = format!(
            "[[tariff]]\nname = \"centre\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
             valid_from = 2020-01-01\n{vat}\nunit_minutes = 60\ndaily_cap = 500\n\
             bands = [{{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 200 }}]\n"
        );
        let tariffs = TariffSet::parse(&toml).unwrap();
        let (entry, exit) = (at("2020-06-30T20:00:00+02:00"), at("2020-07-01T00:30:00+02:00"));
        let priced = tariffs.tariffs()[0].price(entry.timestamp, exit.timestamp).unwrap();
        let mut raw = stay(0, 1, &entry.to_string(), &exit.to_string(), 0);
        raw.line.steps = priced.breakdown().iter().map(PriceStep::from).collect();
        let raw = RawLine {
            rate: Some(priced.tariff.vat_basis(exit.timestamp)),
            gross: priced.amount.minor(),
            ..raw
        };
        rendered(Rendering::Text, &document(issue(7), vec![raw]))
    };
    let text = line("vat = [{ percent = 19 }, { from = 2020-07-01, percent = 16 }]");
    for fact in [
        "tariff centre, net 6.03 + 16 % VAT",
        "\n      Tue 30 Jun 20:00: 2 × 2.00 = 4.00 (all 00:00-24:00)\n",
        "\n      Tue 30 Jun 22:00: 1.00 (all 00:00-24:00, held by the cap of 5.00 EUR a day)\n",
        "\n      Wed 1 Jul 00:00: 2.00 (all 00:00-24:00)\n",
    ] {
        assert!(text.contains(fact), "{fact}\n{text}");
    }
    let text = line("vat_reason = \"small business, section 19 UStG\"");
    assert!(text.contains("No VAT: small business, section 19 UStG."), "{text}");
}

/// Tags and attributes of a page, in order.
fn markup(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0).collect()
}

/// The document with an `x` for each text.
fn tame((mut head, lines): Document) -> Document {
    let x = || "x".to_owned();
    head.issuer =
        Issuer { name: x(), address: vec![x()], vat_id: Some(x()), footer: vec![x()], ..head.issuer };
    let debtor = match head.customer.debtor {
        Debtor::Account(_) => Debtor::Account(Account::new("x").unwrap()),
        Debtor::Plate(_) => Debtor::Plate(Plate::new("X").unwrap()),
        removed @ Debtor::PlateRemoved { .. } => removed,
    };
    head.customer =
        BilledCustomer { debtor, name: Some(x()), address: vec![x()], country: Some(x()), vat_id: Some(x()) };
    let lines = lines.into_iter().map(|line| {
        let Ok(line) = line.try_map(&mut |_| Ok::<_, Infallible>("x".into()));
        line
    });
    let lines = lines.collect();
    (head, lines)
}

fn lines_of(pieces: &[&[u8]]) -> Vec<DocumentLine> {
    pieces.iter().flat_map(|piece| decode_lines(piece).unwrap()).collect()
}

#[test]
fn texts_stand_in_a_piece_once() {
    let (entry, exit) = ("2026-11-01T07:05:12+01:00", "2026-11-01T10:48:32+01:00");
    let stays = (0..500).map(|n| stay(n, 1200 + 3 * n as u64, entry, exit, 4));
    let (_, lines) = document(issue(9), stays.collect());
    let piece = encode_lines(lines.clone());
    assert!(piece.len() < 55 * lines.len(), "{} bytes a line", piece.len() / lines.len());
    assert_eq!(decode_lines(&piece).unwrap(), lines);
}

#[test]
fn a_reference_is_the_id_of_its_charge() {
    for line in invoice().1 {
        let id: crate::parking::ChargeId = line.reference.long().parse().unwrap();
        assert_eq!(LineReference::from(&id), line.reference);
    }
}

#[test]
fn bytes_that_are_no_document_are_refused() {
    let (head, lines) = invoice();
    let (head, piece) = (head.to_bytes(), encode_lines(lines));
    for length in 0..piece.len() {
        assert!(decode_lines(&piece[..length]).is_err());
    }
    for length in 0..head.len() {
        assert!(DocumentHead::from_bytes(&head[..length]).is_err());
    }
    for whole in [&head, &piece] {
        let mut longer = whole.clone();
        longer.push(0);
        assert!(decode_lines(&longer).is_err() && DocumentHead::from_bytes(&longer).is_err());
        longer[0] = 2;
        assert!(decode_lines(&longer).unwrap_err().to_string().contains("format 2"));
    }
}

fn exported(head: &DocumentHead, digests: &Digests, pieces: &[&[u8]]) -> Vec<u8> {
    let mut file = DocumentFile::begin(Vec::new(), DocumentPlates::AsIssued, head, digests).unwrap();
    pieces.iter().for_each(|piece| file.piece(piece).unwrap());
    file.finish().unwrap()
}

#[test]
fn an_exported_file_is_sound_or_refused() {
    let (head, lines) = invoice();
    let digests = Digests::of(&head, lines.iter().cloned().map(Ok::<_, DocumentError>)).unwrap();
    let (first, second) = (encode_lines(lines[..3].to_vec()), encode_lines(lines[3..].to_vec()));
    let file = exported(&head, &digests, &[&first, &second]);
    let read = ReadDocument::from_bytes(&file).unwrap();
    assert_eq!((&read.head, read.digests, lines_of(&read.pieces)), (&head, digests, lines));
    assert_eq!(read.pieces, [first.as_slice(), &second]);
    for length in 0..file.len() {
        assert!(ReadDocument::from_bytes(&file[..length]).is_err(), "{length}");
    }
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 0x10;
        assert!(ReadDocument::from_bytes(&flipped).is_err(), "{at}");
    }
    assert!(matches!(ReadDocument::from_bytes(b"number,account\n"), Err(FileError::Foreign)));
    assert!(matches!(ReadDocument::from_bytes(b"fogpost document 2\n"), Err(FileError::Later)));
    assert_eq!(export_name("2026-000007"), "2026-000007.fogpost");
}

proptest! {
    /// The page has the same markup as if every text were an `x`.
    #[test]
    fn no_text_becomes_markup(document in any_document()) {
        let wild = rendered(Rendering::Html, &document);
        prop_assert!(wild.chars().all(|c| c == '\n' || !c.is_control()));
        let tame = rendered(Rendering::Html, &tame(document));
        prop_assert_eq!(markup(&wild), markup(&tame));
    }

    #[test]
    fn a_terminal_obeys_no_text(document in any_document()) {
        let text = rendered(Rendering::Text, &document);
        let is_obeyed = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        prop_assert!(!text.contains(is_obeyed));
    }

    #[test]
    fn only_numbers_begin_like_a_formula_and_rows_add_up((head, lines) in any_document()) {
        let document = (head, lines);
        let table = rendered(Rendering::Csv, &document);
        let (head, lines) = document;
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let names = reader.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        prop_assert_eq!(rows.len(), lines.len());
        let mut sums = [0i64; 3];
        for row in &rows {
            for (cell, name) in row.iter().zip(&names) {
                if let Some(place) = ["gross", "net", "vat"].iter().position(|sum| *sum == name) {
                    sums[place] += cell.replace('.', "").parse::<i64>().unwrap();
                } else if !["before", "now"].contains(&name) {
                    prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{name}: {cell:?}");
                }
            }
        }
        prop_assert_eq!(sums, [head.totals.gross, head.totals.net, head.totals.vat].map(Amount::minor));
    }

    #[test]
    fn json_has_every_line_as_it_is(document in any_document()) {
        let json: serde_json::Value = serde_json::from_str(&rendered(Rendering::Json, &document)).unwrap();
        let (head, lines) = document;
        let shown = json["lines"].as_array().unwrap();
        prop_assert_eq!(shown.len(), lines.len());
        prop_assert_eq!(json["totals"]["gross"].as_i64(), Some(head.totals.gross.minor()));
        for (shown, line) in shown.iter().zip(&lines) {
            prop_assert_eq!(shown["garage"].as_str(), Some(line.garage.as_str()));
            prop_assert_eq!(shown["left_at"].as_str().unwrap(), line.exit.to_string());
            prop_assert_eq!(shown["gross"].as_i64(), Some(line.amount.gross.minor()));
            let sum = shown["net"].as_i64().unwrap() + shown["vat"].as_i64().unwrap();
            prop_assert_eq!(sum, line.amount.gross.minor());
            prop_assert_eq!(shown["vat_percent"].is_null() && shown["no_vat_reason"].is_null(), line.amount.rate.is_none());
        }
    }

    #[test]
    fn what_is_recorded_comes_back_and_looks_the_same((head, lines) in any_document(), cut in any::<prop::sample::Index>()) {
        let digests = Digests::of(&head, lines.iter().cloned().map(Ok::<_, DocumentError>)).unwrap();
        let cut = cut.index(lines.len() + 1);
        let (first, second) = (encode_lines(lines[..cut].to_vec()), encode_lines(lines[cut..].to_vec()));
        let file = exported(&head, &digests, &[&first, &second]);
        let read = ReadDocument::from_bytes(&file).unwrap();
        prop_assert_eq!(&read.head, &head);
        let back = (read.head.clone(), lines_of(&read.pieces));
        prop_assert_eq!(&back.1, &lines);
        for rendering in Rendering::ALL {
            prop_assert_eq!(read.digests.get(rendering), *blake3::hash(rendered(rendering, &back).as_bytes()).as_bytes());
        }
    }
}
