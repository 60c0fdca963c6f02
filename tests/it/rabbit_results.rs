//! Results in the fleet's own database: SQLAlchemy's table and that of django-celery-results, written by unmodified Celery workers.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::celery::{packages, root};
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::On;
use crate::harness::{CeleryOptions, Latch, Version, eventually, postgres};

/// As SQLAlchemy names the database.
fn sqlalchemy(database: &str) -> String {
    let (_, rest) = database.split_once("://").expect("a URL");
    format!("db+postgresql+psycopg2://{rest}")
}

fn worker(version: Version, database: &str, settings: Value) -> CeleryOptions {
    let environment = vec![
        ("PYTHONPATH".to_owned(), packages("databases")),
        ("CELERY_RESULT_BACKEND".to_owned(), sqlalchemy(database)),
    ];
    CeleryOptions { version, environment, settings, ..CeleryOptions::default() }
}

fn in_database(version: Version, database: &str, settings: Value, config: &str) -> Options {
    Options {
        broker: On::Rabbit,
        results: Some(sqlalchemy(database)),
        celery: worker(version, database, settings),
        config: config.into(),
        ..Options::default()
    }
}

/// Return values of every kind, failures with their tracebacks, chains and groups.
async fn are_read(env: &Lent<Box<Harness>>) {
    let result = env.run("demo.add", json!([2, 3])).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(5)), "{result}");
    let value = json!({"list": [1, 2.5, null, true], "text": "é☃", "large": 1_099_511_627_776_i64});
    assert_eq!(env.run("demo.identity", json!([value])).await["result"], value);
    let failed = env.run("demo.fail", json!(["ValueError", "boom"])).await;
    assert_eq!((&failed["status"], &failed["error"]["type"]), (&json!("FAILURE"), &json!("ValueError")), "{failed}");
    assert!(failed["traceback"].as_str().is_some_and(|text| text.contains("boom")), "{failed}");
    let chain = json!({"tasks": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.mul", "args": [10]}]});
    let chain = env.http.post_once("/chain", &chain).await.expect(202);
    assert_eq!(env.finished(chain["task_id"].as_str().expect("an id")).await["result"], 30);
    let group = json!({"tasks": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]});
    let group = env.http.post_once("/group", &group).await.expect(202);
    assert_eq!(env.finished(group["group_id"].as_str().expect("an id")).await["result"], json!([2, 4]));
}

#[tokio::test]
async fn results_of_celery_of_today_are_read_from_its_database() {
    let database = postgres::cluster().empty_database();
    are_read(&Harness::start(&in_database(Version::Latest, &database, json!({"result_extended": true}), ""))).await;
}

#[tokio::test]
async fn results_that_celery_5_4_pickled_in_its_database_are_read_without_running_them() {
    let database = postgres::cluster().empty_database();
    are_read(&Harness::start(&in_database(Version::Older, &database, json!({}), ""))).await;
}

#[tokio::test]
async fn of_a_fleet_that_pickles_plain_values_are_read_and_the_others_stand_as_bytes() {
    let database = postgres::cluster().empty_database();
    let settings = json!({"result_serializer": "pickle", "result_accept_content": ["pickle", "json"]});
    let env = Harness::start(&in_database(Version::Latest, &database, settings, ""));
    assert_eq!(env.run("demo.add", json!([2, 3])).await["result"], 5);
    let failed = env.run("demo.fail", json!(["ValueError", "boom"])).await;
    assert_eq!((&failed["status"], &failed["error"]["type"]), (&json!("FAILURE"), &json!("ValueError")), "{failed}");
}

