//! A call by name against entries of every shape.

use proptest::prelude::*;

use super::*;
use crate::config::{Config, Role};
use celery::task::Json;

const ENTRIES: &str = r#"
[[tasks]]
name = "words.count"
endpoint = "POST /count"
command = ["./count-words.sh"]
args = ["{files}"]
time_limit = "30s"
[tasks.body]
type = "object"
required = ["files"]
properties.files = { type = "string", pattern = "^[A-Za-z0-9_.*-]+$" }

[[tasks]]
name = "crawl"
endpoint = "POST /crawl/{category}"
args = ["{category}"]
kwargs = { depth = "{depth}", mode = "safe" }
queue = "crawl-{region}"
limits = [{ key = "region:{region}", max = 2 }]
values.category = { job = "JOB", news = "NEWS" }
[tasks.body]
type = "object"
properties.depth = { type = "integer", minimum = 1, default = 3 }
properties.region = { type = "string", enum = ["eu", "us"] }

[[tasks]]
name = "report"
args = ["report-{id}-{kind}.pdf", { region = "{region}", ids = ["{id}"] }]
queue = "reports-{region}"
limits = [{ key = "id:{id}", max = 1 }]
[tasks.body]
type = "object"
required = ["id", "region"]
properties.id = { type = "integer", maximum = 99 }
properties.kind = { type = "string" }
properties.region = { type = "string", enum = ["eu", "us"] }

[[tasks]]
name = "mail"
endpoint = "POST /mail"
args = ["{to}"]
split.list = { field = "to", items = 2 }
max_items = { to = 4 }
[tasks.body]
type = "object"
required = ["to"]
properties.to = { type = "array", items = { type = "string" } }

[[tasks]]
name = "add"
args = ["{x}", "{y}"]
[tasks.body]
type = "object"
required = ["x", "y"]
properties.x = { type = "number" }
properties.y = { type = "number" }

[[tasks]]
name = "add"
args = ["{words}"]
[tasks.body]
type = "object"
required = ["words"]
properties.words = { type = "array" }

[[tasks]]
name = "anything"
queue = "q"

[[tasks]]
name = "open"
open = true
args = ["{x}"]
[tasks.body]
type = "object"
properties.x = { type = "integer" }
"#;

fn catalog() -> Catalog {
    Catalog::compile(&Config::parse(Role::Dev, ENTRIES).unwrap()).unwrap()
}

