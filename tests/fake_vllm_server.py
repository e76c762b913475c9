"""A server on this machine's loopback that answers as vLLM 0.32.0 does, from a script, and fails when it is told to."""

import hashlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from paced_rl.generation.vllm_requests import WORKER_EXTENSION

EOS = 1
MAX_SECONDS = 20.0
"""Nothing here waits longer, whatever a test forgets."""


class Failure(Exception):  # noqa: N818
    """Raised by a test's `on_completion`: the server answers with this HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # what dying does to the connections
            super().handle_error(request, client_address)


def scripted_tokens(weights: str, prompt: tuple[int, ...], seed: int, max_tokens: int) -> tuple[list[int], list[float]]:
    """What a server with these weights gives: up to `max_tokens` ids of 4 and above, ended by EOS unless cut."""
    digest = hashlib.blake2b(repr((weights, prompt, seed)).encode()).digest()
    length = digest[0] % (2 * max_tokens) + 1
    ids = [4 + byte % 16 for byte in digest[1:length]][:max_tokens]
    if len(ids) < max_tokens:
        ids.append(EOS)
    return ids, [-byte / 64 for byte in digest[-len(ids) :]]


def weights_of(folder: Path) -> str:
    """What tells the weights of two folders apart."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


class FakeVllmServer:
    """Listens from its construction to `close`; a context manager. Everything it was asked is kept."""

    def __init__(
        self,
        *,
        dtype: str = "float32",
        logprobs_mode: str = "processed_logprobs",
        max_model_len: int = 128,
        extension: str = WORKER_EXTENSION,
        device: str = "cpu",
        on_completion: Callable[["FakeVllmServer", int], None] | None = None,
        edit: Callable[[dict[str, Any]], Any] = lambda answer: answer,
    ) -> None:
        """`on_completion(server, number)` is called before each completion; `edit` has the last word on its answer."""
        self.info = {
            "vllm_config": {
                "model_config": {
                    "dtype": f"torch.{dtype}",
                    "logprobs_mode": logprobs_mode,
                    "max_model_len": max_model_len,
                },
                "parallel_config": {"worker_extension_cls": extension},
                "device_config": {"device": device},
            },
            "vllm_env": {},
        }
        self.on_completion, self.edit = on_completion, edit
        self.version, self.weights, self.is_paused = "default", "start", False
        self.reload_error: str | None = None
        self.control: list[str] = []
        """Paths asked that are no completions, in order."""
        self.asked: list[tuple[tuple[int, ...], int]] = []
        """Prompt and seed of every completion asked for."""
        self.bodies: list[dict[str, Any]] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets every request that hangs end, and the port go."""
        self.released.set()
        self.die()

    def die(self) -> None:
        """Ends as a killed process does: nobody is answered any more, and connecting is refused."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Within `on_completion`: this request is not answered before the server is closed."""
        self.released.wait(MAX_SECONDS)

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """The content of the answer to one request."""
        if path == "/v1/completions":
            return self._complete(body)
        with self._lock:
            self.control.append(path if path != "/collective_rpc" else f"{path} {body['method']}")
            match path:
                case "/server_info":
                    return self.info
                case "/weight_info":
                    return {"weight_version": self.version}
                case "/update_weight_version":
                    self.version = body["new_version"]
                    return {"success": True, "new_version": self.version}
                case "/pause" | "/resume":
                    self.is_paused = path == "/pause"
                    return {"status": f"{path[1:]}d"}
                case "/collective_rpc":
                    if self.reload_error:
                        raise Failure(500, self.reload_error)
                    self.weights = weights_of(Path(body["kwargs"]["weights_path"]))
                    return {"results": [None]}
                case "/reset_prefix_cache":
                    return {"success": True}
        raise Failure(404, "Not Found")

    def _complete(self, body: dict[str, Any]) -> Any:
        prompt = tuple(body["prompt"])
        with self._lock:
            self.asked.append((prompt, body["seed"]))
            self.bodies.append(body)
            number = len(self.asked)
        if self.on_completion is not None:
            self.on_completion(self, number)
        if self.is_paused:
            self.hang()
        ids, log_probs = scripted_tokens(self.weights, prompt, body["seed"], body["max_tokens"])
        choice = {
            "index": 0,
            "text": "not read",
            "logprobs": {"token_logprobs": log_probs, "tokens": [f"token_id:{x}" for x in ids], "top_logprobs": []},
            "finish_reason": "stop" if ids[-1] == EOS else "length",
            "stop_reason": EOS if ids[-1] == EOS else None,
            "token_ids": ids,
            "prompt_token_ids": list(prompt),
        }
        return self.edit({"id": "cmpl-0", "object": "text_completion", "choices": [choice], "usage": {}})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = MAX_SECONDS
            wbufsize = -1  # head and content in one packet: the second would wait 40 ms for the first's acknowledgement

            def setup(self) -> None:
                super().setup()
                server._connections.add(self.connection)

            def finish(self) -> None:
                server._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                content = self.rfile.read(length)
                if len(content) == length:  # else the connection was cut
                    self._answer(json.loads(content) if content else {})

            def _answer(self, body: dict[str, Any]) -> None:
                try:
                    status, content = 200, server.answer(urlsplit(self.path).path, body)
                except Failure as failure:
                    status, content = failure.status, {"error": {"message": str(failure), "code": failure.status}}
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with suppress(OSError):  # nobody may be there any more
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
