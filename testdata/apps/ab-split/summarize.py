"""A summary of one sentence, by one of two versions, as an HTTP server.

    python3 summarize.py PORT 1|2

Version 1 takes the first sentence; version 2 the one whose words the rest repeats most.
"""

import collections
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def sentences(text):
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s.strip()]


def first(text):
    return (sentences(text) or [""])[0]


def most_repeated(text):
    counts = collections.Counter(re.findall(r"\w{4,}", text.lower()))

    def weight(sentence):
        found = re.findall(r"\w{4,}", sentence.lower())
        return sum(counts[w] - 1 for w in found) / (len(found) or 1)

    return max(sentences(text) or [""], key=weight)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"version": sys.argv[2]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        text = body.decode("utf-8", "replace")
        summarize = {"1": first, "2": most_repeated}[sys.argv[2]]
        self.answer({"version": sys.argv[2], "summary": summarize(text)})

    def answer(self, document):
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
