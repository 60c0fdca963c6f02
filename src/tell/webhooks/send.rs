//! One attempt at a delivery: sign, send, record the outcome.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::guard::{self, Guard, Refused};
use super::sign;
use crate::catalog::Catalog;
use crate::config;
use ledger::{CATALOG_ENDPOINT, Delivery, DeliveryState, Endpoint, Error, SharedLedger, Tried};
use runtime::clock::{self, Time};

/// Each pause is this many times the previous one.
const GROWTH: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_hours(4);
/// Idle connections kept per target.
const IDLE_PER_TARGET: usize = 2;
const IDLE: Duration = Duration::from_secs(30);
/// Longest error text recorded, in characters.
const MAX_ERROR: usize = 500;

pub(super) struct Sender {
    ledger: SharedLedger,
    catalog: Arc<Catalog>,
    config: Arc<config::Webhooks>,
    client: reqwest::Client,
}

/// The outcome of an attempt.
enum Outcome {
    Done(u16),
    /// An attempt may succeed later, but not before the pause that the receiver asked for.
    Later {
        status: Option<u16>,
        error: String,
        pause: Option<Duration>,
    },
    /// Retrying is useless until something is changed.
    Never {
        status: Option<u16>,
        error: String,
    },
}

impl Sender {
    pub fn new(ledger: SharedLedger, catalog: Arc<Catalog>, config: config::Webhooks) -> Self {
        let config = Arc::new(config);
        let client = client(&config);
        Self { ledger, catalog, config, client }
    }

    /// Sends a delivery. If the outcome cannot be recorded, the delivery is repeated when the lease expires.
    pub async fn deliver(&self, delivery: &Delivery) {
        let started = Instant::now();
        let outcome = match self.ledger.endpoint(&delivery.endpoint_id).await {
            Ok(Some(endpoint)) if endpoint.enabled => self.send(delivery, &endpoint).await,
            Ok(Some(_)) => never(None, "the endpoint is disabled"),
            Ok(None) => never(None, "the endpoint is gone"),
            Err(error) => {
                debug!(error = %error, "delivery {} is tried again later", delivery.id);
                return;
            }
        };
        histogram!("taskgate_webhook_seconds").record(started.elapsed().as_secs_f64());
        if let Outcome::Never { status: Some(410), .. } = outcome {
            self.switch_off(&delivery.endpoint_id).await;
        }
        let tried = self.settled(delivery, outcome, clock::now());
        counter!("taskgate_webhook_tries_total", "outcome" => tried.state.as_str()).increment(1);
        if let Err(error) = self.ledger.settle_delivery(&tried).await {
            warn!(error = %error, "the outcome of delivery {} could not be recorded: it will be sent again", delivery.id);
        }
    }

    async fn send(&self, delivery: &Delivery, endpoint: &Endpoint) -> Outcome {
        if let Err(refused) = guard::check_literal(&self.config, &delivery.url) {
            return never(None, &refused.to_string());
        }
        let now = clock::now();
        let timestamp = now.as_micros().div_euclid(1_000_000);
        let own = self.declared_secret(delivery);
        let secrets = own.as_deref().map_or_else(|| valid_secrets(endpoint, now), |secret| vec![secret]);
        let signature = sign::signature(&secrets, &delivery.id, timestamp, &delivery.payload);
        let request = self
            .client
            .post(&delivery.url)
            .header("content-type", "application/json")
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(delivery.payload.clone());
        match request.send().await {
            Ok(answer) => outcome(&answer),
            Err(error) => failure(&error),
        }
    }

    /// The secret that the catalog declares for this webhook.
    fn declared_secret(&self, delivery: &Delivery) -> Option<String> {
        if delivery.endpoint_id != CATALOG_ENDPOINT {
            return None;
        }
        let entry = self.catalog.entry(delivery.task_name.as_deref()?)?;
        entry.defaults.webhooks.iter().find(|declared| declared.hook.url == delivery.url)?.secret.clone()
    }

    /// Disables an endpoint that answered 410, because its receiver is gone for good.
    async fn switch_off(&self, id: &str) {
        let done = self.try_switch_off(id).await;
        match done {
            Ok(true) => info!(webhook.id = id, "webhook {id} answered 410 and was disabled"),
            Ok(false) => {}
            Err(error) => warn!(error = %error, webhook.id = id, "webhook {id} could not be disabled"),
        }
    }

    async fn try_switch_off(&self, id: &str) -> Result<bool, Error> {
        let Some(mut endpoint) = self.ledger.endpoint(id).await? else { return Ok(false) };
        if endpoint.is_built_in() || !endpoint.enabled {
            return Ok(false);
        }
        endpoint.enabled = false;
        endpoint.disabled_reason = Some("it answered 410 Gone".to_owned());
        endpoint.updated_at = clock::now();
        let target = endpoint.document.url.as_deref().map(celery::task::webhook::target).unwrap_or_default();
        self.ledger.edit_endpoint(&endpoint, &target).await
    }

