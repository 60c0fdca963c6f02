//! `learn`: type hints of Python tasks, as workers tell them, before anything is queued. Celery 5.4 tells them by itself; 5.7 keeps
//! attributes whose names begin with an underscore to itself, so there the application calls `taskgate.tell_types()`. And `catalogs`: the
//! tasks as `taskgate.export` describes them.

use std::process::Command;

use serde_json::json;

use crate::dashboard::browser::Browser;
use crate::harness::celery::{packages, root};
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, eventually};

const CONFIG: &str = r#"
learn = ["hinted.*"]
submit.allow = ["demo.*", "hinted.*"]

[[tasks]]
name = "hinted.other"
endpoint = "POST /other"
kwargs = {count = "{count}"}
open = true
[tasks.body]
type = "object"
properties.count.type = "string"
"#;

#[tokio::test]
async fn what_a_signature_forbids_is_refused_before_it_is_queued() {
    let celery = CeleryOptions { version: Version::Older, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: CONFIG.to_owned(), ..Options::default() });
    let good = json!({"x": 2, "label": null});
    let accepted = eventually("the signature is learned", async || {
        let answer = env.http.post_once("/tasks/hinted.scale", &good).await;
        (answer.status == 202).then(|| answer.expect(202))
    })
    .await;
    assert_eq!(env.finished(accepted["task_id"].as_str().expect("an id")).await["result"], 4.0);
    let wrong = env.http.post_once("/tasks/hinted.scale", &json!({"x": "two", "label": 3})).await.expect(422);
    let pointers: Vec<_> =
        wrong["errors"].as_array().expect("errors").iter().map(|one| one["pointer"].clone()).collect();
    assert_eq!(pointers, ["/x", "/label"], "{wrong}");
    let call = json!({"chain": [{"task": "hinted.scale", "kwargs": {"x": 1}}, {"task": "hinted.scale", "kwargs": {"x": 1, "factor": []}}]});
    let wrong = env.http.post_once("/v1/tasks", &call).await.expect(422);
    assert_eq!(wrong["errors"][0]["pointer"], "/chain/1/kwargs/factor", "{wrong}");
    assert_eq!(env.http.post_once("/tasks/demo.add", &json!({})).await.status, 404, "it is not to be learned");
    let incident = eventually("the catalog's misfit is told", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("incidents").clone();
        all.into_iter().find(|one| one["kind"] == "other_signature")
    })
    .await;
    assert_eq!(incident["subject"], "hinted.other", "{incident}");
    assert!(
        incident["detail"].as_str().is_some_and(|text| text.contains("count is string in the catalog")),
        "{incident}"
    );
}

/// Where Python finds the package `taskgate` and what it needs.
fn with_package() -> (String, String) {
    let client = root().join("clients/python/src");
    ("PYTHONPATH".to_owned(), format!("{}:{}", client.display(), packages("clients")))
}

