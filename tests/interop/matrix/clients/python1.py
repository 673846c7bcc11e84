"""The Python SDK 1.x over its own transport."""

import asyncio
import contextlib

from conversation import converse
from mcp import ClientSession, types
from mcp.client.websocket import websocket_client


async def elicit(context, params):
    return types.ElicitResult(action="accept", content={"confirm": True})


class Client:
    def __init__(self, session):
        self.session = session

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments, on_progress=None):
        async def report(progress, total, message):
            on_progress(progress)

        callback = on_progress and report
        result = await self.session.call_tool(name, arguments, progress_callback=callback)
        return (result.structuredContent or {}).get("result", result.content[0].text)


@contextlib.asynccontextmanager
async def connect(url):
    async with websocket_client(url) as (read, write):
        async with ClientSession(read, write, elicitation_callback=elicit) as session:
            await session.initialize()
            yield Client(session)


asyncio.run(converse(connect))
