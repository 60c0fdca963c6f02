//! The configuration: merges flags, environment and file into typed values, or refuses them with a clear message.
//!
//! Precedence: flag, `TASKGATE_*`, file, `DATABASE_URL` and `CELERY_*`, default. Every key of a section is also a variable
//! (`http.listen` is `TASKGATE_HTTP__LISTEN`); lists are written with commas or as JSON, tables as JSON. An unknown key, a value
//! of the wrong type and two values that contradict each other prevent the start; the message says where each value came from.
//! Passwords are masked wherever a value is printed.

mod error;
mod faults;
mod lines;
mod source;
pub mod value;

mod catalogs;
mod compat;
mod database;
mod database_url;
mod exchanges;
mod hooks;
mod http;
mod inboxes;
mod incidents;
mod ledger;
mod log;
mod login;
mod logs;
mod network;
mod notify;
mod process;
mod queues;
mod rate;
mod recovery;
mod redis;
mod redis_url;
mod results;
mod routes;
mod schedules;
mod stores;
mod submit;
mod sweeper;
mod tasks;
mod telemetry;
mod transport;
mod webhooks;
mod worker;

#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use toml::Value;

pub use compat::Compat;
pub use database::Database;
pub use error::Error;
pub use exchanges::{Binding, Exchange};
pub use hooks::{MAX_BODY as HOOK_MAX_BODY, RawHook, TOLERANCE as HOOK_TOLERANCE};
pub use http::{Http, TlsFiles};
pub use inboxes::{Inbox, inbox_url};
pub use incidents::Incidents;
pub use ledger::Ledger;
pub use log::{Log, LogFormat};
pub use login::{Login, Oidc, User};
pub use logs::Logs;
pub use network::Network;
pub use notify::{Channel, Notify};
pub use process::RawProcess;
pub use queues::Queue;
pub use rate::Quota;
pub use recovery::{LEAST_DELIVERIES, ONE_DELIVERY, Recovery};
pub use redis::{Backend, Broker, Redis};
pub use results::Results;
pub use routes::{Route, Routes};
pub use schedules::RawSchedule;
pub use source::{Given, Said, Source};
pub use stores::{DEFAULT as DEFAULT_STORE, Store, StorePlace};
pub use submit::{Limits, Submit};
pub use sweeper::Sweeper;
pub use tasks::RawTask;
pub use telemetry::Telemetry;
pub use value::Secret;
pub use webhooks::{Allowed, Webhooks};
pub use worker::{Pool, Worker};

use celery::spelling::nearest;

/// All keys and sections that may stand at the top level of the file.
const TOP_KEYS: [&str; 31] = [
    "auth",
    "login",
    "oidc",
    "users",
    "learn",
    "catalogs",
    "compat",
    "http",
    "database",
    "ledger",
    "broker",
    "backend",
    "submit",
    "sweeper",
    "recovery",
    "incidents",
    "notify",
    "limits",
    "routes",
    "exchanges",
    "queues",
    "stores",
    "tasks",
    "inboxes",
    "schedules",
    "webhooks",
    "hooks",
    "worker",
    "log",
    "logs",
    "telemetry",
];

/// Who may call the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Everybody who reaches the listener.
    None,
    /// Bearer tokens, and the users of `[[users]]` where there are any.
    Token,
    /// As `Token`, and `[[users]]` must not be empty.
    Basic,
    /// As `Token`, and people whom an OpenID provider authenticates.
    Oidc,
}

