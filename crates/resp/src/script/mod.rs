//! Lua scripts, as `EVAL` and `EVALSHA` run them.
//!
//! One Lua state serves all scripts, and a script is compiled once. The global tables are read-only, and scripts have no access to files,
//! processes or other modules (`prelude.lua`). A script that runs too long is stopped with an error, and its writes until then remain
//! (redis-server would let it go on and answer BUSY to other clients). Memory is bounded too.

mod bit;
mod convert;
mod host;
mod json;

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use indexmap::IndexMap;
use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, VmState};

use super::{
    call::{int, is, lossy},
    client::Client,
    commands::keys::unknown_subcommand,
    engine::Engine,
    failure::{Answer, Failure, message, text, wrong_arity},
    reply::{Protocol, Reply},
};

/// The same as Redis's `busy-reply-threshold`.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How often a running script's time is checked; about every tenth of a millisecond.
const INSTRUCTIONS_BETWEEN_LOOKS: u32 = 10_000;
/// Limit of the memory of all Lua values. Scripts that work on queues move messages, not large data sets.
const MEMORY_LIMIT: usize = 256 * 1024 * 1024;
/// How many compiled scripts are kept; the oldest is dropped. A client library has only a few.
const MOST_SCRIPTS: usize = 1000;

/// Lua does not run the error handler when memory is exhausted, so an error without a description means this.
const NO_MEMORY: &[u8] = b"ERR not enough memory for the script";

const NO_SCRIPT: Failure = text("NOSCRIPT No matching script. Please use EVAL.");

/// The rights and settings of the running script.
#[derive(Debug, Clone, Copy)]
struct Running {
    db: usize,
    protocol: Protocol,
    read_only: bool,
    until: Instant,
}

/// State that Lua's callbacks share with [`Scripts`].
#[derive(Default)]
struct Shared {
    engine: Weak<Engine>,
    running: Cell<Option<Running>>,
    out_of_time: Cell<bool>,
    /// The failure of the script that has just ended: its text, and its place in the script if known.
    failure: RefCell<Option<(Vec<u8>, Option<String>)>>,
}

struct Script {
    function: Function,
    read_only: bool,
}

/// All scripts of a server.
pub struct Scripts {
    shared: Rc<Shared>,
    world: RefCell<World>,
}

/// A Lua state and its compiled scripts; `SCRIPT FLUSH` replaces it as a whole.
struct World {
    lua: Lua,
    globals: Table,
    run: Function,
    scripts: IndexMap<Bytes, Rc<Script>>,
}

impl Scripts {
    pub fn new(engine: Weak<Engine>) -> Self {
        let shared = Rc::new(Shared { engine, ..Shared::default() });
        let world = World::new(&shared).expect("the prelude is part of the program and loads");
        Self { shared, world: RefCell::new(world) }
    }

    pub fn memory(&self) -> usize {
        self.world.borrow().lua.used_memory()
    }

    pub fn cached(&self) -> usize {
        self.world.borrow().scripts.len()
    }

    fn find(&self, sha: &[u8]) -> Option<Rc<Script>> {
        self.world.borrow().scripts.get(sha.to_ascii_lowercase().as_slice()).cloned()
    }

    /// Compiles a script unless it is compiled already; returns its SHA-1 and the script.
    fn load(&self, source: &Bytes) -> Result<(Bytes, Rc<Script>), Failure> {
        let sha = Bytes::from(sha1_smol::Sha1::from(source).digest().to_string());
        let world = &mut *self.world.borrow_mut();
        if let Some(script) = world.scripts.get(&sha) {
            return Ok((sha, Rc::clone(script)));
        }
        let script = Rc::new(world.compile(source)?);
        if world.scripts.len() >= MOST_SCRIPTS {
            world.scripts.shift_remove_index(0);
        }
        world.scripts.insert(sha.clone(), Rc::clone(&script));
        Ok((sha, script))
    }

    fn flush(&self) {
        if let Ok(world) = World::new(&self.shared) {
            self.world.replace(world);
        }
    }

    fn run(&self, client: &Client, sha: &[u8], script: &Script, input: &[Bytes], read_only: bool) -> Answer {
        let keys = int(&input[0])?;
        let keys = usize::try_from(keys).map_err(|_| text("ERR Number of keys can't be negative"))?;
        let arguments = &input[1..];
        if keys > arguments.len() {
            return Err(text("ERR Number of keys can't be greater than number of args"));
        }
        let (keys, arguments) = arguments.split_at(keys);
        self.shared.out_of_time.set(false);
        self.shared.running.set(Some(Running {
            db: client.db.get(),
            protocol: Protocol::Resp2,
            read_only: read_only || script.read_only,
            until: Instant::now() + TIME_LIMIT,
        }));
        let outcome = self.world.borrow().call(script, keys, arguments);
        let running = self.shared.running.take();
        if self.shared.out_of_time.get() {
            return Err(text("BUSY Script ran longer than 5 seconds and was stopped. What it has written stays."));
        }
        let script_protocol = running.map(|running| running.protocol).unwrap_or_default();
        match outcome {
            Ok(Some(values)) => Ok(convert::to_reply(values, script_protocol)),
            Ok(None) => Err(self.describe(sha)),
            Err(error) => Err(message(format!("ERR Error running script: {error}"))),
        }
    }

    fn describe(&self, sha: &[u8]) -> Failure {
        let (mut text, place) = self.shared.failure.take().unwrap_or_else(|| (NO_MEMORY.to_vec(), None));
        if let Some(place) = place {
            text.extend_from_slice(format!(" script: {}, on {place}.", lossy(sha)).as_bytes());
        }
        Failure(text.into())
    }
}

