//! Events in the form that an edge accepts: one JSON object per line.

use super::plates::PlateRegistry;
use super::{CarPassage, LocalInstant, write_key, write_plate_of};
use std::sync::Arc;

/// Writes the events of one garage, without an allocation per event.
#[derive(Debug)]
pub struct EventWriter {
    registry: Arc<PlateRegistry>,
    garage: usize,
    plate: String,
}

impl EventWriter {
    pub fn new(registry: Arc<PlateRegistry>, garage: usize) -> EventWriter {
        EventWriter { registry, garage, plate: String::new() }
    }

    /// Appends `passage` and a line break to `out`, and replaces `key` by the letters and digits of its plate. Returns the
    /// key, if the camera could read the plate.
    pub fn write<'a>(
        &mut self,
        passage: &CarPassage,
        key: &'a mut String,
        out: &mut String,
    ) -> Option<&'a str> {
        out.push_str(r#"{"kind":""#);
        out.push_str(passage.direction.kind());
        out.push_str(r#"","plate":"#);
        key.clear();
        if let Some(car) = &passage.car {
            self.plate.clear();
            write_plate_of(&self.registry, self.garage, car, passage.direction, &mut self.plate);
            write_key(&self.plate, key);
            // No plate has a letter that JSON would want escaped: they are letters, digits, spaces and dashes.
            out.push('"');
            out.push_str(&self.plate);
            out.push('"');
        } else {
            out.push_str("null");
        }
        out.push_str(r#","at":""#);
        write_rfc3339(passage.at, out);
        out.push_str("\"}\n");
        passage.car.is_some().then_some(key.as_str())
    }
}

/// Appends the instant with milliseconds and offset: `2016-10-04T07:59:42.125+01:00`.
///
/// Formatted by hand because it is done millions of times.
fn write_rfc3339(at: LocalInstant, out: &mut String) {
    let local = at.local_time();
    let mut text = *b"0000-00-00T00:00:00.000+00:00";
    let mut put = |place: usize, digits: usize, number: i32| {
        let mut rest = number.unsigned_abs();
        for digit in text[place..place + digits].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(0, 4, i32::from(local.year()));
    put(5, 2, i32::from(local.month()));
    put(8, 2, i32::from(local.day()));
    put(11, 2, i32::from(local.hour()));
    put(14, 2, i32::from(local.minute()));
    put(17, 2, i32::from(local.second()));
    put(20, 3, i32::from(local.millisecond()));
    put(24, 2, at.offset_seconds / 3_600);
    put(27, 2, at.offset_seconds / 60 % 60);
    if at.offset_seconds < 0 {
        text[23] = b'-';
    }
    out.push_str(std::str::from_utf8(&text).expect("digits and separators are ASCII"));
}

#[cfg(test)]
mod tests {
    use super::super::plates::PlateMixture;
    use super::super::{Direction, PlannedCar};
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn instants_are_written_as_the_calendar_says() {
        for zone in ["Europe/London", "America/St_Johns", "Asia/Kolkata", "UTC"] {
            let zone = jiff::tz::TimeZone::get(zone).expect("the zone is bundled");
            for step in 0..5_000_i64 {
                let unix_ms = 1_400_000_000_000 + step * 77_777_777 + step;
                let mut text = String::new();
                write_rfc3339(LocalInstant::in_zone(&zone, unix_ms), &mut text);
                let instant = Timestamp::from_millisecond(unix_ms).expect("in range");
                let zoned = instant.to_zoned_datetime(zone.clone());
                assert_eq!(text, zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string());
            }
        }
    }

    #[test]
    fn a_line_is_the_event_that_it_describes() {
        let registry = Arc::new(PlateRegistry::new(PlateMixture::Continental, 1, 2));
        let mut writer = EventWriter::new(registry, 1);
        let at = LocalInstant { unix_ms: 1_480_000_000_007, offset_seconds: 3_600 };
        for (car, direction) in [
            (Some(PlannedCar::New(3)), Direction::Entry),
            (Some(PlannedCar::New(3)), Direction::Exit),
            (Some(PlannedCar::Found("СА1234АВ".into())), Direction::Exit),
            (None, Direction::Entry),
        ] {
            let (mut key, mut line) = (String::new(), String::new());
            let passage = CarPassage { direction, car, at };
            let written = writer.write(&passage, &mut key, &mut line).map(str::to_owned);
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
            assert_eq!(event["kind"], direction.kind());
            assert_eq!(event["at"], "2016-11-24T16:06:40.007+01:00");
            let expected = event["plate"].as_str().map(|plate| {
                let mut expected = String::new();
                write_key(plate, &mut expected);
                expected
            });
            assert_eq!((written, passage.car.is_some()), (expected.clone(), expected.is_some()));
        }
    }
}
