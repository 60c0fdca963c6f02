//! OpenAPI links: connect answers that contain an id to operations that need it, so that tools can follow a task after its submission.

use serde_json::{Map, Value, json};

/// Operations whose 202 names a task, and those that take its id.
const SUBMIT: [&str; 8] = [
    "submit_task",
    "submit_chain",
    "submit_group",
    "submit_chord",
    "retry_task",
    "resume_dag",
    "run_schedule",
    "requeue_dead_letter",
];
const OF_TASK: [&str; 8] =
    ["get_task", "get_result", "watch_task", "explain_task", "task_graph", "get_message", "revoke_task", "retry_task"];
const OF_SCHEDULE: [&str; 9] = [
    "get_schedule",
    "put_schedule",
    "patch_schedule",
    "delete_schedule",
    "pause_schedule",
    "resume_schedule",
    "run_schedule",
    "preview_schedule",
    "schedule_runs",
];
const OF_WEBHOOK: [&str; 5] = ["get_webhook", "change_webhook", "delete_webhook", "rotate_webhook", "list_deliveries"];

/// Adds the links to an operation's successful answers.
pub fn link(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let found = match id {
        "submit_group" => links(&OF_TASK, "id", "$response.body#/group_id"),
        _ if SUBMIT.contains(&id) => links(&OF_TASK, "id", "$response.body#/task_id"),
        "create_schedule" | "put_schedule" => links(&OF_SCHEDULE, "name", "$response.body#/name"),
        "register_webhook" => links(&OF_WEBHOOK, "id", "$response.body#/id"),
        _ => return,
    };
    for status in ["200", "201", "202"] {
        if let Some(answer) = operation["responses"].get_mut(status).and_then(Value::as_object_mut) {
            answer.insert("links".to_owned(), Value::Object(found.clone()));
        }
    }
}

fn links(operations: &[&str], parameter: &str, value: &str) -> Map<String, Value> {
    let link = |id: &&str| ((*id).to_owned(), json!({"operationId": id, "parameters": {parameter: value}}));
    operations.iter().map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_operations_that_exist_and_take_the_parameter() {
        let document: Value = serde_json::from_str(&crate::edge::openapi::fixed()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operations: Vec<(&String, &Value)> = paths
            .iter()
            .flat_map(|(path, methods)| methods.as_object().unwrap().values().map(move |operation| (path, operation)))
            .collect();
        let mut count = 0;
        for (_, operation) in &operations {
            for link in
                operation["responses"].as_object().unwrap().values().filter_map(|answer| answer["links"].as_object())
            {
                for target in link.values() {
                    let to = operations.iter().find(|(_, operation)| operation["operationId"] == target["operationId"]);
                    let (path, _) = to.unwrap_or_else(|| panic!("{target} leads nowhere"));
                    let parameter = target["parameters"].as_object().unwrap().keys().next().unwrap();
                    assert!(path.contains(&format!("{{{parameter}}}")), "{target}");
                    count += 1;
                }
            }
        }
        assert!(count > 60, "{count}");
    }
}
