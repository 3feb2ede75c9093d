//! What stays cost, and who the customers are, in a city whose user gave no configuration: examples.
//!
//! **Promise.** The files are valid, and say the same in every run. A user who gave a configuration gets none of this.

use super::children::ChildSpec;
use super::plan::GarageSite;
use fogpost::traffic::plates::PlateRegistry;
use fogpost::traffic::recording::Recording;
use std::io;
use std::path::{Path, PathBuf};

const RECORDED: &str = include_str!("tariffs/recorded.toml");
const SIMULATED: &str = include_str!("tariffs/simulated.toml");

/// Writes the example configuration for these cars; returns where.
pub fn write_config(dir: &Path, recording: Option<&Recording>, sites: &[GarageSite]) -> io::Result<PathBuf> {
    let path = dir.join("city.toml");
    let text = match recording {
        Some(_) => RECORDED.to_owned(),
        None => format!("{SIMULATED}{}", garages(sites)),
    };
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The tables of the simulated garages. They stand around the cathedral of Cologne, each further out than the one before.
fn garages(sites: &[GarageSite]) -> String {
    const CENTRE: (f64, f64) = (50.9413, 6.9583);
    const METRES_OF_A_DEGREE: f64 = 111_195.0;
    // No two directions are alike.
    const TURN_DEGREES: f64 = 137.5;
    let table = |(index, GarageSite { name, .. }): (usize, &GarageSite)| {
        let metres = 280.0 * (index as f64 + 1.0).sqrt();
        let (sin, cos) = (TURN_DEGREES * index as f64).to_radians().sin_cos();
        let latitude = CENTRE.0 + metres * cos / METRES_OF_A_DEGREE;
        let longitude = CENTRE.1 + metres * sin / (METRES_OF_A_DEGREE * CENTRE.0.to_radians().cos());
        let group = if metres < 800.0 { "Centre" } else { "Outer ring" };
        format!(
            "\n[[garage]]\nname = {name:?}\nposition = {{ latitude = {latitude:.5}, longitude = {longitude:.5} }}\ngroup = {group:?}\n"
        )
    };
    sites.iter().enumerate().map(table).collect()
}

/// Accounts of the simulated city, with the names and addresses of their customers.
const ACCOUNTS: &[(&str, &str, &str)] = &[
    ("stadtwerke", "Stadtwerke am Rhein", "Uferweg 3|50667 Köln"),
    ("kanzlei-vogt", "Kanzlei Vogt und Partner", "Domgasse 14|50668 Köln"),
    ("pflegedienst", "Ambulanter Pflegedienst Süd", "Südring 101|50677 Köln"),
    ("baecker-klein", "Bäckerei Klein", "Markt 1|50679 Köln"),
];

/// How many of the cars of each garage, from the first on, are on one of the accounts.
const REGISTERED: u64 = 32;

/// Registers some cars of the simulated city, and gives some of them a contract, as an operator would: by importing files
/// from `dir`. What the server knows already is not recorded again. `Err` says why they could not be registered.
pub async fn register_customers(
    server: &ChildSpec,
    dir: &Path,
    sites: &[GarageSite],
    seed: u64,
) -> Result<(), String> {
    let (plates, contracts) = customers(sites.len(), seed);
    for (of, text) in [("accounts", accounts()), ("plates", plates), ("contracts", contracts)] {
        let path = dir.join(format!("{of}.csv"));
        std::fs::write(&path, text)
            .map_err(|error| format!("cannot write the example's customers to {path:?}: {error}"))?;
        let imported = server.run_command(&[of, "import", &path.to_string_lossy()]).await;
        imported.map_err(|reason| format!("the server did not take the example's customers: {reason}"))?;
    }
    Ok(())
}

fn accounts() -> String {
    let lines = ACCOUNTS.iter().map(|(account, name, address)| format!("{account},{name},{address},DE\n"));
    format!("account,name,address,country\n{}", lines.collect::<String>())
}

/// The files of plates and of contracts.
fn customers(garages: usize, seed: u64) -> (String, String) {
    let registry = PlateRegistry::new(seed, garages);
    let mut plates = "plate,account\n".to_owned();
    let mut contracts = "contract,account,plate,garage,valid_from,valid_to,cars\n".to_owned();
    for garage in 0..garages {
        for number in 0..REGISTERED {
            let plate = registry.plate(garage, number);
            let (account, ..) = ACCOUNTS[(number % ACCOUNTS.len() as u64) as usize];
            plates += &format!("{plate},{account}\n");
            if number == 0 {
                // Of the cars of this contract three may be inside at once.
                contracts += &format!("dienstwagen,stadtwerke,{plate},*,2026-01-01,2099-12-31,3\n");
            }
        }
    }
    (plates, contracts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogpost::parking::garage::{ConfiguredGarage, parse_config};
    use fogpost::parking::register::Register;
    use fogpost::parking::tariff::TariffSet;
    use fogpost::traffic::simulated::simulated_garage;
    use jiff::Timestamp;
    use std::collections::BTreeSet;

    #[test]
    fn both_examples_are_valid_and_have_a_price_for_every_garage() {
        for (text, entry, currency) in
            [(RECORDED, "2016-10-04T07:00:00Z", "GBP"), (SIMULATED, "2026-06-01T07:00:00Z", "EUR")]
        {
            let set = TariffSet::parse_config(text).unwrap_or_else(|errors| panic!("{errors:?}"));
            let entry: Timestamp = entry.parse().expect("a time");
            let tariff = set.for_stay("any garage", entry).expect("there is a fallback");
            assert_eq!(tariff.currency.code(), currency);
        }
    }

    #[test]
    fn each_simulated_garage_has_a_place_of_its_own() {
        let site = |n| GarageSite { name: simulated_garage(n).0, capacity: 1 };
        let sites: Vec<GarageSite> = (0..300).map(site).collect();
        let tables = parse_config(&garages(&sites)).unwrap_or_else(|errors| panic!("{errors:?}"));
        let names = tables.iter().map(|garage| garage.name.as_str());
        assert!(names.eq(sites.iter().map(|site| site.name.as_str())));
        let place = |garage: &ConfiguredGarage| format!("{:?}", garage.position.expect("it has one"));
        assert_eq!(tables.iter().map(place).collect::<BTreeSet<String>>().len(), 300);
    }

    #[test]
    fn the_customers_can_be_imported() {
        let (plates, contracts) = customers(200, 3);
        let mut register = Register::default();
        let import = register.import_accounts(&accounts()).expect("they are right");
        assert_eq!((import.facts.len(), import.warnings.len()), (ACCOUNTS.len(), 0));
        import.facts.iter().for_each(|fact| drop(register.apply(fact)));
        let import = register.import_plates(&plates).expect("they are right");
        import.facts.iter().for_each(|fact| drop(register.apply(fact)));
        assert_eq!(register.plates().size(), 200 * REGISTERED as usize);
        let import = register.import_contracts(&contracts, str::eq).expect("they are right");
        import.facts.iter().for_each(|fact| drop(register.apply(fact)));
        let contract = register.contracts().values().next().expect("there is one");
        assert_eq!(contract.plates().count(), 200);
    }
}
