"""From an import path to the graph of an application: import, build, name, describe."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import pickle
import sys
import types
import typing
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ray.serve.deployment import Application, Deployment, options_for_node

from rserve._errors import BuildError, describe_names, import_error, one_line, user_traceback


class Node:
    """One deployment of the graph, with the arguments that a replica is constructed from."""

    __slots__ = ("name", "deployment", "args", "kwargs", "calls")

    def __init__(self, name: str, deployment: Deployment) -> None:
        self.name = name
        self.deployment = deployment
        self.args: Tuple[Any, ...] = ()
        self.kwargs: Dict[str, Any] = {}
        self.calls: List[str] = []

    def target(self) -> Any:
        return self.deployment.func_or_class


class Graph:
    """A built application: its nodes, callees before callers, and the name of the ingress."""

    def __init__(self, app: str, make_handle: Any = None) -> None:
        self.app = app
        self.make_handle = make_handle
        self.nodes: Dict[str, Node] = {}
        self.ingress = ""
        self.warnings: List[str] = []

    def describe(self) -> Dict[str, Any]:
        """The members of GRAPH that come from the code."""
        deployments = []
        for node in self.nodes.values():
            target = node.target()
            deployments.append(
                {
                    "name": node.name,
                    "options": options_for_node(node.deployment),
                    "calls": node.calls,
                    "asgi": ingress_of(target) is not None,
                    "function": inspect.isfunction(target),
                    "object": f"{getattr(target, '__module__', '?')}."
                    f"{getattr(target, '__qualname__', '?')}",
                }
            )
        return {
            "app": self.app,
            "ingress": self.ingress,
            "docs_path": docs_path_of(self.nodes[self.ingress].target()),
            "warnings": self.warnings,
            "deployments": deployments,
        }


def ingress_of(target: Any) -> Any:
    """What @serve.ingress left on a class, or None."""
    return getattr(target, "__serve_ingress__", None)


def docs_path_of(target: Any) -> Optional[str]:
    ingress = ingress_of(target)
    path = getattr(getattr(ingress, "app", None), "docs_url", None)
    return path if isinstance(path, str) else None


# --- import -------------------------------------------------------------------------------------


def split_import_path(import_path: str) -> Tuple[str, str]:
    """Module and attribute of `module.sub:attr` or `module.sub.attr`."""
    text = import_path.strip()
    if ":" in text:
        module, _, attribute = text.partition(":")
        good = text.count(":") == 1
    else:
        module, _, attribute = text.rpartition(".")
        good = True
    if not good or not module or not attribute or module.startswith(".") or module.endswith("."):
        raise BuildError(
            "attribute",
            "ValueError",
            f"ValueError: import_path '{import_path}' must be of the form 'module.sub:attribute' "
            "or 'module.sub.attribute'",
        )
    return module, attribute


def add_app_dir(app_dir: Optional[str]) -> None:
    """Puts the folder of the application first on sys.path."""
    if not app_dir:
        return
    app_dir = os.path.abspath(app_dir)
    if app_dir in sys.path:
        sys.path.remove(app_dir)
    sys.path.insert(0, app_dir)


def import_object(import_path: str, app_dir: Optional[str]) -> Any:
    """The object that an import path names. Raises BuildError, whatever the user's module does."""
    module_name, attribute = split_import_path(import_path)
    try:
        module = importlib.import_module(module_name)
    except BaseException as e:
        raise import_error(module_name, import_path, app_dir, e) from None
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except Exception as e:
            has = describe_names(module)
            raise BuildError(
                "attribute",
                "AttributeError",
                f"AttributeError: module '{module_name}' ({getattr(module, '__file__', '?')}) has "
                f"no attribute '{attribute}' (import_path '{import_path}'); it has: {has}",
                "" if isinstance(e, AttributeError) else user_traceback(e),
            ) from None
    return value


def call_builder(value: Any, args: Dict[str, Any], import_path: str) -> Application:
    """An Application as it is, or what the builder function `value` makes of `args`."""
    if isinstance(value, Application):
        if args:
            raise ValueError(
                "Arguments can only be passed to an application builder function, not an already "
                "built application."
            )
        return value
    if isinstance(value, Deployment):
        raise TypeError(
            "Expected a built Serve application or an application builder function but got: "
            f"{type(value)}. '{import_path}' is a deployment: bind it with '.bind()'."
        )
    if not isinstance(value, types.FunctionType):
        raise TypeError(
            "Expected a built Serve application or an application builder function but got: "
            f"{type(value)}."
        )
    parameters = list(inspect.signature(value).parameters.values())
    if len(parameters) != 1:
        raise TypeError(
            "Application builder functions should take exactly one parameter, a dictionary "
            "containing the passed arguments."
        )
    annotation: Any = parameters[0].annotation
    if isinstance(annotation, str):
        try:
            annotation = typing.get_type_hints(value).get(parameters[0].name)
        except Exception:
            annotation = None
    argument: Any = args
    if isinstance(annotation, type) and hasattr(annotation, "model_validate"):
        argument = annotation.model_validate(args)
    elif isinstance(annotation, type) and hasattr(annotation, "parse_obj"):
        argument = annotation.parse_obj(args)
    app = value(argument)
    if not isinstance(app, Application):
        raise TypeError(
            "Application builder functions must return an `Application` returned from "
            f"`Deployment.bind()`, but got: {type(app)}."
        )
    return app


