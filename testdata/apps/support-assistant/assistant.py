"""A support desk: four stages that share two GPUs by fractions, two of them scaled with the load.

The stages stand in for models: they decide by word lists, so they need no GPU to be tried. What is
real is the scheduling: app.yaml asks for 0.25 + 0.25 + 2 * 0.5 GPUs, more when the load grows.
"""

import asyncio
from typing import Any, Dict, List, Tuple

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

TOPICS: Dict[str, Tuple[str, ...]] = {
    "billing": ("bill", "charge", "charged", "invoice", "pay", "payment", "refund"),
    "delivery": ("arrive", "courier", "deliver", "late", "lost", "package", "parcel", "shipping"),
    "account": ("account", "email", "locked", "login", "password", "sign"),
}
ANGRY = ("angry", "awful", "bad", "never", "terrible", "unacceptable", "worst")
REPLIES = {
    "billing": "We looked at your last invoice and will refund what was charged twice.",
    "delivery": "Your parcel is with the courier; you can follow it in your order list.",
    "account": "We sent you a link with which you can set a new password.",
    "other": "A colleague will read your message and write back today.",
}


def words(text: str) -> List[str]:
    return ["".join(c for c in w if c.isalnum()) for w in text.lower().split()]


@serve.deployment(ray_actor_options={"num_cpus": 0.25, "num_gpus": 0.25})
class TopicModel:
    def __call__(self, text: str) -> str:
        found = set(words(text))
        scores = {topic: len(found.intersection(known)) for topic, known in TOPICS.items()}
        best = max(sorted(scores), key=lambda t: scores[t])
        return best if scores[best] else "other"


@serve.deployment(ray_actor_options={"num_cpus": 0.25, "num_gpus": 0.25})
class MoodModel:
    def __call__(self, text: str) -> str:
        shouting = sum(c == "!" for c in text) > 1 or (len(text) > 8 and text.isupper())
        return "upset" if shouting or set(words(text)).intersection(ANGRY) else "calm"


@serve.deployment(
    ray_actor_options={"num_cpus": 0.25, "num_gpus": 0.5},
    autoscaling_config={"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 4},
)
class ReplyModel:
    async def __call__(self, topic: str, mood: str) -> str:
        sorry = "We are sorry for the trouble. " if mood == "upset" else ""
        return sorry + REPLIES[topic]


@serve.deployment(
    max_ongoing_requests=50,
    ray_actor_options={"num_cpus": 0.1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 20},
)
class SupportAssistant:
    """POST {"message": ...}: topic and mood are found at the same time, then a reply is written."""

    def __init__(self, topic: DeploymentHandle, mood: DeploymentHandle,
                 reply: DeploymentHandle) -> None:
        self.topic, self.mood, self.reply = topic, mood, reply

    async def __call__(self, request: Request) -> Dict[str, Any]:
        text = (await request.json())["message"]
        topic, mood = await asyncio.gather(self.topic.remote(text), self.mood.remote(text))
        return {"topic": topic, "mood": mood, "reply": await self.reply.remote(topic, mood)}


app = SupportAssistant.bind(TopicModel.bind(), MoodModel.bind(), ReplyModel.bind())
