//! Imports schedules of other beats with the binary (row B2).

use std::process::Command;

use serde_json::Value;

use crate::harness::celery::root;
use crate::harness::gateway::run;
use crate::harness::postgres::{self, cluster};
use crate::harness::process::folder;
use crate::harness::{Redis, RedisOptions};

/// Standard output of `taskgate schedules import …`.
fn import(arguments: &[&str], database: &str, code: i32) -> String {
    let done = run(&[&["schedules", "import"], arguments].concat(), &[("DATABASE_URL", database)]);
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(code), "{output}{}", String::from_utf8_lossy(&done.stderr));
    output
}

fn schedules(database: &str) -> Vec<(String, Value)> {
    let rows = postgres::query(database, "select name || '|' || document from taskgate.schedule order by name");
    rows.lines()
        .map(|row| {
            let (name, document) = row.split_once('|').expect("two columns");
            (name.to_owned(), serde_json::from_str(document).expect("JSON"))
        })
        .collect()
}

/// The program between the quotes of the documented one-liner.
fn one_liner() -> String {
    let page = std::fs::read_to_string(root().join("docs/schedules.md")).expect("the page is there");
    let (_, rest) = page.split_once("python -c '").expect("the one-liner");
    rest.split_once("' > beat.json").expect("its end").0.to_owned()
}

const APP: &str = r#"
from datetime import timedelta
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule

class Solar(BaseSchedule):
    def __repr__(self):
        return "<solar: sunrise>"

app = Celery("proj")
app.conf.timezone = "Asia/Seoul"
app.conf.beat_schedule = {
    "crawl every 2h": {"task": "tasks.crawl", "schedule": crontab(minute=0, hour="*/2"), "args": ("봉사",),
                       "options": {"queue": "crawl", "priority": 1}},
    "weekday": {"task": "tasks.report", "schedule": crontab(minute={0, 30}, hour="9-18", day_of_week="mon-fri")},
    "minute": {"task": "tasks.beat", "schedule": timedelta(minutes=1), "kwargs": {"n": 1}},
    "seconds": {"task": "tasks.beat", "schedule": 30.0},
    "object": {"task": "tasks.beat", "schedule": schedule(run_every=timedelta(hours=2))},
    "sunrise": {"task": "tasks.beat", "schedule": Solar()},
}
"#;

#[test]
fn celerys_beat_schedule_comes_through_the_documented_one_liner() {
    let directory = folder("import");
    std::fs::create_dir_all(directory.join("proj")).expect("the folder is ours");
    std::fs::write(directory.join("proj/__init__.py"), "").expect("the folder is ours");
    std::fs::write(directory.join("proj/celery.py"), APP).expect("the folder is ours");
    let python = root().join(".venv/celery-latest/bin/python");
    let dump = Command::new(python).args(["-c", &one_liner()]).current_dir(&directory).output().expect("python starts");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let file = directory.join("beat.json");
    std::fs::write(&file, dump.stdout).expect("the folder is ours");
    let file = file.to_string_lossy().into_owned();
    let database = cluster().migrated_database();

    let shown = import(&[&file], &database, 1);
    assert!(shown.contains("would create") && shown.contains("nothing was written"), "{shown}");
    assert!(shown.contains("cannot") && shown.contains("sunrise"), "{shown}");
    assert_eq!(schedules(&database), []);

    import(&[&file, "--apply"], &database, 1);
    let found = schedules(&database);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["crawl-every-2h", "minute", "object", "seconds", "weekday"]);
    assert_eq!((&found[0].1["cron"], &found[0].1["timezone"]), (&"0 */2 * * *".into(), &"Asia/Seoul".into()));
    assert_eq!((&found[0].1["args"], &found[0].1["queue"]), (&serde_json::json!(["봉사"]), &"crawl".into()));
    assert_eq!((&found[1].1["every"], &found[2].1["every"]), (&60.0.into(), &7200.0.into()));
    let minutes = found[4].1["cron"].as_str().expect("a text");
    assert!(minutes == "0,30 9-18 * * mon-fri" || minutes == "30,0 9-18 * * mon-fri", "{minutes}");

    let again = import(&[&file, "--apply"], &database, 1);
    assert_eq!(again.matches("exists").count(), 5, "{again}");
}

