//! Commands that wait for an element, and the queue of the clients that are waiting.
//!
//! The client that has waited longest is served first. Waiters are served after the command, script or transaction that added
//! the elements has finished, so they never see its intermediate states. Inside a script or transaction no command waits.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    call::Call,
    client::Client,
    commands::{
        lists::{self, End},
        zsets,
    },
    failure::{Failure, text},
    number::parse_float,
    reply::{Protocol, Reply},
};

/// What a waiter takes from the first key with an element.
#[derive(Debug, Clone)]
pub enum Want {
    Pop(End),
    PopSome(End, usize),
    Move { to: Bytes, take: End, put: End },
    PopScored { highest: bool },
}

/// A command that may have to wait.
#[derive(Debug, Clone)]
pub struct Wait {
    pub keys: Vec<Bytes>,
    pub want: Want,
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
}

impl Wait {
    /// Takes an element if there is one now; does not wait.
    pub fn attempt(&self, call: &mut Call) -> Result<Option<Reply>, Failure> {
        for key in &self.keys {
            if let Some(reply) = self.want.take(call, key)? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// The answer when the command may not wait.
    pub fn nothing(&self) -> Reply {
        if matches!(self.want, Want::Move { .. }) { Reply::Nil } else { Reply::NilArray }
    }
}

impl Want {
    fn take(&self, call: &mut Call, key: &Bytes) -> Result<Option<Reply>, Failure> {
        let named = |items: Vec<Reply>| Reply::Array([vec![Reply::Bulk(key.clone())], items].concat());
        match self {
            Self::Pop(end) => Ok(lists::pop_one(call, key, *end)?.map(|item| named(vec![Reply::Bulk(item)]))),
            Self::PopSome(end, count) => lists::mpop(call, std::slice::from_ref(key), *end, *count),
            Self::Move { to, take, put } => Ok(lists::move_one(call, key, to, *take, *put)?.map(Reply::Bulk)),
            Self::PopScored { highest } => {
                let popped = zsets::pop_some(call, key, *highest, 1)?.pop();
                Ok(popped.map(|(member, score)| named(vec![Reply::Bulk(member), Reply::Double(score)])))
            }
        }
    }

    /// Whether this waiter can use the type of the key's value.
    fn fits(&self, call: &mut Call, key: &Bytes) -> bool {
        match self {
            Self::PopScored { .. } => call.get::<super::sorted_set::SortedSet>(key).is_ok_and(|found| found.is_some()),
            _ => call.list(key).is_ok_and(|found| found.is_some()),
        }
    }
}

pub fn blpop(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    pop(args, Want::Pop(End::Left))
}

pub fn brpop(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    pop(args, Want::Pop(End::Right))
}

pub fn bzpopmin(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    pop(args, Want::PopScored { highest: false })
}

pub fn bzpopmax(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    pop(args, Want::PopScored { highest: true })
}

fn pop(args: &[Bytes], want: Want) -> Result<Wait, Failure> {
    let (last, keys) = args[1..].split_last().expect("the arity asks for a key and a timeout");
    Ok(Wait { keys: keys.to_vec(), want, timeout: timeout(last)? })
}

pub fn blmove(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    let (take, put) = (End::parse(&args[3])?, End::parse(&args[4])?);
    let want = Want::Move { to: args[2].clone(), take, put };
    Ok(Wait { keys: vec![args[1].clone()], want, timeout: timeout(&args[5])? })
}

pub fn brpoplpush(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    let want = Want::Move { to: args[2].clone(), take: End::Right, put: End::Left };
    Ok(Wait { keys: vec![args[1].clone()], want, timeout: timeout(&args[3])? })
}

pub fn blmpop(_call: &mut Call, args: &[Bytes]) -> Result<Wait, Failure> {
    let timeout = timeout(&args[1])?;
    let (keys, end, count) = lists::mpop_arguments(&args[2..])?;
    Ok(Wait { keys: keys.to_vec(), want: Want::PopSome(end, count), timeout })
}

/// Seconds, with decimals; zero waits for ever.
fn timeout(arg: &[u8]) -> Result<Option<Duration>, Failure> {
    let seconds = parse_float(arg).ok_or(text("ERR timeout is not a float or out of range"))?;
    if seconds < 0.0 {
        return Err(text("ERR timeout is negative"));
    }
    // Redis 7.0 counts milliseconds in a signed 64-bit integer, which would overflow.
    if seconds * 1000.0 > i64::MAX as f64 {
        return Err(text("ERR timeout is negative"));
    }
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(1e10))))
}

#[derive(Debug)]
struct Waiter {
    client: Rc<Client>,
    db: usize,
    protocol: Protocol,
    wait: Wait,
}

/// All blocked clients.
#[derive(Debug, Default)]
pub struct Waiting {
    last_id: u64,
    waiters: HashMap<u64, Waiter>,
    by_key: HashMap<(usize, Bytes), VecDeque<u64>>,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Adds the client to the queue of every key.
    pub fn enter(&mut self, call: &mut Call, client: &Rc<Client>, wait: Wait) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        for key in &wait.keys {
            let queue = self.by_key.entry((call.db, key.clone())).or_default();
            if queue.back() != Some(&id) {
                queue.push_back(id);
                call.space.await_key(call.db, key);
            }
        }
        let waiter = Waiter { client: Rc::clone(client), db: call.db, protocol: call.protocol, wait };
        self.waiters.insert(id, waiter);
        id
    }

    /// Leaves all queues.
    pub fn leave(&mut self, space: &mut super::keyspace::Keyspace, id: u64) {
        let Some(waiter) = self.waiters.remove(&id) else { return };
        for key in waiter.wait.keys {
            let place = (waiter.db, key);
            let Some(queue) = self.by_key.get_mut(&place) else { continue };
            let before = queue.len();
            queue.retain(|other| *other != id);
            if queue.len() < before {
                space.stop_awaiting(place.0, &place.1);
            }
            if queue.is_empty() {
                self.by_key.remove(&place);
            }
        }
    }

    /// Serves clients that wait for changed keys, as long as there are elements.
    pub fn serve(&mut self, space: &mut super::keyspace::Keyspace, pubsub: &mut super::pubsub::PubSub) {
        while let Some((db, key)) = space.next_ready() {
            let Some(queue) = self.by_key.get(&(db, key.clone())) else { continue };
            for id in queue.clone() {
                if !space.exists(db, &key) {
                    break;
                }
                let Some(waiter) = self.waiters.get(&id) else { continue };
                let mut call = Call { space: &mut *space, pubsub: &mut *pubsub, db, protocol: waiter.protocol };
                if !waiter.wait.want.fits(&mut call, &key) {
                    continue;
                }
                let reply = match waiter.wait.want.take(&mut call, &key) {
                    Ok(None) => continue,
                    Ok(Some(reply)) => reply,
                    Err(failure) => failure.into(),
                };
                waiter.client.unblock(&reply);
                self.leave(space, id);
            }
        }
    }
}
