//! `response`: entries can answer like an older system. A template that would hide the gateway's own fields prevents the start.

use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::environment::{Harness, Options};

/// Answers of five systems, as their clients know them: the request, the template, and what the answer must contain.
const SYSTEMS: &str = r#"
[[tasks]]
name = "demo.identity"
endpoint = "POST /crawl/{category}"
args = ["{category}"]
values.category = { volunteer = "봉사 공지사항 크롤링" }
message = "Crawling {category} in the background"
response = { success = true, data = { category = "{category}", job_id = "{task_id}" } }

[[tasks]]
name = "demo.add"
endpoint = "POST /report"
args = ["{x}", "{y}"]
response = { status = "success", message = "Report {x}-{y} is on its way", result = { id = "{task_id}", state = "{status}", x = "{x}" } }
[tasks.body]
type = "object"
required = ["x", "y"]
properties.x = { type = "number" }
properties.y = { type = "number" }

[[tasks]]
name = "demo.sleep"
endpoint = "POST /begin/{upload_id}"
kwargs = { seconds = 0, value = "{upload_id}" }
message = "Document {upload_id} is being processed"
response = { task_id = "{task_id}", upload_id = "{upload_id}", code = 202 }

[[tasks]]
name = "demo.mul"
endpoint = "POST /bench/mul"
args = ["{a}", "{b}"]
response = { id = "{task_id}", name = "{task}", args = ["{a}", "{b}"] }
[tasks.body]
type = "object"
properties.a = { type = "integer" }
properties.b = { type = "integer" }

[[tasks]]
name = "demo.echo"
endpoint = "POST /images"
args = ["{url}"]
response = { status = "processing", analysis = { id = "{task_id}", poll = "/result/{task_id}", source = "{url}" } }
[tasks.body]
type = "object"
required = ["url"]
properties.url = { type = "string" }
"#;

/// Whether `given` has every member of `wanted`.
fn has(given: &Value, wanted: &Value) -> bool {
    match (given, wanted) {
        (Value::Object(given), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| given.get(key).is_some_and(|one| has(one, value)))
        }
        (given, wanted) => given == wanted,
    }
}

#[tokio::test]
async fn the_answers_of_the_five_systems_are_as_they_were() {
    let env = Harness::start(&Options { config: SYSTEMS.into(), without_worker: true, ..Options::default() });
    let cases = [
        (
            "/crawl/volunteer",
            json!({}),
            json!({"success": true, "category": "volunteer", "message": "Crawling volunteer in the background"}),
        ),
        ("/report", json!({"x": 1, "y": 2.50}), json!({"status": "success", "message": "Report 1-2.50 is on its way"})),
        (
            "/begin/u-1",
            json!({}),
            json!({"code": 202, "upload_id": "u-1", "message": "Document u-1 is being processed"}),
        ),
        ("/bench/mul", json!({"a": 2, "b": 3}), json!({"name": "demo.mul", "args": [2, 3], "status": "PENDING"})),
        ("/images", json!({"url": "http://x/1.png"}), json!({"status": "processing"})),
    ];
    for (path, body, wanted) in cases {
        let text = body.to_string().replace("2.5", "2.50");
        let headers = [("content-type", "application/json"), ("idempotency-key", path)];
        let answer = env.http.send(reqwest::Method::POST, path, &headers, Some(text.clone().into_bytes())).await;
        let accepted = answer.expect(202);
        assert!(has(&accepted, &wanted), "{path}: {wanted} in {accepted}");
        let id = accepted["task_id"].as_str().expect("our own fields stay");
        let named = match path {
            "/crawl/volunteer" => json!({"data": {"job_id": id, "category": "volunteer"}}),
            "/report" => json!({"result": {"id": id, "state": "PENDING", "x": 1}}),
            "/bench/mul" => json!({"id": id}),
            "/images" => json!({"analysis": {"id": id, "poll": format!("/result/{id}"), "source": "http://x/1.png"}}),
            _ => json!({"task_id": id}),
        };
        assert!(has(&accepted, &named), "{path}: {named} in {accepted}");
        assert!(accepted["links"]["result"].is_string() && accepted["phase"].is_string(), "{accepted}");
        let repeated = env.http.send(reqwest::Method::POST, path, &headers, Some(text.into_bytes())).await;
        assert_eq!(repeated.json(), accepted, "a repetition gets the same answer");
    }
}

#[test]
fn a_response_that_hides_our_own_fields_stops_the_start() {
    let entry = |more: &str| {
        format!(
            "[[tasks]]\nname = 'demo.add'\nendpoint = 'POST /mine/{{upload_id}}'\nargs = ['{{upload_id}}']\n{more}\n"
        )
    };
    for (more, reasons) in [
        ("response = { task_id = 'x' }", vec!["tasks[", "response", "task_id", "own answer"]),
        ("response = { links = { self = '/x' } }", vec!["links", "own answer"]),
        ("response = { upload_id = 7 }", vec!["upload_id", "own answer"]),
        ("response = { job = '{job}' }", vec!["response", "{job}", "neither a path parameter"]),
        ("message = 'a'\nresponse = { message = 'b' }", vec!["message", "response", "both say"]),
        ("stream = 'GET /mine/{id}'", vec!["stream", "no label is made of {id}"]),
        ("labels = { id = '{upload_id}' }\nstream = 'GET /v1/{upload_id}'", vec!["stream", "belongs to the gateway"]),
        ("unique = { key = 'a', on_conflict = 'fight' }", vec!["unique", "on_conflict"]),
    ] {
        let mut gateway =
            Gateway::launch("sqlite://x.db", "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1", &entry(more));
        let code = gateway.wait(std::time::Duration::from_secs(60));
        assert!(code.is_some_and(|code| code != 0), "{more}: {code:?}");
        let log = gateway.log();
        for reason in reasons {
            assert!(log.contains(reason), "{more}: {reason:?} in {log}");
        }
    }
}
