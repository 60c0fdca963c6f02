//! `response = { status = "success", … }`: extra fields of an endpoint's answer, for clients of an older system.
//!
//! They are added to the gateway's own fields. `status` and `message` are meant for people and may be replaced; the others identify
//! the task, so a template that would replace one of them prevents the start.

use serde_json::{Value, json};

use super::endpoint::ANSWER_FIELDS;
use super::template::Template;
use celery::task::Json;

/// Fields of the gateway's answer that a template may name.
const OFFERED: [&str; 8] = ["task_id", "group_id", "status", "phase", "task", "queue", "message", "count"];
/// Fields of the gateway's answer that a template may replace.
const REPLACEABLE: [&str; 2] = ["status", "message"];

/// The entry's own fields.
#[derive(Debug, Clone)]
pub struct Response(Vec<(String, Template)>);

/// The fields of one answer, except those that only the ledger knows.
#[derive(Debug, Clone)]
pub struct AnswerFields {
    members: Vec<(String, Template)>,
    /// Values from the request, JSON text by name.
    said: Vec<(String, String)>,
}

impl Response {
    /// `params` are the path's parameters, which the answer repeats.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn compile(value: &Value, params: &[String]) -> Result<Self, String> {
        let members = value.as_object().ok_or("must be a table of fields")?;
        let member = |(name, value): (&String, &Value)| {
            let own = ANSWER_FIELDS.contains(&name.as_str()) || params.contains(name);
            let is_same = *value == Value::String(format!("{{{name}}}"));
            if own && !is_same && !REPLACEABLE.contains(&name.as_str()) {
                return Err(format!(
                    "{name} is a field of the gateway's own answer, which clients rely on: choose another name, or write \
                     {name} = \"{{{name}}}\""
                ));
            }
            Ok((name.clone(), Template::parse(value).map_err(|error| format!("{name}: {error}"))?))
        };
        let members: Vec<(String, Template)> = members.iter().map(member).collect::<Result<_, String>>()?;
        // A field that equals the gateway's own is not added again.
        let is_ours = |name: &str| {
            (ANSWER_FIELDS.contains(&name) || params.iter().any(|param| param == name)) && !REPLACEABLE.contains(&name)
        };
        Ok(Self(members.into_iter().filter(|(name, _)| !is_ours(name)).collect()))
    }

    /// Names whose values come from the request.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, template)| template.names()).filter(|name| !OFFERED.contains(name))
    }

    /// A name that exists in both the request and the gateway's answer.
    pub(super) fn ambiguous<'a>(&self, known: &[&'a str]) -> Option<&'a str> {
        let used: Vec<&str> = self.0.iter().flat_map(|(_, template)| template.names()).collect();
        known.iter().find(|name| OFFERED.contains(*name) && used.contains(*name)).copied()
    }

    /// The schema of each field: a fixed value, a string, or anything.
    pub(super) fn schemas(&self) -> Vec<(&str, Value)> {
        let schema = |template: &Template| match template {
            Template::Literal(text) => {
                serde_json::from_str(text).map_or_else(|_| json!({}), |value: Value| json!({"const": value}))
            }
            Template::Text(_) => json!({"type": "string"}),
            Template::Array(_) => json!({"type": "array"}),
            Template::Object(_) => json!({"type": "object"}),
            Template::Whole(_) => json!({}),
        };
        self.0.iter().map(|(name, template)| (name.as_str(), schema(template))).collect()
    }

    pub(super) fn replaces_message(&self) -> bool {
        self.0.iter().any(|(name, _)| name == "message")
    }

    /// `said` returns the JSON text of a name in the request.
    pub(super) fn of(&self, said: &dyn Fn(&str) -> String) -> AnswerFields {
        let said = self.names().map(|name| (name.to_owned(), said(name))).collect();
        AnswerFields { members: self.0.clone(), said }
    }
}

impl AnswerFields {
    /// `own` returns the JSON text of a field of the gateway's answer.
    pub fn fill(&self, own: &dyn Fn(&str) -> String) -> Vec<(String, Json)> {
        let value_of = |name: &str| {
            let said = self.said.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            said.unwrap_or_else(|| own(name))
        };
        let member = |(name, template): &(String, Template)| {
            let mut filled = String::new();
            template.fill(&value_of, &mut filled);
            (name.clone(), super::call::json(filled))
        };
        self.members.iter().map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_filled_from_the_request_and_from_the_answer() {
        let template =
            json!({"status": "success", "data": {"job": "{task_id}", "of": "{user}"}, "task_id": "{task_id}"});
        let response = Response::compile(&template, &[]).unwrap();
        assert_eq!(response.names().collect::<Vec<_>>(), ["user"]);
        let filled = response.of(&|_| "7".to_owned()).fill(&|name| format!("\"<{name}>\""));
        let text: Vec<String> = filled.iter().map(|(name, value)| format!("{name}={}", value.get())).collect();
        assert!(text.contains(&r#"status="success""#.to_owned()), "{text:?}");
        assert!(
            text.iter().any(|line| line.contains(r#""job": "<task_id>""#) && line.contains(r#""of": 7"#)),
            "{text:?}"
        );
        assert_eq!(text.len(), 2, "what says the same as the gateway is said once: {text:?}");
    }

    #[test]
    fn what_would_hide_the_gateways_own_field_is_refused() {
        for name in ["task_id", "links", "phase", "warnings", "upload_id"] {
            let wrong = Response::compile(&json!({name: "x"}), &["upload_id".to_owned()]).unwrap_err();
            assert!(wrong.contains(name) && wrong.contains("own answer"), "{wrong}");
        }
        let response = Response::compile(&json!({"a": "{task}"}), &[]).unwrap();
        assert_eq!(response.ambiguous(&["task", "b"]), Some("task"));
    }
}
