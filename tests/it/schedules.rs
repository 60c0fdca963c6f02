//! The timetable over HTTP, fired by real gateways (rows B1, B2, B3; promise P7).

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Answer, Gateway, Http, Stopwatch, eventually, postgres, turns};

fn without_worker() -> Options {
    Options { without_worker: true, ..Options::default() }
}

/// A name of the test's own: the environment is shared.
fn name(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

async fn create(http: &Http, document: Value) -> Value {
    http.post("/v1/schedules", &document).await.expect(201)
}

async fn call(http: &Http, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    http.send(method, path, &all, Some(body.to_string().into_bytes())).await
}

async fn runs(http: &Http, name: &str) -> Vec<Value> {
    let page = http.get(&format!("/v1/schedules/{name}/runs?limit=500")).await.expect(200);
    page["runs"].as_array().expect("a list").clone()
}

/// Waits until so many runs have this outcome.
async fn with_outcome(http: &Http, name: &str, outcome: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} runs of {name} are {outcome}"), async || {
        let found: Vec<Value> = runs(http, name).await.into_iter().filter(|run| run["outcome"] == outcome).collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value} is no time")).parse().expect("RFC 3339")
}

fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

/// Problem's first place.
fn place(problem: &Value) -> (&str, &str) {
    let first = &problem["errors"][0];
    (first["pointer"].as_str().unwrap_or_default(), first["detail"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_schedule_is_written_read_changed_and_deleted() {
    let env = Harness::shared();
    let name = name("crud");
    let document = json!({"name": name, "task": "demo.add", "args": [2, 3], "cron": "0 */2 * * *", "timezone": "Asia/Seoul",
        "priority": 1, "labels": {"team": "crawl"}});
    let answer = env.http.post("/v1/schedules", &document).await;
    assert_eq!(answer.header("location"), Some(&*format!("/v1/schedules/{name}")));
    let etag = answer.header("etag").expect("an ETag").to_owned();
    let written = answer.expect(201);
    for (member, value) in document.as_object().unwrap() {
        assert_eq!(&written[member], value, "{member}");
    }
    assert_eq!(
        (&written["paused"], &written["catch_up"], &written["overlap"]),
        (&json!(false), &json!("last"), &json!("allow"))
    );
    assert_eq!(written["last_run_at"], Value::Null);
    let path = format!("/v1/schedules/{name}");
    let read = env.http.get(&path).await;
    assert_eq!(read.header("etag"), Some(&*etag));
    assert_eq!(read.expect(200), written);
    assert_eq!(env.http.post("/v1/schedules", &document).await.expect(409)["type"], "/problems/name-taken");

    let patched =
        call(&env.http, Method::PATCH, &path, &[("if-match", &etag)], json!({"every": 3600, "args": [1, 1]})).await;
    let newer = patched.header("etag").expect("an ETag").to_owned();
    let patched = patched.expect(200);
    assert_eq!((&patched["every"], patched.get("cron"), &patched["args"]), (&json!(3600), None, &json!([1, 1])));
    assert_ne!(newer, etag);
    let lost = call(&env.http, Method::PATCH, &path, &[("if-match", &etag)], json!({"every": 60})).await.expect(412);
    assert_eq!(lost["type"], "/problems/precondition-failed");
    let lost = call(&env.http, Method::PUT, &path, &[("if-match", &etag)], document.clone()).await;
    assert_eq!(lost.status, 412);
    let put = call(&env.http, Method::PUT, &path, &[("if-match", &newer)], written.clone()).await.expect(200);
    assert_eq!((&put["cron"], put.get("every")), (&json!("0 */2 * * *"), None));

    let listed = env.http.get("/v1/schedules?limit=500").await.expect(200);
    assert!(listed["schedules"].as_array().unwrap().iter().any(|one| one["name"] == name.as_str()));
    assert_eq!(call(&env.http, Method::DELETE, &path, &[("if-match", &etag)], json!({})).await.status, 412);
    assert_eq!(env.http.send(Method::DELETE, &path, &[], None).await.status, 204);
    assert_eq!(env.http.get(&path).await.expect(404)["type"], "/problems/schedule-not-found");
    assert_eq!(env.http.send(Method::DELETE, &path, &[], None).await.status, 404);
}

#[tokio::test]
async fn put_creates_what_is_not_there_and_only_that_when_asked() {
    let env = Harness::shared();
    let path = format!("/v1/schedules/{}", name("put"));
    let document = json!({"task": "demo.add", "args": [1, 1], "every": 3600});
    let create_only = [("if-none-match", "*")];
    assert_eq!(call(&env.http, Method::PUT, &path, &[("if-match", "\"1-x\"")], document.clone()).await.status, 412);
    assert_eq!(call(&env.http, Method::PUT, &path, &create_only, document.clone()).await.status, 201);
    assert_eq!(call(&env.http, Method::PUT, &path, &create_only, document.clone()).await.status, 412);
    let other_name = json!({"name": "other", "task": "demo.add", "every": 5});
    assert_eq!(place(&call(&env.http, Method::PUT, &path, &[], other_name).await.expect(422)).0, "/name");
}

#[tokio::test]
async fn a_repeated_creation_with_the_same_key_is_harmless() {
    let env = Harness::shared();
    let (name, key) = (name("key"), name("idempotency"));
    let headers = [("idempotency-key", &*key)];
    let document = json!({"name": name, "task": "demo.add", "args": [1, 1], "every": 3600});
    let first = env.http.post_with("/v1/schedules", &headers, &document).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let second = env.http.post_with("/v1/schedules", &headers, &document).await;
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.expect(201), second.expect(201));
    let other = json!({"name": name, "task": "demo.add", "args": [2, 2], "every": 3600});
    assert_eq!(env.http.post_with("/v1/schedules", &headers, &other).await.status, 422);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_place() {
    let env = Harness::start(&Options { config: "submit.allow = ['demo.*']".into(), ..without_worker() });
    let cases = [
        (json!({"task": "demo.add", "cron": "0 25 * * *"}), "/cron", "hour: 25 is out of range: allowed are 0-23"),
        (json!({"task": "demo.add", "cron": "* * * * funday"}), "/cron", "day_of_week"),
        (json!({"task": "demo.add", "every": 60, "timezone": "Asia/Soul"}), "/timezone", "Asia/Seoul"),
        (json!({"task": "demo.add", "every": 0}), "/every", "at least 1"),
        (
            json!({"task": "demo.add", "every": 60, "starts_at": in_seconds(60), "ends_at": in_seconds(30)}),
            "/ends_at",
            "before",
        ),
        (json!({"task": "demo.add", "at": in_seconds(-60)}), "/at", "past"),
        (json!({"task": "os.system", "every": 60}), "/task", "neither in the catalog nor allowed"),
        (json!({"chain": [{"task": "demo.add"}, {"task": "os.system"}], "every": 60}), "/chain/1/task", "allowed"),
        (json!({"task": "demo.add", "every": 60, "cron": "@daily"}), "/every", "cannot stand together"),
        (json!({"task": "demo.add", "every": 60, "catchup": "all"}), "/catchup", "did you mean catch_up"),
        (json!({"task": "demo.add", "every": 60, "name": "a b"}), "/name", "characters"),
        (json!({"task": "demo.add", "every": 60, "name": null}), "/name", "required"),
    ];
    for (mut document, pointer, detail) in cases {
        if document.get("name").is_none() {
            document["name"] = json!("n");
        }
        let problem = env.http.post("/v1/schedules", &document).await.expect(422);
        let (found, told) = place(&problem);
        assert_eq!(found, pointer, "{problem}");
        assert!(told.contains(detail), "{problem}");
    }
    assert_eq!(env.http.get("/v1/schedules/n").await.status, 404);
    for path in ["/v1/schedules/none", "/v1/schedules/none/runs", "/v1/schedules/none/preview"] {
        assert_eq!(env.http.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_interval_fires_its_task_and_says_so() {
    let env = Harness::shared();
    let name = name("every");
    let made = create(&env.http, json!({"name": name, "task": "demo.add", "args": [2, 3], "every": 1})).await;
    let first = time(&made["created_at"]) + jiff::SignedDuration::from_secs(1);
    let fired = with_outcome(&env.http, &name, "fired", 3).await;
    assert_eq!(time(&fired.last().unwrap()["scheduled_at"]), first, "the first tick comes one interval after creation");
    let ticks: Vec<_> = fired.iter().rev().map(|run| time(&run["scheduled_at"])).collect();
    for pair in ticks.windows(2) {
        assert_eq!(pair[1].duration_since(pair[0]), jiff::SignedDuration::from_secs(1));
    }
    let id = fired[0]["task_id"].as_str().expect("an id");
    assert_eq!(env.finished(id).await["result"], 5);
    assert_eq!(env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["schedule"], name.as_str());
    let listed = env.http.get(&format!("/v1/tasks?schedule={name}&limit=500")).await.expect(200);
    assert!(listed["tasks"].as_array().unwrap().len() >= 3);
    env.http.send(Method::DELETE, &format!("/v1/schedules/{name}"), &[], None).await;
}

#[tokio::test]
async fn a_canvas_is_scheduled_as_a_whole() {
    let env = Harness::shared();
    let name = name("canvas");
    let chord = json!({"header": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}],
        "body": {"task": "demo.xsum"}});
    create(&env.http, json!({"name": name, "chord": chord, "at": in_seconds(1)})).await;
    let fired = with_outcome(&env.http, &name, "fired", 1).await;
    assert_eq!(env.finished(fired[0]["task_id"].as_str().unwrap()).await["result"], 6);
    let read = env.http.get(&format!("/v1/schedules/{name}")).await.expect(200);
    assert_eq!((&read["next_run_at"], &read["last_task_id"]), (&Value::Null, &fired[0]["task_id"]));
}

#[tokio::test]
async fn run_now_leaves_the_timetable_and_pause_stops_it() {
    let env = Harness::shared();
    let name = name("now");
    let path = format!("/v1/schedules/{name}");
    let made = create(&env.http, json!({"name": name, "task": "demo.add", "args": [4, 4], "every": 3600})).await;
    let answer = env.http.post_with(&format!("{path}/run"), &[("prefer", "wait=60")], &json!({})).await.expect(200);
    assert_eq!(answer["result"], 8);
    let read = env.http.get(&path).await.expect(200);
    assert_eq!(read["next_run_at"], made["next_run_at"]);
    assert_eq!(read["last_task_id"], answer["task_id"]);
    let run = &runs(&env.http, &name).await[0];
    assert_eq!((&run["outcome"], &run["reason"]), (&json!("fired"), &json!("run by hand")));
    let key = [("idempotency-key", &*name)];
    let once = env.http.post_with(&format!("{path}/run"), &key, &json!({})).await.expect(202);
    let again = env.http.post_with(&format!("{path}/run"), &key, &json!({})).await.expect(202);
    assert_eq!((once["task_id"].clone(), runs(&env.http, &name).await.len()), (again["task_id"].clone(), 2));

    let paused = env.http.send(Method::POST, &format!("{path}/pause"), &[], None).await.expect(200);
    assert_eq!((&paused["paused"], &paused["next_run_at"]), (&json!(true), &Value::Null));
    let resumed = env.http.send(Method::POST, &format!("{path}/resume"), &[], None).await.expect(200);
    assert_eq!((&resumed["paused"], &resumed["next_run_at"]), (&json!(false), &made["next_run_at"]));
    assert_eq!(env.http.post(&format!("{path}/pause"), &json!({"x": 1})).await.status, 422);
}

#[tokio::test]
async fn a_preview_shows_the_gap_and_the_repeated_hour_with_offsets() {
    let env = Harness::shared();
    let preview = async |document: Value, n: usize| {
        let name = name("preview");
        let mut document = document;
        document["name"] = json!(name);
        document["task"] = json!("demo.add");
        document["timezone"] = json!("Europe/Berlin");
        create(&env.http, document).await;
        let ticks = env.http.get(&format!("/v1/schedules/{name}/preview?n={n}")).await.expect(200)["ticks"].clone();
        ticks.as_array().unwrap().iter().map(|tick| tick.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let spring = preview(json!({"cron": "30 2 * * *", "starts_at": "2099-03-28T00:00:00Z"}), 3).await;
    assert_eq!(spring, ["2099-03-28T02:30:00+01:00", "2099-03-29T03:00:00+02:00", "2099-03-30T02:30:00+02:00"]);
    let fixed = preview(json!({"cron": "30 2 25 10 *", "starts_at": "2099-10-24T23:00:00Z"}), 2).await;
    assert_eq!(fixed, ["2099-10-25T02:30:00+02:00", "2100-10-25T02:30:00+02:00"]);
    let wild = preview(json!({"cron": "30 * * * *", "starts_at": "2099-10-25T00:00:00Z"}), 3).await;
    assert_eq!(wild, ["2099-10-25T02:30:00+02:00", "2099-10-25T02:30:00+01:00", "2099-10-25T03:30:00+01:00"]);
    let bad = env.http.get("/v1/schedules/x/preview?n=0").await;
    assert_eq!(bad.status, 400);
}

/// A second replica on the same ledger and Redis.
fn replica(env: &Harness, extra: &str) -> Gateway {
    Gateway::serve(&env.database, &env.redis.url(0), &env.redis.url(1), extra)
}

#[tokio::test]
async fn two_gateways_fire_each_tick_once_and_a_killed_one_skips_none() {
    let mut env = Harness::start(&without_worker());
    let mut second = replica(&env, "");
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    for name in &names {
        create(&env.http, json!({"name": name, "task": "demo.add", "args": [1, 1], "every": 1, "catch_up": "all"}))
            .await;
    }
    with_outcome(&env.http, &names[0], "fired", 2).await;
    let http = second.http();
    env.gateway.kill();
    with_outcome(&http, &names[0], "fired", 4).await;
    second.kill();
    tokio::time::sleep(Duration::from_millis(1500)).await; // an outage of known length, not a wait for a fact
    second.restart();
    let http = second.http();
    with_outcome(&http, &names[0], "fired", 9).await;
    for name in &names {
        http.send(Method::POST, &format!("/v1/schedules/{name}/pause"), &[], None).await.expect(200);
        let fired = runs(&http, name).await;
        assert!(fired.iter().all(|run| run["outcome"] == "fired"), "{fired:?}");
        let ticks: Vec<_> = fired.iter().rev().map(|run| time(&run["scheduled_at"])).collect();
        for pair in ticks.windows(2) {
            assert_eq!(pair[1].duration_since(pair[0]), jiff::SignedDuration::from_secs(1), "{name}: {ticks:?}");
        }
        let tasks = http.get(&format!("/v1/tasks?schedule={name}&limit=500")).await.expect(200);
        let ids: HashSet<&str> =
            tasks["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap()).collect();
        assert_eq!(ids, fired.iter().map(|run| run["task_id"].as_str().unwrap()).collect());
    }
}

#[tokio::test]
async fn after_an_outage_catch_up_decides() {
    let mut env = Harness::start(&without_worker());
    for policy in ["none", "last", "all"] {
        let document = json!({"name": policy, "task": "demo.add", "args": [1, 1], "every": 2, "catch_up": policy});
        create(&env.http, document).await;
    }
    with_outcome(&env.http, "all", "fired", 1).await;
    env.gateway.kill();
    // A database with ticks of long ago simulates a long outage.
    let hour = 3_600_000_000_i64;
    postgres::query(
        &env.database,
        &format!(
            "update taskgate.schedule set anchor_at = anchor_at - {hour}, next_run_at = next_run_at - {hour}, \
         due_at = due_at - {hour}, last_tick_at = null"
        ),
    );
    env.gateway.restart();
    let http = env.gateway.http();
    let missed = with_outcome(&http, "none", "missed", 400).await;
    assert!(missed.iter().any(|run| run["reason"].as_str().unwrap().contains("catch_up is none")), "{missed:?}");
    let caught_up = async |name: &str| {
        with_outcome(&http, name, "missed", 400).await;
        runs(&http, name).await.into_iter().filter(|run| run["outcome"] == "fired").count()
    };
    // What was fired before the outage is one or two; the page shows the newest 500.
    let all = with_outcome(&http, "all", "fired", 90).await;
    assert!(
        all.iter()
            .filter(|run| time(&run["fired_at"]).duration_since(time(&run["scheduled_at"])).as_secs() > 5)
            .count()
            > 80
    );
    assert!(caught_up("last").await < 20);
}

#[tokio::test]
async fn a_clock_that_steps_back_fires_nothing_again() {
    let env = Harness::start(&without_worker());
    let document = json!({"name": "a", "task": "demo.add", "args": [1, 1], "cron": "* * * * *"});
    create(&env.http, document).await;
    // As if the clock had been ten minutes ahead when it fired last, and was set right since.
    let ahead = 600_000_000_i64;
    postgres::query(
        &env.database,
        &format!(
            "update taskgate.schedule set last_tick_at = next_run_at + {ahead}, \
         due_at = next_run_at + {ahead} + 60000000, next_run_at = next_run_at + {ahead} + 60000000"
        ),
    );
    let ahead = env.http.get("/v1/schedules/a").await.expect(200)["next_run_at"].clone();
    for patch in [json!({"cron": "*/1 * * * *"}), json!({"paused": true}), json!({"paused": false})] {
        call(&env.http, Method::PATCH, "/v1/schedules/a", &[], patch).await.expect(200);
    }
    assert_eq!(env.http.get("/v1/schedules/a").await.expect(200)["next_run_at"], ahead);
    let first = env.http.get("/v1/schedules/a/preview?n=1").await.expect(200)["ticks"][0].clone();
    assert_eq!(time(&first), time(&ahead));
    let back =
        postgres::query(&env.database, "select count(*) from taskgate.schedule where next_run_at <= last_tick_at");
    assert_eq!((back.as_str(), runs(&env.http, "a").await.len()), ("0", 0));
}

#[tokio::test]
async fn overlap_says_what_becomes_of_a_tick_while_the_task_before_runs() {
    let env = Harness::start(&without_worker());
    for policy in ["allow", "skip", "replace"] {
        let document = json!({"name": policy, "task": "demo.add", "args": [1, 1], "every": 1, "overlap": policy});
        create(&env.http, document).await;
    }
    // No worker consumes, so the first task never ends.
    let skipped = with_outcome(&env.http, "skip", "skipped", 2).await;
    let fired = with_outcome(&env.http, "skip", "fired", 1).await;
    assert_eq!(fired.len(), 1);
    assert!(skipped[0]["reason"].as_str().unwrap().contains(fired[0]["task_id"].as_str().unwrap()), "{skipped:?}");
    let replaced = with_outcome(&env.http, "replace", "fired", 3).await;
    let oldest = replaced.last().unwrap()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(env.in_phase(&oldest, "revoked").await["status"], "REVOKED");
    with_outcome(&env.http, "allow", "fired", 3).await;
    let waiting = env.http.get("/v1/tasks?schedule=allow&limit=500").await.expect(200);
    assert!(waiting["tasks"].as_array().unwrap().iter().all(|task| task["phase"] != "revoked"), "{waiting}");
}

#[tokio::test]
async fn the_configuration_seeds_once_and_later_edits_win() {
    let seeds = "[[schedules]]\nname = 'kept'\ntask = 'demo.add'\nargs = [1, 1]\ncron = '0 4 * * *'\n\
         [[schedules]]\nname = 'gone'\ntask = 'demo.add'\nevery = 3600\n";
    let mut env = Harness::start(&Options { config: seeds.into(), ..without_worker() });
    let kept = eventually("the seed is there", async || {
        let answer = env.http.get("/v1/schedules/kept").await;
        (answer.status == 200).then(|| answer.expect(200))
    })
    .await;
    assert_eq!(kept["cron"], "0 4 * * *");
    call(&env.http, Method::PATCH, "/v1/schedules/kept", &[], json!({"cron": "0 5 * * *"})).await.expect(200);
    assert_eq!(env.http.send(Method::DELETE, "/v1/schedules/gone", &[], None).await.status, 204);
    env.gateway.restart();
    env.gateway.wait_for_log("schedule kept differs from the configuration");
    let http = env.gateway.http();
    assert_eq!(http.get("/v1/schedules/kept").await.expect(200)["cron"], "0 5 * * *");
    assert_eq!(http.get("/v1/schedules/gone").await.status, 404);
}

/// How late they are is measured by `cargo bench --bench gateway -- beat`; here the bound only shows that they fire together.
#[tokio::test]
async fn a_thousand_in_the_same_second_fire_together() {
    let _turn = turns::alone();
    let env = Harness::start(&without_worker());
    let clients = (0..10).map(|client| {
        let http = env.http.clone();
        async move {
            for number in 0..100 {
                let name = format!("s{client}-{number}");
                create(&http, json!({"name": name, "task": "demo.add", "args": [1, 1], "every": 3600})).await;
            }
        }
    });
    futures_util::future::join_all(clients).await;
    // However long that took: all have the same tick, some seconds from now.
    postgres::query(
        &env.database,
        "update taskgate.schedule set anchor_at = soon.at - 3600000000, next_run_at = soon.at, due_at = soon.at \
         from (select (extract(epoch from now()) * 1000000)::bigint + 4000000 as at) as soon where name ~ '^s[0-9]-[0-9]+$'",
    );
    let watch = Stopwatch::start();
    let fired = within(DEADLINE * 3, "all thousand are in Redis", async || {
        let late = postgres::query(
            &env.database,
            "select count(*), percentile_disc(0.99) within group (order by r.fired_at - r.scheduled_at), \
             percentile_disc(0.99) within group (order by t.queued_at - r.scheduled_at) \
             from taskgate.schedule_run r join taskgate.tasks t on t.task_id = r.task_id where t.queued_at is not null \
             and t.schedule ~ '^s[0-9]-[0-9]+$'",
        );
        late.starts_with("1000|").then_some(late)
    })
    .await;
    let late: Vec<i64> = fired.split('|').skip(1).map(|text| text.parse().expect("a number")).collect();
    let bound = 5_000_000.0 * watch.slowness();
    assert!((late[0] as f64) < bound, "p99 lateness is {} µs, {bound} µs are allowed", late[0]);
}