/// The role that reads the configuration: a few defaults and required keys differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Needs no configuration: no tokens, every task name allowed, its own ledger and Redis.
    Dev,
    /// Needs a database.
    Serve,
    Worker,
    /// Needs a database.
    Migrate,
    /// Accepts an incomplete configuration, to report on it.
    Check,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// `"none"`, `"token"`, `"basic"` (tokens, and users with passwords) or `"oidc"` (tokens, and logins at a provider). Default token;
    /// in `dev` none.
    pub auth: Auth,
    pub login: Login,
    /// Present only with `auth = "oidc"`.
    pub oidc: Option<Oidc>,
    /// Users who log in with passwords.
    pub users: Vec<User>,
    pub compat: Compat,
    pub http: Http,
    pub database: Database,
    pub ledger: Ledger,
    pub broker: Broker,
    pub backend: Backend,
    pub submit: Submit,
    pub limits: Limits,
    pub sweeper: Sweeper,
    pub recovery: Recovery,
    pub incidents: Incidents,
    /// Channels that are notified of incidents.
    pub notify: Vec<Notify>,
    pub routes: Routes,
    pub exchanges: Vec<Exchange>,
    pub queues: Vec<Queue>,
    pub stores: Vec<Store>,
    pub tasks: Vec<RawTask>,
    /// Names or patterns of tasks whose signatures are learned from the workers. Default none.
    pub learn: Vec<String>,
    pub inboxes: Vec<Inbox>,
    pub schedules: Vec<RawSchedule>,
    pub webhooks: Webhooks,
    pub hooks: Vec<RawHook>,
    pub worker: Worker,
    pub log: Log,
    pub logs: Logs,
    pub telemetry: Telemetry,
    /// Where each value came from, for messages and for defaults that depend on it.
    pub said: Said,
}

impl Config {
    /// Gathers, reads and checks.
    ///
    /// # Errors
    /// Lists everything that is wrong, and names every place involved.
    pub fn load(role: Role, given: &Given) -> Result<Self, Error> {
        Self::load_fitting(role, given, |_| Ok(()))
    }

    /// As [`Config::load`]; the configuration must satisfy `fits` too.
    ///
    /// # Errors
    /// As [`Config::load`], with the faults that `fits` finds among them.
    pub fn load_fitting(role: Role, given: &Given, fits: impl Fn(&Self) -> Result<(), Error>) -> Result<Self, Error> {
        faults::all(Said::gather(given)?, |said| {
            let config = Self::read(role, said)?;
            fits(&config)?;
            Ok(config)
        })
    }

    /// Reads TOML text without environment or flags: for samples and tests.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(role: Role, toml: &str) -> Result<Self, Error> {
        faults::all(Said::from_text(toml)?, |said| Self::read(role, said))
    }

    fn read(role: Role, said: Said) -> Result<Self, Error> {
        for key in said.table.keys() {
            known("", key, &TOP_KEYS)?;
        }
        let broker = Broker::read(section(&said, "broker")?, &said)?;
        let auth = auth(role, &said)?;
        let is_rabbitmq = broker.redis.is_rabbitmq();
        let config = Self {
            auth,
            login: Login::read(&section(&said, "login")?, &said)?,
            oidc: Oidc::read(section(&said, "oidc")?, auth, &said)?,
            users: login::users(list(&said, "users")?, auth)?,
            compat: Compat::read(section(&said, "compat")?, &said)?,
            http: Http::read(section(&said, "http")?, &said)?,
            database: Database::read(section(&said, "database")?, &said)?,
            ledger: Ledger::read(&section(&said, "ledger")?, &said)?,
            backend: Backend::read(section(&said, "backend")?, &broker.redis, &said)?,
            broker,
            submit: Submit::read(section(&said, "submit")?),
            limits: Limits::read(&section(&said, "limits")?, &said)?,
            sweeper: Sweeper::read(&section(&said, "sweeper")?, &said)?,
            recovery: Recovery::read(&section(&said, "recovery")?, &said)?,
            incidents: Incidents::read(&section(&said, "incidents")?, &said)?,
            notify: Notify::read(list(&said, "notify")?)?,
            routes: Routes::read(section(&said, "routes")?)?,
            exchanges: exchanges::read(section(&said, "exchanges")?, is_rabbitmq)?,
            queues: queues::read(section(&said, "queues")?, &said)?,
            stores: stores::read(section(&said, "stores")?, &said)?,
            tasks: list(&said, "tasks")?,
            learn: learn(&said)?,
            inboxes: Inbox::read(list(&said, "inboxes")?)?,
            schedules: schedules::checked(list(&said, "schedules")?)?,
            webhooks: Webhooks::read(section(&said, "webhooks")?, &said)?,
            hooks: list(&said, "hooks")?,
            worker: Worker::read(section(&said, "worker")?, &said)?,
            log: Log::read(section(&said, "log")?, &said)?,
            logs: Logs::read(&section(&said, "logs")?, &said)?,
            telemetry: Telemetry::read(section(&said, "telemetry")?, &said)?,
            said,
        };
        config.checked(role)
    }

    fn checked(mut self, role: Role) -> Result<Self, Error> {
        if matches!(role, Role::Serve | Role::Migrate) && self.database.url.is_none() {
            let message = "is needed: say it in the file, as TASKGATE_DATABASE__URL or as DATABASE_URL";
            return Err(Error::value("database.url", message));
        }
        if role == Role::Dev && !self.said.has("submit.allow") {
            self.submit.allow = vec!["*".to_owned()];
        }
        // The directory of dev's files, unless another one is given.
        if role == Role::Dev && !self.stores.iter().any(|store| store.name == DEFAULT_STORE) {
            self.stores.push(Store::folder(DEFAULT_STORE, "taskgate-data/files".into()));
        }
        Ok(self)
    }
}

