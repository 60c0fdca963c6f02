"""The last 1.x of the Python client."""
import asyncio
import json
import sys

import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client


async def main(url, token, command, given):
    headers = {} if token == "-" else {"Authorization": f"Bearer {token}"}
    async with streamablehttp_client(url, headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            begun = await session.initialize()
            return await COMMANDS[command](session, given, begun.protocolVersion)


def plain(model):
    return json.loads(model.model_dump_json(by_alias=True))


async def list_(session, given, version):
    tools = (await session.list_tools()).tools
    return {"version": version, "tools": [tool.name for tool in tools]}


async def call(session, given, version):
    told = []

    async def note(progress, total, message):
        told.append([progress, total, message])

    result = await session.call_tool(given["tool"], given["arguments"], progress_callback=note)
    return {"result": plain(result), "progress": told}


async def start(session, given, version):
    begun = await session.experimental.call_tool_as_task(given["tool"], given["arguments"])
    return plain(begun)


async def get(session, given, version):
    return plain(await session.experimental.get_task(given["task"]))


async def end(session, given, version):
    while True:
        task = await session.experimental.get_task(given["task"])
        if task.status not in ("working", "input_required"):
            break
        await asyncio.sleep(0.1)
    result = await session.experimental.get_task_result(given["task"], types.CallToolResult)
    return {"task": plain(task), "result": plain(result)}


async def cancel(session, given, version):
    return plain(await session.experimental.cancel_task(given["task"]))


async def read(session, given, version):
    return {"text": (await session.read_resource(given["uri"])).contents[0].text}


COMMANDS = {"list": list_, "call": call, "start": start, "get": get, "end": end, "cancel": cancel, "read": read}


def error_of(error):
    """The first error of the protocol in a group of them."""
    if isinstance(error, McpError):
        return error.error.message
    for inner in getattr(error, "exceptions", []):
        found = error_of(inner)
        if found:
            return found
    return None


try:
    answer = asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
except BaseException as error:
    answer = {"error": error_of(error) or repr(error), "trouble": [repr(one) for one in getattr(error, "exceptions", [])]}
print(json.dumps(answer))
