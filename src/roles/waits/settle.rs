//! Settles ended waits: sends the next steps, stores the result, returns the part to its chord, and records the end in the ledger.
//!
//! The order is Celery's, and every action may be repeated: messages carry the delivery tags of their tasks, so Redis as the broker
//! accepts each only once. After a crash the next holder of the claim starts over.

use std::time::Duration;

use futures_util::StreamExt;
use tracing::{debug, info, warn};

use super::Waits;
use super::follow::Follow;
use celery::exception::Exception;
use celery::task::pause::OnTimeout;
use celery::task::{Json, Phase, json};
use celery::{Decoded, Envelope, Message, Properties};
use ledger::{Failure, News, Source, Wait, WaitState};
use runtime::clock;

/// Duration of a claim, longer than any settlement takes.
const CLAIM: Duration = Duration::from_secs(20);
/// Timeout of one settlement.
const PATIENCE: Duration = Duration::from_secs(15);
/// Waits claimed at a time.
const PAGE: i64 = 64;
/// Waits settled concurrently.
const AT_ONCE: usize = 16;

/// Why a wait is not settled yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Broker(#[from] broker::Error),
    #[error("{0}")]
    Ledger(#[from] ledger::Error),
    #[error("message {tag} of what follows was not sent: {why}")]
    Unsent { tag: String, why: String },
    #[error("it took too long")]
    TimedOut,
}

/// How the step ends.
enum End {
    /// With the value for the next step; `None` where no value is passed on.
    Success(Option<Json>),
    Failure(Exception),
    Revoked,
}

impl Waits {
    /// Settles ended waits. Returns whether there may be more.
    pub(super) async fn settle_ended(&self) -> Result<bool, Trouble> {
        let now = clock::now();
        let claimed = self.parts.ledger.claim_waits(&self.parts.holder, now, now.plus(CLAIM), PAGE).await?;
        let is_full = claimed.len() as i64 == PAGE;
        let settlements: Vec<_> =
            claimed.iter().map(|wait| tokio::time::timeout(PATIENCE, self.settle(wait))).collect();
        let mut settling = futures_util::stream::iter(settlements).buffer_unordered(AT_ONCE);
        let mut trouble = None;
        while let Some(outcome) = settling.next().await {
            trouble = outcome.unwrap_or(Err(Trouble::TimedOut)).err().or(trouble);
        }
        trouble.map_or(Ok(is_full), Err)
    }

    async fn settle(&self, wait: &Wait) -> Result<(), Trouble> {
        let id = &wait.new.task_id;
        let Some(message) = message(wait) else {
            warn!(task.id = %id, "the message of {id} cannot be read any more; the step ends here");
            self.parts.ledger.settle_wait(id).await?;
            return Ok(());
        };
        let follow = Follow::new(&self.parts, &message);
        match end(wait) {
            End::Success(value) => self.succeed(&follow, wait, value).await?,
            End::Failure(exception) => self.fail(&follow, wait, &exception).await?,
            End::Revoked => self.revoked(&follow, wait).await?,
        }
        self.parts.ledger.settle_wait(id).await?;
        follow.forget_markers().await;
        info!(task.id = %id, "step {id} ({}) ended as {}", wait.new.name, wait.state.as_str());
        Ok(())
    }

    async fn succeed(&self, follow: &Follow<'_>, wait: &Wait, value: Option<Json>) -> Result<(), Trouble> {
        let children = match follow.after_success(value.as_deref()).await? {
            Ok(children) => children,
            Err(error) => {
                let exception = Exception::new("builtins", "ValueError", &error.to_string());
                return self.fail(follow, wait, &exception).await;
            }
        };
        let result = value.unwrap_or_else(json::null);
        let mut record = follow.record("SUCCESS", result.clone(), ended(wait));
        record.children = Some(children);
        follow.store(&record).await?;
        follow.report("SUCCESS", &result).await?;
        let news = News { result: Some(result), reason: reason(wait), ..self.news(wait, Phase::Succeeded) };
        self.learn([news].into_iter().chain(follow.queued()).collect()).await
    }

    async fn fail(&self, follow: &Follow<'_>, wait: &Wait, exception: &Exception) -> Result<(), Trouble> {
        let value = exception.encode();
        follow.store(&follow.record("FAILURE", value.clone(), ended(wait))).await?;
        follow.report("FAILURE", &value).await?;
        follow.fall_out(&follow.after_failure(), &value).await?;
        let failure = Some(Failure { kind: exception.kind.clone(), message: exception.text() });
        let news = News { failure, reason: reason(wait), ..self.news(wait, Phase::Failed) };
        self.learn(vec![news]).await
    }

