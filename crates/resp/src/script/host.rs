//! The functions that scripts get from the server.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Error, Function, Lua, MultiValue, Table, Value};

use super::{Shared, bit, convert, json};
use crate::{
    command::{self, Command},
    failure::{Failure, text},
    info::VERSION,
    reply::{Protocol, Reply},
    session,
};

/// An error that is passed through Lua: a reply such as `ERR …`, or a message that still needs the prefix `ERR`.
#[derive(Debug, thiserror::Error)]
#[error("{}", String::from_utf8_lossy(.0))]
pub struct Raised(pub Vec<u8>);

fn raise(failure: &Failure) -> Error {
    Error::external(Raised(failure.0.to_vec()))
}

/// An error that starts with the caller's line, as Lua's own functions raise it.
pub fn raise_at_caller(lua: &Lua, problem: &str) -> Error {
    let place = lua.inspect_stack(1, |debug| {
        let line = debug.current_line().unwrap_or(0);
        debug.source().short_src.map(|source| format!("{source}:{line}: "))
    });
    Error::external(Raised(format!("ERR {}{problem}", place.flatten().unwrap_or_default()).into_bytes()))
}

/// The table `host` of the prelude.
pub fn functions(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    let with = |work: fn(&Shared, &Lua, MultiValue) -> mlua::Result<Value>| -> mlua::Result<Function> {
        let shared = Rc::clone(shared);
        lua.create_function(move |lua, args| work(&shared, lua, args))
    };
    host.set("call", with(call)?)?;
    host.set("pcall", with(protected_call)?)?;
    host.set("setresp", with(set_protocol)?)?;
    host.set("out_of_time", with(|shared, _, _| Ok(Value::Boolean(shared.out_of_time.get())))?)?;
    host.set("describe_error", with(describe_error)?)?;
    host.set("plain_error", with(|_, lua, mut args| plain_error(lua, args.pop_front().unwrap_or(Value::Nil)))?)?;
    host.set("kilobytes", with(|_, lua, _| Ok(Value::Number(lua.used_memory() as f64 / 1024.0)))?)?;
    host.set("sha1hex", with(|_, lua, args| sha1hex(lua, &args))?)?;
    host.set("log", with(|_, _, args| log(&args))?)?;
    host.set("error_reply", with(|_, lua, args| single_field(lua, "err", &args))?)?;
    host.set("status_reply", with(|_, lua, args| single_field(lua, "ok", &args))?)?;
    host.set("json_encode", with(|_, lua, args| json::encode(lua, args))?)?;
    host.set("json_decode", with(|_, lua, args| json::decode(lua, args))?)?;
    host.set("bit", bit::library(lua)?)?;
    host.set("null", Value::NULL)?;
    host.set("version", VERSION)?;
    host.set("version_number", 0x0007_000f)?;
    Ok(host)
}

fn call(shared: &Shared, lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    match perform(shared, args) {
        Reply::Error(text) => Err(Error::external(Raised(text.into_owned()))),
        reply => convert::to_lua(lua, reply, protocol(shared)),
    }
}

fn protected_call(shared: &Shared, lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    let reply = perform(shared, args);
    convert::to_lua(lua, reply, protocol(shared))
}

fn protocol(shared: &Shared) -> Protocol {
    shared.running.get().map(|running| running.protocol).unwrap_or_default()
}

fn perform(shared: &Shared, args: MultiValue) -> Reply {
    arguments(args).and_then(|args| execute(shared, &args)).unwrap_or_else(Reply::from)
}

fn arguments(args: MultiValue) -> Result<Vec<Bytes>, Failure> {
    if args.is_empty() {
        return Err(text("ERR Please specify at least one argument for this redis lib call"));
    }
    args.into_iter()
        .map(|arg| convert::to_argument(&arg))
        .collect::<Option<_>>()
        .ok_or(text("ERR Lua redis lib command arguments must be strings or integers"))
}

fn execute(shared: &Shared, args: &[Bytes]) -> Result<Reply, Failure> {
    let (Some(engine), Some(mut running)) = (shared.engine.upgrade(), shared.running.get()) else {
        return Err(text("ERR redis.call can only be called inside a script invocation"));
    };
    let command = command::find(&args[0]).ok_or(text("ERR Unknown Redis command called from script"))?;
    check(command, args, running.read_only)?;
    if command.name == "select" {
        running.db = session::database(&args[1])?;
        shared.running.set(Some(running));
        return Ok(Reply::OK);
    }
    Ok(engine.run_scripted(command, args, running.db, running.protocol))
}

fn check(command: &Command, args: &[Bytes], read_only: bool) -> Result<(), Failure> {
    if !command.accepts(args.len()) {
        return Err(text("ERR Wrong number of args calling Redis command from script"));
    }
    if command.is(command::NOT_SCRIPTED) && command.name != "select" {
        return Err(text("ERR This Redis command is not allowed from script"));
    }
    if read_only && command.is(command::WRITE) {
        return Err(text("ERR Write commands are not allowed from read-only scripts."));
    }
    Ok(())
}

