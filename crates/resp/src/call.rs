//! The context of a data command: the databases, and the database and protocol that its client has chosen.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;

use super::{
    failure::{Failure, NOT_A_FLOAT, NOT_AN_INTEGER},
    keyspace::{Keyspace, Millis},
    number,
    pubsub::PubSub,
    reply::{Protocol, Reply},
    value::{Kind, List},
};

/// One call of a data command.
pub struct Call<'a> {
    pub space: &'a mut Keyspace,
    pub pubsub: &'a mut PubSub,
    pub db: usize,
    pub protocol: Protocol,
}

impl Call<'_> {
    pub fn now(&self) -> Millis {
        self.space.now()
    }

    pub fn get<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&mut K>, Failure> {
        self.space.get(self.db, key)
    }

    pub fn get_or_create<K: Kind>(&mut self, key: &Bytes) -> Result<&mut K, Failure> {
        self.space.get_or_create(self.db, key)
    }

    pub fn list(&mut self, key: &[u8]) -> Result<Option<&mut List>, Failure> {
        self.get::<VecDeque<Bytes>>(key)
    }

    pub fn changed(&mut self, key: &[u8]) {
        self.space.changed(self.db, key);
    }

    /// Elements with scores or values: flat in RESP2, pairs in RESP3.
    pub fn pairs(&self, items: Vec<(Reply, Reply)>) -> Reply {
        match self.protocol {
            Protocol::Resp2 => Reply::Array(items.into_iter().flat_map(|(key, value)| [key, value]).collect()),
            Protocol::Resp3 => {
                Reply::Array(items.into_iter().map(|(key, value)| Reply::Array(vec![key, value])).collect())
            }
        }
    }
}

pub fn int(arg: &[u8]) -> Result<i64, Failure> {
    number::parse_int(arg).ok_or(NOT_AN_INTEGER)
}

pub fn float(arg: &[u8]) -> Result<f64, Failure> {
    number::parse_float(arg).ok_or(NOT_A_FLOAT)
}

/// Whether an argument is this keyword, in any case.
pub fn is(arg: &[u8], keyword: &str) -> bool {
    arg.eq_ignore_ascii_case(keyword.as_bytes())
}

/// An argument as text for an error message.
pub fn lossy(arg: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(arg)
}

/// Start and end of `LRANGE`-like indexes in a sequence of `len`; `None` if nothing lies between.
pub fn span(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from = if start < 0 { (start.saturating_add(len)).max(0) } else { start };
    let to = (if end < 0 { end.saturating_add(len) } else { end }).min(len - 1);
    if from > to || from >= len || to < 0 {
        return None;
    }
    Some((usize::try_from(from).ok()?, usize::try_from(to).ok()?))
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_count_from_either_end() {
        assert_eq!(span(0, -1, 3), Some((0, 2)));
        assert_eq!(span(-2, 100, 3), Some((1, 2)));
        assert_eq!(span(-100, 0, 3), Some((0, 0)));
        assert_eq!(span(3, 5, 3), None);
        assert_eq!(span(2, 1, 3), None);
        assert_eq!(span(0, -1, 0), None);
        assert_eq!(span(i64::MIN, i64::MAX, 3), Some((0, 2)));
        assert_eq!(span(i64::MIN, i64::MIN, 3), None);
    }
}
