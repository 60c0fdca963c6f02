//! Connections to a Redis: direct or through Sentinel, shared by many callers or dedicated to one.
//!
//! A broken connection fails the calls in flight and is dropped; the next call connects again. Nothing is repeated here, because
//! only the caller knows whether a command may be sent twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
};

use super::Error;

/// Address and timeouts of a Redis.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// `redis://`, `rediss://`, `unix://`, or `sentinel://host:port[,host:port…]/db`.
    pub url: String,
    /// The master's name in Sentinel. Required with `sentinel://`.
    pub sentinel_master: Option<String>,
    /// Password of the Sentinels themselves; the URL has the master's.
    pub sentinel_password: Option<String>,
    /// PEM: certificate authorities to trust instead of the public ones.
    pub tls_ca: Option<Vec<u8>>,
    /// Timeout for connecting. Default 2 s.
    pub connect_timeout: Duration,
    /// Timeout for commands that do not block. Default 5 s.
    pub response_timeout: Duration,
}

impl LinkConfig {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sentinel_master: None,
            sentinel_password: None,
            tls_ca: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
        }
    }
}

impl LinkConfig {
    fn certificates(&self) -> Option<TlsCertificates> {
        let root_cert = self.tls_ca.clone();
        root_cert.is_some().then_some(TlsCertificates { client_tls: None, root_cert })
    }
}

enum Source {
    Direct(Box<Client>),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

struct Inner {
    source: Source,
    config: LinkConfig,
    db: i64,
    /// The shared connection with its generation.
    current: Mutex<(u64, Option<MultiplexedConnection>)>,
    /// One caller connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

/// Cheap to clone; all clones share one multiplexed connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

impl Link {
    /// Parses the URL; makes no connection yet.
    ///
    /// # Errors
    /// When the URL is not understood, or Sentinel lacks its master's name.
    pub fn new(config: LinkConfig) -> Result<Self, Error> {
        let (source, db) = if config.url.starts_with("sentinel://") { sentinel(&config)? } else { direct(&config)? };
        let current = Mutex::new((0, None));
        Ok(Self(Arc::new(Inner { source, config, db, current, connecting: tokio::sync::Mutex::new(()) })))
    }

    /// The database number of the URL: it is part of kombu's channel names.
    pub fn db(&self) -> i64 {
        self.0.db
    }

    /// Host and port of the URL for display: the first of several; port 0 for a Unix socket.
    pub fn place(&self) -> (String, u16) {
        let url = &self.0.config.url;
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let first = rest.split(['/', ',', ';', '?']).next().unwrap_or(rest);
        let (host, port) = first.rsplit_once(':').unwrap_or((first, ""));
        (host.to_owned(), port.parse().unwrap_or(if url.starts_with("unix") { 0 } else { 6379 }))
    }

    /// Runs one command on the shared connection. Not for commands that block.
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let (generation, mut connection) = self.shared().await?;
        let answer = command.query_async(&mut connection).await;
        answer.map_err(|error| self.judge(generation, error))
    }

    /// Runs a pipeline on the shared connection.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T, Error> {
        let (generation, mut connection) = self.shared().await?;
        let answer = pipeline.query_async(&mut connection).await;
        answer.map_err(|error| self.judge(generation, error))
    }

    /// Runs a script by its hash, loading it when the server does not know it.
    pub async fn script<T: FromRedisValue>(&self, script: &redis::ScriptInvocation<'_>) -> Result<T, Error> {
        let (generation, mut connection) = self.shared().await?;
        let answer = script.invoke_async(&mut connection).await;
        answer.map_err(|error| self.judge(generation, error))
    }

    /// A dedicated connection for blocking commands. `None` waits for ever, for callers with their own timeout.
    pub async fn dedicated(&self, response_timeout: Option<Duration>) -> Result<MultiplexedConnection, Error> {
        let client = self.client().await?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.0.config.connect_timeout))
            .set_response_timeout(response_timeout);
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// A connection for subscriptions.
    pub async fn pubsub(&self) -> Result<PubSub, Error> {
        let client = self.client().await?;
        let connecting = tokio::time::timeout(self.0.config.connect_timeout, client.get_async_pubsub());
        Ok(connecting.await.map_err(|_| Error::TimedOut)??)
    }

    async fn shared(&self) -> Result<(u64, MultiplexedConnection), Error> {
        if let Some(found) = self.current() {
            return Ok(found);
        }
        let _one = self.0.connecting.lock().await;
        if let Some(found) = self.current() {
            return Ok(found);
        }
        let connection = self.dedicated(Some(self.0.config.response_timeout)).await?;
        let mut current = self.0.current.lock().expect("nothing panics under this lock");
        current.0 += 1;
        current.1 = Some(connection.clone());
        Ok((current.0, connection))
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.0.current.lock().expect("nothing panics under this lock");
        current.1.clone().map(|connection| (current.0, connection))
    }

    /// Drops a connection that will not work again, so that the next call makes a new one.
    fn judge(&self, generation: u64, error: RedisError) -> Error {
        let broken = error.is_io_error()
            || error.is_timeout()
            || error.is_unrecoverable_error()
            || error.is_connection_dropped()
            || error.code() == Some("READONLY");
        if broken {
            let mut current = self.0.current.lock().expect("nothing panics under this lock");
            if current.0 == generation {
                current.1 = None;
            }
        }
        Error::from(error)
    }

    async fn client(&self) -> Result<Client, Error> {
        match &self.0.source {
            Source::Direct(client) => Ok(Client::clone(client)),
            Source::Sentinel(sentinel) => {
                let mut sentinel = sentinel.lock().await;
                let asking = tokio::time::timeout(self.0.config.connect_timeout, sentinel.async_get_client());
                Ok(asking.await.map_err(|_| Error::TimedOut)??)
            }
        }
    }
}

