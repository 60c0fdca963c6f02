//! The contract that `/openapi.json` answers with: that of the configuration, and an operation for each task that workers have told of.
//!
//! The part of the configuration is written once. The whole document is written again when what was learned has changed.

use std::sync::Mutex;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::openapi::{learned_operation, with_operation};
use crate::catalog::{Annotations, Catalog};
use crate::config::Auth;
use crate::live::learned::Lesson;

/// The document, and what it was written from.
pub struct Contract {
    fixed: Bytes,
    auth: Auth,
    /// The version of what was learned, and the document with it.
    newest: Mutex<(u64, Bytes)>,
}

impl Contract {
    pub fn new(catalog: &Catalog, auth: Auth) -> Self {
        let fixed = Bytes::from(super::openapi::running(catalog, auth));
        Self { newest: Mutex::new((0, fixed.clone())), fixed, auth }
    }

    /// The document with what was learned up to now.
    pub fn with(&self, lesson: &Lesson) -> Bytes {
        if lesson.version == 0 {
            return self.fixed.clone();
        }
        let mut newest = self.newest.lock().expect("nothing panics under this lock");
        if newest.0 != lesson.version {
            *newest = (lesson.version, written(&self.fixed, self.auth, &lesson.hints));
        }
        newest.1.clone()
    }
}

/// An endpoint of the catalog at the same path stays: it answers there.
fn written(fixed: &Bytes, auth: Auth, tasks: &[(String, Annotations)]) -> Bytes {
    let mut document: Value = serde_json::from_slice(fixed).expect("written by this program");
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (name, hints) in tasks {
            let path = format!("/tasks/{name}");
            if paths.get(&path).is_none_or(|known| known.get("post").is_none()) {
                with_operation(paths, &path, "post", learned_operation(name, &schema(hints), auth));
            }
        }
    }
    Bytes::from(document.to_string())
}

/// The arguments by name. Any of them may be null, because a default may be `None` whatever its hint says.
fn schema(hints: &Annotations) -> Value {
    let properties: Map<String, Value> = hints
        .all()
        .map(|(name, written, kinds)| {
            let mut member = json!({"description": written});
            if let Some(kinds) = kinds {
                let mut words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
                if !words.contains(&"null") {
                    words.push("null");
                }
                member["type"] = json!(words);
            }
            (name.to_owned(), member)
        })
        .collect();
    json!({"type": "object", "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(version: u64, line: &str) -> Lesson {
        Lesson { version, hints: Annotations::told(line).into_iter().collect() }
    }

    fn paths(document: &Bytes) -> Value {
        serde_json::from_slice::<Value>(document).unwrap()["paths"].take()
    }

    #[test]
    fn a_learned_task_has_an_operation_with_its_hints() {
        let catalog = Catalog::compile(&crate::config::Config::parse(crate::config::Role::Dev, "").unwrap()).unwrap();
        let contract = Contract::new(&catalog, Auth::None);
        let first = contract.with(&lesson(0, ""));
        assert!(paths(&first).get("/tasks/app.add").is_none());
        let line = "app.add [taskgate_hints={'x': <class 'int'>, 'y': <class 'shop.Order'>, 'return': <class 'int'>}]";
        let with = paths(&contract.with(&lesson(1, line)));
        let operation = &with["/tasks/app.add"]["post"];
        assert_eq!(operation["tags"], json!(["catalog"]));
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["properties"]["x"], json!({"type": ["integer", "null"], "description": "int"}));
        assert_eq!(schema["properties"]["y"], json!({"description": "shop.Order"}));
        assert!(schema["properties"].get("return").is_none());
        assert!(operation.get("security").is_none(), "nobody needs a token here");
        let other = paths(&contract.with(&lesson(2, "app.mul [__annotations__={'x': <class 'float'>}]")));
        assert!(other.get("/tasks/app.mul").is_some() && other.get("/tasks/app.add").is_none());
    }
}
