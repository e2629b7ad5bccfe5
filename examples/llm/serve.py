"""An OpenAI-compatible server of the fine-tuned model, for the example: vLLM's and SGLang's stand-in.

`GET /health`, `GET /v1/models`, `POST /v1/completions` and `POST /v1/chat/completions`, with `"stream": true`
too. It serves the version of a model in `$QD_MODEL` on `$HOST:$PORT`.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ask import Chat

NAME = os.environ.get("MODEL_NAME", "llm")
chat = Chat(Path(os.environ["QD_MODEL"]))
one_at_a_time = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self.reply(404, {"error": {"message": f"no such path: {self.path}"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chatting = self.path == "/v1/chat/completions"
        if not chatting and self.path != "/v1/completions":
            self.reply(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        try:
            asked = json.loads(body)
            prompt = asked["messages"][-1]["content"] if chatting else asked["prompt"]
            most = min(int(asked.get("max_tokens") or 48), 96)
            if not isinstance(prompt, str) or len(prompt) > 64:
                raise ValueError("at most 64 characters of text")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.reply(400, {"error": {"message": f"bad request: {error}"}})
            return
        with one_at_a_time:
            pieces = chat.stream(prompt.rstrip("\n") + "\n", most)
            if asked.get("stream"):
                self.events(chatting, pieces)
            else:
                self.reply(200, self.document(chatting, "".join(pieces)))

    def document(
        self, chatting: bool, text: str, *, part: bool = False, ended: bool = True
    ) -> dict:
        choice: dict = {"index": 0, "finish_reason": "stop" if ended else None}
        if chatting:
            choice["delta" if part else "message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        kind = "chat.completion" if chatting else "text_completion"
        return {
            "id": f"cmpl-{uuid.uuid4().hex[:12]}",
            "object": kind + (".chunk" if part and chatting else ""),
            "created": int(time.time()),
            "model": NAME,
            "choices": [choice],
        }

    def events(self, chatting: bool, pieces) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            self.event(json.dumps(self.document(chatting, piece, part=True, ended=False)))
        self.event(json.dumps(self.document(chatting, "", part=True)))
        self.event("[DONE]")
        self.close_connection = True

    def event(self, text: str) -> None:
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def reply(self, status: int, document: dict) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Requests are counted at the front."""


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
