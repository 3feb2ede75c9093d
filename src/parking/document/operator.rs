//! Who issues documents: the table `[operator]` of a configuration, and what of it stands on a document.

use super::bank::{Bic, Iban};
use super::keeping::PlateTerm;
use super::number::NumberFormat;
use crate::parking::name::{LabelError, printable};
use crate::parking::register::customer;
use crate::parking::tariff::time_zone;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// `[operator]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OperatorTableKeys")]
pub struct OperatorSettings {
    /// Decides which day it is when documents are issued.
    pub time_zone: TimeZone,
    pub number_format: NumberFormat,
    /// The most that a document for a car without a customer may charge, in minor units.
    pub simplified_up_to: i64,
    /// How long documents keep plates: to the end of this many years after the year of issue.
    pub keep_documents_years: u16,
    pub issuer: Issuer,
}

impl OperatorSettings {
    /// The term for which documents keep plates; `today` is in the operator's time zone.
    pub fn plate_term(&self, today: Date) -> PlateTerm {
        PlateTerm { years: self.keep_documents_years, today }
    }
}

/// The operator as a document shows it. All is empty where the configuration says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    pub name: String,
    pub address: Vec<String>,
    /// Code of ISO 3166-1 alpha-2.
    pub country: Option<String>,
    pub vat_id: Option<String>,
    pub tax_number: Option<String>,
    pub iban: Option<Iban>,
    pub bic: Option<Bic>,
    /// From the date of issue.
    pub payment_days: u16,
    /// Lines at the end of a document: register, directors, opening hours.
    pub footer: Vec<String>,
}

impl Issuer {
    /// The keys of `[operator]` that a document needs and that are missing. Drafts are shown without them.
    pub fn missing(&self) -> Vec<&'static str> {
        let has_tax_id = self.vat_id.is_some() || self.tax_number.is_some();
        let all = [
            (self.name.is_empty(), "name"),
            (self.address.is_empty(), "address"),
            (self.country.is_none(), "country"),
            (!has_tax_id, "vat_id or tax_number"),
        ];
        all.into_iter().filter(|(is_missing, _)| *is_missing).map(|(_, key)| key).collect()
    }
}

impl Default for OperatorSettings {
    fn default() -> OperatorSettings {
        OperatorTableKeys::default().try_into().expect("the defaults are valid")
    }
}

/// The keys as they are written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorTableKeys {
    time_zone: Option<String>,
    name: Option<String>,
    #[serde(default)]
    address: Vec<String>,
    country: Option<String>,
    vat_id: Option<String>,
    tax_number: Option<String>,
    iban: Option<String>,
    bic: Option<String>,
    payment_days: Option<u16>,
    footer: Option<String>,
    number_format: Option<String>,
    simplified_up_to: Option<u32>,
    keep_documents_years: Option<u16>,
}

const TEXT_BYTES_MAX: usize = 200;
const PAYMENT_DAYS: u16 = 14;
const PAYMENT_DAYS_MAX: u16 = 365;
/// Of the German "Kleinbetragsrechnung" (UStDV section 33), 250 EUR; Article 238 of Directive 2006/112/EC allows up to 400 EUR.
const SIMPLIFIED_UP_TO: u32 = 25_000;

/// Section 147 of the German tax code (AO) asked for ten years until 2024, and asks for eight since.
const KEEP_DOCUMENTS_YEARS: u16 = 10;
const KEEP_DOCUMENTS_YEARS_RANGE: RangeInclusive<u16> = 1..=100;

impl TryFrom<OperatorTableKeys> for OperatorSettings {
    type Error = String;
    fn try_from(keys: OperatorTableKeys) -> Result<OperatorSettings, String> {
        let address: Vec<String> =
            keys.address.iter().map(|line| one_line("address", line)).collect::<Result<_, _>>()?;
        let [name, country, vat_id, tax_number] = [
            ("name", keys.name),
            ("country", keys.country),
            ("vat_id", keys.vat_id),
            ("tax_number", keys.tax_number),
        ]
        .map(|(key, text)| text.map(|text| one_line(key, &text)).transpose());
        let (name, vat_id, tax_number) = (name?, vat_id?, tax_number?);
        let country = country?.map(|code| customer::country(&code)).transpose();
        let country = country.map_err(|error| format!("in [operator], country: {error}"))?;
        let has_more = !address.is_empty() || country.is_some() || vat_id.is_some() || tax_number.is_some();
        if name.is_none() && has_more {
            return Err("in [operator], name is missing; documents begin with it".into());
        }
        let footer = keys.footer.unwrap_or_default();
        let footer = footer.lines().filter(|line| !line.trim().is_empty());
        let payment_days = keys.payment_days.unwrap_or(PAYMENT_DAYS);
        if payment_days > PAYMENT_DAYS_MAX {
            return Err(format!(
                "in [operator], payment_days is {payment_days}; the limit is {PAYMENT_DAYS_MAX}"
            ));
        }
        let keep_documents_years = keys.keep_documents_years.unwrap_or(KEEP_DOCUMENTS_YEARS);
        if !KEEP_DOCUMENTS_YEARS_RANGE.contains(&keep_documents_years) {
            return Err(format!(
                "in [operator], keep_documents_years is {keep_documents_years}; it must be from 1 to 100"
            ));
        }
        let zone = keys.time_zone.as_deref().unwrap_or("UTC");
        Ok(OperatorSettings {
            time_zone: time_zone(zone).ok_or_else(|| {
                format!(
                    "in [operator], time_zone {zone:?} is not in the IANA database; one is \"Europe/Berlin\""
                )
            })?,
            number_format: parsed("number_format", keys.number_format)?.unwrap_or_default(),
            simplified_up_to: keys.simplified_up_to.unwrap_or(SIMPLIFIED_UP_TO).into(),
            keep_documents_years,
            issuer: Issuer {
                name: name.unwrap_or_default(),
                address,
                country,
                vat_id,
                tax_number,
                iban: parsed("iban", keys.iban)?,
                bic: parsed("bic", keys.bic)?,
                payment_days,
                footer: footer.map(|line| one_line("footer", line)).collect::<Result<_, _>>()?,
            },
        })
    }
}

