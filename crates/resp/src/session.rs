//! Commands about the connection itself: protocol, name, database, the list of clients.

use std::rc::Rc;

use bytes::Bytes;

use super::{
    call::{int, is, lossy},
    client::{Client, Ending, Replies},
    commands::keys::unknown_subcommand,
    engine::Engine,
    failure::{Answer, Failure, SYNTAX, message, text, wrong_arity},
    info::VERSION,
    keyspace::DATABASES,
    keyspace::unix_millis,
    reply::{Protocol, Reply},
    transaction,
};

const NO_PASSWORD_SET: Failure = text(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration \
     is correct?",
);

const WRONG_PASSWORD: Failure = text("WRONGPASS invalid username-password pair or user is disabled.");

/// `PING` of a RESP2 client that has subscriptions.
pub fn ping(args: &[Bytes]) -> Answer {
    match args {
        [_] => Ok(Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")])),
        [_, text] => Ok(Reply::Array(vec![Reply::bulk("pong"), Reply::Bulk(text.clone())])),
        _ => Err(wrong_arity("ping")),
    }
}

pub fn quit(_engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    client.close(Ending::AfterFlush);
    Ok(Reply::OK)
}

pub fn reset(engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    client.transaction.take();
    transaction::forget_watched(engine, client);
    engine.state.borrow_mut().pubsub.leave(client);
    client.db.set(0);
    client.has_password.set(false);
    client.protocol.set(Protocol::Resp2);
    client.replies.set(Replies::On);
    client.name.take();
    Ok(Reply::Status(b"RESET".as_slice().into()))
}

pub fn select(_engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    client.db.set(database(&args[1])?);
    Ok(Reply::OK)
}

pub fn database(arg: &[u8]) -> Result<usize, Failure> {
    let index = int(arg)?;
    usize::try_from(index).ok().filter(|db| *db < DATABASES).ok_or(text("ERR DB index is out of range"))
}

/// `AUTH`. A server without a password refuses `AUTH password` as Redis does, but accepts `AUTH default password` with any password.
pub fn auth(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    match (&engine.password, args) {
        (None, [_, _]) => Err(NO_PASSWORD_SET),
        (_, [_, given]) => log_in(engine, client, b"default", given),
        (_, [_, user, given]) => log_in(engine, client, user, given),
        (_, _) => Err(SYNTAX),
    }
}

fn log_in(engine: &Engine, client: &Client, user: &[u8], given: &[u8]) -> Answer {
    check_user(user)?;
    if let Some(password) = &engine.password {
        if !is_same(password.as_bytes(), given) {
            return Err(WRONG_PASSWORD);
        }
        client.has_password.set(true);
    }
    Ok(Reply::OK)
}

/// Compares in constant time.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right)) == 0
}

fn check_user(user: &[u8]) -> Result<(), Failure> {
    if user == b"default" {
        return Ok(());
    }
    Err(WRONG_PASSWORD)
}

pub fn hello(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    let protocol = match args.get(1) {
        None => client.protocol.get(),
        Some(version) => {
            match int(version).map_err(|_| text("ERR Protocol version is not an integer or out of range"))? {
                2 => Protocol::Resp2,
                3 => Protocol::Resp3,
                _ => return Err(text("NOPROTO unsupported protocol version")),
            }
        }
    };
    let mut name = None;
    let mut rest = args.get(2..).unwrap_or_default();
    while let Some((option, after)) = rest.split_first() {
        rest = match (option, after) {
            (option, [user, given, after @ ..]) if is(option, "auth") => {
                log_in(engine, client, user, given)?;
                after
            }
            (option, [given, after @ ..]) if is(option, "setname") => {
                check_name(given)?;
                name = Some(given.clone());
                after
            }
            (option, _) => return Err(message(format!("ERR Syntax error in HELLO option '{}'", lossy(option)))),
        };
    }
    if !engine.knows(client) {
        return Err(text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        client.name.replace(name);
    }
    client.protocol.set(protocol);
    Ok(greeting(client))
}

fn greeting(client: &Client) -> Reply {
    let version = if client.protocol.get() == Protocol::Resp3 { 3 } else { 2 };
    Reply::Map(vec![
        (Reply::bulk("server"), Reply::bulk("redis")),
        (Reply::bulk("version"), Reply::bulk(VERSION)),
        (Reply::bulk("proto"), Reply::Int(version)),
        (Reply::bulk("id"), Reply::Int(i64::try_from(client.id).unwrap_or(i64::MAX))),
        (Reply::bulk("mode"), Reply::bulk("standalone")),
        (Reply::bulk("role"), Reply::bulk("master")),
        (Reply::bulk("modules"), Reply::Array(vec![])),
    ])
}

fn check_name(name: &[u8]) -> Result<(), Failure> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(text("ERR Client names cannot contain spaces, newlines or special characters."))
}