fn raw(text: &str) -> Json {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn judged(name: &str, args: &str, kwargs: &str, fed: bool) -> Result<Admitted, Vec<(String, String)>> {
    let (args, kwargs) = (raw(args), raw(kwargs));
    let call =
        NamedCall { name, args: &args, kwargs: &kwargs, queue: None, soft_time_limit: None, time_limit: None, fed };
    let told = |wrong: Invalid| (wrong.pointer, wrong.detail);
    catalog().admit(call).map_err(|wrong| wrong.into_iter().map(told).collect())
}

#[track_caller]
fn assert_refused(name: &str, args: &str, kwargs: &str, at: &str) {
    let wrong = judged(name, args, kwargs, false).expect_err("refused");
    assert!(wrong.iter().any(|(pointer, _)| pointer == at), "{at} in {wrong:?}");
}

#[test]
fn the_pattern_of_the_shipped_example_holds_by_name() {
    assert!(judged("words.count", r#"["*.toml"]"#, "{}", false).is_ok());
    assert_refused("words.count", r#"["/etc/pass*"]"#, "{}", "/args/0");
    assert_refused("words.count", r#"["a", "/etc/passwd"]"#, "{}", "/args/1");
    assert_refused("words.count", "[]", "{}", "/args");
    assert_refused("words.count", r#"["a"]"#, r#"{"files": "/etc/passwd"}"#, "/kwargs/files");
    assert_refused("words.count", r#"[["a"]]"#, "{}", "/args/0");
}

#[test]
fn a_step_that_gets_a_result_is_judged_by_the_rest() {
    assert!(judged("words.count", "[]", "{}", true).is_ok());
    assert!(judged("words.count", r#"["/etc/passwd"]"#, "{}", true).is_err());
    assert!(judged("add", "[4]", "{}", true).is_ok());
    assert!(judged("add", r#"["4"]"#, "{}", true).is_err());
    let wrong = judged("report", "[]", "{}", true).unwrap_err();
    assert_eq!(wrong[0].0, "/args/0", "{wrong:?}");
}

#[test]
fn words_defaults_literals_queues_and_limits_are_those_of_the_endpoint() {
    let kwargs = r#"{"depth": 3, "mode": "safe"}"#;
    let admitted = judged("crawl", r#"["JOB"]"#, kwargs, false).unwrap();
    assert_eq!(admitted.limits[0].key, "region:null");
    assert_refused("crawl", r#"["OTHER"]"#, kwargs, "/args/0");
    assert_refused("crawl", r#"["JOB"]"#, r#"{"depth": 0, "mode": "safe"}"#, "/kwargs/depth");
    assert_refused("crawl", r#"["JOB"]"#, r#"{"depth": 3, "mode": "fast"}"#, "/kwargs/mode");
    assert_refused("crawl", r#"["JOB"]"#, r#"{"depth": 3}"#, "/kwargs/mode");
}

#[test]
fn fields_are_read_out_of_longer_texts() {
    let args = r#"["report-7-final.pdf", {"region": "eu", "ids": [7]}]"#;
    let admitted = judged("report", args, "{}", false).unwrap();
    assert_eq!(admitted.queue.unwrap().as_str(), "reports-eu");
    assert_eq!(admitted.limits, [KeyLimit::at_most("id:7", 1)]);
    assert_refused("report", r#"["report-7-x.pdf", {"region": "eu", "ids": [8]}]"#, "{}", "/args/1/ids/0");
    assert_refused("report", r#"["report-100-x.pdf", {"region": "eu", "ids": [100]}]"#, "{}", "/args/0");
    assert_refused("report", r#"["report-7-x.pdf", {"region": "moon", "ids": [7]}]"#, "{}", "/args/1/region");
    assert_refused("report", r#"["/etc/passwd", {"region": "eu", "ids": [7]}]"#, "{}", "/args/0");
    assert_refused("report", r#"["report-7-x.pdf", {"region": "eu", "ids": [7], "x": 1}]"#, "{}", "/args/1/x");
}

#[test]
fn a_call_by_name_is_never_larger_than_a_chunk() {
    assert!(judged("mail", r#"[["a", "b"]]"#, "{}", false).is_ok());
    assert_refused("mail", r#"[["a", "b", "c"]]"#, "{}", "/args");
    assert_refused("mail", r#"[["a", "b", "c", "d", "e"]]"#, "{}", "/args/0");
}

#[test]
fn any_entry_of_the_name_may_accept_it() {
    assert!(judged("add", "[1, 2]", "{}", false).is_ok());
    assert!(judged("add", "[[1]]", "{}", false).is_ok());
    assert_refused("add", r#"["1", 2]"#, "{}", "/args/0");
}

#[test]
fn entries_without_arguments_and_open_ones_limit_none() {
    assert_eq!(judged("anything", r#"[1, "x"]"#, r#"{"a": 1}"#, false).unwrap().queue.unwrap().as_str(), "q");
    assert!(judged("open", r#"["x", 2]"#, r#"{"a": 1}"#, false).is_ok());
    assert!(judged("not.in.the.catalog", "[1]", "{}", false).is_ok());
}

#[test]
fn queue_and_times_are_the_entrys() {
    let (args, kwargs, queue) = (raw(r#"["a"]"#), raw("{}"), QueueName::parse("other").unwrap());
    let call = NamedCall {
        name: "words.count",
        args: &args,
        kwargs: &kwargs,
        queue: None,
        soft_time_limit: None,
        time_limit: Some(31.0),
        fed: false,
    };
    let pointer = |call| catalog().admit(call).unwrap_err()[0].pointer.clone();
    assert_eq!(pointer(call), "/time_limit");
    assert_eq!(pointer(NamedCall { name: "anything", time_limit: None, queue: Some(&queue), ..call }), "/queue");
    assert!(catalog().admit(NamedCall { time_limit: Some(5.0), ..call }).is_ok());
}

proptest! {
    /// Every accepted call is one that the endpoint would have made for some request.
    #[test]
    fn what_is_accepted_could_have_come_through_the_endpoint(files in "[ -~]{0,12}") {
        let args = serde_json::json!([files]).to_string();
        let body = serde_json::json!({"files": files}).to_string();
        let catalog = catalog();
        let through = catalog.entry("words.count").unwrap().resolve(&[], &body);
        prop_assert_eq!(judged("words.count", &args, "{}", false).is_ok(), through.is_ok());
    }
}