#[tokio::test]
async fn redbeats_keys_are_read() {
    let redis = Redis::start(RedisOptions::default());
    let entry = r#"{"name": "a", "task": "t", "args": [1], "kwargs": {}, "options": {}, "enabled": true,
        "schedule": {"__type__": "crontab", "minute": "30", "hour": "4", "day_of_week": "*", "day_of_month": "*", "month_of_year": "*"}}"#;
    let _: i64 = redis.command(0, &["HSET", "redbeat:a", "definition", entry, "meta", "{}"]);
    let _: i64 = redis.command(0, &["HSET", "celery-other", "definition", entry]);
    let _: i64 = redis.command(0, &["ZADD", "redbeat::schedule", "1", "redbeat:a"]);
    let database = cluster().migrated_database();
    let url = redis.url(0);
    tokio::task::spawn_blocking(move || {
        import(&[&url, "--apply", "--timezone", "Asia/Seoul"], &database, 0);
        let found = schedules(&database);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].1["cron"], &found[0].1["timezone"]), (&"30 4 * * *".into(), &"Asia/Seoul".into()));
    })
    .await
    .expect("the assertions hold");
}

/// The tables as Django's migrations of django-celery-beat 2.8 make them, without what nobody reads.
const TABLES: &str = "
create table django_celery_beat_crontabschedule (id integer primary key, minute varchar(240) not null, hour varchar(96) not null,
    day_of_week varchar(64) not null, day_of_month varchar(124) not null, month_of_year varchar(64) not null, timezone varchar(63) not null);
create table django_celery_beat_intervalschedule (id integer primary key, every integer not null, period varchar(24) not null);
create table django_celery_beat_clockedschedule (id integer primary key, clocked_time timestamp with time zone not null);
create table django_celery_beat_periodictask (id integer primary key, name varchar(200) not null, task varchar(200) not null,
    args text not null, kwargs text not null, queue varchar(200), exchange varchar(200), routing_key varchar(200), headers text not null,
    priority integer, expires timestamp with time zone, expire_seconds integer, one_off boolean not null, enabled boolean not null,
    start_time timestamp with time zone, crontab_id integer, interval_id integer, solar_id integer, clocked_id integer,
    total_run_count integer not null);
insert into django_celery_beat_crontabschedule values (1, '0', '9', '*', '*', '*', 'Asia/Seoul');
insert into django_celery_beat_intervalschedule values (1, 10, 'minutes');
insert into django_celery_beat_clockedschedule values (1, '2099-01-01 00:00:00');
insert into django_celery_beat_periodictask values
    (1, 'daily', 'tasks.report', '[1]', '{\"a\": 2}', 'reports', null, null, '{}', 3, null, null, false, true, null, 1, null, null, null, 7),
    (2, 'often', 'tasks.beat', '[]', '{}', null, null, null, '{}', null, null, 30, false, false, null, null, 1, null, null, 0),
    (3, 'once', 'tasks.beat', '[]', '{}', null, null, null, '{}', null, null, null, true, true, null, null, null, null, 1, 0),
    (4, 'soon', 'tasks.beat', '[]', '{}', null, null, null, '{}', null, null, null, true, true, null, null, 1, null, null, 0),
    (5, 'until', 'tasks.beat', '[]', '{}', null, null, null, '{}', null, '2099-01-01 00:00:00', null, false, true, null, null, 1, null, null, 9);
";

fn check_django(database: &str) {
    let found = schedules(database);
    assert_eq!(found.len(), 5);
    assert_eq!((&found[0].1["cron"], &found[0].1["timezone"]), (&"0 9 * * *".into(), &"Asia/Seoul".into()));
    assert_eq!((&found[0].1["queue"], &found[0].1["priority"]), (&"reports".into(), &3.into()));
    assert_eq!((&found[1].1["every"], &found[1].1["expires"]), (&600.into(), &30.into()));
    assert!(found[2].1["at"].as_str().expect("a text").starts_with("2099-01-01T00:00:00"), "{}", found[2].1);
    assert!(found[3].1["at"].is_string() && found[3].1["every"].is_null(), "a one-off interval: {}", found[3].1);
    let ends_at = found[4].1["ends_at"].as_str().expect("a text");
    assert!(ends_at.starts_with("2099-01-01T00:00:00") && found[4].1["expires"].is_null(), "{}", found[4].1);
    let paused = postgres::query(database, "select name from taskgate.schedule where paused");
    assert_eq!(paused, "often");
}

#[test]
fn django_celery_beat_is_read_from_postgresql() {
    let theirs = cluster().empty_database();
    postgres::query(&theirs, TABLES);
    let ours = cluster().migrated_database();
    import(&[&theirs, "--apply"], &ours, 0);
    check_django(&ours);
}

#[test]
fn django_celery_beat_is_read_from_sqlite() {
    let file = folder("django").join("db.sqlite3");
    let program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
    let made = Command::new("python3").args(["-c", program]).arg(&file).arg(TABLES).status().expect("python starts");
    assert!(made.success());
    let ours = cluster().migrated_database();
    import(&[&format!("sqlite://{}", file.display()), "--apply"], &ours, 0);
    check_django(&ours);
}
