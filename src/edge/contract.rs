//! The contract that `/openapi.json` answers with: that of the configuration, and an operation for each task that workers have reported.
//!
//! Anybody may read the part of the configuration; it is written once. Names and arguments of the fleet's tasks are only for callers who
//! may see them: the whole is written again when workers have reported something new, and for a caller limited to some names at each
//! request. Writing takes milliseconds, so it runs off the threads that answer, one at a time.

use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::openapi::{learned_operation, with_operation};
use crate::catalog::{Annotations, Catalog};
use crate::config::Auth;
use crate::guard::tokens::Visibility;
use crate::live::learned::Lesson;

/// The document, and what it was written from.
pub struct Contract {
    fixed: Bytes,
    auth: Auth,
    /// The version of what was learned, and the document with all of it.
    newest: Mutex<(u64, Bytes)>,
}

impl Contract {
    pub fn new(catalog: &Catalog, auth: Auth) -> Self {
        let fixed = Bytes::from(super::openapi::running(catalog, auth));
        Self { newest: Mutex::new((0, fixed.clone())), fixed, auth }
    }

    /// The document for anybody: without learned tasks.
    pub fn fixed(&self) -> Bytes {
        self.fixed.clone()
    }

    /// The document with the learned tasks that the caller sees.
    pub async fn with(&self, lesson: &Arc<Lesson>, visibility: Visibility) -> Bytes {
        if lesson.version == 0 {
            return self.fixed();
        }
        let mut newest = self.newest.lock().await;
        if visibility.is_limited() {
            return self.written(lesson, visibility).await;
        }
        if newest.0 != lesson.version {
            *newest = (lesson.version, self.written(lesson, visibility).await);
        }
        newest.1.clone()
    }

    async fn written(&self, lesson: &Arc<Lesson>, visibility: Visibility) -> Bytes {
        let (fixed, auth, lesson) = (self.fixed(), self.auth, Arc::clone(lesson));
        let writing = tokio::task::spawn_blocking(move || written(&fixed, auth, &lesson, &visibility));
        writing.await.expect("the fixed part is JSON of this program")
    }
}

/// An endpoint of the catalog at the same path stays: it answers there.
fn written(fixed: &Bytes, auth: Auth, lesson: &Lesson, visibility: &Visibility) -> Bytes {
    let mut document: Value = serde_json::from_slice(fixed).expect("written by this program");
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (name, hints) in lesson.hints.iter().filter(|(name, _)| visibility.sees(Some(name))) {
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
    let mut properties: Map<String, Value> = hints
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
    let mut required = Vec::new();
    for (name, is_required) in hints.by_name().into_iter().flatten() {
        properties.entry(name).or_insert_with(|| json!({}));
        required.extend(is_required.then_some(name));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(version: u64, line: &str) -> Arc<Lesson> {
        Arc::new(Lesson { version, hints: Annotations::told(line).into_iter().collect() })
    }

    fn paths(document: &Bytes) -> Value {
        serde_json::from_slice::<Value>(document).unwrap()["paths"].take()
    }

    #[tokio::test]
    async fn a_learned_task_has_an_operation_with_its_hints() {
        let catalog = Catalog::compile(&crate::config::Config::parse(crate::config::Role::Dev, "").unwrap()).unwrap();
        let contract = Contract::new(&catalog, Auth::None);
        let first = contract.with(&lesson(0, ""), Visibility::default()).await;
        assert!(paths(&first).get("/tasks/app.add").is_none());
        let line = "app.add [taskgate_hints={'x': <class 'int'>, 'y': <class 'shop.Order'>, 'return': <class 'int'>}]";
        let with = paths(&contract.with(&lesson(1, line), Visibility::default()).await);
        let operation = &with["/tasks/app.add"]["post"];
        assert_eq!(operation["tags"], json!(["catalog"]));
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["properties"]["x"], json!({"type": ["integer", "null"], "description": "int"}));
        assert_eq!(schema["properties"]["y"], json!({"description": "shop.Order"}));
        assert!(schema["properties"].get("return").is_none());
        assert!(operation.get("security").is_none(), "nobody needs a token here");
        let limited = paths(&contract.with(&lesson(1, line), Visibility::of(&["crawl.*".to_owned()])).await);
        assert!(limited.get("/tasks/app.add").is_none(), "a caller sees its own names only");
        let whole = "app.pay [taskgate_signature=(order, note=?) taskgate_hints={'note': <class 'str'>}]";
        let with = paths(&contract.with(&lesson(3, whole), Visibility::default()).await);
        let schema = &with["/tasks/app.pay"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["required"], json!(["order"]), "{schema}");
        assert_eq!(schema["properties"]["order"], json!({}), "an argument without a hint is listed too");
        let mul = lesson(2, "app.mul [__annotations__={'x': <class 'float'>}]");
        let other = paths(&contract.with(&mul, Visibility::default()).await);
        assert!(other.get("/tasks/app.mul").is_some() && other.get("/tasks/app.add").is_none());
    }
}
