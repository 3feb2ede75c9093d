//! The name of an alarm: its code and its garage.

use crate::codes::{self, Code};
use crate::messaging::SiteName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// There is at most one alarm of a code in a garage, or of the server itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AlarmId {
    pub code: Code,
    /// Its key in the views. `None`: the server itself; of a silence: everywhere.
    pub garage: Option<SiteName>,
}

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.garage {
            Some(garage) => write!(f, "{} {garage}", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

impl From<AlarmId> for String {
    fn from(id: AlarmId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for AlarmId {
    type Error = String;
    fn try_from(text: String) -> Result<AlarmId, String> {
        let (code, garage) = match text.split_once(' ') {
            Some((code, garage)) => (code, Some(garage)),
            None => (text.as_str(), None),
        };
        let unknown = || format!("{code:?} is no alarm that this version knows");
        let code =
            codes::named(code).filter(|code| codes::SERVER_ALARMS.contains(code)).ok_or_else(unknown)?;
        let garage = garage.map(SiteName::new).transpose().map_err(|error| error.to_string())?;
        Ok(AlarmId { code, garage })
    }
}
