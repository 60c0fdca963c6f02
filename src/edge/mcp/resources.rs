//! Resources: the catalog, and each task with its history.

use serde_json::{Value, json};

use super::inner::escaped;
use super::{Call, Fault};

const CATALOG: &str = "taskgate://catalog";
const TASK: &str = "taskgate://tasks/";
const LOG: &str = "/log";

pub(super) fn list() -> Value {
    json!({"resources": [{"uri": CATALOG, "name": "catalog", "mimeType": "application/json",
        "description": "The tasks of this gateway, with the schemas of their arguments"}]})
}

pub(super) fn templates() -> Value {
    json!({"resourceTemplates": [
        {"uriTemplate": "taskgate://tasks/{task_id}", "name": "task", "mimeType": "application/json", "description": "The state of a task"},
        {"uriTemplate": "taskgate://tasks/{task_id}/log", "name": "log", "mimeType": "application/json",
            "description": "The events of a task, in order, and the lines that it logged"},
    ]})
}

impl Call<'_> {
    pub(super) async fn read_resource(&self, params: &Value) -> Result<Value, Fault> {
        let uri = super::text(params, "uri")?;
        let text =
            if uri == CATALOG { json!({"tools": self.tools()}).to_string() } else { self.task_text(uri).await? };
        Ok(json!({"contents": [{"uri": uri, "mimeType": "application/json", "text": text}]}))
    }

    async fn task_text(&self, uri: &str) -> Result<String, Fault> {
        let unknown = || Fault { code: -32_002, message: format!("there is no resource {uri}") };
        let rest = uri.strip_prefix(TASK).ok_or_else(unknown)?;
        let path = match rest.strip_suffix(LOG) {
            Some(id) => format!("/v1/tasks/{}/events", escaped(id)),
            None => format!("/v1/tasks/{}", escaped(rest)),
        };
        let mut answer = self.inner.get(&path).await?;
        if !answer.status.is_success() {
            return Err(unknown());
        }
        if let Some(id) = rest.strip_suffix(LOG) {
            let lines = self.inner.get(&format!("/v1/tasks/{}/logs", escaped(id))).await?;
            answer.body["lines"] = lines.body["lines"].clone();
        }
        Ok(answer.body.to_string())
    }
}