fn auth(role: Role, said: &Said) -> Result<Auth, Error> {
    match said.table.get("auth") {
        None if role == Role::Dev => Ok(Auth::None),
        None => Ok(Auth::Token),
        Some(Value::String(text)) if text == "none" => Ok(Auth::None),
        Some(Value::String(text)) if text == "token" => Ok(Auth::Token),
        Some(Value::String(text)) if text == "basic" => Ok(Auth::Basic),
        Some(Value::String(text)) if text == "oidc" => Ok(Auth::Oidc),
        Some(_) => Err(Error::value(said.place("auth"), "must be \"none\", \"token\", \"basic\" or \"oidc\"")),
    }
}

fn learn(said: &Said) -> Result<Vec<String>, Error> {
    let Some(value) = said.table.get("learn") else { return Ok(Vec::new()) };
    let words: value::Words = typed(said, "learn", value.clone())?;
    Ok(words.0)
}

/// Reads a section, or its defaults when it is missing.
fn section<T: DeserializeOwned + Default>(said: &Said, name: &str) -> Result<T, Error> {
    said.table.get(name).map_or_else(|| Ok(T::default()), |value| typed(said, name, value.clone()))
}

/// Reads the entries of `[[name]]`; an error names the entry by index and name.
fn list<T: DeserializeOwned>(said: &Said, name: &str) -> Result<Vec<T>, Error> {
    let Some(value) = said.table.get(name) else { return Ok(Vec::new()) };
    let Value::Array(entries) = value else {
        return Err(Error::value(said.place(name), format!("must be a list: write [[{name}]]")));
    };
    let entry = |(index, entry): (usize, &Value)| {
        let place = match entry.get("name").and_then(Value::as_str) {
            Some(title) => format!("{name}[{index}] ({title})"),
            None => format!("{name}[{index}]"),
        };
        typed(said, &place, entry.clone())
    };
    entries.iter().enumerate().map(entry).collect()
}

fn typed<T: DeserializeOwned>(said: &Said, place: &str, value: Value) -> Result<T, Error> {
    value.try_into().map_err(|error: toml::de::Error| explain(said, place, &error.to_string()))
}

/// Turns serde's message into ours: the key's full name, where it came from, and the nearest known key.
fn explain(said: &Said, place: &str, message: &str) -> Error {
    let (message, inner) = match message.trim_end().split_once("\nin `") {
        Some((message, inner)) => (message.trim_end(), inner.trim_end_matches('`')),
        None => (message.trim_end(), ""),
    };
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut words = rest.split('`').step_by(2).map(str::to_owned);
        let unknown = words.next().unwrap_or_default();
        let list: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        let place = if inner.is_empty() { place.to_owned() } else { format!("{place}.{inner}") };
        return unknown_key(&place, &unknown, &list);
    }
    let key = if inner.is_empty() { place.to_owned() } else { format!("{place}.{inner}") };
    Error::value(if said.has(&key) { said.place(&key) } else { key }, message)
}

fn known(place: &str, key: &str, list: &[&str]) -> Result<(), Error> {
    if list.contains(&key) {
        return Ok(());
    }
    Err(unknown_key(place, key, &list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()))
}

fn unknown_key(place: &str, key: &str, list: &[String]) -> Error {
    Error::UnknownKey {
        key: if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") },
        nearest: nearest(key, list).map(str::to_owned),
        known: list.to_vec(),
    }
}
