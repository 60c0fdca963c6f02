//! A reference in a message or a result, in place of a value that is kept in a store.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Kind;
use super::sweep::room;
use celery::task::json;
use celery::task::{Json, TaskId};

/// The only member of the object.
const MEMBER: &str = "taskgate.offloaded";

/// The place of the value. Its key cannot be guessed: a caller that has the reference may read the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    pub store: String,
    pub key: String,
    pub bytes: u64,
}

impl Reference {
    pub fn json(&self) -> Json {
        json::written(json!({MEMBER: self}).to_string())
    }

    /// Whether it names a result that the task itself has kept.
    pub fn is_of_task(&self, id: &TaskId) -> bool {
        self.key.starts_with(&format!("{}/{}/", room(Kind::Result), id.as_str()))
    }

    /// `None` for any other value.
    pub fn read(json: &str) -> Option<Self> {
        // Most values are something else, and some of them are large.
        if json.len() > 1_000 || !json.contains(MEMBER) {
            return None;
        }
        let mut members: std::collections::BTreeMap<String, Self> = serde_json::from_str(json).ok()?;
        members.remove(MEMBER).filter(|_| members.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_and_nothing_else_is_one() {
        let reference = Reference { store: "default".into(), key: "uploads/a/b.json".into(), bytes: 7 };
        assert_eq!(Reference::read(reference.json().get()), Some(reference.clone()));
        assert!(!reference.is_of_task(&TaskId::parse("a").unwrap()), "it is an argument");
        let result = Reference { key: "results/a/b.json".into(), ..reference };
        assert!(result.is_of_task(&TaskId::parse("a").unwrap()) && !result.is_of_task(&TaskId::parse("b").unwrap()));
        for other in ["1", "{}", r#"{"taskgate.offloaded": 1}"#, r#"["taskgate.offloaded"]"#] {
            assert_eq!(Reference::read(other), None, "{other}");
        }
    }
}