    fn settled(&self, delivery: &Delivery, outcome: Outcome, now: Time) -> Tried {
        let tried = |state, next_at, status: Option<u16>, error: Option<String>| Tried {
            delivery_no: delivery.no,
            attempt: delivery.attempts,
            at: now,
            state,
            next_at,
            status: status.map(i32::from),
            error: error.map(|text| text.chars().take(MAX_ERROR).collect()),
        };
        match outcome {
            Outcome::Done(status) => tried(DeliveryState::Delivered, None, Some(status), None),
            Outcome::Never { status, error } => tried(DeliveryState::Failed, None, status, Some(error)),
            Outcome::Later { status, error, pause } => {
                match next_try(&self.config, delivery, pause, now, rand::random::<f64>()) {
                    Some(next) => tried(DeliveryState::Pending, Some(next), status, Some(error)),
                    None => tried(DeliveryState::Failed, None, status, Some(error)),
                }
            }
        }
    }
}

/// When a delivery is tried again; `None` when `retry_for` has passed. The last attempt is at the end of that time.
fn next_try(
    config: &config::Webhooks,
    delivery: &Delivery,
    asked: Option<Duration>,
    now: Time,
    chance: f64,
) -> Option<Time> {
    if now >= delivery.give_up_at {
        return None;
    }
    let steps = u32::try_from(delivery.attempts.max(1) - 1).unwrap_or(0).min(20);
    let grown = config.first_retry.checked_mul(GROWTH.saturating_pow(steps)).unwrap_or(LONGEST_PAUSE);
    let pause = grown.min(LONGEST_PAUSE.max(config.first_retry)).max(asked.unwrap_or_default().min(LONGEST_PAUSE));
    // Jitter of a tenth, so that deliveries that failed together are not retried together.
    let next = now.plus(pause.mul_f64(0.9 + chance / 5.0));
    Some(next.min(delivery.give_up_at))
}

/// The currently valid secrets, newest first.
pub(in crate::tell) fn valid_secrets(endpoint: &Endpoint, now: Time) -> Vec<&str> {
    let old = endpoint.old_secret.as_ref().filter(|(_, until)| *until > now).map(|(secret, _)| secret.as_str());
    std::iter::once(endpoint.secret.as_str()).chain(old).collect()
}

fn never(status: Option<u16>, error: &str) -> Outcome {
    Outcome::Never { status, error: error.to_owned() }
}

fn outcome(answer: &reqwest::Response) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Done(status.as_u16());
    }
    let error = match status.as_u16() {
        300..400 => format!("it answered {status}: redirects are not followed"),
        _ => format!("it answered {status}"),
    };
    if status.as_u16() == 410 {
        return Outcome::Never { status: Some(410), error };
    }
    let pause = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Outcome::Later { status: Some(status.as_u16()), error, pause: pause.map(Duration::from_secs) }
}

fn failure(error: &reqwest::Error) -> Outcome {
    match refused(error) {
        Some(refused) => never(None, &refused.to_string()),
        None => Outcome::Later { status: None, error: refusal(error), pause: None },
    }
}

/// The guard's reason, if the guard refused the request.
fn refused(error: &reqwest::Error) -> Option<&Refused> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Why a request failed, without its address.
pub(in crate::tell) fn refusal(error: &reqwest::Error) -> String {
    if let Some(refused) = refused(error) {
        return refused.to_string();
    }
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    if error.is_timeout() {
        "it did not answer in time".to_owned()
    } else if error.is_connect() {
        format!("cannot connect: {text}")
    } else {
        format!("the request failed: {text}")
    }
}

/// An HTTP client with root certificates from the binary, so that it works in an empty container.
pub(in crate::tell) fn client(config: &Arc<config::Webhooks>) -> reqwest::Client {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .dns_resolver(Guard(Arc::clone(config)))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(config.timeout)
        .pool_max_idle_per_host(IDLE_PER_TARGET)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("taskgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("nothing of it depends on the machine")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    fn delivery(attempts: i32) -> Delivery {
        Delivery {
            no: 1,
            id: "msg_1".into(),
            endpoint_id: "e".into(),
            task_id: "t".into(),
            task_name: None,
            seq: 1,
            kind: "task.failed".into(),
            url: "http://h/".into(),
            target: "h:80".into(),
            payload: "{}".into(),
            state: DeliveryState::Pending,
            attempts,
            created_at: Time(0),
            give_up_at: Time(0).plus(Duration::from_hours(24)),
            next_at: None,
            last_at: None,
            last_status: None,
            last_error: None,
            delivered_at: None,
        }
    }

    /// Goes through all attempts at a receiver that is always unreachable.
    #[test]
    fn tries_are_spread_over_the_whole_day() {
        let config = Config::parse(Role::Dev, "").unwrap().webhooks;
        let (mut now, mut tries) = (Time(0), Vec::new());
        for attempt in 1.. {
            let Some(next) = next_try(&config, &delivery(attempt), None, now, 0.5) else { break };
            tries.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(tries[..4], [5, 20, 80, 320]);
        assert!(tries.iter().all(|pause| *pause <= 4 * 3_600), "{tries:?}");
        assert_eq!(now, Time(0).plus(Duration::from_hours(24)), "{tries:?}");
        assert!((10..=16).contains(&tries.len()), "{tries:?}");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause() {
        let config = Config::parse(Role::Dev, "").unwrap().webhooks;
        let next = next_try(&config, &delivery(1), Some(Duration::from_secs(600)), Time(0), 0.5).unwrap();
        assert_eq!(next, Time(0).plus(Duration::from_secs(600)));
    }
}
