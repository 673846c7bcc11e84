"""An MCP server on the Python SDK, under uvicorn.

Prints `listening on URL`, then one line for each connection that ends: `closed CODE REASON`.
WebSocket pings come every 100 ms, and a client that leaves one unanswered for 2 s is dropped.
"""

import asyncio
import socket
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)

import uvicorn  # noqa: E402
from mcp.server.fastmcp import Context, FastMCP  # noqa: E402
from mcp.server.websocket import websocket_server  # noqa: E402

mcp = FastMCP("python", log_level="ERROR")


@mcp.tool()
def add(a: int, b: int) -> int:
    return a + b


@mcp.tool()
async def sum(numbers: list[int], context: Context) -> int:
    total = 0
    for done, number in enumerate(numbers, 1):
        total += number
        await context.report_progress(done, len(numbers), f"{total} so far")
    return total


@mcp.tool()
def fail() -> int:
    raise ValueError("this tool always fails")


@mcp.tool()
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@mcp.tool()
async def ask(context: Context) -> list[str]:
    """Pings the client, then asks it for its roots."""
    await context.session.send_ping()
    return [str(root.uri) for root in (await context.session.list_roots()).roots]


async def app(scope, receive, send):
    async def watched():
        event = await receive()
        if event["type"] == "websocket.disconnect":
            print("closed", event["code"], event.get("reason") or "", flush=True)
        return event

    assert scope["type"] == "websocket", scope["type"]
    async with websocket_server(scope, watched, send) as (read, write):
        server = mcp._mcp_server
        await server.run(read, write, server.create_initialization_options())


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("listening on ws://%s:%d/mcp" % sockets[0].getsockname(), flush=True)


listener = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config(
    app, lifespan="off", log_level="warning", ws_ping_interval=0.1, ws_ping_timeout=2
)
Server(config).run(sockets=[listener])
sys.exit(0)
