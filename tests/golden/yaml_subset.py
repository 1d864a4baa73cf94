"""The part of YAML that the cases use: block maps and lists, flow collections, scalars."""

import json
import re


def parse_yaml(text):
    if text.lstrip().startswith("{"):
        return json.loads(text)
    lines = []
    for raw in text.splitlines():
        s = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if s.strip():
            lines.append([len(s) - len(s.lstrip()), s.lstrip()])
    value, rest = _block(lines, 0, lines[0][0] if lines else 0)
    if rest != len(lines):
        raise ValueError("YAML outside of the supported subset: %r" % lines[rest][1])
    return value


def is_item(text):
    return text == "-" or text.startswith("- ")

def _block(lines, i, indent):
    if i >= len(lines):
        return None, i
    if is_item(lines[i][1]):
        out = []
        while i < len(lines) and lines[i][0] == indent and is_item(lines[i][1]):
            body = lines[i][1][1:]
            pad = len(body) - len(body.lstrip())
            if not body.strip():
                value, i = _block(lines, i + 1, lines[i + 1][0])
            elif re.match(r"[^\"'\[{][^:]*:(\s|$)", body.strip()):
                lines[i] = [indent + 1 + pad, body.strip()]
                value, i = _block(lines, i, indent + 1 + pad)
            else:
                value, i = _scalar(body.strip()), i + 1
            out.append(value)
        return out, i
    out = {}
    while i < len(lines) and lines[i][0] == indent and not lines[i][1].startswith("- "):
        m = re.match(r"(\"[^\"]*\"|'[^']*'|[^:]+?)\s*:(?:\s+(.*))?$", lines[i][1])
        if not m:
            raise ValueError("YAML line without key: %r" % lines[i][1])
        key, rest = _scalar(m.group(1)), m.group(2)
        if rest:
            out[key], i = _scalar(rest), i + 1
        elif i + 1 < len(lines) and (lines[i + 1][0] > indent or (
                lines[i + 1][0] == indent and lines[i + 1][1].startswith("- "))):
            out[key], i = _block(lines, i + 1, lines[i + 1][0])
        else:
            out[key], i = None, i + 1
    return out, i


def _scalar(s):
    s = s.strip()
    if s[:1] in "[{":
        value, end = _flow(s, 0)
        return value
    return _plain(s)


def _plain(s):
    if len(s) > 1 and s[0] == s[-1] == '"':
        return json.loads(s)
    if len(s) > 1 and s[0] == s[-1] == "'":
        return s[1:-1].replace("''", "'")
    if s in ("null", "~", "Null", "NULL", ""):
        return None
    if s in ("true", "True", "false", "False"):
        return s.lower() == "true"
    if re.fullmatch(r"[-+]?\d+", s):
        return int(s)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?", s):
        return float(s)
    return s


def _flow(s, i):
    if s[i] == "[":
        out, i = [], i + 1
        while True:
            while s[i] in " ,":
                i += 1
            if s[i] == "]":
                return out, i + 1
            value, i = _flow(s, i)
            out.append(value)
    if s[i] == "{":
        out, i = {}, i + 1
        while True:
            while s[i] in " ,":
                i += 1
            if s[i] == "}":
                return out, i + 1
            m = re.compile(r"\s*(\"[^\"]*\"|[^:]+?)\s*:\s*").match(s, i)
            key, i = _plain(m.group(1)), m.end()
            out[key], i = _flow(s, i)
    m = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^,\]}]+").match(s, i)
    return _plain(m.group(0).strip()), m.end()
