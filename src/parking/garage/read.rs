//! Reads the tables `[[garage]]` of a configuration, or reports everything that is wrong with them.

use super::geo::GeoPoint;
use super::hours::{KnownHours, OpeningHours};
use crate::parking::tariff::read::{Notes, Table, called, document, elements};
use crate::parking::tariff::{TariffError, TimeWindow, time_zone};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeValue;

const GARAGE: &str = "garage";
const KEYS: &str = "name, address, position, opening_hours, time_zone, capacity, group";
const NAME_BYTES: usize = 64;
const ADDRESS_LINES: usize = 8;
/// Positions of an address, hours and all of more garages than any city has.
const GARAGES_MAX: usize = 20_000;

/// A garage as its table describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredGarage {
    /// As it is written: whether it is a valid name is for those who know garages by their names.
    pub name: String,
    /// The line of the name, from 1.
    pub line: usize,
    pub address: Vec<String>,
    pub position: Option<GeoPoint>,
    pub hours: KnownHours,
    /// It counts while no edge has reported another.
    pub capacity: Option<u32>,
    pub group: Option<String>,
}

/// Reads the garages of a whole configuration file, with all that is wrong in them, by line. Other tables are passed over.
pub fn parse_config(text: &str) -> Result<Vec<ConfiguredGarage>, Vec<TariffError>> {
    let notes = Notes::new(text);
    let Some(document) = document(&notes, text) else { return Err(notes.into_errors()) };
    let mut garages = Vec::new();
    let mut names = BTreeMap::new();
    for value in elements(&notes, document.get_ref(), GARAGE) {
        let Some(garage) = read_garage(&notes, value) else { continue };
        match names.insert(garage.name.clone(), garage.line) {
            None => garages.push(garage),
            Some(line) => notes.note(
                garage.line,
                &called(GARAGE, value),
                format_args!("a garage of this name stands in line {line}, too"),
            ),
        }
    }
    if garages.len() > GARAGES_MAX {
        notes.note(
            1,
            "",
            format_args!("it has {} garages; at most {GARAGES_MAX} are possible", garages.len()),
        );
    }
    if notes.is_empty() { Ok(garages) } else { Err(notes.into_errors()) }
}

fn read_garage(notes: &Notes, value: &Spanned<DeValue<'_>>) -> Option<ConfiguredGarage> {
    let at = called(GARAGE, value);
    let table = Table::new(notes, value, &at)?;
    table.knows(KEYS);
    let name = table.needs("name", table.text("name"));
    let address = if table.is_list("address") {
        let lines = table.labels("address", ("line", 200)).unwrap_or_default();
        let few = Some(()).filter(|()| lines.len() <= ADDRESS_LINES);
        let problem = format_args!("address has more than {ADDRESS_LINES} lines");
        table.or_note(few, table.line_of("address"), problem);
        lines
    } else {
        table.label("address", ("text", 200)).into_iter().collect()
    };
    let position = table.table("position").and_then(|position| {
        position.knows("latitude, longitude");
        let latitude = position.needs("latitude", position.degrees("latitude", 90));
        let longitude = position.needs("longitude", position.degrees("longitude", 180));
        GeoPoint::new(latitude?, longitude?)
    });
    let hours = read_hours(&table);
    let capacity = table.count("capacity", 0..=u32::MAX.into());
    let group = table.label("group", ("text", NAME_BYTES));
    let (name, line) = (name?.to_owned(), table.line_of("name"));
    Some(ConfiguredGarage { name, line, address, position, hours, capacity, group })
}

fn read_hours(table: &Table<'_>) -> KnownHours {
    let zone = table.text("time_zone").and_then(|zone| {
        let known = time_zone(zone).map(|_| zone);
        let problem =
            format_args!("time_zone {zone:?} is not in the IANA database. Zones look like \"Europe/Berlin\"");
        table.or_note(known, table.line_of("time_zone"), problem)
    });
    if !table.has("opening_hours") {
        return KnownHours::Always;
    }
    if !table.has("time_zone") {
        table.note(table.line, "time_zone is missing: opening_hours need one");
    }
    let Some(tables) = table.tables("opening_hours") else { return KnownHours::Always };
    if tables.is_empty() {
        let problem = "opening_hours is empty. A garage that is always open has none; to close one: server garages close";
        table.note(table.line_of("opening_hours"), problem);
    }
    let windows: Vec<TimeWindow> = tables.iter().filter_map(read_window).collect();
    match zone.and_then(|zone| OpeningHours::new(zone, windows)) {
        Some(hours) => KnownHours::Are(hours),
        // What is wrong is noted.
        None => KnownHours::Always,
    }
}

