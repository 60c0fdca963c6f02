//! Authenticates callers by token, without a query to the ledger for each request.
//!
//! Invariants: a cached answer was confirmed by the ledger less than [`FRESH`] ago, so a revoked token is refused everywhere within a
//! second, even by a replica that cannot reach the ledger; the cache is bounded; times of last use are written in batches, never by
//! the request.

mod people;
mod secret;
mod visibility;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Quota;
use ledger::{Error, Scope, SecretHash, SharedLedger, Token};
use runtime::clock::{self, Time};

pub use secret::{SESSION_PREFIX, Secret, TICKET_PREFIX, TOKEN_PREFIX};
pub use visibility::Visibility;

/// How long an answer from the ledger stays valid.
const FRESH: Duration = Duration::from_millis(900);
/// Pause between two confirmations; short enough that a slow confirmation still arrives before the last one is stale.
const PERIOD: Duration = Duration::from_millis(300);
/// Interval at which times of last use are written.
const NOTE_PERIOD: Duration = Duration::from_secs(5);
/// Maximum number of cached tokens. Further ones are looked up for each request.
const MOST_KNOWN: usize = 10_000;
/// Concurrent look-ups, so that guessed tokens cannot use up the ledger's connections.
const MOST_LOOKUPS: usize = 4;
/// A ticket's lifetime: it is fetched right before its only use.
pub const TICKET_TTL: Duration = Duration::from_secs(30);

/// Why a caller is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the token is unknown, expired or revoked")]
    Unknown,
    #[error("the ticket is unknown, expired or used")]
    UnknownTicket,
    #[error("the ledger failed")]
    Ledger(#[from] Error),
}

/// A cached token.
#[derive(Debug)]
struct Known {
    token: Token,
    visibility: Visibility,
    quota: Option<Quota>,
    /// Cancelled when the token is revoked: streams end with it.
    ended: CancellationToken,
    /// In microseconds; zero until this replica has seen it used.
    last_used: AtomicI64,
}

impl Known {
    fn of(token: Token) -> Self {
        Self {
            visibility: Visibility::of(&token.tasks),
            quota: token.rate.as_deref().and_then(|rate| Quota::parse(rate).ok()),
            token,
            ended: CancellationToken::new(),
            last_used: AtomicI64::new(0),
        }
    }
}

/// The caller. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Identity(Option<Arc<Known>>);

impl Identity {
    /// The caller when no token is required; may do everything.
    pub fn anybody() -> Self {
        Self(None)
    }

    /// `None` for [`Identity::anybody`].
    pub fn token(&self) -> Option<&Token> {
        self.0.as_ref().map(|known| &known.token)
    }

    /// The token's id.
    pub fn id(&self) -> Option<&str> {
        self.token().map(|token| token.id.as_str())
    }

    /// The token's name, for people.
    pub fn name(&self) -> Option<&str> {
        self.token().map(|token| token.name.as_str())
    }

    /// The person's name, if this is a login session.
    pub fn person(&self) -> Option<&str> {
        self.token().and_then(|token| token.person.as_deref())
    }

    /// For display: the person, the token's name, or "anybody" when no token is required.
    pub fn shown(&self) -> String {
        match (self.person(), self.name()) {
            (Some(person), _) => person.to_owned(),
            (None, Some(name)) => format!("token {name}"),
            (None, None) => "anybody".to_owned(),
        }
    }

    /// The namespace of its keys; `None` for a caller that may use any.
    pub fn namespace(&self) -> Option<&str> {
        let token = self.token().filter(|_| !self.may(Scope::Admin))?;
        Some(token.namespace.as_deref().unwrap_or(&token.name))
    }

    /// The token's own rate, if it has one.
    pub fn quota(&self) -> Option<Quota> {
        self.0.as_ref().and_then(|known| known.quota)
    }

    pub fn may(&self, scope: Scope) -> bool {
        self.token().is_none_or(|token| token.scopes.contains(&scope) || token.scopes.contains(&Scope::Admin))
    }

