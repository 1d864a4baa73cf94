"""A stand-in for a server of embeddings with OpenAI's API: POST /v1/embeddings.

    python3 embedder.py PORT

It is no trained model: words and their neighbours are hashed into 256 places (the hashing trick),
so that texts with the same words are near each other and nothing else is. GET /health tells how
many texts it has embedded.
"""

import hashlib
import json
import math
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIZE = 256
lock = threading.Lock()
embedded = 0


def embed(text):
    words = re.findall(r"\w+", text.lower())
    vector = [0.0] * SIZE
    for feature in words + [" ".join(pair) for pair in zip(words, words[1:])]:
        digest = hashlib.sha256(feature.encode()).digest()
        vector[digest[0]] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"embedded": embedded})

    def do_POST(self):
        global embedded
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/embeddings":
            self.answer(404, {"error": {"message": "no such path",
                                        "type": "invalid_request_error"}})
            return
        try:
            request = json.loads(body)
            texts = request["input"]
            texts = [texts] if isinstance(texts, str) else texts
            vectors = [embed(t) for t in texts]
        except (ValueError, KeyError, TypeError, AttributeError):
            self.answer(400, {"error": {"message": "input: expected a text or a list of texts",
                                        "type": "invalid_request_error"}})
            return
        with lock:
            embedded += len(texts)
        tokens = sum(len(t.split()) for t in texts)
        self.answer(200, {
            "object": "list", "model": request.get("model", "hashing-256"),
            "data": [{"object": "embedding", "index": i, "embedding": v}
                     for i, v in enumerate(vectors)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    def answer(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