    async fn revoked(&self, follow: &Follow<'_>, wait: &Wait) -> Result<(), Trouble> {
        let value = Exception::new("celery.exceptions", "TaskRevokedError", "revoked").encode();
        follow.store(&follow.record("REVOKED", value.clone(), ended(wait))).await?;
        follow.report("REVOKED", &value).await?;
        self.learn(vec![News { reason: reason(wait), ..self.news(wait, Phase::Revoked) }]).await
    }

    fn news(&self, wait: &Wait, phase: Phase) -> News {
        News::new(wait.new.task_id.clone(), Source::Ledger, phase, ended(wait))
    }

    async fn learn(&self, news: Vec<News>) -> Result<(), Trouble> {
        let events = self.parts.ledger.learn(&news, true).await?;
        debug!("{} events of steps that waited", events.len());
        self.parts.hub.publish(&events);
        Ok(())
    }
}

fn ended(wait: &Wait) -> clock::Time {
    wait.ended_at.unwrap_or(wait.new.expires_at)
}

/// How the step ends.
fn end(wait: &Wait) -> End {
    let new = &wait.new;
    match wait.state {
        WaitState::Answered => End::Success(Some(wait.answer.clone().unwrap_or_else(json::null))),
        WaitState::Expired if new.on_timeout == OnTimeout::Skip => End::Success(new.input.clone()),
        WaitState::Expired => {
            let text = format!("nobody answered {} until {}", new.name, new.expires_at.rfc3339());
            End::Failure(Exception::new("builtins", "TimeoutError", &text))
        }
        WaitState::Refused => {
            let why = wait.answer.as_ref().and_then(|reason| json::text(reason));
            let text = why.unwrap_or_else(|| format!("{} was refused", new.name));
            End::Failure(Exception::new("taskgate", "WaitRefused", &text))
        }
        WaitState::Revoked | WaitState::Open => End::Revoked,
    }
}

fn reason(wait: &Wait) -> Option<String> {
    let name = &wait.new.name;
    match wait.state {
        WaitState::Expired if wait.new.is_sleep => None,
        WaitState::Expired if wait.new.on_timeout == OnTimeout::Skip => {
            Some(format!("nobody answered {name} in time: skipped"))
        }
        WaitState::Expired => Some(format!("nobody answered {name} in time")),
        WaitState::Answered => Some(format!("{name} was answered")),
        WaitState::Refused => Some(format!("{name} was refused")),
        WaitState::Revoked | WaitState::Open => Some("revoked on request".to_owned()),
    }
}

fn message(wait: &Wait) -> Option<Message> {
    let envelope = Envelope {
        headers: wait.new.headers.clone(),
        content_type: Some("application/json".to_owned()),
        body: wait.new.body.clone().into_bytes(),
        properties: Properties::transient("", "", ""),
    };
    Decoded::from_envelope(envelope).ok().map(|decoded| decoded.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::TaskId;
    use ledger::NewWait;
    use runtime::clock::Time;

    fn wait(state: WaitState, on_timeout: OnTimeout, input: Option<&str>) -> Wait {
        let json = |text: &str| json::written(text.to_owned());
        Wait {
            new: NewWait {
                task_id: TaskId::parse("a").unwrap(),
                is_sleep: false,
                name: "approve".into(),
                since: Time(0),
                expires_at: Time(1),
                schema: None,
                on_timeout,
                input: input.map(json),
                token: None,
                headers: String::new(),
                body: String::new(),
            },
            state,
            answer: Some(json("\"no\"")),
            ended_at: Some(Time(1)),
        }
    }

    #[test]
    fn a_skipped_step_passes_on_what_it_was_given() {
        let skipped = |input| match end(&wait(WaitState::Expired, OnTimeout::Skip, input)) {
            End::Success(value) => value.map(|value| value.get().to_owned()),
            End::Failure(_) | End::Revoked => panic!("it goes on"),
        };
        assert_eq!(skipped(Some("[1]")), Some("[1]".to_owned()));
        assert_eq!(skipped(None), None);
    }

    #[test]
    fn a_refusal_and_a_time_out_are_different_failures() {
        let kind = |state| match end(&wait(state, OnTimeout::Fail, None)) {
            End::Failure(exception) => (exception.kind.clone(), exception.text()),
            End::Success(_) | End::Revoked => panic!("it fails"),
        };
        assert_eq!(kind(WaitState::Refused), ("WaitRefused".into(), "no".into()));
        assert_eq!(kind(WaitState::Expired).0, "TimeoutError");
    }
}