    /// The tasks that it may see.
    pub fn visibility(&self) -> Visibility {
        let visibility = self.0.as_ref().map_or_else(Visibility::default, |known| known.visibility.clone());
        visibility.within(self.namespace())
    }

    /// When the token expires.
    pub fn expires_at(&self) -> Option<Time> {
        self.token().and_then(|token| token.expires_at)
    }

    /// Cancelled when the token is revoked.
    pub fn ended(&self) -> CancellationToken {
        self.0.as_ref().map_or_else(CancellationToken::new, |known| known.ended.clone())
    }
}

#[derive(Default)]
struct Memory {
    known: HashMap<SecretHash, Arc<Known>>,
    /// The ledger's version at the last confirmation.
    version: Option<i64>,
    /// When that answer was requested.
    confirmed_at: Option<Instant>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Authority {
    ledger: SharedLedger,
    memory: Arc<RwLock<Memory>>,
    lookups: Arc<Semaphore>,
}

impl Authority {
    pub fn new(ledger: SharedLedger) -> Self {
        Self { ledger, memory: Arc::default(), lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)) }
    }

    /// The identity that this token stands for.
    ///
    /// # Errors
    /// When the token is not valid, or when the ledger must be asked and does not answer.
    pub async fn holder(&self, text: &str) -> Result<Identity, Refusal> {
        let hash = Secret::read(TOKEN_PREFIX, text).ok_or(Refusal::Unknown)?.hash();
        self.holder_of(&hash).await?.ok_or(Refusal::Unknown)
    }

    /// A single-use ticket in place of the caller's token; without effect where no token is required.
    pub async fn ticket(&self, identity: &Identity) -> Result<(Secret, Time), Error> {
        let (ticket, now) = (Secret::new(TICKET_PREFIX), clock::now());
        let expires_at = now.plus(TICKET_TTL);
        if let Some(token) = identity.token() {
            self.ledger.add_ticket(&ticket.hash(), &token.hash, now, expires_at).await?;
        }
        Ok((ticket, expires_at))
    }

    /// Redeems a ticket. A ticket works only once.
    pub async fn bearer(&self, text: &str) -> Result<Identity, Refusal> {
        let ticket = Secret::read(TICKET_PREFIX, text).ok_or(Refusal::UnknownTicket)?.hash();
        let token = {
            let _turn = self.lookups.acquire().await.expect("the semaphore is never closed");
            self.ledger.take_ticket(&ticket, clock::now()).await?.ok_or(Refusal::UnknownTicket)?
        };
        self.holder_of(&token).await?.ok_or(Refusal::UnknownTicket)
    }

    async fn holder_of(&self, hash: &SecretHash) -> Result<Option<Identity>, Error> {
        let known = match self.remembered(hash) {
            Some(known) => known,
            None => match self.look_up(hash).await? {
                Some(known) => known,
                None => return Ok(None),
            },
        };
        let now = clock::now();
        // The map lookup is not constant-time, so the hash is compared again in constant time.
        let is_same: bool = known.token.hash.ct_eq(hash).into();
        if !is_same || !known.token.is_valid_at(now) || known.ended.is_cancelled() {
            return Ok(None);
        }
        known.last_used.store(now.0, Ordering::Relaxed);
        Ok(Some(Identity(Some(known))))
    }

    fn remembered(&self, hash: &SecretHash) -> Option<Arc<Known>> {
        let memory = self.memory.read().expect("nothing panics under this lock");
        memory.confirmed_at.filter(|at| at.elapsed() < FRESH)?;
        memory.known.get(hash).cloned()
    }

    async fn look_up(&self, hash: &SecretHash) -> Result<Option<Arc<Known>>, Error> {
        let _turn = self.lookups.acquire().await.expect("the semaphore is never closed");
        let version = self.memory.read().expect("nothing panics under this lock").version;
        let Some(token) = self.ledger.tokens_by_hash(&[*hash]).await?.into_iter().next() else { return Ok(None) };
        let mut memory = self.memory.write().expect("nothing panics under this lock");
        // Share the entry that other requests already use, so that their streams end with it.
        let known = match memory.known.get(hash) {
            Some(known) if token.is_valid_at(clock::now()) => return Ok(Some(Arc::clone(known))),
            _ => Arc::new(Known::of(token)),
        };
        // If a token was changed meanwhile, maybe this one, the answer is used for this request only.
        if memory.version == version && version.is_some() && memory.known.len() < MOST_KNOWN {
            memory.known.insert(*hash, Arc::clone(&known));
        }
        Ok(Some(known))
    }

    /// Checks whether the cached tokens are still valid.
    async fn confirm(&self) -> Result<(), Error> {
        let asked_at = Instant::now();
        let version = self.ledger.token_version().await?;
        let hashes: Vec<SecretHash> = {
            let mut memory = self.memory.write().expect("nothing panics under this lock");
            if memory.version == Some(version) {
                memory.confirmed_at = Some(asked_at);
                return Ok(());
            }
            // From here on, answers that were read before this version are not cached; entries in the cache are read again below.
            memory.version = Some(version);
            memory.confirmed_at = None;
            memory.known.keys().copied().collect()
        };
        let mut valid = HashMap::new();
        if !hashes.is_empty() {
            let now = clock::now();
            let tokens = self.ledger.tokens_by_hash(&hashes).await.inspect_err(|_| self.forget_version())?;
            valid = tokens.into_iter().filter(|token| token.is_valid_at(now)).map(|token| (token.hash, ())).collect();
        }
        let mut memory = self.memory.write().expect("nothing panics under this lock");
        for hash in hashes {
            if !valid.contains_key(&hash)
                && let Some(known) = memory.known.remove(&hash)
            {
                known.ended.cancel();
            }
        }
        memory.confirmed_at = Some(asked_at);
        Ok(())
    }

    /// Makes the next confirmation read everything again.
    fn forget_version(&self) {
        self.memory.write().expect("nothing panics under this lock").version = None;
    }

    /// Writes the uses since the last call and drops expired tokens.
    async fn note_uses(&self, noted: &mut HashMap<String, i64>) -> Result<(), Error> {
        let now = clock::now();
        let used: Vec<(String, Time)> = {
            let mut memory = self.memory.write().expect("nothing panics under this lock");
            let used = |known: &Arc<Known>| (known.token.id.clone(), Time(known.last_used.load(Ordering::Relaxed)));
            let used = memory.known.values().map(used).filter(|(id, at)| at.0 > noted.get(id).copied().unwrap_or(0));
            let used = used.collect();
            memory.known.retain(|_, known| {
                let keep = known.token.is_valid_at(now);
                if !keep {
                    known.ended.cancel();
                }
                keep
            });
            used
        };
        if used.is_empty() {
            return Ok(());
        }
        self.ledger.note_token_uses(&used).await?;
        noted.extend(used.into_iter().map(|(id, at)| (id, at.0)));
        Ok(())
    }

    /// Runs until `stop`; the last uses are written then.
    pub async fn run(self, stop: CancellationToken) {
        let (mut noted, mut noted_at, mut is_away) = (HashMap::new(), Instant::now(), false);
        while !stop.is_cancelled() {
            let confirmed = self.confirm().await;
            if let (Err(error), false) = (&confirmed, is_away) {
                warn!(%error, "the cached tokens cannot be confirmed: each request reads the ledger");
            }
            is_away = confirmed.is_err();
            if noted_at.elapsed() > NOTE_PERIOD {
                // A use that cannot be written now is written next time.
                let _ = self.note_uses(&mut noted).await;
                noted_at = Instant::now();
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
        let _ = self.note_uses(&mut noted).await;
    }
}
