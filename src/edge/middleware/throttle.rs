//! Enforces the rate limit of tokens, and reports it in each answer (`RateLimit`, `RateLimit-Policy`).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::guard::throttle::Verdict;
use crate::guard::tokens::Identity;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Counts a request; `None` for a caller without a limit.
pub async fn count(edge: &Edge, identity: &Identity) -> Option<Verdict> {
    let quota = identity.quota().or(edge.limits.requests)?;
    Some(edge.throttle.take(identity.id()?, quota).await)
}

/// The 429 answer, if the request exceeds the limit.
pub fn refusal(verdict: &Verdict) -> Option<Problem> {
    let refused = !verdict.is_allowed;
    // Whole seconds, rounded up: a client that comes too early would be refused again.
    let pause = std::time::Duration::from_secs(seconds_up(verdict.retry_after).max(1));
    refused.then(|| {
        Problem::new(&slugs::RATE_LIMITED)
            .detail(format!(
                "the token may call {} times in {} s",
                verdict.quota.requests,
                verdict.quota.window.as_secs()
            ))
            .retry_after(pause)
    })
}

/// Adds the headers of the IETF draft: the policy, then what is left and when the quota is full again.
pub fn announce(headers: &mut HeaderMap, verdict: &Verdict) {
    let policy = format!("\"token\";q={};w={}", verdict.quota.requests, verdict.quota.window.as_secs());
    let left = format!("\"token\";r={};t={}", verdict.remaining, seconds_up(verdict.reset));
    for (name, text) in [(&POLICY, policy), (&LEFT, left)] {
        headers.insert(name, HeaderValue::from_str(&text).expect("numbers and names are a header value"));
    }
}

fn seconds_up(span: std::time::Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
