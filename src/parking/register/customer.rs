//! Who is billed for an account, and under which address.

use crate::parking::name::{LabelError, printable};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// The fields of a [`CustomerRecord`], as they were given. Each may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomerFields {
    pub name: String,
    pub address: Vec<String>,
    /// Code of ISO 3166-1 alpha-2. Only its form is checked.
    pub country: String,
    pub vat_id: String,
    pub email: String,
}

/// The record of an account: printable text in normal form C, within limits; the country as two capital letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CustomerFields")]
pub struct CustomerRecord(CustomerFields);

impl Deref for CustomerRecord {
    type Target = CustomerFields;
    fn deref(&self) -> &CustomerFields {
        &self.0
    }
}

/// What is wrong with a field of a customer record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct CustomerError {
    pub field: &'static str,
    pub reason: String,
}

impl CustomerRecord {
    pub const NAME_BYTES: usize = 256;
    pub const ADDRESS_LINES: usize = 10;
    pub const ADDRESS_LINE_BYTES: usize = 100;
    pub const VAT_ID_BYTES: usize = 32;
    /// RFC 5321, section 4.5.3.1.3: the longest path, without its brackets.
    pub const EMAIL_BYTES: usize = 254;

    /// Checks all fields. `Err`: all that is wrong. Empty lines of the address are left out.
    pub fn new(fields: CustomerFields) -> Result<CustomerRecord, Vec<CustomerError>> {
        let mut errors = Vec::new();
        let mut checked = |field, value: Result<String, String>| {
            value.unwrap_or_else(|reason| {
                errors.push(CustomerError { field, reason });
                String::new()
            })
        };
        let mut address: Vec<String> = Vec::new();
        for line in &fields.address {
            let line = checked("address", text(line, CustomerRecord::ADDRESS_LINE_BYTES));
            address.extend((!line.is_empty()).then_some(line));
        }
        let customer = CustomerFields {
            name: checked("name", text(&fields.name, CustomerRecord::NAME_BYTES)),
            address: Vec::new(),
            country: checked("country", country(&fields.country)),
            vat_id: checked("vat_id", text(&fields.vat_id, CustomerRecord::VAT_ID_BYTES)),
            email: checked("email", email(&fields.email)),
        };
        if address.len() > CustomerRecord::ADDRESS_LINES {
            let reason =
                format!("it has {} lines, the limit is {}", address.len(), CustomerRecord::ADDRESS_LINES);
            errors.push(CustomerError { field: "address", reason });
        }
        if errors.is_empty() {
            Ok(CustomerRecord(CustomerFields { address, ..customer }))
        } else {
            Err(errors)
        }
    }

    /// True for the record of which nothing is known. An account with it is as one without a record.
    pub fn is_empty(&self) -> bool {
        *self == CustomerRecord::default()
    }
}

impl TryFrom<CustomerFields> for CustomerRecord {
    type Error = CustomerError;
    fn try_from(fields: CustomerFields) -> Result<CustomerRecord, CustomerError> {
        CustomerRecord::new(fields).map_err(|mut errors| errors.swap_remove(0))
    }
}

fn text(text: &str, limit: usize) -> Result<String, String> {
    printable(text, limit).map_err(|error: LabelError| error.to_string())
}

/// A code of two letters, in capitals. An empty text stays empty.
pub fn country(code: &str) -> Result<String, String> {
    let code = code.trim();
    let is_code = code.len() == 2 && code.bytes().all(|c| c.is_ascii_alphabetic());
    match is_code || code.is_empty() {
        true => Ok(code.to_ascii_uppercase()),
        false => Err(format!("{code:?} is not a country code; a code of ISO 3166 has two letters, as DE")),
    }
}

/// Whether mail arrives only its server knows: this finds what was typed into the wrong column.
fn email(address: &str) -> Result<String, String> {
    let address = text(address, CustomerRecord::EMAIL_BYTES)?;
    let is_plausible = |(local, domain): (&str, &str)| {
        let is_label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        !local.is_empty()
            && !local.contains('@')
            && domain.split('.').all(is_label)
            && !address.contains(|c: char| c.is_whitespace() || "<>,;\"".contains(c))
    };
    match address.is_empty() || address.rsplit_once('@').is_some_and(is_plausible) {
        true => Ok(address),
        false => Err(format!("{address:?} is not an e-mail address; one looks like jo@example.com")),
    }
}

