"""The peers: how each is installed, and what it does. A function for each, in the order of the table."""

import contextlib
import json
import os
import re
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlencode

import stdio_client
from install import HERE, PINNED, PROJECT, tool
from processes import Unavailable, facts_of, last_words, run, server, started

PEERS = []

# Seconds that a client has for all that it does.
CLIENT_LIMIT = 120

LISTENING = r"listening on (ws\S+)"


def peer(role, name, version):
    """Enters a function into the table. It gets the scene, and returns what the peer told."""

    def enter(function):
        PEERS.append((role, name, version, function))
        return function

    return enter


def npm(name):
    return PINNED["npm"][name]


def pypi(name):
    return PINNED["pypi"][name]


def maven(name):
    return PINNED["maven"][name]


def crate(name):
    """Returns the version that `rust/Cargo.toml` pins."""
    return re.search(rf'^{name} = .*?"=([^"]+)"', (HERE / "rust/Cargo.toml").read_text(), re.M).group(1)


def version_of(command, pattern=r"(\d+(?:\.\d+)+)"):
    """Returns a version that a program tells of itself, once the program is there."""
    return lambda: re.search(pattern, run(command(), 30)).group(1)


# ---- clients -------------------------------------------------------------------------------------------------------


def run_client(scene, *command, arguments=(), **options):
    """Runs a client with the addresses of `math` and of the server that asks, and returns what it told."""
    return facts_of([*command, scene.proxy.url, scene.asking_url, *arguments], CLIENT_LIMIT, scene.proxy.cut, **options)


def node(scene, program, folder, *arguments):
    return run_client(scene, tool("node"), folder / program, arguments=arguments, cwd=folder)


@peer("client", "TypeScript SDK 1.x, in Node.js", npm("@modelcontextprotocol/sdk"))
def typescript_1(scene):
    return node(scene, "sdk1.mjs", scene.cache.npm("sdk1", "@modelcontextprotocol/sdk", "ws"))


def in_browser(scene, command):
    """Has the client of the SDK 1.x run in a page, which a browser opens that `command` starts with its address."""
    folder = scene.cache.npm("browser", "@modelcontextprotocol/sdk", "esbuild")
    options = ["--bundle", "--format=esm", "--external:ws", "--log-level=error"]
    script = run([folder / "node_modules/.bin/esbuild", "sdk1.mjs", *options], 60, cwd=folder)
    facts, done = {}, Event()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            is_script = self.path == "/client.js"
            body = script if is_script else '<!doctype html><script type="module" src="/client.js"></script>'
            self.answer(body, "text/javascript" if is_script else "text/html")

        def do_POST(self):
            fact = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if fact.pop("cut", False):
                scene.proxy.cut()
            facts.update(fact)
            self.answer("", "text/plain")
            if "done" in facts:
                done.set()

        def answer(self, body, kind):
            self.send_response(200)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    pages = ThreadingHTTPServer(scene.page_address, Page)
    Thread(target=pages.serve_forever, daemon=True).start()
    try:
        url = f"{scene.origin}/?" + urlencode([("url", scene.proxy.url), ("url", scene.asking_url)])
        with started([*command, url], stdout=scene.log, stderr=scene.log):
            if not done.wait(CLIENT_LIMIT):
                facts.setdefault("error", f"was not done after {CLIENT_LIMIT} s")
    finally:
        pages.shutdown()
        pages.server_close()
    return facts


def chromium():
    return shutil.which("google-chrome") or tool("chromium")


