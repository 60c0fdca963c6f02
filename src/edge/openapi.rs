//! The contract as OpenAPI 3.1: the part that every gateway has (`openapi/openapi.json`), and what the catalog adds.

use serde_json::{Map, Value, json};
use utoipa::openapi::{ContactBuilder, InfoBuilder, OpenApi};

use super::access::{self, ENDPOINT, Need, STREAM};
use super::{answer, base, links, schedule_schema, signature_schema, webhook_schema};
use crate::catalog::{Catalog, Entry, Stream, Upload};
use crate::config::Auth;

/// Media type of a refusal.
const PROBLEM: &str = "application/problem+json";

/// The part that does not depend on a configuration, as committed in `openapi/openapi.json`.
pub fn fixed() -> String {
    let mut text = serde_json::to_string_pretty(&base()).expect("a document is JSON");
    text.push('\n');
    text
}

/// The contract of a gateway with this catalog.
pub fn running(catalog: &Catalog, auth: Auth) -> String {
    let mut document = base();
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for entry in catalog.entries() {
            if let Some(endpoint) = &entry.endpoint {
                let mut operation = operation(entry, &endpoint.params);
                secured(&mut operation, ENDPOINT);
                with_operation(paths, &endpoint.path, "post", operation);
            }
            if let Some(stream) = &entry.stream {
                let mut operation = stream_operation(entry, stream);
                secured(&mut operation, STREAM);
                with_operation(paths, &stream.at.path, "get", operation);
            }
        }
    }
    let base = base::path("");
    if !base.is_empty() {
        document["servers"] = json!([{"url": base}]);
    }
    if auth == Auth::None {
        unsecured(&mut document);
    }
    document.to_string()
}

/// The document generated from the routes, with the hand-written schemas.
fn base() -> Value {
    let mut api: OpenApi = super::router::documented().into_openapi();
    api.info = InfoBuilder::new()
        .title("taskgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The HTTP front door of a Celery fleet: the queue that can answer for every task."))
        .contact(Some(ContactBuilder::new().build()))
        .build();
    let mut document = serde_json::to_value(&api).expect("a document is JSON");
    if let Some(info) = document.get_mut("info").and_then(Value::as_object_mut) {
        info.remove("contact");
        info.insert("license".to_owned(), json!({"name": "Apache-2.0", "identifier": "Apache-2.0"}));
    }
    let mut carried = Map::new();
    for operation in operations(&mut document) {
        answer::components(operation, &mut carried);
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        schemas.extend(carried);
        schemas.extend(signature_schema::schemas());
        schemas.extend(schedule_schema::schemas());
        schemas.extend(webhook_schema::schemas());
    }
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, methods) in paths.iter_mut() {
            for (method, operation) in methods.as_object_mut().into_iter().flatten() {
                with_default(operation);
                links::link(operation);
                with_group(operation);
                with_submission(operation);
                secured(operation, access::of_operation(method, path).unwrap_or(Need::Nothing));
            }
        }
    }
    document["servers"] = json!([{"url": "/"}]);
    document["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "tg_…",
        "description": "A token of `taskgate token create`; an operation's requirement names the scope that the token must have.",
    }});
    document
}

/// Adds the operation's security requirement.
fn secured(operation: &mut Value, need: Need) {
    let Need::Token { scope, .. } = need else {
        operation["security"] = json!([]);
        return;
    };
    operation["security"] = json!([{"bearer": [scope.as_str()]}]);
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        responses.entry("401").or_insert_with(|| problem("No token, or one that is unknown, expired or revoked"));
        responses.entry("403").or_insert_with(|| problem("The token lacks the scope, or is limited to other tasks"));
    }
}

/// Removes all security requirements, for a gateway without tokens.
fn unsecured(document: &mut Value) {
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.remove("securitySchemes");
    }
    for operation in operations(document).filter_map(Value::as_object_mut) {
        operation.remove("security");
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut).flat_map(Map::values_mut)
}

