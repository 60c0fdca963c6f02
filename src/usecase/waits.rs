//! Ends steps that wait: by an answer from outside, a refusal or a revoke. The service for waits then sends the next step.
//!
//! A wait has a token: its task's id and a code that only this installation can compute. So anyone who has the link may answer, and a
//! guessed token is refused without a look-up.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonschema::Validator;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::Gateway;
use celery::extended;
use celery::task::invalid::MAX_FOUND;
use celery::task::pause::Pause;
use celery::task::{Invalid, Json, TaskId, TaskSignature, json};
use ledger::{EndedWait, Error, Wait, WaitState};
use runtime::clock::{self, Time};
use runtime::heavy;

/// The name of the signing key in the ledger.
const KEY: &str = "waits";
/// Length of the code in bytes: 128 bits cannot be guessed.
const CODE: usize = 16;
/// Maximum length of a schema's error message, which quotes the value.
const MAX_DETAIL: usize = 300;
/// Maximum size of a compiled `pattern`, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// The key that signs tokens, read once.
pub(crate) type SigningKey = tokio::sync::OnceCell<Vec<u8>>;

/// Why a wait cannot be ended.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    #[error("there is no such wait")]
    Unknown,
    #[error("the answer does not fit its schema")]
    Invalid(Vec<Invalid>),
    #[error("the wait has ended")]
    Over(Box<Wait>),
    #[error("the ledger failed")]
    Ledger(#[from] Error),
}

impl Gateway {
    /// Open waits after this position, oldest first; of one submitter or of all.
    pub async fn open_waits(
        &self,
        after: Option<(Time, &TaskId)>,
        submitter: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Wait>, Error> {
        self.ledger.open_waits(after, submitter, limit).await
    }

    /// The wait of a task.
    pub async fn wait_of(&self, id: &TaskId) -> Result<Option<Wait>, Error> {
        Ok(self.ledger.wait(id).await?.filter(|wait| !wait.new.is_sleep))
    }

    /// The token of a wait, for its URL.
    pub async fn wait_token(&self, id: &TaskId) -> Result<String, Error> {
        let code = code(self.wait_key().await?, id);
        Ok(URL_SAFE_NO_PAD.encode([&code[..], id.as_str().as_bytes()].concat()))
    }

    /// The wait of a token.
    pub async fn wait_by_token(&self, token: &str) -> Result<Option<Wait>, Error> {
        let Some((given, id)) = parts(token) else { return Ok(None) };
        if !bool::from(code(self.wait_key().await?, &id).ct_eq(&given)) {
            return Ok(None);
        }
        self.wait_of(&id).await
    }

    /// Ends a wait with an answer. The first valid answer becomes the step's result.
    pub async fn answer_wait(&self, wait: Wait, answer: Json) -> Result<Wait, WaitError> {
        let schema = wait.new.schema.clone().filter(|_| wait.state == WaitState::Open);
        if let Some(refused) = extended::refused(answer.get(), self.limits.json_types) {
            return Err(WaitError::Invalid(vec![Invalid { pointer: refused.at(), detail: refused.why }]));
        }
        if let Some(schema) = schema {
            // A schema may take longer to compile than its size says.
            let given = answer.clone();
            let wrong = heavy::run(usize::MAX, move || misfits(&schema, &given)).await;
            if !wrong.is_empty() {
                return Err(WaitError::Invalid(wrong));
            }
        }
        self.end_wait(&wait.new.task_id, WaitState::Answered, Some(&answer)).await
    }

    /// Ends a wait with a refusal, so that the step fails.
    pub async fn refuse_wait(&self, wait: Wait, reason: Option<&str>) -> Result<Wait, WaitError> {
        let reason = reason.map(|text| json::written(serde_json::Value::from(text).to_string()));
        self.end_wait(&wait.new.task_id, WaitState::Refused, reason.as_ref()).await
    }

    /// Ends a wait by a revoke; returns whether the step was waiting.
    pub(super) async fn revoke_wait(&self, id: &TaskId) -> Result<bool, Error> {
        let ended = self.ledger.end_wait(id, WaitState::Revoked, None, clock::now()).await?;
        self.waits.ended.nudge();
        Ok(ended.is_some_and(|ended| ended.is_first))
    }

    async fn end_wait(&self, id: &TaskId, state: WaitState, answer: Option<&Json>) -> Result<Wait, WaitError> {
        let ended = self.ledger.end_wait(id, state, answer, clock::now()).await?;
        let EndedWait { is_first, wait } = ended.ok_or(WaitError::Unknown)?;
        if !is_first {
            return Err(WaitError::Over(Box::new(wait)));
        }
        self.waits.ended.nudge();
        Ok(wait)
    }

    async fn wait_key(&self) -> Result<&Vec<u8>, Error> {
        let read = || async { self.ledger.shared_secret(KEY, &clock::secret()).await };
        self.wait_key.get_or_try_init(read).await
    }
}

fn code(key: &[u8], id: &TaskId) -> [u8; CODE] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(id.as_str().as_bytes());
    let whole = mac.finalize().into_bytes();
    std::array::from_fn(|index| whole[index])
}

