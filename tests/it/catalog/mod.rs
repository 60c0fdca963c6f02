//! What a catalog entry does besides offering an endpoint, tested with unmodified workers.

mod answers;
mod buckets;
mod canvases;
mod labels;
mod offload;
mod retries;
mod sample;
mod sizes;
mod unique;
mod uploads;
mod warnings;

use std::sync::OnceLock;

use crate::harness::Shared;
use crate::harness::environment::{Harness, Options};

const ENTRIES: &str = r#"
[[tasks]]
name = "demo.progress"
summary = "Take a document through its stages"
endpoint = "POST /documents/{upload_id}"
args = ["{steps}", "{delay}"]
labels = { upload_id = "{upload_id}", kind = "document", user = "{user}" }
unique = { key = "document:{upload_id}", on_conflict = "replace" }
stream = "GET /documents/{upload_id}"
response = { status = "success", data = { job = "{task_id}", document = "{upload_id}" } }
[tasks.body]
type = "object"
properties.steps = { type = "integer", default = 3 }
properties.delay = { type = "number", default = 0.05 }
properties.user = { type = "string" }

[[tasks]]
name = "demo.sleep"
endpoint = "POST /only-one/{name}"
args = ["{seconds}", "{name}"]
labels = { name = "{name}" }
unique = { key = "one:{name}", on_conflict = "reject" }
[tasks.body]
type = "object"
properties.seconds = { type = "number", default = 0 }

[[tasks]]
name = "demo.fail"
endpoint = "POST /flaky"
args = ["{kind}"]
retry = { max = 2, delay = 0.1, on = ["ValueError", "RuntimeError"], never = ["KeyError"] }
[tasks.body]
type = "object"
properties.kind = { type = "string" }
"#;

/// An environment with these entries that the tests here share.
fn shared() -> Shared {
    static SHARED: OnceLock<Harness> = OnceLock::new();
    Shared::over(&SHARED, &Options { config: ENTRIES.into(), ..Options::default() })
}
