"""What the programs of this folder do: deploy, ask, and print what came as one line of JSON.

MODE: "run" deploys over HTTP on PORT, "local" in this process, "attach" finds what runs.
"""

import http.client
import json
import os

from ray import serve


def fetch(port, requests):
    """[status, content type, what came] of each; what came is parsed if it is JSON."""
    found = []
    for method, path, body in requests:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if isinstance(body, str):
            conn.request(method, path, body.encode(), {"content-type": "text/plain"})
        elif body is not None:
            conn.request(method, path, json.dumps(body), {"content-type": "application/json"})
        else:
            conn.request(method, path)
        answer = conn.getresponse()
        data = answer.read().decode()
        kind = answer.getheader("content-type", "")
        if kind == "application/json":
            data = json.loads(data)
        elif answer.status == 500:
            data = ""  # its text is the traceback, which names files
        found.append([answer.status, kind, data])
        conn.close()
    return found


def drive(app, ask, requests):
    mode = os.environ["MODE"]
    result = {}
    if mode == "attach":
        handle = serve.get_app_handle("default")
    elif mode == "local":
        handle = serve.run(app, _local_testing_mode=True)
    else:
        serve.start(http_options={"port": int(os.environ["PORT"])})
        handle = serve.run(app)
    if mode != "local":
        result["http"] = fetch(int(os.environ["PORT"]), requests)
    result["handle"] = ask(handle)
    if mode != "local" and "heavy" in os.environ.get("FACTS", ""):
        result["pss"] = handle.pss.remote().result()
    print(json.dumps(result), flush=True)