fn parts(token: &str) -> Option<([u8; CODE], TaskId)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (code, id) = bytes.split_at_checked(CODE)?;
    Some((code.try_into().ok()?, TaskId::parse(std::str::from_utf8(id).ok()?).ok()?))
}

/// The mistakes in a submitted step that waits.
pub(super) fn broken_pause(at: &str, task: &TaskSignature, keep: std::time::Duration) -> Vec<Invalid> {
    let Some(pause) = Pause::of(task.task.as_str(), &task.kwargs) else { return Vec::new() };
    let mut wrong = Vec::new();
    let (place, member) = match &pause {
        Pause::Wait(_) => (format!("{at}/wait"), "/timeout"),
        Pause::Sleep(_) => (format!("{at}/sleep"), ""),
    };
    if pause.seconds().is_some_and(|seconds| seconds > keep.as_secs_f64()) {
        let detail =
            format!("must be at most ledger.keep ({} s): nobody remembers the step after that", keep.as_secs());
        wrong.push(Invalid { pointer: format!("{place}{member}"), detail });
    }
    if let Pause::Wait(wait) = &pause
        && let Some(schema) = &wait.schema
        && let Err(detail) = validator(schema)
    {
        wrong.push(Invalid { pointer: format!("{place}/schema"), detail });
    }
    wrong
}

fn validator(schema: &Json) -> Result<Validator, String> {
    let schema: serde_json::Value = serde_json::from_str(schema.get()).map_err(|error| error.to_string())?;
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .offline()
        .with_pattern_options(jsonschema::PatternOptions::fancy_regex().size_limit(MAX_PATTERN))
        .build(&schema)
        .map_err(|error| cut(format!("is not a JSON Schema: {error} (at {})", error.instance_path())))
}

/// The violations of the schema in an answer.
fn misfits(schema: &Json, answer: &Json) -> Vec<Invalid> {
    let whole = |detail: String| vec![Invalid { pointer: String::new(), detail }];
    let validator = match validator(schema) {
        Ok(validator) => validator,
        Err(detail) => return whole(detail),
    };
    match serde_json::from_str::<serde_json::Value>(answer.get()) {
        Ok(answer) => {
            let misfit = |error: jsonschema::ValidationError<'_>| Invalid {
                pointer: error.instance_path().as_str().to_owned(),
                detail: cut(error.to_string()),
            };
            validator.iter_errors(&answer).take(MAX_FOUND).map(misfit).collect()
        }
        Err(error) => whole(error.to_string()),
    }
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_DETAIL {
        return text;
    }
    text.chars().take(MAX_DETAIL).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        json::written(text.to_owned())
    }

    #[test]
    fn an_answer_is_judged_by_its_schema_and_told_where_it_is_wrong() {
        let schema = json(r#"{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}"#);
        assert!(misfits(&schema, &json(r#"{"ok": true}"#)).is_empty());
        let wrong = misfits(&schema, &json(r#"{"ok": 1}"#));
        assert_eq!(wrong[0].pointer, "/ok");
        assert!(!misfits(&schema, &json("7")).is_empty());
    }

    #[test]
    fn a_token_is_read_back_and_a_changed_one_is_not() {
        let id = TaskId::parse("0192f0c1-0000-7000-8000-000000000001").unwrap();
        let code = code(b"key", &id);
        let token = URL_SAFE_NO_PAD.encode([&code[..], id.as_str().as_bytes()].concat());
        assert_eq!(parts(&token), Some((code, id.clone())));
        assert_ne!(super::code(b"other", &id), code);
        assert_eq!(parts("x"), None);
    }

    #[test]
    fn a_wait_longer_than_the_history_and_a_schema_that_is_none_are_refused() {
        let kwargs = json(r#"{"name": "a", "timeout": 61, "schema": {"type": "what"}}"#);
        let task = TaskSignature::new(celery::task::TaskName::parse("taskgate.wait").unwrap(), json("[]"), kwargs);
        let wrong = broken_pause("/chain/1", &task, std::time::Duration::from_secs(60));
        let places: Vec<_> = wrong.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(places, ["/chain/1/wait/timeout", "/chain/1/wait/schema"]);
    }
}
