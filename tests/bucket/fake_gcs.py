"""A small stand-in for Cloud Storage: what TensorStore asks of its JSON interface."""

import http.server
import json
import pathlib
import threading
import urllib.parse
from collections.abc import Callable

Refuse = Callable[[str, str], int | None]


class FakeStorage(http.server.ThreadingHTTPServer):
    """One bucket, called ``bucket``, on a free port of this machine.

    Args:
        refuse: called with the method and the object's name of every request; a number
            is the HTTP status that it is answered with.

    Attributes:
        objects: generation and content of each, by name.
        requests: method and name of all that were asked.
        loses_answer: as ``refuse``; whether a write is done, and answered with 503.
    """

    daemon_threads = True

    def __init__(self, refuse: Refuse = lambda method, name: None) -> None:
        """Listen, in a thread."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuse = refuse
        self.loses_answer: Callable[[str, str], bool] = lambda method, name: False
        self.requests: list[tuple[str, str]] = []
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.generation = 1_000_000
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def copy_to(self, folder: pathlib.Path, prefix: str) -> None:
        """Write the objects with a prefix as files."""
        for name, (_, content) in self.objects.items():
            if name.startswith(prefix):
                path = folder / name.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests for objects."""

    protocol_version = "HTTP/1.1"
    server: FakeStorage

    def do_GET(self) -> None:
        """Give one object, or the names of those with a prefix."""
        name, query = self._asked()
        if self._is_refused(name):
            return
        with self.server.lock:
            objects = dict(self.server.objects)
        if name:
            found = objects.get(name)
            if found is None:
                self._answer(404, b"{}")
            else:
                self._answer(200, found[1], generation=found[0])
            return
        prefix, start = query.get("prefix", ""), query.get("startOffset", "")
        end = query.get("endOffset", "\U0010ffff")
        items = [
            {"name": name, "size": str(len(content)), "generation": str(generation)}
            for name, (generation, content) in sorted(objects.items())
            if name.startswith(prefix) and start <= name < end
        ]
        self._answer(200, json.dumps({"items": items}).encode())

    def do_POST(self) -> None:
        """Write an object whole."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, query = self._asked()
        name = query["name"]
        if self._is_refused(name) or not self._is_met(name, query):
            return
        with self.server.lock:
            self.server.generation += 1
            generation = self.server.generation
            self.server.objects[name] = generation, content
        if self.server.loses_answer(self.command, name):
            self._answer(503, b"{}")
            return
        about = {"name": name, "generation": str(generation), "size": len(content)}
        self._answer(200, json.dumps(about).encode())

    def do_DELETE(self) -> None:
        """Remove an object."""
        name, query = self._asked()
        if self._is_refused(name) or not self._is_met(name, query):
            return
        with self.server.lock:
            found = self.server.objects.pop(name, None)
        self._answer(204 if found else 404, b"")

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _asked(self) -> tuple[str, dict[str, str]]:
        """The name of the object, and what follows the question mark."""
        path, _, query = self.path.partition("?")
        name = path.partition("/b/bucket/o/")[2]
        return urllib.parse.unquote(name), dict(urllib.parse.parse_qsl(query))

    def _is_refused(self, name: str) -> bool:
        """Answer as the test wants it, or because there is no such bucket."""
        self.server.requests.append((self.command, name))
        status = self.server.refuse(self.command, name)
        if status is None and "/b/bucket/o" not in self.path:
            status = 404
        if status is not None:
            self._answer(status, json.dumps({"error": {"code": status}}).encode())
        return status is not None

    def _is_met(self, name: str, query: dict[str, str]) -> bool:
        """Whether the generation is the one that a write expects; 0 for no object."""
        wanted = query.get("ifGenerationMatch")
        with self.server.lock:
            generation, _ = self.server.objects.get(name, (0, b""))
        if wanted is None or int(wanted) == generation:
            return True
        self._answer(412, b"{}")
        return False

    def _answer(self, status: int, content: bytes, *, generation: int = 0) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if generation:
            self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        self.wfile.write(content)