fn direct(config: &LinkConfig) -> Result<(Source, i64), Error> {
    let url = config.url.replacen("redis+socket://", "unix://", 1);
    let info = url.as_str().into_connection_info().map_err(|error| Error::Url(error.to_string()))?;
    let db = info.redis_settings().db();
    let client = match config.certificates() {
        Some(certificates) if url.starts_with("rediss://") => Client::build_with_tls(info, certificates)?,
        _ => Client::open(info)?,
    };
    Ok((Source::Direct(Box::new(client)), db))
}

fn sentinel(config: &LinkConfig) -> Result<(Source, i64), Error> {
    let master = config.sentinel_master.clone().ok_or_else(|| Error::Url("sentinel_master is not set".into()))?;
    let parsed = SentinelUrl::parse(&config.url)?;
    let mut builder = SentinelClientBuilder::new(parsed.sentinels, master, SentinelServerType::Master)?
        .set_client_to_redis_db(parsed.db);
    if let Some(user) = &parsed.username {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &parsed.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(password) = &config.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if parsed.tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = config.certificates() {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
    }
    Ok((Source::Sentinel(Box::new(tokio::sync::Mutex::new(builder.build()?))), parsed.db))
}

#[derive(Debug, PartialEq)]
struct SentinelUrl {
    sentinels: Vec<ConnectionAddr>,
    db: i64,
    username: Option<String>,
    password: Option<String>,
    tls: bool,
}

impl SentinelUrl {
    /// `sentinel://[user:password@]host:port[,host:port…][/db][?ssl=true]`; Celery's form with `;sentinel://` between hosts too.
    fn parse(url: &str) -> Result<Self, Error> {
        let text = url.replace(";sentinel://", ",");
        let rest = text.strip_prefix("sentinel://").ok_or_else(|| Error::Url("not a sentinel:// URL".into()))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, db) = rest.split_once('/').unwrap_or((rest, "0"));
        let db = if db.is_empty() { Ok(0) } else { db.parse() };
        let db = db.map_err(|_| Error::Url("the database is not a number".into()))?;
        let (login, hosts) = hosts.rsplit_once('@').map_or((None, hosts), |(login, hosts)| (Some(login), hosts));
        let (username, password) = match login.map(|login| login.split_once(':').unwrap_or(("", login))) {
            None => (None, None),
            Some((user, password)) => ((!user.is_empty()).then(|| user.to_owned()), Some(password.to_owned())),
        };
        let sentinels = hosts.split(',').map(sentinel_address).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sentinels, db, username, password, tls: query.contains("ssl=true") })
    }
}

fn sentinel_address(host: &str) -> Result<ConnectionAddr, Error> {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "26379"));
    let port = port.parse().map_err(|_| Error::Url(format!("{port} is not a port")))?;
    if name.is_empty() {
        return Err(Error::Url("a sentinel without a host".into()));
    }
    Ok(ConnectionAddr::Tcp(name.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_url_names_several_sentinels_in_both_forms() {
        let ours = SentinelUrl::parse("sentinel://u:p@a:26379,b:26380/3").unwrap();
        assert_eq!(ours.sentinels.len(), 2);
        assert_eq!((ours.db, ours.username.as_deref(), ours.password.as_deref()), (3, Some("u"), Some("p")));
        let celerys = SentinelUrl::parse("sentinel://a:26379;sentinel://b:26380/3").unwrap();
        assert_eq!(celerys.sentinels, ours.sentinels);
    }

    #[test]
    fn the_database_of_a_url_is_known_before_connecting() {
        assert_eq!(Link::new(LinkConfig::new("redis://127.0.0.1:6379/4")).unwrap().db(), 4);
        assert_eq!(Link::new(LinkConfig::new("redis://127.0.0.1")).unwrap().db(), 0);
        assert!(Link::new(LinkConfig::new("amqp://x")).is_err());
        assert!(Link::new(LinkConfig::new("sentinel://a:1/0")).is_err());
    }
}
