//! Sorted sets, apart from ranges (see `zranges`).

use bytes::Bytes;

use crate::{
    call::{Call, float, int, is},
    failure::{Answer, Failure, NOT_POSITIVE, SYNTAX, text},
    reply::{Protocol, Reply},
    sorted_set::SortedSet,
};

#[derive(Debug, Default, Clone, Copy)]
struct AddOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    changed: bool,
    increment: bool,
}

impl AddOptions {
    /// Reads options up to the first score.
    fn parse(args: &[Bytes]) -> Result<(Self, &[Bytes]), Failure> {
        let mut options = Self::default();
        let mut rest = args;
        while let Some((arg, after)) = rest.split_first() {
            match () {
                () if is(arg, "nx") => options.nx = true,
                () if is(arg, "xx") => options.xx = true,
                () if is(arg, "gt") => options.gt = true,
                () if is(arg, "lt") => options.lt = true,
                () if is(arg, "ch") => options.changed = true,
                () if is(arg, "incr") => options.increment = true,
                () => break,
            }
            rest = after;
        }
        options.check(rest)?;
        Ok((options, rest))
    }

    fn check(&self, pairs: &[Bytes]) -> Result<(), Failure> {
        if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
            return Err(SYNTAX);
        }
        if self.nx && self.xx {
            return Err(text("ERR XX and NX options at the same time are not compatible"));
        }
        if [self.nx, self.gt, self.lt].into_iter().filter(|set| *set).count() > 1 {
            return Err(text("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        if self.increment && pairs.len() > 2 {
            return Err(text("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The new score of a member; `None` leaves it unchanged.
    fn decide(&self, before: Option<f64>, given: f64) -> Result<Option<f64>, Failure> {
        let Some(before) = before else { return Ok((!self.xx).then_some(given)) };
        if self.nx {
            return Ok(None);
        }
        let after = if self.increment { before + given } else { given };
        if after.is_nan() {
            return Err(text("ERR resulting score is not a number (NaN)"));
        }
        let wrong_way = (self.gt && after <= before) || (self.lt && after >= before);
        Ok((!wrong_way).then_some(after))
    }
}

pub fn zadd(call: &mut Call, args: &[Bytes]) -> Answer {
    let (options, rest) = AddOptions::parse(&args[2..])?;
    let (pairs, _) = rest.as_chunks::<2>();
    let scores = pairs.iter().map(|[score, _]| float(score)).collect::<Result<Vec<f64>, _>>()?;
    let exists = call.get::<SortedSet>(&args[1])?.is_some();
    if options.xx && !exists {
        return Ok(if options.increment { Reply::Nil } else { Reply::Int(0) });
    }
    let set = call.get_or_create::<SortedSet>(&args[1])?;
    let (mut added, mut updated, mut last, mut failed) = (0, 0, None, None);
    for ([_, member], given) in pairs.iter().zip(scores) {
        let before = set.score(member);
        match options.decide(before, given) {
            Err(failure) => {
                failed = Some(failure);
                break;
            }
            Ok(None) => {}
            Ok(Some(score)) => {
                last = Some(score);
                added += usize::from(before.is_none());
                updated += usize::from(before.is_some_and(|before| before != score));
                set.insert(member.clone(), score);
            }
        }
    }
    if added + updated > 0 || !exists {
        call.changed(&args[1]);
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(match options.increment {
        true => last.map_or(Reply::Nil, Reply::Double),
        false => Reply::count(if options.changed { added + updated } else { added }),
    })
}

pub fn zincrby(call: &mut Call, args: &[Bytes]) -> Answer {
    let amount = float(&args[2])?;
    let before = call.get::<SortedSet>(&args[1])?.and_then(|set| set.score(&args[3]));
    let after = before.unwrap_or(0.0) + amount;
    if after.is_nan() {
        return Err(text("ERR resulting score is not a number (NaN)"));
    }
    call.get_or_create::<SortedSet>(&args[1])?.insert(args[3].clone(), after);
    call.changed(&args[1]);
    Ok(Reply::Double(after))
}

pub fn zrem(call: &mut Call, args: &[Bytes]) -> Answer {
    let Some(set) = call.get::<SortedSet>(&args[1])? else { return Ok(Reply::Int(0)) };
    let removed = args[2..].iter().filter(|member| set.remove(member).is_some()).count();
    if removed > 0 {
        call.changed(&args[1]);
    }
    Ok(Reply::count(removed))
}

pub fn zscore(call: &mut Call, args: &[Bytes]) -> Answer {
    let score = call.get::<SortedSet>(&args[1])?.and_then(|set| set.score(&args[2]));
    Ok(score.map_or(Reply::Nil, Reply::Double))
}

pub fn zmscore(call: &mut Call, args: &[Bytes]) -> Answer {
    let set = call.get::<SortedSet>(&args[1])?;
    let scores = args[2..].iter().map(|member| set.as_ref().and_then(|set| set.score(member)));
    Ok(Reply::Array(scores.map(|score| score.map_or(Reply::Nil, Reply::Double)).collect()))
}

pub fn zcard(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.get::<SortedSet>(&args[1])?.map_or(0, |set| set.len())))
}

pub fn zrank(call: &mut Call, args: &[Bytes]) -> Answer {
    rank(call, args, false)
}

pub fn zrevrank(call: &mut Call, args: &[Bytes]) -> Answer {
    rank(call, args, true)
}

fn rank(call: &mut Call, args: &[Bytes], reverse: bool) -> Answer {
    let rank = call.get::<SortedSet>(&args[1])?.and_then(|set| set.rank(&args[2], reverse));
    Ok(rank.map_or(Reply::Nil, Reply::count))
}

pub fn zpopmin(call: &mut Call, args: &[Bytes]) -> Answer {
    pop(call, args, false)
}

pub fn zpopmax(call: &mut Call, args: &[Bytes]) -> Answer {
    pop(call, args, true)
}

fn pop(call: &mut Call, args: &[Bytes], highest: bool) -> Answer {
    let count = match &args[2..] {
        [] => None,
        [count] => Some(int(count).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)?),
        _ => return Err(SYNTAX),
    };
    let popped = pop_some(call, &args[1], highest, count.unwrap_or(1))?;
    let pairs: Vec<_> = popped.into_iter().map(|(member, score)| (Reply::Bulk(member), Reply::Double(score))).collect();
    Ok(match (call.protocol, count) {
        // Without a count RESP3 does not nest the single pair.
        (Protocol::Resp3, None) => Reply::Array(pairs.into_iter().flat_map(|(m, s)| [m, s]).collect()),
        _ => call.pairs(pairs),
    })
}

pub fn pop_some(call: &mut Call, key: &Bytes, highest: bool, count: usize) -> Result<Vec<(Bytes, f64)>, Failure> {
    let Some(set) = call.get::<SortedSet>(key)? else { return Ok(vec![]) };
    let popped: Vec<_> = std::iter::from_fn(|| set.pop(highest)).take(count).collect();
    if !popped.is_empty() {
        call.changed(key);
    }
    Ok(popped)
}
