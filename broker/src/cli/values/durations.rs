//! Lengths of time, and ages, as the command line takes them: as the wire does, but for `M`.

use std::time::Duration;

use procbroker_protocol::duration as on_wire;
use procbroker_protocol::since::Since;

use super::error::ValueError;

/// Takes a number of seconds, or a text such as `1m 30s`; `M`, which the wire takes for months, is refused.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, ValueError> {
    let duration = on_wire::parse(text)?;
    not_in_months(text)?;
    Ok(duration)
}

/// Takes a time, or an age as [`duration`] takes it.
pub(in crate::cli) fn since(text: &str) -> Result<Since, ValueError> {
    let since: Since = text.parse()?;
    match since {
        Since::Time(_) => {}
        Since::Age(_) => not_in_months(text)?,
    }
    Ok(since)
}

/// Refuses `M` as a unit: next to `m` it is taken for minutes too easily.
fn not_in_months(text: &str) -> Result<(), ValueError> {
    let is_letter = |place: Option<&u8>| place.is_some_and(u8::is_ascii_alphabetic);
    let bytes = text.as_bytes();
    let is_months = |place: usize| {
        bytes.get(place) == Some(&b'M')
            && !is_letter(bytes.get(place + 1))
            && place.checked_sub(1).is_none_or(|before| !is_letter(bytes.get(before)))
    };
    if !(0..bytes.len()).any(is_months) {
        return Ok(());
    }
    // A text that was read has no other unit with a capital letter in it.
    Err(ValueError::Months { text: text.to_owned(), minutes: text.replace('M', "m") })
}

#[cfg(test)]
mod tests {
    use super::super::{lifetime, stop_step};
    use super::*;

    #[test]
    fn months_are_not_taken_for_minutes() {
        for (text, seconds) in
            [("10s", 10.0), ("5m", 300.0), ("1h30m", 5400.0), ("90", 90.0), ("2d", 172_800.0), ("0.25", 0.25)]
        {
            assert!((duration(text).unwrap().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        assert_eq!(duration("1month").unwrap(), on_wire::parse("1M").unwrap());
        let refused =
            "\"1h 10M\" has M, which is a month; \"1h 10m\" is minutes, and 'months' says the other";
        assert_eq!(duration("1h 10M").unwrap_err().to_string(), refused);
        for refusal in [
            duration("10M").unwrap_err(),
            duration("10 M").unwrap_err(),
            lifetime("ttl:10M").unwrap_err(),
            stop_step("TERM:10M").unwrap_err(),
            since("10M").unwrap_err(),
        ] {
            assert!(matches!(refusal, ValueError::Months { .. }), "{refusal}");
        }
        assert!(matches!(since("10m"), Ok(Since::Age(age)) if age == Duration::from_secs(600)));
        assert!(matches!(since("2026-11-23T14:52:17Z"), Ok(Since::Time(_))));
        assert!(matches!(since("M"), Err(ValueError::Since(_))));
    }
}
