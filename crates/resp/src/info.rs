//! Information about the server: `INFO`, `CONFIG`, `COMMAND`.

use std::{fmt::Write, rc::Rc};

use bytes::Bytes;

use super::{
    call::{is, lossy},
    client::Client,
    command::{self, COMMANDS, Command},
    commands::keys::unknown_subcommand,
    engine::Engine,
    failure::{Answer, SYNTAX, message, wrong_arity},
    glob,
    keyspace::DATABASES,
    keyspace::unix_millis,
    reply::Reply,
};

/// The version of Redis whose behaviour this server follows.
pub const VERSION: &str = "7.0.15";

type Section = (&'static str, fn(&Engine, &mut String));

const SECTIONS: [Section; 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

pub fn info(engine: &Engine, _client: &Rc<Client>, args: &[Bytes]) -> Answer {
    let everything = ["default", "all", "everything"];
    let wanted = |name: &str| {
        args.len() == 1 || args[1..].iter().any(|arg| is(arg, name) || everything.iter().any(|all| is(arg, all)))
    };
    let mut out = String::new();
    for (name, write) in SECTIONS.iter().filter(|(name, _)| wanted(name)) {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        line(&mut out, format_args!("# {name}"));
        write(engine, &mut out);
    }
    Ok(Reply::Verbatim(Bytes::from(out)))
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    write!(out, "{text}\r\n").expect("writing to a string does not fail");
}

fn server(engine: &Engine, out: &mut String) {
    let uptime = engine.started.elapsed().as_secs();
    line(out, format_args!("redis_version:{VERSION}"));
    line(out, format_args!("redis_mode:standalone"));
    line(out, format_args!("taskgate_dev:1"));
    line(out, format_args!("os:{}", std::env::consts::OS));
    line(out, format_args!("arch_bits:{}", usize::BITS));
    line(out, format_args!("process_id:{}", std::process::id()));
    line(out, format_args!("tcp_port:{}", engine.port));
    line(out, format_args!("uptime_in_seconds:{uptime}"));
    line(out, format_args!("uptime_in_days:{}", uptime / 86_400));
}

fn clients(engine: &Engine, out: &mut String) {
    line(out, format_args!("connected_clients:{}", engine.clients.borrow().len()));
    line(out, format_args!("blocked_clients:{}", engine.waiting.borrow().len()));
}

/// Reports payload bytes only: other roles share the process's memory.
fn memory(engine: &Engine, out: &mut String) {
    let used = engine.state.borrow().space.memory();
    line(out, format_args!("used_memory:{used}"));
    line(out, format_args!("used_memory_human:{:.2}M", used as f64 / 1_048_576.0));
    line(out, format_args!("used_memory_lua:{}", engine.scripts.memory()));
    line(out, format_args!("number_of_cached_scripts:{}", engine.scripts.cached()));
    line(out, format_args!("maxmemory:0"));
    line(out, format_args!("maxmemory_policy:noeviction"));
}

fn persistence(_engine: &Engine, out: &mut String) {
    line(out, format_args!("loading:0"));
    line(out, format_args!("rdb_changes_since_last_save:0"));
    line(out, format_args!("aof_enabled:0"));
}

fn stats(engine: &Engine, out: &mut String) {
    line(out, format_args!("total_connections_received:{}", engine.connections_received.get()));
    line(out, format_args!("total_commands_processed:{}", engine.commands_processed.get()));
    line(out, format_args!("expired_keys:{}", engine.state.borrow().space.expired_keys));
    line(out, format_args!("evicted_keys:0"));
}

fn replication(_engine: &Engine, out: &mut String) {
    line(out, format_args!("role:master"));
    line(out, format_args!("connected_slaves:0"));
    line(out, format_args!("master_repl_offset:0"));
}

fn cluster(_engine: &Engine, out: &mut String) {
    line(out, format_args!("cluster_enabled:0"));
}

fn keyspace(engine: &Engine, out: &mut String) {
    let space = &engine.state.borrow().space;
    for db in (0..DATABASES).filter(|db| space.len(*db) > 0) {
        line(out, format_args!("db{db}:keys={},expires={},avg_ttl=0", space.len(db), space.with_expiry(db)));
    }
}

/// Settings that clients ask for, with their values here.
const SETTINGS: [(&str, &str); 14] = [
    ("appendonly", "no"),
    ("bind", "127.0.0.1"),
    ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
    ("databases", "16"),
    ("lua-time-limit", "5000"),
    ("maxclients", "10000"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("proto-max-bulk-len", "536870912"),
    ("save", ""),
    ("slave-read-only", "yes"),
    ("timeout", "0"),
    ("requirepass", ""),
];

pub fn config(engine: &Engine, _client: &Rc<Client>, args: &[Bytes]) -> Answer {
    match (&args[1], &args[2..]) {
        (sub, []) if is(sub, "get") => Err(wrong_arity("config|get")),
        (sub, patterns) if is(sub, "get") => {
            let asked = |name: &str| {
                patterns.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let changed = engine.settings.borrow();
            let now = |name: &str, value: &str| changed.get(name).map_or_else(|| value.to_owned(), Clone::clone);
            let found = SETTINGS.iter().filter(|(name, _)| asked(name));
            let pair = |(name, value): &(&str, &str)| (Reply::bulk(name), Reply::Bulk(Bytes::from(now(name, value))));
            Ok(Reply::Map(found.map(pair).collect()))
        }
        (sub, []) if is(sub, "resetstat") => Ok(Reply::OK),
        (sub, pairs @ [_, _, ..]) if is(sub, "set") => set(engine, pairs),
        (sub, _) if is(sub, "set") => Err(wrong_arity("config|set")),
        (sub, _) => Err(unknown_subcommand("CONFIG", sub)),
    }
}

/// Settings that cannot be changed while Redis runs.
const FIXED: [&str; 2] = ["databases", "notify-keyspace-events"];

/// Accepts all pairs or none. Settings only show up in `CONFIG GET`; a setting that would need an effect is refused.
fn set(engine: &Engine, pairs: &[Bytes]) -> Answer {
    let (pairs, []) = pairs.as_chunks::<2>() else { return Err(SYNTAX) };
    let mut taken = Vec::new();
    for [name, value] in pairs {
        let found = SETTINGS.iter().find(|(known, _)| is(name, known));
        let (name, _) = found.ok_or_else(|| {
            message(format!("ERR Unknown option or number of arguments for CONFIG SET - '{}'", lossy(name)))
        })?;
        let refused =
            |why: &str| message(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"));
        if FIXED.contains(name) && !value.is_empty() {
            return Err(refused("can't set immutable config"));
        }
        let value = if ["maxmemory", "proto-max-bulk-len"].contains(name) {
            bytes_of(value).ok_or_else(|| refused("argument must be a memory value"))?
        } else {
            lossy(value).to_string()
        };
        taken.push((*name, value));
    }
    engine.settings.borrow_mut().extend(taken);
    Ok(Reply::OK)
}

/// Parses a memory size such as `100mb` into bytes.
fn bytes_of(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.to_ascii_lowercase();
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).map(|bytes| bytes.to_string())
}

pub fn command(_engine: &Engine, _client: &Rc<Client>, args: &[Bytes]) -> Answer {
    match &args[1..] {
        [] => Ok(Reply::Array(COMMANDS.iter().map(describe).collect())),
        [sub] if is(sub, "count") => Ok(Reply::count(COMMANDS.len())),
        [sub, ..] if is(sub, "count") => Err(wrong_arity("command|count")),
        [sub] if is(sub, "list") => Ok(Reply::Array(COMMANDS.iter().map(|c| Reply::bulk(c.name)).collect())),
        [sub, names @ ..] if is(sub, "info") => {
            let known = |name: &Bytes| command::find(name).map_or(Reply::NilArray, describe);
            Ok(Reply::Array(names.iter().map(known).collect()))
        }
        [sub, ..] if is(sub, "docs") => Ok(Reply::Map(vec![])),
        [sub, ..] => Err(unknown_subcommand("COMMAND", sub)),
    }
}

fn describe(command: &Command) -> Reply {
    let (first, last, step) = command.keys;
    let mut flags = vec![if command.is(command::WRITE) { "write" } else { "readonly" }];
    if command.is(command::NOT_SCRIPTED) {
        flags.push("noscript");
    }
    let flags = flags.into_iter().map(|flag| Reply::Status(flag.as_bytes().into())).collect();
    Reply::Array(vec![
        Reply::bulk(command.name),
        Reply::Int(command.arity.into()),
        Reply::Set(flags),
        Reply::Int(first.into()),
        Reply::Int(last.into()),
        Reply::Int(step.into()),
        Reply::Set(vec![]),
        Reply::Array(vec![]),
        Reply::Array(vec![]),
        Reply::Array(vec![]),
    ])
}

/// Nothing is ever saved, so this returns the time of the start, like a freshly started Redis.
pub fn lastsave(engine: &Engine, _client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    let age = i64::try_from(engine.started.elapsed().as_secs()).unwrap_or(0);
    Ok(Reply::Int(unix_millis() / 1000 - age))
}
