//! `SCAN` and its relatives.
//!
//! Collections keep their elements at positions. A cursor is the number of positions still to visit, walked downwards:
//! removal moves elements down only, so an element that stays is never missed (it may come twice, as in Redis).

use bytes::Bytes;

use crate::resp::{
    call::{Call, int, is},
    failure::{Answer, Failure, SYNTAX, text},
    glob, number,
    reply::Reply,
    sorted_set::SortedSet,
    value::{Hash, Set},
};

/// As Redis's compact encodings: up to here a collection comes in one answer.
const WHOLE_UP_TO: usize = 128;

#[derive(Debug)]
struct Options {
    cursor: usize,
    pattern: Option<Bytes>,
    count: usize,
    kind: Option<Bytes>,
}

impl Options {
    fn parse(cursor: &[u8], args: &[Bytes], may_type: bool) -> Result<Self, Failure> {
        let cursor = std::str::from_utf8(cursor).ok().and_then(parse_cursor).ok_or(text("ERR invalid cursor"))?;
        let mut options =
            Self { cursor: usize::try_from(cursor).unwrap_or(usize::MAX), pattern: None, count: 10, kind: None };
        let (pairs, rest) = args.as_chunks::<2>();
        for [name, value] in pairs {
            match () {
                () if is(name, "match") => options.pattern = Some(value.clone()),
                () if is(name, "count") => options.count = count(value)?,
                () if is(name, "type") && may_type => options.kind = Some(value.clone()),
                () => return Err(SYNTAX),
            }
        }
        if rest.is_empty() { Ok(options) } else { Err(SYNTAX) }
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// Positions to visit now, and the next cursor.
    fn window(&self, len: usize, whole_up_to: usize) -> (std::ops::Range<usize>, usize) {
        let top = if self.cursor == 0 { len } else { self.cursor.min(len) };
        let bottom = if len <= whole_up_to { 0 } else { top.saturating_sub(self.count) };
        (bottom..top, bottom)
    }
}

/// A negative number wraps around, as `strtoul` has it; any cursor beyond the end starts at the end.
fn parse_cursor(text: &str) -> Option<u64> {
    match text.strip_prefix('-') {
        Some(digits) => digits.parse::<u64>().ok().map(u64::wrapping_neg),
        None => text.parse().ok(),
    }
}

fn count(arg: &[u8]) -> Result<usize, Failure> {
    let count = int(arg)?;
    usize::try_from(count).ok().filter(|n| *n >= 1).ok_or(SYNTAX)
}

fn answer(cursor: usize, items: Vec<Reply>) -> Answer {
    Ok(Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(items)]))
}

pub fn scan(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[1], &args[2..], true)?;
    let (window, next) = options.window(call.space.len(call.db), 0);
    let now = call.now();
    let keys = window.rev().filter_map(|at| call.space.by_position(call.db, at)).filter(|(key, entry)| {
        entry.expires_at.is_none_or(|at| at > now)
            && options.wants(key)
            && options.kind.as_ref().is_none_or(|kind| is(kind, entry.value.type_name()))
    });
    answer(next, keys.map(|(key, _)| Reply::Bulk(key.clone())).collect())
}

pub fn hscan(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[2], &args[3..], false)?;
    let Some(hash) = call.get::<Hash>(&args[1])? else { return answer(0, vec![]) };
    let (window, next) = options.window(hash.len(), WHOLE_UP_TO);
    let found = window.filter_map(|at| hash.get_index(at)).filter(|(field, _)| options.wants(field));
    answer(next, found.flat_map(|(f, v)| [Reply::Bulk(f.clone()), Reply::Bulk(v.clone())]).collect())
}

pub fn sscan(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[2], &args[3..], false)?;
    let Some(set) = call.get::<Set>(&args[1])? else { return answer(0, vec![]) };
    let (window, next) = options.window(set.len(), WHOLE_UP_TO);
    let found = window.filter_map(|at| set.get_index(at)).filter(|member| options.wants(member));
    answer(next, found.cloned().map(Reply::Bulk).collect())
}

pub fn zscan(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[2], &args[3..], false)?;
    let Some(set) = call.get::<SortedSet>(&args[1])? else { return answer(0, vec![]) };
    let pair =
        |(member, score): (&Bytes, f64)| [Reply::Bulk(member.clone()), Reply::bulk(number::format_double(score))];
    if set.len() <= WHOLE_UP_TO {
        return answer(0, set.iter().filter(|(m, _)| options.wants(m)).flat_map(pair).collect());
    }
    let (window, next) = options.window(set.len(), WHOLE_UP_TO);
    let found = window.filter_map(|at| set.by_position(at)).filter(|(member, _)| options.wants(member));
    answer(next, found.flat_map(pair).collect())
}
