//! Strings as bit arrays: `SETBIT`, `GETBIT`, `BITCOUNT`.

use bytes::Bytes;

use crate::{
    call::{Call, int, is, span},
    failure::{Answer, Failure, SYNTAX, text},
    protocol::MAX_BULK,
    reply::Reply,
};

/// The byte and the bit in it, the highest bit first.
fn place(argument: &Bytes) -> Result<(usize, u8), Failure> {
    let offset = int(argument).ok().and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.filter(|offset| offset / 8 < MAX_BULK);
    let offset = offset.ok_or(text("ERR bit offset is not an integer or out of range"))?;
    Ok((offset / 8, 1 << (7 - offset % 8)))
}

pub fn setbit(call: &mut Call, args: &[Bytes]) -> Answer {
    let (byte, mask) = place(&args[2])?;
    let is_set = match int(&args[3]) {
        Ok(0) => false,
        Ok(1) => true,
        Ok(_) | Err(_) => return Err(text("ERR bit is not an integer or out of range")),
    };
    let value = call.get_or_create::<Bytes>(&args[1])?;
    let mut bytes = value.to_vec();
    bytes.resize(bytes.len().max(byte + 1), 0);
    let before = bytes[byte] & mask != 0;
    if is_set {
        bytes[byte] |= mask;
    } else {
        bytes[byte] &= !mask;
    }
    *value = Bytes::from(bytes);
    call.changed(&args[1]);
    Ok(Reply::Int(i64::from(before)))
}

pub fn getbit(call: &mut Call, args: &[Bytes]) -> Answer {
    let (byte, mask) = place(&args[2])?;
    let value = call.get::<Bytes>(&args[1])?;
    let is_set = value.and_then(|value| value.get(byte)).is_some_and(|byte| byte & mask != 0);
    Ok(Reply::Int(i64::from(is_set)))
}

pub fn bitcount(call: &mut Call, args: &[Bytes]) -> Answer {
    let Some(value) = call.get::<Bytes>(&args[1])?.cloned() else { return Ok(Reply::Int(0)) };
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum::<i64>();
    let (start, end, unit) = match &args[2..] {
        [] => return Ok(Reply::Int(ones(&value))),
        [start, end] => (int(start)?, int(end)?, None),
        [start, end, unit] => (int(start)?, int(end)?, Some(unit)),
        _ => return Err(SYNTAX),
    };
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Int(0));
    }
    let in_bits = match unit {
        None => false,
        Some(unit) if is(unit, "byte") => false,
        Some(unit) if is(unit, "bit") => true,
        Some(_) => return Err(SYNTAX),
    };
    let length = if in_bits { value.len() * 8 } else { value.len() };
    // As in `GETRANGE`, an end before the first one means the first one.
    let last = i64::try_from(length).unwrap_or(i64::MAX);
    let end = if end < 0 { end.saturating_add(last).max(0) } else { end };
    let Some((from, to)) = span(start, end, length) else { return Ok(Reply::Int(0)) };
    if !in_bits {
        return Ok(Reply::Int(ones(&value[from..=to])));
    }
    let is_one = |bit: &usize| value[bit / 8] & (1 << (7 - bit % 8)) != 0;
    Ok(Reply::count((from..=to).filter(is_one).count()))
}
