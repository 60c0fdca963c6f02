//! Strings: `SET` with its options, counters, and the older forms of both.

use bytes::{Bytes, BytesMut};

use crate::{
    call::{Call, float, int, is},
    failure::{Answer, Failure, OVERFLOW, SYNTAX, message, text, wrong_arity},
    keyspace::Millis,
    protocol::MAX_BULK,
    reply::Reply,
    value::Value,
};

/// What to do with a key's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Clear,
    Keep,
    At(Millis),
}

/// Options that `SET` and `GETEX` share in parts.
#[derive(Debug, Default)]
struct Options {
    only_new: bool,
    only_existing: bool,
    get: bool,
    expiry: Option<Expiry>,
}

pub fn get(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulk_or_nil(call.get::<Bytes>(&args[1])?.cloned()))
}

pub fn set(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = set_options(call, &args[3..])?;
    let before = match options.get {
        true => call.get::<Bytes>(&args[1])?.cloned(),
        false => None,
    };
    let exists = call.space.exists(call.db, &args[1]);
    let refused = (options.only_new && exists) || (options.only_existing && !exists);
    if !refused {
        store(call, &args[1], args[2].clone(), options.expiry.unwrap_or(Expiry::Clear));
    }
    Ok(match (options.get, refused) {
        (true, _) => Reply::bulk_or_nil(before),
        (false, true) => Reply::Nil,
        (false, false) => Reply::OK,
    })
}

fn set_options(call: &Call, args: &[Bytes]) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut rest = args;
    while let Some((option, after)) = rest.split_first() {
        rest = after;
        if is(option, "nx") && !options.only_existing {
            options.only_new = true;
        } else if is(option, "xx") && !options.only_new {
            options.only_existing = true;
        } else if is(option, "get") {
            options.get = true;
        } else if is(option, "keepttl") && options.expiry.is_none() {
            options.expiry = Some(Expiry::Keep);
        } else {
            rest = expiry_option(call, "set", option, after, &mut options.expiry)?;
        }
    }
    Ok(options)
}

/// Reads `EX n` and similar options; returns the remaining arguments.
fn expiry_option<'a>(
    call: &Call,
    command: &str,
    option: &Bytes,
    after: &'a [Bytes],
    expiry: &mut Option<Expiry>,
) -> Result<&'a [Bytes], Failure> {
    let (scale, relative) = match () {
        () if is(option, "ex") => (1000, true),
        () if is(option, "px") => (1, true),
        () if is(option, "exat") => (1000, false),
        () if is(option, "pxat") => (1, false),
        () => return Err(SYNTAX),
    };
    let Some((amount, rest)) = after.split_first().filter(|_| expiry.is_none()) else { return Err(SYNTAX) };
    *expiry = Some(Expiry::At(deadline(call, command, int(amount)?, scale, relative)?));
    Ok(rest)
}

fn deadline(call: &Call, command: &str, amount: i64, scale: i64, relative: bool) -> Result<Millis, Failure> {
    let base = if relative { call.now() } else { 0 };
    Some(amount)
        .filter(|amount| *amount > 0)
        .and_then(|amount| amount.checked_mul(scale)?.checked_add(base))
        .ok_or_else(|| message(format!("ERR invalid expire time in '{command}' command")))
}

fn store(call: &mut Call, key: &Bytes, value: Bytes, expiry: Expiry) {
    let expires_at = match expiry {
        Expiry::Clear => None,
        Expiry::At(at) => Some(at),
        Expiry::Keep => call.space.entry(call.db, key).and_then(|entry| entry.expires_at),
    };
    call.space.set(call.db, key.clone(), Value::Text(value), expires_at);
}

pub fn setex(call: &mut Call, args: &[Bytes]) -> Answer {
    set_for(call, args, "setex", 1000)
}

pub fn psetex(call: &mut Call, args: &[Bytes]) -> Answer {
    set_for(call, args, "psetex", 1)
}