@peer("client", "TypeScript SDK 1.x, in Chromium", version_of(lambda: [chromium(), "--version"]))
def typescript_in_chromium(scene):
    profile = scene.cache.folder("profiles", "chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    return in_browser(scene, [chromium(), *options])


def firefox(scene):
    """Returns the machine's Firefox, or Debian's."""
    if path := shutil.which("firefox") or shutil.which("firefox-esr"):
        return path
    return scene.cache.debian("firefox", "firefox-esr", "libvpx7") / "usr/lib/firefox-esr/firefox-esr"


@peer("client", "TypeScript SDK 1.x, in Firefox", None)
def typescript_in_firefox(scene):
    program = firefox(scene)
    profile = scene.cache.folder("profiles", "firefox")
    libraries = ":".join(map(str, scene.cache.path.glob("debian/firefox/usr/lib/*-linux-gnu")))
    environment = ["env", f"HOME={profile}", f"LD_LIBRARY_PATH={libraries}"]
    command = [*environment, program, "--headless", "--no-remote", "--profile", profile]
    scene.version = re.search(r"[\d.]+\w*", run([*environment, program, "--version"], 30)).group()
    return in_browser(scene, command)


def typescript_2(scene, transport, *arguments):
    source = PROJECT / "js" if transport == "mcp-ws-transport" else transport
    folder = scene.cache.npm(f"sdk2-{transport}", "@modelcontextprotocol/client", "ws", source)
    return node(scene, "sdk2.mjs", folder, transport, *arguments)


OVER_NPM = f"{npm('@modelcontextprotocol/client')}, {npm('mcp-websocket-transport')}"


@peer("client", "TypeScript SDK 2.x over npm mcp-websocket-transport", OVER_NPM)
def typescript_2_over_npm(scene):
    return typescript_2(scene, "mcp-websocket-transport")


@peer("client", "the same, which asks for 2026-07-28", OVER_NPM)
def typescript_2_newer(scene):
    return typescript_2(scene, "mcp-websocket-transport", "2026-07-28")


@peer("client", "TypeScript SDK 2.x over `js/` of this project", npm("@modelcontextprotocol/client"))
def typescript_2_over_ours(scene):
    return typescript_2(scene, "mcp-ws-transport")


def python(scene, program, interpreter):
    environment = {**os.environ, "PYTHONPATH": str(scene.cache.folder("guide"))}
    return run_client(scene, interpreter, HERE / "clients" / program, env=environment)


@peer("client", "Python SDK 1.x", pypi("mcp[ws]"))
def python_1(scene):
    return python(scene, "python1.py", scene.cache.python("sdk1", "mcp[ws]", "uvicorn", "websockets"))


@peer("client", "Python SDK 2.x over the migration guide's transport", pypi("mcp"))
def python_2(scene):
    guide = (PROJECT / "src/guide/migration.md").read_text()
    block = re.search(r"^```python\n(.*?)^```", guide, re.S | re.M).group(1)
    (scene.cache.folder("guide") / "guide.py").write_text(block)
    return python(scene, "python2.py", scene.cache.python("sdk2", "mcp", "websockets"))


@peer("client", "langchain-mcp-adapters", pypi("langchain-mcp-adapters"))
def langchain(scene):
    packages = "langchain-mcp-adapters", "mcp[ws]", "websockets"
    return python(scene, "langchain.py", scene.cache.python("langchain", *packages))


@peer("client", "Claude Code, `{\"type\":\"ws\"}`", npm("@anthropic-ai/claude-code"))
def claude_code(scene):
    # Its program is in a package for each platform, which it copies at installation.
    folder = scene.cache.npm("claude-code", "@anthropic-ai/claude-code")
    run([tool("node"), folder / "node_modules/@anthropic-ai/claude-code/install.cjs"], 60)
    program = folder / "node_modules/.bin/claude"
    home = scene.cache.folder("profiles", "claude")
    # Its own settings, and none of the user's.
    options = {"cwd": home, "env": {"PATH": os.environ["PATH"], "HOME": str(home)}}
    with contextlib.suppress(Unavailable):
        run([program, "mcp", "remove", "math"], 60, **options)
    run([program, "mcp", "add-json", "math", json.dumps({"type": "ws", "url": scene.proxy.url})], 60, **options)
    listed = run([program, "mcp", "list"], 60, **options)
    return {"health": True} if "Connected" in listed else {"error": last_words(listed)}


def socket(scene, package, module):
    return node(scene, "socket.mjs", scene.cache.npm(package, package, "ws"), module)


@peer("client", "PartySocket, messages by hand", npm("partysocket"))
def partysocket(scene):
    return socket(scene, "partysocket", "partysocket/ws")


@peer("client", "reconnecting-websocket, messages by hand", npm("reconnecting-websocket"))
def reconnecting_websocket(scene):
    return socket(scene, "reconnecting-websocket", "reconnecting-websocket")


@peer("client", "Java's `HttpClient`, messages by hand", version_of(lambda: [tool("java"), "--version"]))
def java(scene):
    return run_client(scene, tool("java"), HERE / "clients/Client.java")


@peer("client", "Go's gorilla/websocket, messages by hand", None)
def go(scene):
    root = scene.cache.debian("go", "golang-1.19-go", "golang-1.19-src", "golang-github-gorilla-websocket-dev")
    goroot = root / "usr/lib/go-1.19"
    # The tree of Debian's compiler is links into that of its sources.
    for link in goroot.iterdir():
        if link.is_symlink() and not link.exists():
            target = root / os.readlink(link).lstrip("/")
            link.unlink()
            link.symlink_to(target if target.exists() else root / "usr/share/go-1.19" / link.name)
    caches = {"GOCACHE": scene.cache.folder("go-build"), "HOME": scene.cache.path}
    settings = {"GO111MODULE": "off", "GOPATH": root / "usr/share/gocode", "GOROOT": goroot, "CGO_ENABLED": "0"}
    environment = os.environ | {name: str(value) for name, value in (settings | caches).items()}
    program = scene.cache.folder("go") / "client"
    run([goroot / "bin/go", "build", "-o", program, HERE / "clients/client.go"], 300, env=environment)
    compiler = re.search(r"go([\d.]+)", run([goroot / "bin/go", "version"], 30, env=environment)).group(1)
    scene.version = f"Go {compiler}, gorilla 1.5.0"
    return run_client(scene, program)


@peer("client", "tower-mcp", crate("tower-mcp"))
def tower_mcp_client(scene):
    return run_client(scene, scene.cache.rust("tower_mcp", "tower-mcp"), "call")


@peer("client", "turbomcp", crate("turbomcp"))
def turbomcp_client(scene):
    return run_client(scene, scene.cache.rust("turbomcp", "turbomcp"), "call")


def kotlin(_scene):
    """Says why Kotlin's SDK is skipped: no program is written for it yet."""
    version = maven("io.modelcontextprotocol:kotlin-sdk")
    raise Unavailable(f"no program is written for it yet; its packages ({version}) come from Maven alone")


KOTLIN = "Kotlin SDK, `mcpWebSocket`", maven("io.modelcontextprotocol:kotlin-sdk")
peer("client", *KOTLIN)(kotlin)


# ---- servers -------------------------------------------------------------------------------------------------------


def run_server(scene, command, pattern=LISTENING, url=None, **options):
    """Starts a server, which tells its address if it is not `url`, and has our client talk to it."""
    with server(command, pattern, **options) as told:
        return stdio_client.facts(scene.mcp_ws, scene.start_proxy(url or told), scene.log)


@peer("server", "Python SDK 1.x, `websocket_server`", pypi("mcp[ws]"))
def python_server(scene):
    interpreter = scene.cache.python("sdk1", "mcp[ws]", "uvicorn", "websockets")
    return run_server(scene, [interpreter, HERE.parent / "server.py"])


def typescript_server(scene, major, sdk):
    folder = scene.cache.npm(f"server{major}", sdk, "mcp-websocket-transport", "ws")
    return run_server(scene, [tool("node"), "sdk.mjs", major], cwd=folder)


@peer("server", "TypeScript SDK 1.x over npm mcp-websocket-transport",
      f"{npm('@modelcontextprotocol/sdk')}, {npm('mcp-websocket-transport')}")
def typescript_server_1(scene):
    return typescript_server(scene, "1", "@modelcontextprotocol/sdk")


@peer("server", "TypeScript SDK 2.x over npm mcp-websocket-transport",
      f"{npm('@modelcontextprotocol/server')}, {npm('mcp-websocket-transport')}")
def typescript_server_2(scene):
    return typescript_server(scene, "2", "@modelcontextprotocol/server")


@peer("server", "supergateway, `--outputTransport ws`", npm("supergateway"))
def supergateway(scene):
    folder = scene.cache.npm("supergateway", "supergateway")
    port = scene.free_port()
    options = ["--outputTransport", "ws", "--port", port, "--messagePath", "/message"]
    command = [folder / "node_modules/.bin/supergateway", "--stdio", f"{sys.executable} {scene.stdio_server}", *options]
    url = f"ws://127.0.0.1:{port}/message"
    return run_server(scene, command, r"(WebSocket endpoint|Listening)", url, cwd=folder)


@peer("server", "tower-mcp", crate("tower-mcp"))
def tower_mcp_server(scene):
    return run_server(scene, [scene.cache.rust("tower_mcp", "tower-mcp"), "serve"])


@peer("server", "turbomcp", crate("turbomcp"))
def turbomcp_server(scene):
    return run_server(scene, [scene.cache.rust("turbomcp", "turbomcp"), "serve"])


peer("server", *KOTLIN)(kotlin)
