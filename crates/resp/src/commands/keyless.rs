//! Small commands that need no key: time, sizes, flush, publish.

use bytes::Bytes;

use crate::{
    call::{Call, is},
    failure::{Answer, SYNTAX, wrong_arity},
    keyspace::DATABASES,
    reply::Reply,
};

pub fn ping(_call: &mut Call, args: &[Bytes]) -> Answer {
    match args {
        [_] => Ok(Reply::Status(b"PONG".as_slice().into())),
        [_, text] => Ok(Reply::Bulk(text.clone())),
        _ => Err(wrong_arity("ping")),
    }
}

pub fn echo(_call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::Bulk(args[1].clone()))
}

pub fn time(_call: &mut Call, _args: &[Bytes]) -> Answer {
    let now = runtime::clock::now().as_micros();
    Ok(Reply::Array(vec![Reply::bulk((now / 1_000_000).to_string()), Reply::bulk((now % 1_000_000).to_string())]))
}

pub fn dbsize(call: &mut Call, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.space.len(call.db)))
}

pub fn flushdb(call: &mut Call, args: &[Bytes]) -> Answer {
    check_flush(args)?;
    call.space.flush(call.db);
    Ok(Reply::OK)
}

pub fn flushall(call: &mut Call, args: &[Bytes]) -> Answer {
    check_flush(args)?;
    (0..DATABASES).for_each(|db| call.space.flush(db));
    Ok(Reply::OK)
}

fn check_flush(args: &[Bytes]) -> Result<(), crate::failure::Failure> {
    match &args[1..] {
        [] => Ok(()),
        [how] if is(how, "sync") || is(how, "async") => Ok(()),
        _ => Err(SYNTAX),
    }
}

pub fn publish(call: &mut Call, args: &[Bytes]) -> Answer {
    Ok(Reply::count(call.pubsub.publish(&args[1], &args[2])))
}

/// There are no replicas to wait for.
pub fn wait(_call: &mut Call, _args: &[Bytes]) -> Answer {
    Ok(Reply::Int(0))
}
