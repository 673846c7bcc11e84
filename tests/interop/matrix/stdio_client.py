"""Our client, as a host for stdio has it: `mcp-ws connect`, spoken to in JSON-RPC."""

import itertools
import json
import threading
from concurrent.futures import Future

from processes import started

PATIENCE = 20
INFO = {"name": "matrix", "version": "1.0.0"}

# What the client answers when the server asks it.
ANSWERS = {
    "ping": {},
    "roots/list": {"roots": [{"uri": "file:///root"}]},
    "elicitation/create": {"action": "accept", "content": {"confirm": True}},
}


class Host:
    """Sends requests through the client, and answers those of the server."""

    def __init__(self, process):
        self.process = process
        self.ids = itertools.count(1)
        self.waiting = {}
        self.progress = []
        self.asked = []
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def _read(self):
        for line in self.process.stdout:
            message = json.loads(line)
            method = message.get("method")
            if method is None:
                if answered := self.waiting.pop(message.get("id"), None):
                    answered.set_result(message)
            elif method == "notifications/progress":
                self.progress.append(message["params"]["progress"])
            elif method in ANSWERS and "id" in message:
                self.asked.append(method)
                self.send({"id": message["id"], "result": ANSWERS[method]})

    def request(self, method, params):
        """Returns the result; raises `RuntimeError` for an error, and where there is no answer."""
        request_id = next(self.ids)
        answered = self.waiting[request_id] = Future()
        self.send({"id": request_id, "method": method, "params": params})
        try:
            answer = answered.result(PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"no answer within {PATIENCE} s") from None
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer["result"]

    def call(self, tool, arguments):
        """Returns the text of the result."""
        # A progress token is a courtesy: servers that report none take no notice.
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": tool}}
        result = self.request("tools/call", params)
        text = " ".join(block.get("text", "") for block in result["content"])
        if result.get("isError"):
            raise RuntimeError(text)
        return text


def facts(program, proxy, log):
    """Has our client talk to the server behind `proxy`, and returns what came of it."""
    results = {}

    def step(name, action):
        try:
            results[name] = action()
        except (RuntimeError, OSError) as error:
            results[name] = {"error": str(error)}

    with started([program, "connect", proxy.url], stderr=log) as process:
        host = Host(process)

        def initialize():
            capabilities = {"elicitation": {}, "roots": {}}
            params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": INFO}
            host.request("initialize", params)
            host.send({"method": "notifications/initialized"})
            return True

        def asked():
            host.call("ask", {})
            return "accept" if host.asked else None

        def progress():
            host.progress.clear()
            host.call("sum", {"numbers": [1, 2, 3]})
            return host.progress

        def add(a, b):
            text = host.call("add", {"a": a, "b": b})
            return a + b if str(a + b) in text else {"error": text}

        step("initialize", initialize)
        if results["initialize"] is not True:
            return results
        step("tools", lambda: [tool["name"] for tool in host.request("tools/list", {})["tools"]])
        tools = results["tools"] if isinstance(results["tools"], list) else ["add"]
        step("add", lambda: add(5, 3))
        if "sum" in tools:
            step("progress", progress)
        if "ask" in tools:
            step("asked", asked)
        proxy.cut()
        proxy.wait_for_reconnect(PATIENCE)
        step("after", lambda: add(20, 22))
    return results
