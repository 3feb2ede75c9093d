//! The registry: which account a plate is billed to, and which contracts an account has. Read from files that operators
//! write by hand or export from a spreadsheet.
//!
//! **Promise.** A file is read whole or not at all; when it is not, every bad line is named with its number, its field and
//! the reason. What two lines say about one thing must agree, else both are named. A plate is the same however it is written.
//! **Kept by.** Every line is checked alone, then against those before it, and nothing is returned before all lines have passed.
//! **Not promised.** That the accounts, plates and garages exist: a garage may open later.

mod old;

pub use super::name::{Account, LabelError};
pub use super::table::{BadLine, ImportError, decode};
pub use old::changes::{PlateChange, changes, unnamed};
pub use old::contracts::{Contract, Garages, read_contracts};
pub use old::plates::{Registration, read_plates};
