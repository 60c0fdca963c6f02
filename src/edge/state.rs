//! The state that all handlers share. Cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::contract::Contract;
use super::middleware::meters::Meters;
use super::sse::TokenStreams;
use crate::catalog::Catalog;
use crate::config::{self, Auth, Config};
use crate::guard::oidc::Provider;
use crate::guard::passwords::Passwords;
use crate::guard::throttle::Throttle;
use crate::guard::tokens::Authority;
use crate::tell::health;
use crate::tell::incidents::Incidents;
use crate::tell::traces::Traces;
use crate::usecase::SharedGateway;
use runtime::lifecycle::Tasks;

/// The edge's settings and the use cases behind it.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

pub struct Inner {
    pub gateway: SharedGateway,
    pub authority: Authority,
    pub throttle: Throttle,
    pub health: health::Handle,
    pub incidents: Incidents,
    pub catalog: Arc<Catalog>,
    pub http: config::Http,
    pub limits: config::Limits,
    pub auth: Auth,
    /// Users with passwords.
    pub passwords: Passwords,
    /// Present with `auth = "oidc"`.
    pub provider: Option<Provider>,
    /// How long a login lasts.
    pub session: Duration,
    /// Whether tasks that workers register get endpoints.
    pub learns: bool,
    /// The prefix of Flower's API, if it is enabled.
    pub flower: Option<String>,
    /// The access rules of all routes.
    pub access: Access,
    /// `None` when no metrics recorder is installed: `/metrics` is then empty.
    pub metrics: Option<PrometheusHandle>,
    pub meters: Meters,
    /// The contract with this catalog's endpoints and those that were learned.
    pub contract: Contract,
    /// Open event streams.
    pub streams: Arc<Semaphore>,
    pub token_streams: TokenStreams,
    pub tasks: Tasks,
    /// Receives the spans of requests.
    pub traces: Traces,
    /// Whether its ledger is a replica without writes.
    pub reads_only: bool,
    /// Ends the streams.
    pub stop: CancellationToken,
}

/// The services behind the edge, as the composition root built them.
#[derive(Clone)]
pub struct Behind {
    pub gateway: SharedGateway,
    pub authority: Authority,
    pub throttle: Throttle,
    pub health: health::Handle,
    pub incidents: Incidents,
    pub catalog: Arc<Catalog>,
    /// Receives the spans of requests.
    pub traces: Traces,
    /// Whether its ledger is a replica without writes.
    pub reads_only: bool,
}

impl Edge {
    pub fn new(config: &Config, behind: Behind, tasks: Tasks, metrics: Option<PrometheusHandle>) -> Self {
        let Behind { gateway, authority, throttle, health, incidents, catalog, traces, reads_only } = behind;
        super::base::set(&config.http.base_path);
        let contract = Contract::new(&catalog, config.auth);
        Self(Arc::new(Inner {
            gateway,
            authority,
            throttle,
            health,
            incidents,
            contract,
            access: Access::new(&catalog)
                .with_flower(config.compat.flower.as_deref())
                .with_learned(!config.learn.is_empty()),
            learns: !config.learn.is_empty(),
            flower: config.compat.flower.clone(),
            catalog,
            http: config.http.clone(),
            limits: config.limits.clone(),
            auth: config.auth,
            passwords: Passwords::new(config.users.clone()),
            provider: config.oidc.clone().map(Provider::new),
            session: config.login.session,
            metrics,
            meters: Meters::default(),
            traces,
            reads_only,
            streams: Arc::new(Semaphore::new(config.http.max_streams.min(Semaphore::MAX_PERMITS))),
            token_streams: TokenStreams::default(),
            stop: tasks.stop_token(),
            tasks,
        }))
    }
}

impl std::ops::Deref for Edge {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}
