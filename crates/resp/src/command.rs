//! The table of commands: name, arity, flags, handler.

use std::{collections::HashMap, rc::Rc, sync::LazyLock};

use bytes::Bytes;

use super::{
    blocking::{self, Wait},
    call::Call,
    client::Client,
    commands::{bits, hashes, keyless, keys, lists, scan, sets, strings, zranges, zsets},
    engine::Engine,
    failure::{Answer, Failure},
    info, pubsub, script, session, transaction,
};

/// How a command runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// Works on the data only; allowed everywhere.
    Data(fn(&mut Call, &[Bytes]) -> Answer),
    /// May block its client.
    Wait(fn(&mut Call, &[Bytes]) -> Result<Wait, Failure>),
    /// Works on the client or the server; not allowed in scripts.
    Session(fn(&Engine, &Rc<Client>, &[Bytes]) -> Answer),
}

pub const WRITE: u8 = 1;
/// Runs immediately inside `MULTI` instead of being queued.
pub const NOT_QUEUED: u8 = 2;
/// Allowed to a RESP2 client that has subscriptions.
pub const WHILE_SUBSCRIBED: u8 = 4;
/// A data command that scripts may not call.
pub const NOT_SCRIPTED: u8 = 8;

pub struct Command {
    pub name: &'static str,
    /// Number of arguments including the name; negative: the minimum.
    pub arity: i32,
    pub flags: u8,
    /// First key, last key (negative: from the end), step; zeros if the command has no keys.
    pub keys: (i32, i32, i32),
    pub run: Run,
}

impl Command {
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn accepts(&self, arguments: usize) -> bool {
        let wanted = usize::try_from(self.arity.unsigned_abs()).unwrap_or(usize::MAX);
        if self.arity < 0 { arguments >= wanted } else { arguments == wanted }
    }
}

const NONE: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);
const ALL_BUT_LAST: (i32, i32, i32) = (1, -2, 1);

const fn read(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    run: fn(&mut Call, &[Bytes]) -> Answer,
) -> Command {
    Command { name, arity, flags: 0, keys, run: Run::Data(run) }
}

const fn write(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    run: fn(&mut Call, &[Bytes]) -> Answer,
) -> Command {
    Command { name, arity, flags: WRITE, keys, run: Run::Data(run) }
}

const fn wait(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    run: fn(&mut Call, &[Bytes]) -> Result<Wait, Failure>,
) -> Command {
    Command { name, arity, flags: WRITE | NOT_SCRIPTED, keys, run: Run::Wait(run) }
}

const fn session(
    name: &'static str,
    arity: i32,
    flags: u8,
    run: fn(&Engine, &Rc<Client>, &[Bytes]) -> Answer,
) -> Command {
    Command { name, arity, flags: flags | NOT_SCRIPTED, keys: NONE, run: Run::Session(run) }
}

