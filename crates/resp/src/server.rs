//! The server's interface: bind, get the address, run until stopped.
//!
//! It has a thread of its own with a single-threaded runtime, like redis-server: commands need no locks, a long script
//! delays no HTTP request, and other threads cannot access the data.

use std::{io, net::SocketAddr, rc::Rc, thread, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::LocalSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{connection, engine::Engine};
use runtime::clock;

/// Redis's default for `maxclients`.
const MAX_CLIENTS: usize = 10_000;
/// How long a stop may take; normally a few milliseconds, longer only while a script runs.
const STOP_PATIENCE: Duration = Duration::from_millis(900);
/// Stack size, for nested scripts: a thousand levels of JSON, two hundred of Lua callbacks. Only the used part takes memory.
const STACK: usize = 32 * 1024 * 1024;
/// Pause after a failed accept: most likely all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound server that does not run yet. Clients can connect already; they are answered when it runs.
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    password: Option<String>,
}

impl Server {
    /// # Errors
    /// If the address is in use or not permitted.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?.into_std()?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, password: None })
    }

    /// Sets a password that clients must send first, as with `requirepass`.
    #[must_use]
    pub fn with_password(mut self, password: String) -> Self {
        self.password = Some(password);
        self
    }

    /// The address on which it listens, with the real port if it was bound to port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then closes all clients and returns within a second. All data is gone.
    ///
    /// # Errors
    /// If the server's thread could not be started, or died.
    ///
    /// # Cancel safety
    /// Dropping the call stops the server too.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let stop = stop.child_token();
        let stopped = stop.clone();
        let (done, finished) = oneshot::channel();
        let _stop_on_drop = stop.clone().drop_guard();
        thread::Builder::new().name("resp".to_owned()).stack_size(STACK).spawn(move || {
            let _ = done.send(self.run_here(&stop)); // there is no receiver if the call was dropped
        })?;
        tokio::select! {
            ended = finished => {
                ended.unwrap_or_else(|_| Err(io::Error::other("the built-in Redis-protocol server died")))
            }
            () = overdue(&stopped) => {
                tracing::warn!("the built-in Redis-protocol server was stopped while a script was running, which did not end");
                Ok(())
            }
        }
    }

    fn run_here(self, stop: &CancellationToken) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, async {
            let listener = TcpListener::from_std(self.listener)?;
            tracing::info!(
                address = %self.address,
                "built-in Redis-protocol server on {}: for development, it loses all data when it stops",
                self.address
            );
            let engine = Engine::new(self.address.port(), self.password);
            tokio::task::spawn_local(expire(Rc::clone(&engine)));
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(listener, Rc::clone(&engine)) => {}
            }
            engine.kill_all();
            tokio::task::yield_now().await;
            Ok(())
        })
    }
}

/// Limits the wait for a script that cannot be interrupted, such as a pattern that backtracks for ever inside Lua's library.
async fn overdue(stopped: &CancellationToken) {
    stopped.cancelled().await;
    sleep(STOP_PATIENCE).await;
}

async fn accept(listener: TcpListener, engine: Rc<Engine>) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client of the built-in Redis-protocol server");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if engine.clients.borrow().len() >= MAX_CLIENTS {
            let _ = socket.try_write(b"-ERR max number of clients reached\r\n"); // the socket is closed even if the write fails
            continue;
        }
        let _ = socket.set_nodelay(true); // only a matter of speed
        let client = engine.connect(peer.to_string());
        tokio::task::spawn_local(connection::serve(Rc::clone(&engine), client, socket));
    }
}

/// Removes keys when they expire; sleeps in between.
async fn expire(engine: Rc<Engine>) {
    loop {
        match engine.expire_due() {
            Some(next) => {
                let millis = u64::try_from(next - clock::now().as_micros() / 1000).unwrap_or(0).max(1);
                tokio::select! {
                    () = sleep(Duration::from_millis(millis)) => {}
                    () = engine.expiry_moved.notified() => {}
                }
            }
            None => engine.expiry_moved.notified().await,
        }
    }
}
