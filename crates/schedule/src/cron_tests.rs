//! Crontab against Celery's recorded answers, and across changes of offset.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cron::{Cron, CronError};

const RECORDED: &str = include_str!("../../../tests/vectors/crontab/next_runs.json");

#[derive(serde::Deserialize)]
struct Recorded {
    records: Vec<(String, jiff::civil::DateTime, Vec<jiff::civil::DateTime>)>,
}

#[test]
fn next_runs_are_those_of_celery() {
    let recorded: Recorded = serde_json::from_str(RECORDED).unwrap();
    assert!(recorded.records.len() >= 500);
    for (text, start, expected) in recorded.records {
        let cron = Cron::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut at = TimeZone::UTC.to_timestamp(start).unwrap();
        for next in expected {
            at = cron.next(at, &TimeZone::UTC).unwrap();
            assert_eq!(TimeZone::UTC.to_datetime(at), next, "{text} after {start}");
        }
    }
}

/// The local times with offset of the ticks after `from` and up to `to`.
fn ticks(text: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let (cron, zone) = (Cron::parse(text).unwrap(), TimeZone::get(zone).unwrap());
    let to: Timestamp = to.parse().unwrap();
    let mut found = Vec::new();
    let mut at = from.parse().unwrap();
    while let Some(next) = cron.next(at, &zone)
        && next <= to
    {
        found.push(next.to_zoned(zone.clone()).strftime("%d %H:%M%:z").to_string());
        at = next;
    }
    found
}

fn berlin_spring(text: &str) -> Vec<String> {
    ticks(text, "Europe/Berlin", "2026-03-28T23:59:59Z", "2026-03-29T02:10:00Z")
}

fn berlin_autumn(text: &str) -> Vec<String> {
    ticks(text, "Europe/Berlin", "2026-10-24T23:50:00Z", "2026-10-25T02:00:00Z")
}

#[test]
fn a_skipped_local_time_fires_once_right_after_the_gap() {
    assert_eq!(berlin_spring("30 2 * * *"), ["29 03:00+02:00"]);
    assert_eq!(berlin_spring("*/20 2 * * *"), ["29 03:00+02:00"]);
    assert_eq!(berlin_spring("30 */2 * * *"), ["29 03:00+02:00"]);
    assert_eq!(berlin_spring("0,30 2,3 * * *"), ["29 03:00+02:00", "29 03:30+02:00"]);
    assert_eq!(berlin_spring("0 4 * * *"), ["29 04:00+02:00"]);
}

#[test]
fn every_hour_loses_nothing_in_a_gap() {
    assert_eq!(berlin_spring("30 * * * *"), ["29 01:30+01:00", "29 03:30+02:00"]);
    assert_eq!(berlin_spring("30 0-23 * * *"), ["29 01:30+01:00", "29 03:30+02:00"]);
}

#[test]
fn a_fixed_hour_that_is_repeated_fires_in_the_first_pass_only() {
    assert_eq!(berlin_autumn("30 2 * * *"), ["25 02:30+02:00"]);
    assert_eq!(berlin_autumn("0,30 2,3 * * *"), ["25 02:00+02:00", "25 02:30+02:00", "25 03:00+01:00"]);
}

#[test]
fn a_fixed_hour_does_not_fire_again_when_asked_within_the_second_pass() {
    let after = ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T02:00:00Z");
    assert_eq!(after, ["26 02:30+01:00"]);
}

#[test]
fn hours_said_with_a_star_fire_in_both_passes() {
    assert_eq!(berlin_autumn("30 * * * *"), ["25 02:30+02:00", "25 02:30+01:00"]);
    assert_eq!(berlin_autumn("0 */2 * * *"), ["25 02:00+02:00", "25 02:00+01:00"]);
    let all = ["25 02:00+02:00", "25 02:30+02:00", "25 02:00+01:00", "25 02:30+01:00", "25 03:00+01:00"];
    assert_eq!(berlin_autumn("*/30 * * * *"), all);
}

#[test]
fn half_hour_changes_and_lost_days_follow_the_same_rules() {
    // Lord Howe goes from 02:00 to 02:30 in October and from 02:00 back to 01:30 in April.
    let spring = ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T18:00:00Z");
    assert_eq!(spring, ["04 02:30+11:00"]);
    let autumn = ticks("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", "2026-04-05T00:00:00Z");
    assert_eq!(autumn, ["05 01:45+11:00"]);
    // Samoa had no 30 December 2011.
    let samoa = ticks("0 12 30 12 *", "Pacific/Apia", "2011-12-29T23:30:00Z", "2012-12-30T23:00:00Z");
    assert_eq!(samoa, ["31 00:00+14:00", "30 12:00+14:00"]);
}

#[test]
fn a_zone_without_changes_is_only_an_offset() {
    let seoul = ticks("0 */2 * * *", "Asia/Seoul", "2026-11-20T15:00:00Z", "2026-11-20T19:00:00Z");
    assert_eq!(seoul, ["21 02:00+09:00", "21 04:00+09:00"]);
}

#[test]
fn rare_days_are_found_and_impossible_ones_refused() {
    let leap = ticks("0 0 29 2 mon", "UTC", "2026-01-01T00:00:00Z", "2080-01-01T00:00:00Z");
    assert_eq!(leap.len(), 2, "2044 and 2072");
    let across = ticks("0 0 29 2 sun", "UTC", "2092-01-01T00:00:00Z", "2110-01-01T00:00:00Z");
    assert!(across.len() <= 1);
    let never = Cron::parse("0 0 31 2,4 *").unwrap_err();
    assert_eq!(never.field, Some("day_of_month"));
}

#[test]
fn an_error_names_the_field() {
    let wrong = |text: &str| Cron::parse(text).unwrap_err();
    assert_eq!(wrong("0 25 * * *").to_string(), "hour: 25 is out of range: allowed are 0-23");
    assert_eq!(wrong("* * * 13 *").field, Some("month_of_year"));
    assert_eq!(wrong("* * * * fry").field, Some("day_of_week"));
    assert!(matches!(wrong("0 0 * *"), CronError { field: None, message } if message.starts_with("has 4 fields")));
    assert!(wrong("@fortnightly").message.contains("@hourly"));
    assert!(wrong("").message.starts_with("has 0 fields"));
}

#[test]
fn names_stand_for_whole_expressions() {
    assert_eq!(
        ticks("@hourly", "UTC", "2026-01-01T00:30:00Z", "2026-01-01T02:00:00Z"),
        ["01 01:00+00:00", "01 02:00+00:00"]
    );
    assert_eq!(ticks("@Weekly", "UTC", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"), ["22 00:00+00:00"]);
}
