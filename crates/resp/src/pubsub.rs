//! The subscriptions: which client listens to which channels and patterns.
//!
//! Each client's own sets and these indexes change together, and only in this file.

use std::rc::Rc;

use bytes::Bytes;
use indexmap::IndexMap;

use super::{
    call::{Call, is, lossy},
    client::Client,
    commands::keys::unknown_subcommand,
    engine::Engine,
    failure::{Answer, Failure, message, wrong_arity},
    glob,
    reply::Reply,
};

type Listeners = IndexMap<Bytes, IndexMap<u64, Rc<Client>>>;

#[derive(Debug, Default)]
pub struct PubSub {
    channels: Listeners,
    patterns: Listeners,
}

/// A channel by name, or by pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    fn word(self, channel: &'static str, pattern: &'static str) -> Reply {
        Reply::bulk(if self == Self::Channel { channel } else { pattern })
    }
}

impl PubSub {
    /// Returns the number of receivers; a client with several matching patterns counts once for each.
    pub fn publish(&self, channel: &Bytes, payload: &Bytes) -> usize {
        let mut receivers = 0;
        if let Some(clients) = self.channels.get(channel) {
            let items = [Reply::bulk("message"), Reply::Bulk(channel.clone()), Reply::Bulk(payload.clone())];
            let message = Reply::Push(items.into());
            clients.values().for_each(|client| client.deliver(&message));
            receivers += clients.len();
        }
        for (pattern, clients) in self.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel)) {
            let message = Reply::Push(vec![
                Reply::bulk("pmessage"),
                Reply::Bulk(pattern.clone()),
                Reply::Bulk(channel.clone()),
                Reply::Bulk(payload.clone()),
            ]);
            clients.values().for_each(|client| client.deliver(&message));
            receivers += clients.len();
        }
        receivers
    }

    fn listeners(&mut self, kind: Kind) -> &mut Listeners {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    fn add(&mut self, client: &Rc<Client>, kind: Kind, name: &Bytes) {
        names(client, kind).borrow_mut().insert(name.clone());
        self.listeners(kind).entry(name.clone()).or_default().insert(client.id, Rc::clone(client));
    }

    fn remove(&mut self, client: &Client, kind: Kind, name: &Bytes) {
        names(client, kind).borrow_mut().shift_remove(name);
        let listeners = self.listeners(kind);
        if let Some(clients) = listeners.get_mut(name) {
            clients.shift_remove(&client.id);
            if clients.is_empty() {
                listeners.swap_remove(name);
            }
        }
    }

    /// Forgets a client.
    pub fn leave(&mut self, client: &Client) {
        for kind in [Kind::Channel, Kind::Pattern] {
            let all: Vec<Bytes> = names(client, kind).borrow().iter().cloned().collect();
            all.iter().for_each(|name| self.remove(client, kind, name));
        }
    }
}

fn names(client: &Client, kind: Kind) -> &std::cell::RefCell<indexmap::IndexSet<Bytes>> {
    match kind {
        Kind::Channel => &client.channels,
        Kind::Pattern => &client.patterns,
    }
}

pub fn subscribe(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    Ok(join(engine, client, &args[1..], Kind::Channel))
}

pub fn psubscribe(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    Ok(join(engine, client, &args[1..], Kind::Pattern))
}

pub fn unsubscribe(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    Ok(leave(engine, client, &args[1..], Kind::Channel))
}

pub fn punsubscribe(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    Ok(leave(engine, client, &args[1..], Kind::Pattern))
}

fn join(engine: &Engine, client: &Rc<Client>, wanted: &[Bytes], kind: Kind) -> Reply {
    let confirmations = wanted.iter().map(|name| {
        engine.state.borrow_mut().pubsub.add(client, kind, name);
        confirmation(client, kind.word("subscribe", "psubscribe"), Reply::Bulk(name.clone()))
    });
    Reply::Several(confirmations.collect())
}

fn leave(engine: &Engine, client: &Rc<Client>, given: &[Bytes], kind: Kind) -> Reply {
    let all: Vec<Bytes> = match given {
        [] => names(client, kind).borrow().iter().cloned().collect(),
        some => some.to_vec(),
    };
    let word = || kind.word("unsubscribe", "punsubscribe");
    if all.is_empty() {
        return confirmation(client, word(), Reply::Nil);
    }
    let confirmations = all.into_iter().map(|name| {
        engine.state.borrow_mut().pubsub.remove(client, kind, &name);
        confirmation(client, word(), Reply::Bulk(name))
    });
    Reply::Several(confirmations.collect())
}

fn confirmation(client: &Client, word: Reply, name: Reply) -> Reply {
    Reply::Push(vec![word, name, Reply::count(client.subscriptions())])
}

fn wrong_use(sub: &[u8]) -> Failure {
    let sub = lossy(sub);
    message(format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try PUBSUB HELP."))
}

pub fn pubsub(call: &mut Call, args: &[Bytes]) -> Answer {
    let channels = &call.pubsub.channels;
    match (&args[1], &args[2..]) {
        (sub, []) if is(sub, "channels") => Ok(Reply::bulks(channels.keys().cloned())),
        (sub, [pattern]) if is(sub, "channels") => {
            Ok(Reply::bulks(channels.keys().filter(|name| glob::matches(pattern, name)).cloned()))
        }
        (sub, _) if is(sub, "channels") => Err(wrong_use(sub)),
        (sub, []) if is(sub, "numpat") => Ok(Reply::count(call.pubsub.patterns.len())),
        (sub, _) if is(sub, "numpat") => Err(wrong_arity("pubsub|numpat")),
        (sub, wanted) if is(sub, "numsub") => {
            let count = |name: &Bytes| Reply::count(channels.get(name).map_or(0, IndexMap::len));
            Ok(Reply::Array(wanted.iter().flat_map(|name| [Reply::Bulk(name.clone()), count(name)]).collect()))
        }
        (sub, _) => Err(unknown_subcommand("PUBSUB", sub)),
    }
}
