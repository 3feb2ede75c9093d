//! What keeps a month open: what may still come on later documents. It stops nothing.

use super::{IssueOrder, IssueScope, Issuing, in_shell};
use crate::messaging::SiteName;
use crate::messaging::page::Content;
use crate::parking::{Event, Moment, Month};
use crate::server::view::GarageState;
use crate::server::view::billing::totals::months_without_price;
use crate::store::StoreError;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

impl Issuing<'_> {
    /// The garages of which nothing was delivered that happened after the month had ended there.
    pub(super) fn open_garages(&self, month: Month) -> Result<Vec<String>, StoreError> {
        let mut open = Vec::new();
        let next = month.last_day().tomorrow().unwrap_or(Date::MAX);
        let rules = &self.view.billing.rules;
        for (key, garage) in self.view.garages.iter().filter(|(_, garage)| garage.is_shown()) {
            let begins = |zone: &TimeZone| zone.to_timestamp(next.into()).unwrap_or(Timestamp::MAX);
            let billed = self.view.billing.garages.get(garage.stays.number);
            let tariff = billed.and_then(|billed| rules.tariff_for(billed, begins(&self.operator.time_zone)));
            let zone = tariff.map_or(&self.operator.time_zone, |tariff| &tariff.time_zone);
            let last = self.last_event_of(key, garage)?;
            if last.is_none_or(|last| last < begins(zone)) {
                let last = last.map(|timestamp| Moment { timestamp, offset: zone.to_offset(timestamp) });
                let since = last.map_or("yet".to_owned(), |last| format!("that happened after {last}"));
                open.push(format!(
                    "garage {:?} has delivered nothing {since}: what it has from {month} comes on later documents",
                    self.view.name_of(key).as_str()
                ));
            }
        }
        Ok(open)
    }

    /// When the last of the events that a garage has delivered happened; where they cannot be read, when they were received. An edge that
    /// was offline delivers for a while after it is back, so that the time of receipt alone says little.
    fn last_event_of(&self, key: &SiteName, garage: &GarageState) -> Result<Option<Timestamp>, StoreError> {
        for site in self.view.sites_of(key) {
            let Some((epoch, sequence)) = garage.through else { continue };
            let found = self.ledger.page_with(&site, epoch, sequence)?;
            let Some(Content::Records(records)) = found.map(|(_, found)| found.page.content) else {
                continue;
            };
            let events = records.iter().filter_map(|record| Event::from_bytes(&record.payload).ok());
            if let Some(last) = events.map(|event| event.at.timestamp).max() {
                return Ok(Some(last));
            }
        }
        Ok(garage.as_of_ms.and_then(|at| Timestamp::from_millisecond(at).ok()))
    }

    /// The stays that have no price yet.
    pub(super) fn open_stays(&self, order: &IssueOrder) -> Result<Vec<String>, StoreError> {
        let mut open = Vec::new();
        for (account, month, stays) in months_without_price(self.ledger.store(), order.month)? {
            let Some(name) = self.view.billing.account_name(account) else { continue };
            let is_wanted = match &order.scope {
                IssueScope::AllAccounts => true,
                IssueScope::Account(account) => account.as_str() == name,
                IssueScope::Plate(_) => false,
            };
            if is_wanted {
                let (stays, wait) = match stays {
                    1 => ("1 stay".to_owned(), "waits or is on hold"),
                    stays => (format!("{stays} stays"), "wait or are on hold"),
                };
                open.push(format!(
                    "{stays} of {name:?} in {month} {wait}: \"server charges list --account {} --month {month}\"",
                    in_shell(name)
                ));
            }
        }
        Ok(open)
    }
}
