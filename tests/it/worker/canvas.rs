//! Canvases that cross between Python workers and ours, both ways.

use serde_json::json;

use super::process::Rust;
use crate::harness::{Celery, CeleryOptions, Version};

fn crosses(version: Version) {
    let rust = Rust::start();
    let celery = Celery::start(&rust.redis, CeleryOptions { version, ..CeleryOptions::default() });
    let said = rust.ask_with(
        version,
        r#"
def run(canvas):
    return failure(canvas.apply_async(), 20)
tell({
    "chain": run(chain(rs("add", 1, 2), py("add", 10), rs("mul", 2), py("mul", 3))),
    "group": run(group(rs("add", 1, 1), py("add", 2, 2))),
    "chord_rs_body": [run(chord([rs("add", n, n) if n % 2 else py("add", n, n) for n in range(6)], rs("xsum"))) for _ in range(3)],
    "chord_py_body": run(chord([rs("add", 1, 1), py("add", 2, 2), rs("add", 3, 3)], py("identity"))),
    "chord_in_chain": run(chain(rs("add", 1, 1), group(py("add", 10), rs("add", 20)), rs("xsum"), py("add", 100))),
    "two_groups": run(chain(group(rs("add", 1, 1), py("add", 2, 2)), py("xsum"), group(rs("add", 1), py("add", 2)), rs("xsum"))),
    "body_chain": run(chord([rs("add", 1, 1), py("add", 2, 2)], chain(rs("xsum"), py("mul", 10)))),
    "nested_header": run(chord([chord([rs("add", 1, 1), py("add", 2, 2)], rs("xsum")), rs("add", 3, 3)], rs("xsum"))),
    "group_at_end": run(chain(py("add", 1, 1), group(rs("add", 1), rs("mul", 5)))),
    "chord_of_chains": run(chord([chain(rs("add", 1, 1), py("mul", 2)), chain(py("add", 2, 2), rs("mul", 2))], rs("xsum"))),
    "nested_results": run(chord([chain(rs("add", 1, 1), group(rs("add", 10), py("add", 20))), rs("add", 3, 3)], py("identity"))),
    "chain_fails": run(chain(rs("fail", "KeyError", "no"), py("add", 1))),
    "chord_fails_rs": run(chord([rs("fail", "ValueError", "no"), py("add", 1, 1)], py("identity"))),
    "chord_fails_py": run(chord([py("fail"), rs("add", 1, 1)], rs("xsum"))),
})"#,
    );
    drop(celery);
    assert_eq!(said["chain"], 78, "{said}");
    assert_eq!(said["group"], json!([2, 4]), "{said}");
    assert_eq!(said["chord_rs_body"], json!([30, 30, 30]), "{said}");
    assert_eq!(said["chord_py_body"], json!([2, 4, 6]), "{said}");
    assert_eq!(said["chord_in_chain"], 134, "{said}");
    assert_eq!(said["two_groups"], 15, "{said}");
    assert_eq!(said["body_chain"], 60, "{said}");
    assert_eq!(said["nested_header"], 12, "{said}");
    assert_eq!(said["group_at_end"], json!([3, 10]), "{said}");
    assert_eq!(said["chord_of_chains"], 12, "{said}");
    assert_eq!(said["nested_results"], json!([[12, 22], 6]), "{said}");
    assert_eq!(said["chain_fails"][0], "KeyError", "{said}");
    for name in ["chord_fails_rs", "chord_fails_py"] {
        let kind = said[name][0].as_str().unwrap_or_default();
        assert!(kind == "ChordError" || kind == "ValueError", "{name}: {said}");
    }
}

#[test]
fn canvases_cross_to_the_newest_celery_and_back() {
    crosses(Version::Latest);
}

/// Without the keys that later versions keep chords with.
#[test]
fn canvases_cross_to_an_older_celery_and_back() {
    crosses(Version::Older);
}

#[test]
fn links_and_errbacks_are_sent_both_ways() {
    let rust = Rust::start();
    let celery = Celery::start(&rust.redis, CeleryOptions::default());
    let said = rust.ask(
        r#"
import uuid
def with_id(sig):
    return sig.set(task_id=str(uuid.uuid4()))
to_py, to_rs, error_py, error_rs = with_id(py("add", 10)), with_id(rs("add", 10)), with_id(py("identity")), with_id(rs("noop"))
send("add", 1, 1, link=[to_py, to_rs]).get(timeout=90)
failed = send("fail", "ValueError", "x", link_error=[error_py, error_rs])
failure(failed)
get = lambda sig: app.AsyncResult(sig.options["task_id"]).get(timeout=90)
tell({"py": get(to_py), "rs": get(to_rs), "error_py": get(error_py) == failed.id, "error_rs": get(error_rs)})
"#,
    );
    drop(celery);
    assert_eq!((&said["py"], &said["rs"], &said["error_py"]), (&json!(12), &json!(12), &json!(true)), "{said}");
    assert!(said["error_rs"].is_null(), "{said}");
}
