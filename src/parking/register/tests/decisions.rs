use super::*;

fn shown(register: &Register, facts: &[RegisterFact]) -> Vec<String> {
    facts.iter().map(|fact| ShownFact { fact, before: register }.to_string()).collect()
}

fn holders(register: &Register, of: &str) -> Vec<String> {
    let entry = register.plate(&plate(of)).cloned().unwrap_or_default();
    entry.holders.list().iter().map(|held| format!("{} {}", held.account, held.dates)).collect()
}

/// M3: a stay of 29 November went to the new owner because it was delivered after `plates add`.
#[test]
fn a_plate_that_is_added_to_another_account_ends_the_old_registration_the_day_before() {
    let mut register = register("AB1,miller,,2026-01-01,\n", "");
    let added =
        register.add_plate(&plate("AB1"), &account("smith"), DateRange::starting(day(12, 1))).unwrap();
    let ended = Held { dates: DateRange::starting(day(12, 1)), account: account("miller") };
    assert_eq!(added.replaced, [ended]);
    let fact = added.fact.unwrap();
    assert_eq!(shown(&register, std::slice::from_ref(&fact)), ["+ AB1  account smith from 2026-12-01 on"]);
    let affected = apply(&mut register, &[fact]);
    assert_eq!(affected[0].plates, [(plate("AB1"), DateRange::starting(day(12, 1)))]);
    assert_eq!(register.holder(&plate("AB1"), day(11, 29)), Some(&account("miller")));
    assert_eq!(register.holder(&plate("AB1"), day(11, 30)), Some(&account("miller")));
    assert_eq!(register.holder(&plate("AB1"), day(12, 1)), Some(&account("smith")));
    assert_eq!(register.holder(&plate("AB1"), date(2025, 12, 31)), None);
    let again = register.add_plate(&plate("AB1"), &account("smith"), dates(day(12, 3), day(12, 4))).unwrap();
    assert_eq!(again, PlateAddition { fact: None, replaced: Vec::new() });
}

#[test]
fn an_added_registration_wins_in_its_dates_and_what_lies_outside_of_them_stays() {
    let mut register = register("AB1,miller,,,\n", "");
    let added = register.add_plate(&plate("AB1"), &account("smith"), dates(day(3, 1), day(3, 31))).unwrap();
    let affected = apply(&mut register, added.fact.as_slice());
    assert_eq!(affected[0].plates, [(plate("AB1"), dates(day(3, 1), day(3, 31)))]);
    let expected =
        ["miller until 2026-02-28", "smith from 2026-03-01 to 2026-03-31", "miller from 2026-04-01 on"];
    assert_eq!(holders(&register, "AB1"), expected);
    let back = register.add_plate(&plate("AB1"), &account("miller"), dates(day(3, 1), day(3, 31))).unwrap();
    apply(&mut register, back.fact.as_slice());
    assert_eq!(
        holders(&register, "AB1"),
        ["miller always"],
        "neighbours of one account are one registration"
    );
}

#[test]
fn a_removed_plate_is_held_through_the_day_before() {
    let mut register = register("AB1,miller,,,2026-06-30\nAB1,smith,,2026-08-01,\n", "");
    let fact = register.remove_plate(&plate("AB1"), day(6, 10)).unwrap();
    assert_eq!(shown(&register, std::slice::from_ref(&fact)), ["- AB1  from 2026-06-10 on"]);
    let affected = apply(&mut register, &[fact]);
    assert_eq!(holders(&register, "AB1"), ["miller until 2026-06-09"]);
    let expected = [dates(day(6, 10), day(6, 30)), DateRange::starting(day(8, 1))];
    assert_eq!(affected[0].plates, expected.map(|dates| (plate("AB1"), dates)));
    let refusal = register.remove_plate(&plate("AB1"), day(6, 10)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the plate AB1 is not registered on 2026-06-10 or later; \"server plates list\" shows what is registered"
    );
}

