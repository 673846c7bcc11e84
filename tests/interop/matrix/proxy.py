"""A proxy between a client and a server, which records their messages, and can cut their connections."""

import contextlib
import json
import socket
import struct
import threading
import time
from urllib.parse import urlsplit


class Frames:
    """Takes the messages out of one direction of a WebSocket without extensions."""

    def __init__(self):
        self.bytes = b""
        self.head = None
        self.message = b""

    def feed(self, data):
        """Returns the messages that are complete."""
        self.bytes += data
        if self.head is None:
            head, end, rest = self.bytes.partition(b"\r\n\r\n")
            if not end:
                return []
            self.head, self.bytes = head.decode("latin-1"), rest
        return list(self._messages())

    def _messages(self):
        while len(self.bytes) >= 2:
            first, second = self.bytes[:2]
            length, at = second & 0x7F, 2
            if length >= 126:
                at = 4 if length == 126 else 10
                if len(self.bytes) < at:
                    return
                length = int.from_bytes(self.bytes[2:at], "big")
            mask = self.bytes[at : at + 4] if second & 0x80 else b""
            at += len(mask) if not second & 0x80 else 4
            if len(self.bytes) < at + length:
                return
            payload, self.bytes = self.bytes[at : at + length], self.bytes[at + length :]
            if mask:
                payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
            if first & 0x0F < 8:  # not a ping, a pong or a close
                self.message += payload
                if first & 0x80:
                    message, self.message = self.message, b""
                    yield message

    def header(self, name):
        """Returns the values of a header, joined as HTTP has it, or None."""
        fields = (line.split(":", 1) for line in (self.head or "").split("\r\n")[1:])
        values = [value.strip() for key, value in fields if key.lower() == name]
        return ", ".join(values) or None


class Connection:
    """One connection over the proxy, and its messages."""

    def __init__(self, near, far):
        self.sockets = near, far
        self.client, self.server = Frames(), Frames()
        self.sent = []  # by the client: objects of JSON-RPC
        self.received = []

    @property
    def offered(self):
        return self.client.header("sec-websocket-protocol")

    @property
    def answered(self):
        return self.server.header("sec-websocket-protocol")

    def note(self, frames, messages, data):
        for message in frames.feed(data):
            with contextlib.suppress(ValueError):  # what is not JSON is none of ours
                message = json.loads(message)
                messages.extend(message if isinstance(message, list) else [message])


class RecordingProxy:
    """Passes connections on to the server at `url`."""

    def __init__(self, url):
        target = urlsplit(url)
        self.target = target.hostname, target.port
        self.connections = []
        self.cut_at = None  # how many connections there were
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.url = target._replace(netloc=f"127.0.0.1:{port}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                connection = Connection(near, far)
                self.connections.append(connection)
                for source, sink, frames, messages in (
                    (near, far, connection.client, connection.sent),
                    (far, near, connection.server, connection.received),
                ):
                    arguments = connection, source, sink, frames, messages
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    @staticmethod
    def _pass(connection, source, sink, frames, messages):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                connection.note(frames, messages, data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self):
        """Resets every connection that there is."""
        self.cut_at = len(self.connections)
        self._reset()

    def wait_for_reconnect(self, seconds):
        """Waits for a connection after the cut, so that no call goes out on one that is dead."""
        end = time.monotonic() + seconds
        while len(self.connections) == self.cut_at and time.monotonic() < end:
            time.sleep(0.01)

    def _reset(self):
        for connection in self.connections:
            for end in connection.sockets:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
                    end.close()

    def close(self):
        """Ends the proxy, and all connections over it."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._reset()
