"""permessage-deflate by the package `websockets`.

    python deflate.py echo URL
    python deflate.py sdk URL

The first, against an echo of text, goes through the essence of Autobahn's cases 12.* and 13.*: each combination of window sizes and context takeover
that a client can ask for, and messages of 16 B to 128 KiB, in one frame and in fragments. It prints what
was agreed on for each, as one line of JSON. The second calls the `math` example by the SDK, with what that
offers by itself.
"""

import asyncio
import json
import random
import sys

import mcp.client.websocket
from mcp import ClientSession
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SIZES = [16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]

OFFERS = [
    {"server_no_context_takeover": takeover, "client_no_context_takeover": takeover} | bits
    for takeover in (False, True)
    for bits in (
        {},
        {"client_max_window_bits": True},
        {"server_max_window_bits": 9},
        {"server_max_window_bits": 15},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
        {"server_max_window_bits": 12, "client_max_window_bits": 15},
    )
]


def texts():
    words = random.Random(7)
    for size in SIZES:
        rows = [{"id": n, "name": "größe", "value": words.random()} for n in range(size // 40 + 1)]
        yield json.dumps(rows, ensure_ascii=False)[:size]
        yield "".join(chr(words.choice([97, 228, 8364, 128512])) for _ in range(size // 3))
        yield "a" * size


async def echoed(socket, text, parts):
    if parts == 1:
        await socket.send(text)
    else:
        step = len(text) // parts + 1
        await socket.send(text[at : at + step] for at in range(0, len(text), step))
    assert await socket.recv() == text, f"{len(text)} in {parts}"


async def echo(url):
    for offer in OFFERS:
        factory = ClientPerMessageDeflateFactory(**offer)
        async with connect(url, extensions=[factory], compression=None, max_size=None) as socket:
            for text in texts():
                await echoed(socket, text, 1)
                await echoed(socket, text, 5)
            agreed = [str(extension) for extension in socket.protocol.extensions]
            response = socket.response.headers.get("Sec-WebSocket-Extensions")
        print(json.dumps({"agreed": agreed, "response": response, "code": socket.close_code}), flush=True)


async def sdk(url):
    sockets = []
    connecting = mcp.client.websocket.ws_connect

    class RecordingConnect(connecting):
        """Keeps the socket, which the SDK hides."""

        async def __aenter__(self):
            sockets.append(await super().__aenter__())
            return sockets[0]

    mcp.client.websocket.ws_connect = RecordingConnect
    async with mcp.client.websocket.websocket_client(url) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            answer = await session.call_tool("sum", {"numbers": list(range(5000))})
            report = {
                "response": sockets[0].response.headers.get("Sec-WebSocket-Extensions"),
                "tools": len((await session.list_tools()).tools),
                "sum": answer.structuredContent["result"],
            }
            print(json.dumps(report), flush=True)


mode, url = sys.argv[1:]
asyncio.run({"echo": echo, "sdk": sdk}[mode](url))
