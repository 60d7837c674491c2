//! How long something lasted or is ago, in as few characters as tell it.

use std::time::Duration;

use procbroker_protocol::Timestamp;

/// The units, largest first, in seconds.
const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];

/// The time between two moments, in its two largest units: `3d 4h`, `12m 5s`, `0s`. Clocks can be set back, so
/// that the second is earlier: that reads as no time.
pub(in crate::cli) fn between(from: Timestamp, to: Timestamp) -> String {
    in_units(to.as_micros().saturating_sub(from.as_micros()) / 1_000_000)
}

/// A length of time in its two largest units, with tenths of a second where it is short: `0.3s`, `12m 5s`.
pub(in crate::cli) fn lasting(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        return format!("{}.{}s", time.as_secs(), time.subsec_millis() / 100);
    }
    in_units(time.as_secs())
}

fn in_units(seconds: u64) -> String {
    let mut rest = seconds;
    let counts = UNITS.map(|(length, unit)| {
        let count = rest / length;
        rest %= length;
        (count, unit)
    });
    let parts: Vec<String> = counts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> String {
        let start = Timestamp::from_micros(1_795_445_537_000_000);
        between(start, Timestamp::from_micros(start.as_micros() + seconds * 1_000_000))
    }

    #[test]
    fn the_two_largest_units_are_shown() {
        assert_eq!(after(0), "0s");
        assert_eq!(after(59), "59s");
        assert_eq!(after(60), "1m");
        assert_eq!(after(725), "12m 5s");
        assert_eq!(after(3_605), "1h");
        assert_eq!(after(12_300), "3h 25m");
        assert_eq!(after(86_400 * 400 + 7_200 + 59), "400d 2h");
    }

    #[test]
    fn a_short_time_has_tenths_of_a_second() {
        let lasting = |millis| lasting(Duration::from_millis(millis));
        assert_eq!([0, 349, 9_999, 10_000, 75_500].map(lasting), ["0.0s", "0.3s", "9.9s", "10s", "1m 15s"]);
    }

    #[test]
    fn a_clock_that_was_set_back_shows_no_time() {
        assert_eq!(between(Timestamp::from_micros(9_000_000), Timestamp::from_micros(1)), "0s");
    }
}
