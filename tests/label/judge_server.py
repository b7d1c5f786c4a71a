"""An OpenAI-compatible server as a process of its own, which counts the calls that it gets.

`python judge_server.py FOLDER [MODE]` writes its port to FOLDER/port and one line a call to FOLDER/calls. It prefers
the longer first "better" text (or answer); MODE "place" always names A, "text" gives no probabilities, "vague" answers
some questions with no letter, "busy" refuses each question once (429, then 408), "void" says nothing once, and to some
always, "filter" refuses some questions with 400, "new" refuses all that give max_tokens, "locked" refuses all, "mute"
gives some questions an empty text, "prose" begins with an article, "hm" never decides. FOLDER/mended changes "filter",
"mute", "hm" and "vague" to a server that answers.

It also has files and batches, in FOLDER/batches with one line a batch. They are done at once, or with MODE "slow" when
FOLDER/ready is there. MODE "dropped" makes a batch and breaks the connection, "partly" has an error for some rows once
and for some always, "expired" answers only half of the rows of the first batch, "invalid" refuses every batch.
"""

import json
import math
import re
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER, MODE = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
SEEN: Counter[str] = Counter()


def answer(body: dict[str, Any]) -> dict[str, Any]:
    content = body["messages"][0]["content"]
    tags = "better" if "<better>" in content else 'answer name="[AB]"'
    texts = re.findall(rf"<(?:{tags})>\n(.*?)\n</", content, re.S)
    gap = 0.3 * (len(texts[0]) - len(texts[1]))
    p = 0.9 if MODE == "place" else 1 / (1 + math.exp(-gap))
    letter = "A" if p >= 0.5 else "B"
    broken = not (FOLDER / "mended").exists()
    vague = broken and ((MODE == "vague" and "vague" in content) or MODE == "hm")
    choice: dict[str, Any] = {"message": {"content": "Both have merits." if vague else letter}}
    if MODE == "mute" and "vague" in content and broken:
        choice = {"message": {"content": ""}, "finish_reason": "length"}
    if MODE == "prose":
        return prose(letter, p)
    if MODE != "text" and body.get("logprobs") and not vague:
        listed = [("A", p * 0.7), (" A", p * 0.2), ("B", (1 - p) * 0.9), ("The", 0.1)]
        top = [{"token": token, "logprob": math.log(max(mass, 1e-9))} for token, mass in listed]
        choice["logprobs"] = {"content": [{"token": letter, "logprob": math.log(0.5), "top_logprobs": top}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 1}}


def prose(letter: str, p: float) -> dict[str, Any]:
    """A sentence whose first token is an article, likelier than "B"; p stands at the verdict."""
    tokens = ["A", " careful", " look", ":", " the", " answer", " is", f" {letter}", "."]
    content: list[dict[str, Any]] = []
    for token in tokens:
        top = [{"token": token, "logprob": math.log(0.98)}, {"token": "B", "logprob": math.log(0.01)}]
        if token.strip() == letter and token != "A":
            top = [{"token": " A", "logprob": math.log(p)}, {"token": " B", "logprob": math.log(1 - p)}]
        content.append({"token": token, "logprob": top[0]["logprob"], "top_logprobs": top})
    choice = {"message": {"content": "".join(tokens)}, "logprobs": {"content": content}}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": len(tokens)}}


def refusal(raw: str, seen: int) -> tuple[int, str] | None:
    """Status and message of a request that is refused."""
    if MODE == "busy" and seen < 2:
        return (429, 408)[seen], "busy"
    if MODE == "filter" and "vague" in raw and not (FOLDER / "mended").exists():
        return 400, "The prompt was flagged by the content filter."
    if MODE == "new" and "max_tokens" in json.loads(raw):
        return 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    return (401, "wrong key") if MODE == "locked" else None


FILES: dict[str, bytes] = {}
BATCHES: dict[str, dict[str, Any]] = {}


def make_batch(body: dict[str, Any]) -> dict[str, Any]:
    """A batch of an uploaded file; its rows are answered now."""
    rows = [json.loads(line) for line in FILES[body["input_file_id"]].splitlines()]
    with (FOLDER / "batches").open("a") as file:
        file.write(json.dumps([row["custom_id"] for row in rows]) + "\n")
    batch: dict[str, Any] = {"id": f"batch_{len(BATCHES)}", "metadata": body["metadata"], "status": "completed"}
    good, bad = [], []
    for place, row in enumerate(rows):
        raw = json.dumps(row["body"])
        failing = MODE == "partly" and ("vague" in raw or (place % 3 == 0 and not BATCHES))
        if MODE == "expired" and not BATCHES and place % 2:
            batch["status"] = "expired"
        elif failing:
            status = 400 if "vague" in raw else 500
            error = {"error": {"message": "flagged by the content filter" if status == 400 else "overloaded"}}
            bad.append({"custom_id": row["custom_id"], "response": {"status_code": status, "body": error}})
        else:
            said = {"status_code": 200, "body": answer(row["body"])}
            good.append({"custom_id": row["custom_id"], "response": said, "error": None})
    for name, lines in (("output_file_id", good), ("error_file_id", bad)):
        if lines:
            batch[name] = f"file-{len(FILES)}"
            FILES[batch[name]] = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
    if MODE == "invalid":
        batch |= {"status": "failed", "errors": {"data": [{"message": "model not found in batch"}]}}
    batch["request_counts"] = {"total": len(rows), "completed": len(good), "failed": len(bad)}
    BATCHES[batch["id"]] = batch
    return batch


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/v1/")
        said: Any = {"data": list(BATCHES.values()), "has_more": False}
        if path.startswith("files/"):
            said = FILES[path.split("/")[1]]
        elif path.startswith("batches/"):
            said = dict(BATCHES[path.split("/")[1]])
            if MODE == "slow" and not (FOLDER / "ready").exists():
                said["status"] = "in_progress"
        self.reply(said if isinstance(said, bytes) else json.dumps(said).encode())

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            self.upload(raw)
        elif self.path == "/v1/batches":
            made = make_batch(json.loads(raw))
            if MODE == "dropped" and len(BATCHES) == 1:
                self.connection.close()
            else:
                self.reply(json.dumps(made).encode())
        else:
            self.chat(raw)

    def upload(self, raw: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        part = next(part for part in raw.split(b"--" + boundary) if b'name="file"' in part)
        name = f"file-{len(FILES)}"
        FILES[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        self.reply(json.dumps({"id": name}).encode())

    def chat(self, raw: bytes) -> None:
        with (FOLDER / "calls").open("ab") as file:
            file.write(raw.replace(b"\n", b" ") + b"\n")
        key = raw.decode()
        refused = refusal(key, SEEN[key])
        void = MODE == "void" and ("vague" in key or not SEEN[key])
        SEEN[key] += 1
        self.send_response(refused[0] if refused else 200)
        if refused:
            self.send_header("Retry-After", "0")
        self.end_headers()
        said: dict[str, Any] = {"error": {"message": refused[1]}} if refused else answer(json.loads(raw))
        self.wfile.write(b"" if void else json.dumps(said).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    (FOLDER / "port.partial").write_text(str(server.server_port))
    (FOLDER / "port.partial").replace(FOLDER / "port")
    server.serve_forever()