fn read_window(table: &Table<'_>) -> Option<TimeWindow> {
    table.knows("days, from, to");
    let window = table.window()?;
    let of_weekdays = Some(window).filter(|window| !window.days.name_holiday());
    table.or_note(
        of_weekdays,
        table.line_of("days"),
        "opening_hours have no calendar, so \"holiday\" is no day here",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_garage_is_read_with_all_it_has() {
        let text = r#"
            [server]
            data_dir = "d"
            [[garage]]
            name = "Bull Ring"
            address = ["Park Street 1", "Birmingham"]
            position = { latitude = 52.4774, longitude = -1.894 }
            time_zone = "Europe/London"
            opening_hours = [{ days = "mon-sat", from = "06:00", to = "24:00" }, { days = "sun", from = "22:00", to = "04:00" }]
            capacity = 577
            group = "Centre"
            [[garage]]
            name = "2"
            address = "Somewhere 5"
        "#;
        let garages = parse_config(text).unwrap();
        let [bull_ring, two] = &garages[..] else { panic!("{garages:?}") };
        assert_eq!(
            (bull_ring.name.as_str(), bull_ring.line, bull_ring.capacity),
            ("Bull Ring", 5, Some(577))
        );
        assert_eq!(bull_ring.address, ["Park Street 1", "Birmingham"]);
        assert_eq!(bull_ring.position, GeoPoint::new(52.4774, -1.894));
        let KnownHours::Are(hours) = &bull_ring.hours else { panic!("{bull_ring:?}") };
        assert_eq!(hours.to_text().windows, ["mon-sat 06:00-24:00", "sun 22:00-04:00"]);
        assert_eq!(two.address, ["Somewhere 5"]);
        assert_eq!((&two.hours, two.capacity, &two.group), (&KnownHours::Always, None, &None));
        assert_eq!(parse_config("[server]\n"), Ok(vec![]));
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_line() {
        let hours = |window: &str| {
            format!("[[garage]]\nname = \"a\"\ntime_zone = \"UTC\"\nopening_hours = [{window}]")
        };
        for (text, parts) in [
            ("[[garage]]\nnam = \"a\"", &["line 2", "\"nam\" is not known", "name is missing"][..]),
            ("[[garage]]\nname = \"a\"\n[[garage]]\nname = \"a\"", &["line 4", "line 2, too"]),
            (
                "[[garage]]\nname = \"a\"\nposition = { latitude = 91, longitude = 0 }",
                &["line 3", "from -90 to 90"],
            ),
            (
                "[[garage]]\nname = \"a\"\nposition = { latitude = nan, longitude = 1.5 }",
                &["line 3", "from -90 to 90"],
            ),
            ("[[garage]]\nname = \"a\"\nposition = { latitude = 9.5 }", &["line 3", "longitude is missing"]),
            ("[[garage]]\nname = \"a\"\nposition = [9.5, 1.0]", &["line 3", "position must be a table"]),
            ("[[garage]]\nname = \"a\"\ncapacity = -1", &["line 3", "capacity is -1"]),
            ("[[garage]]\nname = \"a\"\ngroup = \"\"", &["line 3", "it is empty"]),
            ("[[garage]]\nname = \"a\"\naddress = 7", &["line 3", "address must be a text"]),
            ("[[garage]]\nname = \"a\"\naddress = [\"b\", 7]", &["line 3", "address must be"]),
            ("[[garage]]\nname = \"a\"\ntime_zone = \"Mars\"", &["line 3", "IANA"]),
            (
                "[[garage]]\nname = \"a\"\nopening_hours = [{ days = \"all\", from = \"00:00\", to = \"24:00\" }]",
                &["time_zone is missing"],
            ),
            (&hours(""), &["line 4", "opening_hours is empty"]),
            (&hours("{ days = \"holiday\", from = \"07:00\", to = \"08:00\" }"), &["line 4", "no calendar"]),
            (
                &hours("{ days = \"monday\", from = \"07:00\", to = \"08:00\" }"),
                &["line 4", "\"monday\" is not a day"],
            ),
            (
                &hours("{ days = \"mon\", from = \"7\", to = \"25:00\" }"),
                &["line 4", "\"7\" is not a time", "\"25:00\" is not a time"],
            ),
            (&hours("{ days = \"mon\", from = \"07:00\" }"), &["line 4", "to is missing"]),
            (
                &hours("{ days = \"mon\", from = \"07:00\", to = \"08:00\", per_unit = 3 }"),
                &["line 4", "\"per_unit\" is not known"],
            ),
            ("[garage]\nname = \"a\"", &["line 1", "tables under [[garage]]"]),
            ("garage = ", &["not TOML"]),
        ] {
            let errors = parse_config(text).unwrap_err();
            let said = errors.iter().map(|error| format!("{error}\n")).collect::<String>();
            for part in parts {
                assert!(said.contains(part), "{text}\n{said}");
            }
        }
    }
}