/// A text that is not empty and can be printed in a line.
fn one_line(key: &str, text: &str) -> Result<String, String> {
    match printable(text, TEXT_BYTES_MAX) {
        Ok(text) if text.is_empty() => Err(format!("in [operator], {key}: a text is empty")),
        Ok(text) => Ok(text),
        Err(LabelError::Unprintable('\n')) => {
            Err(format!("in [operator], {key}: {text:?} has more than one line; address is a list of lines"))
        }
        Err(error) => Err(format!("in [operator], {key}: {text:?}: {error}")),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &str,
    text: Option<String>,
) -> Result<Option<T>, String> {
    text.map(|text| text.parse()).transpose().map_err(|error| format!("in [operator], {key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<OperatorSettings, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn an_operator_is_read_with_all_that_a_document_shows() {
        let settings = read(
            r#"
            time_zone = "Europe/Berlin"
            name = "Stadtwerke Musterstadt Parken GmbH"
            address = ["Hauptstraße 12", "70173 Stuttgart"]
            country = "de"
            vat_id = "DE 123 456 789"
            tax_number = "99/815/08150"
            iban = "DE89 3704 0044 0532 0130 00"
            bic = "COBADEFFXXX"
            payment_days = 30
            footer = """
Amtsgericht Stuttgart HRB 12345
Geschäftsführung: A. Muster"""
            number_format = "R{number:05}"
            "#,
        )
        .unwrap();
        let issuer = &settings.issuer;
        assert_eq!(settings.time_zone.iana_name(), Some("Europe/Berlin"));
        assert_eq!(settings.number_format.number(2026, 7), "R00007");
        assert_eq!(issuer.iban.as_ref().unwrap().to_string(), "DE89 3704 0044 0532 0130 00");
        assert_eq!((issuer.payment_days, issuer.footer.len()), (30, 2));
        assert_eq!(issuer.missing(), Vec::<&str>::new());
        let bytes = postcard::to_stdvec(issuer).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(issuer.clone()));
    }

    #[test]
    fn without_settings_drafts_are_shown_and_nothing_can_be_issued() {
        let settings = read("").unwrap();
        assert_eq!(settings, OperatorSettings::default());
        assert_eq!(
            (settings.issuer.payment_days, settings.number_format.number(2026, 7).as_str()),
            (14, "2026-000007")
        );
        assert_eq!(
            (settings.keep_documents_years, read("keep_documents_years = 8").unwrap().keep_documents_years),
            (10, 8)
        );
        assert_eq!(settings.issuer.missing(), ["name", "address", "country", "vat_id or tax_number"]);
    }

    #[test]
    fn a_mistake_is_named_with_its_key() {
        for (toml, reason) in [
            ("time_zone = \"Berlin\"", "time_zone \"Berlin\" is not in the IANA database"),
            ("name = \"a\\nb\"", "more than one line"),
            ("name = \" \"", "name: a text is empty"),
            ("name = \"a\\u202eb\"", "not a printable character"),
            ("address = [\"Hauptstraße 12\"]", "name is missing"),
            ("iban = \"DE89 3704 0044 0532 0130 01\"", "iban: the check digits"),
            ("bic = \"DE\"", "bic: \"DE\" is not a BIC"),
            ("name = \"a\"\ncountry = \"Germany\"", "country: \"Germany\" is not a country code"),
            ("payment_days = 366", "payment_days is 366"),
            ("payment_days = -1", "payment_days"),
            ("keep_documents_years = 0", "keep_documents_years is 0; it must be from 1 to 100"),
            ("keep_documents_years = 101", "keep_documents_years is 101"),
            ("number_format = \"{year}\"", "number_format: it has 0 times {number}"),
            ("vat = \"DE1\"", "unknown field `vat`"),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.contains(reason), "{toml}: {error}");
        }
    }
}
