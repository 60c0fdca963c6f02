//! `link` and `link_error` of an entry: tasks that run after each of its tasks.

use serde_json::Value;

use super::ResolveError;
use super::canvas::checked_call;
use super::template::{self, Template};
use crate::config::Error;
use celery::task::Signature;
use celery::task::signature::Limits;
use celery::task::submission::Submission;

/// The links of a task of this request.
#[derive(Debug, Clone, Default)]
pub struct Links {
    pub after_success: Vec<Signature>,
    pub after_failure: Vec<Signature>,
}

/// Links with templates.
#[derive(Debug, Default)]
pub(super) struct LinkTemplates {
    after_success: Vec<Template>,
    after_failure: Vec<Template>,
}

impl LinkTemplates {
    pub fn compile(place: &str, link: &[Value], link_error: &[Value]) -> Result<Self, Error> {
        let compile = |key: &str, calls: &[Value]| {
            let call = |(index, call): (usize, &Value)| checked_call(call, &format!("/{index}")).map(|(_, call)| call);
            let calls: Result<Vec<Template>, String> = calls.iter().enumerate().map(call).collect();
            calls.map_err(|message| Error::value(format!("{place}.{key}"), message))
        };
        Ok(Self { after_success: compile("link", link)?, after_failure: compile("link_error", link_error)? })
    }

    pub fn is_empty(&self) -> bool {
        self.after_success.is_empty() && self.after_failure.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.after_success.iter().chain(&self.after_failure).flat_map(Template::names)
    }

    /// Fills the templates. They are parsed inside a task's signature, because errbacks have other rules than links.
    pub fn fill(&self, value_of: &dyn Fn(&str) -> String) -> Result<Links, ResolveError> {
        if self.is_empty() {
            return Ok(Links::default());
        }
        let mut text = String::from("{\"task\": \"any\", \"link\": ");
        template::array(&self.after_success, value_of, &mut text);
        text.push_str(", \"link_error\": ");
        template::array(&self.after_failure, value_of, &mut text);
        text.push('}');
        match Submission::parse(&text, Limits::default()).map(|submission| submission.signature) {
            Ok(Signature::Task(task)) => Ok(Links { after_success: task.link, after_failure: task.link_error }),
            Ok(_) => Ok(Links::default()),
            Err(wrong) => {
                let first = wrong.into_iter().next().map(|fault| format!("{} {}", fault.pointer, fault.detail));
                Err(ResolveError::invalid("", format!("makes no link: {}", first.unwrap_or_default())))
            }
        }
    }
}
