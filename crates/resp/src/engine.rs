//! Executes commands, one after the other, on one thread: every command, transaction and script is atomic because
//! nothing else runs meanwhile.
//!
//! A borrow of the state lasts for one data command. Scripts and transactions run their commands one by one in the same
//! way, so no borrow spans them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    blocking::{Wait, Waiting},
    call::{Call, is, lossy},
    client::{Client, Ending, Replies},
    command::{self, Command, Run},
    failure::{Failure, message, text, wrong_arity},
    keyspace::Keyspace,
    keyspace::unix_millis,
    pubsub::PubSub,
    reply::{Protocol, Reply},
    script::Scripts,
    session, transaction,
};

/// The beginnings of HTTP requests, which any web page can make a browser send. Like redis-server, this server then closes the connection
/// before it reads the body.
const OF_HTTP: [&str; 2] = ["post", "host:"];
/// Commands that a client may send before the password.
const BEFORE_A_PASSWORD: [&str; 4] = ["auth", "hello", "quit", "reset"];

/// The state that data commands work on.
#[derive(Debug, Default)]
pub struct State {
    pub space: Keyspace,
    pub pubsub: PubSub,
}

pub struct Engine {
    pub state: RefCell<State>,
    pub waiting: RefCell<Waiting>,
    pub clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    pub scripts: Scripts,
    pub started: Instant,
    pub port: u16,
    /// `None`: no password is required.
    pub password: Option<String>,
    /// Values from `CONFIG SET`; they have no effect.
    pub settings: RefCell<BTreeMap<&'static str, String>>,
    pub commands_processed: Cell<u64>,
    pub connections_received: Cell<u64>,
    /// Wakes the expiry task: a key now expires before all others.
    pub expiry_moved: Notify,
}

impl Engine {
    pub fn new(port: u16, password: Option<String>) -> Rc<Self> {
        Rc::new_cyclic(|engine| Self {
            state: RefCell::new(State { space: Keyspace::new(), pubsub: PubSub::default() }),
            waiting: RefCell::default(),
            clients: RefCell::default(),
            scripts: Scripts::new(engine.clone()),
            started: Instant::now(),
            port,
            password,
            settings: RefCell::default(),
            commands_processed: Cell::new(0),
            connections_received: Cell::new(0),
            expiry_moved: Notify::new(),
        })
    }

    pub fn connect(&self, address: String) -> Rc<Client> {
        let id = self.connections_received.get() + 1;
        self.connections_received.set(id);
        let client = Rc::new(Client::new(id, address, unix_millis()));
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        client
    }

    /// Removes everything about a client. May be called again.
    pub fn disconnect(&self, client: &Client) {
        self.clients.borrow_mut().remove(&client.id);
        self.stop_waiting(client);
        transaction::forget_watched(self, client);
        self.state.borrow_mut().pubsub.leave(client);
    }

    pub fn stop_waiting(&self, client: &Client) {
        if let Some(wait) = client.blocked.take() {
            self.waiting.borrow_mut().leave(&mut self.state.borrow_mut().space, wait);
        }
        client.blocked_until.set(None);
    }

    /// Executes a client's command; the answer goes to the client's outbox.
    pub fn execute(&self, client: &Rc<Client>, args: &[Bytes]) {
        self.commands_processed.set(self.commands_processed.get() + 1);
        self.state.borrow_mut().space.set_now(unix_millis());
        let reply = self.admit(client, args);
        client.answer(&reply);
        match client.replies.get() {
            Replies::SkipThis => client.replies.set(Replies::SkipNext),
            Replies::SkipNext => client.replies.set(Replies::On),
            Replies::On | Replies::Off => {}
        }
        self.after_command();
    }

    fn after_command(&self) {
        let state = &mut *self.state.borrow_mut();
        self.waiting.borrow_mut().serve(&mut state.space, &mut state.pubsub);
        if state.space.take_earlier_expiry() {
            self.expiry_moved.notify_one();
        }
    }

    /// Checks a command, then queues or runs it.
    fn admit(&self, client: &Rc<Client>, args: &[Bytes]) -> Reply {
        let command = match self.check(client, args) {
            Ok(command) => command,
            Err(failure) => {
                if let Some(transaction) = client.transaction.borrow_mut().as_mut() {
                    transaction.broken = true;
                }
                return failure.into();
            }
        };
        client.last_command.set(command.name);
        if !command.is(command::NOT_QUEUED)
            && let Some(transaction) = client.transaction.borrow_mut().as_mut()
        {
            transaction.queue.push(args.to_vec());
            return Reply::QUEUED;
        }
        self.run(client, command, args, true)
    }

