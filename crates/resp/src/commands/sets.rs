//! Sets of strings.

use bytes::Bytes;

use crate::{
    call::{Call, int},
    failure::{Answer, Failure, NOT_POSITIVE, SYNTAX, text},
    reply::Reply,
    value::{Set, Value, remove_member},
};

pub fn sadd(call: &mut Call, args: &[Bytes]) -> Answer {
    let set = call.get_or_create::<Set>(&args[1])?;
    let added = args[2..].iter().filter(|member| set.insert((*member).clone())).count();
    if added > 0 {
        call.changed(&args[1]);
    }
    Ok(Reply::count(added))
}

pub fn srem(call: &mut Call, args: &[Bytes]) -> Answer {
    let Some(set) = call.get::<Set>(&args[1])? else { return Ok(Reply::Int(0)) };
    let removed = args[2..].iter().filter(|member| remove_member(set, member)).count();
    if removed > 0 {
        call.changed(&args[1]);
    }
    Ok(Reply::count(removed))
}

pub fn smembers(call: &mut Call, args: &[Bytes]) -> Answer {
    let members = call.get::<Set>(&args[1])?.into_iter().flat_map(|set| set.iter().cloned());
    Ok(Reply::Set(members.map(Reply::Bulk).collect()))
}

pub fn sismember(call: &mut Call, args: &[Bytes]) -> Answer {
    let found = call.get::<Set>(&args[1])?.is_some_and(|set| set.contains(&args[2]));
    Ok(Reply::Int(i64::from(found)))
}

pub fn smismember(call: &mut Call, args: &[Bytes]) -> Answer {
    let set = call.get::<Set>(&args[1])?;
    let found = args[2..].iter().map(|member| set.as_ref().is_some_and(|set| set.contains(member)));
    Ok(Reply::Array(found.map(|found| Reply::Int(i64::from(found))).collect()))
}

pub fn scard(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.get::<Set>(&args[1])?.map_or(0, |set| set.len())))
}

pub fn smove(call: &mut Call, args: &[Bytes]) -> Answer {
    call.get::<Set>(&args[2])?;
    let moved = call.get::<Set>(&args[1])?.is_some_and(|set| remove_member(set, &args[3]));
    if moved {
        call.changed(&args[1]);
        call.get_or_create::<Set>(&args[2])?.insert(args[3].clone());
        call.changed(&args[2]);
    }
    Ok(Reply::Int(i64::from(moved)))
}

pub fn spop(call: &mut Call, args: &[Bytes]) -> Answer {
    let count = match &args[2..] {
        [] => None,
        [count] => Some(int(count).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)?),
        _ => return Err(SYNTAX),
    };
    let Some(set) = call.get::<Set>(&args[1])? else {
        return Ok(count.map_or(Reply::Nil, |_| Reply::Set(vec![])));
    };
    let popped: Vec<Bytes> = (0..count.unwrap_or(1).min(set.len()))
        .filter_map(|_| set.swap_remove_index(rand::random_range(0..set.len())))
        .collect();
    if !popped.is_empty() {
        call.changed(&args[1]);
    }
    Ok(match count {
        None => Reply::bulk_or_nil(popped.into_iter().next()),
        Some(_) => Reply::Set(popped.into_iter().map(Reply::Bulk).collect()),
    })
}

pub fn srandmember(call: &mut Call, args: &[Bytes]) -> Answer {
    let count = match &args[2..] {
        [] => None,
        [count] => Some(int(count)?),
        _ => return Err(SYNTAX),
    };
    let Some(set) = call.get::<Set>(&args[1])? else {
        return Ok(count.map_or(Reply::Nil, |_| Reply::Array(vec![])));
    };
    let picked = pick(set.len(), count.unwrap_or(1))?;
    let mut members = picked.into_iter().filter_map(|at| set.get_index(at).cloned());
    Ok(match count {
        None => Reply::bulk_or_nil(members.next()),
        Some(_) => Reply::bulks(members),
    })
}

/// Random positions: distinct ones for a positive count, with repetition for a negative one.
pub fn pick(len: usize, count: i64) -> Result<Vec<usize>, Failure> {
    /// Maximum number of elements in a reply. Redis has no such limit.
    const MOST: u64 = 10_000_000;
    if len == 0 || count == 0 {
        return Ok(vec![]);
    }
    if count > 0 {
        let amount = len.min(usize::try_from(count).unwrap_or(usize::MAX));
        return Ok(rand::seq::index::sample(&mut rand::rng(), len, amount).into_vec());
    }
    if count.unsigned_abs() > MOST {
        return Err(text("ERR value is out of range"));
    }
    Ok((0..count.unsigned_abs()).map(|_| rand::random_range(0..len)).collect())
}

/// How sets are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    Union,
    Intersection,
    Difference,
}

pub fn sunion(call: &mut Call, args: &[Bytes]) -> Answer {
    combined(call, &args[1..], Combine::Union)
}

pub fn sinter(call: &mut Call, args: &[Bytes]) -> Answer {
    combined(call, &args[1..], Combine::Intersection)
}

pub fn sdiff(call: &mut Call, args: &[Bytes]) -> Answer {
    combined(call, &args[1..], Combine::Difference)
}

pub fn sunionstore(call: &mut Call, args: &[Bytes]) -> Answer {
    store(call, args, Combine::Union)
}

pub fn sinterstore(call: &mut Call, args: &[Bytes]) -> Answer {
    store(call, args, Combine::Intersection)
}

pub fn sdiffstore(call: &mut Call, args: &[Bytes]) -> Answer {
    store(call, args, Combine::Difference)
}

fn combined(call: &mut Call, keys: &[Bytes], how: Combine) -> Answer {
    Ok(Reply::Set(combine(call, keys, how)?.into_iter().map(Reply::Bulk).collect()))
}

fn store(call: &mut Call, args: &[Bytes], how: Combine) -> Answer {
    let set = combine(call, &args[2..], how)?;
    let len = set.len();
    if set.is_empty() {
        call.space.remove(call.db, &args[1]);
    } else {
        call.space.set(call.db, args[1].clone(), Value::Set(set), None);
    }
    Ok(Reply::count(len))
}

fn combine(call: &mut Call, keys: &[Bytes], how: Combine) -> Result<Set, Failure> {
    let mut result: Option<Set> = None;
    for key in keys {
        let next = call.get::<Set>(key)?.map(|set| set.clone()).unwrap_or_default();
        result = Some(match (result, how) {
            (None, _) => next,
            (Some(mut so_far), Combine::Union) => {
                so_far.extend(next);
                so_far
            }
            (Some(so_far), Combine::Intersection) => so_far.into_iter().filter(|m| next.contains(m)).collect(),
            (Some(so_far), Combine::Difference) => so_far.into_iter().filter(|m| !next.contains(m)).collect(),
        });
    }
    Ok(result.unwrap_or_default())
}
