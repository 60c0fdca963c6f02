//! Ranges of sorted sets: by rank, by score, by bytes; read, counted, removed.

use bytes::Bytes;

use crate::{
    call::{Call, int, is, span},
    failure::{Answer, Failure, SYNTAX, text},
    number::parse_float,
    reply::Reply,
    sorted_set::{ScoreRange, SortedSet},
};

const NOT_A_SCORE: Failure = text("ERR min or max is not a float");
const NOT_A_LEX: Failure = text("ERR min or max not valid string range item");

type Item = (Bytes, f64);

/// An end of a range by bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LexBound {
    Lowest,
    Highest,
    Included(Bytes),
    Excluded(Bytes),
}

impl LexBound {
    fn parse(arg: &Bytes) -> Result<Self, Failure> {
        match arg.as_ref() {
            b"-" => Ok(Self::Lowest),
            b"+" => Ok(Self::Highest),
            [b'[', ..] => Ok(Self::Included(arg.slice(1..))),
            [b'(', ..] => Ok(Self::Excluded(arg.slice(1..))),
            _ => Err(NOT_A_LEX),
        }
    }

    fn below(&self, member: &Bytes) -> bool {
        match self {
            Self::Lowest => true,
            Self::Highest => false,
            Self::Included(bound) => bound <= member,
            Self::Excluded(bound) => bound < member,
        }
    }

    fn above(&self, member: &Bytes) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Included(bound) => bound >= member,
            Self::Excluded(bound) => bound > member,
        }
    }
}

/// The members to select.
#[derive(Debug, Clone, PartialEq)]
enum Range {
    Rank(i64, i64),
    Score(ScoreRange),
    Lex(LexBound, LexBound),
}

fn score_bound(arg: &[u8]) -> Result<(f64, bool), Failure> {
    let (text, excluded) = match arg {
        [b'(', rest @ ..] => (rest, true),
        all => (all, false),
    };
    Ok((parse_float(text).ok_or(NOT_A_SCORE)?, excluded))
}

fn score_range(min: &[u8], max: &[u8]) -> Result<Range, Failure> {
    let ((min, min_excluded), (max, max_excluded)) = (score_bound(min)?, score_bound(max)?);
    Ok(Range::Score(ScoreRange { min, min_excluded, max, max_excluded }))
}

fn lex_range(min: &Bytes, max: &Bytes) -> Result<Range, Failure> {
    Ok(Range::Lex(LexBound::parse(min)?, LexBound::parse(max)?))
}

/// `LIMIT offset count`; a negative count takes all.
#[derive(Debug, Clone, Copy)]
struct Limit {
    offset: i64,
    count: i64,
}

const ALL: Limit = Limit { offset: 0, count: -1 };

impl Limit {
    fn apply<'a>(self, items: impl Iterator<Item = (&'a Bytes, f64)>) -> Vec<Item> {
        let Ok(offset) = usize::try_from(self.offset) else { return vec![] };
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        items.skip(offset).take(count).map(|(member, score)| (member.clone(), score)).collect()
    }
}

fn select(set: &SortedSet, range: &Range, reverse: bool, limit: Limit) -> Vec<Item> {
    match (range, reverse) {
        (Range::Rank(start, end), _) => {
            let Some((from, to)) = span(*start, *end, set.len()) else { return vec![] };
            let limit = Limit { offset: from as i64, count: (to - from + 1) as i64 };
            if reverse { limit.apply(set.iter().rev()) } else { limit.apply(set.iter()) }
        }
        (Range::Score(scores), false) => limit.apply(set.in_scores(*scores)),
        (Range::Score(scores), true) => limit.apply(set.in_scores(*scores).rev()),
        (Range::Lex(min, max), false) => limit.apply(set.iter().filter(|(m, _)| min.below(m) && max.above(m))),
        (Range::Lex(min, max), true) => limit.apply(set.iter().rev().filter(|(m, _)| min.below(m) && max.above(m))),
    }
}

