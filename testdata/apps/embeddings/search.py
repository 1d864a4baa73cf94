"""Answers questions from the notes beside this file: embeds them, retrieves by meaning, quotes.

    rserve run testdata/apps/embeddings/app.yaml
    curl 'http://127.0.0.1:8000/?question=how+do+animals+get+through+the+winter'
"""

import pathlib
import re

import numpy as np
from ray import serve

NOTES = pathlib.Path(__file__).with_name("notes")


@serve.deployment
class Encoder:
    """Text to vectors. Requests that come together are encoded together."""

    def __init__(self):
        from minilm import MiniLM

        self.model = MiniLM()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def encode_one(self, texts):
        return list(self.model.encode(texts))

    async def __call__(self, text):
        return await self.encode_one(text)

    def encode_all(self, texts):
        return self.model.encode(texts)


@serve.deployment
class Index:
    """The sentences of all notes and their vectors, searched by similarity."""

    async def __init__(self, encoder):
        self.sentences = []
        for path in sorted(NOTES.glob("*.txt")):
            for sentence in re.split(r"(?<=[.?!])\s+", path.read_text(encoding="utf-8").strip()):
                self.sentences.append((path.stem, sentence))
        self.vectors = await encoder.encode_all.remote([s for _, s in self.sentences])

    def nearest(self, vector, count=3):
        scores = self.vectors @ vector
        best = np.argsort(-scores)[:count]
        return [(*self.sentences[i], float(scores[i])) for i in best]


@serve.deployment
class Search:
    def __init__(self, encoder, index):
        self.encoder = encoder
        self.index = index

    async def __call__(self, request):
        question = request.query_params.get("question", "")
        if not question:
            return {"error": "ask with ?question=..."}
        # The vector goes from the encoder to the index; this process never holds it.
        found = await self.index.nearest.remote(self.encoder.remote(question))
        return {"question": question, "answer": found[0][1],
                "sources": [{"note": n, "text": t, "score": round(s, 3)} for n, t, s in found]}


encoder = Encoder.bind()
app = Search.bind(encoder, Index.bind(encoder))
