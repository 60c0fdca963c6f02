//! Keeps incidents in the ledger, and sends notices when one begins and ends.
//!
//! One replica at a time writes and sends. A notice is a row that is written with the incident, so a channel that is down delays no
//! other, and is retried until [`KEPT_TRYING`] is over. A message may come twice, with the same id. While the ledger takes no writes,
//! nothing can be recorded: each replica then sends a notice of that by itself (see [`outage`]).

mod channel;
mod mail;
mod message;
mod outage;

use std::collections::BTreeSet;
use std::time::Duration;

use celery::spelling::nearest;
use celery::task::webhook::INCIDENT;
use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::channel::{Channels, Target};
use self::outage::Outage;
use super::incidents::{Incidents, Kind};
use crate::config::{self, Notify};
use ledger::{Endpoint, Error, FoundIncident, Notice, SettledNotice, SharedLedger};
use runtime::clock::{self, Time};

const LEASE: &str = "incidents";
/// Longer than a pass takes.
const LEASE_TTL: Duration = Duration::from_secs(45);
const PERIOD: Duration = Duration::from_secs(2);
/// What an earlier process found stays open for so long after a start: some incidents are found only after their threshold.
const SETTLING: Duration = Duration::from_secs(120);
/// The most incidents of an earlier process that stay open meanwhile; no process finds more.
const INHERITED: i64 = 2_000;
/// Of one pass; a storm of incidents takes some.
const NOTICES: i64 = 500;
/// After the first failed try; each further pause is four times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How long a notice is retried before it is given up.
const KEPT_TRYING: Duration = Duration::from_secs(2 * 3_600);
const KEEP: Duration = Duration::from_secs(90 * 86_400);
const PRUNED: i64 = 500;
const BETWEEN_PRUNES: Duration = Duration::from_secs(3_600);
/// The most registered webhooks that are read.
const ENDPOINTS: i64 = 1_000;

/// Refuses channels that subscribe to kinds that do not exist.
///
/// # Errors
/// Names the channel and the kind.
pub fn check(channels: &[Notify]) -> Result<(), config::Error> {
    let known = Kind::ALL.map(Kind::as_str);
    for (at, channel) in channels.iter().enumerate() {
        if let Some(unknown) = channel.kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
            let hint = nearest(unknown, &known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let place = format!("notify[{at}] ({}).kinds", channel.name);
            return Err(config::Error::value(place, format!("{unknown:?} is no kind of incident{hint}")));
        }
    }
    Ok(())
}

/// Records the detected incidents and sends notices.
pub struct Notifier {
    ledger: SharedLedger,
    incidents: Incidents,
    channels: Channels,
    configured: Vec<Notify>,
    holder: String,
    began: Instant,
    /// Ids of the incidents that this process has found itself since it started.
    seen: BTreeSet<String>,
    /// Open incidents of an earlier process that this one has not found, read once per lease. `None`: they are not known.
    inherited: Option<Vec<FoundIncident>>,
    /// Ids of the open incidents as they were written last, so that an unchanged list costs nothing. `None`: it is not known.
    written: Option<BTreeSet<String>>,
    outage: Outage,
    pruned_at: Option<Instant>,
}

impl Notifier {
    pub fn new(
        ledger: SharedLedger,
        incidents: Incidents,
        configured: Vec<Notify>,
        webhooks: &config::Webhooks,
        holder: String,
    ) -> Self {
        let (channels, outage) = (Channels::new(webhooks), Outage::default());
        Self {
            ledger,
            incidents,
            channels,
            configured,
            holder,
            began: Instant::now(),
            seen: BTreeSet::new(),
            inherited: None,
            written: None,
            outage,
            pruned_at: None,
        }
    }

