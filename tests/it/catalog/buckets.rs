//! Files in a bucket, with a server that speaks S3 (moto, from PyPI).

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::uploads::{PNG, begin, form};
use crate::harness::celery::root;
use crate::harness::environment::{Harness, Options};
use crate::harness::process::Process;
use crate::harness::{Http, eventually, ports};

/// A server with one bucket.
struct Bucket {
    _server: Process,
    http: Http,
    port: u16,
}

impl Bucket {
    async fn start() -> Self {
        let port = ports::free();
        let mut command = Command::new(root().join(".venv/moto/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("PYTHONUNBUFFERED", "1");
        let mut server = Process::start("moto", command);
        server.wait_for_log("Running on", Duration::from_secs(120));
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        let made = http.send(Method::PUT, "/files", &[], None).await;
        assert_eq!(made.status, 200, "{}", made.text());
        Self { _server: server, http, port }
    }

    /// The keys that the server lists.
    async fn listed(&self, what: &str) -> String {
        self.http.send(Method::GET, &format!("/files?{what}"), &[], None).await.text()
    }

    fn config(&self) -> String {
        format!(
            r#"
[stores.default]
url = "s3://files/some/where"
endpoint = "http://127.0.0.1:{}"
region = "us-east-1"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "secret"
orphan_after = "1s"
sweep = "1s"

[[tasks]]
name = "demo.identity"
endpoint = "POST /read"
args = ["{{file_url}}"]
upload = {{ field = "file", max = "100 MiB" }}
"#,
            self.port
        )
    }
}

#[tokio::test]
async fn a_file_goes_to_a_bucket_in_parts_and_a_killed_upload_leaves_nothing() {
    let bucket = Bucket::start().await;
    let mut env = Harness::start(&Options { config: bucket.config(), without_worker: true, ..Options::default() });
    let file = [PNG, &[5; 12 << 20]].concat();
    let whole = form(&[], "file", "a.png", "image/png", &file);
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    let accepted = env.http.send(Method::POST, "/read", &headers, Some(whole.clone())).await.expect(202);
    let task = env.http.get(&format!("/v1/tasks/{}", accepted["task_id"].as_str().expect("an id"))).await.expect(200);
    let address = task["args"][0].as_str().expect("an address").to_owned();
    assert!(address.contains("X-Amz-Signature="), "{address}");
    let path = address.split_once(&format!(":{}", bucket.port)).expect("of this server").1;
    let read = bucket.http.send(Method::GET, path, &[], None).await;
    assert_eq!((read.status, read.body == file), (200, true), "a worker needs no credentials");

    let _open = begin(env.gateway.port, "/read", &whole, 8 << 20);
    eventually("a part is written", async || bucket.listed("uploads").await.contains("<UploadId>").then_some(())).await;
    env.gateway.kill();
    env.gateway.restart();
    eventually("the upload is given up", async || {
        let (uploads, objects) = (bucket.listed("uploads").await, bucket.listed("list-type=2").await);
        (!uploads.contains("<UploadId>") && !objects.contains("pending/")).then_some(())
    })
    .await;
    let objects = bucket.listed("list-type=2").await;
    assert_eq!(
        objects.matches("<Key>some/where/uploads/").count(),
        1,
        "the file of the task that waits stays: {objects}"
    );
    let tasks = env.http.get("/v1/tasks?task=demo.identity").await.expect(200);
    assert_eq!(tasks["tasks"].as_array().map(Vec::len), Some(1), "{tasks}");
    assert_eq!(tasks["next"], json!(null));
}
