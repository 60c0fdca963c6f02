//! Verifies the signature of an event, and finds the id of its delivery. Pure: the caller passes the time.
//!
//! Each sender has its own scheme: Standard Webhooks, GitHub, Stripe, Slack. All use HMAC-SHA256 over the received bytes; codes are
//! compared in constant time. A scheme with a signed time refuses events outside the tolerance, so a recorded event cannot be
//! replayed later.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use celery::task::webhook::key;
use runtime::clock::Time;

/// How an event is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Standard,
    GitHub,
    Stripe,
    Slack,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("the header {0} cannot be read")]
    Unreadable(&'static str),
    #[error("the signed time is more than {} s away from now", .0.as_secs())]
    Stale(Duration),
    #[error("no signature fits the body and the secret")]
    Wrong,
}

/// The parts of an event that the signature covers.
pub struct Event<'a> {
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
}

impl Scheme {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "standard" => Some(Self::Standard),
            "github" => Some(Self::GitHub),
            "stripe" => Some(Self::Stripe),
            "slack" => Some(Self::Slack),
            _ => None,
        }
    }

    /// Why a secret is not valid for this scheme.
    pub fn refuses(self, secret: &str) -> Option<&'static str> {
        match self {
            Self::Standard if key(secret).is_none() => Some("must be whsec_ and the key in base64"),
            Self::Standard | Self::GitHub | Self::Stripe | Self::Slack if secret.is_empty() => {
                Some("must not be empty")
            }
            Self::Standard | Self::GitHub | Self::Stripe | Self::Slack => None,
        }
    }

    /// Verifies the signature. Returns the id of the delivery, if a header has one.
    ///
    /// # Errors
    /// When these bytes have no valid and recent signature by one of the secrets.
    pub fn verify(
        self,
        secrets: &[&str],
        event: &Event<'_>,
        now: Time,
        tolerance: Duration,
    ) -> Result<Option<String>, Unsigned> {
        match self {
            Self::Standard => standard(secrets, event, now, tolerance).map(Some),
            Self::GitHub => github(secrets, event),
            Self::Stripe => stripe(secrets, event, now, tolerance).map(|()| None),
            Self::Slack => slack(secrets, event, now, tolerance).map(|()| None),
        }
    }
}

fn standard(secrets: &[&str], event: &Event<'_>, now: Time, tolerance: Duration) -> Result<String, Unsigned> {
    let either = |name: &'static str, other: &str| {
        (event.header)(name).or_else(|| (event.header)(other)).ok_or(Unsigned::Missing(name))
    };
    let id = either("webhook-id", "svix-id")?;
    let at = either("webhook-timestamp", "svix-timestamp")?;
    let signatures = either("webhook-signature", "svix-signature")?;
    timely(at, "webhook-timestamp", now, tolerance)?;
    let content = [id.as_bytes(), b".", at.as_bytes(), b".", event.body].concat();
    let given: Vec<Vec<u8>> =
        signatures.split(' ').filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok()).collect();
    let keys = secrets.iter().filter_map(|secret| key(secret));
    fits(keys, &content, &given)?;
    Ok(id.to_owned())
}

fn github(secrets: &[&str], event: &Event<'_>) -> Result<Option<String>, Unsigned> {
    const NAME: &str = "x-hub-signature-256";
    let text = (event.header)(NAME).ok_or(Unsigned::Missing(NAME))?;
    let given = text.strip_prefix("sha256=").and_then(hex).ok_or(Unsigned::Unreadable(NAME))?;
    fits(secrets.iter().map(|secret| secret.as_bytes().to_vec()), event.body, &[given])?;
    Ok((event.header)("x-github-delivery").map(str::to_owned))
}

fn stripe(secrets: &[&str], event: &Event<'_>, now: Time, tolerance: Duration) -> Result<(), Unsigned> {
    const NAME: &str = "stripe-signature";
    let text = (event.header)(NAME).ok_or(Unsigned::Missing(NAME))?;
    let members = || text.split(',').filter_map(|member| member.trim().split_once('='));
    let at = members().find(|(name, _)| *name == "t").map(|(_, at)| at).ok_or(Unsigned::Unreadable(NAME))?;
    timely(at, NAME, now, tolerance)?;
    let given: Vec<Vec<u8>> = members().filter(|(name, _)| *name == "v1").filter_map(|(_, code)| hex(code)).collect();
    let content = [at.as_bytes(), b".", event.body].concat();
    fits(secrets.iter().map(|secret| secret.as_bytes().to_vec()), &content, &given)
}