    /// Runs until `stop`. A notice that is being sent then is sent again by the next replica.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.step() => {}
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn step(&mut self) {
        let now = clock::now();
        let passed = self.pass(now).await;
        if let Err(error) = &passed {
            debug!(error = %error, "incidents are written down later");
            self.forget();
        }
        let down = self.incidents.all().into_iter().find(|incident| incident.kind == Kind::LedgerDown);
        let names: Vec<String> = self
            .configured
            .iter()
            .filter(|channel| channel.wants(Kind::LedgerDown.as_str()))
            .map(|channel| channel.name.clone())
            .collect();
        self.outage.note(down.as_ref(), passed.is_ok(), &names, now);
        let due = self.outage.due(now);
        if !due.is_empty() {
            let settled = self.tell(&due, &[], now).await;
            self.outage.settle(&settled);
        }
    }

    async fn pass(&mut self, now: Time) -> Result<(), Error> {
        if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL).await?.is_none() {
            self.forget();
            return Ok(());
        }
        self.write(now).await?;
        let notices = self.ledger.due_notices(now, NOTICES).await?;
        if !notices.is_empty() {
            let endpoints = self.endpoints().await?;
            let settled = self.tell(&notices, &endpoints, now).await;
            self.ledger.settle_notices(&settled).await?;
        }
        if self.pruned_at.is_none_or(|at| at.elapsed() > BETWEEN_PRUNES) {
            self.ledger.prune_incidents(now.minus(KEEP), PRUNED).await?;
            self.pruned_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Another replica may write, or has written.
    fn forget(&mut self) {
        (self.written, self.inherited) = (None, None);
    }

    /// Records the open incidents, if they changed.
    async fn write(&mut self, now: Time) -> Result<(), Error> {
        let mut found: Vec<FoundIncident> = self.incidents.all().iter().map(message::found).collect();
        found.extend(self.outage.over().cloned());
        found.extend(self.inherited(&found).await?);
        let ids: BTreeSet<String> = found.iter().map(|incident| incident.id.clone()).collect();
        if self.written.as_ref() == Some(&ids) {
            return Ok(());
        }
        let endpoints = self.endpoints().await?;
        for incident in &mut found {
            // Every replica sends its own notice of an outage of the ledger.
            if incident.kind != Kind::LedgerDown.as_str() {
                incident.channels = names(&self.configured, &endpoints, &incident.kind);
            }
        }
        self.ledger.note_incidents(&found, now).await?;
        self.outage.is_written();
        self.written = Some(ids);
        Ok(())
    }

    /// What an earlier process found and this one has not found since it started: it stays open while this process settles. What this one
    /// has found once ends when it is over.
    async fn inherited(&mut self, found: &[FoundIncident]) -> Result<Vec<FoundIncident>, Error> {
        if self.began.elapsed() >= SETTLING {
            self.inherited = None;
            return Ok(Vec::new());
        }
        let mut inherited = match self.inherited.take() {
            Some(inherited) => inherited,
            None => self.ledger.open_incidents(INHERITED).await?.into_iter().map(|kept| kept.found).collect(),
        };
        self.seen.extend(found.iter().map(|own| own.id.clone()));
        inherited.retain(|kept| !self.seen.contains(&kept.id));
        self.inherited = Some(inherited.clone());
        Ok(inherited)
    }

    /// Registered webhooks that subscribe to incidents.
    async fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let mut all = self.ledger.endpoints(None, ENDPOINTS).await?;
        all.retain(|endpoint| endpoint.enabled && endpoint.document.on.iter().any(|word| word == INCIDENT));
        Ok(all)
    }

    /// Sends to all channels concurrently and independently.
    async fn tell(&self, notices: &[Notice], endpoints: &[Endpoint], now: Time) -> Vec<SettledNotice> {
        let names: BTreeSet<&str> = notices.iter().map(|notice| notice.channel.as_str()).collect();
        let send = async |name: &str| {
            let own: Vec<&Notice> = notices.iter().filter(|notice| notice.channel == name).collect();
            let Some(target) = Target::named(name, &self.configured, endpoints, now) else {
                debug!("{name} is no channel any more: {} notices are dropped", own.len());
                return own.iter().map(|notice| SettledNotice { no: notice.no, again_at: None }).collect();
            };
            let sent = self.channels.send(&target, &own).await;
            settled(name, &own, sent, now)
        };
        let settled: Vec<Vec<SettledNotice>> = futures_util::future::join_all(names.into_iter().map(send)).await;
        settled.into_iter().flatten().collect()
    }
}