#[test]
fn an_import_of_plates_adds_what_is_new_and_nothing_else() {
    let text = "plate,account,name,valid_from,valid_to\nB-AB 1,miller,Miller Ltd,,\nAB 2,miller,,2026-01-01,2026-06-30\n";
    let mut register = Register::default();
    let import = register.import_plates(text).unwrap();
    let expected = [
        "+ account miller  name \"Miller Ltd\"",
        "+ AB2  account miller from 2026-01-01 to 2026-06-30",
        "+ BAB1  account miller always",
    ];
    assert_eq!(shown(&register, &import.facts), expected);
    apply(&mut register, &import.facts);
    assert_eq!(register.import_plates(text).unwrap(), RegisterImport::default());
    let import = register.import_plates("account,plate,colour\nsmith,AB2,red\n").unwrap_err();
    assert_eq!(
        import.to_string(),
        "line 2, plate: AB2 is registered to \"miller\" from 2026-01-01 to 2026-06-30; to end that first, use \"server plates remove AB2 --on DATE\""
    );
    let text =
        "colour,account,plate,valid_from,name\nred,smith,AB2,2026-07-01,Smith\nred,miller,AB2,,Muller\n";
    let import = register.import_plates(text).unwrap_err();
    assert_eq!(
        import.to_string(),
        "line 2, plate: AB2 has account \"miller\" always in line 3: one plate has one account on a day"
    );
    let text =
        "colour,account,plate,valid_from,name\nred,smith,AB2,2026-07-01,Smith\nred,miller,BAB1,,Muller\n";
    let import = register.import_plates(text).unwrap();
    let expected = ["+ account smith  name \"Smith\"", "+ AB2  account smith from 2026-07-01 on"];
    assert_eq!(shown(&register, &import.facts), expected);
    assert_eq!(import.warnings.len(), 2, "{:?}", import.warnings);
    assert!(import.warnings[0].contains("\"colour\""));
    assert_eq!(
        import.warnings[1],
        "line 3: the name \"Muller\" is not used: account \"miller\" has a record, with the name \"Miller Ltd\"; \"server accounts set\" changes it"
    );
    let unnamed = register.import_plates("plate,account\nAB3,miller\n").unwrap().unnamed;
    assert_eq!(unnamed, [plate("AB2"), plate("BAB1")]);
}

#[test]
fn every_bad_line_of_a_file_is_named_and_nothing_is_taken() {
    let text = "plate,account,name,valid_from,valid_to\n\
        A?,,,2026-02-30,\nAB1,miller,a\u{7}b,2026-01-02,2026-01-01\nAB2,miller,,,2026-06-30\nab-2,smith,,2026-06-30,\nAB2,smith,,2026-07-01,\nAB3\n";
    let expected = "\
line 2, account: it is empty
line 2, plate: a plate is made of letters and digits, '?' is neither
line 2, valid_from: \"2026-02-30\" is not a date; a date looks like 2026-11-30
line 3, name: it contains '\\u{7}', which is not a printable character
line 3, valid_to: the last day, 2026-01-01, comes before the first, 2026-01-02
line 5, plate: AB2 has account \"miller\" until 2026-06-30 in line 4: one plate has one account on a day
line 7: it has 1 field, the header has 5";
    assert_eq!(Register::default().import_plates(text).unwrap_err().to_string(), expected);
}

/// M6: a bill was addressed to the name beside the alphabetically first plate.
#[test]
fn an_account_has_one_record_which_adding_a_plate_does_not_change() {
    let mut register = register("AB2,miller,Miller Ltd,,\nAB3,miller,Other,,\n", "");
    let import = register.import_plates("plate,account,name\nAB1,miller,First\n").unwrap();
    assert_eq!(import.facts.len(), 1);
    apply(&mut register, &import.facts);
    assert_eq!(register.customer(&account("miller")).unwrap().name, "Miller Ltd");
    let text =
        "account;address;country;vat_id;email\nmiller;1 High Street | Leeds;gb;;jo@example.com\nsmith;;;;\n";
    let import = register.import_accounts(text).unwrap();
    let expected =
        "~ account miller  address \"1 High Street | Leeds\", country \"GB\", email \"jo@example.com\"";
    assert_eq!(shown(&register, &import.facts), [expected], "smith has a line, but nothing to keep");
    let affected = apply(&mut register, &import.facts);
    assert_eq!(affected[0], Affected { account: Some(account("miller")), ..Affected::default() });
    assert_eq!(register.import_accounts(text).unwrap().facts, []);
    let patch = CustomerPatch { name: Some("Miller plc".into()), ..CustomerPatch::default() };
    let fact = register.set_customer(&account("miller"), patch.clone()).unwrap();
    apply(&mut register, fact.as_slice());
    assert_eq!(register.set_customer(&account("miller"), patch), Ok(None));
    assert_eq!(register.customer(&account("miller")).unwrap().address, ["1 High Street", "Leeds"]);
    let error =
        register.import_accounts("account,country\na,XYZ\nb,DE\nb,FR\nunregistered,DE\n").unwrap_err();
    let expected = "\
line 2, country: \"XYZ\" is not a country code; a code of ISO 3166 has two letters, as DE
line 4, account: \"b\" stands in line 3 too, with another record
line 5, account: \"unregistered\" is reserved for the stays of unregistered plates";
    assert_eq!(error.to_string(), expected);
}

