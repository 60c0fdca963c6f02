//! Values between Lua and the protocol, by Redis's rules.
//!
//! To Lua: a null is `false` in RESP2 and `nil` in RESP3. From Lua: numbers lose their fraction, a list ends at its
//! first `nil`, and a table may name another type by its one field.

use bytes::Bytes;
use mlua::{Lua, Table, Value};

use crate::{
    number::format_double,
    reply::{Protocol, Reply},
};

/// Redis refuses deeper replies too.
const MAX_DEPTH: usize = 200;

/// An argument of `redis.call`: strings, and numbers as `%.17g`.
pub fn to_argument(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(n) => Some(Bytes::from(format_double(*n as f64))),
        Value::Number(n) => Some(Bytes::from(format_double(*n))),
        _ => None,
    }
}

pub fn to_lua(lua: &Lua, reply: Reply, protocol: Protocol) -> mlua::Result<Value> {
    let resp3 = protocol == Protocol::Resp3;
    let string = |bytes: &[u8]| lua.create_string(bytes).map(Value::String);
    Ok(match reply {
        Reply::Status(text) => named(lua, "ok", string(&text)?)?,
        Reply::Error(text) => named(lua, "err", string(&text)?)?,
        Reply::Int(n) => Value::Integer(n),
        Reply::Bulk(bytes) => string(&bytes)?,
        Reply::Nil | Reply::NilArray if resp3 => Value::Nil,
        Reply::Nil | Reply::NilArray => Value::Boolean(false),
        Reply::Array(items) | Reply::Push(items) | Reply::Several(items) => sequence(lua, items, protocol)?,
        Reply::Set(items) if resp3 => {
            let members = lua.create_table()?;
            for item in items {
                members.raw_set(to_lua(lua, item, protocol)?, true)?;
            }
            named(lua, "set", Value::Table(members))?
        }
        Reply::Set(items) => sequence(lua, items, protocol)?,
        Reply::Map(pairs) if resp3 => {
            let map = lua.create_table()?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, protocol)?, to_lua(lua, value, protocol)?)?;
            }
            named(lua, "map", Value::Table(map))?
        }
        Reply::Map(pairs) => sequence(lua, pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(), protocol)?,
        Reply::Double(n) if resp3 => named(lua, "double", Value::Number(n))?,
        Reply::Double(n) => string(format_double(n).as_bytes())?,
        Reply::Bool(value) if resp3 => Value::Boolean(value),
        Reply::Bool(value) => Value::Integer(i64::from(value)),
        Reply::Verbatim(text) | Reply::BigNumber(text) => string(&text)?,
        Reply::Silent => Value::Nil,
    })
}

fn named(lua: &Lua, field: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(field, value)?;
    Ok(Value::Table(table))
}

fn sequence(lua: &Lua, items: Vec<Reply>, protocol: Protocol) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (index, item) in items.into_iter().enumerate() {
        table.raw_set(index + 1, to_lua(lua, item, protocol)?)?;
    }
    Ok(Value::Table(table))
}

/// What a script returned, as a reply. `protocol` is what the script chose with `redis.setresp`.
pub fn to_reply(value: Value, protocol: Protocol) -> Reply {
    from_value(value, protocol, 0)
}

fn from_value(value: Value, protocol: Protocol, depth: usize) -> Reply {
    if depth > MAX_DEPTH {
        return Reply::Error(b"ERR reached lua stack limit".as_slice().into());
    }
    match value {
        Value::String(text) => Reply::bulk(text.as_bytes()),
        Value::Integer(n) => Reply::Int(n),
        Value::Number(n) => Reply::Int(truncate(n)),
        Value::Boolean(value) if protocol == Protocol::Resp3 => Reply::Bool(value),
        Value::Boolean(true) => Reply::Int(1),
        Value::Table(table) => from_table(&table, protocol, depth).unwrap_or(Reply::Nil),
        _ => Reply::Nil,
    }
}

/// Converts like a C cast on 64-bit machines: a number that does not fit becomes the lowest integer.
fn truncate(n: f64) -> i64 {
    if n.abs() < 2f64.powi(63) { n as i64 } else { i64::MIN }
}

fn from_table(table: &Table, protocol: Protocol, depth: usize) -> mlua::Result<Reply> {
    if let Value::String(text) = table.raw_get("err")? {
        return Ok(Reply::Error(text.as_bytes().to_vec().into()));
    }
    if let Value::String(text) = table.raw_get("ok")? {
        return Ok(Reply::Status(text.as_bytes().to_vec().into()));
    }
    match table.raw_get("double")? {
        Value::Number(n) => return Ok(Reply::Double(n)),
        Value::Integer(n) => return Ok(Reply::Double(n as f64)),
        _ => {}
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let pairs = map.pairs::<Value, Value>().map(|pair| {
            let (key, value) = pair?;
            Ok((from_value(key, protocol, depth + 1), from_value(value, protocol, depth + 1)))
        });
        return Ok(Reply::Map(pairs.collect::<mlua::Result<_>>()?));
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let members = set.pairs::<Value, Value>().map(|pair| Ok(from_value(pair?.0, protocol, depth + 1)));
        return Ok(Reply::Set(members.collect::<mlua::Result<_>>()?));
    }
    if let Value::String(number) = table.raw_get("big_number")? {
        return Ok(Reply::BigNumber(Bytes::copy_from_slice(&number.as_bytes())));
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let Value::String(text) = verbatim.raw_get("string")?
    {
        return Ok(Reply::Verbatim(Bytes::copy_from_slice(&text.as_bytes())));
    }
    let mut items = Vec::new();
    loop {
        match table.raw_get(items.len() + 1)? {
            Value::Nil => return Ok(Reply::Array(items)),
            value => items.push(from_value(value, protocol, depth + 1)),
        }
    }
}

/// The text of `redis.error_reply`: a leading dash is removed, and `ERR` is added to a single word.
pub fn error_text(given: &[u8]) -> Vec<u8> {
    let bare = given.strip_prefix(b"-").unwrap_or(given);
    if bare.contains(&b' ') { bare.to_vec() } else { [b"ERR ".as_slice(), bare].concat() }
}
