//! Tasks that a task sent, as the API names them. In the record they are Celery's result tuples.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use celery::result::ResultTuple;

/// A task (`task_id`), or a group (`group_id`) with its members.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SentTask)]
pub struct SentView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub children: Vec<SentView>,
}

impl SentView {
    /// Reads the list of a record; unreadable entries are left out.
    pub fn list(tuples: Option<&RawValue>) -> Vec<Self> {
        let elements = tuples.and_then(|tuples| serde_json::from_str::<Vec<&RawValue>>(tuples.get()).ok());
        elements.into_iter().flatten().filter_map(ResultTuple::decode).map(|tuple| Self::of(&tuple)).collect()
    }

    fn of(tuple: &ResultTuple) -> Self {
        match &tuple.nodes {
            None => Self { task_id: Some(tuple.id.clone()), group_id: None, children: Vec::new() },
            Some(nodes) => {
                Self { task_id: None, group_id: Some(tuple.id.clone()), children: nodes.iter().map(Self::of).collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_groups_are_told_apart() {
        let tuples = r#"[[["a", null], null], [["g", null], [[["b", null], null]]]]"#;
        let list = SentView::list(Some(serde_json::from_str(tuples).unwrap()));
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"[{"task_id":"a"},{"group_id":"g","children":[{"task_id":"b"}]}]"#);
        assert!(SentView::list(None).is_empty());
    }
}
