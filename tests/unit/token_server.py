"""A token endpoint on a socket."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


def answer(status=200, headers=None, **fields):
    """Returns what a server answers: status, headers, body."""
    return status, headers or {}, json.dumps(fields).encode()


def token(n, **fields):
    """Returns a good answer with the n-th token."""
    return answer(**({"access_token": f"token-{n}", "token_type": "Bearer", "expires_in": 100} | fields))


class Request:
    """What came in."""

    def __init__(self, path, headers, form):
        self.path = path
        self.headers = headers
        self.form = {name: values[0] for name, values in parse_qs(form, keep_blank_values=True).items()}

    @property
    def login(self):
        """The two halves of the Basic credentials, as they were sent."""
        return base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode().split(":")


class TokenServer(ThreadingHTTPServer):
    """Answers what `reply(n)` returns to the n-th request, once `open` is set: bytes go out as they are."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}/token"
        self.reply = token
        self.requests = []
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """Says nothing: clients that go away are what some tests are about."""

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.open.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    def do_POST(self):
        """Answers a request for a token."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.server.lock:
            self.server.requests.append(Request(self.path, self.headers, form))
            reply = self.server.reply(len(self.server.requests))
        self.server.arrived.release()
        self.server.open.wait(30)
        with contextlib.suppress(OSError):
            if isinstance(reply, bytes):
                self.wfile.write(reply)
                return
            status, headers, body = reply
            self.send_response(status)
            for name, value in ({"Content-Length": len(body), "Content-Type": "application/json"} | headers).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format, *args):  # noqa: A002 - the base class calls it so
        """Says nothing."""


def server_tls(cert_file, key_file):
    """Returns a server's TLS context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context
