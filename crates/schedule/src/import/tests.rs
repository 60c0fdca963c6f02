//! Tests entries as the other beats write them, and what they become here.

use super::{Imported, celery, django, redbeat};
use runtime::clock::Time;

/// 2026-11-20 12:00:00 UTC.
const NOW: Time = Time(1_795_176_000_000_000);

fn shown(imported: &[Imported]) -> Vec<String> {
    imported
        .iter()
        .map(|entry| match &entry.document {
            Ok(document) => document.get().to_owned(),
            Err(reason) => format!("{}: {reason}", entry.name),
        })
        .collect()
}

#[test]
fn a_beat_schedule_is_taken_over() {
    let dump = r#"{"timezone": "Asia/Seoul", "entries": {
        "crawl every 2h": {"task": "tasks.crawl", "schedule": {"crontab": ["0", "*/2", "*", "*", "mon-fri"]}, "args": ["봉사"],
            "options": {"queue": "crawl", "priority": 1, "exchange": "x"}},
        "beat": {"task": "tasks.beat", "schedule": 30.0, "kwargs": {"big": 123456789012345678901234567890}},
        "sets": {"task": "t", "schedule": {"crontab": ["{0, 30}", "*", "*", "*", "*"]}},
        "sun": {"task": "t", "schedule": "<solar: sunrise>"},
        "fast": {"task": "t", "schedule": 0.2}}}"#;
    let imported = celery::read(dump, None, NOW).unwrap();
    let expected = [
        r#"{"name":"beat","task":"tasks.beat","kwargs":{"big": 123456789012345678901234567890},"every":30.0}"#,
        r#"{"name":"crawl-every-2h","task":"tasks.crawl","args":["봉사"],"queue":"crawl","priority":1,"cron":"0 */2 * * mon-fri","timezone":"Asia/Seoul"}"#,
        "fast: every must be at least 1",
        r#"{"name":"sets","task":"t","cron":"0,30 * * * *","timezone":"Asia/Seoul"}"#,
        "sun: schedules such as <solar: sunrise> do not exist here",
    ];
    assert_eq!(shown(&imported), expected);
    assert_eq!(imported[1].notes, ["was called \"crawl every 2h\"", "without the options exchange"]);
    assert!(celery::read("[]", None, NOW).is_err());
}

#[test]
fn redbeat_definitions_are_taken_over() {
    let definitions = [
        r#"{"name": "a", "task": "t", "args": [1], "kwargs": {}, "options": {"queue": "q"}, "enabled": false,
            "schedule": {"__type__": "interval", "every": 60.0, "relative": false}}"#,
        r#"{"name": "b", "task": "t", "enabled": true, "options": {},
            "schedule": {"__type__": "crontab", "minute": "30", "hour": "4", "day_of_week": "*", "day_of_month": "*", "month_of_year": "*"}}"#,
        r#"{"name": "c", "task": "t", "schedule": {"__type__": "rrule", "freq": 5}}"#,
    ]
    .map(str::to_owned);
    let expected = [
        r#"{"name":"a","task":"t","args":[1],"kwargs":{},"queue":"q","every":60.0,"paused":true}"#,
        r#"{"name":"b","task":"t","cron":"30 4 * * *","timezone":"Europe/Berlin"}"#,
        "c: schedules of the type rrule do not exist here",
    ];
    assert_eq!(shown(&redbeat::read(&definitions, Some("Europe/Berlin"), NOW)), expected);
}

