"""One of three small text classifiers, trained on reviews.json when it starts, as an HTTP server.

    python3 model.py PORT bayes|centroid|words

POST / with {"text": ...} answers {"label": "good" or "bad", "score": how sure, 0.5 to 1}.
"""

import collections
import json
import math
import pathlib
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVIEWS = json.loads(pathlib.Path(__file__).with_name("reviews.json").read_text(encoding="utf-8"))
LABELS = sorted(REVIEWS)


def words(text):
    return re.findall(r"[a-z']+", text.lower())


class Bayes:
    """Naive Bayes over words, with one added to each count."""

    def __init__(self):
        self.counts = {label: collections.Counter(w for t in REVIEWS[label] for w in words(t))
                       for label in LABELS}
        self.known = len(set().union(*self.counts.values()))

    def scores(self, text):
        logs = {label: sum(math.log((c[w] + 1) / (sum(c.values()) + self.known))
                           for w in words(text)) for label, c in self.counts.items()}
        top = max(logs.values())
        return {label: math.exp(v - top) for label, v in logs.items()}


class Centroid:
    """Letters in threes; whose mean is nearer by angle."""

    def __init__(self):
        self.means = {label: self.vector(" ".join(REVIEWS[label])) for label in LABELS}

    @staticmethod
    def vector(text):
        padded = " %s " % " ".join(words(text))
        return collections.Counter(padded[i:i + 3] for i in range(len(padded) - 2))

    def scores(self, text):
        v = self.vector(text)
        size = math.sqrt(sum(n * n for n in v.values())) or 1
        return {label: sum(v[k] * m[k] for k in v) / size
                / math.sqrt(sum(n * n for n in m.values())) for label, m in self.means.items()}


class Words:
    """Words that only one label uses."""

    def __init__(self):
        seen = {label: {w for t in REVIEWS[label] for w in words(t)} for label in LABELS}
        self.own = {label: seen[label] - set().union(*(seen[o] for o in LABELS if o != label))
                    for label in LABELS}

    def scores(self, text):
        return {label: 1 + sum(w in own for w in words(text)) for label, own in self.own.items()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None

    def do_GET(self):
        self.answer(200, {"ready": True})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            text = json.loads(body)["text"]
            assert isinstance(text, str)
        except (ValueError, KeyError, TypeError, AssertionError):
            self.answer(400, {"error": 'send {"text": "..."}'})
            return
        scores = self.model.scores(text)
        label = max(LABELS, key=lambda name: scores[name])
        self.answer(200, {"label": label, "score": round(scores[label] / sum(scores.values()), 3)})

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
    Handler.model = {"bayes": Bayes, "centroid": Centroid, "words": Words}[sys.argv[2]]()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