fn answer(call: &mut Call, key: &[u8], range: &Range, reverse: bool, limit: Limit, with_scores: bool) -> Answer {
    let items = call.get::<SortedSet>(key)?.map(|set| select(set, range, reverse, limit)).unwrap_or_default();
    Ok(match with_scores {
        true => call.pairs(items.into_iter().map(|(m, s)| (Reply::Bulk(m), Reply::Double(s))).collect()),
        false => Reply::bulks(items.into_iter().map(|(member, _)| member)),
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Options {
    by_score: bool,
    by_lex: bool,
    reverse: bool,
    limit: Option<Limit>,
    with_scores: bool,
}

impl Options {
    fn parse(args: &[Bytes]) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut rest = args;
        while let Some((arg, after)) = rest.split_first() {
            rest = after;
            match () {
                () if is(arg, "byscore") => options.by_score = true,
                () if is(arg, "bylex") => options.by_lex = true,
                () if is(arg, "rev") => options.reverse = true,
                () if is(arg, "withscores") => options.with_scores = true,
                () if is(arg, "limit") => {
                    let [offset, count, after @ ..] = after else { return Err(SYNTAX) };
                    options.limit = Some(Limit { offset: int(offset)?, count: int(count)? });
                    rest = after;
                }
                () => return Err(SYNTAX),
            }
        }
        Ok(options)
    }
}

pub fn zrange(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[4..])?;
    if options.by_score && options.by_lex {
        return Err(SYNTAX);
    }
    if options.limit.is_some_and(|limit| limit.count != -1) && !options.by_score && !options.by_lex {
        return Err(text("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
    }
    if options.with_scores && options.by_lex {
        return Err(text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
    }
    let (min, max) = if options.reverse { (&args[3], &args[2]) } else { (&args[2], &args[3]) };
    let range = match options {
        Options { by_score: true, .. } => score_range(min, max)?,
        Options { by_lex: true, .. } => lex_range(min, max)?,
        _ => Range::Rank(int(&args[2])?, int(&args[3])?),
    };
    answer(call, &args[1], &range, options.reverse, options.limit.unwrap_or(ALL), options.with_scores)
}

pub fn zrevrange(call: &mut Call, args: &[Bytes]) -> Answer {
    let options = Options::parse(&args[4..])?;
    if options.by_score || options.by_lex || options.reverse || options.limit.is_some() {
        return Err(SYNTAX);
    }
    let range = Range::Rank(int(&args[2])?, int(&args[3])?);
    answer(call, &args[1], &range, true, ALL, options.with_scores)
}

pub fn zrangebyscore(call: &mut Call, args: &[Bytes]) -> Answer {
    by_score(call, args, false)
}

pub fn zrevrangebyscore(call: &mut Call, args: &[Bytes]) -> Answer {
    by_score(call, args, true)
}

fn by_score(call: &mut Call, args: &[Bytes], reverse: bool) -> Answer {
    let options = Options::parse(&args[4..])?;
    if options.by_score || options.by_lex || options.reverse {
        return Err(SYNTAX);
    }
    let (min, max) = if reverse { (&args[3], &args[2]) } else { (&args[2], &args[3]) };
    let range = score_range(min, max)?;
    answer(call, &args[1], &range, reverse, options.limit.unwrap_or(ALL), options.with_scores)
}

pub fn zrangebylex(call: &mut Call, args: &[Bytes]) -> Answer {
    by_lex(call, args, false)
}

pub fn zrevrangebylex(call: &mut Call, args: &[Bytes]) -> Answer {
    by_lex(call, args, true)
}

fn by_lex(call: &mut Call, args: &[Bytes], reverse: bool) -> Answer {
    let options = Options::parse(&args[4..])?;
    if options.by_score || options.by_lex || options.reverse || options.with_scores {
        return Err(SYNTAX);
    }
    let (min, max) = if reverse { (&args[3], &args[2]) } else { (&args[2], &args[3]) };
    let range = lex_range(min, max)?;
    answer(call, &args[1], &range, reverse, options.limit.unwrap_or(ALL), false)
}

pub fn zcount(call: &mut Call, args: &[Bytes]) -> Answer {
    count(call, &args[1], &score_range(&args[2], &args[3])?)
}

pub fn zlexcount(call: &mut Call, args: &[Bytes]) -> Answer {
    count(call, &args[1], &lex_range(&args[2], &args[3])?)
}

fn count(call: &mut Call, key: &[u8], range: &Range) -> Answer {
    let Some(set) = call.get::<SortedSet>(key)? else { return Ok(Reply::Int(0)) };
    Ok(Reply::count(match range {
        Range::Score(scores) => set.in_scores(*scores).count(),
        range => select(set, range, false, ALL).len(),
    }))
}

pub fn zremrangebyrank(call: &mut Call, args: &[Bytes]) -> Answer {
    remove(call, &args[1], &Range::Rank(int(&args[2])?, int(&args[3])?))
}

pub fn zremrangebyscore(call: &mut Call, args: &[Bytes]) -> Answer {
    remove(call, &args[1], &score_range(&args[2], &args[3])?)
}

pub fn zremrangebylex(call: &mut Call, args: &[Bytes]) -> Answer {
    remove(call, &args[1], &lex_range(&args[2], &args[3])?)
}

fn remove(call: &mut Call, key: &[u8], range: &Range) -> Answer {
    let Some(set) = call.get::<SortedSet>(key)? else { return Ok(Reply::Int(0)) };
    let doomed = select(set, range, false, ALL);
    for (member, _) in &doomed {
        set.remove(member);
    }
    if !doomed.is_empty() {
        call.changed(key);
    }
    Ok(Reply::count(doomed.len()))
}