/// New values of some fields; `None` keeps what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomerPatch {
    pub name: Option<String>,
    pub address: Option<Vec<String>>,
    pub country: Option<String>,
    pub vat_id: Option<String>,
    pub email: Option<String>,
}

impl CustomerPatch {
    /// The record after the change of `customer`.
    pub fn apply_to(self, customer: &CustomerRecord) -> Result<CustomerRecord, Vec<CustomerError>> {
        let CustomerFields { name, address, country, vat_id, email } = customer.0.clone();
        CustomerRecord::new(CustomerFields {
            name: self.name.unwrap_or(name),
            address: self.address.unwrap_or(address),
            country: self.country.unwrap_or(country),
            vat_id: self.vat_id.unwrap_or(vat_id),
            email: self.email.unwrap_or(email),
        })
    }
}

/// The lines of an address in one cell or flag, separated by `|`.
pub fn address_lines(text: &str) -> Vec<String> {
    text.split('|').map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> CustomerFields {
        CustomerFields {
            name: "Müller & Söhne GmbH".into(),
            address: vec!["Hafenstraße 7".into(), "20457 Hamburg".into()],
            country: "DE".into(),
            vat_id: "DE136695976".into(),
            email: "rechnung@mueller.example".into(),
        }
    }

    #[test]
    fn a_record_is_kept_in_its_normal_form() {
        let written = CustomerFields {
            name: " Mu\u{308}ller & So\u{308}hne GmbH ".into(),
            address: address_lines(" Hafenstraße 7 || 20457 Hamburg|"),
            country: " de".into(),
            ..fields()
        };
        let customer = CustomerRecord::new(written).unwrap();
        assert_eq!(*customer, fields());
        assert!(!customer.is_empty());
        let bytes = postcard::to_allocvec(&customer).unwrap();
        assert_eq!(postcard::from_bytes::<CustomerRecord>(&bytes), Ok(customer.clone()));
        let patch = CustomerPatch { address: Some(vec![]), ..CustomerPatch::default() };
        let without = patch.apply_to(&customer).unwrap();
        assert_eq!((without.name.as_str(), without.address.len()), ("Müller & Söhne GmbH", 0));
        assert!(CustomerRecord::new(CustomerFields::default()).unwrap().is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_said_and_no_record_with_it_is_read() {
        let wrong = CustomerFields {
            name: "x".repeat(257),
            address: vec!["a\u{7}".into()],
            country: "GER".into(),
            vat_id: "1".repeat(33),
            email: "0171 123456".into(),
        };
        let errors = CustomerRecord::new(wrong.clone()).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "address: it contains '\\u{7}', which is not a printable character",
            "name: it has 257 bytes, the limit is 256",
            "country: \"GER\" is not a country code; a code of ISO 3166 has two letters, as DE",
            "vat_id: it has 33 bytes, the limit is 32",
            "email: \"0171 123456\" is not an e-mail address; one looks like jo@example.com",
        ];
        assert_eq!(errors, expected);
        let bytes = postcard::to_allocvec(&wrong).unwrap();
        assert!(postcard::from_bytes::<CustomerRecord>(&bytes).is_err());
        let long = CustomerFields { address: vec!["x".into(); 11], ..fields() };
        assert_eq!(
            CustomerRecord::new(long).unwrap_err()[0].to_string(),
            "address: it has 11 lines, the limit is 10"
        );
    }

    #[test]
    fn e_mail_addresses_have_a_plausible_form() {
        for address in ["jo@example.com", "j.o+bills@a-b.example", "ä@müller.example", "root@localhost", ""]
        {
            assert_eq!(email(address).as_deref(), Ok(address));
        }
        for other in
            ["jo", "@example.com", "jo@", "jo@a..b", "a@b@c", "Jo <jo@a.b>", "jo@-a.b", "a@b.c;d@e.f"]
        {
            assert!(email(other).is_err(), "{other}");
        }
    }
}
