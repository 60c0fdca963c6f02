//! Absolute times as Celery writes and reads them: ISO 8601, in UTC if no zone is given.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};

/// A time as Celery writes it: microseconds (left out when zero) and a numeric offset.
pub fn format(time: Timestamp) -> String {
    let civil = time.to_zoned(TimeZone::UTC).datetime();
    let micros = civil.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}+00:00",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    )
}

/// Parses a time in any form that a Celery worker accepts: `Z`, `+00:00`, `+0000`, `+09` or no zone (UTC); `T` or a space; a fraction
/// of any length (cut at nanoseconds); without seconds; only a date. `None` for anything else, including numbers.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let date: Date = text.get(..10)?.parse().ok()?;
    let rest = &text[10..];
    let (time, zone) = match rest.as_bytes().first() {
        None => (Time::midnight(), ""),
        Some(b'T' | b't' | b' ') => clock(&rest[1..])?,
        Some(_) => return None,
    };
    offset(zone)?.to_timestamp(date.to_datetime(time)).ok()
}

/// Converts Unix seconds, as in events and tickets; `None` outside the representable years.
pub fn from_unix(seconds: f64) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "checked: inside the years that a timestamp can hold")]
    (seconds.abs() < 2e11).then(|| Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()).flatten()
}

/// Unix seconds with microseconds, as Python's `time.time()`.
pub fn to_unix(time: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit 53 bits until the year 2255")]
    let micros = time.as_microsecond() as f64;
    micros / 1e6
}

/// Splits `18:17:30.698350+00:00` into the time of day and its zone.
fn clock(text: &str) -> Option<(Time, &str)> {
    let end = text.find(|char: char| !(char.is_ascii_digit() || matches!(char, ':' | '.' | ','))).unwrap_or(text.len());
    let (clock, zone) = text.split_at(end);
    let (whole, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let mut part = |limit: i8| match parts.next() {
        None => Some(0),
        Some(digits) if digits.len() == 2 => digits.parse().ok().filter(|value| *value < limit),
        Some(_) => None,
    };
    let (hour, minute, second) = (part(24)?, part(60)?, part(60)?);
    if parts.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{:0<9.9}", fraction).parse().ok()?;
    Some((Time::new(hour, minute, second, nanos).ok()?, zone.trim()))
}

fn offset(zone: &str) -> Option<Offset> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(Offset::UTC);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = zone[1..].replace(':', "");
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits.get(2..4).map_or(Some(0), |minutes| minutes.parse().ok())?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_a_worker_takes_is_read() {
        let same = [
            "2026-11-20T18:17:30.698350+00:00",
            "2026-11-20T18:17:30.698350Z",
            "2026-11-20T18:17:30.698350",
            "2026-11-20 18:17:30.69835",
            "2026-11-20T18:17:30.698350000+0000",
            "2026-11-21T03:17:30.698350+0900",
            "2026-11-20T13:47:30.698350-04:30",
        ];
        for form in same {
            assert_eq!(format(parse(form).expect(form)), same[0], "{form}");
        }
        assert_eq!(format(parse("2026-11-20").unwrap()), "2026-11-20T00:00:00+00:00");
        assert_eq!(format(parse("2026-11-20T18:17").unwrap()), "2026-11-20T18:17:00+00:00");
    }

    #[test]
    fn anything_else_is_refused() {
        for form in [
            "",
            "tomorrow",
            "1795198850",
            "2026-13-20",
            "2026-11-20T25:00:00",
            "2026-11-20X10:00",
            "2026-11-20T10:00:00+1",
            "2026-11-20T1:00",
            "2026-11-20T10:00:00é",
            "2026-11-2é",
            "9999-12-31T23:59:59+00:00",
        ] {
            assert_eq!(parse(form), None, "{form}");
        }
    }

    #[test]
    fn unix_seconds_keep_their_microseconds() {
        let time = from_unix(1_795_198_835.743_520_5).unwrap();
        assert_eq!(time.as_microsecond(), 1_795_198_835_743_521);
        assert_eq!(to_unix(Timestamp::from_microsecond(1_795_198_835_743_520).unwrap()), 1_795_198_835.743_52);
        assert_eq!(from_unix(f64::NAN), None);
    }
}
