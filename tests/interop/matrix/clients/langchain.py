"""langchain-mcp-adapters, which makes a connection for each call."""

import asyncio
import contextlib
import json

from conversation import converse
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import types


class Client:
    def __init__(self, url):
        self.on_progress = None
        callbacks = Callbacks(on_progress=self.report, on_elicitation=self.elicit)
        connections = {"server": {"transport": "websocket", "url": url}}
        self.client = MultiServerMCPClient(connections, callbacks=callbacks)

    async def report(self, progress, total, message, context):
        if self.on_progress:
            self.on_progress(progress)

    async def elicit(self, context, params, callback_context):
        return types.ElicitResult(action="accept", content={"confirm": True})

    async def tools(self):
        return [tool.name for tool in await self.client.get_tools()]

    async def call(self, name, arguments, on_progress=None):
        self.on_progress = on_progress
        tool = next(tool for tool in await self.client.get_tools() if tool.name == name)
        result = await tool.ainvoke(arguments)
        text = result[0]["text"] if isinstance(result, list) else result
        with contextlib.suppress(ValueError):
            text = json.loads(text)
        return text["result"] if isinstance(text, dict) else text


@contextlib.asynccontextmanager
async def connect(url):
    yield Client(url)


asyncio.run(converse(connect))
