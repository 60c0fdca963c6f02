//! Lists: a double-ended queue of strings, Celery's queues.

use bytes::Bytes;

use crate::{
    call::{Call, int, is, span},
    failure::{Answer, Failure, NO_SUCH_KEY, NOT_AN_INTEGER, NOT_POSITIVE, OUT_OF_RANGE, SYNTAX, text},
    reply::Reply,
    value::List,
};

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

impl End {
    pub fn parse(arg: &[u8]) -> Result<Self, Failure> {
        match () {
            () if is(arg, "left") => Ok(Self::Left),
            () if is(arg, "right") => Ok(Self::Right),
            () => Err(SYNTAX),
        }
    }

    fn push(self, list: &mut List, item: Bytes) {
        match self {
            Self::Left => list.push_front(item),
            Self::Right => list.push_back(item),
        }
    }

    fn pop(self, list: &mut List) -> Option<Bytes> {
        match self {
            Self::Left => list.pop_front(),
            Self::Right => list.pop_back(),
        }
    }
}

pub fn lpush(call: &mut Call, args: &[Bytes]) -> Answer {
    push(call, args, End::Left)
}

pub fn rpush(call: &mut Call, args: &[Bytes]) -> Answer {
    push(call, args, End::Right)
}

pub fn lpushx(call: &mut Call, args: &[Bytes]) -> Answer {
    if call.list(&args[1])?.is_none() { Ok(Reply::Int(0)) } else { push(call, args, End::Left) }
}

pub fn rpushx(call: &mut Call, args: &[Bytes]) -> Answer {
    if call.list(&args[1])?.is_none() { Ok(Reply::Int(0)) } else { push(call, args, End::Right) }
}

fn push(call: &mut Call, args: &[Bytes], end: End) -> Answer {
    let list = call.get_or_create::<List>(&args[1])?;
    args[2..].iter().for_each(|item| end.push(list, item.clone()));
    let len = list.len();
    call.changed(&args[1]);
    Ok(Reply::count(len))
}

pub fn lpop(call: &mut Call, args: &[Bytes]) -> Answer {
    pop(call, args, End::Left)
}

pub fn rpop(call: &mut Call, args: &[Bytes]) -> Answer {
    pop(call, args, End::Right)
}

fn pop(call: &mut Call, args: &[Bytes], end: End) -> Answer {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        [name, ..] => return Err(crate::failure::wrong_arity(&String::from_utf8_lossy(name).to_lowercase())),
        [] => return Err(SYNTAX),
    };
    match count {
        None => Ok(Reply::bulk_or_nil(pop_one(call, &args[1], end)?)),
        Some(count) => {
            let Some(list) = call.list(&args[1])? else { return Ok(Reply::NilArray) };
            let items: Vec<Bytes> = std::iter::from_fn(|| end.pop(list)).take(count).collect();
            if !items.is_empty() {
                call.changed(&args[1]);
            }
            Ok(Reply::bulks(items))
        }
    }
}

fn positive(arg: &[u8]) -> Result<usize, Failure> {
    int(arg).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)
}

/// Takes one element; a list that becomes empty is removed.
pub fn pop_one(call: &mut Call, key: &Bytes, end: End) -> Result<Option<Bytes>, Failure> {
    let item = call.list(key)?.and_then(|list| end.pop(list));
    if item.is_some() {
        call.changed(key);
    }
    Ok(item)
}

/// Moves one element; `None` if the source does not exist.
pub fn move_one(call: &mut Call, from: &Bytes, to: &Bytes, take: End, put: End) -> Result<Option<Bytes>, Failure> {
    if call.list(from)?.is_none() {
        return Ok(None);
    }
    call.list(to)?; // a wrong type there is found before anything is taken
    let Some(item) = call.list(from)?.and_then(|list| take.pop(list)) else { return Ok(None) };
    put.push(call.get_or_create::<List>(to)?, item.clone());
    call.changed(from);
    call.changed(to);
    Ok(Some(item))
}

pub fn lmove(call: &mut Call, args: &[Bytes]) -> Answer {
    let (take, put) = (End::parse(&args[3])?, End::parse(&args[4])?);
    Ok(Reply::bulk_or_nil(move_one(call, &args[1], &args[2], take, put)?))
}

pub fn rpoplpush(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::bulk_or_nil(move_one(call, &args[1], &args[2], End::Right, End::Left)?))
}

pub fn llen(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.list(&args[1])?.map_or(0, |list| list.len())))
}

pub fn lrange(call: &mut Call, args: &[Bytes]) -> Answer {
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    let Some(list) = call.list(&args[1])? else { return Ok(Reply::Array(vec![])) };
    Ok(match span(start, end, list.len()) {
        Some((from, to)) => Reply::bulks(list.range(from..=to).cloned()),
        None => Reply::Array(vec![]),
    })
}

/// Position of an index that may count from the end.
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

pub fn lindex(call: &mut Call, args: &[Bytes]) -> Answer {
    let Some(list) = call.list(&args[1])? else { return Ok(Reply::Nil) };
    let item = position(int(&args[2])?, list.len()).and_then(|at| list.get(at).cloned());
    Ok(Reply::bulk_or_nil(item))
}

pub fn lset(call: &mut Call, args: &[Bytes]) -> Answer {
    let list = call.list(&args[1])?.ok_or(NO_SUCH_KEY)?;
    let at = position(int(&args[2])?, list.len()).ok_or(OUT_OF_RANGE)?;
    list[at] = args[3].clone();
    call.changed(&args[1]);
    Ok(Reply::OK)
}