/// Operations that also accept a group's id, and then answer with the group.
const OF_GROUPS: [&str; 3] = ["get_result", "get_task", "watch_task"];

fn with_group(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    if !OF_GROUPS.contains(&id) {
        return;
    }
    for status in ["200", "202"] {
        let place = format!("/responses/{status}/content/application~1json/schema");
        if let Some(schema) = operation.pointer_mut(&place) {
            *schema = json!({"anyOf": [schema.take(), {"$ref": "#/components/schemas/Group"}]});
        }
    }
}

/// Operations that submit; all read the same headers.
const SUBMITS: [&str; 5] = ["submit_task", "submit_chain", "submit_group", "submit_chord", "run_schedule"];

fn with_submission(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    if !SUBMITS.contains(&id) {
        return;
    }
    if let Some(operation) = operation.as_object_mut()
        && let Some(parameters) = operation.entry("parameters").or_insert_with(|| json!([])).as_array_mut()
    {
        parameters.extend(header_parameters());
    }
}

fn one_of(schemas: &[&str]) -> Value {
    let references = schemas.iter().map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
    json!({"anyOf": references.collect::<Vec<_>>()})
}

fn documented(description: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

/// Adds the default response: every operation may be refused for general reasons (route, size, timeout, ledger).
fn with_default(operation: &mut Value) {
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        responses.entry("default").or_insert_with(|| problem("A problem; its `type` is explained at /problems/"));
    }
}

fn problem(description: &str) -> Value {
    json!({"description": description, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}})
}

/// Adds an operation; two methods may share a path.
pub(super) fn with_operation(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
}

/// The operation of an entry's stream.
fn stream_operation(entry: &Entry, stream: &Stream) -> Value {
    let params = &stream.at.params;
    let last = json!({"name": "Last-Event-ID", "in": "header", "required": false, "schema": {"type": "string"},
        "description": "The id of the last event received; ignored when a newer task has replaced the old one"});
    json!({
        "tags": ["catalog"],
        "operationId": format!("{}_stream", operation_id(&stream.at.path)),
        "summary": format!("What happens to the newest {} of these labels", entry.name),
        "description": "Server-sent events as of `GET /v1/tasks/{id}/events`, of the newest task whose labels match the path. An event's id is the task's id, a colon and its `seq`.",
        "parameters": params.iter().map(|param| parameter(entry, param)).chain([last]).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "The stream, or with `Accept: application/json` the events so far", "content": {
                "text/event-stream": {"schema": {"type": "string"}},
                "application/json": {"schema": {"$ref": "#/components/schemas/EventList"}}}},
            "204": {"description": "Finished, and the client has everything"},
            "404": problem("No task has these labels"),
            "default": problem("A problem; its `type` is explained at /problems/"),
        },
    })
}

/// An entry's own operation.
fn operation(entry: &Entry, params: &[String]) -> Value {
    let name = entry.name.as_str();
    let mut operation = json!({
        "tags": ["catalog"],
        "operationId": operation_id(entry.endpoint.as_ref().map_or("", |endpoint| &endpoint.path)),
        "summary": entry.summary.clone().unwrap_or_else(|| format!("Submit {name}")),
        "description": entry.description.clone().unwrap_or_else(|| format!("Submits `{name}`.")),
        "parameters": params.iter().map(|param| parameter(entry, param)).chain(header_parameters()).collect::<Vec<_>>(),
        "responses": {
            "200": documented("Finished while waiting", &one_of(&["Result", "Group"])),
            "202": documented("Accepted; the path's parameters and the entry's own fields are in the answer too", &accepted(entry, params)),
            "422": problem("The body does not fit"),
            "default": problem("A problem; its `type` is explained at /problems/"),
        },
    });
    if !entry.values.is_empty() {
        operation["responses"]["404"] = problem("A value of the path is not known");
    }
    if let Some(upload) = &entry.upload {
        operation["requestBody"] = form(entry, upload);
        operation["responses"]["413"] = problem("The file is too large");
        operation["responses"]["415"] = problem("The file is of a type that is not taken");
    } else if let Some(body) = &entry.body {
        operation["requestBody"] = json!({
            "required": body.schema.get("required").is_some(),
            "content": {"application/json": {"schema": body.schema, "example": example(&body.schema)}},
        });
    }
    operation
}