fn named(register: &Register, of: &str, garage: &str, on: Date) -> Option<(String, String, u32)> {
    let named = register.contract_of(&plate(of), |name| name == garage, on)?;
    let version = named.version;
    Some((named.contract.to_string(), version.account.to_string(), version.cars))
}

#[test]
fn lines_of_one_contract_with_other_dates_are_versions() {
    let register = register(
        "",
        "c,miller,AB1,North,2026-01-01,2026-06-30,1\nc,miller,AB1,*,2026-07-01,,2\nc,miller,AB2,South,2026-07-01,,2\n",
    );
    let one = |cars| Some(("c".to_owned(), "miller".to_owned(), cars));
    for (car, garage, on, expected) in [
        ("AB1", "North", day(1, 1), one(1)),
        ("AB1", "South", day(1, 1), None),
        ("AB1", "North", day(6, 30), one(1)),
        ("AB1", "South", day(7, 1), one(2)),
        ("AB1", "West", day(7, 1), one(2)),
        ("AB2", "South", day(6, 30), None),
        ("AB2", "South", date(2030, 1, 1), one(2)),
        ("AB2", "North", date(2030, 1, 1), None),
        ("AB1", "North", date(2025, 12, 31), None),
    ] {
        assert_eq!(named(&register, car, garage, on), expected, "{car} {garage} {on}");
    }
    let history = register.contract(&contract("c")).unwrap();
    assert_eq!(history.versions().len(), 2);
    assert_eq!(history.plates().collect::<Vec<_>>(), [&plate("AB1"), &plate("AB2")]);
}

/// M7: a contract that was removed while cars were inside left their charges to nobody.
#[test]
fn a_removed_contract_holds_through_the_day_before() {
    let lines =
        "c,miller,AB1,*,2026-01-01,,1\nc,miller,AB2,*,2026-02-01,2026-06-30,1\nc,smith,AB1,*,2027-01-01,,2\n";
    let lines = lines.replace("AB1,*,2026-01-01,,", "AB1,*,2026-01-01,2026-12-31,");
    let mut register = register("", &lines);
    let fact = register.remove_contract(&contract("c"), day(3, 1)).unwrap();
    let affected = apply(&mut register, &[fact]);
    let rest = Some(("c".to_owned(), "miller".to_owned(), 1));
    assert_eq!(named(&register, "AB1", "North", day(2, 28)), rest);
    assert_eq!(named(&register, "AB1", "North", day(3, 1)), None);
    assert_eq!(named(&register, "AB1", "North", date(2027, 1, 1)), None);
    let expected = [
        (plate("AB1"), dates(day(3, 1), day(12, 31))),
        (plate("AB1"), DateRange::starting(date(2027, 1, 1))),
        (plate("AB2"), dates(day(3, 1), day(6, 30))),
    ];
    assert_eq!(affected[0].plates, expected);
    assert_eq!(affected[0].contract, Some((contract("c"), DateRange::starting(day(3, 1)))));
    assert!(
        register.remove_contract(&contract("c"), day(3, 1)).unwrap_err().to_string().contains("ends before")
    );
    let fact = register.remove_contract(&contract("c"), date(2000, 1, 1)).unwrap();
    apply(&mut register, &[fact]);
    assert_eq!(register, Register::default());
    assert!(
        register.remove_contract(&contract("c"), day(3, 1)).unwrap_err().to_string().contains("no contract")
    );
}