pub fn client(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    let sub = args[1].to_ascii_lowercase();
    let arity = |wanted: usize| match args.len() == wanted {
        true => Ok(()),
        false => Err(wrong_arity(&format!("client|{}", lossy(&sub)))),
    };
    match sub.as_slice() {
        b"id" => arity(2).map(|()| Reply::Int(i64::try_from(client.id).unwrap_or(i64::MAX))),
        b"getname" => {
            arity(2)?;
            let name = client.name.borrow();
            Ok(if name.is_empty() { Reply::Nil } else { Reply::Bulk(name.clone()) })
        }
        b"setname" => {
            arity(3)?;
            check_name(&args[2])?;
            client.name.replace(args[2].clone());
            Ok(Reply::OK)
        }
        b"setinfo" => {
            arity(4)?;
            set_info(client, &args[2], &args[3])
        }
        b"info" => arity(2).map(|()| Reply::Verbatim(Bytes::from(describe(client) + "\n"))),
        b"list" => Ok(Reply::Verbatim(Bytes::from(list(engine)))),
        b"reply" => {
            arity(3)?;
            reply_mode(client, &args[2])
        }
        b"no-evict" => {
            arity(3)?;
            if is(&args[2], "on") || is(&args[2], "off") { Ok(Reply::OK) } else { Err(SYNTAX) }
        }
        b"kill" => kill(engine, client, args),
        b"unblock" => unblock(engine, args),
        _ => Err(unknown_subcommand("CLIENT", &args[1])),
    }
}

fn set_info(client: &Client, attribute: &[u8], value: &Bytes) -> Answer {
    let mut library = client.library.borrow_mut();
    match () {
        () if is(attribute, "lib-name") => library.0 = value.clone(),
        () if is(attribute, "lib-ver") => library.1 = value.clone(),
        () => return Err(message(format!("ERR Unrecognized option '{}'", lossy(attribute)))),
    }
    Ok(Reply::OK)
}

fn reply_mode(client: &Client, mode: &[u8]) -> Answer {
    match () {
        () if is(mode, "on") => {
            client.replies.set(Replies::On);
            return Ok(Reply::OK);
        }
        () if is(mode, "off") => client.replies.set(Replies::Off),
        () if is(mode, "skip") => client.replies.set(Replies::SkipThis),
        () => return Err(SYNTAX),
    }
    Ok(Reply::Silent)
}

fn list(engine: &Engine) -> String {
    engine.clients.borrow().values().map(|client| describe(client) + "\n").collect()
}

fn describe(client: &Client) -> String {
    let transaction = client.transaction.borrow();
    let flags = match () {
        () if client.blocked.get().is_some() => "b",
        () if transaction.is_some() => "x",
        () if client.subscriptions() > 0 => "P",
        () => "N",
    };
    format!(
        "id={} addr={} laddr= fd=0 name={} age={} idle=0 flags={flags} db={} sub={} psub={} multi={} obl={} events=r \
         cmd={} user=default resp={}",
        client.id,
        client.address,
        lossy(&client.name.borrow()),
        (unix_millis() - client.connected_at) / 1000,
        client.db.get(),
        client.channels.borrow().len(),
        client.patterns.borrow().len(),
        transaction.as_ref().map_or(-1, |transaction| i64::try_from(transaction.queue.len()).unwrap_or(i64::MAX)),
        client.outbox.borrow().len(),
        client.last_command.get(),
        if client.protocol.get() == Protocol::Resp3 { 3 } else { 2 },
    )
}

