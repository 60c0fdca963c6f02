//! Schemas of what clients submit: one recursive type, read by hand (`task::signature`) and so described by hand.

use serde_json::{Map, Value, json};

/// `Signature`, `Submission` and the bodies of the canvas endpoints.
pub fn schemas() -> Map<String, Value> {
    let signature = json!({"$ref": "#/components/schemas/Signature"});
    let signatures = json!({"type": "array", "items": signature});
    let Value::Object(schemas) = json!({
        "Signature": {
            "description": "A call, or a composition of calls.",
            "oneOf": [
                {"title": "Task", "type": "object", "required": ["task"], "additionalProperties": false, "properties": call()},
                {"title": "Chain", "type": "object", "required": ["chain"], "additionalProperties": false,
                    "properties": {"chain": {"type": "array", "items": signature, "minItems": 1}}},
                {"title": "Group", "type": "object", "required": ["group"], "additionalProperties": false,
                    "properties": {"group": signatures}},
                {"title": "Chord", "type": "object", "required": ["chord"], "additionalProperties": false,
                    "properties": {"chord": chord(&Map::new())}},
            ],
        },
        "Submission": {
            "description": "A signature, and what only the top level may say.",
            "oneOf": [
                {"title": "Task", "type": "object", "required": ["task"], "additionalProperties": false, "properties": joined(&call(), &extras(false))},
                {"title": "Chain", "type": "object", "required": ["chain"], "additionalProperties": false,
                    "properties": joined(&object(json!({"chain": {"type": "array", "items": signature, "minItems": 1}})), &extras(true))},
                {"title": "Group", "type": "object", "required": ["group"], "additionalProperties": false,
                    "properties": joined(&object(json!({"group": signatures})), &extras(true))},
                {"title": "Chord", "type": "object", "required": ["chord"], "additionalProperties": false,
                    "properties": joined(&object(json!({"chord": chord(&Map::new())})), &extras(true))},
            ],
        },
        "Tasks": {"type": "object", "required": ["tasks"], "additionalProperties": false,
            "properties": joined(&object(json!({"tasks": signatures})), &extras(true))},
        "Chord": chord(&extras(true)),
    }) else {
        unreachable!("written as an object above")
    };
    schemas
}

fn call() -> Map<String, Value> {
    let seconds =
        |description: &str| json!({"type": "number", "minimum": 0, "maximum": 1e9, "description": description});
    let limit = |description: &str| json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9, "description": description});
    let signatures = json!({"type": "array", "items": {"$ref": "#/components/schemas/Signature"}});
    object(json!({
        "task": {"type": "string", "minLength": 1, "maxLength": 255, "description": "The registered name", "examples": ["tasks.add"]},
        "args": {"type": "array", "description": "Positional arguments"},
        "kwargs": {"type": "object", "description": "Keyword arguments"},
        "queue": {"type": "string", "minLength": 1, "maxLength": 255},
        "priority": {"type": "integer", "minimum": 0, "maximum": 9, "description": "0 is served first"},
        "countdown": seconds("Seconds until it may run; never together with `eta`"),
        "eta": {"type": "string", "format": "date-time", "description": "When it may run"},
        "expires": {"description": "After so many seconds, or at this time, it does not start any more",
            "oneOf": [limit("Seconds"), {"type": "string", "format": "date-time"}]},
        "ignore_result": {"type": "boolean"},
        "soft_time_limit": limit("Seconds"),
        "time_limit": limit("Seconds"),
        "immutable": {"type": "boolean", "description": "The predecessor's result is not passed in"},
        "task_id": {"type": "string", "minLength": 1, "maxLength": 255, "description": "Own id; a new one is made without"},
        "headers": {"type": "object", "description": "Custom message headers"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "For lists and search"},
        "retry": {"type": "object", "description": "Retry policy, honoured by the Rust worker",
            "properties": {"max": {"type": "integer", "minimum": 0}, "delay": seconds("Seconds"), "backoff": {"type": "number"}, "cap": seconds("Seconds"), "jitter": {"type": "boolean"}}},
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

/// `labels` stand in the call itself, unless it is a canvas.
fn extras(canvas: bool) -> Map<String, Value> {
    let mut extras = object(json!({
        "unique": {"type": "object", "required": ["key"], "additionalProperties": false,
            "description": "Join an equal submission instead of running twice",
            "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 255},
                "while": {"oneOf": [{"const": "active"}, {"type": "number", "exclusiveMinimum": 0}], "default": "active"}}},
        "limits": {"type": "array", "maxItems": 16, "items": {"type": "object", "required": ["key", "max"], "additionalProperties": false,
            "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 255}, "max": {"type": "integer", "minimum": 1, "maximum": 1_000_000}}}},
        "webhooks": {"type": "array", "maxItems": 16, "items": {"type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {"url": {"type": "string", "format": "uri"}, "on": {"type": "array", "items": {"type": "string"}}}}},
    }));
    if canvas {
        extras.insert("labels".to_owned(), json!({"type": "object", "additionalProperties": {"type": "string"}}));
    }
    extras
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
