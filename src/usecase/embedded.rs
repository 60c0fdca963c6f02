//! The signatures embedded in a message: callbacks, errbacks, the rest of its chain, the body of its chord. They may contain tasks that a
//! token limited to some task names must not see.

use celery::task::pause;
use serde_json::{Map, Value};

use crate::guard::tokens::Visibility;

/// Their index in a message's body.
const EMBED: usize = 2;

/// Whether a body of `[args, kwargs, embed]` contains a task that the caller may not see.
pub fn has_foreign(body: &str, visibility: &Visibility) -> bool {
    let Ok(Value::Array(parts)) = serde_json::from_str(body) else { return visibility.is_limited() };
    visibility.is_limited() && parts.get(EMBED).is_some_and(|embed| is_foreign(embed, visibility))
}

fn is_foreign(value: &Value, visibility: &Visibility) -> bool {
    match value {
        Value::Object(members) => {
            !is_seen(members, visibility) || members.values().any(|member| is_foreign(member, visibility))
        }
        Value::Array(items) => items.iter().any(|item| is_foreign(item, visibility)),
        _ => false,
    }
}

/// Whether the caller may see a signature. Celery's own compositions (`celery.chord`, …) are always visible.
fn is_seen(members: &Map<String, Value>, visibility: &Visibility) -> bool {
    let name = members.get("task").and_then(Value::as_str);
    name.is_none_or(|name| name.starts_with("celery.") || pause::is_pause(name) || visibility.sees(Some(name)))
}

/// The body with each signature that the caller may not see replaced by `{"hidden": true}`. A limited caller sees nothing of a body that
/// cannot be read.
pub fn without_foreign(body: &str, visibility: &Visibility) -> String {
    let Ok(Value::Array(mut parts)) = serde_json::from_str(body) else {
        return if visibility.is_limited() { r#"{"hidden": true}"#.to_owned() } else { body.to_owned() };
    };
    if let Some(embed) = parts.get_mut(EMBED) {
        hide(embed, visibility);
    }
    Value::Array(parts).to_string()
}

fn hide(value: &mut Value, visibility: &Visibility) {
    match value {
        Value::Object(members) if !is_seen(members, visibility) => *value = serde_json::json!({"hidden": true}),
        Value::Object(members) => members.values_mut().for_each(|member| hide(member, visibility)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, visibility)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"[[{"task": "theirs"}], {}, {"chain": [{"task": "theirs", "args": ["secret"]}, {"task": "mine.b"}], "chord": null}]"#;

    #[test]
    fn what_is_somebody_elses_is_hidden_and_arguments_are_not_signatures() {
        let visibility = Visibility::of(&["mine.*".to_owned()]);
        assert!(has_foreign(BODY, &visibility));
        let shown = without_foreign(BODY, &visibility);
        assert!(
            !shown.contains("secret") && shown.contains("mine.b") && shown.contains(r#"[{"task":"theirs"}]"#),
            "{shown}"
        );
        assert!(!has_foreign(&shown, &visibility));
        assert!(!has_foreign(BODY, &Visibility::default()));
        let composed =
            r#"[[], {}, {"callbacks": [{"task": "celery.group", "kwargs": {"tasks": [{"task": "theirs"}]}}]}]"#;
        assert!(has_foreign(composed, &visibility));
        let unreadable = r#"[[1e400], {}, {"chain": [{"task": "theirs"}]}]"#;
        assert_eq!(without_foreign(unreadable, &visibility), r#"{"hidden": true}"#);
        assert_eq!(without_foreign(unreadable, &Visibility::default()), unreadable);
    }
}
