//! Schemas of submissions: the parser of this recursive type is hand-written (`celery::task::reader`), and so are these.

use serde_json::{Map, Value, json};

/// `Signature`, `Submission`, their forms, and the bodies of the canvas endpoints. Each form has its own name, because client
/// generators support recursion only through names.
pub fn schemas() -> Map<String, Value> {
    let signatures = json!({"type": "array", "items": {"$ref": "#/components/schemas/Signature"}});
    let mut schemas = object(json!({
        "Signature": {"description": "A call, or a composition of calls.", "oneOf": references("Signature")},
        "Submission": {"description": "A signature, and options that only the top level may have.", "oneOf": references("Submission")},
        "Tasks": form("tasks", &signatures, &extras(true)),
        "Chord": chord(&extras(true)),
    }));
    schemas.extend(forms("Signature", &Map::new(), &Map::new()));
    schemas.extend(forms("Submission", &extras(false), &extras(true)));
    schemas.insert(WHOLE.to_owned(), form("dag", &dag(), &extras(true)));
    if let Some(Value::Array(all)) = schemas.get_mut("Submission").and_then(|schema| schema.get_mut("oneOf")) {
        all.push(json!({"$ref": format!("#/components/schemas/{WHOLE}")}));
    }
    schemas
}

const FORMS: [&str; 6] = ["Task", "Chain", "Group", "Chord", "Wait", "Sleep"];
/// A DAG is the whole of a submission.
const WHOLE: &str = "DagSubmission";

fn references(suffix: &str) -> Vec<Value> {
    FORMS.iter().map(|form| json!({"$ref": format!("#/components/schemas/{form}{suffix}")})).collect()
}

/// `TaskSignature`, `ChainSignature` …: a call with `of_call` beside its options, and the compositions with `of_canvas`.
fn forms(suffix: &str, of_call: &Map<String, Value>, of_canvas: &Map<String, Value>) -> Map<String, Value> {
    let signature = json!({"$ref": "#/components/schemas/Signature"});
    let chain = json!({"type": "array", "items": signature, "minItems": 1});
    let group = json!({"type": "array", "items": signature});
    let bodies = [
        json!({"type": "object", "required": ["task"], "additionalProperties": false, "properties": joined(&call(), of_call)}),
        form("chain", &chain, of_canvas),
        form("group", &group, of_canvas),
        form("chord", &chord(&Map::new()), of_canvas),
        form("wait", &wait(), &joined(&beside_pause(), of_call)),
        form("sleep", &sleep(), &joined(&beside_pause(), of_call)),
    ];
    FORMS.iter().zip(bodies).map(|(form, body)| (format!("{form}{suffix}"), body)).collect()
}

/// An object whose only required member is `name`.
fn form(name: &str, schema: &Value, extras: &Map<String, Value>) -> Value {
    let own = Map::from_iter([(name.to_owned(), schema.clone())]);
    json!({"type": "object", "required": [name], "additionalProperties": false, "properties": joined(&own, extras)})
}

/// Nodes: a signature each, and what it waits for.
fn dag() -> Value {
    let after =
        json!({"type": "array", "items": {"type": "string"}, "description": "Names of the nodes that it waits for"});
    let node = json!({"allOf": [
        {"type": "object", "properties": {"after": after}},
        {"type": "object", "description": "A signature; texts in its arguments may read results of predecessors: `{fetch}`, `{fetch.total}`"},
    ]});
    json!({"type": "object", "required": ["nodes"], "additionalProperties": false,
        "description": "Tasks with names, each run when those that it waits for have succeeded",
        "properties": {"nodes": {"type": "object", "minProperties": 1, "maxProperties": 1_000, "additionalProperties": node}}})
}

fn wait() -> Value {
    json!({"type": "object", "required": ["name"], "additionalProperties": false,
    "description": "Waits for an answer from outside, which becomes the result of the step",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "description": "The name that is shown to people"},
        "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1e9, "description": "Seconds; without it as long as the history is kept"},
        "schema": {"type": ["object", "boolean", "null"], "description": "JSON Schema of the answer"},
        "on_timeout": {"enum": ["fail", "skip"], "default": "fail", "description": "`skip` goes on as if the step were not there"},
    }})
}

fn sleep() -> Value {
    json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9, "description": "Seconds; the next step gets the input of this step"})
}

/// Members of a step that the gateway carries out itself.
fn beside_pause() -> Map<String, Value> {
    let known = ["immutable", "task_id", "labels", "link", "link_error"];
    call().into_iter().filter(|(name, _)| known.contains(&name.as_str())).collect()
}

