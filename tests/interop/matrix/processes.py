"""Programs that are started, watched and ended: none outlives its block, and none its time."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time


class Unavailable(Exception):
    """What a peer needs cannot be had; why, in one line."""


def last_words(text, limit=160):
    """Returns the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:limit] if lines else "it said nothing"


def end(process):
    """Ends a program with all that it has started, and waits for it."""
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def started(command, **options):
    """A program in a process group of its own, which ends with the block; its standard error goes to a pipe."""
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    command = [str(word) for word in command]
    try:
        process = subprocess.Popen(command, text=True, start_new_session=True, **{**pipes, **options})
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}") from None
    try:
        yield process
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                pipe and pipe.close()


def run(command, seconds, **options):
    """Runs a program to its end, and returns what it wrote; its failure is `Unavailable`."""
    with started(command, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]} took more than {seconds} s") from None
        if process.returncode:
            raise Unavailable(f"{command[0]}: {last_words(stderr or stdout)}")
        return stdout


class Lines:
    """The lines that a program writes, by a thread of their own, so that waiting for one has an end."""

    def __init__(self, process, seconds):
        self.end = time.monotonic() + seconds
        self.errors = []
        self.queue = queue.Queue()
        self._follow(process.stdout, self.queue.put)
        self._follow(process.stderr, self.errors.append)

    def _follow(self, pipe, take):
        def follow():
            with contextlib.suppress(ValueError):
                for line in pipe:
                    take(line)
            if pipe_is_output:
                self.queue.put(None)

        pipe_is_output = take == self.queue.put
        if pipe is not None:
            threading.Thread(target=follow, daemon=True).start()

    def __iter__(self):
        return self

    def __next__(self):
        """Returns the next line; raises `TimeoutError` at the end of the program's time."""
        try:
            line = self.queue.get(timeout=max(0, self.end - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            raise StopIteration
        return line


@contextlib.contextmanager
def server(command, pattern, seconds=30, **options):
    """A server, and what `pattern` finds in its first lines."""
    with started(command, **options) as process:
        lines = Lines(process, seconds)
        try:
            found = next((match for line in lines if (match := re.search(pattern, line))), None)
        except TimeoutError:
            raise Unavailable(f"{command[0]} did not start within {seconds} s") from None
        if found is None:
            raise Unavailable(f"{command[0]}: {last_words(''.join(lines.errors))}")
        yield found.group(found.lastindex or 0)


def facts_of(command, seconds, cut, **options):
    """Runs a client, and returns what it tells: an object on each line, all taken together.

    `{"cut": true}` asks for its connection to be cut, and is answered by a line when it has been.
    """
    facts = {}
    with started(command, **options) as process:
        lines = Lines(process, seconds)
        try:
            for line in lines:
                fact = json.loads(line) if line.startswith("{") else {}
                if fact.pop("cut", False):
                    cut()
                    with contextlib.suppress(OSError):  # it has ended: the facts that are missing show that
                        process.stdin.write("\n")
                        process.stdin.flush()
                facts |= fact
        except TimeoutError:
            facts.setdefault("error", f"was not done after {seconds} s")
        if not facts:
            facts["error"] = last_words("".join(lines.errors))
    return facts
