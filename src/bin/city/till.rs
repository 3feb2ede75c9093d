//! Reading the charges back from the centre.
//!
//! **Promise.** Each listed charge is counted once, with the garage under which it is listed.
//! **Not promised.** That the list is right: the oracle judges that.

use super::client::DaemonClient;
use super::history::ReadBackError;
use super::stays::Charges;
use fogpost::http::client::percent_encoded;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// To whom stays of plates are charged that nobody registered. Its month has more lines than a page of paper should.
const UNREGISTERED: &str = "unregistered";

/// How many of the newest charges are looked at for one to show.
const LOOK_AT: usize = 100;

/// An entry of `GET /v1/charges`.
#[derive(Debug, Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow)]
    garage: Cow<'a, str>,
    #[serde(borrow)]
    plate: Cow<'a, str>,
    #[serde(borrow)]
    account: Cow<'a, str>,
    entered_at: jiff::Timestamp,
    left_at: jiff::Timestamp,
    #[serde(default)]
    amount: Option<i64>,
    #[serde(default, borrow)]
    currency: Option<Cow<'a, str>>,
    #[serde(borrow)]
    month: Cow<'a, str>,
    position: u64,
}

#[derive(Debug, Deserialize)]
struct Page<'a> {
    position: u64,
    #[serde(borrow)]
    charges: Vec<Listed<'a>>,
    next: Option<String>,
}

/// A statement that is worth a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// An account, or the plate of a car that is on none.
    whose: String,
    pub of_account: bool,
    month: String,
    amount: i64,
}

impl Bill {
    fn of(line: &Listed<'_>) -> Option<Bill> {
        let amount = line.amount.filter(|amount| *amount > 0 && line.state.as_deref() == Some("charged"))?;
        let of_account = line.account != UNREGISTERED;
        let whose = if of_account { &line.account } else { &line.plate };
        Some(Bill {
            whose: whose.clone().into_owned(),
            of_account,
            month: line.month.clone().into_owned(),
            amount,
        })
    }

    /// Accounts before single cars, and then what cost most.
    fn rank(&self) -> (bool, i64) {
        (self.of_account, self.amount)
    }

    /// The arguments by which `server` prints it, apart from where the books are.
    pub fn command(&self) -> String {
        let plain = self.whose.chars().all(|c| c.is_alphanumeric() || c == '-');
        let whose =
            if plain { self.whose.clone() } else { format!("'{}'", self.whose.replace('\'', "'\\''")) };
        format!("statements show {whose} --month {}", self.month)
    }

    /// Where the server shows it.
    pub fn path(&self) -> String {
        format!("/v1/statements/{}?month={}&format=html", percent_encoded(&self.whose), self.month)
    }
}

/// All that is listed, by garage.
#[derive(Debug, Default)]
pub struct Till {
    garages: BTreeMap<String, Charges>,
    pub bill: Option<Bill>,
}

impl Till {
    /// The charges of this garage.
    pub fn of(&self, garage: &str) -> Charges {
        self.garages.get(garage).cloned().unwrap_or_default()
    }

    /// Charges at positions after `begins` are of this run.
    fn enter(&mut self, line: &Listed<'_>, begins: u64) {
        let garage = match self.garages.get_mut(line.garage.as_ref()) {
            Some(garage) => garage,
            None => self.garages.entry(line.garage.clone().into_owned()).or_default(),
        };
        if let (Some(amount), Some(currency)) = (line.amount, &line.currency) {
            garage.taken.add(amount, currency);
        }
        if line.kind == "charge" && line.state.as_deref() != Some("voided") {
            garage.stays += 1;
            if line.position > begins {
                let (entered, left) = (line.entered_at.as_millisecond(), line.left_at.as_millisecond());
                garage.of_this_run.record(&line.plate, entered, left);
            }
        }
    }

    fn offer(&mut self, line: &Listed<'_>) {
        let bill = Bill::of(line);
        if let Some(bill) = bill
            && self.bill.as_ref().is_none_or(|best| best.rank() < bill.rank())
        {
            self.bill = Some(bill);
        }
    }
}

/// Reads all charges. Those at positions after `begins` are of this run.
pub async fn read(http: &DaemonClient, server: &str, begins: u64) -> Result<Till, ReadBackError> {
    let mut till = Till::default();
    let mut after: Option<String> = None;
    loop {
        let mut url = format!("{server}/v1/charges?limit=1000");
        if let Some(after) = &after {
            url.push_str("&after=");
            url.push_str(&percent_encoded(after));
        }
        let body = http.get(&url).await?;
        let page = understand(&url, &body)?;
        for line in &page.charges {
            till.enter(line, begins);
            till.offer(line);
        }
        after = page.next;
        if after.is_none() {
            return Ok(till);
        }
    }
}

/// One of the newest charges' statements, if there are any.
pub async fn newest(http: &DaemonClient, server: &str) -> Result<Option<Bill>, ReadBackError> {
    let url = format!("{server}/v1/charges?limit={LOOK_AT}");
    let body = http.get(&url).await?;
    let mut till = Till::default();
    understand(&url, &body)?.charges.iter().for_each(|line| till.offer(line));
    Ok(till.bill)
}

/// The position that the list of charges has come to.
pub async fn position(http: &DaemonClient, server: &str) -> Result<u64, ReadBackError> {
    let url = format!("{server}/v1/charges?limit=1");
    let body = http.get(&url).await?;
    Ok(understand(&url, &body)?.position)
}

fn understand<'a>(url: &str, body: &'a [u8]) -> Result<Page<'a>, ReadBackError> {
    serde_json::from_slice(body).map_err(|source| ReadBackError::Nonsense { url: url.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::super::money::Takings;
    use super::super::stays::Ended;
    use super::*;

    const LIST: &str = r#"{"position":9,"charges":[
        {"id":"x/void@9","kind":"void","charge":"x","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":-300,"currency":"GBP","month":"2016-11","position":9},
        {"id":"y","kind":"charge","state":"charged","garage":"A","plate":"P2","account":"unregistered","entered_at":"2016-10-01T11:00:00.5+01:00",
         "left_at":"2016-10-01T12:00:00+01:00","amount":200,"currency":"GBP","month":"2016-10","position":8,"working":[{"units":2}]},
        {"id":"z","kind":"charge","state":"held","garage":"B","plate":"P3","account":"works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","month":"2016-11","position":7},
        {"id":"x","kind":"charge","state":"voided","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":300,"currency":"GBP","month":"2016-11","position":6},
        {"id":"w","kind":"charge","state":"charged","garage":"A","plate":"P1","account":"city works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","amount":100,"currency":"GBP","month":"2016-11","position":5}],"next":null}"#;

    #[test]
    fn what_is_listed_is_summed_and_each_stay_counts_once() {
        let page = understand("x", LIST.as_bytes()).expect("it is a list");
        let mut till = Till::default();
        for line in &page.charges {
            till.enter(line, 5);
            till.offer(line);
        }
        let mut taken = Takings::default();
        taken.add(300, "GBP");
        let mut of_this_run = Ended::default();
        of_this_run.record("P2", 1_475_316_000_500, 1_475_319_600_000);
        assert_eq!(till.of("A"), Charges { taken, stays: 2, of_this_run });
        assert_eq!((till.of("B").stays, till.of("B").taken), (1, Takings::default()));
        assert_eq!(till.of("C"), Charges::default());
        let bill = till.bill.expect("there are two");
        assert_eq!(bill.path(), "/v1/statements/city%20works?month=2016-11&format=html");
        assert_eq!(bill.command(), "statements show 'city works' --month 2016-11");
    }
}
