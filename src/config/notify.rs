//! `[[notify]]`: channels that are notified of incidents.

use lettre::message::Mailbox;
use serde::Deserialize;

use super::Error;
use super::value::{Secret, Text, Words};
use celery::task::webhook::key;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawNotify {
    /// `webhook`, `slack` (Slack, and chats that take its messages, such as Mattermost and Rocket.Chat) or `email`. Required.
    kind: Text,
    /// The address of the webhook, or of the mail server: `smtps://user:password@mail.example.com:465` or
    /// `smtp://mail.example.com:587?tls=required`. Required. `[webhooks]` limits the addresses of webhooks.
    url: Text,
    /// The channel's name in logs and metrics. Default: its kind with its number in the file, such as `slack-2`.
    name: Option<Text>,
    /// The secret that signs webhooks, as for registered ones (`whsec_…`). Default none.
    secret: Option<Text>,
    /// The recipients of the mail. Required for `email`.
    to: Option<Words>,
    /// The sender of the mail. Default `taskgate@localhost`.
    from: Option<Text>,
    /// Only incidents of these kinds. Default all.
    kinds: Option<Words>,
}

/// A channel that is notified of incidents.
#[derive(Debug, Clone)]
pub struct Notify {
    /// Unique.
    pub name: String,
    pub channel: Channel,
    /// Empty: all. The notifier checks whether such kinds exist.
    pub kinds: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Channel {
    Webhook {
        url: Secret,
        secret: Option<Secret>,
    },
    /// Not shown, because the address itself is the credential.
    Slack {
        url: Secret,
    },
    Email {
        server: Secret,
        from: Mailbox,
        to: Vec<Mailbox>,
    },
}

impl Notify {
    pub fn wants(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind)
    }

    pub(super) fn read(raw: Vec<RawNotify>) -> Result<Vec<Self>, Error> {
        let all: Vec<Self> =
            raw.into_iter().enumerate().map(|(at, raw)| Self::channel(at, raw)).collect::<Result<_, _>>()?;
        match all.iter().enumerate().find(|(at, channel)| all[..*at].iter().any(|other| other.name == channel.name)) {
            Some((at, channel)) => Err(refused(at, "name", &format!("{} is the name of another one", channel.name))),
            None => Ok(all),
        }
    }

    fn channel(at: usize, raw: RawNotify) -> Result<Self, Error> {
        let kinds = raw.kinds.clone().unwrap_or_default().0;
        let usual = || format!("{}-{}", raw.kind.0, at + 1);
        let name = raw.name.as_ref().map_or_else(usual, |name| name.0.clone());
        Ok(Self { name, channel: channel(at, raw)?, kinds })
    }
}

fn channel(at: usize, raw: RawNotify) -> Result<Channel, Error> {
    let url = Secret::new(raw.url.0.clone());
    match raw.kind.0.as_str() {
        kind @ ("webhook" | "slack") => {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(refused(at, "url", "must be an address, as https://hooks.example.com/x"));
            }
            if kind == "slack" {
                return Ok(Channel::Slack { url });
            }
            if raw.secret.as_ref().is_some_and(|secret| key(&secret.0).is_none()) {
                return Err(refused(at, "secret", "must be whsec_ and 24 to 64 bytes in base64"));
            }
            Ok(Channel::Webhook { url, secret: raw.secret.map(|secret| Secret::new(secret.0)) })
        }
        "email" => {
            if !matches!(url.scheme(), "smtp" | "smtps") {
                let message = "must be a mail server, as smtps://user:password@mail.example.com:465";
                return Err(refused(at, "url", message));
            }
            let to = raw.to.unwrap_or_default().0;
            if to.is_empty() {
                return Err(refused(at, "to", "is needed: who gets the mail"));
            }
            let to = to.iter().map(|address| mailbox(at, "to", address)).collect::<Result<_, _>>()?;
            let from = raw.from.map_or_else(|| "taskgate@localhost".to_owned(), |text| text.0);
            Ok(Channel::Email { server: url, from: mailbox(at, "from", &from)?, to })
        }
        _ => Err(refused(at, "kind", "must be \"webhook\", \"slack\" or \"email\"")),
    }
}

fn mailbox(at: usize, key: &str, address: &str) -> Result<Mailbox, Error> {
    address.parse().map_err(|_| refused(at, key, &format!("{address:?} is no mail address")))
}

fn refused(at: usize, key: &str, message: &str) -> Error {
    Error::value(format!("notify[{at}].{key}"), message)
}

#[cfg(test)]
mod tests {
    use crate::config::{Channel, Config, Role};

    fn refused(text: &str) -> String {
        Config::parse(Role::Dev, text).unwrap_err().to_string()
    }

    #[test]
    fn channels_have_names_and_secrets_that_nobody_sees() {
        let text = "[[notify]]\nkind = 'slack'\nurl = 'https://hooks.example.com/geheim'\n\
             [[notify]]\nkind = 'email'\nurl = 'smtps://u:geheim@mail.example.com'\nto = 'Ops <a@example.com>, b@example.com'\n\
             kinds = ['no_consumer']";
        let notify = Config::parse(Role::Dev, text).unwrap().notify;
        assert_eq!([&notify[0].name, &notify[1].name], ["slack-1", "email-2"]);
        assert!(matches!(&notify[1].channel, Channel::Email { to, .. } if to.len() == 2));
        assert!(notify[1].wants("no_consumer") && !notify[1].wants("redis_down") && notify[0].wants("redis_down"));
        assert!(!format!("{:?}", notify[1]).contains("geheim"));
    }

    #[test]
    fn what_a_channel_cannot_mean_stops_the_start() {
        let email = "[[notify]]\nkind = 'email'\nurl = 'smtp://mail.example.com'\n";
        assert!(refused("[[notify]]\nkind = 'pager'\nurl = 'https://h/'").contains("\"email\""));
        assert!(refused("[[notify]]\nkind = 'webhook'\nurl = 'smtp://h'").contains("https://"));
        assert!(refused("[[notify]]\nkind = 'webhook'\nurl = 'https://h'\nsecret = 'x'").contains("whsec_"));
        assert!(refused(email).contains("who gets the mail"));
        assert!(refused(&format!("{email}to = 'nobody'")).contains("no mail address"));
        let twice = "[[notify]]\nkind = 'slack'\nurl = 'https://h'\nname = 'ops'\n";
        assert!(refused(&format!("{twice}{twice}")).contains("another one"));
    }
}