#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    // strings
    read("get", 2, ONE, strings::get), write("set", -3, ONE, strings::set), write("setex", 4, ONE, strings::setex),
    write("psetex", 4, ONE, strings::psetex), write("setnx", 3, ONE, strings::setnx),
    write("getset", 3, ONE, strings::getset), write("getdel", 2, ONE, strings::getdel),
    write("getex", -2, ONE, strings::getex), read("mget", -2, ALL, strings::mget),
    write("mset", -3, (1, -1, 2), strings::mset), write("msetnx", -3, (1, -1, 2), strings::msetnx),
    write("append", 3, ONE, strings::append), read("strlen", 2, ONE, strings::strlen),
    read("getrange", 4, ONE, strings::getrange), write("setrange", 4, ONE, strings::setrange),
    write("incr", 2, ONE, strings::incr), write("decr", 2, ONE, strings::decr),
    write("incrby", 3, ONE, strings::incrby), write("decrby", 3, ONE, strings::decrby),
    write("incrbyfloat", 3, ONE, strings::incrbyfloat), write("setbit", 4, ONE, bits::setbit),
    read("getbit", 3, ONE, bits::getbit), read("bitcount", -2, ONE, bits::bitcount),
    // keys
    write("del", -2, ALL, keys::del), write("unlink", -2, ALL, keys::del), read("exists", -2, ALL, keys::exists),
    read("touch", -2, ALL, keys::exists), read("type", 2, ONE, strings::type_of),
    write("expire", -3, ONE, keys::expire), write("pexpire", -3, ONE, keys::pexpire),
    write("expireat", -3, ONE, keys::expireat), write("pexpireat", -3, ONE, keys::pexpireat),
    read("ttl", 2, ONE, keys::ttl), read("pttl", 2, ONE, keys::pttl),
    read("expiretime", 2, ONE, keys::expiretime), read("pexpiretime", 2, ONE, keys::pexpiretime),
    write("persist", 2, ONE, keys::persist), read("keys", 2, NONE, keys::keys),
    read("randomkey", 1, NONE, keys::randomkey), write("rename", 3, TWO, keys::rename),
    write("renamenx", 3, TWO, keys::renamenx), write("copy", -3, TWO, keys::copy),
    read("object", -2, (2, 2, 1), keys::object), read("memory", -2, NONE, keys::memory),
    read("scan", -2, NONE, scan::scan),
    // lists
    write("lpush", -3, ONE, lists::lpush), write("rpush", -3, ONE, lists::rpush),
    write("lpushx", -3, ONE, lists::lpushx), write("rpushx", -3, ONE, lists::rpushx),
    write("lpop", -2, ONE, lists::lpop), write("rpop", -2, ONE, lists::rpop), read("llen", 2, ONE, lists::llen),
    read("lrange", 4, ONE, lists::lrange), write("lrem", 4, ONE, lists::lrem), read("lindex", 3, ONE, lists::lindex),
    write("lset", 4, ONE, lists::lset), write("ltrim", 4, ONE, lists::ltrim),
    write("linsert", 5, ONE, lists::linsert), read("lpos", -3, ONE, lists::lpos),
    write("lmove", 5, TWO, lists::lmove), write("rpoplpush", 3, TWO, lists::rpoplpush),
    write("lmpop", -4, NONE, lists::lmpop),
    wait("blpop", -3, ALL_BUT_LAST, blocking::blpop), wait("brpop", -3, ALL_BUT_LAST, blocking::brpop),
    wait("blmove", 6, TWO, blocking::blmove), wait("brpoplpush", 4, TWO, blocking::brpoplpush),
    wait("blmpop", -5, NONE, blocking::blmpop),
    // hashes
    write("hset", -4, ONE, hashes::hset), write("hmset", -4, ONE, hashes::hmset),
    write("hsetnx", 4, ONE, hashes::hsetnx), read("hget", 3, ONE, hashes::hget), read("hmget", -3, ONE, hashes::hmget),
    read("hgetall", 2, ONE, hashes::hgetall), read("hkeys", 2, ONE, hashes::hkeys),
    read("hvals", 2, ONE, hashes::hvals), write("hdel", -3, ONE, hashes::hdel), read("hlen", 2, ONE, hashes::hlen),
    read("hstrlen", 3, ONE, hashes::hstrlen), read("hexists", 3, ONE, hashes::hexists),
    write("hincrby", 4, ONE, hashes::hincrby), write("hincrbyfloat", 4, ONE, hashes::hincrbyfloat),
    read("hrandfield", -2, ONE, hashes::hrandfield), read("hscan", -3, ONE, scan::hscan),
    // sets
    write("sadd", -3, ONE, sets::sadd), write("srem", -3, ONE, sets::srem), read("smembers", 2, ONE, sets::smembers),
    read("sismember", 3, ONE, sets::sismember), read("smismember", -3, ONE, sets::smismember),
    read("scard", 2, ONE, sets::scard), write("smove", 4, TWO, sets::smove), write("spop", -2, ONE, sets::spop),
    read("srandmember", -2, ONE, sets::srandmember), read("sunion", -2, ALL, sets::sunion),
    read("sinter", -2, ALL, sets::sinter), read("sdiff", -2, ALL, sets::sdiff),
    write("sunionstore", -3, ALL, sets::sunionstore), write("sinterstore", -3, ALL, sets::sinterstore),
    write("sdiffstore", -3, ALL, sets::sdiffstore), read("sscan", -3, ONE, scan::sscan),
    // sorted sets
    write("zadd", -4, ONE, zsets::zadd), write("zincrby", 4, ONE, zsets::zincrby), write("zrem", -3, ONE, zsets::zrem),
    read("zscore", 3, ONE, zsets::zscore), read("zmscore", -3, ONE, zsets::zmscore),
    read("zcard", 2, ONE, zsets::zcard), read("zrank", 3, ONE, zsets::zrank),
    read("zrevrank", 3, ONE, zsets::zrevrank), write("zpopmin", -2, ONE, zsets::zpopmin),
    write("zpopmax", -2, ONE, zsets::zpopmax), read("zrange", -4, ONE, zranges::zrange),
    read("zrevrange", -4, ONE, zranges::zrevrange), read("zrangebyscore", -4, ONE, zranges::zrangebyscore),
    read("zrevrangebyscore", -4, ONE, zranges::zrevrangebyscore), read("zrangebylex", -4, ONE, zranges::zrangebylex),
    read("zrevrangebylex", -4, ONE, zranges::zrevrangebylex), read("zcount", 4, ONE, zranges::zcount),
    read("zlexcount", 4, ONE, zranges::zlexcount), write("zremrangebyrank", 4, ONE, zranges::zremrangebyrank),
    write("zremrangebyscore", 4, ONE, zranges::zremrangebyscore),
    write("zremrangebylex", 4, ONE, zranges::zremrangebylex), read("zscan", -3, ONE, scan::zscan),
    wait("bzpopmin", -3, ALL_BUT_LAST, blocking::bzpopmin), wait("bzpopmax", -3, ALL_BUT_LAST, blocking::bzpopmax),
    // the rest of the data
    read("echo", 2, NONE, keyless::echo), read("time", 1, NONE, keyless::time), read("dbsize", 1, NONE, keyless::dbsize),
    write("flushdb", -1, NONE, keyless::flushdb), write("flushall", -1, NONE, keyless::flushall),
    write("publish", 3, NONE, keyless::publish), read("pubsub", -2, NONE, pubsub::pubsub),
    read("wait", 3, NONE, keyless::wait),
    // clients and server
    Command { name: "ping", arity: -1, flags: WHILE_SUBSCRIBED, keys: NONE, run: Run::Data(keyless::ping) },
    session("subscribe", -2, WHILE_SUBSCRIBED, pubsub::subscribe),
    session("psubscribe", -2, WHILE_SUBSCRIBED, pubsub::psubscribe),
    session("unsubscribe", -1, WHILE_SUBSCRIBED, pubsub::unsubscribe),
    session("punsubscribe", -1, WHILE_SUBSCRIBED, pubsub::punsubscribe),
    session("quit", -1, WHILE_SUBSCRIBED | NOT_QUEUED, session::quit),
    session("reset", 1, WHILE_SUBSCRIBED | NOT_QUEUED, session::reset),
    session("multi", 1, NOT_QUEUED, transaction::multi), session("exec", 1, NOT_QUEUED, transaction::exec),
    session("discard", 1, NOT_QUEUED, transaction::discard), session("watch", -2, NOT_QUEUED, transaction::watch),
    session("unwatch", 1, 0, transaction::unwatch), session("select", 2, 0, session::select),
    session("auth", -2, 0, session::auth), session("hello", -1, 0, session::hello),
    session("client", -2, 0, session::client), session("eval", -3, 0, script::eval),
    session("evalsha", -3, 0, script::evalsha), session("eval_ro", -3, 0, script::eval_ro),
    session("evalsha_ro", -3, 0, script::evalsha_ro), session("script", -2, 0, script::script),
    session("info", -1, 0, info::info), session("config", -2, 0, info::config),
    session("command", -1, 0, info::command), session("lastsave", 1, 0, info::lastsave),
];

static INDEX: LazyLock<HashMap<&'static [u8], &'static Command>> =
    LazyLock::new(|| COMMANDS.iter().map(|command| (command.name.as_bytes(), command)).collect());

/// By name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    /// The longest name in the table is shorter.
    const LONGEST: usize = 24;
    let mut lower = [0; LONGEST];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    INDEX.get(&*lower).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        assert_eq!(INDEX.len(), COMMANDS.len());
        for command in COMMANDS {
            assert!(find(command.name.to_uppercase().as_bytes()).is_some(), "{}", command.name);
        }
        assert!(find(&[b'a'; 100]).is_none());
        assert!(find(b"").is_none());
    }
}
