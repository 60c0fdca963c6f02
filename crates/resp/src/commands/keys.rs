//! Commands on keys of any type: delete, expire, rename, inspect.

use bytes::Bytes;

use super::strings;
use crate::{
    call::{Call, int, is, lossy},
    failure::{Answer, NO_SUCH_KEY, SYNTAX, message, text, wrong_arity},
    glob,
    keyspace::{DATABASES, Millis},
    reply::Reply,
};

pub fn del(call: &mut Call, args: &[Bytes]) -> Answer {
    let removed = args[1..].iter().filter(|key| call.space.remove(call.db, key).is_some()).count();
    Ok(Reply::count(removed))
}

pub fn exists(call: &mut Call, args: &[Bytes]) -> Answer {
    let found = args[1..].iter().filter(|key| call.space.exists(call.db, key)).count();
    Ok(Reply::count(found))
}

pub fn expire(call: &mut Call, args: &[Bytes]) -> Answer {
    expire_in(call, args, "expire", 1000, true)
}

pub fn pexpire(call: &mut Call, args: &[Bytes]) -> Answer {
    expire_in(call, args, "pexpire", 1, true)
}

pub fn expireat(call: &mut Call, args: &[Bytes]) -> Answer {
    expire_in(call, args, "expireat", 1000, false)
}

pub fn pexpireat(call: &mut Call, args: &[Bytes]) -> Answer {
    expire_in(call, args, "pexpireat", 1, false)
}

fn expire_in(call: &mut Call, args: &[Bytes], command: &str, scale: i64, relative: bool) -> Answer {
    let condition = Condition::parse(&args[3..])?;
    let base = if relative { call.now() } else { 0 };
    let at = int(&args[2])?
        .checked_mul(scale)
        .and_then(|at| at.checked_add(base))
        .ok_or_else(|| message(format!("ERR invalid expire time in '{command}' command")))?;
    let Some(entry) = call.space.entry(call.db, &args[1]) else { return Ok(Reply::Int(0)) };
    if !condition.allows(entry.expires_at, at) {
        return Ok(Reply::Int(0));
    }
    if at <= call.now() {
        call.space.remove(call.db, &args[1]);
    } else {
        call.space.set_expiry(call.db, &args[1], Some(at));
    }
    Ok(Reply::Int(1))
}

