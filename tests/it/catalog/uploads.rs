//! Entries that take a file: it is streamed into a store, its address is passed to the task, and it is removed when no task needs it (row
//! S11).

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{Answer, Gateway, eventually};

pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

struct Env {
    harness: Lent<Box<Harness>>,
    folder: PathBuf,
}

/// A catalog with files, and a folder for them.
fn config(folder: &Path, more: &str) -> String {
    format!(
        r#"
[stores.default]
url = "file://{}"
orphan_after = "1s"
sweep = "1s"

[[tasks]]
name = "demo.echo"
endpoint = "POST /pictures/{{album}}"
args = ["{{file}}", "{{file_name}}", "{{file_size}}", "{{file_type}}"]
kwargs = {{ album = "{{album}}", level = "{{level}}" }}
labels = {{ album = "{{album}}" }}
values.album = {{ summer = "Sommer", first = "1", many = "2", killed = "3", a = "4" }}
upload = {{ field = "file", max = "100 MiB", types = ["image/*"] }}
[tasks.body]
type = "object"
properties.level = {{ type = "integer", default = 1, maximum = 9 }}

[[tasks]]
name = "demo.identity"
endpoint = "POST /read"
args = ["{{scan_url}}"]
upload = {{ field = "scan", max = "1 KiB" }}
{more}"#,
        folder.display()
    )
}

fn environment(more: &str, without_worker: bool) -> Env {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let options = Options { config: config(&folder, more), without_worker, ..Options::default() };
    Env { harness: Harness::start(&options), folder }
}

/// A form with fields, and a file at its end.
pub(super) fn form(fields: &[(&str, &str)], field: &str, name: &str, kind: &str, file: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        write!(form, "--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").expect("memory");
    }
    let head = format!("Content-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\nContent-Type: {kind}");
    write!(form, "--XX\r\n{head}\r\n\r\n").expect("memory");
    form.extend_from_slice(file);
    form.extend_from_slice(b"\r\n--XX--\r\n");
    form
}

impl Env {
    async fn post(&self, path: &str, headers: &[(&str, &str)], form: Vec<u8>) -> Answer {
        let all: Vec<_> = [FORM].iter().chain(headers).copied().collect();
        self.harness.http.send(Method::POST, path, &all, Some(form)).await
    }

    async fn eventually_empty(&self, what: &str) {
        eventually(what, async || files(&self.folder).is_empty().then_some(())).await;
    }
}

/// Every file in the store, including incomplete ones, except the mark of its owner.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("taskgate-ledger") {
            found.push(path);
        }
    }
    found
}

/// The pointers in a problem document.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("the places");
    errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
}

