//! Resources: the catalog, and each task with its history.

use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate,
};
use serde_json::json;

use super::handler::Call;
use runtime::uri::encoded;

const CATALOG: &str = "taskgate://catalog";
const TASK: &str = "taskgate://tasks/";
const LOG: &str = "/log";
const KIND: &str = "application/json";

pub(super) fn list() -> ListResourcesResult {
    let catalog = Resource::new(CATALOG, "catalog")
        .with_mime_type(KIND)
        .with_description("The tasks of this gateway, with the schemas of their arguments");
    ListResourcesResult::with_all_items(vec![catalog])
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    let template = |path: &str, name: &str, description: &str| {
        ResourceTemplate::new(path, name).with_mime_type(KIND).with_description(description)
    };
    ListResourceTemplatesResult::with_all_items(vec![
        template("taskgate://tasks/{task_id}", "task", "The state of a task"),
        template(
            "taskgate://tasks/{task_id}/log",
            "log",
            "The events of a task, in order, and the lines that it logged",
        ),
    ])
}

impl Call<'_> {
    pub(super) async fn read_resource(&self, uri: &str) -> Result<ReadResourceResult, ErrorData> {
        let text =
            if uri == CATALOG { json!({"tools": self.tools()}).to_string() } else { self.task_text(uri).await? };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(KIND)]))
    }

    async fn task_text(&self, uri: &str) -> Result<String, ErrorData> {
        let unknown = || ErrorData::resource_not_found(format!("there is no resource {uri}"), None);
        let rest = uri.strip_prefix(TASK).ok_or_else(unknown)?;
        let path = match rest.strip_suffix(LOG) {
            Some(id) => format!("/v1/tasks/{}/events", encoded(id)),
            None => format!("/v1/tasks/{}", encoded(rest)),
        };
        let mut answer = self.inner.get(&path).await?;
        if !answer.status.is_success() {
            return Err(unknown());
        }
        if let Some(id) = rest.strip_suffix(LOG) {
            let lines = self.inner.get(&format!("/v1/tasks/{}/logs", encoded(id))).await?;
            answer.body["lines"] = lines.body["lines"].clone();
        }
        Ok(answer.body.to_string())
    }
}
