//! Schemas of webhook documents, written by hand because `gateway::webhooks` also parses them by hand.

use serde_json::{Map, Value, json};

/// `WebhookDocument`, `WebhookPatch` and `WebhookRotation`.
pub fn schemas() -> Map<String, Value> {
    let members = json!({
        "url": {"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": 2048, "description": "Public, unless the configuration allows more", "examples": ["https://example.org/hook"]},
        "on": {"type": "array", "maxItems": 32, "items": {"type": "string", "minLength": 1, "maxLength": 64}, "default": ["success", "failure"],
            "description": "`success`, `failure`, `retry`, a phase such as `running`, a status such as `PROGRESS`, or `*` for every change of a task; of a registered webhook also `incident`"},
        "tasks": {"type": "array", "maxItems": 100, "items": {"type": "string", "minLength": 1, "maxLength": 255}, "description": "Patterns of task names, such as `tasks.*`; all tasks when empty"},
        "description": {"type": "string", "maxLength": 500},
        "enabled": {"type": "boolean", "default": true},
        "secret": {"type": "string", "pattern": "^whsec_[A-Za-z0-9+/]{32,88}={0,2}$", "description": "24 to 64 bytes in base64; generated when it is not given"},
    });
    let Value::Object(schemas) = json!({
        "WebhookDocument": {"type": "object", "required": ["url"], "additionalProperties": false, "properties": members,
            "examples": [{"url": "https://example.org/hook", "on": ["success", "failure"], "tasks": ["tasks.*"]}]},
        "WebhookPatch": {"type": "object", "additionalProperties": false, "properties": members,
            "examples": [{"enabled": false}]},
        "WebhookRotation": {"type": "object", "additionalProperties": false,
            "properties": {
                "overlap": {"type": "number", "minimum": 0, "maximum": 2_592_000, "default": 86_400, "description": "How many seconds the previous secret also signs"},
                "secret": members["secret"],
            },
            "examples": [{"overlap": 3600}]},
    }) else {
        unreachable!("written as an object above")
    };
    schemas
}
