"""An MCP server for stdio that asks its client, for those that put one on a WebSocket. Python's own library is all
that it needs."""

import json
import sys

EVERY = {"type": "object"}
QUESTION = {
    "message": "Are you sure?",
    "requestedSchema": {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]},
}
asked = None


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def text(content):
    return {"content": [{"type": "text", "text": str(content)}]}


def call(request, name, arguments):
    """Answers a call, or asks first."""
    global asked
    if name == "ask":
        asked = request["id"]
        send(id="question", method="elicitation/create", params=QUESTION)
        return
    numbers = arguments["numbers"] if name == "sum" else [arguments["a"], arguments["b"]]
    token = request["params"].get("_meta", {}).get("progressToken")
    for done in range(1, len(numbers) + 1) if name == "sum" and token is not None else ():
        params = {"progressToken": token, "progress": done, "total": len(numbers)}
        send(method="notifications/progress", params=params)
    send(id=request["id"], result=text(sum(numbers)))


for line in sys.stdin:
    message = json.loads(line)
    params = message.get("params") or {}
    match message.get("method"):
        case "initialize":
            result = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "stdio", "version": "1.0.0"},
            }
            send(id=message["id"], result=result)
        case "tools/list":
            names = ("add", "sum", "ask")
            send(id=message["id"], result={"tools": [{"name": name, "inputSchema": EVERY} for name in names]})
        case "tools/call":
            call(message, params["name"], params.get("arguments") or {})
        case "ping":
            send(id=message["id"], result={})
        case None if message.get("id") == "question":
            answer = message.get("result", {}).get("action") or message.get("error", {}).get("message")
            send(id=asked, result=text(answer))
        case method if "id" in message:
            send(id=message["id"], error={"code": -32601, "message": f"unknown method: {method}"})
