"""An OpenAI-compatible server as a process of its own, which counts the calls that it gets.

`python judge_server.py FOLDER [MODE]` writes its port to FOLDER/port and one line a call to FOLDER/calls. It prefers
the longer first "better" text (or answer); MODE "place" always names A, "text" gives no probabilities, "vague" answers
some questions with no letter, "busy" refuses each question once, "void" says nothing once, and to some always.
"""

import json
import math
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER, MODE = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
SEEN: set[str] = set()


def answer(body: dict[str, Any]) -> dict[str, Any]:
    content = body["messages"][0]["content"]
    tags = "better" if "<better>" in content else 'answer name="[AB]"'
    texts = re.findall(rf"<(?:{tags})>\n(.*?)\n</", content, re.S)
    gap = 0.3 * (len(texts[0]) - len(texts[1]))
    p = 0.9 if MODE == "place" else 1 / (1 + math.exp(-gap))
    letter = "A" if p >= 0.5 else "B"
    vague = MODE == "vague" and "vague" in content
    choice: dict[str, Any] = {"message": {"content": "Both have merits." if vague else letter}}
    if MODE != "text" and body.get("logprobs") and not vague:
        listed = [("A", p * 0.7), (" A", p * 0.2), ("B", (1 - p) * 0.9), ("The", 0.1)]
        top = [{"token": token, "logprob": math.log(max(mass, 1e-9))} for token, mass in listed]
        choice["logprobs"] = {"content": [{"token": letter, "logprob": math.log(0.5), "top_logprobs": top}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        with (FOLDER / "calls").open("ab") as file:
            file.write(raw.replace(b"\n", b" ") + b"\n")
        key = raw.decode()
        busy = MODE == "busy" and key not in SEEN
        void = MODE == "void" and ("vague" in key or key not in SEEN)
        SEEN.add(key)
        self.send_response(429 if busy else 200)
        if busy:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b"" if busy or void else json.dumps(answer(json.loads(raw))).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    (FOLDER / "port.partial").write_text(str(server.server_port))
    (FOLDER / "port.partial").replace(FOLDER / "port")
    server.serve_forever()
