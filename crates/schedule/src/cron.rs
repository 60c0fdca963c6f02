//! A crontab expression with Celery's meaning: five fields, and a day must satisfy the day of the month *and* the day of the week.
//!
//! (In cron(8) two restricted day fields are alternatives; in Celery both must match. The tests compare with recorded answers of
//! Celery's own `crontab`.) When a zone changes its offset (daylight saving time), these rules hold:
//! * a local time that the change skips fires once, right after the gap, unless the expression has every hour: it misses nothing;
//! * a local time that the change repeats fires the first time only, unless the hour is `*`: then it fires both times.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::field::{self, Field};

/// Which field is wrong (`None` for the whole expression), and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .field.map(|name| format!("{name}: ")).unwrap_or_default())]
pub struct CronError {
    pub field: Option<&'static str>,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// Names for whole expressions, and what they stand for.
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// 29 February falls on a given weekday at least every 40 years.
const LONGEST_GAP: SignedDuration = SignedDuration::from_hours(24 * 366 * 41);

impl Cron {
    /// `minute hour day_of_month month_of_year day_of_week`, or a name such as `@hourly`.
    ///
    /// # Errors
    /// The first field that is wrong, or that no day satisfies all fields.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let whole = |message: String| CronError { field: None, message };
        let text = text.trim();
        let spelled = if text.starts_with('@') { named(text).map_err(whole)? } else { text };
        let fields: Vec<&str> = spelled.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let message = format!(
                "has {} fields, must have five (minute hour day_of_month month_of_year day_of_week) or be a name such as @hourly",
                fields.len()
            );
            return Err(whole(message));
        };
        let read = |kind: &field::Kind, text| {
            kind.parse(text).map_err(|message| CronError { field: Some(kind.name), message })
        };
        let cron = Self {
            text: text.to_owned(),
            minute: read(&field::MINUTE, minute)?,
            hour: read(&field::HOUR, hour)?,
            day: read(&field::DAY_OF_MONTH, day)?,
            month: read(&field::MONTH_OF_YEAR, month)?,
            weekday: read(&field::DAY_OF_WEEK, weekday)?,
        };
        cron.happens()
    }

    fn happens(self) -> Result<Self, CronError> {
        let least = self.day.first();
        let exists = (1..=12).filter(|month| self.month.has(*month)).any(|month| least <= longest(month));
        if exists {
            return Ok(self);
        }
        let message = format!("day {least} never comes in the given month_of_year");
        Err(CronError { field: Some(field::DAY_OF_MONTH.name), message })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first tick after `after`; `None` at the end of the calendar.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let end = after.checked_add(LONGEST_GAP).unwrap_or(Timestamp::MAX);
        let mut from = after;
        let mut inclusive = false;
        let mut changes = zone.following(after).take_while(|change| change.timestamp() <= end);
        while from < end {
            let change = changes.next();
            let until = change.as_ref().map_or(end, jiff::tz::TimeZoneTransition::timestamp);
            if let Some(found) = self.within(from, inclusive, until, zone) {
                return Some(found);
            }
            let offset = change?.offset();
            if self.lost_in_gap(zone, until, offset) {
                return Some(until);
            }
            (from, inclusive) = (until, true);
        }
        None
    }

    /// The first tick before `until`, in a span of constant offset.
    fn within(&self, from: Timestamp, inclusive: bool, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let offset = zone.to_offset(from);
        let mut first = ceiling(offset.to_datetime(from), inclusive);
        if !self.hour.starred
            && let Some(repeated) = repeated_until(zone, from, offset)
        {
            first = first.max(repeated);
        }
        let last = offset.to_datetime(until);
        let found = self.next_local(first, last)?;
        offset.to_timestamp(found).ok()
    }

    /// Whether the offset change at `at` skips a local time at which a tick was due.
    fn lost_in_gap(&self, zone: &TimeZone, at: Timestamp, offset: Offset) -> bool {
        let Some(before) = offset_before(zone, at) else { return false };
        let all_hours = self.hour.count() == 24;
        offset > before && !all_hours && self.next_local(before.to_datetime(at), offset.to_datetime(at)).is_some()
    }

    /// The first matching local minute in `from..until`; `from` is a whole minute.
    fn next_local(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        if from >= until {
            return None;
        }
        if self.matches_day(from.date())
            && let Some(time) = self.next_time(from.time())
        {
            return Some(from.date().to_datetime(time)).filter(|found| *found < until);
        }
        let mut date = from.date().tomorrow().ok()?;
        while date <= until.date() {
            if !self.month.has(month(date)) {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                continue;
            }
            if self.matches_day(date) {
                let time = Time::constant(small(self.hour.first()), small(self.minute.first()), 0, 0);
                return Some(date.to_datetime(time)).filter(|found| *found < until);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn matches_day(&self, date: Date) -> bool {
        let weekday = u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs());
        self.month.has(month(date)) && self.day.has(u32::from(date.day().unsigned_abs())) && self.weekday.has(weekday)
    }

    /// The first matching time of a matching day that is not before `from`.
    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute) = (u32::from(from.hour().unsigned_abs()), u32::from(from.minute().unsigned_abs()));
        if self.hour.has(hour)
            && let Some(minute) = self.minute.next(minute)
        {
            return Some(Time::constant(small(hour), small(minute), 0, 0));
        }
        let hour = self.hour.next(hour + 1)?;
        Some(Time::constant(small(hour), small(self.minute.first()), 0, 0))
    }
}

fn named(text: &str) -> Result<&'static str, String> {
    let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, meaning)| *meaning);
    let known = || NAMES.map(|(name, _)| name).join(", ");
    found.ok_or_else(|| format!("{text} is not a known name: known are {}", known()))
}

/// The next whole minute, or this one when it is whole and `inclusive`.
fn ceiling(at: DateTime, inclusive: bool) -> DateTime {
    let whole = at.with().second(0).subsec_nanosecond(0).build().expect("the start of a minute exists");
    if inclusive && whole == at { whole } else { whole.saturating_add(1.minute()) }
}

fn offset_before(zone: &TimeZone, at: Timestamp) -> Option<Offset> {
    Some(zone.to_offset(at.checked_sub(SignedDuration::from_nanos(1)).ok()?))
}

/// After a change that set the clock back: the local time up to which local times are repeated.
fn repeated_until(zone: &TimeZone, at: Timestamp, offset: Offset) -> Option<DateTime> {
    let later = at.checked_add(SignedDuration::from_nanos(1)).ok()?;
    let change = zone.preceding(later).next()?;
    let before = offset_before(zone, change.timestamp())?;
    (before > offset).then(|| ceiling(before.to_datetime(change.timestamp()), true))
}

fn longest(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn month(date: Date) -> u32 {
    u32::from(date.month().unsigned_abs())
}

fn small(value: u32) -> i8 {
    i8::try_from(value).expect("hours and minutes have two digits")
}
