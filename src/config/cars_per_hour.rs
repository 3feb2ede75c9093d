//! The rate of `edge --simulate`.

use serde::Deserialize;
use std::str::FromStr;

/// A rate above zero that a machine can sustain.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct CarsPerHour(f64);

/// Why a number is not a [`CarsPerHour`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a number of cars per hour from {min} to {max}, such as 120", min = CarsPerHour::MIN, max = CarsPerHour::MAX)]
pub struct CarsPerHourError(String);

impl CarsPerHour {
    /// One car in six weeks: the time between cars must fit into the types that count it.
    pub const MIN: f64 = 0.001;
    /// One thousand cars per second.
    pub const MAX: f64 = 3_600_000.0;

    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for CarsPerHour {
    type Error = CarsPerHourError;
    fn try_from(cars: f64) -> Result<CarsPerHour, CarsPerHourError> {
        let possible = (CarsPerHour::MIN..=CarsPerHour::MAX).contains(&cars);
        if possible { Ok(CarsPerHour(cars)) } else { Err(CarsPerHourError(cars.to_string())) }
    }
}

impl FromStr for CarsPerHour {
    type Err = CarsPerHourError;
    fn from_str(text: &str) -> Result<CarsPerHour, CarsPerHourError> {
        text.parse::<f64>().map_err(|_| CarsPerHourError(format!("{text:?}")))?.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for text in ["0", "-1", "inf", "NaN", "many", "3600001", "1e-300"] {
            assert!(text.parse::<CarsPerHour>().is_err(), "{text}");
        }
        let said = "0".parse::<CarsPerHour>().expect_err("it is no rate").to_string();
        assert_eq!(said, "0 is not a number of cars per hour from 0.001 to 3600000, such as 120");
    }
}
