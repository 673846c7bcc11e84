"""The Python SDK 2.x over the transport of the migration guide, which the folder of the program has as `guide`."""

import asyncio
import contextlib

import mcp
from conversation import converse
from guide import websocket
from mcp_types import ElicitResult


async def elicit(context, params):
    return ElicitResult(action="accept", content={"confirm": True})


class Client:
    def __init__(self, client):
        self.client = client

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name, arguments, on_progress=None):
        async def report(progress, total, message):
            on_progress(progress)

        callback = on_progress and report
        result = await self.client.call_tool(name, arguments, progress_callback=callback)
        return (result.structured_content or {}).get("result", result.content[0].text)


@contextlib.asynccontextmanager
async def connect(url):
    async with mcp.Client(websocket(url), elicitation_callback=elicit) as client:
        yield Client(client)


asyncio.run(converse(connect))
