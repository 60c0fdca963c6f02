//! `learn`: type hints of Python tasks, reported by unmodified workers before anything is queued. Celery 5.4 reports them; 5.7 does not
//! report attributes whose names begin with an underscore.

use serde_json::json;

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
