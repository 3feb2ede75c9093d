//! Reading the charges back from the server, and finding a statement to show.
//!
//! **Promise.** Each listed charge is counted once, with the garage under which it is listed.
//! **Not promised.** That the list is right: the oracle judges that.

use super::client::{DaemonClient, ListPage};
use super::stays::GarageCharges;
use fogpost::http::client::{HttpCallError, percent_encoded};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The account of plates that nobody registered. Its month has more lines than a page should have.
const UNREGISTERED: &str = "unregistered";

/// How many of the newest charges are looked at for one to show.
const LOOK_AT: usize = 100;

/// An entry of `GET /v1/charges`.
#[derive(Debug, Deserialize)]
struct ListedCharge {
    kind: String,
    state: Option<String>,
    garage: String,
    plate: String,
    account: String,
    entered_at: jiff::Timestamp,
    left_at: jiff::Timestamp,
    amount: Option<i64>,
    currency: Option<String>,
    month: String,
    position: u64,
}

/// A statement that is worth a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLink {
    /// An account, or the plate of a car that is on none.
    of: String,
    pub of_account: bool,
    month: String,
}

impl StatementLink {
    /// The arguments by which `server` prints it, apart from the data directory.
    pub fn command(&self) -> String {
        let plain = self.of.chars().all(|c| c.is_alphanumeric() || c == '-');
        let of = if plain { self.of.clone() } else { format!("'{}'", self.of.replace('\'', "'\\''")) };
        format!("statements show {of} --month {}", self.month)
    }

    /// Where the server shows it.
    pub fn path(&self) -> String {
        format!("/v1/statements/{}?month={}&format=html", percent_encoded(&self.of), self.month)
    }
}

/// All listed charges, by garage.
#[derive(Debug, Default)]
pub struct ChargesByGarage(BTreeMap<String, GarageCharges>);

impl ChargesByGarage {
    pub fn of(&self, garage: &str) -> GarageCharges {
        self.0.get(garage).cloned().unwrap_or_default()
    }

    /// Charges at positions after `begins` are of this run.
    fn add(&mut self, charge: ListedCharge, begins: u64) {
        let garage = self.0.entry(charge.garage).or_default();
        if let (Some(amount), Some(currency)) = (charge.amount, &charge.currency) {
            garage.taken.add(amount.into(), currency);
        }
        if charge.kind == "charge" && charge.state.as_deref() != Some("voided") {
            garage.stays += 1;
            if charge.position > begins {
                let (entered, left) = (charge.entered_at.as_millisecond(), charge.left_at.as_millisecond());
                garage.of_this_run.record(&charge.plate, entered, left);
            }
        }
    }
}

/// Reads all charges. Those at positions after `begins` are of this run.
pub async fn read(
    client: &DaemonClient,
    server: &str,
    begins: u64,
) -> Result<ChargesByGarage, HttpCallError> {
    let mut list = ChargesByGarage::default();
    client
        .each(&format!("{server}/v1/charges?limit=1000"), &mut None, |charge| list.add(charge, begins))
        .await?;
    Ok(list)
}

/// A statement with one of the newest charges, if there are any.
pub async fn newest_statement(
    client: &DaemonClient,
    server: &str,
) -> Result<Option<StatementLink>, HttpCallError> {
    let page: ListPage<ListedCharge> = client.get(&format!("{server}/v1/charges?limit={LOOK_AT}")).await?;
    Ok(statement_of(page.items))
}

/// Accounts are shown rather than single cars, and then what cost most.
fn statement_of(charges: Vec<ListedCharge>) -> Option<StatementLink> {
    let charged = charges.into_iter().filter(|charge| {
        charge.state.as_deref() == Some("charged") && charge.amount.is_some_and(|amount| amount > 0)
    });
    let best = charged.max_by_key(|charge| (charge.account != UNREGISTERED, charge.amount))?;
    let of_account = best.account != UNREGISTERED;
    let of = if of_account { best.account } else { best.plate };
    Some(StatementLink { of, of_account, month: best.month })
}

/// The position in the ledger up to which the list of charges goes.
pub async fn position(client: &DaemonClient, server: &str) -> Result<u64, HttpCallError> {
    #[derive(Deserialize)]
    struct Position {
        position: u64,
    }
    Ok(client.get::<Position>(&format!("{server}/v1/charges?limit=1")).await?.position)
}

#[cfg(test)]
mod tests {
    use super::super::money::Takings;
    use super::super::stays::EndedStays;
    use super::*;

    const LIST: &str = r#"{"position":9,"charges":[
        {"id":"x/void@9","kind":"void","charge":"x","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":-300,"currency":"GBP","month":"2016-11","position":9},
        {"id":"y","kind":"charge","state":"charged","garage":"A","plate":"P2","account":"unregistered","entered_at":"2016-10-01T11:00:00.5+01:00",
         "left_at":"2016-10-01T12:00:00+01:00","amount":200,"currency":"GBP","month":"2016-10","position":8,"breakdown":[{"units":2}]},
        {"id":"z","kind":"charge","state":"held","garage":"B","plate":"P3","account":"works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","month":"2016-11","position":7},
        {"id":"x","kind":"charge","state":"voided","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":300,"currency":"GBP","month":"2016-11","position":6},
        {"id":"w","kind":"charge","state":"charged","garage":"A","plate":"P1","account":"city works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":100,"currency":"GBP","month":"2016-11","position":5}],"next":null}"#;

    #[test]
    fn what_is_listed_is_summed_and_each_stay_counts_once() {
        let page = || serde_json::from_str::<ListPage<ListedCharge>>(LIST).expect("it is a list").items;
        let mut list = ChargesByGarage::default();
        page().into_iter().for_each(|charge| list.add(charge, 5));
        let mut taken = Takings::default();
        taken.add(300, "GBP");
        let mut of_this_run = EndedStays::default();
        of_this_run.record("P2", 1_475_316_000_500, 1_475_319_600_000);
        assert_eq!(list.of("A"), GarageCharges { taken, stays: 2, of_this_run });
        assert_eq!((list.of("B").stays, list.of("B").taken), (1, Takings::default()));
        assert_eq!(list.of("C"), GarageCharges::default());
        let statement = statement_of(page()).expect("there are two");
        assert_eq!(statement.path(), "/v1/statements/city%20works?month=2016-11&format=html");
        assert_eq!(statement.command(), "statements show 'city works' --month 2016-11");
    }
}
