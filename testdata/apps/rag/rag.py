"""Retrieval-augmented generation in four deployments, without a model or a dependency.

RagPipeline takes a question over HTTP and calls Normalizer, Retriever and Generator in turn. What
they do is small and deterministic: words are stemmed roughly, passages are ranked by the rarity of
the words that they share with the question, and the answer is the best sentence with its sources.
"""

import math
import re
from typing import Any, Dict, List, Tuple

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from passages import PASSAGES

STOP_WORDS = frozenset(
    "a an and are as at be by can do does for from has have how in is it its of on or that the "
    "their there they this to was we what when where which who why will with you your".split())
WORD = re.compile(r"[a-z0-9]+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def stem(word: str) -> str:
    """Good enough to let "purring" meet "purr" and "cities" meet "city"."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for suffix in ("ing", "ed", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[:-len(suffix)]
    return word


def terms_of(text: str) -> List[str]:
    return [stem(w) for w in WORD.findall(text.lower()) if w not in STOP_WORDS]


@serve.deployment
class Normalizer:
    """Turns a question into the terms to look for."""

    def __call__(self, question: str) -> List[str]:
        return terms_of(question)


@serve.deployment
class Retriever:
    """Holds the index and finds the passages that share the most telling terms."""

    def __init__(self, passages: Dict[str, str], keep: int = 2) -> None:
        self.passages = passages
        self.keep = keep
        self.terms = {title: frozenset(terms_of(title + " " + text))
                      for title, text in passages.items()}
        seen: Dict[str, int] = {}
        for terms in self.terms.values():
            for term in terms:
                seen[term] = seen.get(term, 0) + 1
        self.weight = {t: math.log(1 + len(passages) / n) for t, n in seen.items()}

    def reconfigure(self, config: Dict[str, Any]) -> None:
        self.keep = int(config.get("keep", self.keep))

    def score(self, title: str, terms: List[str]) -> float:
        return sum(self.weight[t] for t in set(terms) & self.terms[title])

    def __call__(self, terms: List[str]) -> List[Dict[str, Any]]:
        ranked: List[Tuple[float, str]] = sorted(
            ((-self.score(title, terms), title) for title in self.passages))
        return [{"title": title, "text": self.passages[title], "score": round(-score, 3)}
                for score, title in ranked[:self.keep] if score < 0]


@serve.deployment
class Generator:
    """Writes the answer from a template: the sentence that says the most about the question."""

    def __init__(self, nothing_found: str) -> None:
        self.nothing_found = nothing_found

    async def __call__(self, terms: List[str], passages: List[Dict[str, Any]]) -> str:
        if not passages:
            return self.nothing_found
        wanted = set(terms)
        sentences = SENTENCE.split(passages[0]["text"])
        best = max(sentences, key=lambda s: len(wanted.intersection(terms_of(s))))
        return "%s [%s]" % (best, passages[0]["title"])


@serve.deployment
class RagPipeline:
    """The ingress: GET /?question=... or POST {"question": ...}."""

    def __init__(self, normalizer: DeploymentHandle, retriever: DeploymentHandle,
                 generator: DeploymentHandle) -> None:
        self.normalizer = normalizer
        self.retriever = retriever
        self.generator = generator

    async def question_of(self, request: Request) -> str:
        if request.method != "POST":
            return request.query_params.get("question", "")
        try:
            asked = await request.json()
        except ValueError:
            return ""
        question = asked.get("question") if isinstance(asked, dict) else None
        return question if isinstance(question, str) else ""

    async def __call__(self, request: Request) -> Any:
        question = (await self.question_of(request)).strip()
        if not question:
            return JSONResponse({"error": 'ask with ?question=... or POST {"question": "..."}'},
                                status_code=400)
        terms = await self.normalizer.remote(question)
        passages = await self.retriever.remote(terms)
        answer = await self.generator.remote(terms, passages)
        return {"question": question, "answer": answer,
                "sources": [{"title": p["title"], "score": p["score"]} for p in passages]}


app = RagPipeline.bind(
    Normalizer.bind(),
    Retriever.bind(PASSAGES),
    Generator.bind("I found nothing about that in my passages."),
)
