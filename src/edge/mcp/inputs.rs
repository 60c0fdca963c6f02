//! Steps that wait for an answer, as requests for input of the tasks extension: a form for each, under the id of the step.
//!
//! A form of the protocol has fields of plain types only. A step whose schema is such a form is asked as it is; a plain value, and
//! anything else, is asked in one field. The step's own schema checks the answer, whatever the form was.

use axum::http::StatusCode;
use celery::task::{TaskId, pause};
use ledger::{Scope, Wait};
use rmcp::ErrorData;
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema, InputRequest,
    InputResponses, JsonObject,
};
use serde_json::{Value, json};

use super::handler::Call;
use super::inner::{Answer, broken};
use super::tasks::{refusal, said};
use super::wrong;
use runtime::uri::encoded;

/// The field of a form that asks for one value.
const FIELD: &str = "value";

/// What a form asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The answer is the form.
    Form,
    /// The answer is the field.
    Value,
    /// The field is the answer as text.
    Text,
}

impl Call<'_> {
    /// The ids of the steps that wait in the canvas of a task; its own if it is one.
    pub(super) async fn steps_that_wait(&self, id: &str, body: &Value) -> Result<Vec<String>, ErrorData> {
        if body["status"] == "WAITING" {
            return Ok(vec![id.to_owned()]);
        }
        if body["phase"] != "waiting" {
            return Ok(Vec::new());
        }
        let graph = self.inner.get(&format!("/v1/tasks/{}/graph", encoded(id))).await?;
        let nodes = graph.body["nodes"].as_array().into_iter().flatten();
        let waits = nodes.filter(|node| node["task"] == pause::WAIT && node["phase"] == "running");
        Ok(waits
            .filter_map(|node| node["task_id"].as_str().or_else(|| node["id"].as_str()))
            .map(str::to_owned)
            .collect())
    }

    /// The open waits of steps that the caller may answer.
    pub(super) async fn waits_of(&self, steps: &[String]) -> Result<Vec<Wait>, ErrorData> {
        if !self.identity.may(Scope::Control) {
            return Ok(Vec::new());
        }
        let is_limited = self.identity.visibility().is_limited();
        let mut waits = Vec::new();
        for id in steps.iter().filter_map(|id| TaskId::parse(id).ok()) {
            let wait = self.edge.gateway.wait_of(&id).await.map_err(|error| broken(&error))?;
            waits.extend(wait.filter(|wait| !is_limited || wait.new.token.as_deref() == self.identity.id()));
        }
        waits.retain(|wait| wait.state == ledger::WaitState::Open);
        Ok(waits)
    }

    /// `tasks/update`: answers steps. What is not asked (any more) is ignored, as the extension says.
    pub(super) async fn update_task(&self, id: &str, responses: InputResponses) -> Result<(), ErrorData> {
        let body = self.body_of(id).await?;
        let waits = self.waits_of(&self.steps_that_wait(id, &body).await?).await?;
        for (step, response) in responses {
            let Some(wait) = waits.iter().find(|wait| wait.new.task_id.as_str() == step) else { continue };
            let response: ElicitResult = serde_json::from_value(response)
                .map_err(|error| wrong(format!("inputResponses/{step} is no answer to a form: {error}")))?;
            self.respond(wait, response).await?;
        }
        Ok(())
    }

    async fn respond(&self, wait: &Wait, response: ElicitResult) -> Result<(), ErrorData> {
        let step = &wait.new.task_id;
        let answer = match response.action {
            ElicitationAction::Accept => {
                let value = answer_of(wait, response.content.unwrap_or_default());
                self.inner.post(&format!("/v1/tasks/{}/complete", encoded(step.as_str())), &value).await?
            }
            ElicitationAction::Decline => {
                let token = self.edge.gateway.wait_token(step).await.map_err(|error| broken(&error))?;
                self.inner.delete(&format!("/v1/waits/{}", encoded(&token)), &json!({"reason": "declined"})).await?
            }
            // Nobody decided: the question stays open.
            _ => return Ok(()),
        };
        if is_settled(&answer) { Ok(()) } else { Err(wrong(format!("inputResponses/{step}: {}", refusal(&answer)))) }
    }
}

/// Whether a step has its answer: this one, or an earlier one.
fn is_settled(answer: &Answer) -> bool {
    answer.status.is_success() || answer.status == StatusCode::CONFLICT
}

/// The question of a step.
pub(super) fn request(wait: &Wait) -> InputRequest {
    let message = format!("{} waits for an answer until {}", wait.new.name, wait.new.expires_at.rfc3339());
    let (requested_schema, _) = form(schema_of(wait).as_ref());
    InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message,
        requested_schema,
    }))
}

fn schema_of(wait: &Wait) -> Option<Value> {
    wait.new.schema.as_ref().and_then(|schema| serde_json::from_str(schema.get()).ok())
}

/// The value for the step, from what was filled in.
fn answer_of(wait: &Wait, mut content: Value) -> Value {
    let (_, asked) = form(schema_of(wait).as_ref());
    // What is no object has no field: it is the answer itself, and the schema judges it.
    let value = match (&asked, content.as_object_mut().and_then(|fields| fields.remove(FIELD))) {
        (Asked::Value | Asked::Text, Some(value)) => value,
        _ => content,
    };
    match asked {
        Asked::Form | Asked::Value => value,
        Asked::Text => serde_json::from_str(said(&value)).unwrap_or(value),
    }
}

fn form(schema: Option<&Value>) -> (ElicitationSchema, Asked) {
    let single = |field: Value| {
        let whole = json!({"type": "object", "properties": {FIELD: field}, "required": [FIELD]});
        whole.as_object().cloned().and_then(|whole: JsonObject| ElicitationSchema::from_json_schema(whole).ok())
    };
    let whole = schema.and_then(Value::as_object).cloned();
    if let Some(form) = whole.and_then(|whole| ElicitationSchema::from_json_schema(whole).ok()) {
        return (form, Asked::Form);
    }
    if let Some(form) = schema.cloned().and_then(single) {
        return (form, Asked::Value);
    }
    let text = json!({"type": "string", "title": "Answer", "description": "Any JSON value; other text is a string"});
    (single(text).expect("a text is a field"), Asked::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(schema: Value) -> Asked {
        form(Some(&schema)).1
    }

    #[test]
    fn a_flat_object_is_asked_as_it_is_and_the_rest_in_one_field() {
        let flat = json!({"type": "object", "properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}}});
        assert_eq!(asked(flat), Asked::Form);
        for plain in [json!({"type": "boolean"}), json!({"type": "integer", "minimum": 1})] {
            assert_eq!(asked(plain), Asked::Value);
        }
        let deep = json!({"type": "object", "properties": {"a": {"type": "object", "properties": {}}}});
        assert_eq!((asked(deep), form(None).1), (Asked::Text, Asked::Text));
    }

    #[test]
    fn a_form_is_written_as_the_protocol_says() {
        let (form, _) = form(Some(&json!({"type": "boolean"})));
        let written = serde_json::to_value(form).unwrap();
        assert_eq!(written["properties"][FIELD]["type"], "boolean");
        assert_eq!(written["required"], json!([FIELD]));
    }
}