fn set_protocol(shared: &Shared, _lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(raise(&text("ERR redis.setresp() requires one argument.")));
    }
    let chosen = match args.front() {
        Some(Value::Integer(2)) => Protocol::Resp2,
        Some(Value::Integer(3)) => Protocol::Resp3,
        _ => return Err(raise(&text("ERR RESP version must be 2 or 3."))),
    };
    if let Some(running) = shared.running.get() {
        shared.running.set(Some(super::Running { protocol: chosen, ..running }));
    }
    Ok(Value::Nil)
}

fn sha1hex(lua: &Lua, args: &MultiValue) -> mlua::Result<Value> {
    let [arg] = args.iter().collect::<Vec<_>>()[..] else { return Err(raise(&text("ERR wrong number of arguments"))) };
    let bytes = convert::to_argument(arg).unwrap_or_default();
    let digest = sha1_smol::Sha1::from(&bytes).digest().to_string();
    lua.create_string(digest).map(Value::String)
}

fn log(args: &MultiValue) -> mlua::Result<Value> {
    let Some((level, words)) = args.iter().collect::<Vec<_>>().split_first().map(|(l, w)| (*l, w.to_vec())) else {
        return Err(raise(&text("ERR redis.log() requires two arguments or more.")));
    };
    if words.is_empty() {
        return Err(raise(&text("ERR redis.log() requires two arguments or more.")));
    }
    let level = match level {
        Value::Integer(level) => *level,
        Value::Number(level) => *level as i64,
        _ => return Err(raise(&text("ERR First argument must be a number (log level)."))),
    };
    let words: Vec<String> = words
        .into_iter()
        .filter_map(convert::to_argument)
        .map(|word| String::from_utf8_lossy(&word).into_owned())
        .collect();
    match level {
        0 | 1 => tracing::debug!("a Lua script logged: {}", words.join(" ")),
        2 => tracing::info!("a Lua script logged: {}", words.join(" ")),
        3 => tracing::warn!("a Lua script logged: {}", words.join(" ")),
        _ => return Err(raise(&text("ERR Invalid log level."))),
    }
    Ok(Value::Nil)
}

/// `redis.error_reply` and `redis.status_reply`.
fn single_field(lua: &Lua, field: &str, args: &MultiValue) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    match args.iter().collect::<Vec<_>>()[..] {
        [Value::String(given)] if field == "err" => {
            table.raw_set("err", lua.create_string(convert::error_text(&given.as_bytes()))?)?;
        }
        [Value::String(given)] => table.raw_set(field, given.clone())?,
        _ => table.raw_set("err", "ERR wrong number or type of arguments")?,
    }
    Ok(Value::Table(table))
}

/// The value that a script's `pcall` gets: the text of the error.
fn plain_error(lua: &Lua, problem: Value) -> mlua::Result<Value> {
    match &problem {
        Value::Error(error) => lua.create_string(error_bytes(error)).map(Value::String),
        Value::Table(table) => match table.raw_get::<Value>("err")? {
            text @ Value::String(_) => Ok(text),
            _ => Ok(problem),
        },
        _ => Ok(problem),
    }
}

/// Runs where an uncaught error was raised, while the stack still shows the line.
fn describe_error(shared: &Shared, lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    let text = match args.front() {
        Some(Value::Error(error)) => error_bytes(error),
        Some(Value::Table(table)) => match table.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => b"ERR unknown error".to_vec(),
        },
        Some(Value::String(text)) => [b"ERR ".as_slice(), &text.as_bytes()].concat(),
        other => format!("ERR {}", other.map_or("nil".to_owned(), |value| value.to_string().unwrap_or_default()))
            .into_bytes(),
    };
    shared.failure.replace(Some((text, place(lua))));
    Ok(Value::Nil)
}

/// The innermost line of the script itself.
fn place(lua: &Lua) -> Option<String> {
    const DEPTH: usize = 200;
    (1..DEPTH)
        .map_while(|level| {
            lua.inspect_stack(level, |debug| {
                let source = debug.source().source.map(|source| source.into_owned());
                (source.as_deref() == Some("@user_script"))
                    .then(|| format!("@user_script:{}", debug.current_line().unwrap_or(0)))
            })
        })
        .flatten()
        .next()
}

fn error_bytes(error: &Error) -> Vec<u8> {
    match error {
        Error::CallbackError { cause, .. } => error_bytes(cause),
        Error::ExternalError(inner) => match inner.downcast_ref::<Raised>() {
            Some(Raised(text)) => text.clone(),
            None => format!("ERR {inner}").into_bytes(),
        },
        Error::MemoryError(_) => b"ERR not enough memory".to_vec(),
        other => format!("ERR {other}").into_bytes(),
    }
}