#[test]
fn periodic_tasks_of_django_are_taken_over() {
    let rows = [
        r#"{"name": "a", "task": "t", "args": "[1, 2]", "kwargs": "{}", "queue": null, "priority": 3, "headers": "{}", "expires": null,
            "expire_seconds": 60, "enabled": true, "start_time": "2026-01-01 00:00:00", "minute": "0", "hour": "9", "day_of_month": "*",
            "month_of_year": "*", "day_of_week": "1", "timezone": "Asia/Seoul"}"#,
        r#"{"name": "b", "task": "t", "args": "[]", "kwargs": "{}", "enabled": 0, "every": 2, "period": "hours"}"#,
        r#"{"name": "c", "task": "t", "args": "[]", "kwargs": "{}", "enabled": 1, "clocked_time": "2099-01-01T09:00:00+00:00"}"#,
        r#"{"name": "d", "task": "t", "args": "[]", "kwargs": "{}", "enabled": 1}"#,
        r#"{"name": "celery.backend_cleanup", "task": "celery.backend_cleanup", "enabled": 1, "minute": "0"}"#,
    ]
    .map(str::to_owned);
    let found = shown(&django::read(&rows, None, NOW));
    let expected = [
        r#"{"name":"a","task":"t","args":[1, 2],"kwargs":{},"priority":3,"expires":60,"cron":"0 9 * * 1","timezone":"Asia/Seoul","starts_at":"2026-01-01T00:00:00Z"}"#,
        r#"{"name":"b","task":"t","args":[],"kwargs":{},"every":7200,"paused":true}"#,
        r#"{"name":"c","task":"t","args":[],"kwargs":{},"at":"2099-01-01T09:00:00+00:00"}"#,
    ];
    assert_eq!(found[..3], expected);
    assert!(found[3].starts_with("d: it has neither"), "{}", found[3]);
    assert_eq!(found.len(), 4);
}

#[test]
fn names_that_become_equal_are_told_apart() {
    let dump = r#"{"a b": {"task": "t", "schedule": 5}, "a/b": {"task": "t", "schedule": 5}, "봉사": {"task": "t", "schedule": 5}}"#;
    let names: Vec<String> = celery::read(dump, None, NOW).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a-b", "a-b-2", "봉사"]);
}

#[test]
fn names_of_any_script_are_kept_and_cut_between_characters() {
    let long = "봉".repeat(120);
    let dump = format!(
        r#"{{"{long}1": {{"task": "t", "schedule": 5}}, "{long}2": {{"task": "t", "schedule": 5}}, "a\u202eb": {{"task": "t", "schedule": 5}}, "!": {{"task": "t", "schedule": 5}}, "🚀 nightly": {{"task": "t", "schedule": 5}}}}"#
    );
    let names: Vec<String> = celery::read(&dump, None, NOW).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("봉봉")).count(), 2, "{names:?}");
    assert!(names.iter().any(|name| name.chars().count() == 92 && name.ends_with("-2")), "{names:?}");
    for kept in ["a-b", "schedule", "🚀-nightly"] {
        assert!(names.iter().any(|name| name == kept), "{kept}: {names:?}");
    }
}

#[test]
fn what_django_runs_once_runs_once_here_and_what_is_over_is_told() {
    let row = |name: &str, rest: &str| {
        format!(r#"{{"name": "{name}", "task": "t", "args": "[]", "kwargs": "{{}}", "enabled": true, {rest}}}"#)
    };
    let rows = [
        row("a", r#""every": 10, "period": "minutes", "one_off": true, "total_run_count": 0"#),
        row("b", r#""minute": "30", "hour": "9", "timezone": "Asia/Seoul", "one_off": 1, "total_run_count": 0"#),
        row("c", r#""every": 10, "period": "minutes", "one_off": true, "total_run_count": 1"#),
        row("d", r#""clocked_time": "2026-11-20 11:59:00", "one_off": true"#),
        row("e", r#""every": 10, "period": "minutes", "expires": "2027-01-01 00:00:00", "expire_seconds": 60"#),
        row("f", r#""every": 10, "period": "minutes", "expires": "2026-01-01 00:00:00""#),
    ];
    let imported = django::read(&rows, None, NOW);
    let expected = [
        r#"{"name":"a","task":"t","args":[],"kwargs":{},"at":"2026-11-20T12:10:00.000000Z"}"#,
        r#"{"name":"b","task":"t","args":[],"kwargs":{},"at":"2026-11-21T00:30:00.000000Z"}"#,
        "c: it is a one-off task and has run",
        "d: it is over: its one time has passed",
        r#"{"name":"e","task":"t","args":[],"kwargs":{},"expires":60,"every":600,"ends_at":"2027-01-01T00:00:00Z"}"#,
        "f: it is over: its end has passed",
    ];
    assert_eq!(shown(&imported), expected);
    assert_eq!(imported[0].notes, ["runs once, at its next time: it is a one-off task"]);
}
