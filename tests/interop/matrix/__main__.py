"""Makes the table of who talks to whom.

    python3 tests/interop/matrix [--only NAME]… [--update]

starts the `math` example and a server for stdio behind `mcp-ws serve`, has each peer in `peers.py` talk to them as a
client, has our client (`mcp-ws connect`) talk to each that is a server, and prints what came of it, as Markdown.
Clients list the tools, call one, follow the progress of another, answer what the server asks, and are cut off.

What the peers need is installed at run time, into `--cache`, in the versions of `versions.toml` and `rust/Cargo.toml`;
what cannot be had is skipped, and a line says why. It needs Python 3.11, cargo and, for most peers, Node.js.
It fails if a peer that is there cannot be used at all.
"""

import argparse
import contextlib
import datetime
import os
import platform
import re
import signal
import socket
import sys
from pathlib import Path

import table
from install import HERE, PROJECT, Cache, tool
from peers import LISTENING, PEERS
from processes import Unavailable, run, server
from proxy import RecordingProxy

PAGE = PROJECT / "src/guide/peers.md"
BEGIN, END = "<!-- tests/interop/matrix: begin -->\n", "<!-- tests/interop/matrix: end -->\n"


class Scene:
    """What all peers meet."""

    def __init__(self, cache, math, mcp_ws, log):
        self.cache = cache
        self.math_program, self.mcp_ws = math, mcp_ws
        self.log = log
        self.stdio_server = HERE / "servers/stdio.py"
        self.page_address = "127.0.0.1", self.free_port()
        self.origin = "http://{}:{}".format(*self.page_address)
        self.proxy = self.version = None

    @staticmethod
    def free_port():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return listener.getsockname()[1]

    @contextlib.contextmanager
    def servers(self):
        """Starts ours; pages of `origin` may connect to them."""
        options = ["--listen", "127.0.0.1:0", "--allow-origin", self.origin]
        math = [self.math_program, "serve", *options]
        asking = [self.mcp_ws, "serve", *options, "--", sys.executable, self.stdio_server]
        with server(math, LISTENING) as self.math_url, server(asking, LISTENING) as self.asking_url:
            yield

    def start_proxy(self, url):
        """Starts a proxy in front of a server, in place of the last one."""
        self.stop_proxy()
        self.proxy = RecordingProxy(url)
        return self.proxy

    def stop_proxy(self):
        if self.proxy:
            self.proxy.close()
            self.proxy = None


def rows(scene, role, wanted):
    """Returns the rows of a role, and the lines for what was skipped."""
    made, skipped = [], []
    for each, name, version, function in PEERS:
        if each != role or not any(word.lower() in name.lower() for word in wanted):
            continue
        scene.version = None
        scene.start_proxy(scene.math_url)
        try:
            version = version() if callable(version) else version
            facts = function(scene)
            made.append(table.row(name, version or scene.version, facts, scene.proxy))
            print(f"{role}: {' | '.join(made[-1])}\n  {facts}", file=sys.stderr)
        except Unavailable as why:
            skipped.append(f"- Skipped: {name}, as a {role}: {why}.")
            print(skipped[-1], file=sys.stderr)
        finally:
            scene.stop_proxy()
    return made, skipped


def program(cache, path, *build):
    """Returns one of our programs: that at `path`, or one that is built."""
    if path:
        return path.resolve()
    cache.build("--package", *build)
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")) / "debug"
    return target / ("mcp-ws" if build[0] == "mcp-ws" else "examples/math")


def machine():
    """Returns what the peers run on."""
    with contextlib.suppress(Unavailable):
        return f"Node.js {run([tool('node'), '--version'], 30).strip()[1:]}, Python {platform.python_version()}"
    return f"Python {platform.python_version()}"


def main():
    parser = argparse.ArgumentParser(prog="python3 tests/interop/matrix", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="peers whose name has this in it")
    parser.add_argument("--update", action="store_true", help=f"put the table into {PAGE.relative_to(PROJECT)}")
    parser.add_argument("--math", type=Path, metavar="FILE", help="the `math` example, which is built otherwise")
    parser.add_argument("--mcp-ws", type=Path, metavar="FILE", help="the program `mcp-ws`, likewise")
    parser.add_argument("--cargo", default="cargo", metavar="COMMAND")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=PROJECT / "target/interop",
                        help="where the peers are installed (target/interop)")
    options = parser.parse_args()
    if options.only and options.update:
        parser.error("--update is for the whole table")
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cache = Cache(options.cache, options.cargo)
    math = program(cache, options.math, "mcp-ws-transport", "--example", "math")
    mcp_ws = program(cache, options.mcp_ws, "mcp-ws")

    with open(cache.folder() / "log", "w") as log:
        scene = Scene(cache, math, mcp_ws, log)
        with scene.servers():
            wanted = options.only or [""]
            clients, without = rows(scene, "client", wanted)
            servers, without_too = rows(scene, "server", wanted)

    parts = [f"Made on {datetime.date.today()} by `python3 tests/interop/matrix`, with {machine()}."]
    for title, made in (("Clients, against our server", clients), ("Servers, for our client", servers)):
        if made:
            parts.append(f"# {title}\n\n{table.markdown(made)}")
    if without or without_too:
        parts.append("\n".join(without + without_too))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.update:
        page = PAGE.read_text()
        between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
        PAGE.write_text(between.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page))
    return any(made[4].startswith("no") for made in clients + servers)


sys.exit(main())
