//! Hashes: fields with values, in order of insertion.

use bytes::Bytes;

use crate::{
    call::{Call, float, int, is},
    failure::{Answer, Failure, NOT_A_FLOAT, OVERFLOW, SYNTAX, text, wrong_arity},
    number::{parse_float, parse_int},
    reply::Reply,
    value::{Hash, remove_field},
};

pub fn hset(call: &mut Call, args: &[Bytes]) -> Answer {
    set_fields(call, args, "hset").map(Reply::count)
}

pub fn hmset(call: &mut Call, args: &[Bytes]) -> Answer {
    set_fields(call, args, "hmset").map(|_| Reply::OK)
}

fn set_fields(call: &mut Call, args: &[Bytes], command: &str) -> Result<usize, Failure> {
    let (pairs, []) = args[2..].as_chunks::<2>() else { return Err(wrong_arity(command)) };
    let hash = call.get_or_create::<Hash>(&args[1])?;
    let before = hash.len();
    for [field, value] in pairs {
        hash.insert(field.clone(), value.clone());
    }
    let added = hash.len() - before;
    call.changed(&args[1]);
    Ok(added)
}

pub fn hsetnx(call: &mut Call, args: &[Bytes]) -> Answer {
    let hash = call.get_or_create::<Hash>(&args[1])?;
    let free = !hash.contains_key(&args[2]);
    if free {
        hash.insert(args[2].clone(), args[3].clone());
        call.changed(&args[1]);
    }
    Ok(Reply::Int(i64::from(free)))
}

pub fn hget(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulk_or_nil(call.get::<Hash>(&args[1])?.and_then(|hash| hash.get(&args[2]).cloned())))
}

pub fn hmget(call: &mut Call, args: &[Bytes]) -> Answer {
    let hash = call.get::<Hash>(&args[1])?;
    let values =
        args[2..].iter().map(|field| Reply::bulk_or_nil(hash.as_ref().and_then(|hash| hash.get(field).cloned())));
    Ok(Reply::Array(values.collect()))
}

pub fn hgetall(call: &mut Call, args: &[Bytes]) -> Answer {
    let hash = call.get::<Hash>(&args[1])?;
    let pairs =
        hash.into_iter().flatten().map(|(field, value)| (Reply::Bulk(field.clone()), Reply::Bulk(value.clone())));
    Ok(Reply::Map(pairs.collect()))
}

pub fn hkeys(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulks(call.get::<Hash>(&args[1])?.into_iter().flat_map(|hash| hash.keys().cloned())))
}

pub fn hvals(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulks(call.get::<Hash>(&args[1])?.into_iter().flat_map(|hash| hash.values().cloned())))
}

pub fn hdel(call: &mut Call, args: &[Bytes]) -> Answer {
    let Some(hash) = call.get::<Hash>(&args[1])? else { return Ok(Reply::Int(0)) };
    let removed = args[2..].iter().filter(|field| remove_field(hash, field).is_some()).count();
    if removed > 0 {
        call.changed(&args[1]);
    }
    Ok(Reply::count(removed))
}

pub fn hlen(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.get::<Hash>(&args[1])?.map_or(0, |hash| hash.len())))
}

pub fn hstrlen(call: &mut Call, args: &[Bytes]) -> Answer {
    let len = call.get::<Hash>(&args[1])?.and_then(|hash| hash.get(&args[2]).map(Bytes::len));
    Ok(Reply::count(len.unwrap_or(0)))
}

pub fn hexists(call: &mut Call, args: &[Bytes]) -> Answer {
    let found = call.get::<Hash>(&args[1])?.is_some_and(|hash| hash.contains_key(&args[2]));
    Ok(Reply::Int(i64::from(found)))
}

pub fn hincrby(call: &mut Call, args: &[Bytes]) -> Answer {
    let amount = int(&args[3])?;
    let before = match call.get::<Hash>(&args[1])?.and_then(|hash| hash.get(&args[2])) {
        Some(value) => parse_int(value).ok_or(text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let after = before.checked_add(amount).ok_or(OVERFLOW)?;
    call.get_or_create::<Hash>(&args[1])?.insert(args[2].clone(), Bytes::from(after.to_string()));
    call.changed(&args[1]);
    Ok(Reply::Int(after))
}

pub fn hincrbyfloat(call: &mut Call, args: &[Bytes]) -> Answer {
    let amount = float(&args[3]).map_err(|_| NOT_A_FLOAT)?;
    let before = match call.get::<Hash>(&args[1])?.and_then(|hash| hash.get(&args[2])) {
        Some(value) => parse_float(value).ok_or(text("ERR hash value is not a float"))?,
        None => 0.0,
    };
    let after = before + amount;
    if !after.is_finite() {
        return Err(text("ERR increment would produce NaN or Infinity"));
    }
    let written = Bytes::from(super::strings::human(after));
    call.get_or_create::<Hash>(&args[1])?.insert(args[2].clone(), written.clone());
    call.changed(&args[1]);
    Ok(Reply::Bulk(written))
}

pub fn hrandfield(call: &mut Call, args: &[Bytes]) -> Answer {
    let with_values = match &args[2..] {
        [] => {
            let hash = call.get::<Hash>(&args[1])?;
            let field = hash.and_then(|hash| hash.get_index(rand::random_range(0..hash.len())).map(|(f, _)| f.clone()));
            return Ok(Reply::bulk_or_nil(field));
        }
        [_] => false,
        [_, option] if is(option, "withvalues") => true,
        _ => return Err(SYNTAX),
    };
    let count = int(&args[2])?;
    let picked: Vec<(Bytes, Bytes)> = match call.get::<Hash>(&args[1])? {
        None => vec![],
        Some(hash) => super::sets::pick(hash.len(), count)?
            .into_iter()
            .filter_map(|at| hash.get_index(at).map(|(f, v)| (f.clone(), v.clone())))
            .collect(),
    };
    Ok(match with_values {
        true => call.pairs(picked.into_iter().map(|(f, v)| (Reply::Bulk(f), Reply::Bulk(v))).collect()),
        false => Reply::bulks(picked.into_iter().map(|(field, _)| field)),
    })
}
