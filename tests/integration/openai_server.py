# SPDX-License-Identifier: Apache-2.0
"""A small server of OpenAI's chat form that does what the question says; standard library only.

A question is a few words: ``say 5`` streams five words, ``whole`` answers in one piece, ``status
400 too long`` refuses, ``hang`` waits until its caller has gone, ``break 2`` closes the connection
after two words, ``fail 2`` sends an error then, ``die`` ends the server. Every other question is
repeated. ``GET /seen`` tells what it was asked.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SEEN: list[dict[str, Any]] = []
RUNNING: list[int] = []
ILL = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what is said to the journal is tested by itself."""

    def do_GET(self) -> None:
        """Health, figures, and what was seen."""
        if self.path == "/health":
            self.reply(503 if ILL.is_set() else 200, b"")
        elif self.path == "/metrics":
            self.reply(200, figures().encode())
        elif self.path == "/seen":
            self.reply(200, json.dumps(SEEN).encode())
        else:
            self.reply(404, b"")

    def do_POST(self) -> None:
        """A chat, or the news of a hot card."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        record: dict[str, Any] = {"path": self.path, "headers": dict(self.headers)}
        SEEN.append(record)
        if not self.path.endswith("/chat/completions"):
            self.reply(200, b"{}")
            return
        record["body"] = document = json.loads(body)
        RUNNING.append(1)
        try:
            self.obey(question_of(document), record)
        except OSError:
            record["gone"] = True
        finally:
            RUNNING.pop()

    def obey(self, question: str, record: dict[str, Any]) -> None:
        """Answer as the question says."""
        print(f"asked: {question}", flush=True)
        word, _, rest = question.partition(" ")
        if word == "status":
            status, _, text = rest.partition(" ")
            error = {"message": text, "type": "invalid_request_error", "param": "messages"}
            self.reply(int(status), json.dumps({"error": error}).encode())
        elif word == "whole":
            choice = {"message": {"content": "all at once"}, "finish_reason": "length"}
            self.reply(200, json.dumps({"choices": [choice]}).encode())
        elif word == "hang":
            record["waits"] = True
            record["gone"] = self.connection.recv(1) == b""
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "garbage":
            self.connection.sendall(b"this is no HTTP\r\n\r\n")
            self.close_connection = True
        elif word == "close":
            self.close_connection = True
        elif word == "ill":
            ILL.set()
            self.stream(["ill"])
        elif word in ("break", "fail"):
            self.stream([f"{n} " for n in range(int(rest))], ends=word)
        elif word == "slow":
            self.stream([f"{n} " for n in range(int(rest))], pause_seconds=0.02)
        elif word == "say":
            self.stream([f"{n} " for n in range(int(rest))])
        else:
            self.stream([question])

    def stream(self, words: list[str], ends: str = "well", pause_seconds: float = 0) -> None:
        """The words as events; then the end, an error, or nothing at all."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for word in words:
            self.event({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            time.sleep(pause_seconds)
        if ends == "break":
            self.close_connection = True
            return
        if ends == "fail":
            self.event({"error": {"message": "the engine is dead", "code": 500}})
            self.event("[DONE]")
        else:
            self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            self.event({"choices": [], "usage": usage(words)})
            self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, data: Any) -> None:
        """One event, cut in the middle, as a network may."""
        text = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        for part in (text[:7], text[7:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

    def reply(self, status: int, body: bytes) -> None:
        """An answer in one piece."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def usage(words: list[str]) -> dict[str, int]:
    """As many tokens as words."""
    return {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}


def question_of(document: dict[str, Any]) -> str:
    """The text of the newest message; its images are told of by their number."""
    content = document["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content if part["type"] == "text"]
    images = [part for part in content if part["type"] == "image_url"]
    return " ".join(texts) or f"{len(images)} images"


def figures() -> str:
    """As vLLM writes them."""
    return (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        f'vllm:num_requests_running{{engine="0",model_name="m {{x}}"}} {len(RUNNING):.1f}\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
    )


def main() -> int:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fail", default="", help="end at once, and say so")
    parser.add_argument("--wait-for", default="", help="a FIFO that opens before it listens")
    parser.add_argument(
        "--child", action="store_true", help="leave a child in a session of its own"
    )
    parser.add_argument("--stubborn", action="store_true", help="disregard SIGTERM")
    arguments, others = parser.parse_known_args()
    print("other arguments:", *others, flush=True)
    if arguments.fail:
        print(arguments.fail, flush=True)
        return 3
    if arguments.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if arguments.child:
        child = subprocess.Popen(["sleep", "9005"], start_new_session=True)
        print(f"child {child.pid}", flush=True)
    print(f"starts with {os.environ.get('GREETING', 'no greeting')}", flush=True)
    if arguments.wait_for:
        with Path(arguments.wait_for).open("rb", buffering=0) as gate:
            gate.read(1)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128  # 5 is fewer than come at once
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
