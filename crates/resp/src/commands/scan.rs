//! `SCAN` and its relatives.
//!
//! Collections keep their elements at positions, which are visited from the highest to the lowest. A cursor is the number of positions still
//! to visit. A removal only moves elements to lower positions, so an element that stays is never missed (it may come twice, as in Redis).

use bytes::Bytes;

use crate::{
    call::{Call, int, is},
    failure::{Answer, Failure, SYNTAX, text},
    glob, number,
    reply::Reply,
    sorted_set::SortedSet,
    value::{Hash, Set},
};

/// A collection up to this size comes in one answer, as with Redis's compact encodings.
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

/// A negative number wraps around, as with `strtoul`; a cursor beyond the end starts at the end.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{keyspace::Keyspace, pubsub::PubSub, reply::Protocol};

    fn words(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    /// The next cursor, and the elements.
    fn page(answer: Answer) -> (String, Vec<Reply>) {
        let Ok(Reply::Array(parts)) = answer else { panic!("a scan answers with an array") };
        let [Reply::Bulk(cursor), Reply::Array(items)] = &parts[..] else { panic!("cursor and elements") };
        (String::from_utf8(cursor.to_vec()).unwrap(), items.clone())
    }

    #[test]
    fn what_stays_is_seen_although_others_come_and_go() {
        let (mut space, mut pubsub) = (Keyspace::new(), PubSub::default());
        let mut call = Call { space: &mut space, pubsub: &mut pubsub, db: 0, protocol: Protocol::Resp2 };
        let name = |n: usize| Bytes::from(format!("m{n}"));
        call.get_or_create::<Set>(&Bytes::from("s")).unwrap().extend((0..2000).map(name));
        let (mut cursor, mut seen, mut turn) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let (next, items) = page(sscan(&mut call, &words(&format!("sscan s {cursor} COUNT 7"))));
            seen.extend(items.into_iter().map(|item| format!("{item:?}")));
            let set = call.get_or_create::<Set>(&Bytes::from("s")).unwrap();
            crate::value::remove_member(set, &name(turn * 13 % 1000)); // the upper thousand stays
            set.insert(Bytes::from(format!("new{turn}")));
            turn += 1;
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        let missed = (1000..2000).map(|n| format!("{:?}", Reply::Bulk(name(n)))).filter(|item| !seen.contains(item));
        assert_eq!(missed.count(), 0);
    }

    #[test]
    fn a_cursor_from_nowhere_does_no_harm() {
        let (mut space, mut pubsub) = (Keyspace::new(), PubSub::default());
        let mut call = Call { space: &mut space, pubsub: &mut pubsub, db: 0, protocol: Protocol::Resp2 };
        for cursor in ["18446744073709551615", "-1", "7"] {
            assert_eq!(page(scan(&mut call, &words(&format!("scan {cursor}")))).0, "0");
        }
        assert!(scan(&mut call, &words("scan 1x")).is_err());
    }
}
