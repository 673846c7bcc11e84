"""What each client in Python does, and how it tells of it: an object on each line."""

import asyncio
import json
import sys
import warnings

warnings.simplefilter("ignore")

MATH, ASKS = sys.argv[1:3]


def tell(**fact):
    print(json.dumps(fact), flush=True)


def cause(error):
    """Returns the first error of a group, which is what task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


async def step(name, action):
    try:
        tell(**{name: await asyncio.wait_for(action, 15)})
    except Exception as error:
        tell(**{name: {"error": cause(error)}})


async def cut():
    tell(cut=True)
    await asyncio.to_thread(sys.stdin.readline)


async def talk(client):
    async def progress():
        reports = []
        await client.call("sum", {"numbers": [1, 2, 3]}, reports.append)
        return reports

    await step("tools", client.tools())
    await step("add", client.call("add", {"a": 5, "b": 3}))
    await step("progress", progress())
    await cut()
    await step("after", client.call("add", {"a": 20, "b": 22}))


async def converse(connect):
    """Tells of a client; `connect(url)` is a context in which it is connected."""
    try:
        async with connect(MATH) as client:
            tell(initialize=True)
            await talk(client)
    except Exception as error:  # which the SDK raises again at the end, for the connection that was cut
        tell(ended=cause(error))
    try:
        async with connect(ASKS) as client:
            await step("asked", client.call("ask", {}))
    except Exception as error:
        tell(asked={"error": cause(error)})
