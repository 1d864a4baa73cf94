"""Ids of things of the cluster, as `ray` shows them."""

from __future__ import annotations


class Id:
    """Hexadecimal digits. Equal to another of its own class that has the same."""

    def __init__(self, text: str) -> None:
        self._text = text

    def hex(self) -> str:
        return self._text

    def binary(self) -> bytes:
        return bytes.fromhex(self._text)

    def is_nil(self) -> bool:
        return not self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash(self._text)