impl World {
    fn new(shared: &Rc<Shared>) -> mlua::Result<Self> {
        let libraries = StdLib::STRING | StdLib::TABLE | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        lua.set_memory_limit(MEMORY_LIMIT)?;
        let base = lua.create_table()?;
        let host = host::functions(&lua, shared)?;
        let (visible, run): (Table, Function) =
            lua.load(include_str!("prelude.lua")).set_name("=prelude").call((host, base.clone()))?;
        lua.set_globals(visible)?;
        watch_the_clock(&lua, shared)?;
        Ok(Self { lua, globals: base, run, scripts: IndexMap::new() })
    }

    fn compile(&self, source: &[u8]) -> Result<Script, Failure> {
        let (body, read_only) = shebang(source)?;
        let function =
            self.lua.load(&*body).set_name("@user_script").set_mode(mlua::chunk::ChunkMode::Text).into_function();
        let function = function.map_err(|error| {
            let text = match error {
                mlua::Error::SyntaxError { message, .. } => message,
                other => other.to_string(),
            };
            message(format!("ERR Error compiling script (new function): {text}"))
        })?;
        Ok(Script { function, read_only })
    }

    /// `Ok(None)`: the script failed, and [`Shared::failure`] has the error.
    fn call(&self, script: &Script, keys: &[Bytes], arguments: &[Bytes]) -> mlua::Result<Option<mlua::Value>> {
        self.globals.raw_set("KEYS", self.strings(keys)?)?;
        self.globals.raw_set("ARGV", self.strings(arguments)?)?;
        let mut values: MultiValue = self.run.call(&script.function)?;
        let succeeded = values.pop_front().is_some_and(|ok| ok.as_boolean() == Some(true));
        Ok(succeeded.then(|| values.pop_front().unwrap_or(mlua::Value::Nil)))
    }

    fn strings(&self, items: &[Bytes]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(items.len(), 0)?;
        for item in items {
            table.raw_push(self.lua.create_string(item)?)?;
        }
        Ok(table)
    }
}

fn watch_the_clock(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<()> {
    let shared = Rc::clone(shared);
    let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_BETWEEN_LOOKS);
    lua.set_global_hook(triggers, move |_, _| {
        if shared.running.get().is_some_and(|running| Instant::now() > running.until) {
            shared.out_of_time.set(true);
            return Err(mlua::Error::runtime("the script ran too long"));
        }
        Ok(VmState::Continue)
    })
}

/// Reads `#!lua flags=…`; an empty line remains in its place, so that line numbers stay correct.
fn shebang(source: &[u8]) -> Result<(std::borrow::Cow<'_, [u8]>, bool), Failure> {
    const FLAGS: [&str; 5] = ["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];
    let Some(rest) = source.strip_prefix(b"#!") else { return Ok((source.into(), false)) };
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(text("ERR Invalid script shebang"))?;
    let line = lossy(&rest[..end]).into_owned();
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some("lua") => {}
        other => return Err(message(format!("ERR Unexpected engine in script shebang: #!{}", other.unwrap_or("")))),
    }
    let mut read_only = false;
    for word in words {
        let flags = word.strip_prefix("flags=");
        let flags = flags.ok_or_else(|| message(format!("ERR Unknown lua shebang option: {word}")))?;
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            if !FLAGS.contains(&flag) {
                return Err(message(format!("ERR Unexpected flag in script shebang: {flag}")));
            }
            read_only |= flag == "no-writes";
        }
    }
    Ok((rest[end..].into(), read_only))
}

pub fn eval(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    run_source(engine, client, args, false)
}

pub fn eval_ro(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    run_source(engine, client, args, true)
}

pub fn evalsha(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    run_cached(engine, client, args, false)
}

pub fn evalsha_ro(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    run_cached(engine, client, args, true)
}

fn run_source(engine: &Engine, client: &Client, args: &[Bytes], read_only: bool) -> Answer {
    check_key_count(&args[2..])?;
    let (sha, script) = engine.scripts.load(&args[1])?;
    engine.scripts.run(client, &sha, &script, &args[2..], read_only)
}

fn run_cached(engine: &Engine, client: &Client, args: &[Bytes], read_only: bool) -> Answer {
    let script = engine.scripts.find(&args[1]).ok_or(NO_SCRIPT)?;
    let sha = args[1].to_ascii_lowercase();
    engine.scripts.run(client, &sha, &script, &args[2..], read_only)
}

/// Checked before anything is compiled, as in Redis.
fn check_key_count(input: &[Bytes]) -> Result<(), Failure> {
    int(&input[0]).map(|_| ())
}

pub fn script(engine: &Engine, _client: &Rc<Client>, args: &[Bytes]) -> Answer {
    match (&args[1], &args[2..]) {
        (sub, [source]) if is(sub, "load") => Ok(Reply::Bulk(engine.scripts.load(source)?.0)),
        (sub, _) if is(sub, "load") => Err(wrong_arity("script|load")),
        (sub, []) if is(sub, "exists") => Err(wrong_arity("script|exists")),
        (sub, names) if is(sub, "exists") => {
            let known = |sha: &Bytes| Reply::Int(i64::from(engine.scripts.find(sha).is_some()));
            Ok(Reply::Array(names.iter().map(known).collect()))
        }
        (sub, []) if is(sub, "flush") => {
            engine.scripts.flush();
            Ok(Reply::OK)
        }
        (sub, [how]) if is(sub, "flush") && (is(how, "sync") || is(how, "async")) => {
            engine.scripts.flush();
            Ok(Reply::OK)
        }
        (sub, _) if is(sub, "flush") => Err(text("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
        (sub, []) if is(sub, "kill") => Err(text("NOTBUSY No scripts in execution right now.")),
        (sub, _) => Err(unknown_subcommand("SCRIPT", sub)),
    }
}
