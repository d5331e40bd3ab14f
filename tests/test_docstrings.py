"""Every public call has an example in its docstring, and every example there is, in the whole package, runs.

An example runs as it stands, as doctest has it. One that defines a function is called then, with what the names of its
parameters stand for: a client of a gateway, or a session, stream or servicer's context.
"""

import asyncio
import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
from contextlib import AsyncExitStack, ExitStack, nullcontext
from pathlib import Path
from typing import is_typeddict

import pytest

import deepseek_grpc
from deepseek_grpc import audit, auth, local, telemetry, testing
from deepseek_grpc._async.text import AsyncText
from deepseek_grpc._sync.text import Text
from deepseek_grpc._value import Value
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine

DOORS = (deepseek_grpc, audit, auth, local, telemetry, testing)
PUBLIC = {name: getattr(door, name) for door in DOORS for name in door.__all__}
CALLED = (
    *(deepseek_grpc.AsyncClient, AsyncText, deepseek_grpc.AsyncSession, deepseek_grpc.AsyncTextStream),
    *(deepseek_grpc.Client, Text, deepseek_grpc.Session, deepseek_grpc.TextStream),
)
"""Classes whose methods are calls."""

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(deepseek_grpc.__path__, "deepseek_grpc.")
    if not found.name.endswith("__main__")
] + [deepseek_grpc]
EXAMPLES = [
    example
    for module in MODULES
    for example in doctest.DocTestFinder().find(module, extraglobs=PUBLIC | {"pytest": pytest})
    if example.examples
]


def is_value(thing):
    """Says whether a class only holds fields; calls' examples show it, and it needs none of its own."""
    frozen = dataclasses.is_dataclass(thing) and thing.__dataclass_params__.frozen
    return frozen or issubclass(thing, Value) or is_typeddict(thing)


def calls():
    """Yields whatever a program calls, by name: public functions and classes, and methods of some."""
    for name, thing in PUBLIC.items():
        if inspect.isroutine(thing) or (inspect.isclass(thing) and not is_value(thing)):
            yield name, thing
    for cls in CALLED:
        for name in vars(cls):
            method = getattr(cls, name)
            if not name.startswith("_") and (inspect.isfunction(method) or inspect.ismethod(method)):
                yield f"{cls.__name__}.{name}", method


CALLS = dict(calls())


@pytest.mark.parametrize("name", CALLS)
def test_a_public_call_has_an_example(name):
    assert ">>> " in (inspect.getdoc(CALLS[name]) or "")


def test_these_are_the_calls():
    """What is listed by rule holds what a reader would list by hand."""
    text = {"generate", "generate_many", "stream", "session", "complete", "stream_complete", "balance", "models"}
    for prefix, close in (("", "close"), ("Async", "aclose")):
        for cls, methods in {
            "Client": {"from_env", "warm", "health", close},
            "Text": text,
            "Session": {"generate", "stream", close},
            "TextStream": {"text", "final", "cancel", close},
        }.items():
            assert {f"{prefix}{cls}.{method}" for method in methods} <= set(CALLS)
    assert {"JWTSigner", "OAuth2ClientCredentials", "Secret", "AuditLog", "FakeServer", "LocalGateway"} <= set(CALLS)
    assert {"user", "json_schema", "redact", "token_source", "CallRecord", "Observer", "TextStream"} <= set(CALLS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_example_is_left_out(module):
    """doctest passes over what it can't reach; then fewer examples are found than the file has."""
    source = Path(module.__file__).read_text()
    found = [step for example in EXAMPLES if example.filename == module.__file__ for step in example.examples]
    assert len(found) == len(re.findall(r"^ *>>> ", source, re.MULTILINE))
    assert not any(doctest.SKIP in step.options for step in found)


@pytest.fixture(scope="module")
def gateway():
    with testing.FakeServer(engine=EmbeddedEngine()) as server:
        yield server


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("deepseek_grpc."))
def test_an_example(example, gateway, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in gateway.environ.items():
        monkeypatch.setenv(name, value)
    before, said = dict(example.globs), []
    results = doctest.DocTestRunner(verbose=False).run(example, out=said.append, clear_globs=False)
    assert (results.failed, results.attempted) == (0, len(example.examples)), "".join(said)
    for name, defined in example.globs.items():
        if inspect.isfunction(defined) and before.get(name) is not defined:
            call(defined, gateway)


def call(function, gateway):
    """Calls what an example defines."""
    wanted = inspect.signature(function).parameters
    if inspect.iscoroutinefunction(function):

        async def call_async():
            async with gateway.async_client() as client, AsyncExitStack() as stack:
                await function(*[await stack.enter_async_context(argument(name, client)) for name in wanted])

        asyncio.run(call_async())
    else:
        with gateway.client() as client, ExitStack() as stack:
            function(*[stack.enter_context(argument(name, client)) for name in wanted])


def argument(name, client):
    """Returns, as a context manager, what a parameter's name stands for."""
    match name:
        case "client":
            return nullcontext(client)
        case "session":
            return client.text.session()
        case "stream":
            return client.text.stream("Tell me a story")
        case "context":
            return nullcontext(Context())
    raise LookupError(f"no example has a parameter {name!r} yet")


class Context:
    """What a servicer's context says of a call with a deadline."""

    def time_remaining(self):
        return 30.0