#[tokio::test]
async fn a_file_is_stored_and_named_to_its_task_and_goes_with_the_payload() {
    let env = environment("[ledger]\nkeep_payload = '15s'\n", false);
    let file = [PNG, &[7; 3_000_000]].concat();
    let body = form(&[("level", "3")], "file", "../한 cat.png", "image/png", &file);
    let key = [("idempotency-key", "first")];
    let accepted = env.post("/pictures/summer", &key, body.clone()).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id").to_owned();
    let stored = files(&env.folder);
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(std::fs::read(&stored[0]).expect("the file is there"), file, "byte for byte");
    let done = env.harness.finished(&id).await["result"].clone();
    assert_eq!(done["kwargs"], json!({"album": "Sommer", "level": 3}), "{done}");
    let args = done["args"].as_array().expect("arguments");
    assert_eq!(env.folder.join(args[0].as_str().expect("a key")), stored[0], "{done}");
    assert_eq!(args[1..], [json!("../한 cat.png"), json!(file.len()), json!("image/png")], "{done}");
    let repeated = env.post("/pictures/summer", &key, body).await;
    assert_eq!(repeated.expect(202)["task_id"], json!(id), "the same request has the same answer");
    let other = form(&[("level", "3")], "file", "../한 cat.png", "image/png", &[PNG, b"else"].concat());
    env.post("/pictures/summer", &key, other).await.problem(422, "idempotency-key-reused");
    env.eventually_empty("the file is removed with the payload").await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_while_it_streams_and_leaves_nothing() {
    let env = environment("", true);
    let fits = |kind: &str, file: &[u8]| form(&[], "file", "a.png", kind, file);
    let large = fits("image/png", &[PNG, &vec![0; 101 << 20]].concat());
    let problem = env.post("/pictures/a", &[], large).await.problem(413, "payload-too-large");
    assert_eq!(pointers(&problem), ["/file"], "{problem}");
    for (kind, file) in [("text/plain", &b"x"[..]), ("image/png", b"%PDF-1.7"), ("image/png", b"words")] {
        let problem = env.post("/pictures/a", &[], fits(kind, file)).await.problem(415, "unsupported-media-type");
        assert_eq!(pointers(&problem), ["/file"], "{problem}");
    }
    let level = form(&[("level", "10")], "file", "a.png", "image/png", PNG);
    let problem = env.post("/pictures/a", &[], level).await.problem(422, "invalid-request");
    assert_eq!(pointers(&problem), ["/level"], "{problem}");
    let elsewhere = form(&[("level", "1")], "other", "a.txt", "text/plain", b"a text");
    let problem = env.post("/pictures/a", &[], elsewhere).await.problem(422, "invalid-request");
    assert_eq!(pointers(&problem), ["/file"], "{problem}");
    env.post("/pictures/nowhere", &[], fits("image/png", PNG)).await.problem(404, "unknown-value");
    let cut = &fits("image/png", PNG)[..60];
    env.post("/pictures/a", &[], cut.to_vec()).await.problem(422, "invalid-request");
    env.harness.http.post("/pictures/a", &json!({})).await.problem(415, "unsupported-media-type");
    let by_name = json!({"task": "demo.echo", "args": ["uploads/x/y", "a", 1, "image/png"], "kwargs": {"album": "a"}});
    env.harness.http.post("/v1/tasks", &by_name).await.problem(422, "invalid-request");
    env.eventually_empty("nothing is left").await;
    let tasks = env.harness.http.get("/v1/tasks?task=demo.echo").await.expect(200);
    assert_eq!(tasks["tasks"], json!([]), "nothing is queued");
}

#[tokio::test]
async fn a_task_may_be_told_where_to_read_its_file() {
    let env = environment("", true);
    let accepted = env.post("/read", &[], form(&[], "scan", "s", "image/png", b"hello")).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    let task = env.harness.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    let address = task["args"][0].as_str().expect("an address").to_owned();
    let path = address.strip_prefix("file://").expect("a path").to_owned();
    assert_eq!(std::fs::read(path).expect("it can be read there"), b"hello");
}

/// Sends the head and a part of a form, and leaves the connection open.
pub(super) fn begin(port: u16, path: &str, whole: &[u8], part: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        FORM.1,
        whole.len()
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.write_all(&whole[..part]).expect("it reads");
    stream
}

#[tokio::test]
async fn a_gateway_that_is_killed_in_the_middle_leaves_neither_task_nor_file() {
    let mut env = environment("", true);
    let whole = form(&[], "file", "a.png", "image/png", &[PNG, &vec![0; 8 << 20]].concat());
    let _open = begin(env.harness.gateway.port, "/pictures/killed", &whole, 4 << 20);
    eventually("a part is written", async || (!files(&env.folder).is_empty()).then_some(())).await;
    env.harness.gateway.kill();
    assert_eq!(files(&env.folder).len(), 1, "the half that was written is there");
    env.harness.gateway.restart();
    env.eventually_empty("the half is removed").await;
    let tasks = env.harness.http.get("/v1/tasks?label=album:killed").await.expect(200);
    assert_eq!(tasks["tasks"], json!([]));
}

#[tokio::test]
async fn files_of_a_store_that_belongs_to_another_ledger_stay() {
    let env = environment("", true);
    let accepted = env.post("/pictures/a", &[], form(&[], "file", "a.png", "image/png", PNG)).await.expect(202);
    eventually("the store has its owner", async || env.folder.join("taskgate-ledger").exists().then_some(())).await;
    let database = crate::harness::postgres::cluster().migrated_database();
    let redis = env.harness.redis.url(2);
    let stranger = Gateway::serve(&database, &redis, &redis, &config(&env.folder, ""));
    eventually("it says why", async || stranger.log().contains("belongs to another ledger").then_some(())).await;
    assert_eq!(files(&env.folder).len(), 1, "{accepted}");
}

/// 100 MiB, generated while they are sent.
fn large() -> Body {
    const PIECE: &[u8] = &[1; 1 << 16];
    let whole = form(&[], "file", "a.png", "image/png", PNG);
    let (head, end) = whole.split_at(whole.len() - "\r\n--XX--\r\n".len());
    let count = (100 << 20) / PIECE.len() - 1;
    let pieces = std::iter::once(head.to_vec()).chain(std::iter::repeat_n(PIECE.to_vec(), count));
    Body::wrap_stream(stream::iter(pieces.chain([end.to_vec()]).map(Ok::<_, std::io::Error>)))
}

#[tokio::test]
async fn ten_files_of_100_mib_at_once_take_little_memory() {
    let env = environment("", true);
    let (client, url) =
        (reqwest::Client::new(), format!("http://127.0.0.1:{}/pictures/many", env.harness.gateway.port));
    let send = |_| client.post(&url).header(FORM.0, FORM.1).body(large()).send();
    for answer in futures_util::future::join_all((0..10).map(send)).await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap_or_default());
    }
    let sizes: Vec<u64> = files(&env.folder).iter().map(|file| file.metadata().expect("it is there").len()).collect();
    assert_eq!((sizes.len(), sizes.iter().all(|size| *size > 99 << 20)), (10, true), "{sizes:?}");
    let peak = peak(env.harness.gateway.id());
    eprintln!("ten files of 100 MiB at once: at most {} MiB resident", peak >> 10);
    drop(env.harness);
    std::fs::remove_dir_all(&env.folder).expect("a gigabyte is not left behind");
    assert!(peak < 200 << 10, "the gateway had {peak} KiB");
}

/// The peak memory of a process, in KiB.
fn peak(id: i32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