/// `NX`, `XX`, `GT`, `LT` of the expire commands.
#[derive(Debug, Default)]
struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    fn parse(args: &[Bytes]) -> Result<Self, crate::failure::Failure> {
        let mut condition = Self::default();
        for arg in args {
            match () {
                () if is(arg, "nx") => condition.nx = true,
                () if is(arg, "xx") => condition.xx = true,
                () if is(arg, "gt") => condition.gt = true,
                () if is(arg, "lt") => condition.lt = true,
                () => return Err(message(format!("ERR Unsupported option {}", lossy(arg)))),
            }
        }
        if condition.nx && (condition.xx || condition.gt || condition.lt) {
            return Err(text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if condition.gt && condition.lt {
            return Err(text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// A key without expiry counts as living longest.
    fn allows(&self, before: Option<Millis>, after: Millis) -> bool {
        !(self.nx && before.is_some()
            || self.xx && before.is_none()
            || self.gt && before.is_none_or(|before| after <= before)
            || self.lt && before.is_some_and(|before| after >= before))
    }
}

pub fn ttl(call: &mut Call, args: &[Bytes]) -> Answer {
    remaining(call, &args[1], |at, now| (at - now + 500) / 1000)
}

pub fn pttl(call: &mut Call, args: &[Bytes]) -> Answer {
    remaining(call, &args[1], |at, now| at - now)
}

pub fn expiretime(call: &mut Call, args: &[Bytes]) -> Answer {
    remaining(call, &args[1], |at, _| (at + 500) / 1000)
}

pub fn pexpiretime(call: &mut Call, args: &[Bytes]) -> Answer {
    remaining(call, &args[1], |at, _| at)
}

fn remaining(call: &mut Call, key: &[u8], say: fn(Millis, Millis) -> i64) -> Answer {
    let now = call.now();
    Ok(Reply::Int(match call.space.entry(call.db, key) {
        None => -2,
        Some(entry) => entry.expires_at.map_or(-1, |at| say(at, now).max(0)),
    }))
}

pub fn persist(call: &mut Call, args: &[Bytes]) -> Answer {
    let had_expiry = call.space.entry(call.db, &args[1]).is_some_and(|entry| entry.expires_at.is_some());
    if had_expiry {
        call.space.set_expiry(call.db, &args[1], None);
    }
    Ok(Reply::Int(i64::from(had_expiry)))
}

pub fn keys(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulks(call.space.keys(call.db).filter(|key| glob::matches(&args[1], key)).cloned()))
}

pub fn randomkey(call: &mut Call, _args: &[Bytes]) -> Answer {
    let count = call.space.len(call.db);
    for _ in 0..100 {
        let Some(index) = (count > 0).then(|| rand::random_range(0..count)) else { break };
        let key = call.space.by_position(call.db, index).map(|(key, _)| key.clone());
        if let Some(key) = key.filter(|key| call.space.exists(call.db, key)) {
            return Ok(Reply::Bulk(key));
        }
    }
    Ok(Reply::bulk_or_nil(call.space.keys(call.db).next().cloned()))
}

pub fn rename(call: &mut Call, args: &[Bytes]) -> Answer {
    let entry = call.space.remove(call.db, &args[1]).ok_or(NO_SUCH_KEY)?;
    call.space.set(call.db, args[2].clone(), entry.value, entry.expires_at);
    Ok(Reply::OK)
}

pub fn renamenx(call: &mut Call, args: &[Bytes]) -> Answer {
    if !call.space.exists(call.db, &args[1]) {
        return Err(NO_SUCH_KEY);
    }
    if call.space.exists(call.db, &args[2]) {
        return Ok(Reply::Int(0));
    }
    rename(call, args)?;
    Ok(Reply::Int(1))
}

pub fn copy(call: &mut Call, args: &[Bytes]) -> Answer {
    let (mut replace, mut db) = (false, call.db);
    let mut rest = &args[3..];
    while let Some((option, after)) = rest.split_first() {
        rest = after;
        match after {
            _ if is(option, "replace") => replace = true,
            [number, after @ ..] if is(option, "db") => {
                let number = usize::try_from(int(number)?).ok().filter(|number| *number < DATABASES);
                (db, rest) = (number.ok_or(text("ERR DB index is out of range"))?, after);
            }
            _ => return Err(SYNTAX),
        }
    }
    if db == call.db && args[1] == args[2] {
        return Err(text("ERR source and destination objects are the same"));
    }
    let Some(entry) = call.space.entry(call.db, &args[1]) else { return Ok(Reply::Int(0)) };
    let (value, expires_at) = (entry.value.clone(), entry.expires_at);
    if !replace && call.space.exists(db, &args[2]) {
        return Ok(Reply::Int(0));
    }
    call.space.set(db, args[2].clone(), value, expires_at);
    Ok(Reply::Int(1))
}

pub fn object(call: &mut Call, args: &[Bytes]) -> Answer {
    let known = ["encoding", "refcount", "idletime", "freq"];
    let Some(name) = known.into_iter().find(|name| is(&args[1], name)) else {
        return Err(unknown_subcommand("OBJECT", &args[1]));
    };
    let [_, _, key] = args else { return Err(wrong_arity(&format!("object|{name}"))) };
    let Some(entry) = call.space.entry(call.db, key) else { return Ok(Reply::Nil) };
    match name {
        "encoding" => Ok(Reply::bulk(strings::encoding(&entry.value))),
        "refcount" => Ok(Reply::Int(1)),
        "idletime" => Ok(Reply::Int(0)),
        _ => Err(text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        )),
    }
}

pub fn memory(call: &mut Call, args: &[Bytes]) -> Answer {
    if !is(&args[1], "usage") {
        return Err(unknown_subcommand("MEMORY", &args[1]));
    }
    let Some(key) = args.get(2) else { return Err(wrong_arity("memory|usage")) };
    const ENTRY: usize = 64;
    let size = call.space.entry(call.db, key).map(|entry| entry.value.memory() + key.len() + ENTRY);
    Ok(size.map_or(Reply::Nil, Reply::count))
}

pub fn unknown_subcommand(command: &str, subcommand: &[u8]) -> crate::failure::Failure {
    message(format!("ERR unknown subcommand '{}'. Try {command} HELP.", lossy(subcommand)))
}