    fn check(&self, client: &Client, args: &[Bytes]) -> Result<&'static Command, Failure> {
        if OF_HTTP.iter().any(|word| is(&args[0], word)) {
            tracing::warn!(
                client.id = client.id,
                "a client of the built-in Redis-protocol server speaks HTTP: a web page may have sent it"
            );
            client.close(Ending::Now);
        }
        let command = command::find(&args[0]).ok_or_else(|| unknown(args))?;
        if !self.knows(client) && !BEFORE_A_PASSWORD.contains(&command.name) {
            return Err(text("NOAUTH Authentication required."));
        }
        if !command.accepts(args.len()) {
            return Err(wrong_arity(command.name));
        }
        if self.is_listening(client) && !command.is(command::WHILE_SUBSCRIBED) {
            return Err(message(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                command.name
            )));
        }
        Ok(command)
    }

    /// Whether the client has sent the password, or none is required.
    pub fn knows(&self, client: &Client) -> bool {
        self.password.is_none() || client.has_password.get()
    }

    /// Whether the client is a RESP2 subscriber. RESP2 cannot tell answers from messages, so few commands are allowed to it.
    fn is_listening(&self, client: &Client) -> bool {
        client.protocol.get() == Protocol::Resp2 && client.subscriptions() > 0
    }

    fn run(&self, client: &Rc<Client>, command: &Command, args: &[Bytes], may_wait: bool) -> Reply {
        let answer = match command.run {
            Run::Data(_) if command.name == "ping" && self.is_listening(client) => session::ping(args),
            Run::Data(handler) => self.with_call(client, |call| handler(call, args)),
            Run::Session(handler) => handler(self, client, args),
            Run::Wait(handler) => {
                let wait = self.with_call(client, |call| {
                    let wait = handler(call, args)?;
                    wait.attempt(call).map(|reply| (wait, reply))
                });
                match wait {
                    Ok((_, Some(reply))) => Ok(reply),
                    Ok((wait, None)) if may_wait => Ok(self.block(client, wait)),
                    Ok((wait, None)) => Ok(wait.nothing()),
                    Err(failure) => Err(failure),
                }
            }
        };
        answer.unwrap_or_else(Reply::from)
    }

    /// Runs one command of a transaction.
    pub fn run_queued(&self, client: &Rc<Client>, args: &[Bytes]) -> Reply {
        let command = command::find(&args[0]).expect("unknown commands are not queued");
        self.run(client, command, args, false)
    }

    /// Runs one data command of a script.
    pub fn run_scripted(&self, command: &Command, args: &[Bytes], db: usize, protocol: Protocol) -> Reply {
        let state = &mut *self.state.borrow_mut();
        let mut call = Call { space: &mut state.space, pubsub: &mut state.pubsub, db, protocol };
        match command.run {
            Run::Data(handler) => handler(&mut call, args).unwrap_or_else(Reply::from),
            Run::Wait(_) | Run::Session(_) => Reply::from(message("ERR This Redis command is not allowed from script")),
        }
    }

    fn with_call<T>(&self, client: &Client, work: impl FnOnce(&mut Call) -> T) -> T {
        let state = &mut *self.state.borrow_mut();
        work(&mut Call {
            space: &mut state.space,
            pubsub: &mut state.pubsub,
            db: client.db.get(),
            protocol: client.protocol.get(),
        })
    }

    fn block(&self, client: &Rc<Client>, wait: Wait) -> Reply {
        client.blocked_until.set(wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout)));
        let id = self.with_call(client, |call| self.waiting.borrow_mut().enter(call, client, wait));
        client.blocked.set(Some(id));
        Reply::Silent
    }

    /// Answers a blocked client whose timeout has passed.
    pub fn time_out(&self, client: &Client) {
        if client.blocked.get().is_some() {
            self.stop_waiting(client);
            client.answer(&Reply::NilArray);
        }
    }

    /// Removes expired keys; returns when the next key expires, in Unix milliseconds.
    pub fn expire_due(&self) -> Option<i64> {
        /// About a millisecond of work for each database; the rest is done in the next round.
        const BATCH: usize = 500;
        let state = &mut *self.state.borrow_mut();
        state.space.set_now(unix_millis());
        state.space.expire_due(BATCH);
        state.space.next_expiry()
    }

    pub fn kill_all(&self) {
        self.clients.borrow().values().for_each(|client| client.close(Ending::Now));
    }
}

/// Redis shows the first arguments, up to 128 bytes of them.
fn unknown(args: &[Bytes]) -> Failure {
    const SHOWN: usize = 128;
    let name = &args[0][..args[0].len().min(SHOWN)];
    let mut shown = String::new();
    for arg in &args[1..] {
        if shown.len() >= SHOWN {
            break;
        }
        let room = SHOWN - shown.len();
        shown.push_str(&format!("'{}' ", lossy(&arg[..arg.len().min(room)])));
    }
    message(format!("ERR unknown command '{}', with args beginning with: {shown}", lossy(name)))
}