#[test]
fn of_a_file_of_contracts_only_what_changes_is_recorded() {
    let lines: String = (0..300).map(|n| format!("fleet,miller,AB{n},*,2026-01-01,2026-12-31,9\n")).collect();
    let mut register = register("", &lines);
    let text = format!("{CONTRACTS}{lines}");
    assert_eq!(register.import_contracts(&text, no_renames).unwrap().facts, []);
    let import = register.import_contracts(&text.replace("AB7,*", "CD7,North"), no_renames).unwrap();
    let expected = [
        "~ contract fleet from 2026-01-01 to 2026-12-31  account miller, cars 9, - AB7 in *",
        "~ contract fleet from 2026-01-01 to 2026-12-31  account miller, cars 9, + CD7 in North",
    ];
    assert_eq!(shown(&register, &import.facts), expected);
    let affected = apply(&mut register, &import.facts);
    let plates: Vec<_> = affected.iter().flat_map(|its| &its.plates).map(|its| its.0.as_str()).collect();
    assert_eq!(plates, ["AB7", "CD7"]);
    let import =
        register.import_contracts(&text.replace("AB7,*", "CD7,North").replace(",9\n", ",8\n"), no_renames);
    let import = import.unwrap();
    let expected = ["~ contract fleet from 2026-01-01 to 2026-12-31  account miller, cars 9 -> 8"];
    assert_eq!(shown(&register, &import.facts), expected);
    assert_eq!(
        apply(&mut register, &import.facts)[0].plates.len(),
        300,
        "each of its cars may find another number of places"
    );
    let next = "c,miller,AB1,*,2027-01-01,2027-12-31,9\n".replace("c,", "fleet,");
    let import = register.import_contracts(&format!("{CONTRACTS}{next}"), no_renames).unwrap();
    let affected = apply(&mut register, &import.facts);
    assert_eq!(affected[0].plates.len(), 1);
    assert!(named(&register, "AB1", "x", day(5, 5)).is_some(), "the version of the year before stays");
}

#[test]
fn contracts_that_name_a_car_twice_are_refused_with_both_lines() {
    let refused = |register: &Register, lines: &str| {
        register
            .import_contracts(&format!("{CONTRACTS}{lines}"), |a, b| a == "Old" && b == "New")
            .unwrap_err()
            .to_string()
    };
    let none = Register::default();
    for (lines, reason) in [
        (
            "c,a,AB1,North,2026-01-01,2026-01-31,1\nd,a,AB1,*,2026-01-31,,1\n",
            "line 3, plate: AB1 in garage * from 2026-01-31 on is in contract \"c\" already, in garage North from 2026-01-01 to 2026-01-31, in line 2",
        ),
        (
            "d,a,AB1,*,,,1\nc,a,AB1,North,2026-01-01,2026-01-31,1\n",
            "line 3, plate: AB1 in garage North from 2026-01-01 to 2026-01-31 is in contract \"d\" already, in garage * always, in line 2",
        ),
        (
            "c,a,AB1,North,,,1\nc,a,AB1,*,,,1\n",
            "line 3, plate: AB1 in garage * always is in contract \"c\" already, in garage North always, in line 2",
        ),
        (
            "c,a,AB1,Old,,,1\nd,a,AB1,New,,,1\n",
            "line 3, plate: AB1 in garage New always is in contract \"c\" already, in garage Old always, in line 2",
        ),
        (
            "c,a,AB1,North,2026-01-01,2026-01-31,1\nc,a,AB1,South,2026-01-31,2026-02-28,2\n",
            "line 3, contract: 2 cars of a from 2026-01-31 to 2026-02-28 here, but 1 of a from 2026-01-01 to 2026-01-31 in line 2: versions of one contract that overlap have the same account and cars",
        ),
        (
            "c,a,AB1,North,,,1\nc,b,AB2,North,,,2\n",
            "line 3, account: b here, but a in line 2 of the same contract\nline 3, cars: 2 here, but 1 in line 2 of the same contract",
        ),
    ] {
        assert_eq!(refused(&none, lines), reason, "{lines}");
    }
    let mut register = register("", "c,a,AB1,North,2026-01-01,,1\n");
    assert_eq!(
        refused(&register, "d,a,AB1,*,2026-05-01,,1\n"),
        "line 2, plate: AB1 in garage * from 2026-05-01 on is in contract \"c\" already, in garage North from 2026-01-01 on, as registered; to end that first, use \"server contracts remove\""
    );
    assert!(
        refused(&register, "c,a,AB2,*,2026-05-01,,2\n").contains("1 of a from 2026-01-01 on as registered")
    );
    let text = format!(
        "{CONTRACTS}d,a,AB1,South,2026-05-01,,1\nd,a,AB1,South,2026-05-01,,1\nc,a,AB2,*,2026-02-01,,1\n"
    );
    let import = register.import_contracts(&text, no_renames).unwrap();
    apply(&mut register, &import.facts);
    assert_eq!(named(&register, "AB2", "x", day(2, 1)), Some(("c".into(), "a".into(), 1)), "joins later");
}

