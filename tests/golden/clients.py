"""What a case sends: HTTP in all its forms, WebSocket, and the REST API."""

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import struct
import time

NOISE_HEADERS = {"date", "server", "content-length", "transfer-encoding", "connection",
                 "keep-alive", "content-type"}
BIG = 4096


def body_of(step):
    if "json" in step:
        return json.dumps(step["json"]).encode()
    if "body" in step:
        return step["body"].encode()
    if "body_b64" in step:
        return base64.b64decode(step["body_b64"])
    if "body_size" in step:
        return (b"0123456789abcdef" * (step["body_size"] // 16 + 1))[:step["body_size"]]
    return None


def shown(data):
    """Body as text, base64 or, when big, length and digest."""
    if len(data) > BIG:
        return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}


def http_call(port, step, conn=None):
    timeout = step.get("timeout", 60)
    own = conn is None
    if own:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = dict(step.get("headers", {}))
    body = body_of(step)
    names = {k.lower() for k in headers}
    if "json" in step and "content-type" not in names:
        headers["Content-Type"] = "application/json"
    result = {}
    try:
        if own:
            conn.connect()
        conn.putrequest(step.get("method", "GET" if body is None else "POST"),
                        step.get("path", "/"), skip_accept_encoding=True)
        for k, v in headers.items():
            for one in (v if isinstance(v, list) else [v]):
                conn.putheader(k, one)
        if body is not None and step.get("chunked"):
            conn.putheader("Transfer-Encoding", "chunked")
            conn.endheaders()
            for i in range(0, len(body), 7):
                part = body[i:i + 7]
                conn.send(b"%x\r\n%s\r\n" % (len(part), part))
            conn.send(b"0\r\n\r\n")
        else:
            if body is not None and "content-length" not in names:
                conn.putheader("Content-Length", str(len(body)))
            conn.endheaders(body)
        if "abort_after" in step:
            time.sleep(step["abort_after"])
            conn.close()
            return {"aborted": True}
        resp = conn.getresponse()
        pieces, stamps = [], []
        while True:
            try:
                part = resp.read1(65536)
            except (http.client.IncompleteRead, ConnectionError) as e:
                pieces.append(getattr(e, "partial", b""))
                result["broken"] = True
                break
            if not part:
                break
            pieces.append(part)
            stamps.append(time.monotonic())
            if "abort_after_bytes" in step and sum(map(len, pieces)) >= step["abort_after_bytes"]:
                conn.close()
                return {"aborted": True, "status": resp.status}
        if resp.length:
            result["broken"] = True
        here = "127.0.0.1:%d" % port
        data = b"".join(pieces).replace(here.encode(), b"HOST:PORT")
        found = {}
        for k, v in resp.getheaders():
            found.setdefault(k.lower(), []).append(v.replace(here, "HOST:PORT"))
        result.update(status=resp.status, raw=data,
                      type=", ".join(found.get("content-type", [])) or None,
                      framing="chunked" if "transfer-encoding" in found else
                      "length" if "content-length" in found else "close",
                      length=int(found["content-length"][0]) if "content-length" in found else None,
                      incremental=len(stamps) > 1 and stamps[-1] - stamps[0] > 0.15,
                      pieces=[p.decode("utf-8", "replace") for p in pieces])
        if "allow" in found:  # a set on the server's side
            found["allow"] = [", ".join(sorted(re.split(r",\s*", v))) for v in found["allow"]]
        if "x-request-id" in found and "x-request-id" not in names:
            found["x-request-id"] = ["<present>"] * len(found["x-request-id"])
        result["headers"] = {k: v[0] if len(v) == 1 else v for k, v in sorted(found.items())
                             if k not in NOISE_HEADERS}
    except socket.timeout:
        result = {"error": "no answer within the time limit"}
    except (ConnectionError, http.client.HTTPException) as e:
        result = {"error": "connection refused" if isinstance(e, ConnectionRefusedError) else
                  "connection closed"}
    finally:
        if own:
            conn.close()
    return result


def websocket(port, step):
    """Minimal WebSocket client; the script's entries stand in README.md."""
    s = socket.create_connection(("127.0.0.1", port), timeout=step.get("timeout", 30))
    out = {"received": []}
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        head = ["GET %s HTTP/1.1" % step.get("path", "/"), "Host: 127.0.0.1:%d" % port,
                "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: " + key,
                "Sec-WebSocket-Version: 13"]
        head += ["%s: %s" % kv for kv in step.get("headers", {}).items()]
        s.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        f = s.makefile("rb")
        status = int(f.readline().split()[1])
        headers = {}
        while True:
            line = f.readline().strip().decode()
            if not line:
                break
            k, v = line.split(":", 1)
            headers[k.strip().lower()] = v.strip()
        out["status"] = status
        if status != 101:
            return out
        if "sec-websocket-protocol" in headers:
            out["subprotocol"] = headers["sec-websocket-protocol"]

        def send(op, data):
            mask = os.urandom(4)
            n = len(data)
            h = bytes([0x80 | op]) + (bytes([0x80 | n]) if n < 126 else
                                      bytes([0xFE]) + struct.pack(">H", n) if n < 65536 else
                                      bytes([0xFF]) + struct.pack(">Q", n))
            s.sendall(h + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

        def recv():
            data, kind = b"", None
            while True:
                b0, b1 = f.read(2)
                n = b1 & 127
                if n == 126:
                    n, = struct.unpack(">H", f.read(2))
                elif n == 127:
                    n, = struct.unpack(">Q", f.read(8))
                part, op = f.read(n), b0 & 15
                if op == 9:
                    send(10, part)
                    continue
                if op == 10:
                    continue
                if op == 8:
                    return {"close": struct.unpack(">H", part[:2])[0] if part else None,
                            "reason": part[2:].decode()}
                kind = kind or op
                data += part
                if b0 & 0x80:
                    return data.decode() if kind == 1 else {"b64": base64.b64encode(data).decode()}

        for action in step["script"]:
            if action[0] == "send":
                send(1, action[1].encode())
            elif action[0] == "send_b64":
                send(2, base64.b64decode(action[1]))
            elif action[0] == "send_size":
                send(1, b"w" * action[1])
            elif action[0] == "recv":
                for _ in range(action[1] if len(action) > 1 else 1):
                    got = recv()
                    if isinstance(got, str) and len(got) > BIG:
                        got = {"length": len(got)}
                    out["received"].append(got)
            elif action[0] == "close":
                send(8, struct.pack(">H", action[1]))
            elif action[0] == "drop":
                s.close()
                return out
    except (socket.timeout, ValueError, ConnectionError, IndexError) as e:
        out["error"] = ("no answer within the time limit" if isinstance(e, socket.timeout) else
                        "connection closed")
    finally:
        s.close()
    return out


def rest(port, method, path, payload=None, timeout=120):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        body = payload
        if payload is not None and not isinstance(payload, bytes):
            body = json.dumps(payload).encode()
        conn.request(method, path, body,
                     {"Content-Type": "application/json"} if body is not None else {})
        resp = conn.getresponse()
        return resp.status, resp.getheader("content-type"), resp.read()
    finally:
        conn.close()
