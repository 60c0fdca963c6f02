//! The answer of a command, and its encoding in RESP2 and RESP3.
//!
//! Handlers build a [`Reply`] and never bytes, so that one handler serves both protocols and Lua. Where the *shape* differs
//! between protocols (flat array or array of pairs), the handler checks [`Protocol`] itself.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::number::format_double;

/// The protocol a connection (or a script) has chosen; RESP2 until `HELLO 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// One answer. Nested where the protocol nests.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Status(Cow<'static, [u8]>),
    /// `-CODE text`; the code is part of the text.
    Error(Cow<'static, [u8]>),
    Int(i64),
    Bulk(Bytes),
    /// RESP2 `$-1`, RESP3 `_`.
    Nil,
    /// RESP2 `*-1`, RESP3 `_`.
    NilArray,
    Array(Vec<Reply>),
    /// RESP2: a flat array.
    Map(Vec<(Reply, Reply)>),
    /// RESP2: an array.
    Set(Vec<Reply>),
    /// RESP2: a bulk string.
    Double(f64),
    /// RESP2: 1 or 0.
    Bool(bool),
    /// Text for people (`INFO`); RESP2: a bulk string.
    Verbatim(Bytes),
    /// RESP2: a bulk string.
    BigNumber(Bytes),
    /// Out-of-band in RESP3, an array in RESP2.
    Push(Vec<Reply>),
    /// Several answers to one command, such as `SUBSCRIBE a b`.
    Several(Vec<Reply>),
    /// The answer comes later or never (blocked client, `CLIENT REPLY OFF`).
    Silent,
}

impl Reply {
    pub const OK: Reply = Reply::Status(Cow::Borrowed(b"OK"));
    pub const QUEUED: Reply = Reply::Status(Cow::Borrowed(b"QUEUED"));

    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    pub fn count(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    pub fn bulk_or_nil(value: Option<Bytes>) -> Self {
        value.map_or(Self::Nil, Self::Bulk)
    }

    pub fn bulks(items: impl IntoIterator<Item = Bytes>) -> Self {
        Self::Array(items.into_iter().map(Self::Bulk).collect())
    }

    /// Appends the wire form.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Status(text) => line(out, b'+', text),
            Self::Error(text) => line(out, b'-', text),
            Self::Int(n) => number(out, b':', *n),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Nil if resp3 => out.put_slice(b"_\r\n"),
            Self::Nil => out.put_slice(b"$-1\r\n"),
            Self::NilArray if resp3 => out.put_slice(b"_\r\n"),
            Self::NilArray => out.put_slice(b"*-1\r\n"),
            Self::Array(items) => aggregate(out, b'*', items, protocol),
            Self::Set(items) => aggregate(out, if resp3 { b'~' } else { b'*' }, items, protocol),
            Self::Push(items) => aggregate(out, if resp3 { b'>' } else { b'*' }, items, protocol),
            Self::Map(pairs) => map(out, pairs, protocol),
            Self::Double(n) if resp3 => line(out, b',', format_double(*n).as_bytes()),
            Self::Double(n) => bulk(out, format_double(*n).as_bytes()),
            Self::Bool(value) if resp3 => out.put_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
            Self::Bool(value) => number(out, b':', i64::from(*value)),
            Self::Verbatim(text) if resp3 => verbatim(out, text),
            Self::Verbatim(text) => bulk(out, text),
            Self::BigNumber(text) if resp3 => line(out, b'(', text),
            Self::BigNumber(text) => bulk(out, text),
            Self::Several(replies) => replies.iter().for_each(|reply| reply.encode(protocol, out)),
            Self::Silent => {}
        }
    }
}

/// Writes a line. A line break in the text would end the reply early, so it becomes a space, as in Redis.
fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.put_u8(kind);
    let start = out.len();
    out.put_slice(text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.put_slice(b"\r\n");
}

fn number(out: &mut BytesMut, kind: u8, n: i64) {
    out.put_u8(kind);
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

fn length(out: &mut BytesMut, kind: u8, len: usize) {
    number(out, kind, i64::try_from(len).unwrap_or(i64::MAX));
}

/// The head of an array whose elements are written one by one.
pub fn begin_array(out: &mut BytesMut, len: usize) {
    length(out, b'*', len);
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn verbatim(out: &mut BytesMut, text: &[u8]) {
    length(out, b'=', text.len() + 4);
    out.put_slice(b"txt:");
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

fn aggregate(out: &mut BytesMut, kind: u8, items: &[Reply], protocol: Protocol) {
    length(out, kind, items.len());
    items.iter().for_each(|item| item.encode(protocol, out));
}

fn map(out: &mut BytesMut, pairs: &[(Reply, Reply)], protocol: Protocol) {
    match protocol {
        Protocol::Resp3 => length(out, b'%', pairs.len()),
        Protocol::Resp2 => length(out, b'*', pairs.len() * 2),
    }
    for (key, value) in pairs {
        key.encode(protocol, out);
        value.encode(protocol, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn resp3_has_its_own_null_map_double_and_push() {
        let reply = Reply::Map(vec![(Reply::bulk("a"), Reply::Nil), (Reply::bulk("b"), Reply::Double(1.5))]);
        assert_eq!(wire(&reply, Protocol::Resp3), "%2\r\n$1\r\na\r\n_\r\n$1\r\nb\r\n,1.5\r\n");
        assert_eq!(wire(&reply, Protocol::Resp2), "*4\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n$3\r\n1.5\r\n");
        assert_eq!(wire(&Reply::Push(vec![Reply::Int(-7)]), Protocol::Resp3), ">1\r\n:-7\r\n");
    }

    #[test]
    fn an_error_text_cannot_break_the_line() {
        assert_eq!(wire(&Reply::Error("ERR a\r\nb".as_bytes().into()), Protocol::Resp2), "-ERR a  b\r\n");
    }

    #[test]
    fn integers_at_the_edges_are_written_whole() {
        assert_eq!(wire(&Reply::Int(i64::MIN), Protocol::Resp2), ":-9223372036854775808\r\n");
        assert_eq!(wire(&Reply::Int(0), Protocol::Resp2), ":0\r\n");
    }
}
