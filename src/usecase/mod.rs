//! The use cases, one file each: everything that a client can ask for. No HTTP and no SQL.

mod admission;
pub mod audit;
pub mod batch;
pub mod bulk;
pub mod capabilities;
pub mod dags;
pub mod dead_letters;
pub mod embedded;
pub mod explain;
pub mod fan_out;
pub mod feed;
pub mod inboxes;
pub mod incidents;
pub mod inspect;
pub mod keys;
mod limits;
pub mod lists;
pub mod logs;
mod nudge;
mod offload;
pub mod queues;
pub mod read;
mod replay;
pub mod resolve;
pub mod retry;
pub mod retry_policy;
pub mod revoke;
mod rows;
mod rules;
pub mod schedules;
pub mod standings;
pub mod stats;
pub mod submit;
mod submitted;
pub mod ticks;
pub mod together;
pub mod tokens;
mod unique;
pub mod waits;
mod warnings;
pub mod watch;
mod way;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config;
use crate::live::hub::Hub;
use crate::live::inboxes::Inboxes;
use crate::live::learned::Learned;
use crate::live::management::Management;
use crate::live::pauses::Pauses;
use crate::live::windows::Windows;
use crate::live::{commit, direct, reads};
use crate::reconcile::fleet::Fleet;
use crate::reconcile::recorder;
use crate::stores::{Store, Stores};
use crate::tell::health;
use crate::tell::webhooks as hooks;
use broker::Broker;
use celery::json::Members;
use celery::plan;
use celery::task::signature;
use ledger::SharedLedger;
use runtime::clock::Time;

pub use nudge::{Nudge, Wake};
pub(crate) use offload::Kept;
pub use offload::Roster;
pub use warnings::Warning;
pub use watch::Watcher;

/// The state of all use cases. Handlers call its methods; only use cases and the roles that submit by themselves access its parts.
pub struct Gateway {
    pub(crate) ledger: SharedLedger,
    pub(crate) broker: Broker,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) hub: Hub,
    pub(crate) watcher: Watcher,
    pub(crate) commit: commit::Handle,
    pub(crate) relay: direct::Handle,
    pub(crate) reads: reads::Handle,
    pub(crate) recorder: recorder::Handle,
    pub(crate) health: health::Handle,
    pub(crate) pauses: Pauses,
    pub(crate) inboxes: Inboxes,
    pub(crate) fleet: Fleet,
    pub(crate) stores: Stores,
    pub(crate) windows: Windows,
    /// Where the broker is a RabbitMQ whose management API is named.
    pub(crate) management: Option<Management>,
    pub(crate) learned: Learned,
    pub(crate) beat: Nudge,
    pub(crate) expander: Nudge,
    pub(crate) bulks: Nudge,
    pub(crate) dags: Nudge,
    pub(crate) waits: Wake,
    pub(crate) wait_key: waits::SigningKey,
    pub(crate) limits: config::Limits,
    /// How long the history is kept.
    pub(crate) keep: Duration,
    /// How long answers are kept for repeated requests.
    pub(crate) keep_idempotency: Duration,
    pub(crate) webhooks: hooks::Handle,
    pub(crate) hooks: config::Webhooks,
    /// The queue that workers send results to, if results come over the broker.
    pub(crate) reply_to: Option<String>,
    /// The result backend, by Celery's name for it, where it is one that counts no parts of chords.
    pub(crate) uncounted: Option<&'static str>,
    /// `origin` of the messages: by Celery's convention `gen<pid>@<host>`.
    pub(crate) origin: String,
}

/// Cheap to clone.
pub type SharedGateway = Arc<Gateway>;

impl Gateway {
    /// Follows tasks and groups, and waits for their ends.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Values that all tasks of a submission share.
    pub(crate) fn context<'a>(&'a self, headers: &'a Members, now: Time) -> plan::Context<'a> {
        let now = submit::timestamp(now);
        plan::Context { now, origin: &self.origin, headers, reply_to: self.reply_to.as_deref() }
    }

    /// Where files of requests are kept, by the store's name.
    pub fn store(&self, name: &str) -> Option<&Store> {
        self.stores.get(name)
    }

    /// All tasks in `learn` that workers have reported.
    pub fn lesson(&self) -> Arc<crate::live::learned::Lesson> {
        self.learned.lesson()
    }

    /// The type hints of a task in `learn`, once a worker has reported them.
    pub fn learned(&self, name: &str) -> Option<crate::catalog::Annotations> {
        self.learned.hints(name)
    }

    /// How large a canvas may be.
    pub fn signature_limits(&self) -> signature::Limits {
        self.limits.of_signatures()
    }
}
