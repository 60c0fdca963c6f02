//! The `bit` library that Redis gives to scripts: operations on 32 bits, results signed.

use mlua::{Lua, MultiValue, Table, Value};

use super::host::raise_at_caller;

/// The functions of the library, which the prelude makes available to scripts.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let bit = lua.create_table()?;
    bit.set("tobit", fold(lua, |only, _| only)?)?;
    bit.set("bnot", fold(lua, |only, _| !only)?)?;
    bit.set("band", fold(lua, |left, right| left & right)?)?;
    bit.set("bor", fold(lua, |left, right| left | right)?)?;
    bit.set("bxor", fold(lua, |left, right| left ^ right)?)?;
    bit.set("lshift", shift(lua, |bits, by| bits << by)?)?;
    bit.set("rshift", shift(lua, |bits, by| bits >> by)?)?;
    bit.set("arshift", shift(lua, |bits, by| (bits.cast_signed() >> by).cast_unsigned())?)?;
    bit.set("rol", shift(lua, u32::rotate_left)?)?;
    bit.set("ror", shift(lua, u32::rotate_right)?)?;
    bit.set("bswap", shift(lua, |bits, _| bits.swap_bytes())?)?;
    bit.set("tohex", lua.create_function(to_hex)?)?;
    Ok(bit)
}

/// Folds `step` over all arguments; a single argument is passed as both operands.
fn fold(lua: &Lua, step: fn(u32, u32) -> u32) -> mlua::Result<mlua::Function> {
    lua.create_function(move |lua, args: MultiValue| {
        let numbers = args.into_iter().map(|arg| bits(lua, Some(arg))).collect::<mlua::Result<Vec<_>>>()?;
        let (first, rest) = numbers.split_first().ok_or_else(|| no_number(lua))?;
        let single = rest.is_empty();
        let result = if single { step(*first, *first) } else { rest.iter().fold(*first, |l, r| step(l, *r)) };
        Ok(result.cast_signed())
    })
}

fn shift(lua: &Lua, step: fn(u32, u32) -> u32) -> mlua::Result<mlua::Function> {
    lua.create_function(move |lua, mut args: MultiValue| {
        let number = bits(lua, args.pop_front())?;
        let by = args.pop_front().map(|by| bits(lua, Some(by))).transpose()?.unwrap_or(0) & 31;
        Ok(step(number, by).cast_signed())
    })
}

/// A negative width means upper case.
fn to_hex(lua: &Lua, mut args: MultiValue) -> mlua::Result<String> {
    let number = bits(lua, args.pop_front())?;
    let width = args.pop_front().map(|width| bits(lua, Some(width))).transpose()?.map_or(8, u32::cast_signed);
    let digits = (width.unsigned_abs().min(8)) as usize;
    let hex = format!("{number:08x}");
    let hex = &hex[8 - digits..];
    Ok(if width < 0 { hex.to_uppercase() } else { hex.to_owned() })
}

/// The low 32 bits of a number, rounded to the nearest integer.
fn bits(lua: &Lua, arg: Option<Value>) -> mlua::Result<u32> {
    let number = match arg {
        Some(arg) => lua.coerce_number(arg)?,
        None => None,
    };
    let number = number.ok_or_else(|| no_number(lua))?;
    let wrapped = number.round_ties_even().rem_euclid(2f64.powi(32));
    Ok(if wrapped.is_finite() { wrapped as u32 } else { 0 })
}

fn no_number(lua: &Lua) -> mlua::Error {
    raise_at_caller(lua, "bad argument #1 (number expected)")
}
