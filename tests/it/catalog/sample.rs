//! `examples/catalog/taskgate.toml` with an unmodified Celery worker: every endpoint of the sample does what its comment says.

use reqwest::Method;
use serde_json::{Value, json};
use toml::Table;

use super::uploads::{PNG, form};
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Redis, RedisOptions, eventually, postgres};

/// The queues that the sample names.
const QUEUES: &str =
    "celery,default,crawl,document_processing,chat_processing,image_analysis,heavy,light,urgent,user_service";

struct Env {
    redis: Redis,
    gateway: Gateway,
    http: Http,
}

/// The sample as it is in the repository; only its addresses are the test's.
fn environment() -> Env {
    let (redis, database) = (Redis::start(RedisOptions::default()), postgres::cluster().migrated_database());
    let text = std::fs::read_to_string(crate::harness::celery::root().join("examples/catalog/taskgate.toml"));
    let mut sample: Table = text.expect("it exists").parse().expect("it is TOML");
    let port = crate::harness::ports::free();
    sample["http"]["listen"] = format!("127.0.0.1:{port}").into();
    let addresses = [
        ("DATABASE_URL", database.as_str()),
        ("CELERY_BROKER_URL", &redis.url(0)),
        ("CELERY_RESULT_BACKEND", &redis.url(1)),
    ];
    let mut gateway = Gateway::start(&["serve"], port, Some(&sample), &addresses);
    gateway.wait_until_ready();
    Env { http: gateway.http(), redis, gateway }
}

async fn finished(http: &Http, accepted: &Value) -> Value {
    let id = accepted["task_id"].as_str().unwrap_or_else(|| panic!("no id in {accepted}")).to_owned();
    eventually(&format!("{id} ends"), async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_of_the_sample_does_what_it_says() {
    let env = environment();
    let http = &env.http;
    let mail = json!({"emails": ["a@example.org", "b@example.org"]});
    eventually("nobody sends mail yet, and the gateway knows it", async || {
        let answer = http.post("/tenants/a/send-emails", &mail).await;
        (answer.status == 422).then(|| answer.problem(422, "nobody-runs-it"))
    })
    .await;
    let _worker = Celery::start(&env.redis, CeleryOptions { queues: QUEUES.into(), ..CeleryOptions::default() });
    documents_and_pictures(http).await;
    let canvas = http.post("/reindex/notices", &json!({"start": 0, "end": 250})).await.expect(202);
    assert_eq!((&canvas["status"], &canvas["pipeline"]), (&json!("started"), &canvas["task_id"]), "{canvas}");
    assert_eq!(finished(http, &canvas).await["result"], 250, "three parts of the range, added up");
    let sent = eventually("somebody sends mail", async || {
        let answer = http.post("/tenants/a/send-emails", &mail).await;
        (answer.status != 422).then(|| answer.expect(202))
    })
    .await;
    assert_eq!(finished(http, &sent).await["result"], 2);
    http.post("/tenants/a/send-emails", &json!({"emails": vec!["a@example.org"; 101]}))
        .await
        .problem(422, "invalid-request");
    let report = http.post("/reports/7", &json!({"text": "some text"})).await.expect(202);
    assert_eq!(finished(http, &report).await["result"]["args"], json!(["some text"]));
    let ran = http.post("/v1/schedules/%EA%B3%B5%EC%A7%80-%EC%88%98%EC%A7%91/run", &json!({})).await.expect(202);
    let steps = http.get("/v1/tasks?label=run:nightly").await.expect(200);
    assert_eq!(steps["tasks"].as_array().map(Vec::len), Some(2), "{ran}: {steps}");
    let contract = http.get("/openapi.json").await.expect(200);
    for path in
        ["/run-crawler/{category}", "/start/{upload_id}", "/stream/{upload_id}", "/analyze", "/reindex/{source}"]
    {
        assert!(contract["paths"][path].is_object(), "{path} is in the contract");
    }
    assert!(!env.gateway.log().contains("panicked"));
}

async fn documents_and_pictures(http: &Http) {
    let crawl = http.post("/run-crawler/volunteer", &json!({})).await.expect(202);
    assert_eq!((&crawl["status"], &crawl["data"]["job_id"]), (&json!("success"), &crawl["task_id"]), "{crawl}");
    http.post("/run-crawler/sports", &json!({})).await.problem(404, "unknown-value");
    let document = http.post("/start/u-1", &json!({})).await.expect(202);
    assert_eq!(document["upload_id"], "u-1", "{document}");
    assert_eq!(finished(http, &document).await["result"]["upload_id"], "u-1");
    let from_its_beginning = format!("{}:0", document["task_id"].as_str().expect("an id"));
    let events = http.events("/stream/u-1", &[("last-event-id", &from_its_beginning)]).await.rest().await;
    assert!(events.iter().any(|event| event.event == "progress"), "{} events", events.len());
    let followed = eventually("what is linked runs", async || {
        let found = http.get("/v1/tasks?task=tasks.request_info&status=SUCCESS").await.expect(200);
        let linked = found["tasks"].as_array()?.iter().find(|task| task["queue"] == "chat_processing")?;
        linked["task_id"].as_str().map(str::to_owned)
    })
    .await;
    let followed = http.get(&format!("/v1/tasks/{followed}")).await.expect(200);
    assert_eq!(followed["args"], json!(["u-1"]), "{followed}");
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    let picture = form(&[], "file", "cat.png", "image/png", &[PNG, b"\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02"].concat());
    let accepted = http.send(Method::POST, "/analyze", &headers, Some(picture)).await.expect(202);
    assert_eq!(accepted["analysis"]["file"], "cat.png", "{accepted}");
    assert_eq!(finished(http, &accepted).await["result"]["width"], 3);
}
