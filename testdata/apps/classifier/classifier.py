"""A FastAPI application as the ingress: naive Bayes over short texts, trained when it starts."""

import math
from typing import Dict, List

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from ray import serve

EXAMPLES = {
    "sport": ["the team won the final match", "a late goal decided the game",
              "she ran the fastest race of the season", "the coach changed the defence"],
    "weather": ["rain and strong wind in the north", "a sunny day with light clouds",
                "snow is expected in the hills tonight", "the storm brings heavy rain"],
    "food": ["bake the bread in a hot oven", "fresh tomatoes with salt and oil",
             "the soup needs more pepper", "a sweet cake with lemon"],
}

api = FastAPI(title="classifier")


class Text(BaseModel):
    text: str = Field(min_length=1, max_length=2000)


class Verdict(BaseModel):
    label: str
    confidence: float


@serve.deployment
@serve.ingress(api)
class Classifier:
    def __init__(self) -> None:
        self.counts: Dict[str, Dict[str, int]] = {}
        vocabulary = set()
        for label, texts in EXAMPLES.items():
            count: Dict[str, int] = {}
            for word in " ".join(texts).split():
                count[word] = count.get(word, 0) + 1
                vocabulary.add(word)
            self.counts[label] = count
        self.vocabulary = len(vocabulary)

    def log_likelihood(self, words: List[str], label: str) -> float:
        count = self.counts[label]
        total = sum(count.values()) + self.vocabulary
        return sum(math.log((count.get(w, 0) + 1) / total) for w in words)

    @api.get("/labels")
    def labels(self) -> List[str]:
        return sorted(self.counts)

    @api.get("/labels/{label}")
    def examples(self, label: str) -> List[str]:
        if label not in EXAMPLES:
            raise HTTPException(404, "no label %r" % label)
        return EXAMPLES[label]

    @api.post("/classify", response_model=Verdict)
    async def classify(self, body: Text) -> Verdict:
        words = body.text.lower().split()
        scores = {label: self.log_likelihood(words, label) for label in self.counts}
        best = max(sorted(scores), key=lambda label: scores[label])
        total = sum(math.exp(s - scores[best]) for s in scores.values())
        return Verdict(label=best, confidence=round(1 / total, 3))


app = Classifier.bind()
