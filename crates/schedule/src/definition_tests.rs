//! Tests of valid documents, and of the messages about invalid ones.

use super::decide::CatchUp;
use super::definition::{Definition, Overlap, check_name};
use super::timetable::Rhythm;
use celery::task::signature::Limits;
use celery::task::{Signature, TaskId};

fn parse(text: &str) -> Result<Definition, Vec<(String, String)>> {
    Definition::parse(text, Limits::default())
        .map_err(|found| found.into_iter().map(|invalid| (invalid.pointer, invalid.detail)).collect())
}

fn refused(text: &str) -> (String, String) {
    let mut found = parse(text).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_schedule_is_a_signature_with_a_timetable() {
    let text = r#"{"task": "tasks.crawl", "args": [12345678901234567890123], "cron": "0 */2 * * *", "timezone": "Asia/Seoul",
        "priority": 1, "overlap": "skip", "jitter": 1.5, "labels": {"a": "b"}}"#;
    let definition = parse(text).unwrap();
    assert_eq!((definition.overlap, definition.catch_up, definition.jitter), (Overlap::Skip, CatchUp::Last, 1_500_000));
    assert!(matches!(&definition.timetable.rhythm, Rhythm::Cron(cron) if cron.as_str() == "0 */2 * * *"));
    let Signature::Task(task) = definition.submission.signature else { panic!("a task") };
    assert_eq!(task.args.get(), "[12345678901234567890123]");
}

#[test]
fn any_canvas_can_be_scheduled_and_its_result_has_the_ticks_id() {
    let id = TaskId::parse("tick").unwrap();
    let result = |text: &str| {
        let mut found = None;
        let submission = parse(text).unwrap().submission_for(id.clone());
        submission.signature.visit(&mut |task| {
            if task.task_id.as_ref() == Some(&id) {
                found = Some(task.task.as_str().to_owned());
            }
        });
        found
    };
    assert_eq!(result(r#"{"task": "a", "every": 60}"#).as_deref(), Some("a"));
    assert_eq!(result(r#"{"chain": [{"task": "a"}, {"task": "b"}], "every": 60}"#).as_deref(), Some("b"));
    assert_eq!(
        result(r#"{"chord": {"header": [{"task": "a"}], "body": {"task": "c"}}, "every": 60}"#).as_deref(),
        Some("c")
    );
    assert_eq!(result(r#"{"group": [{"task": "a"}, {"task": "b"}], "every": 60}"#).as_deref(), Some("a"));
}

#[test]
fn a_wrong_crontab_names_its_field() {
    let (pointer, detail) = refused(r#"{"task": "a", "cron": "0 25 * * *"}"#);
    assert_eq!((pointer.as_str(), detail.as_str()), ("/cron", "hour: 25 is out of range: allowed are 0-23"));
}

#[test]
fn there_is_exactly_one_rhythm() {
    assert_eq!(refused(r#"{"task": "a"}"#).0, "/cron");
    assert_eq!(
        refused(r#"{"task": "a", "cron": "@daily", "every": 5}"#),
        ("/every".into(), "cannot stand together with cron".into())
    );
}

#[test]
fn an_interval_is_at_least_a_second() {
    for wrong in ["0", "0.5", "-1", "\"60\"", "1e30"] {
        assert_eq!(refused(&format!(r#"{{"task": "a", "every": {wrong}}}"#)).0, "/every");
    }
    assert_eq!(parse(r#"{"task": "a", "every": 1.5}"#).unwrap().timetable.rhythm, Rhythm::Every(1_500_000));
}

#[test]
fn an_unknown_zone_gets_the_nearest_names() {
    let detail = |zone: &str| refused(&format!(r#"{{"task": "a", "every": 5, "timezone": "{zone}"}}"#)).1;
    assert_eq!(detail("Asia/Soul"), "\"Asia/Soul\" is not an IANA time zone; did you mean Asia/Seoul?");
    assert!(detail("Seoul").contains("Asia/Seoul"), "{}", detail("Seoul"));
    assert!(detail("Europe/Zzyzx").contains("is not an IANA time zone"));
}

#[test]
fn an_end_before_its_start_is_refused() {
    let text =
        r#"{"task": "a", "every": 5, "starts_at": "2026-11-21T00:00:00Z", "ends_at": "2026-11-20T00:00:00+09:00"}"#;
    assert_eq!(refused(text), ("/ends_at".into(), "is before starts_at".into()));
}

#[test]
fn every_mistake_is_found_in_one_reading() {
    let text = r#"{"tusk": "a", "crom": "x", "every": 0, "overlap": "never", "catch_up": 1, "jitter": 7200, "at": 5, "timezone": "UTC"}"#;
    let mut pointers: Vec<String> = parse(text).unwrap_err().into_iter().map(|(pointer, _)| pointer).collect();
    pointers.sort();
    assert_eq!(pointers, ["/at", "/catch_up", "/crom", "/jitter", "/overlap", "/task", "/tusk"]);
    assert_eq!(parse("[]").unwrap_err()[0].1, "must be an object");
    assert!(parse("{").unwrap_err()[0].1.starts_with("is not JSON"));
}

#[test]
fn a_misspelt_member_is_guessed() {
    assert_eq!(refused(r#"{"task": "a", "every": 5, "catchup": "last"}"#).1, "unknown field; did you mean catch_up?");
}

#[test]
fn a_tick_has_an_id_of_its_own() {
    assert_eq!(refused(r#"{"task": "a", "task_id": "x", "every": 5}"#).0, "/task_id");
}

#[test]
fn names_fit_into_an_address() {
    for good in ["a", "college-volunteer", "A.b_c-9", "공지-수집", "ежедневно", "दैनिक-रिपोर्ट", &"é".repeat(100)]
    {
        assert!(check_name(good).is_ok());
    }
    for bad in ["", "a/b", "@a", "a b", "a\u{3000}b", "a\u{202e}b", "a%b", "..", &"x".repeat(101)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
