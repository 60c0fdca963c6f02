-- Builds the environment of scripts. Runs once per Lua state, before any script; scripts cannot reach its locals.
-- `host` holds functions of the server; `base` is what scripts see as globals; the result runs a script.
local host, base = ...

local error, pcall, xpcall, tostring = error, pcall, xpcall, tostring
local raw_setmetatable, raw_rawset, raw_resume = setmetatable, rawset, coroutine.resume
local raw_loadstring, type, table = loadstring, type, table
local READONLY = "Attempt to modify a readonly table"

-- A table that can be read but not written.
local protected = {}
local function protect(content)
  local proxy = raw_setmetatable({}, {
    __index = content,
    __newindex = function() error(READONLY, 2) end,
    __metatable = false,
  })
  protected[proxy] = true
  return proxy
end

-- pcall gives the text of an error table, and cannot catch the end of the script's time.
local function caught(ok, ...)
  if ok then return true, ... end
  if host.out_of_time() then error((...), 0) end
  return false, host.plain_error((...))
end

function base.pcall(...) return caught(pcall(...)) end
function base.xpcall(...) return caught(xpcall(...)) end

function base.setmetatable(target, meta)
  if protected[target] then error(READONLY, 0) end
  return raw_setmetatable(target, meta)
end

function base.rawset(target, key, value)
  if protected[target] then error(READONLY, 0) end
  return raw_rawset(target, key, value)
end

function base.collectgarbage(what)
  if what == "count" then return host.kilobytes() end
  return 0
end

for _, name in ipairs({ "string", "table", "math", "coroutine" }) do
  local library = {}
  for key, value in pairs(_G[name]) do library[key] = value end
  base[name] = library
end
function base.coroutine.resume(...) return caught(raw_resume(...)) end
base.coroutine.wrap = function(fn)
  local thread = base.coroutine.create(fn)
  local function finish(ok, ...)
    if ok then return ... end
    error((...), 0)
  end
  return function(...) return finish(base.coroutine.resume(thread, ...)) end
end
-- Compiled code could do what source cannot.
base.string.dump = nil
function base.loadstring(source, name)
  if type(source) == "string" and source:byte(1) == 27 then return nil, "compiled code is refused" end
  return raw_loadstring(source, name)
end
function base.load(reader, name)
  local pieces = {}
  while true do
    local piece = reader()
    if not piece or piece == "" then break end
    pieces[#pieces + 1] = piece
  end
  return base.loadstring(table.concat(pieces), name or "=(load)")
end

for _, name in ipairs({ "string", "table", "math", "coroutine" }) do base[name] = protect(base[name]) end
for _, name in ipairs({
  "_VERSION", "assert", "error", "gcinfo", "getmetatable", "ipairs", "next", "pairs", "rawequal",
  "rawget", "select", "tonumber", "tostring", "type", "unpack",
}) do base[name] = _G[name] end
local of_strings = getmetatable("")
of_strings.__index, of_strings.__metatable = base.string, false

base.redis = protect({
  call = host.call,
  pcall = host.pcall,
  error_reply = host.error_reply,
  status_reply = host.status_reply,
  sha1hex = host.sha1hex,
  log = host.log,
  setresp = host.setresp,
  replicate_commands = function() return true end,
  set_repl = function() end,
  breakpoint = function() return false end,
  debug = function() end,
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
  REDIS_VERSION = host.version, REDIS_VERSION_NUM = host.version_number,
})
base.cjson = protect({
  encode = host.json_encode,
  decode = host.json_decode,
  null = host.null,
  _NAME = "cjson", _VERSION = "2.1.0",
})

base.bit = protect(host.bit)

raw_setmetatable(base, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local globals = protect(base)
base._G = globals

return globals, function(script) return xpcall(script, host.describe_error) end