#[tokio::test]
async fn results_are_read_from_the_database_of_django() {
    let database = postgres::cluster().empty_database();
    let environment = [
        ("PYTHONPATH", packages("databases")),
        ("CELERY_RESULT_BACKEND", "django-db".to_owned()),
        ("DJANGO_SETTINGS_MODULE", "django_results".to_owned()),
        ("RESULTS_DATABASE", database.clone()),
    ];
    let environment: Vec<_> = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut migrate = Command::new(Version::Latest.python());
    migrate.args(["-m", "django", "migrate", "-v", "0"]).current_dir(root().join("tests/celery_app"));
    let done =
        migrate.envs(environment.iter().cloned()).env("PYTHONPATH", format!("{}:.", packages("databases"))).output();
    let done = done.expect("Python starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // Without this setting django-celery-results stores no traceback.
    let settings = json!({"result_extended": true});
    let celery = CeleryOptions { environment, settings, ..CeleryOptions::default() };
    let config = format!("[backend]\ndatabase_url = '{database}'\n");
    let env = Harness::start(&Options {
        broker: On::Rabbit,
        results: Some("django-db".into()),
        celery,
        config,
        ..Options::default()
    });
    are_read(&env).await;
}

#[tokio::test]
async fn ends_of_workers_without_events_are_found_by_the_poll() {
    let database = postgres::cluster().empty_database();
    let mut options = in_database(Version::Latest, &database, json!({}), "[backend]\npoll = '1s'\n");
    let flags = ["--without-heartbeat", "--without-gossip", "--without-mingle"];
    options.celery.arguments = flags.map(str::to_owned).to_vec();
    options.celery.awaits_events = false;
    let env = Harness::start(&options);
    assert_eq!(env.run("demo.add", json!([2, 3])).await["result"], 5);
}

#[tokio::test]
async fn a_result_that_was_stored_while_no_gateway_ran_is_found_afterwards() {
    let database = postgres::cluster().empty_database();
    let mut env = Harness::start(&in_database(Version::Latest, &database, json!({}), ""));
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args(())).await;
    env.in_phase(&id, "running").await;
    env.gateway.kill();
    latch.open();
    is_stored(&database, &id).await;
    env.gateway.restart();
    assert_eq!(env.finished(&id).await["status"], "SUCCESS");
}

#[tokio::test]
async fn a_task_whose_worker_died_after_it_had_stored_its_result_does_not_run_again() {
    let database = postgres::cluster().empty_database();
    let config = "[sweeper]\nperiod = '500ms'\ngrace = '1s'\nworker_lost_after = '5s'\n[backend]\npoll = '1h'\n\
                  [[tasks]]\nname = 'demo.until'\nrecovery = 'rerun'\n";
    let mut env = Harness::start(&in_database(Version::Latest, &database, json!({}), config));
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args(())).await;
    env.in_phase(&id, "running").await;
    eventually("a heartbeat is heard", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (!workers["workers"][0]["load"].is_null()).then_some(())
    })
    .await;
    // Its end is not reported; then it is killed, and another worker serves its queue.
    env.gateway.kill();
    latch.open();
    is_stored(&database, &id).await;
    env.celery.as_mut().expect("it was started").kill();
    let sql = format!("update celery_taskmeta set status = 'STARTED' where task_id = '{id}'");
    postgres::query(&database, &sql);
    env.gateway.restart();
    env.in_phase(&id, "running").await;
    postgres::query(&database, &sql.replace("STARTED", "SUCCESS"));
    let other = CeleryOptions { hostname: "w2@test".into(), ..worker(Version::Latest, &database, json!({})) };
    env.start_worker(other);
    assert_eq!(env.finished(&id).await["status"], "SUCCESS");
    let history = env.history(&id).await;
    assert!(!history.iter().any(|event| event.to_string().contains("queued again")), "{history:?}");
}

async fn is_stored(database: &str, id: &str) {
    let sql = format!("select count(*) from celery_taskmeta where task_id = '{id}' and status = 'SUCCESS'");
    eventually("the worker has stored the result", async || (postgres::query(database, &sql) == "1").then_some(()))
        .await;
}

#[tokio::test]
async fn an_end_waits_for_its_result_while_the_table_cannot_be_read() {
    let database = postgres::cluster().empty_database();
    // Celery's worker creates the table; the reader starts later.
    let role = format!("reader_{}", database.rsplit('/').next().expect("a name"));
    let read_as = database.replace("postgres@", &format!("{role}@"));
    assert_ne!(read_as, database);
    let options = Options {
        results: Some(sqlalchemy(&read_as)),
        ..in_database(Version::Latest, &database, json!({}), "[backend]\npoll = '1s'\n")
    };
    let env = Harness::start(&options);
    let id = env.submit("demo.add", json!([2, 3])).await;
    is_stored(&database, &id).await;
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_ne!(task["status"], "SUCCESS", "an end without its result: {task}");
    postgres::query(&database, &format!("create role {role} login; grant select on celery_taskmeta to {role}"));
    let result = env.finished(&id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(5)), "{result}");
}

#[tokio::test]
async fn a_chord_is_refused_where_results_are_in_a_database() {
    let database = postgres::cluster().empty_database();
    let options = in_database(Version::Latest, &database, json!({}), "");
    let env = Harness::start(&Options { without_worker: true, ..options });
    let chord = json!({"header": [{"task": "demo.add", "args": [1, 1]}], "body": {"task": "demo.xsum"}});
    let refused = env.http.post_once("/chord", &chord).await.expect(422);
    assert!(refused["errors"].to_string().contains("a database is none"), "{refused}");
}
