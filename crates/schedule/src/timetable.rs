//! When a schedule ticks: by a crontab, at an interval, or once; inside its start and end.
//!
//! The ticks are determined by the timetable alone, never by when it is evaluated.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cron::Cron;
use runtime::clock::Time;

#[derive(Debug, Clone, PartialEq)]
pub enum Rhythm {
    Cron(Cron),
    /// An interval in microseconds, at least one second. It counts elapsed time, so changes of offset do not matter.
    Every(i64),
    /// Once.
    At(Time),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    pub rhythm: Rhythm,
    /// IANA name of the zone in which the crontab's local times are.
    pub timezone: String,
    pub zone: TimeZone,
    /// No tick before it. An interval then begins with a tick at this time.
    pub starts_at: Option<Time>,
    /// No tick after it.
    pub ends_at: Option<Time>,
}

impl Timetable {
    /// The first tick after `after`. An interval without a start counts from `anchor` (its creation): the first tick comes one
    /// interval later.
    pub fn next(&self, anchor: Time, after: Time) -> Option<Time> {
        let after = self.starts_at.map_or(after, |start| after.max(Time(start.0.saturating_sub(1))));
        let tick = match &self.rhythm {
            Rhythm::Cron(cron) => {
                let next = cron.next(Timestamp::from_microsecond(after.0).ok()?, &self.zone)?;
                Time(next.as_microsecond())
            }
            Rhythm::Every(micros) => self.next_interval(*micros, anchor, after)?,
            Rhythm::At(at) => Some(*at).filter(|at| *at > after)?,
        };
        Some(tick).filter(|tick| self.ends_at.is_none_or(|end| *tick <= end))
    }

    fn next_interval(&self, micros: i64, anchor: Time, after: Time) -> Option<Time> {
        let (origin, first) = self.starts_at.map_or((anchor, 1), |start| (start, 0));
        let count = after.0.checked_sub(origin.0)?.div_euclid(micros).checked_add(1)?.max(first);
        micros.checked_mul(count).and_then(|span| origin.0.checked_add(span)).map(Time)
    }

    /// Whether its single time or its end has passed.
    pub fn is_over(&self, now: Time) -> bool {
        match self.rhythm {
            Rhythm::At(at) if at <= now => true,
            _ => self.ends_at.is_some_and(|end| end <= now),
        }
    }

    /// The JSON pointer of the member that ends it.
    pub fn end_pointer(&self) -> &'static str {
        if matches!(self.rhythm, Rhythm::At(_)) { "/at" } else { "/ends_at" }
    }

    /// The next `count` ticks after `after`.
    pub fn preview(&self, anchor: Time, after: Time, count: usize) -> Vec<Time> {
        std::iter::successors(self.next(anchor, after), |tick| self.next(anchor, *tick)).take(count).collect()
    }

    /// RFC 3339 with the zone's offset at that time.
    pub fn local(&self, at: Time) -> String {
        match Timestamp::from_microsecond(at.0) {
            Ok(stamp) => {
                let offset = self.zone.to_offset(stamp);
                stamp.display_with_offset(offset).to_string()
            }
            Err(_) => at.rfc3339(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rhythm: Rhythm) -> Timetable {
        Timetable { rhythm, timezone: "UTC".to_owned(), zone: TimeZone::UTC, starts_at: None, ends_at: None }
    }

    fn secs(secs: i64) -> Time {
        Time(secs * 1_000_000)
    }

    #[test]
    fn an_interval_ticks_first_one_interval_after_its_creation() {
        let table = table(Rhythm::Every(60_000_000));
        assert_eq!(table.next(secs(1000), secs(1000)), Some(secs(1060)));
        assert_eq!(table.next(secs(1000), secs(900)), Some(secs(1060)));
        assert_eq!(table.next(secs(1000), secs(1060)), Some(secs(1120)));
        assert_eq!(table.next(secs(1000), secs(1119)), Some(secs(1120)));
    }

    #[test]
    fn an_interval_with_a_start_ticks_at_the_start() {
        let table = Timetable { starts_at: Some(secs(5000)), ..table(Rhythm::Every(60_000_000)) };
        assert_eq!(table.preview(secs(1000), secs(1000), 2), [secs(5000), secs(5060)]);
        assert_eq!(table.next(secs(1000), secs(5000)), Some(secs(5060)));
    }

    #[test]
    fn nothing_ticks_after_the_end() {
        let table = Timetable { ends_at: Some(secs(1120)), ..table(Rhythm::Every(60_000_000)) };
        assert_eq!(table.preview(secs(1000), secs(1000), 9), [secs(1060), secs(1120)]);
    }

    #[test]
    fn a_single_time_ticks_once() {
        let table = table(Rhythm::At(secs(50)));
        assert_eq!(table.next(secs(0), secs(49)), Some(secs(50)));
        assert_eq!(table.next(secs(0), secs(50)), None);
    }

    #[test]
    fn a_preview_shows_the_offset_of_each_tick() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let cron = Rhythm::Cron(Cron::parse("0 12 * * *").unwrap());
        let table = Timetable { zone, ..table(cron) };
        let start = Time::parse_rfc3339("2026-10-24T00:00:00Z").unwrap();
        let shown: Vec<_> = table.preview(start, start, 2).into_iter().map(|tick| table.local(tick)).collect();
        assert_eq!(shown, ["2026-10-24T12:00:00+02:00", "2026-10-25T12:00:00+01:00"]);
    }

    #[test]
    fn numbers_at_the_edge_of_time_end_quietly() {
        let table = table(Rhythm::Every(i64::MAX));
        assert_eq!(table.next(Time(5), Time(5)), None);
        assert_eq!(table.next(Time(i64::MIN), Time(i64::MAX)), None);
    }
}
