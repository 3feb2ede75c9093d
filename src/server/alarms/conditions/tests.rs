use super::*;
use crate::parking::EdgeMachine;

const NOON_MS: i64 = 1_800_000_000_000;

/// A garage in which all is well, and the time.
struct World {
    began: Instant,
    seconds: u64,
    heard_at: Option<u64>,
    garage: GarageNow,
    disk: Option<DiskSpace>,
    watches: Watches,
}

impl World {
    fn new() -> World {
        let observation = Observation {
            capacity: 500,
            occupied: Some(10),
            backlog: 0,
            oldest_age_ms: None,
            clock_set: true,
            damaged: 0,
            shortage: None,
            machine: EdgeMachine {
                disk: Some(DiskSpace { left: 5_000_000_000, total: 8_000_000_000 }),
                certificate_ends_at_ms: None,
            },
        };
        let garage = GarageNow {
            key: SiteName::new("a").unwrap(),
            heard: None,
            observation: Some(observation),
            clock_ahead_ms: Some(20),
            in_conflict_at: None,
            refused: None,
            delivered: 10,
            occupied: Some(10),
            capacity: Some(500),
            open_stays: 10,
            missing: MissingNow::default(),
        };
        let disk = Some(DiskSpace { left: 5_000_000_000, total: 10_000_000_000 });
        World {
            began: Instant::now(),
            seconds: 0,
            heard_at: Some(0),
            garage,
            disk,
            watches: Watches::going_on_with(Baselines::new()),
        }
    }

    fn observation(&mut self) -> &mut Observation {
        self.garage.observation.as_mut().unwrap()
    }

    /// What is read a while later: (code, whether it is present).
    fn after(&mut self, seconds: u64) -> Vec<(&'static str, bool)> {
        self.seconds += seconds;
        let at = |seconds| self.began + Duration::from_secs(seconds);
        let heard = self.heard_at.map(at);
        let city = CityNow {
            at: at(self.seconds),
            wall_ms: NOON_MS + self.seconds as i64 * 1000,
            began: self.began,
            garages: vec![GarageNow { heard, ..self.garage.clone() }],
            disk: self.disk,
            reserve: 64 << 20,
            calendars: Vec::new(),
            certificates: Vec::new(),
        };
        let readings = read(&city, &mut self.watches, &AlarmThresholds::default());
        readings
            .iter()
            .map(|(id, reading)| (id.code.as_str(), matches!(reading, Reading::Present(_))))
            .collect()
    }

    /// The same from an edge that is heard all the time.
    fn heard_after(&mut self, seconds: u64) -> Vec<(&'static str, bool)> {
        self.heard_at = Some(self.seconds + seconds);
        self.after(seconds)
    }
}

#[test]
fn where_all_is_well_nothing_is_wrong() {
    let mut world = World::new();
    for _ in 0..100 {
        assert_eq!(world.heard_after(60), []);
    }
}

/// After each restart of the server every garage was silent for a moment.
#[test]
fn an_edge_is_silent_after_a_minute_and_after_a_restart_of_the_server_it_has_time_to_come_back() {
    let mut world = World::new();
    assert!(world.after(60).is_empty());
    let silent = world.after(1);
    assert!(silent.contains(&("edge_silent", true)), "{silent:?}");
    assert!(
        silent[1..].iter().all(|(code, present)| !present || *code == "edge_silent"),
        "what it reported says nothing now"
    );
    let mut restarted = World { heard_at: None, ..World::new() };
    assert!(restarted.after(120).contains(&("edge_silent", false)), "nobody knows");
    assert!(restarted.after(1).contains(&("edge_silent", true)));
}

#[test]
fn a_backlog_grows_when_many_wait_and_no_fewer_than_before() {
    let mut world = World::new();
    world.observation().backlog = 99;
    world.garage.delivered += 1;
    assert_eq!(world.heard_after(1), [("conflict", false)]);
    let backlog_after = |world: &mut World, seconds, backlog| {
        world.observation().backlog = backlog;
        world.garage.delivered += 1;
        let found = world.heard_after(seconds);
        found.iter().find(|(code, _)| *code == "backlog_grows").map(|(_, present)| *present)
    };
    assert_eq!(backlog_after(&mut world, 1, 500), Some(false));
    assert_eq!(backlog_after(&mut world, 598, 400), Some(false));
    assert_eq!(backlog_after(&mut world, 2, 600), Some(true), "more than ten minutes ago");
    assert_eq!(backlog_after(&mut world, 599, 700), Some(true));
    assert_eq!(backlog_after(&mut world, 1, 300), Some(false), "half as many");
    assert_eq!(backlog_after(&mut world, 600, 300), Some(true));
    assert_eq!(backlog_after(&mut world, 1, 99), None);
}