def load(app: str, import_path: str, app_dir: Optional[str], args: Dict[str, Any]) -> Graph:
    """Imports and builds; raises BuildError for everything that the user's code does wrong."""
    add_app_dir(app_dir)
    value = import_object(import_path, app_dir)
    try:
        return build(app, call_builder(value, args, import_path))
    except BuildError:
        raise
    except BaseException as e:
        raise BuildError("build", type(e).__name__, one_line(e), user_traceback(e)) from None


# --- build --------------------------------------------------------------------------------------


def build(app: str, application: Application, make_handle: Any = None) -> Graph:
    """Names the deployments of an application and replaces nested ones by handles.

    `make_handle` takes the names of deployment and application; by default a DeploymentHandle.
    """
    from ray.serve.handle import DeploymentHandle

    graph = Graph(app, make_handle or DeploymentHandle)
    handles: Dict[int, Any] = {}
    keep: List[Application] = []  # identities in `handles` stay valid while these live
    graph.ingress = _add(graph, application, handles, keep, set())
    _validate(graph)
    return graph


def _add(
    graph: Graph,
    application: Application,
    handles: Dict[int, Any],
    keep: List[Application],
    path: Set[int],
) -> str:
    known = handles.get(id(application))
    if known is not None:
        return str(known.deployment_name)
    if id(application) in path:
        raise ValueError("An application is bound into its own arguments: the graph has a cycle.")
    path.add(id(application))
    deployment = application._bound_deployment
    calls: List[str] = []

    def replace(child: Application) -> Any:
        name = _add(graph, child, handles, keep, path)
        if name not in calls:
            calls.append(name)
        return handles[id(child)]

    args = tuple(replace_applications(a, replace) for a in application._args)
    kwargs = {k: replace_applications(v, replace) for k, v in application._kwargs.items()}
    path.discard(id(application))
    node = Node(_unique_name(graph, deployment.name), deployment)
    node.args, node.kwargs, node.calls = args, kwargs, calls
    graph.nodes[node.name] = node
    handles[id(application)] = graph.make_handle(node.name, graph.app)
    keep.append(application)
    return node.name


def _unique_name(graph: Graph, name: str) -> str:
    if name not in graph.nodes:
        return name
    n = 1
    while f"{name}_{n}" in graph.nodes:
        n += 1
    unique = f"{name}_{n}"
    graph.warnings.append(
        f"Deployment '{name}' is bound more than once with different arguments; this one is "
        f"renamed to '{unique}'. Use `.options(name=...)` to choose the name."
    )
    return unique


def _validate(graph: Graph) -> None:
    with_docs = [n for n in graph.nodes.values() if docs_path_of(n.target()) is not None]
    if len(with_docs) > 1:
        from ray.serve.exceptions import RayServeException

        names = ", ".join(n.name for n in with_docs)
        error = RayServeException(
            f'Found multiple FastAPI deployments in application "{graph.app}". Please only include '
            f"one deployment with @serve.ingress in your application to avoid this issue. ({names})"
        )
        raise BuildError("validate", "RayServeException", one_line(error))


_PLAIN = (str, bytes, int, float, bool, complex, type(None), type, types.FunctionType)


def replace_applications(value: Any, replace: Callable[[Application], Any]) -> Any:
    """`value` with every Application in it replaced; parts without one stay the same objects."""
    if isinstance(value, Application):
        return replace(value)
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        items = [replace_applications(v, replace) for v in value]
        if all(a is b for a, b in zip(items, value)):
            return value
        return items if kind is list else tuple(items)
    if kind is dict:
        pairs = [
            (replace_applications(k, replace), replace_applications(v, replace))
            for k, v in value.items()
        ]
        if all(a is k and b is v for (a, b), (k, v) in zip(pairs, value.items())):
            return value
        return dict(pairs)
    return _replace_inside(value, replace)


class _Nowhere(io.RawIOBase):
    """Takes what a pickler writes and forgets it."""

    def write(self, data: Any) -> int:
        return len(data)


def _replace_inside(value: Any, replace: Callable[[Application], Any]) -> Any:
    """Finds Applications inside a user's own object by pickling it, as Ray does."""
    try:
        from rserve import _cloudpickle as cloudpickle

        base: Any = cloudpickle.CloudPickler
    except ImportError:
        base = pickle.Pickler
    found: List[Application] = []

    class Scanner(base):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> Optional[int]:
            if isinstance(obj, Application):
                found.append(obj)
                return len(found) - 1
            return None

    class Loader(pickle.Unpickler):
        def persistent_load(self, key: Any) -> Any:
            return replace(found[key])

    try:
        Scanner(_Nowhere(), protocol=5, buffer_callback=lambda b: None).dump(value)
    except Exception:
        return value  # not picklable: forked replicas can use it as it is
    if not found:
        return value
    del found[:]
    out = io.BytesIO()
    Scanner(out, protocol=5).dump(value)
    out.seek(0)
    return Loader(out).load()