fn set_for(call: &mut Call, args: &[Bytes], command: &str, scale: i64) -> Answer {
    let at = deadline(call, command, int(&args[2])?, scale, true)?;
    store(call, &args[1], args[3].clone(), Expiry::At(at));
    Ok(Reply::OK)
}

pub fn setnx(call: &mut Call, args: &[Bytes]) -> Answer {
    let free = !call.space.exists(call.db, &args[1]);
    if free {
        store(call, &args[1], args[2].clone(), Expiry::Clear);
    }
    Ok(Reply::Int(i64::from(free)))
}

pub fn getset(call: &mut Call, args: &[Bytes]) -> Answer {
    let before = call.get::<Bytes>(&args[1])?.cloned();
    store(call, &args[1], args[2].clone(), Expiry::Clear);
    Ok(Reply::bulk_or_nil(before))
}

pub fn getdel(call: &mut Call, args: &[Bytes]) -> Answer {
    let before = call.get::<Bytes>(&args[1])?.cloned();
    if before.is_some() {
        call.space.remove(call.db, &args[1]);
    }
    Ok(Reply::bulk_or_nil(before))
}

pub fn getex(call: &mut Call, args: &[Bytes]) -> Answer {
    let mut expiry = None;
    let mut rest = &args[2..];
    while let Some((option, after)) = rest.split_first() {
        rest = if is(option, "persist") && expiry.is_none() {
            expiry = Some(Expiry::Clear);
            after
        } else {
            expiry_option(call, "getex", option, after, &mut expiry)?
        };
    }
    let value = call.get::<Bytes>(&args[1])?.cloned();
    match (&value, expiry) {
        (Some(_), Some(Expiry::At(at))) => call.space.set_expiry(call.db, &args[1], Some(at)),
        (Some(_), Some(Expiry::Clear)) => call.space.set_expiry(call.db, &args[1], None),
        _ => {}
    }
    Ok(Reply::bulk_or_nil(value))
}

pub fn mget(call: &mut Call, args: &[Bytes]) -> Answer {
    let values = args[1..].iter().map(|key| Reply::bulk_or_nil(call.get::<Bytes>(key).ok().flatten().cloned()));
    Ok(Reply::Array(values.collect()))
}

pub fn mset(call: &mut Call, args: &[Bytes]) -> Answer {
    let (pairs, []) = args[1..].as_chunks::<2>() else { return Err(wrong_arity("mset")) };
    for [key, value] in pairs {
        store(call, key, value.clone(), Expiry::Clear);
    }
    Ok(Reply::OK)
}

pub fn msetnx(call: &mut Call, args: &[Bytes]) -> Answer {
    let (pairs, []) = args[1..].as_chunks::<2>() else { return Err(wrong_arity("msetnx")) };
    if pairs.iter().any(|[key, _]| call.space.exists(call.db, key)) {
        return Ok(Reply::Int(0));
    }
    for [key, value] in pairs {
        store(call, key, value.clone(), Expiry::Clear);
    }
    Ok(Reply::Int(1))
}

pub fn append(call: &mut Call, args: &[Bytes]) -> Answer {
    let value = call.get_or_create::<Bytes>(&args[1])?;
    if value.len() + args[2].len() > MAX_BULK {
        return Err(text("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    let mut longer = BytesMut::with_capacity(value.len() + args[2].len());
    longer.extend_from_slice(value);
    longer.extend_from_slice(&args[2]);
    *value = longer.freeze();
    let len = value.len();
    call.changed(&args[1]);
    Ok(Reply::count(len))
}

pub fn strlen(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.get::<Bytes>(&args[1])?.map_or(0, |value| value.len())))
}

pub fn getrange(call: &mut Call, args: &[Bytes]) -> Answer {
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    let Some(value) = call.get::<Bytes>(&args[1])? else { return Ok(Reply::bulk("")) };
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::bulk(""));
    }
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    // Unlike in lists, an end before the first byte means the first byte.
    let end = if end < 0 { end.saturating_add(len).max(0) } else { end };
    Ok(match crate::call::span(start, end, value.len()) {
        Some((from, to)) => Reply::Bulk(value.slice(from..=to)),
        None => Reply::bulk(""),
    })
}

