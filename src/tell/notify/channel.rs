//! Sends messages to one channel: a webhook, a chat or people's mail.
//!
//! Anyone who may register webhooks can give addresses, so requests go only where `[webhooks]` allows, and follow no redirect.
//! Only the owner sets the mail server, in the configuration, and it is usually internal; its address is not checked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Sent, mail, message};
use crate::config::{self, Channel, Notify};
use crate::tell::webhooks::{check_literal, client, refusal, signature, valid_secrets};
use ledger::{Endpoint, Notice};
use runtime::clock::{self, Time};

/// After this time a channel continues in the next pass, because other channels wait for the end of the pass.
const SHARE: Duration = Duration::from_secs(15);
const REGISTERED: &str = "webhook:";

/// The name of a registered webhook among the channels.
pub(super) fn name_of(endpoint: &str) -> String {
    format!("{REGISTERED}{endpoint}")
}

/// The target of a message.
pub(super) enum Target<'a> {
    Configured(&'a Channel),
    Registered { url: &'a str, secrets: Vec<&'a str> },
}

impl<'a> Target<'a> {
    /// `None` when there is no such channel any more.
    pub fn named(name: &str, configured: &'a [Notify], endpoints: &'a [Endpoint], now: Time) -> Option<Self> {
        if let Some(id) = name.strip_prefix(REGISTERED) {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.id == id)?;
            let url = endpoint.document.url.as_deref()?;
            return Some(Self::Registered { url, secrets: valid_secrets(endpoint, now) });
        }
        configured.iter().find(|channel| channel.name == name).map(|channel| Self::Configured(&channel.channel))
    }
}

/// The parts needed for sending.
pub(super) struct Channels {
    http: reqwest::Client,
    rules: Arc<config::Webhooks>,
}

impl Channels {
    pub fn new(webhooks: &config::Webhooks) -> Self {
        let rules = Arc::new(webhooks.clone());
        Self { http: client(&rules), rules }
    }

    /// Every attempt ends within `webhooks.timeout`.
    pub async fn send(&self, target: &Target<'_>, notices: &[&Notice]) -> Sent {
        match target {
            Target::Configured(Channel::Webhook { url, secret }) => {
                let secrets: Vec<&str> = secret.iter().map(|secret| secret.reveal()).collect();
                self.post_each(url.reveal(), &secrets, notices).await
            }
            Target::Registered { url, secrets } => self.post_each(url, secrets, notices).await,
            Target::Configured(Channel::Slack { url }) => {
                let sent = self.post(url.reveal(), message::chat(notices), &[], "").await;
                all_or_none(sent, notices.len())
            }
            Target::Configured(Channel::Email { server, from, to }) => {
                let (subject, text) = message::letter(notices);
                let sent = mail::send(server, from, to, subject, text, self.rules.timeout).await;
                all_or_none(sent, notices.len())
            }
        }
    }

    /// Sends a request for each, in order, until one is refused or the time is over.
    async fn post_each(&self, url: &str, secrets: &[&str], notices: &[&Notice]) -> Sent {
        let began = Instant::now();
        for (count, notice) in notices.iter().enumerate() {
            if began.elapsed() > SHARE {
                return Sent { count, refused: Some("it is slow".to_owned()) };
            }
            let sent = self.post(url, message::document(notice), secrets, &message::id(notice)).await;
            if let Err(refused) = sent {
                return Sent { count, refused: Some(refused) };
            }
        }
        Sent { count: notices.len(), refused: None }
    }

    async fn post(&self, url: &str, body: String, secrets: &[&str], id: &str) -> Result<(), String> {
        check_literal(&self.rules, url).map_err(|refused| refused.to_string())?;
        let mut request = self.http.post(url).header("content-type", "application/json");
        if !id.is_empty() {
            let timestamp = clock::now().as_micros().div_euclid(1_000_000);
            request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
            if !secrets.is_empty() {
                request = request.header("webhook-signature", signature(secrets, id, timestamp, &body));
            }
        }
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status())),
            // The error without the address, because a chat's address is its secret.
            Err(error) => Err(refusal(&error)),
        }
    }
}

fn all_or_none(sent: Result<(), String>, all: usize) -> Sent {
    match sent {
        Ok(()) => Sent { count: all, refused: None },
        Err(refused) => Sent { count: 0, refused: Some(refused) },
    }
}