fn slack(secrets: &[&str], event: &Event<'_>, now: Time, tolerance: Duration) -> Result<(), Unsigned> {
    const NAME: &str = "x-slack-signature";
    const TIME: &str = "x-slack-request-timestamp";
    let text = (event.header)(NAME).ok_or(Unsigned::Missing(NAME))?;
    let at = (event.header)(TIME).ok_or(Unsigned::Missing(TIME))?;
    timely(at, TIME, now, tolerance)?;
    let given = text.strip_prefix("v0=").and_then(hex).ok_or(Unsigned::Unreadable(NAME))?;
    let content = [b"v0:", at.as_bytes(), b":", event.body].concat();
    fits(secrets.iter().map(|secret| secret.as_bytes().to_vec()), &content, &[given])
}

/// Whether some signature matches the content under some key. All pairs are compared.
fn fits(keys: impl Iterator<Item = Vec<u8>>, content: &[u8], given: &[Vec<u8>]) -> Result<(), Unsigned> {
    let mut is_one = false;
    for key in keys {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        mac.update(content);
        let code = mac.finalize().into_bytes();
        for signature in given {
            is_one |= bool::from(code[..].ct_eq(&signature[..]));
        }
    }
    if is_one { Ok(()) } else { Err(Unsigned::Wrong) }
}

fn timely(text: &str, name: &'static str, now: Time, tolerance: Duration) -> Result<(), Unsigned> {
    let at: i64 = text.parse().map_err(|_| Unsigned::Unreadable(name))?;
    let at = Time(at.checked_mul(1_000_000).ok_or(Unsigned::Unreadable(name))?);
    let away = now.since(at).max(at.since(now));
    if away > tolerance { Err(Unsigned::Stale(tolerance)) } else { Ok(()) }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The id of a delivery that has no id header: the same bytes are the same event.
pub fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_614_265_330_000_000);
    const TOLERANCE: Duration = Duration::from_mins(5);

    fn verify(
        scheme: Scheme,
        secret: &str,
        headers: &'static [(&'static str, &'static str)],
        body: &str,
        now: Time,
    ) -> Result<Option<String>, Unsigned> {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        scheme.verify(
            &["whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI=", secret],
            &Event { header: &header, body: body.as_bytes() },
            now,
            TOLERANCE,
        )
    }

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn the_standards_example_is_taken_and_a_changed_one_is_not() {
        const HEADERS: &[(&str, &str)] = &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,nonsense v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = "{\"test\": 2432232314}";
        let taken = verify(Scheme::Standard, secret, HEADERS, body, NOW);
        assert_eq!(taken, Ok(Some("msg_p5jXN8AQM9LWM0D4loKWxJek".into())));
        assert_eq!(verify(Scheme::Standard, secret, HEADERS, "{\"test\": 1}", NOW), Err(Unsigned::Wrong));
        let late = Time(NOW.0 + 301_000_000);
        assert_eq!(verify(Scheme::Standard, secret, HEADERS, body, late), Err(Unsigned::Stale(TOLERANCE)));
    }

    /// The example of GitHub's documentation.
    #[test]
    fn githubs_example_is_taken() {
        const HEADERS: &[(&str, &str)] = &[
            ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
            ("x-github-delivery", "72d3162e"),
        ];
        let taken = verify(Scheme::GitHub, "It's a Secret to Everybody", HEADERS, "Hello, World!", NOW);
        assert_eq!(taken, Ok(Some("72d3162e".into())));
        assert_eq!(verify(Scheme::GitHub, "another", HEADERS, "Hello, World!", NOW), Err(Unsigned::Wrong));
        assert_eq!(verify(Scheme::GitHub, "x", &[], "", NOW), Err(Unsigned::Missing("x-hub-signature-256")));
    }

    #[test]
    fn slacks_example_is_taken() {
        const HEADERS: &[(&str, &str)] = &[
            ("x-slack-request-timestamp", "1531420618"),
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ];
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let now = Time(1_531_420_618_000_000);
        assert_eq!(verify(Scheme::Slack, "8f742231b10e8888abcd99yyyzzz85a5", HEADERS, body, now), Ok(None));
        assert_eq!(verify(Scheme::Slack, "other", HEADERS, body, now), Err(Unsigned::Wrong));
    }

    #[test]
    fn a_header_of_nonsense_is_refused_without_a_panic() {
        const HEADERS: &[(&str, &str)] = &[("stripe-signature", "t=99999999999999999999,v1=é,v1=0,=,")];
        assert_eq!(verify(Scheme::Stripe, "s", HEADERS, "", NOW), Err(Unsigned::Unreadable("stripe-signature")));
        const WITHOUT: &[(&str, &str)] = &[("stripe-signature", "t=1614265330,v0=00")];
        assert_eq!(verify(Scheme::Stripe, "s", WITHOUT, "", NOW), Err(Unsigned::Wrong));
    }
}