#[test]
fn a_queue_stands_still_when_something_waits_and_nothing_is_acknowledged() {
    let mut world = World::new();
    world.observation().backlog = 1;
    world.heard_after(1);
    assert!(
        world.heard_after(119).contains(&("queue_stands_still", false)),
        "a server that just started has not watched it for long"
    );
    assert!(world.heard_after(1).contains(&("queue_stands_still", true)));
    world.garage.delivered += 1;
    assert_eq!(world.heard_after(1), []);
    assert!(world.heard_after(120).contains(&("queue_stands_still", true)));
    world.garage.in_conflict_at = Some((Epoch::from_bytes([7; 16]), 3));
    let found = world.heard_after(1);
    assert_eq!(found, [("conflict", true)], "the reason is an alarm of its own");
    world.garage.in_conflict_at = None;
    world.observation().backlog = 0;
    assert_eq!(world.heard_after(1), []);
}

/// An edge that was killed right after it had reported an event, which was then acknowledged, stood still until it was silent.
#[test]
fn what_was_reported_before_an_edge_fell_silent_is_not_a_queue_that_stands_still() {
    let mut world = World::new();
    (world.observation().backlog, world.observation().oldest_age_ms) = (500, Some(10));
    world.heard_after(1);
    world.garage.delivered += 1;
    world.heard_after(1);
    world.heard_after(60);
    for _ in 0..60 {
        let found = world.after(1);
        assert!(found.iter().all(|(_, is_present)| !is_present), "{found:?}");
    }
}

#[test]
fn disks_of_edges_and_of_the_server_are_nearly_full_and_have_room_again_with_a_margin() {
    let mut world = World::new();
    world.disk = Some(DiskSpace { left: 999_999_999, total: 10_000_000_000 });
    assert_eq!(world.heard_after(1), [("disk_nearly_full", true)]);
    world.disk = Some(DiskSpace { left: 1_200_000_000, total: 10_000_000_000 });
    assert_eq!(world.heard_after(1), [("disk_nearly_full", false)]);
    world.disk = Some(DiskSpace { left: 2_500_000_000, total: 1 << 50 });
    assert_eq!(world.heard_after(1), [], "of a large disk 2 GB are enough");
    world.observation().machine.disk = Some(DiskSpace { left: 1, total: 8_000_000_000 });
    world.observation().shortage = Some("the disk has 0.0 MB left".into());
    assert_eq!(world.heard_after(1), [("disk_nearly_full", true), ("outbox_full", true)]);
}

#[test]
fn a_clock_that_differs_is_right_again_only_with_a_margin() {
    let mut world = World::new();
    for (ahead_ms, expected) in [
        (Some(5_001), vec![("clocks_differ", true)]),
        (Some(i64::MIN), vec![("clocks_differ", true)]),
        (Some(-4_500), vec![("clocks_differ", false)]),
        (None, vec![("clocks_differ", false)]),
        (Some(-4_000), vec![]),
    ] {
        world.garage.clock_ahead_ms = ahead_ms;
        assert_eq!(world.heard_after(1), expected, "{ahead_ms:?}");
    }
}

#[test]
fn a_count_below_none_and_above_the_capacity_is_impossible() {
    let mut world = World::new();
    for (occupied, capacity, expected) in [
        (0, Some(0), false),
        (-1, None, true),
        (500, Some(500), false),
        (501, Some(500), true),
        (i64::MAX, Some(u32::MAX), true),
        (501, None, false),
    ] {
        (world.garage.occupied, world.garage.capacity) = (Some(occupied), capacity);
        let found = world.heard_after(1);
        assert_eq!(found.contains(&("occupancy_impossible", true)), expected, "{occupied} of {capacity:?}");
    }
}

/// Misread plates leave open stays for good, so the two numbers are never equal in a garage of some age.
#[test]
fn count_and_stays_drift_when_they_move_apart_within_a_day_and_not_because_they_are_apart() {
    let mut world = World::new();
    world.garage.open_stays = 900;
    assert_eq!(world.heard_after(1), []);
    world.garage.open_stays = 909;
    assert_eq!(world.heard_after(3600), []);
    world.garage.open_stays = 920;
    assert_eq!(world.heard_after(3600), [("count_drifts", true)]);
    world.garage.open_stays = 30;
    assert_eq!(world.heard_after(3600), [], "nearer is not apart");
    world.garage.open_stays = 925;
    assert_eq!(world.heard_after(3600), [("count_drifts", true)]);
    assert_eq!(world.heard_after(21 * 3600), [], "another day begins");
}

#[test]
fn a_missing_range_is_an_alarm_for_a_week() {
    let mut world = World::new();
    world.garage.missing =
        MissingNow { ranges: 1, events: 7, last_at_ms: Some(NOON_MS), any_unreadable: false };
    assert_eq!(world.heard_after(7 * 24 * 3600 - 1), [("events_missing", true)]);
    assert_eq!(world.heard_after(1), []);
    world.garage.missing.any_unreadable = true;
    assert_eq!(world.heard_after(1), [("events_missing", true)]);
}

#[test]
fn the_certificate_of_an_edge_is_warned_of_a_month_ahead() {
    let mut world = World::new();
    let day_ms = 24 * 3_600_000;
    world.observation().machine.certificate_ends_at_ms = Some(NOON_MS + 31 * day_ms);
    assert_eq!(world.heard_after(1), []);
    assert_eq!(world.heard_after(24 * 3600), [("certificate_expires", true)]);
}