pub fn ltrim(call: &mut Call, args: &[Bytes]) -> Answer {
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    let Some(list) = call.list(&args[1])? else { return Ok(Reply::OK) };
    match span(start, end, list.len()) {
        Some((from, to)) => {
            list.truncate(to + 1);
            list.drain(..from);
        }
        None => list.clear(),
    }
    call.changed(&args[1]);
    Ok(Reply::OK)
}

pub fn linsert(call: &mut Call, args: &[Bytes]) -> Answer {
    let offset = match () {
        () if is(&args[2], "before") => 0,
        () if is(&args[2], "after") => 1,
        () => return Err(SYNTAX),
    };
    let Some(list) = call.list(&args[1])? else { return Ok(Reply::Int(0)) };
    let Some(at) = list.iter().position(|item| *item == args[3]) else { return Ok(Reply::Int(-1)) };
    list.insert(at + offset, args[4].clone());
    let len = list.len();
    call.changed(&args[1]);
    Ok(Reply::count(len))
}

pub fn lrem(call: &mut Call, args: &[Bytes]) -> Answer {
    let count = int(&args[2])?;
    let Some(list) = call.list(&args[1])? else { return Ok(Reply::Int(0)) };
    let limit = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let before = list.len();
    let mut left = limit;
    let mut keep = |item: &Bytes| {
        let drop = left > 0 && *item == args[3];
        left -= usize::from(drop);
        !drop
    };
    if count >= 0 {
        list.retain(|item| keep(item));
    } else {
        let mut kept: List = std::mem::take(list).into_iter().rev().filter(|item| keep(item)).collect();
        kept.make_contiguous().reverse();
        *list = kept;
    }
    let removed = before - list.len();
    if removed > 0 {
        call.changed(&args[1]);
    }
    Ok(Reply::count(removed))
}

pub fn lpos(call: &mut Call, args: &[Bytes]) -> Answer {
    let (mut rank, mut count, mut max_len) = (1, None, 0);
    let (options, rest) = args[3..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(SYNTAX);
    }
    for [name, value] in options {
        match () {
            () if is(name, "rank") => rank = lpos_rank(value)?,
            () if is(name, "count") => count = Some(not_negative(value, "ERR COUNT can't be negative")?),
            () if is(name, "maxlen") => max_len = not_negative(value, "ERR MAXLEN can't be negative")?,
            () => return Err(SYNTAX),
        }
    }
    let found = match call.list(&args[1])? {
        None if count.is_some() => return Ok(Reply::Array(vec![])),
        None => return Ok(Reply::Nil),
        Some(list) => positions(list, &args[2], rank, count, max_len),
    };
    Ok(match count {
        Some(_) => Reply::Array(found.into_iter().map(Reply::count).collect()),
        None => found.first().copied().map_or(Reply::Nil, Reply::count),
    })
}

fn lpos_rank(arg: &[u8]) -> Result<i64, Failure> {
    match int(arg)? {
        i64::MIN => Err(NOT_AN_INTEGER),
        0 => Err(text(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
             start from the end of the list",
        )),
        rank => Ok(rank),
    }
}

fn not_negative(arg: &[u8], refusal: &'static str) -> Result<usize, Failure> {
    int(arg).ok().and_then(|n| usize::try_from(n).ok()).ok_or(text(refusal))
}

/// `count` 0 means all, absent means one; `max_len` 0 means the whole list.
fn positions(list: &List, item: &Bytes, rank: i64, count: Option<usize>, max_len: usize) -> Vec<usize> {
    let len = list.len();
    let skip = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let take = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(n) => n,
    };
    let look = if max_len == 0 { len } else { max_len };
    let order: Box<dyn Iterator<Item = usize>> = if rank > 0 { Box::new(0..len) } else { Box::new((0..len).rev()) };
    order.take(look).filter(|at| list[*at] == *item).skip(skip).take(take).collect()
}

pub fn lmpop(call: &mut Call, args: &[Bytes]) -> Answer {
    let (keys, end, count) = mpop_arguments(&args[1..])?;
    Ok(mpop(call, keys, end, count)?.unwrap_or(Reply::NilArray))
}

/// `numkeys key … LEFT|RIGHT [COUNT n]`
pub fn mpop_arguments(args: &[Bytes]) -> Result<(&[Bytes], End, usize), Failure> {
    let keys = int(&args[0]).ok().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    let keys = keys.ok_or(text("ERR numkeys should be greater than 0"))?;
    let rest = args.get(keys.saturating_add(1)..).ok_or(SYNTAX)?;
    let (end, options) = rest.split_first().ok_or(SYNTAX)?;
    let end = End::parse(end)?;
    let count = match options {
        [] => 1,
        [name, count] if is(name, "count") => int(count)
            .ok()
            .filter(|n| *n > 0)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or(text("ERR count should be greater than 0"))?,
        _ => return Err(SYNTAX),
    };
    Ok((&args[1..=keys], end, count))
}

/// Pops from the first list that is not empty.
pub fn mpop(call: &mut Call, keys: &[Bytes], end: End, count: usize) -> Result<Option<Reply>, Failure> {
    for key in keys {
        let Some(list) = call.list(key)? else { continue };
        let items: Vec<Bytes> = std::iter::from_fn(|| end.pop(list)).take(count).collect();
        call.changed(key);
        return Ok(Some(Reply::Array(vec![Reply::Bulk(key.clone()), Reply::bulks(items)])));
    }
    Ok(None)
}