pub fn incr(call: &mut Call, args: &[Bytes]) -> Answer {
    add(call, &args[1], 1)
}

pub fn decr(call: &mut Call, args: &[Bytes]) -> Answer {
    add(call, &args[1], -1)
}

pub fn incrby(call: &mut Call, args: &[Bytes]) -> Answer {
    let amount = int(&args[2])?;
    add(call, &args[1], amount)
}

pub fn decrby(call: &mut Call, args: &[Bytes]) -> Answer {
    let amount = int(&args[2])?.checked_neg().ok_or(text("ERR decrement would overflow"))?;
    add(call, &args[1], amount)
}

fn add(call: &mut Call, key: &Bytes, amount: i64) -> Answer {
    let before = match call.get::<Bytes>(key)? {
        Some(value) => int(value)?,
        None => 0,
    };
    let after = before.checked_add(amount).ok_or(OVERFLOW)?;
    store(call, key, Bytes::from(after.to_string()), Expiry::Keep);
    Ok(Reply::Int(after))
}

pub fn incrbyfloat(call: &mut Call, args: &[Bytes]) -> Answer {
    let before = match call.get::<Bytes>(&args[1])? {
        Some(value) => float(value)?,
        None => 0.0,
    };
    let after = before + float(&args[2])?;
    if !after.is_finite() {
        return Err(text("ERR increment would produce NaN or Infinity"));
    }
    let written = Bytes::from(human(after));
    store(call, &args[1], written.clone(), Expiry::Keep);
    Ok(Reply::Bulk(written))
}

/// Plain decimals without an exponent. Redis computes in 80 bits here; the shortest text that reads back as the same
/// number is what its rounding to 17 digits gives for everyday values.
pub fn human(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value}") }
}

pub fn type_of(call: &mut Call, args: &[Bytes]) -> Answer {
    let name = call.space.entry(call.db, &args[1]).map_or("none", |entry| entry.value.type_name());
    Ok(Reply::Status(name.as_bytes().into()))
}

pub fn setrange(call: &mut Call, args: &[Bytes]) -> Answer {
    let offset = usize::try_from(int(&args[2])?).map_err(|_| text("ERR offset is out of range"))?;
    let before = call.get::<Bytes>(&args[1])?.cloned().unwrap_or_default();
    if args[3].is_empty() {
        return Ok(Reply::count(before.len()));
    }
    let end = offset.saturating_add(args[3].len());
    if end > MAX_BULK {
        return Err(text("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    let mut bytes = before.to_vec();
    bytes.resize(bytes.len().max(end), 0);
    bytes[offset..end].copy_from_slice(&args[3]);
    let len = bytes.len();
    store(call, &args[1], Bytes::from(bytes), Expiry::Keep);
    Ok(Reply::count(len))
}

/// The encodings that Redis would report; this server has one for each kind.
pub fn encoding(value: &Value) -> &'static str {
    match value {
        Value::Text(text) if crate::number::parse_int(text).is_some() => "int",
        Value::Text(text) if text.len() <= 44 => "embstr",
        Value::Text(_) => "raw",
        Value::List(_) => "quicklist",
        Value::Hash(hash) if hash.len() <= 512 && hash.iter().all(|(f, v)| f.len() <= 64 && v.len() <= 64) => {
            "listpack"
        }
        Value::Hash(_) | Value::Set(_) => "hashtable",
        Value::Sorted(set) if set.len() <= 128 && set.iter().all(|(member, _)| member.len() <= 64) => "listpack",
        Value::Sorted(_) => "skiplist",
    }
}
