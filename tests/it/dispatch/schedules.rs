//! Schedules accept all fields of a submission, have names in any script, and belong to the namespace of their author.

use reqwest::Method;
use serde_json::{Value, json};

use crate::edge::create;
use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Redis, RedisOptions, eventually};

/// "Notices, collected", as its users write it.
const NAME: &str = "공지-수집";
const ENCODED: &str = "%EA%B3%B5%EC%A7%80-%EC%88%98%EC%A7%91";

fn alone(config: &str) -> Options {
    Options { config: config.into(), without_worker: true, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_has_a_name_in_any_script() {
    let env = Harness::start(&alone(""));
    let body = json!({"name": NAME, "task": "demo.add", "args": [1, 2], "queue": "nobody", "every": 86_400});
    let answer = env.http.post("/v1/schedules", &body).await;
    let path = format!("/v1/schedules/{ENCODED}");
    assert_eq!(answer.header("location"), Some(path.as_str()));
    let written = answer.expect(201);
    assert_eq!((&written["name"], &written["links"]["self"]), (&json!(NAME), &json!(path)));
    assert_eq!(env.http.get(&path).await.expect(200)["name"], NAME);
    let run = env.http.post(&format!("{path}/run"), &json!({})).await.expect(202);
    let task = env.http.get(&format!("/v1/tasks/{}", run["task_id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!(task["schedule"], NAME, "{task}");
    let runs = env.http.get(written["links"]["runs"].as_str().expect("a path")).await.expect(200);
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1));
    let refused = env.http.post("/v1/schedules", &json!({"name": "a b", "task": "demo.add", "every": 60})).await;
    assert_eq!(refused.problem(422, "invalid-request")["errors"][0]["pointer"], "/name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_takes_a_canvas_with_labels_limits_and_a_share() {
    let env = Harness::start(&alone(""));
    let member = json!({"task": "demo.add", "args": [1, 2], "queue": "nobody"});
    let body = json!({"name": "nightly", "every": 86_400, "group": [member, member, member], "labels": {"run": "night"},
        "limits": [{"key": "night", "max": 1}], "fair": {"key": "batch", "weight": 2}});
    env.http.post("/v1/schedules", &body).await.expect(201);
    env.http.post("/v1/schedules/nightly/run", &json!({})).await.expect(202);
    let listed = env.http.get("/v1/tasks?label=run:night").await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(3), "{listed}");
    eventually("one is under way, two wait", async || {
        let limits = env.http.get("/v1/limits").await.expect(200);
        let night = limits["limits"].as_array()?.iter().find(|one| one["key"] == "night")?.clone();
        (night["under_way"] == 1 && night["waiting"] == 2).then_some(())
    })
    .await;
    let wrong = json!({"name": "wrong", "every": 60, "task": "demo.add", "limits": [{"key": "a"}]});
    let problem = env.http.post("/v1/schedules", &wrong).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["pointer"], "/limits/0/max");
}

/// The keys are made from the arguments that the schedule says.
const ENTRY: &str = "
[[tasks]]
name = 'demo.identity'
endpoint = 'POST /documents/{document}'
args = ['{document}']
queue = 'nobody'
labels = { document = '{document}' }
limits = [{ key = 'document-{document}', max = 1 }]
fair = { key = 'tenant-{document}' }
unique = { key = 'document:{document}' }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_entry_of_a_task_says_holds_for_the_runs_of_its_schedule() {
    let env = Harness::start(&alone(ENTRY));
    let body = json!({"name": "document", "task": "demo.identity", "args": ["d-1"], "every": 1});
    env.http.post("/v1/schedules", &body).await.expect(201);
    let runs = eventually("a tick finds the key held", async || {
        let runs =
            env.http.get("/v1/schedules/document/runs").await.expect(200)["runs"].as_array().expect("a list").clone();
        runs.iter().any(|run| run["outcome"] == "skipped").then_some(runs)
    })
    .await;
    let of = |outcome: &str| runs.iter().filter(|run| run["outcome"] == outcome).collect::<Vec<_>>();
    assert_eq!(of("fired").len(), 1, "{runs:?}");
    let id = of("fired")[0]["task_id"].as_str().expect("an id");
    assert_eq!(of("skipped")[0]["reason"], format!("its unique key is held by {id}"), "{runs:?}");
    let task = env.in_phase(id, "queued").await;
    assert_eq!((&task["labels"]["document"], &task["queue"]), (&json!("d-1"), &json!("nobody")), "{task}");
    let limits = env.http.get("/v1/limits").await.expect(200);
    let key = limits["limits"].as_array().expect("a list").iter().find(|limit| limit["key"] == "document-d-1").cloned();
    assert_eq!(key.unwrap_or_else(|| panic!("{limits}"))["under_way"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_keys_of_a_tenants_schedules_are_its_own() {
    let (redis, database) = (Redis::start(RedisOptions::default()), cluster().migrated_database());
    let admin = format!("Bearer {}", create(&database, &["--name", "admin", "--scope", "admin"]));
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "auth = 'token'\nsubmit.allow = ['*']\n");
    let token = |name: &str, tasks: &str| {
        let options = ["--name", name, "--scope", "submit,read,control", "--tasks", tasks];
        format!("Bearer {}", create(&database, &options))
    };
    let (one, other) = (token("one", "one.*"), token("other", "other.*"));
    let call = async |token: &str, method: Method, path: &str, body: &Value| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        gateway.http().send(method, path, &headers, body).await
    };
    let schedule = |task: &str| {
        json!({"name": "nightly", "task": task, "queue": "nobody", "every": 86_400,
            "limits": [{"key": "host", "max": 1}]})
    };
    call(&one, Method::POST, "/v1/schedules", &schedule("one.work")).await.expect(201);
    // No caller learns that another one has the name, or is blocked by it.
    call(&other, Method::POST, "/v1/schedules", &schedule("other.work")).await.expect(201);
    call(&other, Method::POST, "/v1/schedules", &schedule("other.work")).await.problem(409, "name-taken");
    for (token, task) in [(&one, "one.work"), (&other, "other.work")] {
        let mine = call(token, Method::GET, "/v1/schedules/nightly", &Value::Null).await.expect(200);
        assert_eq!((&mine["name"], &mine["task"]), (&json!("nightly"), &json!(task)));
        let listed = call(token, Method::GET, "/v1/schedules", &Value::Null).await.expect(200);
        assert_eq!(listed["schedules"].as_array().map(Vec::len), Some(1), "{listed}");
        call(token, Method::POST, "/v1/schedules/nightly/run", &json!({})).await.expect(202);
    }
    let keys = eventually("both keys are known", async || {
        let limits = call(&admin, Method::GET, "/v1/limits", &Value::Null).await.expect(200);
        let keys: Vec<String> =
            limits["limits"].as_array()?.iter().filter_map(|one| Some(one["key"].as_str()?.to_owned())).collect();
        (keys.len() == 2).then_some(keys)
    })
    .await;
    assert_eq!(keys, ["@one/host", "@other/host"]);
    let all = call(&admin, Method::GET, "/v1/schedules", &Value::Null).await.expect(200);
    let all = all["schedules"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str());
    let names: Vec<&str> = all.filter(|name| name.ends_with("nightly")).collect();
    assert_eq!(names, ["@one/nightly", "@other/nightly"]);
    call(&other, Method::DELETE, "/v1/schedules/nightly", &Value::Null).await;
    call(&one, Method::GET, "/v1/schedules/nightly", &Value::Null).await.expect(200);
    call(&admin, Method::GET, "/v1/schedules/%40one%2Fnightly", &Value::Null).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_neither_reads_foreign_names_page_by_page_nor_writes_foreign_keys() {
    let (redis, database) = (Redis::start(RedisOptions::default()), cluster().migrated_database());
    let token = |options: &[&str]| format!("Bearer {}", create(&database, options));
    let admin = token(&["--name", "admin", "--scope", "admin"]);
    let tenant = token(&["--name", "tenant", "--scope", "submit,read,control", "--tasks", "tenant.*"]);
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "auth = 'token'\nsubmit.allow = ['*']\n");
    let call = async |token: &str, method: Method, path: &str, body: &Value| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        gateway.http().send(method, path, &headers, body).await
    };
    let mut shared = json!({"name": "m-shared", "task": "tenant.work", "queue": "nobody", "every": 86_400});
    call(&admin, Method::POST, "/v1/schedules", &shared).await.expect(201);
    for name in ["a-secret", "z-secret"] {
        let foreign = json!({"name": name, "task": "other.work", "queue": "nobody", "every": 86_400});
        call(&admin, Method::POST, "/v1/schedules", &foreign).await.expect(201);
    }
    let page = call(&tenant, Method::GET, "/v1/schedules?limit=1", &Value::Null).await.expect(200);
    assert_eq!(page["schedules"][0]["name"], "m-shared", "{page}");
    assert!(page["next"].is_null(), "the next page would begin at a foreign name: {page}");

    let keyed = json!({"limits": [{"key": "@victim/host", "max": 1}]});
    let refused = call(&tenant, Method::PATCH, "/v1/schedules/m-shared", &keyed).await;
    assert!(refused.text().contains("another namespace"), "{}: {}", refused.status, refused.text());
    assert_eq!(refused.status, 422);
    shared["every"] = json!(43_200);
    call(&tenant, Method::PUT, "/v1/schedules/m-shared", &shared).await.expect(200);
}
