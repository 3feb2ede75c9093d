//! The garages as tariffs and contracts mean them: by any name that each ever had.

use super::super::SharedMap;
use crate::messaging::SiteName;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BilledGarage {
    /// Its number in the views, in the order in which garages were first seen.
    pub number: u32,
    /// The name under which its events came first. It is in the ids of charges.
    pub key: SiteName,
    /// In their order.
    others: Vec<SiteName>,
}

impl BilledGarage {
    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key).chain(&self.others).map(SiteName::as_str)
    }

    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|its| its == name)
    }
}

/// By number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BilledGarages(SharedMap<u32, Arc<BilledGarage>>);

impl BilledGarages {
    pub fn add(&mut self, number: u32, key: SiteName, others: Vec<SiteName>) {
        self.0.insert_mut(number, Arc::new(BilledGarage { number, key, others }));
    }

    pub fn add_name(&mut self, number: u32, name: SiteName) {
        if let Some(garage) = self.0.get_mut(&number)
            && !garage.is_called(name.as_str())
        {
            let others = &mut Arc::make_mut(garage).others;
            others.insert(others.partition_point(|its| *its < name), name);
        }
    }

    /// The garage of a key.
    pub fn of_key(&self, key: &SiteName) -> Option<&Arc<BilledGarage>> {
        self.0.values().find(|garage| garage.key == *key)
    }

    /// The garage of a number that visits have.
    pub fn get(&self, number: u32) -> Option<&Arc<BilledGarage>> {
        self.0.get(&number)
    }
}
