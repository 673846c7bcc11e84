"""A client on the Python SDK, for the tools of the `math` example.

    python client.py URL [linger]

prints what it got as one line of JSON, then how the connection ended. With `linger` it waits for the
server to end it.
"""

import asyncio
import json
import sys
import warnings

warnings.simplefilter("ignore")

import mcp.client.websocket  # noqa: E402
import websockets.exceptions  # noqa: E402
from mcp import ClientSession, McpError, types  # noqa: E402

sockets = []
connect = mcp.client.websocket.ws_connect


class RecordingConnect(connect):
    """Keeps the socket, which the SDK hides."""

    async def __aenter__(self):
        sockets.append(await super().__aenter__())
        return sockets[0]


mcp.client.websocket.ws_connect = RecordingConnect


async def code_of(request):
    try:
        await request
    except McpError as error:
        return error.error.code


async def talk(session):
    progress = []

    async def on_progress(done, total, message):
        progress.append([done, total])

    async def result(tool, arguments, **options):
        answer = await session.call_tool(tool, arguments, **options)
        return answer.structuredContent

    server = await session.initialize()
    many = await asyncio.gather(*(result("add", {"a": i, "b": 1}) for i in range(100)))
    error = await session.call_tool("divide", {"a": 1, "b": 0})
    unknown = types.ClientRequest(types.GetPromptRequest(params={"name": "none"}))
    unknown.root.method = "no/such"
    report = {
        "server": server.serverInfo.name,
        "subprotocol": sockets[0].subprotocol,
        "tools": [tool.name for tool in (await session.list_tools()).tools],
        "add": await result("add", {"a": 5, "b": 3}),
        "sum": (await result("sum", {"numbers": [1, 2, 3]}, progress_callback=on_progress))["result"],
        "progress": progress,
        "many": [answer["result"] for answer in many],
        "tool_error": [error.isError, error.content[0].text],
        "invalid_params": await code_of(session.call_tool("add", {"a": "five", "b": 3})),
        "unknown_tool": await code_of(session.call_tool("modulo", {})),
        "unknown_method": await code_of(session.send_request(unknown, types.EmptyResult)),
        "ping": (await session.send_ping()).model_dump(exclude_none=True),
    }
    await (await sockets[0].ping())
    return report


async def main(url, linger=None):
    try:
        async with mcp.client.websocket.websocket_client(url) as (read, write):
            async with ClientSession(read, write) as session:
                print(json.dumps(await talk(session)), flush=True)
                if linger:
                    await sockets[0].wait_closed()
    except* websockets.exceptions.ConnectionClosedError:
        pass  # Which the SDK makes of every code but 1000 and 1001.
    print(json.dumps({"code": sockets[0].close_code, "reason": sockets[0].close_reason}))


asyncio.run(main(*sys.argv[1:]))
