//! Tokens that are limited to task names: every operation of the contract, every scope, tasks inside and outside of the pattern, and
//! every way to reach a task. An operation that is not classified here fails the test.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::edge::{Caller, create};
use crate::harness::gateway::run;
use crate::harness::postgres::cluster;
use crate::harness::{Answer, Gateway, Redis, RedisOptions, Stopwatch, eventually};

/// A text in the arguments, labels and names of everything that belongs to others.
const SECRET: &str = "foreign-secret";

/// How an operation is called, and what its caller needs.
#[derive(Clone, Copy)]
enum Kind {
    /// Needs no token.
    Open,
    /// Needs `scope`; concerns the whole fleet, so it is closed to a limited token.
    Fleet(&'static str),
    /// Needs `scope`; its path has the id of a task: another caller's task is as unknown as one that never existed.
    OfTask(&'static str),
    /// Needs `scope`; its path has the name of a schedule.
    OfSchedule(&'static str),
    /// Needs `scope`; shows or changes many tasks: only those that the token sees.
    Many(&'static str),
    /// Submits the tasks that its body names.
    Submits,
}

fn classified(method: &str, path: &str) -> Option<Kind> {
    use Kind::{Fleet, Many, OfSchedule, OfTask, Open, Submits};
    Some(match (method, path) {
        (
            "GET",
            "/v1/session"
            | "/v1/session/login"
            | "/v1/session/callback"
            | "/readyz"
            | "/livez"
            | "/healthz"
            | "/openapi.json"
            | "/problems"
            | "/problems/"
            | "/problems/{slug}",
        ) => Open,
        (_, "/v1/waits/{token}") => Open,
        ("POST" | "DELETE", "/v1/session") => Open,
        ("POST", "/v1/tasks" | "/v1/tasks/batch" | "/chain" | "/group" | "/chord") => Submits,
        ("GET", "/result/{id}" | "/v1/tasks/{id}") => OfTask("read"),
        ("GET", path) if path.starts_with("/v1/tasks/{id}/") => OfTask("read"),
        ("POST", path) if path.starts_with("/v1/tasks/{id}/") => OfTask("control"),
        ("DELETE", "/v1/dead-letters/{id}") | ("POST", "/v1/dead-letters/{id}/requeue") => OfTask("control"),
        ("GET", "/v1/tasks" | "/v1/dead-letters" | "/v1/schedules" | "/v1/events" | "/v1/waits") => Many("read"),
        ("GET", "/v1/stats/throughput" | "/v1/stats/latency" | "/v1/stats/errors" | "/v1/stats/outcomes") => {
            Many("read")
        }
        ("GET" | "DELETE", "/v1/tokens" | "/v1/tokens/{id}" | "/v1/inboxes") => Fleet("admin"),
        ("POST", "/v1/schedule-preview") => Many("read"),
        ("GET", "/v1/limits") => Many("read"),
        ("PUT" | "DELETE", "/v1/limits/{key}") => Many("control"),
        ("POST", "/v1/stream-tickets") | ("GET", "/v1/capabilities") => Many("read"),
        ("DELETE", "/v1/dead-letters") | ("POST", "/v1/dead-letters/requeue" | "/v1/schedules") => Many("control"),
        ("GET", path) if path.starts_with("/v1/bulk") => Many("read"),
        ("POST", path) if path.starts_with("/v1/bulk") => Many("control"),
        ("GET", "/v1/audit") => Fleet("admin"),
        ("GET", path) if path.starts_with("/v1/schedules/{name}") => OfSchedule("read"),
        (_, path) if path.starts_with("/v1/schedules/{name}") => OfSchedule("control"),
        ("GET", path) if path.starts_with("/v1/queues") => Fleet("read"),
        ("POST", path) if path.starts_with("/v1/queues") => Fleet("control"),
        ("GET", "/v1/stats/queues" | "/v1/stats/workers") => Fleet("read"),
        ("GET", "/v1/workers" | "/v1/inspect/{method}" | "/metrics" | "/v1/incidents") => Fleet("read"),
        ("GET", "/v1/incidents/history") => Fleet("read"),
        ("POST", "/v1/control/{command}") => Fleet("control"),
        ("POST" | "DELETE", path) if path.starts_with("/v1/incidents/") => Fleet("control"),
        (_, path) if path.starts_with("/v1/webhooks") => Fleet("admin"),
        // Endpoints of the catalog.
        ("POST", path) if !path.starts_with("/v1/") => Submits,
        _ => return None,
    })
}

/// One gateway with tokens, on PostgreSQL and Redis, without a worker.
struct Guarded {
    gateway: Gateway,
    _redis: Redis,
    database: String,
    admin: String,
}

impl Guarded {
    fn start() -> Self {
        let redis = Redis::start(RedisOptions::default());
        let database = cluster().migrated_database();
        let admin = create(&database, &["--name", "admin", "--scope", "admin"]);
        let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "auth = 'token'\nsubmit.allow = ['*']");
        Self { gateway, _redis: redis, database, admin }
    }

    fn caller(&self, token: &str) -> Caller {
        Caller { http: self.gateway.http(), token: format!("Bearer {token}") }
    }

    fn token(&self, options: &[&str]) -> Caller {
        self.caller(&create(&self.database, options))
    }

    fn admin(&self) -> Caller {
        self.caller(&self.admin)
    }
}

async fn call(caller: &Caller, method: &str, path: &str, body: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let headers = [
        ("authorization", caller.token.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ];
    caller.http.send(method, path, &headers, Some(body.as_bytes().to_vec())).await
}

async fn operations(admin: &Caller) -> Vec<(String, String)> {
    let document = call(admin, "GET", "/openapi.json", "").await.expect(200);
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            all.push((method.to_uppercase(), path.clone()));
        }
    }
    all
}

/// A path with its parameters filled in.
fn filled(path: &str, id: &str, name: &str) -> String {
    let mut filled = path.replace("{id}", id).replace("{name}", name).replace("{slug}", "invalid-request");
    for (parameter, value) in [("{method}", "ping"), ("{command}", "ping"), ("{delivery}", "x"), ("{category}", "job")]
    {
        filled = filled.replace(parameter, value);
    }
    while let Some((start, end)) = filled.find('{').zip(filled.find('}')) {
        filled.replace_range(start..=end, "x");
    }
    filled
}

#[tokio::test]
async fn every_operation_asks_for_its_scope() {
    let guarded = Guarded::start();
    let scopes: BTreeMap<&str, Caller> = ["submit", "read", "control", "admin"]
        .into_iter()
        .map(|scope| (scope, guarded.token(&["--name", &format!("only-{scope}"), "--scope", scope])))
        .collect();
    let nobody = "0199c2a8-0000-7000-8000-000000000001";
    for (method, path) in operations(&guarded.admin()).await {
        let Some(kind) = classified(&method, &path) else {
            panic!("{method} {path} is not classified: say in doors_tokens.rs what it asks of its caller");
        };
        let needed = match kind {
            Kind::Open => continue,
            Kind::Submits => "submit",
            Kind::Fleet(scope) | Kind::OfTask(scope) | Kind::OfSchedule(scope) | Kind::Many(scope) => scope,
        };
        for (scope, caller) in &scopes {
            // Allowed calls are not made here: a stream would not end, a purge would delete messages.
            if *scope == needed || *scope == "admin" {
                continue;
            }
            let answer = call(caller, &method, &filled(&path, nobody, "nobody"), "{}").await;
            assert_eq!(answer.status, 403, "{method} {path} as {scope}: {}", answer.text());
            answer.problem(403, "insufficient-scope");
        }
    }
}

/// Everything that belongs to others, created by the administrator.
struct Foreign {
    /// Tasks and canvases that a limited token may not see.
    ids: Vec<String>,
    /// A task that the token sees, in the middle of a canvas of others.
    own_in_chain: String,
    /// A lost task, which is in the list of dead letters.
    dead: String,
    schedule: String,
}

async fn populate(admin: &Caller) -> Foreign {
    let foreign = json!({"task": format!("theirs.{SECRET}"), "args": [SECRET], "labels": {"who": SECRET}});
    let mine = json!({"task": "mine.work", "args": [1]});
    let submit = async |path: &str, body: Value| call(admin, "POST", path, &body.to_string()).await.expect(202);
    let alone = submit("/v1/tasks", foreign.clone()).await;
    let chain = submit("/chain", json!({"tasks": [mine, foreign]})).await;
    let group = submit("/group", json!({"tasks": [foreign, mine]})).await;
    let waiting = submit("/chain", json!({"tasks": [foreign, mine]})).await;
    let dead = submit("/v1/tasks", foreign.clone()).await["task_id"].as_str().expect("an id").to_owned();
    call(admin, "POST", &format!("/v1/tasks/{dead}/resolve"), r#"{"as": "lost"}"#).await.expect(200);
    let schedule = format!("nightly-{SECRET}");
    let document = json!({"name": schedule, "task": foreign["task"], "args": [SECRET], "every": 86_400});
    call(admin, "POST", "/v1/schedules", &document.to_string()).await.expect(201);
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    Foreign {
        ids: vec![
            text(&alone["task_id"]),
            text(&group["group_id"]),
            text(&group["children"][0]["task_id"]),
            text(&waiting["children"][0]["task_id"]),
            text(&chain["children"][1]["task_id"]),
            dead.clone(),
        ],
        own_in_chain: text(&chain["children"][0]["task_id"]),
        dead,
        schedule,
    }
}

#[tokio::test]
async fn every_operation_keeps_to_the_names_of_its_token() {
    let guarded = Guarded::start();
    let foreign = populate(&guarded.admin()).await;
    let limited = guarded.token(&["--name", "tenant", "--scope", "submit,read,control", "--tasks", "mine.*"]);
    let never = "0199c2a8-0000-7000-8000-000000000001";
    for (method, path) in operations(&guarded.admin()).await {
        let kind = classified(&method, &path).unwrap_or_else(|| panic!("{method} {path} is not classified"));
        match kind {
            Kind::Open => {}
            Kind::Fleet(scope) => {
                let answer = call(&limited, &method, &filled(&path, never, "x"), "{}").await;
                let slug = if scope == "admin" { "insufficient-scope" } else { "token-limited" };
                answer.problem(403, slug);
            }
            Kind::OfTask(_) => {
                let unknown = call(&limited, &method, &filled(&path, never, ""), "").await;
                for id in &foreign.ids {
                    let answer = call(&limited, &method, &filled(&path, id, ""), "").await;
                    let alike = |text: String, id: &str| text.replace(id, "ID");
                    assert_eq!(
                        (answer.status, alike(answer.text(), id)),
                        (unknown.status, alike(unknown.text(), never)),
                        "{method} {path}: a foreign id is as unknown as any"
                    );
                }
            }
            Kind::OfSchedule(_) => {
                let unknown = call(&limited, &method, &filled(&path, "", "nobody-has-this"), "{}").await;
                let answer = call(&limited, &method, &filled(&path, "", &foreign.schedule), "{}").await;
                // PUT creates a schedule under a free name; a taken name is refused, as everywhere.
                assert!(method == "PUT" || answer.status == unknown.status, "{method} {path}: {}", answer.text());
                assert!(answer.status >= 400, "{method} {path}: {}", answer.text());
            }
            Kind::Many(_) if path == "/v1/events" => {
                feed_of(&limited).await;
            }
            Kind::Many(_) => {
                let answer = call(&limited, &method, &path, "{}").await;
                assert!(answer.status != 500 && !answer.text().contains(SECRET), "{method} {path}: {}", answer.text());
                // A visible task shows the ids of its canvas (`root_id`, `group_id`), but the ids give no access.
                for id in &foreign.ids {
                    let shown = format!("\"task_id\":\"{id}\"");
                    assert!(!answer.text().contains(&shown), "{method} {path} shows {id}: {}", answer.text());
                }
            }
            Kind::Submits => {
                let named = json!({"task": format!("theirs.{SECRET}"), "args": [1]});
                let body = match path.as_str() {
                    "/v1/tasks" => named,
                    "/v1/tasks/batch" => json!([named]),
                    "/chain" | "/group" => {
                        json!({"tasks": [{"task": "mine.work"}, {"task": "mine.work", "link": [named]}]})
                    }
                    "/chord" => json!({"header": [{"task": "mine.work"}], "body": named}),
                    _ => json!({"x": 1, "y": 2, "start": 0, "end": 1, "emails": ["a@b.c"]}),
                };
                let answer = call(&limited, &method, &filled(&path, "", ""), &body.to_string()).await;
                let is_refused = answer.status == 403 || (answer.status == 202 && answer.json()["accepted"] == 0);
                assert!(is_refused || answer.status == 422, "{method} {path}: {} {}", answer.status, answer.text());
            }
        }
    }
    for action in ["retry", "revoke", "requeue", "dismiss"] {
        let body = json!({"action": action, "filter": {"q": SECRET}}).to_string();
        let begun = call(&limited, "POST", "/v1/bulk", &body).await.expect(202);
        assert_eq!(begun["total"], 0, "{action}: {begun}");
    }
    own_task_in_a_foreign_canvas(&guarded, &limited, &foreign).await;
    nobody_elses_was_touched(&guarded.admin(), &foreign).await;
}

/// The feed from its beginning, up to a task that the token sees.
async fn feed_of(limited: &Caller) {
    let headers = [("authorization", limited.token.as_str()), ("last-event-id", "0")];
    let mut stream = limited.http.events("/v1/events", &headers).await;
    let own = limited.post("/v1/tasks", &json!({"task": "mine.last"})).await.expect(202)["task_id"].clone();
    let own = own.as_str().expect("an id").to_owned();
    while let Some(event) = stream.next().await {
        assert!(!event.data.contains(SECRET), "{}", event.data);
        if event.data.contains(&own) {
            return;
        }
    }
    panic!("the stream ended before {own}");
}

/// The token sees its own step, nothing of the steps around it, and cannot make them run.
async fn own_task_in_a_foreign_canvas(guarded: &Guarded, limited: &Caller, foreign: &Foreign) {
    let own = &foreign.own_in_chain;
    for way in ["", "/message", "/explain", "/graph", "/events"] {
        let answer = call(limited, "GET", &format!("/v1/tasks/{own}{way}"), "").await;
        assert_eq!(answer.status, 200, "{way}: {}", answer.text());
        assert!(!answer.text().contains(SECRET), "{way}: {}", answer.text());
    }
    let again = call(limited, "POST", &format!("/v1/tasks/{own}/retry"), "{}").await;
    again.problem(409, "not-replayable");
    assert!(!again.text().contains(SECRET), "{}", again.text());
    call(&guarded.admin(), "POST", &format!("/v1/tasks/{own}/retry"), "{}").await.expect(202);
    // It must not learn whether another caller's id exists.
    let answers = [&foreign.ids[0], "0199c2a8-0000-7000-8000-0000000000ff"].map(|id| {
        let body = json!({"task": "mine.work", "task_id": id}).to_string();
        async move { call(limited, "POST", "/v1/tasks", &body).await }
    });
    let [taken, free] = answers;
    let (taken, free) = (taken.await, free.await);
    assert_eq!((taken.status, taken.text()), (free.status, free.text()), "one answer for both");
    assert_eq!(taken.status, 422);
}

async fn nobody_elses_was_touched(admin: &Caller, foreign: &Foreign) {
    for id in [&foreign.ids[0], &foreign.ids[3], &foreign.ids[4]] {
        let task = call(admin, "GET", &format!("/v1/tasks/{id}"), "").await.expect(200);
        assert!(["queued", "accepted", "waiting"].contains(&task["phase"].as_str().expect("a phase")), "{task}");
    }
    let listed = call(admin, "GET", "/v1/dead-letters", "").await.expect(200);
    let dead = listed["tasks"].as_array().expect("tasks").iter().find(|task| task["task_id"] == foreign.dead.as_str());
    assert!(dead.is_some_and(|dead| dead["retried_as"].is_null()), "{listed}");
    call(admin, "GET", &format!("/v1/schedules/{}", foreign.schedule), "").await.expect(200);
}

#[tokio::test]
async fn a_group_is_revoked_only_as_far_as_its_token_sees_it() {
    let guarded = Guarded::start();
    let limited = guarded.token(&["--name", "tenant", "--scope", "read,control", "--tasks", "mine.*"]);
    let mine = json!({"task": "mine.work", "countdown": 3600});
    let chain = json!({"chain": [{"task": "theirs.first", "countdown": 3600}, {"task": "mine.work"}]});
    let tasks = json!({"tasks": [chain, mine]});
    let group = call(&guarded.admin(), "POST", "/group", &tasks.to_string()).await.expect(202);
    let children = group["children"].as_array().expect("tasks");
    let foreign = children.iter().find(|child| child["task"] == "theirs.first").expect("a head")["task_id"].clone();
    let foreign = foreign.as_str().expect("an id");
    let path = format!("/v1/tasks/{}/revoke", group["group_id"].as_str().expect("an id"));
    let revoked = call(&limited, "POST", &path, "{}").await;
    assert!(!revoked.text().contains(foreign), "{}", revoked.text());
    assert_eq!(revoked.expect(200)["members"].as_array().map(Vec::len), Some(2), "{}", revoked.text());
    let head = call(&guarded.admin(), "GET", &format!("/v1/tasks/{foreign}"), "").await.expect(200);
    assert_eq!(head["phase"], "held", "{head}");
    assert_eq!(call(&guarded.admin(), "POST", &path, "{}").await.expect(200)["prevented"], 1, "whose it is revokes it");
}

#[tokio::test]
async fn a_word_of_one_namespace_blocks_nobody_elses() {
    let guarded = Guarded::start();
    let one = guarded.token(&["--name", "one", "--scope", "submit,read", "--namespace", "first"]);
    let same = guarded.token(&["--name", "same", "--scope", "submit,read", "--namespace", "first"]);
    let other = guarded.token(&["--name", "other", "--scope", "submit,read"]);
    let body = json!({"task": "demo.add", "args": [1, 2], "queue": "nobody", "limits": [{"key": "host", "max": 1}],
        "unique": {"key": "once"}});
    let submit = async |caller: &Caller, body: &Value| caller.post("/v1/tasks", body).await;
    let first = submit(&one, &body).await.expect(202)["task_id"].clone();
    assert_eq!(submit(&same, &body).await.expect(200)["task_id"], first, "one namespace, one word");
    let theirs = submit(&other, &body).await.expect(202)["task_id"].clone();
    assert_ne!(theirs, first, "another namespace, another word");
    let path = format!("/v1/tasks/{}", theirs.as_str().expect("an id"));
    eventually("the other's task passes its limit", async || {
        (other.get(&path).await.expect(200)["phase"] == "queued").then_some(())
    })
    .await;
    // A refusal repeats the name as the caller wrote it.
    let rejected = json!({"task": "demo.add", "unique": {"key": "once", "on_conflict": "reject"}});
    let refused = submit(&same, &rejected).await;
    refused.problem(409, "unique-key-held");
    let batch = same.post("/v1/tasks/batch", &json!([rejected])).await;
    assert_eq!(batch.expect(202)["rejected"], 1);
    for told in [refused.text(), batch.text()] {
        assert!(told.contains("the unique key once") && !told.contains("@first"), "{told}");
    }
    // A namespace's name gives no access to its keys.
    let forged = json!({"task": "demo.add", "unique": {"key": "@first/once"}});
    assert_ne!(submit(&other, &forged).await.expect(202)["task_id"], first);
    let key = |caller: &Caller| {
        let caller = Caller { http: caller.http.clone(), token: caller.token.clone() };
        async move {
            let headers = [("authorization", caller.token.as_str()), ("idempotency-key", "k-1")];
            caller.http.post_with("/v1/tasks", &headers, &json!({"task": "demo.add"})).await
        }
    };
    let (a, b, c) = (key(&one).await, key(&same).await, key(&other).await);
    assert_eq!(a.expect(202)["task_id"], b.expect(202)["task_id"]);
    assert_ne!(a.expect(202)["task_id"], c.expect(202)["task_id"]);
}

#[tokio::test]
async fn a_newer_task_drops_only_those_that_its_token_sees() {
    let guarded = Guarded::start();
    let whole = guarded.token(&["--name", "whole", "--scope", "submit,read", "--namespace", "shop"]);
    let limited =
        guarded.token(&["--name", "tenant", "--scope", "submit,read", "--namespace", "shop", "--tasks", "mine.*"]);
    let body = |name: &str| {
        json!({"task": name, "queue": "nobody",
        "limits": [{"key": "refresh", "max": 1, "on_limit": "drop-oldest"}]})
    };
    let submit = async |caller: &Caller, name: &str| {
        let id = caller.post("/v1/tasks", &body(name)).await.expect(202)["task_id"].clone();
        format!("/v1/tasks/{}", id.as_str().expect("an id"))
    };
    let state = async |path: &str| whole.get(path).await.expect(200)["phase"].clone();
    let first = submit(&limited, "mine.work").await;
    eventually("it is under way", async || (state(&first).await == "queued").then_some(())).await;
    let theirs = submit(&whole, "theirs.work").await;
    let older = submit(&limited, "mine.work").await;
    eventually("both wait at the key", async || {
        (state(&theirs).await == "held" && state(&older).await == "held").then_some(())
    })
    .await;
    submit(&limited, "mine.work").await;
    assert_eq!((state(&older).await, state(&theirs).await), (json!("revoked"), json!("held")));
    let newest = submit(&whole, "theirs.work").await;
    assert_eq!((state(&theirs).await, state(&newest).await), (json!("revoked"), json!("held")), "this one sees all");
}

#[tokio::test]
async fn a_waiting_answer_ends_with_its_token() {
    let guarded = Guarded::start();
    let leaver = guarded.token(&["--name", "leaver", "--scope", "submit,read"]);
    let id =
        leaver.post("/v1/tasks", &json!({"task": "demo.add", "queue": "nobody"})).await.expect(202)["task_id"].clone();
    let path = format!("/result/{}", id.as_str().expect("an id"));
    let headers = [("authorization", leaver.token.as_str()), ("prefer", "wait=60")];
    let revoke = async {
        // The wait has begun once the gateway counts it among its requests.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let database = guarded.database.clone();
        tokio::task::spawn_blocking(move || run(&["token", "revoke", "leaver"], &[("DATABASE_URL", &database)])).await
    };
    let watch = Stopwatch::start();
    let (answer, revoked) = tokio::join!(leaver.http.get_with(&path, &headers), revoke);
    assert!(revoked.expect("no panic").status.success());
    answer.problem(401, "unauthorized");
    assert!(watch.elapsed() < Duration::from_secs(20), "{:?}", watch.elapsed());
}
