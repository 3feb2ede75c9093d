//! Where a garage is, and how far and in which direction another one.

use serde::{Deserialize, Serialize};

/// Mean radius of the earth in metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// A position in WGS 84, in millionths of a degree: 11 cm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoPoint {
    latitude: i32,
    longitude: i32,
}

/// A position as JSON shows it, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GeoPointJson {
    pub latitude: f64,
    pub longitude: f64,
}

impl GeoPoint {
    /// `None` when the latitude is not from -90 to 90, or the longitude not from -180 to 180.
    pub fn new(latitude: f64, longitude: f64) -> Option<GeoPoint> {
        let millionths = |degrees: f64, most: f64| {
            let is_valid = (-most..=most).contains(&degrees);
            // The cast is exact: it is a whole number within the range of an i32.
            is_valid.then(|| (degrees * 1e6).round() as i32)
        };
        Some(GeoPoint { latitude: millionths(latitude, 90.0)?, longitude: millionths(longitude, 180.0)? })
    }

    pub fn degrees(self) -> GeoPointJson {
        let degrees = |millionths: i32| f64::from(millionths) / 1e6;
        GeoPointJson { latitude: degrees(self.latitude), longitude: degrees(self.longitude) }
    }

    fn radians(self) -> (f64, f64) {
        let GeoPointJson { latitude, longitude } = self.degrees();
        (latitude.to_radians(), longitude.to_radians())
    }

    /// The distance along the surface of a sphere (haversine formula), in metres; half a percent off at most.
    pub fn distance_m(self, other: GeoPoint) -> u32 {
        let ((latitude, longitude), (other_latitude, other_longitude)) = (self.radians(), other.radians());
        let half_sine = |angle: f64| (angle / 2.0).sin().powi(2);
        let h = half_sine(other_latitude - latitude)
            + latitude.cos() * other_latitude.cos() * half_sine(other_longitude - longitude);
        (2.0 * EARTH_RADIUS_M * h.clamp(0.0, 1.0).sqrt().asin()).round() as u32
    }

    /// In which direction one sets out to the other: degrees clockwise from north, 0 to 359. `None` for the same position.
    pub fn bearing_degrees(self, other: GeoPoint) -> Option<u32> {
        if self == other {
            return None;
        }
        let ((latitude, longitude), (other_latitude, other_longitude)) = (self.radians(), other.radians());
        let turn = other_longitude - longitude;
        let east = turn.sin() * other_latitude.cos();
        let north =
            latitude.cos() * other_latitude.sin() - latitude.sin() * other_latitude.cos() * turn.cos();
        Some(east.atan2(north).to_degrees().rem_euclid(360.0).round() as u32 % 360)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(latitude: f64, longitude: f64) -> GeoPoint {
        GeoPoint::new(latitude, longitude).unwrap()
    }

    #[test]
    fn distances_and_bearings_are_those_of_the_map() {
        let berlin = point(52.516_389, 13.377_778); // Brandenburg Gate
        let hamburg = point(53.550_278, 9.991_944); // town hall
        assert!((253_000..257_000).contains(&berlin.distance_m(hamburg)), "{}", berlin.distance_m(hamburg));
        assert!((297..300).contains(&berlin.bearing_degrees(hamburg).unwrap()));
        let equator = point(0.0, 0.0);
        for (to, bearing) in
            [(point(1.0, 0.0), 0), (point(0.0, 1.0), 90), (point(-1.0, 0.0), 180), (point(0.0, -1.0), 270)]
        {
            assert_eq!(equator.distance_m(to), 111_195);
            assert_eq!(equator.bearing_degrees(to), Some(bearing));
        }
        let (fiji, samoa) = (point(-17.0, 179.5), point(-17.0, -179.5));
        assert!(fiji.distance_m(samoa) < 107_000, "across the date line");
        assert_eq!((fiji.distance_m(fiji), fiji.bearing_degrees(fiji)), (0, None));
    }

    #[test]
    fn what_is_no_position_is_none() {
        for (latitude, longitude) in
            [(90.1, 0.0), (-91.0, 0.0), (0.0, 180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert_eq!(GeoPoint::new(latitude, longitude), None);
        }
        let corner = point(-90.0, 180.0).degrees();
        assert_eq!((corner.latitude, corner.longitude), (-90.0, 180.0));
    }

    proptest! {
        #[test]
        fn a_distance_is_the_same_both_ways(a in (-90.0..90.0f64, -180.0..180.0f64), b in (-90.0..90.0f64, -180.0..180.0f64)) {
            let (a, b) = (point(a.0, a.1), point(b.0, b.1));
            prop_assert_eq!(a.distance_m(b), b.distance_m(a));
            prop_assert!(a.distance_m(b) <= 20_015_115);
            prop_assert!(a.bearing_degrees(b).is_none_or(|bearing| bearing < 360));
        }
    }
}
