//! The clocks and the identity of this machine.
#![allow(unsafe_code, reason = "only adjtimex knows whether the clock is set, and it has no safe wrapper")]

use crate::codes;
use crate::messaging::ClockReading;
use crate::messaging::clock::BootId;
use jiff::Timestamp;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the wall clock is compared with the monotonic clock, and the smallest difference that is reported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SET_BY_LEAST_MS: u64 = 1000;

/// Clocks of an edge and of its server that differ by more than this are an alarm at both.
pub const SKEW_ALARM: Duration = Duration::from_secs(5);

/// Wall time in milliseconds since 1970: evidence, not truth.
#[expect(clippy::disallowed_methods, reason = "everybody else asks this module")]
pub fn wall_ms() -> i64 {
    let signed = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since.as_millis()),
        Err(before) => -signed(before.duration().as_millis()),
    }
}

/// Wall time; 1970 where a clock shows a year that no calendar has.
pub fn now() -> Timestamp {
    Timestamp::from_millisecond(wall_ms()).unwrap_or_default()
}

pub fn read() -> ClockReading {
    ClockReading { wall_ms: wall_ms(), monotonic_ms: monotonic_ms(), boot: boot(), set: is_set() }
}

/// The id of this boot; zeros when the kernel does not give one.
pub fn boot() -> BootId {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        uuid::Uuid::try_parse(text.trim()).map_or([0; 16], uuid::Uuid::into_bytes)
    })
}

/// Milliseconds since this machine started, time asleep included; it never goes back within a boot.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1000) + nanos.unwrap_or(0) / 1_000_000
}

/// Writes into the log when the wall clock was set while this process runs. Never ends.
/// When the clocks of all machines are set together, a comparison between them does not show it; the monotonic clock does.
pub async fn say_when_set() {
    let mut looking = tokio::time::interval(LOOK_EVERY);
    let mut before = read();
    loop {
        looking.tick().await;
        let now = read();
        let by_ms = before.wall_was_set_by(&now);
        if by_ms.unsigned_abs() >= SET_BY_LEAST_MS {
            tracing::warn!(
                code = %codes::CLOCK_SET,
                by_seconds = by_ms / 1000,
                hint = "nothing to do: events keep the time at which they arrived, and the order of their sequences",
                "the clock of this machine was set"
            );
        }
        before = now;
    }
}

/// Whether the kernel knows the wall clock to be kept in time (by NTP, PTP or the like). False when it cannot be asked.
fn is_set() -> bool {
    const TIME_ERROR: libc::c_int = 5;
    // SAFETY: all bytes zero is a valid `timex`; with `modes` 0 the call only reads, into a place that we own.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    state >= 0 && state != TIME_ERROR
}

/// The identity of this machine, from the setting `told` or from `/etc/machine-id`; `None` when there is neither.
/// As machine-id(5) asks, the id itself is not stored or shown: this is a hash of it for our use alone.
pub fn machine(told: Option<&str>) -> Option<[u8; 16]> {
    let read = || std::fs::read_to_string("/etc/machine-id").ok();
    let id = told.map(str::to_owned).or_else(read)?;
    let id = id.trim();
    if id.is_empty() || id == "uninitialized" {
        return None;
    }
    let hash = blake3::derive_key("fogpost 2026 machine id of an outbox", id.as_bytes());
    hash.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_one_boot_never_go_back() {
        let (first, second) = (read(), read());
        assert!(second.monotonic_ms >= first.monotonic_ms);
        assert_eq!(first.boot, second.boot);
        assert!(first.wall_ms > 1_700_000_000_000);
    }

    /// Uptime was once read at the start and carried on by a clock that stands still while the machine sleeps.
    #[test]
    fn the_monotonic_reading_is_the_time_since_boot_at_any_moment() {
        let uptime_ms = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            (text.split(' ').next().unwrap().parse::<f64>().unwrap() * 1000.0) as u64
        };
        let (before, reading, after) = (uptime_ms(), monotonic_ms(), uptime_ms());
        // The kernel shows hundredths of a second, cut off.
        assert!((before..=after + 10).contains(&reading), "{before} {reading} {after}");
    }

    #[test]
    fn a_machine_is_told_apart_without_showing_its_id() {
        let (a, b) = (machine(Some("a")).unwrap(), machine(Some("b")).unwrap());
        assert_ne!(a, b);
        assert_eq!(machine(Some("a\n")), Some(a));
        assert_eq!(machine(Some(" ")), None);
    }
}