/// The operation of a task that workers have told of; `schema` is of its arguments by name.
pub(super) fn learned_operation(name: &str, schema: &Value, auth: Auth) -> Value {
    let path = format!("/tasks/{name}");
    let mut operation = json!({
        "tags": ["catalog"],
        "operationId": operation_id(&path).replace("catalog_", "learned_"),
        "summary": format!("Submit {name}"),
        "description": format!("Submits `{name}` with its arguments by name. Its types are those that workers tell."),
        "parameters": header_parameters(),
        "requestBody": {"required": false, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": documented("Finished while waiting", &one_of(&["Result", "Group"])),
            "202": documented("Accepted", &json!({"$ref": "#/components/schemas/Accepted"})),
            "422": problem("An argument is of another type"),
            "default": problem("A problem; its `type` is explained at /problems/"),
        },
    });
    if auth != Auth::None {
        secured(&mut operation, ENDPOINT);
    }
    operation
}

/// The file is a part of the form; the fields of the body are the others.
fn form(entry: &Entry, upload: &Upload) -> Value {
    let mut schema = entry.body.as_ref().map_or_else(|| json!({"type": "object"}), |body| body.schema.clone());
    schema["properties"][&upload.field] = json!({"type": "string", "format": "binary", "description": format!("The file, of at most {} bytes", upload.max)});
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    schema["required"] = required.into_iter().chain([json!(upload.field)]).collect();
    let mut form = json!({"schema": schema});
    let types = upload.types();
    if !types.is_empty() {
        form["encoding"] = json!({&upload.field: {"contentType": types.join(", ")}});
    }
    json!({"required": true, "content": {"multipart/form-data": form}})
}

fn operation_id(path: &str) -> String {
    let word: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("catalog_{}", word.trim_matches('_'))
}

fn parameter(entry: &Entry, name: &str) -> Value {
    let words: Vec<&String> = entry.values.get(name).map(|words| words.keys().collect()).unwrap_or_default();
    let mut schema = json!({"type": "string", "minLength": 1});
    let mut example = json!("1");
    if let Some(first) = words.first() {
        schema["enum"] = json!(words);
        example = json!(first);
    }
    json!({"name": name, "in": "path", "required": true, "schema": schema, "example": example})
}

fn header_parameters() -> [Value; 3] {
    let header = |name: &str, description: &str| json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"}, "description": description});
    [
        header("Prefer", "`wait=N`: wait up to N seconds (at most 60) for the end"),
        header("Idempotency-Key", "Makes a repetition harmless: it gets the first answer"),
        header("traceparent", "Continued into the messages"),
    ]
}

fn accepted(entry: &Entry, params: &[String]) -> Value {
    let reference = json!({"$ref": "#/components/schemas/Accepted"});
    let own = entry.response_fields();
    if params.is_empty() && own.is_empty() {
        return reference;
    }
    let texts = params.iter().map(|param| (param.clone(), json!({"type": "string"})));
    let properties: Map<String, Value> =
        texts.chain(own.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone()))).collect();
    let required: Vec<&String> = properties.keys().collect();
    json!({"allOf": [reference, {"type": "object", "properties": properties, "required": required}]})
}

/// An example built from the schema's examples and defaults, so that a first try works.
fn example(schema: &Value) -> Value {
    if let Some(example) =
        schema.pointer("/examples/0").or_else(|| schema.get("example")).or_else(|| schema.get("default"))
    {
        return example.clone();
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            Value::Object(properties.iter().map(|(name, schema)| (name.clone(), example(schema))).collect())
        }
        Some("array") => json!(schema.get("items").map(example).into_iter().collect::<Vec<_>>()),
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1.5)),
        Some("boolean") => json!(true),
        Some("string") => json!("text"),
        _ => Value::Null,
    }
}