#[test]
fn every_field_of_a_contract_is_checked() {
    for (line, reason) in [
        (",a,AB1,*,2026-01-01,2026-01-02,1", "line 2, contract: it is empty"),
        ("c,Unregistered,AB1,*,,,1", "line 2, account: \"Unregistered\" is reserved"),
        ("c,a,-,*,,,1", "line 2, plate: a plate has 1 to 16"),
        ("c,a,AB1,,,,1", "line 2, garage: it is empty"),
        ("c,a,AB1,*,1.2.2026,,1", "line 2, valid_from: \"1.2.2026\" is not a date"),
        ("c,a,AB1,*,2026-01-02,2026-01-01,1", "line 2, valid_to: the last day, 2026-01-01, comes before"),
        ("c,a,AB1,*,,,0", "line 2, cars: \"0\" is not a number of cars"),
        ("c,a,AB1,*,,,+2", "line 2, cars: "),
        ("c,a,AB1,*,,,4294967296", "line 2, cars: "),
    ] {
        let error = Register::default().import_contracts(&format!("{CONTRACTS}{line}"), no_renames);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(reason) && error.lines().count() == 1, "{line}: {error}");
    }
}

/// M15: a plate in one account's contract, registered to another, stood on the other's bill without a word.
#[test]
fn a_plate_that_is_registered_to_another_account_than_its_contracts_is_said() {
    let one = register("AB1,smith,,2026-03-01,2026-05-31\n", "c,miller,AB1,*,2026-05-01,,1\n");
    let expected = "AB1 is registered to \"smith\" from 2026-05-01 to 2026-05-31, but contract \"c\" of \"miller\" names it: \"miller\" pays";
    let found = one.disagreements_of(&plate("AB1"));
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    assert_eq!(named(&one, "AB1", "North", day(5, 31)), Some(("c".to_owned(), "miller".to_owned(), 1)));
    assert_eq!(named(&one, "AB1", "North", day(4, 30)), None);
    assert_eq!(one.holder(&plate("AB1"), day(4, 30)), Some(&account("smith")));
    let plates = "plate,account,valid_from,valid_to\nAB1,smith,2026-03-01,2026-05-31\n";
    let contracts = format!("{CONTRACTS}c,miller,AB1,*,2026-05-01,,1\n");
    assert_eq!(
        register("", "c,miller,AB1,*,2026-05-01,,1\n").import_plates(plates).unwrap().disagreements,
        found
    );
    let registered = register("AB1,smith,,2026-03-01,2026-05-31\n", "");
    assert_eq!(registered.import_contracts(&contracts, no_renames).unwrap().disagreements, found);
    assert_eq!(register("AB1,miller,,,\n", "c,miller,AB1,*,,,1\n").disagreements_of(&plate("AB1")), []);
}

/// What no file can say may stand in a ledger all the same.
#[test]
fn no_fact_makes_an_entry_too_large_for_the_store() {
    let mut register = Register::default();
    let long = |n: usize| account(&format!("{n:064}"));
    for n in 0..200 {
        let dates =
            dates(date(2026, 1, 1).saturating_add(jiff::Span::new().days(2 * n as i64)), date(2027, 12, 31));
        register.apply(&RegisterFact::Holder { plate: plate("AB1"), dates, account: Some(long(n)) });
        let garage = format!("{n:064}").parse().unwrap();
        let change = ContractChange {
            contract: contract("c"),
            version: ContractVersion { dates, account: long(n), cars: u32::MAX },
            removed: Vec::new(),
            added: vec![ContractCar { plate: plate("AB2"), garage }],
        };
        register.apply(&RegisterFact::Contract(Box::new(change)));
    }
    assert!(register.plate(&plate("AB1")).unwrap().holders.list().len() > 50);
    assert_eq!(stored_and_loaded(&register), register);
    let refused = register.add_plate(&plate("AB1"), &long(999), dates(day(1, 1), day(1, 1)));
    assert_eq!(refused, Err(RegisterRefusal::PlateFull(plate("AB1"))));
    let lines: String = (0..2000).map(|n| format!("AB3,{},2026-01-01,\n", n % 2)).collect();
    let lines = lines.lines().enumerate().map(|(n, line)| {
        let on = date(2026, 1, 1).saturating_add(jiff::Span::new().days(n as i64));
        format!("{}{on}\n", line.replace("2026-01-01", &on.to_string()))
    });
    let text = format!("plate,account,valid_from,valid_to\n{}", lines.collect::<String>());
    let error = register.import_plates(&text).unwrap_err().to_string();
    assert!(error.ends_with("AB3 has more registrations than can be kept, 5120 bytes"), "{error}");
    let reversed = postcard::to_allocvec(&(Some(20_000), Some(19_999))).unwrap();
    assert!(postcard::from_bytes::<DateRange>(&reversed).is_err());
    let far = postcard::to_allocvec(&(Some(i64::MAX), None::<i64>)).unwrap();
    assert!(postcard::from_bytes::<DateRange>(&far).is_err());
}