fn call() -> Map<String, Value> {
    let seconds =
        |description: &str| json!({"type": "number", "minimum": 0, "maximum": 1e9, "description": description});
    let limit = |description: &str| json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9, "description": description});
    let signatures = json!({"type": "array", "items": {"$ref": "#/components/schemas/Signature"}});
    object(json!({
        "task": {"type": "string", "minLength": 1, "maxLength": 255, "description": "The registered name", "examples": ["tasks.add"]},
        "args": {"type": "array", "items": {}, "description": "Positional arguments"},
        "kwargs": {"type": "object", "description": "Keyword arguments"},
        "queue": {"type": "string", "minLength": 1, "maxLength": 255},
        "priority": {"type": "integer", "minimum": 0, "maximum": 9, "description": "0 is served first"},
        "countdown": seconds("Seconds until it may run; never together with `eta`"),
        "eta": {"type": "string", "format": "date-time", "description": "When it may run"},
        "expires": {"description": "The task does not start after this many seconds, or after this time",
            "oneOf": [limit("Seconds"), {"type": "string", "format": "date-time"}]},
        "ignore_result": {"type": "boolean"},
        "soft_time_limit": limit("Seconds"),
        "time_limit": limit("Seconds"),
        "immutable": {"type": "boolean", "description": "The predecessor's result is not passed in"},
        "task_id": {"type": "string", "minLength": 1, "maxLength": 255, "description": "An id of the client's choice; default a new one"},
        "headers": {"type": "object", "description": "Custom message headers"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "For lists and search"},
        "retry": {"type": "object", "description": "Retry policy, honoured by the Rust worker",
            "properties": {"max": {"type": "integer", "minimum": 0}, "delay": seconds("Seconds"), "backoff": {"type": "number"}, "cap": seconds("Seconds"), "jitter": {"type": "boolean"},
                "on": {"type": "array", "items": {"type": "string"}, "description": "Exception classes after which the task runs again; default all"},
                "never": {"type": "array", "items": {"type": "string"}, "description": "Exception classes after which it does not"}}},
        "link": signatures,
        "link_error": signatures,
    }))
}

fn chord(extras: &Map<String, Value>) -> Value {
    let own = object(json!({
        "header": {"type": "array", "items": {"$ref": "#/components/schemas/Signature"}},
        "body": {"$ref": "#/components/schemas/Signature"},
    }));
    json!({"type": "object", "required": ["header", "body"], "additionalProperties": false, "properties": joined(&own, extras)})
}

/// Members of the top level. `labels` belong to the call itself, unless it is a canvas.
fn extras(canvas: bool) -> Map<String, Value> {
    let mut extras = object(json!({
        "unique": {"type": "object", "required": ["key"], "additionalProperties": false,
            "description": "At most one such task",
            "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 255},
                "while": {"oneOf": [{"const": "active"}, {"type": "number", "exclusiveMinimum": 0}], "default": "active"},
                "on_conflict": {"enum": ["join", "reject", "replace"], "default": "join", "description": "What happens when a task holds the key: answer with it, refuse with 409, or revoke it and start"}}},
        "limits": {"type": "array", "maxItems": 16, "description": "Limits by key: how many tasks of a key may be under way, or start in which time; at least one of `max` and `rate`",
            "items": {"type": "object", "required": ["key"], "additionalProperties": false, "properties": {"key": key(),
                "max": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Tasks of the key under way at the same time"},
                "rate": {"type": "string", "examples": ["1/m"], "description": "Starts of the key: `10/s`, `1/m`, `1000/h`, `5/d`, spaced evenly"},
                "on_limit": on_limit()}}},
        "on_limit": on_limit(),
        "fair": {"type": "object", "required": ["key"], "additionalProperties": false,
            "description": "Fair sharing: the keys of a queue take turns",
            "properties": {"key": key(), "weight": {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 1,
                "description": "A key of weight 2 gets twice the share of a key of weight 1"}}},
        "webhooks": {"type": "array", "maxItems": 16, "items": {"type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {"url": {"type": "string", "format": "uri"}, "on": {"type": "array", "items": {"type": "string"}}}}},
    }));
    if canvas {
        extras.insert("labels".to_owned(), json!({"type": "object", "additionalProperties": {"type": "string"}}));
    }
    extras
}

fn key() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

fn on_limit() -> Value {
    json!({"enum": ["hold", "reject", "drop-oldest"], "default": "hold",
        "description": "What happens to a task that a limit does not let start now: it waits, it is refused (429), or it waits and tasks of the key that waited before it are revoked"})
}

fn joined(left: &Map<String, Value>, right: &Map<String, Value>) -> Map<String, Value> {
    left.iter().chain(right).map(|(name, schema)| (name.clone(), schema.clone())).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
