"""An OpenAI-compatible server that fails in every way, and writes down what it has served.

In a thread (`Served`), or as a process: `python sample_server.py FOLDER [MODE]` writes its port to FOLDER/port. Every
choice that is delivered whole is a line of FOLDER/served. A response is made of prompt, seed and index alone. MODE says
what goes wrong: "all" makes each prompt fail in ways of its own before it is answered, "one" gives one choice whatever
was asked, "strict" refuses n above 1 with 400, "filter" refuses prompts with "bad" in them, "down" answers nothing but
500, "slow" takes its time.
"""

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAYS = ("busy", "error", "timeout", "truncated", "cut", "few", "none", "many", "html", "null")
"""Per prompt, in turn: 429 with Retry-After, 500, no answer in time, half a JSON, half a body, fewer choices than asked
for, no choices, more choices, a page that is no JSON, and JSON without choices."""


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            attempt = self.server.seen[prompt]
            self.server.seen[prompt] += 1
        mode, count = self.server.mode, body.get("n", 1)
        way = WAYS[int(prompt.split()[-1]) % len(WAYS)] if mode == "all" and attempt < 2 else ""
        if mode == "slow":
            time.sleep(0.03)
        if way == "timeout":
            time.sleep(1.2)  # the client has gone
        elif mode == "filter" and "bad" in prompt:
            self.say(400, b'{"error": "The prompt was flagged by the content filter."}')
        elif mode == "strict" and count > 1:
            self.say(400, b'{"error": "n must be 1"}')
        elif mode == "down" or way == "error":
            self.say(500, b"oops")
        elif way == "busy":
            self.say(429, b"slow down", retry_after="0.01")
        elif way in ("html", "null"):
            self.say(200, b"<html>welcome</html>" if way == "html" else b'{"object": "error"}')
        else:
            count = 1 if mode == "one" or way == "few" else 0 if way == "none" else count + 2 * (way == "many")
            self.deliver(body, prompt, count, way)

    def deliver(self, body: dict[str, Any], prompt: str, count: int, way: str) -> None:
        text = self.answer(body, prompt, count)
        half = text[: len(text) // 2]
        if way in ("truncated", "cut"):
            self.say(200, half, length=len(text) if way == "cut" else None)
            return
        with self.server.lock, (self.server.folder / "served").open("a") as file:
            file.writelines(f"{prompt}/{body['seed']}/{index}\n" for index in range(count))
        self.say(200, text)

    def answer(self, body: dict[str, Any], prompt: str, count: int) -> bytes:
        choices: list[dict[str, Any]] = []
        for index in range(count):
            digest = hashlib.sha256(f"{prompt}/{body['seed']}/{index}".encode()).hexdigest()
            words = [f" {digest[:4]}", f" {digest[4:8]}"]
            said: dict[str, Any] = {"index": index, "finish_reason": "stop" if digest[8] < "8" else "length"}
            logps = [-int(digest[9], 16) / 8, -0.5]
            if "messages" in body:
                said["message"] = {"content": "".join(words)}
                listed = [{"token": word, "logprob": logp} for word, logp in zip(words, logps, strict=True)]
                said |= {"logprobs": {"content": listed}} if body.get("logprobs") else {}
            else:
                said["text"] = "".join(words)
                said |= {"logprobs": {"token_logprobs": logps}} if body.get("logprobs") else {}
            choices.append(said)
        return json.dumps({"choices": choices, "usage": {"completion_tokens": 2 * count}}).encode()

    def say(self, status: int, text: bytes, *, length: int | None = None, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) if length is None else length))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """The server, with what it was asked.

    Attributes:
        bodies: of all requests.
        seen: requests by prompt.
    """

    daemon_threads = True

    def __init__(self, folder: Path, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.mode = folder, mode
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.seen: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def served(self) -> list[str]:
        """What was delivered whole: prompt, seed and index of each choice."""
        file = self.folder / "served"
        return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    made = Server(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
    (made.folder / "port.partial").write_text(str(made.server_port))
    (made.folder / "port.partial").replace(made.folder / "port")
    made.serve_forever()
