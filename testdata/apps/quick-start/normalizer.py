"""Quick start: one deployment that tidies up text, set up by app.yaml."""

import unicodedata
from typing import Any, Dict

from ray import serve
from starlette.requests import Request


@serve.deployment
class Normalizer:
    """Folds case, accents and white space; keeps at most `max_chars` characters."""

    def __init__(self) -> None:
        self.max_chars = 1000

    def reconfigure(self, config: Dict[str, Any]) -> None:
        self.max_chars = int(config.get("max_chars", 1000))

    def normalize(self, text: str) -> str:
        decomposed = unicodedata.normalize("NFKD", text)
        plain = "".join(c for c in decomposed if not unicodedata.combining(c))
        return " ".join(plain.casefold().split())[:self.max_chars]

    async def __call__(self, request: Request) -> Dict[str, str]:
        text = request.query_params.get("text")
        if text is None:
            text = (await request.body()).decode("utf-8", "replace")
        return {"text": self.normalize(text)}


app = Normalizer.bind()
