"""An application of the standard library only, and a program: see driver.py."""

import collections
import os

from ray import serve


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0})
class Words:
    def __init__(self, shortest):
        self.shortest = shortest

    def count(self, text):
        return collections.Counter(w for w in text.lower().split() if len(w) >= self.shortest)

    def each(self, text):
        for word in text.split():
            yield len(word)


@serve.deployment(ray_actor_options={"num_cpus": 0})
def shout(text):
    return text.upper() + "!"


@serve.deployment(max_ongoing_requests=20, ray_actor_options={"num_cpus": 0})
class Report:
    def __init__(self, words, shout):
        self.words = words
        self.shout = shout

    async def report(self, text):
        counted = self.words.count.remote(text)
        loud = self.shout.remote(text)
        lengths = [n async for n in self.words.options(stream=True).each.remote(text)]
        return {"counted": dict(await counted), "loud": await loud, "lengths": lengths}

    async def fail(self, text):
        raise LookupError(f"nothing about {text}")

    async def __call__(self, request):
        if request.method == "POST":
            return await self.report((await request.body()).decode())
        return await self.report(request.query_params["text"])

    def pid(self):
        return os.getpid()


app = Report.bind(Words.bind(3), shout.bind())
TEXT = "The cat and the dog, the cat"


def ask(handle):
    answers = [handle.report.remote(TEXT).result(), handle.report.remote("").result()]
    try:
        handle.fail.remote("x").result()
    except LookupError as e:
        answers.append([isinstance(e, LookupError), "nothing about x" in str(e)])
    return answers


REQUESTS = [("POST", "/", TEXT), ("GET", "/?text=a+bcd", None), ("GET", "/", None)]

if __name__ == "__main__":
    from driver import drive

    drive(app, ask, REQUESTS)
