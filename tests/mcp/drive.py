"""The official client for Python. The last 1.x starts tasks of 2025-11-25; 2.x declares the tasks extension of 2026-07-28."""
import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import Any, Literal

import mcp

IS_FIRST = not hasattr(mcp, "MCPError")
TASKS = "io.modelcontextprotocol/tasks"
OPEN = ("working", "input_required")


def plain(model):
    return json.loads(model.model_dump_json(by_alias=True))


class First:
    """1.x: the session has methods for tasks."""

    @staticmethod
    @asynccontextmanager
    async def connect(url, headers, command):
        from mcp.client.streamable_http import streamablehttp_client

        async with streamablehttp_client(url, headers=headers) as (read, write, _):
            async with mcp.ClientSession(read, write) as session:
                session.version = (await session.initialize()).protocolVersion
                yield session

    @staticmethod
    async def start(session, given):
        return plain(await session.experimental.call_tool_as_task(given["tool"], given["arguments"]))

    @staticmethod
    async def get(session, given):
        return plain(await session.experimental.get_task(given["task"]))

    @staticmethod
    async def result(session, task):
        return plain(await session.experimental.get_task_result(task["taskId"], mcp.types.CallToolResult))

    @staticmethod
    async def cancel(session, given):
        return plain(await session.experimental.cancel_task(given["task"]))


class Second:
    """2.x: the extension's messages are written here, as its schema says; the client sends and checks them."""

    @staticmethod
    @asynccontextmanager
    async def connect(url, headers, command):
        import httpx2
        from mcp.client._probe import negotiate_auto
        from mcp.client.session import ClientSession
        from mcp.client.streamable_http import streamable_http_client

        of_tasks = command in ("start", "get", "end", "cancel", "update")
        if command == "start":
            headers = {**headers, "Prefer": "wait=0"}
        async with httpx2.AsyncClient(headers=headers, timeout=120) as http:
            async with streamable_http_client(url, http_client=http) as (read, write, *_):
                async with ClientSession(read, write, **(Second.declared() if of_tasks else {})) as session:
                    # As `Client(url)` does: it asks for the newest protocol first.
                    await negotiate_auto(session)
                    session.version = session.protocol_version
                    yield session

    @staticmethod
    def declared():
        import mcp_types as types
        from mcp.client.extension import ResultClaim

        class Handle(types.Result):
            model_config = {"extra": "allow"}
            result_type: Literal["task"]

        async def unused(*_):
            raise AssertionError("start takes the handle itself")

        # A client that answers questions declares that it can.
        return {"extensions": {TASKS: {}}, "elicitation_callback": unused,
                "result_claims": {TASKS: [ResultClaim(result_type="task", model=Handle, resolve=unused)]}}

    @staticmethod
    async def ask(session, method, **params):
        import mcp_types as types

        class Params(types.RequestParams):
            model_config = {"extra": "allow"}

        class Ask(types.Request[Params, str]):
            name_param = "taskId"

        class Anything(types.Result):
            model_config = {"extra": "allow"}
            result_type: Any = None

        return plain(await session.send_request(Ask(method=method, params=Params(**params)), Anything))

    @staticmethod
    async def start(session, given):
        answer = plain(await session.call_tool(given["tool"], given["arguments"], allow_claimed=True))
        return {"task": answer} if answer["resultType"] == "task" else {"result": answer}

    @staticmethod
    async def get(session, given):
        return await Second.ask(session, "tasks/get", taskId=given["task"])

    @staticmethod
    async def result(session, task):
        return task.get("result")

    @staticmethod
    async def cancel(session, given):
        await Second.ask(session, "tasks/cancel", taskId=given["task"])
        return await ended(session, given)

    @staticmethod
    async def update(session, given):
        return await Second.ask(session, "tasks/update", taskId=given["task"], inputResponses=given["responses"])


OWN = First if IS_FIRST else Second


async def list_(session, given):
    return {"version": session.version, "tools": [tool.name for tool in (await session.list_tools()).tools]}


async def call(session, given):
    told = []

    async def note(progress, total, message):
        told.append([progress, total, message])

    result = await session.call_tool(given["tool"], given["arguments"], progress_callback=note)
    return {"result": plain(result), "progress": told}


async def ended(session, given):
    while True:
        task = await OWN.get(session, given)
        if task["status"] not in OPEN:
            return task
        await asyncio.sleep(0.1)


async def end(session, given):
    task = await ended(session, given)
    return {"task": task, "result": await OWN.result(session, task)}


async def read(session, given):
    return {"text": (await session.read_resource(given["uri"])).contents[0].text}


COMMANDS = {"list": list_, "call": call, "start": OWN.start, "get": OWN.get, "end": end, "cancel": OWN.cancel, "read": read,
            "update": getattr(OWN, "update", None)}


async def main(url, token, command, given):
    headers = {} if token == "-" else {"Authorization": f"Bearer {token}"}
    async with OWN.connect(url, headers, command) as session:
        return await COMMANDS[command](session, given)


def error_of(error):
    """The first error of the protocol in a group of them."""
    if isinstance(error, mcp.McpError if IS_FIRST else mcp.MCPError):
        return error.error.message
    return next(filter(None, map(error_of, getattr(error, "exceptions", []))), None)


try:
    answer = asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
except BaseException as error:
    answer = {"error": error_of(error) or repr(error), "trouble": [repr(each) for each in getattr(error, "exceptions", [])]}
print(json.dumps(answer))
