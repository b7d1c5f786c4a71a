"""A server in a thread that rates, as a test wants it."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """An OpenAI-compatible server whose answer to a request body is up to the test: (status, text)."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, Any], int], tuple[int, str]] = lambda body, number: (200, "Rating: 7")
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append(dict(self.headers))
                status, text = server.answer(body, len(server.bodies))
                content = (
                    text
                    if status != 200
                    else json.dumps(
                        {
                            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                            "usage": {"prompt_tokens": 100, "completion_tokens": 1},
                        }
                    )
                )
                if text == "garbage":
                    content = "<html>"
                self.send_response(status if self.path == "/v1/chat/completions" else 404)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def by_length(body: dict[str, Any], number: int) -> tuple[int, str]:
    answer = body["messages"][0]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
    return 200, f"Rating: {len(answer)}"