/// A worker of the newest Celery whose application tells its types.
fn telling() -> CeleryOptions {
    let environment = vec![with_package(), ("DEMO_TELLS_TYPES".to_owned(), "1".to_owned())];
    CeleryOptions { environment, ..CeleryOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_celery_tells_types_with_the_package_and_they_become_a_form() {
    let env = Harness::start(&Options { celery: telling(), config: CONFIG.to_owned(), ..Options::default() });
    eventually("the signature is learned", async || {
        let answer = env.http.post_once("/tasks/hinted.scale", &json!({"x": 2})).await;
        (answer.status == 202).then_some(())
    })
    .await;
    let wrong = env.http.post_once("/tasks/hinted.scale", &json!({"x": "two"})).await.expect(422);
    assert_eq!(wrong["errors"][0]["pointer"], "/x", "{wrong}");
    let contract = env.http.get("/openapi.json").await.expect(200);
    let operation = &contract["paths"]["/tasks/hinted.scale"]["post"];
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["properties"]["factor"]["type"], json!(["number", "null"]), "{operation}");
    eventually("the catalog's misfit is told", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("incidents").clone();
        all.into_iter().find(|one| one["kind"] == "other_signature" && one["subject"] == "hinted.other")
    })
    .await;

    let browser = Browser::start(390, 844).await;
    let page = "dashboard/#/submit?form=POST+%2Ftasks%2Fhinted.scale";
    browser.open(&format!("http://127.0.0.1:{}/{page}", env.gateway.port)).await;
    browser
        .wait_for("the form is there", "document.querySelector('main form input[name=\"body.factor\"]') !== null")
        .await;
    browser.keep("phone-learned-form").await;
    assert_eq!(browser.barriers().await, Vec::<String>::new());
    browser.run("document.querySelector('input[name=\"body.x\"]').value = '21'").await;
    browser.click("main form button.main").await;
    browser.wait_for("its task's page opens", "location.hash.startsWith('#/tasks/')").await;
    browser.wait_for("it ran", "document.querySelector('main').innerText.includes('42')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Both versions of the application pass a price's `order`; the first takes a `zone` too, the next one a `region`.
const PRICE: &str = r#"
[[tasks]]
name = "hinted.price"
endpoint = "POST /prices/{order}"
args = ["{order}"]
kwargs = {zone = "north"}
open = true
"#;

/// Calls a price by the entry's endpoint before and after the workers of a version are replaced by those of the next one.
async fn is_told_that_a_renamed_argument_does_not_fit(version: Version) {
    let worker = CeleryOptions { version, ..telling() };
    let mut env = Harness::start(&Options { celery: worker, config: format!("{CONFIG}{PRICE}"), ..Options::default() });
    eventually("the signature is learned", async || {
        let answer = env.http.post_once("/tasks/hinted.price", &json!({"order": 1, "zone": "north"})).await;
        (answer.status == 202).then_some(())
    })
    .await;
    let wrong = env.http.post_once("/tasks/hinted.price", &json!({"order": 1, "region": "north"})).await.expect(422);
    let pointers: Vec<_> =
        wrong["errors"].as_array().expect("errors").iter().map(|one| one["pointer"].clone()).collect();
    assert_eq!(pointers, ["/zone", "/region"], "{wrong}");
    let fitting = env.http.post_once("/prices/1", &json!({})).await.expect(202);
    assert_eq!(env.finished(fitting["task_id"].as_str().expect("an id")).await["result"], "1 in north");
    let incidents = env.http.get("/v1/incidents").await.expect(200);
    let names_it = |one: &serde_json::Value| one["kind"] == "other_signature" && one["subject"] == "hinted.price";
    assert!(!incidents["incidents"].as_array().expect("incidents").iter().any(names_it), "{incidents}");

    let mut next = CeleryOptions { version, ..telling() };
    next.environment.push(("DEMO_NEXT_VERSION".to_owned(), "1".to_owned()));
    drop(env.celery.take());
    env.start_worker(next);
    let ready = std::time::Instant::now();
    let detail = eventually("the misfit is told", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let incident = incidents["incidents"].as_array().expect("incidents").iter().find(|one| names_it(one))?;
        Some(incident["detail"].as_str().expect("a detail").to_owned())
    })
    .await;
    assert!(ready.elapsed().as_secs() < 60, "an incident within a minute");
    assert!(detail.contains("the worker requires region, which the entry does not pass"), "{detail}");
    assert!(detail.contains("the entry passes zone, which the worker does not take"), "{detail}");
}

#[tokio::test]
async fn a_worker_of_the_newest_celery_that_renamed_a_required_argument_is_an_incident() {
    is_told_that_a_renamed_argument_does_not_fit(Version::Latest).await;
}

#[tokio::test]
async fn a_worker_of_celery_5_4_that_renamed_a_required_argument_is_an_incident() {
    is_told_that_a_renamed_argument_does_not_fit(Version::Older).await;
}

#[tokio::test]
async fn an_exported_catalog_beside_the_configuration_makes_typed_endpoints() {
    let mut export = Command::new(Version::Latest.python());
    let (name, value) = with_package();
    export.args(["-m", "taskgate.export", "app"]).env(name, value).current_dir(root().join("tests/celery_app"));
    let exported = export.output().expect("run tests/setup.sh first");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("catalog.toml");
    std::fs::write(&file, exported.stdout).expect("it is writable");
    let config = format!("catalogs = ['{}']\n{}", file.display(), CONFIG.replace("learn = [\"hinted.*\"]\n", ""));
    let env = Harness::start(&Options { celery: telling(), config, ..Options::default() });
    let accepted = env.http.post_once("/tasks/hinted.scale", &json!({"x": 2})).await.expect(202);
    assert_eq!(env.finished(accepted["task_id"].as_str().expect("an id")).await["result"], 4.0);
    let wrong = env.http.post_once("/tasks/hinted.scale", &json!({"x": "two"})).await.expect(422);
    assert_eq!(wrong["errors"][0]["pointer"], "/x", "{wrong}");
    let missing = env.http.post_once("/tasks/hinted.scale", &json!({"factor": 2})).await;
    assert_eq!(missing.status, 422, "what is required is known too: {}", missing.text());
    let contract = env.http.get("/openapi.json").await.expect(200);
    assert!(contract["paths"]["/tasks/hinted.scale"]["post"]["requestBody"].is_object(), "{contract}");
    assert!(contract["paths"].get("/tasks/hinted.other").is_none(), "the configuration's own entry stands");
    let incident = eventually("a worker that does not fit the configuration's entry is told", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("incidents").clone();
        all.into_iter().find(|one| one["kind"] == "other_signature")
    })
    .await;
    assert_eq!(incident["subject"], "hinted.other", "{incident}");
}
