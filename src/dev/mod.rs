//! Everything in one process, with nothing installed: a SQLite ledger, the built-in Redis-protocol server, the Rust worker with
//! the sample tasks, the API. The code is the same as in production; only the servers behind the URLs differ.
//!
//! The built-in server loses its data when it stops. Tasks that were queued or reserved are in the ledger, and the sweeper (it repairs
//! lost messages) queues them again.

mod hints;
pub mod notice_boards;
pub mod sample_site;

use std::fs::Permissions;
use std::io::{ErrorKind, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tracing::info;

use crate::catalog::Catalog;
use crate::config::{self, Config, RawSchedule, Role};
use crate::guard::tokens::Secret;
use ledger::SharedLedger;
use ledger::sqlite::Synchronous;
use runtime::lifecycle::{OnExit, Tasks};

/// The catalog that dev starts with when no configuration file is given.
const SAMPLE: &str = include_str!("../../examples/taskgate.toml");

/// The sample schedule that dev runs every minute.
const EVERY_MINUTE: &str = "college-scholarship";

/// The directory that dev creates when none is named.
const USUAL_DATA: &str = "taskgate-data";

const PASSWORD_PREFIX: &str = "dev_";

/// The built-in server closes its clients within a second.
const REDIS_STOP: Duration = Duration::from_millis(1_500);

/// Fills in what the configuration leaves out: sample tasks, the ledger's file, the built-in server's address.
pub struct Dev {
    pub config: Config,
    data: PathBuf,
    redis: Option<BuiltIn>,
}

impl Dev {
    /// Prepares the data directory and starts the built-in server, unless a broker was named.
    ///
    /// # Errors
    /// When the directory cannot be created or no port is free.
    pub async fn prepare(mut config: Config, data: &Path, tasks: &Tasks) -> anyhow::Result<Self> {
        make_private(data)
            .with_context(|| format!("the rights of {} cannot be limited to its owner", data.display()))?;
        if !config.said.has("tasks") {
            add_samples(&mut config)?;
        }
        keep_files_in(data, &mut config);
        let redis = if config.said.has("broker.url") { None } else { Some(start_redis(&mut config, tasks).await?) };
        Ok(Self { config, data: data.to_owned(), redis })
    }

    /// The ledger that was named, or a file in the data directory.
    ///
    /// # Errors
    /// When its URL is not understood, or another gateway uses the file.
    pub fn ledger(&self, tasks: &Tasks) -> anyhow::Result<SharedLedger> {
        if self.config.database.url.is_some() {
            return crate::app::claim_ledger(&self.config, tasks.stop_token());
        }
        crate::app::claim_file(self.data.join("ledger.db"), Synchronous::Normal, &self.config)
    }

    /// Stops the built-in server. Called when everything else has stopped.
    pub async fn stop(&self) {
        if let Some(redis) = &self.redis {
            redis.tasks.shut_down(REDIS_STOP).await;
        }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Prints the addresses to standard output as plain text, before dev is ready. `file`: the configuration file that was named.
    ///
    /// # Errors
    /// When the catalog is invalid.
    pub fn announce(&self, listen: SocketAddr, file: Option<&Path>) -> anyhow::Result<()> {
        let base = hints::base(&self.config, listen);
        let bold = |text: &str| {
            if std::io::stdout().is_terminal() { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        println!("{}", bold("taskgate dev"));
        println!("  API        {base}");
        println!("  Swagger UI {base}/swagger-ui/");
        if cfg!(feature = "dashboard") {
            println!("  dashboard  {base}/dashboard/");
        }
        println!("  ledger     {}", self.ledger_place());
        let redis = self.redis.as_ref().map(BuiltIn::url);
        match &redis {
            Some(redis) => println!("  broker     {redis}/0\n  backend    {redis}/1"),
            None => println!("  broker     {}", self.config.broker.redis.url),
        }
        println!();
        let own_file = self.data.join("ledger.db");
        let ledger = self.config.database.url.is_none().then_some(own_file.as_path());
        let around = hints::Around { file, ledger, redis: redis.as_deref() };
        let catalog = Catalog::compile(&self.config)?;
        hints::lines(&self.config, &catalog, &base, around).iter().for_each(|line| println!("{line}"));
        Ok(())
    }

    fn ledger_place(&self) -> String {
        match &self.config.database.url {
            Some(url) => url.to_string(),
            None => self.data.join("ledger.db").display().to_string(),
        }
    }
}

/// Makes the directory and the ledger in it accessible only to their owner, also when an older release has created them. A directory
/// that the user named keeps its rights, and so do other files in it.
fn make_private(data: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    if data.file_name().is_some_and(|name| name == USUAL_DATA) {
        std::fs::set_permissions(data, Permissions::from_mode(0o700))?;
    }
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        match std::fs::set_permissions(data.join(name), Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The store that nobody has said lies beside the ledger.
fn keep_files_in(data: &Path, config: &mut Config) {
    if config.said.has("stores.default") {
        return;
    }
    for store in config.stores.iter_mut().filter(|store| store.name == config::DEFAULT_STORE) {
        *store = config::Store::folder(config::DEFAULT_STORE, data.join("files"));
    }
}

fn add_samples(config: &mut Config) -> anyhow::Result<()> {
    let sample = Config::parse(Role::Dev, SAMPLE)?;
    config.tasks = sample.tasks;
    if !config.said.has("routes") {
        config.routes = sample.routes;
    }
    // On a broker that others use, nothing is submitted unless somebody asks for it.
    if !config.said.has("schedules") && !config.said.has("broker.url") {
        config.schedules = sample.schedules;
        hurry(&mut config.schedules);
    }
    Ok(())
}

/// Makes one of the sample crawls run every minute, so that a new user sees beat (the scheduler) at work.
fn hurry(schedules: &mut [RawSchedule]) {
    for schedule in schedules.iter_mut().filter(|schedule| schedule.name == EVERY_MINUTE) {
        schedule.fields.remove("cron");
        schedule.fields.remove("timezone");
        schedule.fields.insert("every".to_owned(), 60.into());
    }
}

/// The built-in server. It starts apart from the other services and stops after them, because they need it to the end.
struct BuiltIn {
    address: SocketAddr,
    /// Protects against web pages: in a browser on this machine they can send bytes to any local port, but do not know the password.
    password: String,
    tasks: Tasks,
}

impl BuiltIn {
    /// The server's URL, without a database number.
    fn url(&self) -> String {
        format!("redis://:{}@{}", self.password, self.address)
    }
}

async fn start_redis(config: &mut Config, tasks: &Tasks) -> anyhow::Result<BuiltIn> {
    let server = resp::Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await.context("no port for the built-in Redis")?;
    let password = Secret::new(PASSWORD_PREFIX).reveal();
    let server = server.with_password(password.clone());
    let address = server.local_addr();
    let built_in = BuiltIn { address, password, tasks: Tasks::default() };
    config.broker.redis.url = config::Secret::new(format!("{}/0", built_in.url()));
    config.backend.redis.url = config::Secret::new(format!("{}/1", built_in.url()));
    let own = &built_in.tasks;
    own.spawn("resp", OnExit::StopProcess, |stop| async move {
        if let Err(error) = server.run(stop).await {
            info!(%error, "the built-in Redis-protocol server ended: {error}");
        }
    });
    let ended = own.stop_token();
    tasks.spawn("resp's end", OnExit::Nothing, move |stop| async move {
        tokio::select! { () = stop.cancelled() => {} () = ended.cancelled() => stop.cancel() }
    });
    Ok(built_in)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::beat::seed;
    use celery::task::signature::Limits;

    #[test]
    fn one_sample_schedule_runs_every_minute_in_dev() {
        let mut config = Config::parse(Role::Dev, "").unwrap();
        add_samples(&mut config).unwrap();
        seed::check(&config.schedules, Limits::default()).unwrap();
        let hurried = config.schedules.iter().find(|schedule| schedule.name == EVERY_MINUTE).unwrap();
        assert_eq!(hurried.fields["every"], 60);
        assert!(config.schedules.len() >= 6, "the schedules of the sample");
    }
}
