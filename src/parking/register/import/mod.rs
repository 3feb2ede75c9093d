//! Files of registrations, customers and contracts, compared with what is registered.
//!
//! **Promise.** A file is taken whole or not at all; when it is not, every bad line is named with its number, its field and the reason.
//! What is recorded is what the file changes: a file that is imported again records nothing.
//! **Kept by.** Every line is checked alone, then against the others and the register; facts are made when all have passed.
//! **Not promised.** That accounts, plates and garages exist: a garage may open later.

mod accounts;
mod contracts;
mod plates;

use super::{Disagreement, RegisterFact};
use crate::parking::Plate;

/// What a file changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterImport {
    /// In the order in which they are to be applied, all or none.
    pub facts: Vec<RegisterFact>,
    /// About the file: columns and names that are not used. At most [`RegisterImport::WARNINGS_MAX`], and one that counts the rest.
    pub warnings: Vec<String>,
    /// Where plates of the file are registered to another account than that of a contract that names them, once the facts are applied.
    pub disagreements: Vec<Disagreement>,
    /// Of a file of plates: those that are registered and that it does not name. They stay.
    pub unnamed: Vec<Plate>,
}

impl RegisterImport {
    pub const WARNINGS_MAX: usize = 1000;
}

/// Warnings in the order of the lines, and how many more there are.
#[derive(Default)]
struct Warnings {
    list: Vec<String>,
    more: usize,
}

impl Warnings {
    fn add(&mut self, warning: String) {
        match self.list.len() < RegisterImport::WARNINGS_MAX {
            true => self.list.push(warning),
            false => self.more += 1,
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.list.push(format!("{} more warnings are not shown", self.more));
        }
        self.list
    }
}
