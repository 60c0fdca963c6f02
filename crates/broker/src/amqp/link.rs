//! A connection to RabbitMQ that is opened when it is needed, and again after it broke.
//!
//! A broken connection fails the calls in flight; the next call tries the nodes in order. Nothing is repeated here, because only the
//! caller knows whether a message may be sent twice. The client's own recovery is off, because it repeats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;

use super::address::Address;
use crate::Error;

/// Addresses and timeouts of the broker.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Nodes, in the order in which they are tried.
    pub addresses: Vec<Address>,
    /// PEM: certificate authorities to trust besides the public ones.
    pub tls_ca: Option<String>,
    /// Timeout for reaching a node. Its handshake, which is eight messages and a login, has `response_timeout` besides. Default 2 s.
    pub connect_timeout: Duration,
    /// Timeout for an answer. Default 5 s.
    pub response_timeout: Duration,
}

impl LinkConfig {
    /// The default timeouts, for the nodes of this URL.
    ///
    /// # Errors
    /// When the URL is not understood.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self {
            addresses: Address::parse_all(url)?,
            tls_ca: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
        })
    }
}

/// Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    config: LinkConfig,
    /// The connection's name in the broker's own tools.
    name: String,
    current: Mutex<Option<Arc<Connection>>>,
    /// How many connections were dropped.
    forgotten: AtomicU64,
    /// One caller connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

impl Link {
    pub fn new(config: LinkConfig, purpose: &str) -> Self {
        let name = format!("taskgate {purpose}");
        let (current, forgotten) = (Mutex::default(), AtomicU64::default());
        Self(Arc::new(Inner { config, name, current, forgotten, connecting: tokio::sync::Mutex::default() }))
    }

    /// The timeout for an answer.
    pub fn patience(&self) -> Duration {
        self.0.config.response_timeout
    }

    pub async fn connection(&self) -> Result<Arc<Connection>, Error> {
        if let Some(found) = self.current() {
            return Ok(found);
        }
        let _one = self.0.connecting.lock().await;
        if let Some(found) = self.current() {
            return Ok(found);
        }
        let made = Arc::new(self.dial().await?);
        *self.0.current.lock().expect("nothing panics under this lock") = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Opens a new channel.
    pub async fn channel(&self) -> Result<Channel, Error> {
        let connection = self.connection().await?;
        self.answer(connection.create_channel()).await
    }

    /// Opens a channel with publisher confirms.
    pub async fn confirming(&self) -> Result<Channel, Error> {
        let channel = self.channel().await?;
        self.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Waits for an answer until the timeout.
    pub async fn answer<T>(&self, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
        match timeout(self.patience(), asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) if self.is_blocked() => Err(Error::Blocked),
            Err(_) => {
                self.forget();
                Err(Error::TimedOut)
            }
        }
    }

    /// Whether the broker accepts no messages now, because it is short of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.current().is_some_and(|connection| connection.status().blocked())
    }

    /// Grows when a connection is dropped. A channel that was opened before belongs to a connection that is not used any more, even if it
    /// still looks alive.
    pub fn generation(&self) -> u64 {
        self.0.forgotten.load(Ordering::Acquire)
    }

    /// The most bytes in one frame, as negotiated with the broker. Headers must fit into one.
    pub fn frame_max(&self) -> Option<usize> {
        let agreed = self.current()?.configuration().frame_max();
        usize::try_from(agreed).ok().filter(|bytes| *bytes > 0)
    }

    /// Drops the connection; the next call opens another one.
    pub fn forget(&self) {
        self.0.forgotten.fetch_add(1, Ordering::AcqRel);
        self.0.current.lock().expect("nothing panics under this lock").take();
    }

    fn current(&self) -> Option<Arc<Connection>> {
        let mut current = self.0.current.lock().expect("nothing panics under this lock");
        if current.as_ref().is_some_and(|connection| !connection.status().connected()) {
            current.take();
        }
        current.clone()
    }

    async fn dial(&self) -> Result<Connection, Error> {
        let mut failed = Error::TimedOut;
        // A busy node may take seconds for a handshake: whoever gives up earlier asks it for one handshake after the other, for ever.
        let patience = self.0.config.connect_timeout + self.0.config.response_timeout;
        for address in &self.0.config.addresses {
            match timeout(patience, self.dial_one(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error.into(),
                Err(_) => failed = Error::TimedOut,
            }
        }
        Err(failed)
    }

    async fn dial_one(&self, address: &Address) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(self.0.name.as_str().into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.0.config.tls_ca.clone() };
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connect_uri_with_config(uri(address), properties, tls, runtime).await
    }
}

fn uri(address: &Address) -> AMQPUri {
    AMQPUri {
        scheme: if address.is_tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: address.user.clone(), password: address.password.clone() },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString { heartbeat: Some(address.heartbeat), ..AMQPQueryString::default() },
    }
}
