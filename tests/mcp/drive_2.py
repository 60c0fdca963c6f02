"""The newest Python client. It starts no tasks of 2025-11-25, so a call that goes on answers with a pointer; their other requests it knows."""
import asyncio
import json
import sys

import httpx2
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client._probe import negotiate_auto
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


async def main(url, token, command, given):
    headers = {} if token == "-" else {"Authorization": f"Bearer {token}"}
    if command == "start":
        headers["Prefer"] = "wait=0"
    async with httpx2.AsyncClient(headers=headers, timeout=120) as http:
        async with streamable_http_client(url, http_client=http) as (read, write, *_):
            async with ClientSession(read, write) as session:
                # As `Client(url)` does: it asks for the newest protocol first.
                await negotiate_auto(session)
                return await COMMANDS[command](session, given)


def plain(model):
    return json.loads(model.model_dump_json(by_alias=True))


async def list_(session, given):
    tools = (await session.list_tools()).tools
    return {"version": session.protocol_version, "tools": [tool.name for tool in tools]}


async def call(session, given):
    told = []

    async def note(progress, total, message):
        told.append([progress, total, message])

    result = await session.call_tool(given["tool"], given["arguments"], progress_callback=note)
    return {"result": plain(result), "progress": told}


async def start(session, given):
    result = await session.call_tool(given["tool"], given["arguments"])
    return {"task": await get(session, {"task": result.structured_content["task_id"]})}


async def get(session, given):
    request = types.GetTaskRequest(params=types.GetTaskRequestParams(task_id=given["task"]))
    return plain(await session.send_request(request, types.GetTaskResult))


async def end(session, given):
    while True:
        task = await get(session, given)
        if task["status"] not in ("working", "input_required"):
            break
        await asyncio.sleep(0.1)
    request = types.GetTaskPayloadRequest(params=types.GetTaskPayloadRequestParams(task_id=given["task"]))
    return {"task": task, "result": plain(await session.send_request(request, types.CallToolResult))}


async def cancel(session, given):
    request = types.CancelTaskRequest(params=types.CancelTaskRequestParams(task_id=given["task"]))
    return plain(await session.send_request(request, types.CancelTaskResult))


async def read(session, given):
    return {"text": (await session.read_resource(given["uri"])).contents[0].text}


COMMANDS = {"list": list_, "call": call, "start": start, "get": get, "end": end, "cancel": cancel, "read": read}


def error_of(error):
    """The first error of the protocol in a group of them."""
    if isinstance(error, MCPError):
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
