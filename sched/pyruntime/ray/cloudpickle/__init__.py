"""`ray.cloudpickle`: the installed cloudpickle, or the one that comes with rserve."""

from __future__ import annotations

from pickle import load, loads  # noqa: F401

import rserve._cloudpickle  # noqa: F401
from cloudpickle import *  # noqa: F401,F403
from cloudpickle import CloudPickler as CloudPickler
from cloudpickle import dump, dumps  # noqa: F401
