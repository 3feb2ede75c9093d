//! The parts of statements on their way between two programs of one version: postcard, exact to the millisecond.

/// A [`Moment`](super::Moment) as milliseconds and the offset in seconds.
pub(super) mod moment {
    use super::super::Moment;
    use crate::parking::moment::millisecond_of;
    use jiff::{Timestamp, tz::Offset};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        moment: &Moment,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Moment { timestamp, offset } = moment;
        (millisecond_of(*timestamp), offset.seconds()).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Moment, D::Error> {
        let (at_ms, offset) = <(i64, i32)>::deserialize(deserializer)?;
        let timestamp = Timestamp::from_millisecond(at_ms).map_err(D::Error::custom)?;
        Ok(Moment { timestamp, offset: Offset::from_seconds(offset).map_err(D::Error::custom)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{any_lines, head};
    use super::super::{Customer, StatementHead, StatementLine};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_carried_arrives_as_it_was(lines in any_lines()) {
            let sent = (head(Customer::Plate("AB1".into())), lines);
            let bytes = postcard::to_stdvec(&sent).unwrap();
            prop_assert_eq!(postcard::from_bytes::<(StatementHead, Vec<StatementLine>)>(&bytes), Ok(sent));
        }
    }
}
