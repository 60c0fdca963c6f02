//! Use cases: what a client can ask for, one file each. Knows no HTTP and no SQL.

mod admission;
pub mod batch;
pub mod dead_letters;
pub mod explain;
pub mod fan_out;
pub mod inspect;
mod limits;
mod nudge;
pub mod queues;
pub mod read;
mod replay;
pub mod retry;
pub mod retry_policy;
pub mod revoke;
mod rules;
pub mod schedules;
pub mod stats;
pub mod submit;
pub mod watch;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config;
use crate::guard::throttle::Throttle;
use crate::guard::tokens::Authority;
use crate::live::hub::Hub;
use crate::live::pauses::Pauses;
use crate::live::{commit, direct, reads};
use crate::reconcile::recorder;
use crate::tell::health;
use crate::tell::incidents::Incidents;
use crate::tell::webhooks as hooks;
use broker::Broker;
use broker::backend::Backend;
use celery::task::signature;
use ledger::SharedLedger;

pub use nudge::Nudge;
pub use watch::Watcher;

/// All use cases behind one cheap handle.
#[derive(Clone)]
pub struct Gateway(Arc<Parts>);

/// What the use cases work with.
pub struct Parts {
    pub authority: Authority,
    pub throttle: Throttle,
    pub ledger: SharedLedger,
    pub broker: Broker,
    pub backend: Backend,
    pub catalog: Arc<Catalog>,
    pub hub: Hub,
    pub watcher: Watcher,
    pub commit: commit::Handle,
    pub relay: direct::Handle,
    pub reads: reads::Handle,
    pub recorder: recorder::Handle,
    pub health: health::Handle,
    pub incidents: Incidents,
    pub pauses: Pauses,
    pub beat: Nudge,
    pub expander: Nudge,
    pub limits: config::Limits,
    /// How long an answer is kept for repetitions of its request.
    pub keep_idempotency: Duration,
    pub webhooks: hooks::Handle,
    pub hooks: config::Webhooks,
    /// `origin` of the messages: `gen<pid>@<host>` by Celery's custom.
    pub origin: String,
}

impl Gateway {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// How large a canvas may be.
    pub fn signature_limits(&self) -> signature::Limits {
        signature::Limits { depth: self.limits.depth, tasks: self.limits.tasks }
    }
}

impl std::ops::Deref for Gateway {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