/// The clients that `CLIENT KILL` selects.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    address: Option<Bytes>,
    /// Selects clients with subscriptions, or without.
    subscribed: Option<bool>,
    /// Whether no client matches: no client is a replica or a master, or is connected to another listener.
    nobody: bool,
    and_self: bool,
}

impl Filter {
    fn read(args: &[Bytes]) -> Result<Self, Failure> {
        let (pairs, []) = args.as_chunks::<2>() else { return Err(SYNTAX) };
        let mut filter = Self::default();
        for [name, value] in pairs {
            match name.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = int(value).ok().and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                    filter.id = Some(id.ok_or(text("ERR client-id should be greater than 0"))?);
                }
                b"addr" => filter.address = Some(value.clone()),
                b"laddr" => filter.nobody = true,
                b"user" if value.as_ref() == b"default" => {}
                b"user" => return Err(message(format!("ERR No such user '{}'", lossy(value)))),
                b"type" => match value.to_ascii_lowercase().as_slice() {
                    b"normal" => filter.subscribed = Some(false),
                    b"pubsub" => filter.subscribed = Some(true),
                    b"master" | b"replica" | b"slave" => filter.nobody = true,
                    _ => return Err(message(format!("ERR Unknown client type '{}'", lossy(value)))),
                },
                b"skipme" if is(value, "yes") => filter.and_self = false,
                b"skipme" if is(value, "no") => filter.and_self = true,
                _ => return Err(SYNTAX),
            }
        }
        Ok(filter)
    }

    fn means(&self, client: &Client, caller: &Client) -> bool {
        !self.nobody
            && self.id.is_none_or(|id| id == client.id)
            && self.address.as_ref().is_none_or(|address| client.address.as_bytes() == address.as_ref())
            && self.subscribed.is_none_or(|subscribed| subscribed == (client.subscriptions() > 0))
            && (self.and_self || client.id != caller.id)
    }
}

/// `CLIENT KILL addr`, or with filters.
fn kill(engine: &Engine, caller: &Client, args: &[Bytes]) -> Answer {
    let clients = engine.clients.borrow();
    match &args[2..] {
        [] => Err(wrong_arity("client|kill")),
        [address] => {
            let found = clients.values().find(|client| client.address.as_bytes() == address.as_ref());
            found.ok_or(text("ERR No such client"))?.close(Ending::Now);
            Ok(Reply::OK)
        }
        filter => {
            let filter = Filter::read(filter)?;
            let meant: Vec<_> = clients.values().filter(|client| filter.means(client, caller)).collect();
            meant.iter().for_each(|client| client.close(Ending::AfterFlush));
            Ok(Reply::count(meant.len()))
        }
    }
}

fn unblock(engine: &Engine, args: &[Bytes]) -> Answer {
    let error = match &args[2..] {
        [_] => false,
        [_, how] if is(how, "timeout") => false,
        [_, how] if is(how, "error") => true,
        [] => return Err(wrong_arity("client|unblock")),
        _ => return Err(text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = u64::try_from(int(&args[2])?).unwrap_or(0);
    let Some(target) = engine.clients.borrow().get(&id).cloned() else { return Ok(Reply::Int(0)) };
    if target.blocked.get().is_none() {
        return Ok(Reply::Int(0));
    }
    engine.stop_waiting(&target);
    target.unblock(&match error {
        true => text("UNBLOCKED client unblocked via CLIENT UNBLOCK").into(),
        false => Reply::NilArray,
    });
    Ok(Reply::Int(1))
}