/// The channels that are notified of such an incident.
fn names(configured: &[Notify], endpoints: &[Endpoint], kind: &str) -> Vec<String> {
    let own = configured.iter().filter(|channel| channel.wants(kind)).map(|channel| channel.name.clone());
    own.chain(endpoints.iter().map(|endpoint| channel::name_of(&endpoint.id))).collect()
}

/// The first `sent` were accepted; the next one was refused for this reason, and the later ones were not tried.
struct Sent {
    count: usize,
    refused: Option<String>,
}

fn settled(name: &str, own: &[&Notice], sent: Sent, now: Time) -> Vec<SettledNotice> {
    let count = |outcome: &'static str, number: usize| {
        counter!("taskgate_notifications_total", "outcome" => outcome).increment(number as u64);
    };
    count("sent", sent.count);
    if sent.count > 0 {
        info!(channel = name, "sent {} notices of incidents to {name}", sent.count);
    }
    let left = own.iter().skip(sent.count);
    let done = own.iter().take(sent.count).map(|notice| SettledNotice { no: notice.no, again_at: None });
    let reason = sent.refused.unwrap_or_default();
    let later = left.map(|notice| {
        let again_at = again(notice, now);
        if again_at.is_none() {
            count("given_up", 1);
            warn!(
                channel = name,
                "a notice about {} is not sent to {name} any more: {reason}", notice.incident.found.subject
            );
        }
        SettledNotice { no: notice.no, again_at }
    });
    let settled: Vec<SettledNotice> = done.chain(later).collect();
    if sent.count < own.len() {
        count("failed", own.len() - sent.count);
        warn!(channel = name, "{} notices of incidents could not be sent to {name}: {reason}", own.len() - sent.count);
    }
    settled
}

/// When a notice that could not be sent is tried again.
fn again(notice: &Notice, now: Time) -> Option<Time> {
    let growth = 4_u32.saturating_pow(u32::try_from(notice.tries).unwrap_or(0));
    let next = now.plus(FIRST_PAUSE.saturating_mul(growth).min(LONGEST_PAUSE));
    (next <= notice.created_at.plus(KEPT_TRYING)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[test]
    fn tries_become_rarer_and_end() {
        let mut notice = message::sample("no_consumer", "mail");
        let (mut now, mut pauses) = (notice.created_at, Vec::new());
        while let Some(next) = again(&notice, now) {
            pauses.push(next.since(now).as_secs());
            now = next;
            notice.tries += 1;
        }
        assert_eq!(pauses[..5], [5, 20, 80, 320, 600]);
        assert!(pauses.len() < 20 && now.since(notice.created_at) <= KEPT_TRYING, "{pauses:?}");
    }

    #[test]
    fn what_follows_a_refused_message_is_tried_again_with_it() {
        let (first, second) = (message::sample("no_consumer", "a"), message::sample("no_consumer", "b"));
        let sent = Sent { count: 1, refused: Some("it answered 500".to_owned()) };
        let settled = settled("ops", &[&first, &second], sent, Time(0));
        assert!(settled[0].again_at.is_none() && settled[1].again_at.is_some());
    }

    #[test]
    fn a_kind_that_does_not_exist_is_refused() {
        let text = "[[notify]]\nkind = 'slack'\nurl = 'https://h'\nkinds = 'no_consumers'";
        let refused = check(&Config::parse(Role::Dev, text).unwrap().notify).unwrap_err().to_string();
        assert!(refused.contains("slack-1") && refused.contains("did you mean no_consumer?"), "{refused}");
    }
}
