"""The small part of Starlette that request handlers use, for interpreters where it is not
installed.

It stands last on sys.path: an installed Starlette always wins. Names and behaviour follow
Starlette 1.x; routing, middleware, templates and websockets are not here.
"""

__version__ = "0.0.0+rserve"
