"""The table: what the peers told, and what passed between them, in words."""

TITLES = ["peer", "version", "MCP", "subprotocol", "calls", "progress", "asked by the server", "after a cut"]
NONE = "–"


def methods(messages):
    return [message.get("method") for message in messages if isinstance(message, dict)]


def protocol(connections):
    """Returns the version of MCP that was agreed on, or that the requests name."""
    for connection in connections:
        for message in connection.received:
            if version := (message.get("result") or {}).get("protocolVersion"):
                return version
        for message in connection.sent:
            meta = (message.get("params") or {}).get("_meta") or {}
            if version := meta.get("io.modelcontextprotocol/protocolVersion"):
                return version
    return NONE


def subprotocol(connections):
    """Returns what was offered and answered on the last connection that was made."""
    made = [connection for connection in connections if connection.server.head]
    if not made:
        return NONE
    offered, answered = made[-1].offered, made[-1].answered
    code = lambda names: ", ".join(f"`{name.strip()}`" for name in names.split(",")) if names else "none"
    return f"{code(offered)} → {code(answered)}"


def failure(fact):
    """Returns what went wrong, its first sentence, or None."""
    error = fact.get("error") if isinstance(fact, dict) else None
    return error and error.partition(". ")[0]


def is_answer(fact, expected):
    return str(fact) in (str(expected), f"{expected}.0")


def calls(facts):
    """Returns whether the peer can be used at all, in words."""
    if facts.get("health"):
        return "its health check"
    for name in ("initialize", "tools", "add"):
        if why := failure(facts.get(name)):
            return f"no: {name}: {why}"
    if is_answer(facts.get("add"), 8):
        return "yes"
    if why := facts.get("error") or facts.get("ended"):
        return f"no: {why}"
    return f"no: 5 + 3 gives {facts.get('add')}"


def progress(facts):
    reports = facts.get("progress")
    if reports is None:
        return NONE
    if failure(reports) is not None:
        return f"no: {failure(reports)}"
    return "yes" if [float(report) for report in reports] == [1, 2, 3] else f"{len(reports)} of 3"


def asked(facts):
    answer = facts.get("asked")
    if answer is None:
        return NONE
    if failure(answer) is not None:
        return f"no: {failure(answer)}"
    return "yes" if "accept" in str(answer) or "true" in str(answer) else f"no: {answer}"


def after(facts, proxy):
    if proxy.cut_at is None:
        return NONE
    before, again = proxy.connections[: proxy.cut_at], proxy.connections[proxy.cut_at :]
    if not is_answer(facts.get("after"), 42):
        return f"no: {failure(facts.get('after'))}" if again else "does not reconnect"
    if sum("initialize" in methods(connection.sent) for connection in before) > 2:
        return "each call has a connection"
    if any("mcp.resume" in (connection.answered or "") for connection in again):
        return "resumes"
    if any({"initialize", "server/discover"} & set(methods(connection.sent)) for connection in again):
        return "reconnects, initializes again"
    return "reconnects, same session"


def row(name, version, facts, proxy):
    before = proxy.connections[: proxy.cut_at] or proxy.connections
    wire = protocol(proxy.connections), subprotocol(before)
    return [name, version, *wire, calls(facts), progress(facts), asked(facts), after(facts, proxy)]


def markdown(rows):
    """Returns a table."""
    lines = [TITLES, ["---"] * len(TITLES), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
