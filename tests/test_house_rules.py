"""The rules of the house: who may import whom, what is public, what has to be documented."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import deepseek_grpc
from deepseek_grpc.config import API_VERSION
from deepseek_rpc.v2 import auth_pb2, data_pb2, fine_tune_pb2, text_pb2

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepseek_grpc"

# Imports go downward or stay on their floor.
FLOORS = {
    **dict.fromkeys(
        (
            "_value",
            "_forks",
            "_secret",
            "_pem",
            "_http",
            "types",
            "errors",
            "config",
            "auth",
            "telemetry",
            "tls",
            "audit",
        ),
        0,
    ),  # vocabulary; knows no protobuf
    **dict.fromkeys(("_codec", "_call", "_session", "_resilience", "cache"), 1),  # pure
    "_transport": 2,  # the only floor of the client that performs RPCs
    **dict.fromkeys(("_async", "_sync", "gateway"), 3),
    **dict.fromkeys(("__init__", "__main__", "cli", "testing", "local"), 4),  # doors
}
STRANGERS = ("_async", "_sync", "gateway")  # on one floor, and none imports another

# Who may import generated modules, as prefixes of module names.
MESSAGES = ("_codec", "_session", "_async.text", "_sync.text", "gateway")
HEALTH = ("_async.client", "_sync.client", "gateway.server")
STUBS = ("_async.text", "_sync.text", "gateway.server", "gateway.services")

# What `import deepseek_grpc` offers.
PUBLIC = [
    "API_VERSION",
    "TLS",
    "UNSET",
    "AccountBalance",
    "AsyncClient",
    "AsyncSession",
    "AsyncTextStream",
    "AuditLog",
    "Balance",
    "CallRecord",
    "Client",
    "ClientConfig",
    "ClientOptions",
    "CompleteOptions",
    "Completion",
    "ContentPart",
    "DeepSeekError",
    "Event",
    "FilePart",
    "Finished",
    "GenerateOptions",
    "ImagePart",
    "JWTSigner",
    "Keepalive",
    "Message",
    "Meta",
    "Model",
    "OAuth2ClientCredentials",
    "Observer",
    "Prompt",
    "ReasoningDelta",
    "ResponseFormat",
    "Retry",
    "Secret",
    "Session",
    "Started",
    "StaticToken",
    "TextDelta",
    "TextPart",
    "TextStream",
    "Timeouts",
    "TokenLogprob",
    "TokenSource",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Upstream",
    "Usage",
    "assistant",
    "errors",
    "json_object",
    "json_schema",
    "system",
    "tool_result",
    "user",
]


def name_of(path: Path) -> str:
    """Returns a module's name within the package: `_codec.request`, `gateway`, `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), path.name) for name, path in MODULES.items()}

every_module = pytest.mark.parametrize("name", MODULES)
every_public_module = pytest.mark.parametrize(
    "name", [name for name in MODULES if not any(p.startswith("_") and p != "__init__" for p in name.split("."))]
)


def imports(name: str) -> Iterator[str]:
    """Yields what a module imports, wherever in it: in functions and for type checkers too."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def imports_that_run(name: str) -> Iterator[str]:
    """Yields what a module imports, without what only type checkers see."""
    checked = {
        id(inner)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(TREES[name]):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> Iterator[str]:
    """Yields the modules of this package that a module imports, as `_codec.request`."""
    for imported in imports(name):
        top, _, rest = imported.partition(".")
        if top == "deepseek_grpc":
            while rest not in MODULES and "." in rest:  # `from module import name`
                rest = rest.rpartition(".")[0]
            yield rest if rest in MODULES else "__init__"


def room(name: str) -> str:
    return name.partition(".")[0]


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@every_module
def test_a_module_stands_on_a_floor_and_imports_downward_only(name):
    floor = FLOORS[room(name)]
    upward = [other for other in own_imports(name) if FLOORS[room(other)] > floor]
    assert not upward


@every_module
def test_the_two_clients_and_the_gateway_are_strangers(name):
    if room(name) in STRANGERS:
        assert {room(other) for other in own_imports(name)}.isdisjoint(set(STRANGERS) - {room(name)})


@every_module
def test_the_vocabulary_knows_no_protobuf(name):
    if FLOORS[room(name)] == 0:
        assert not [i for i in imports(name) if i.startswith(("google", "deepseek_rpc")) or "_pb2" in i]


@every_module
def test_generated_messages_stay_with_the_codec_and_those_who_carry_them(name):
    generated = {part for i in imports_that_run(name) for part in i.split(".") if part.endswith("_pb2")}
    if not within(name, MESSAGES):
        assert generated <= ({"health_pb2"} if within(name, HEALTH) else set())


@every_module
def test_stubs_and_servicers_stay_where_calls_are_made_and_taken(name):
    generated = {part for i in imports(name) for part in i.split(".") if part.endswith("_pb2_grpc")}
    if not within(name, STUBS):
        assert generated <= ({"health_pb2_grpc"} if within(name, HEALTH) else set())


@every_module
def test_only_the_transport_sees_raw_grpc_errors(name):
    if room(name) != "_transport":
        names = {node.attr for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Name)}
        names |= {imported.rpartition(".")[2] for imported in imports(name)}
        assert names.isdisjoint({"RpcError", "AioRpcError"})


@every_module
def test_engines_speak_types_and_errors_only(name):
    if within(name, ("gateway.engines",)) and name != "gateway.engines":
        folder = ".".join(name.split(".")[:3])
        allowed = ("types", "errors", "gateway.engines", folder)
        foreign = [o for o in own_imports(name) if o not in allowed and not within(o, (folder,))]
        assert not foreign
    elif name == "gateway.engines":
        assert set(own_imports(name)) <= {"types", "errors"}


def declared(name: str) -> list[str] | None:
    for node in TREES[name].body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def natural(name: str) -> tuple[int, str]:
    """The order of `__all__`: constants, classes, functions (as isort and ruff have it)."""
    if name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


@every_public_module
def test_all_names_what_is_public_in_order(name):
    public = {node.name for node in definitions(TREES[name].body)}
    listed = declared(name)
    if listed is None:
        assert not public, "a public module says in __all__ what it offers"
        return
    assert listed == sorted(set(listed), key=natural)
    assert public <= set(listed)
    module = importlib.import_module("deepseek_grpc" if name == "__init__" else f"deepseek_grpc.{name}")
    assert [n for n in listed if not hasattr(module, n)] == []


def test_the_public_door_offers_exactly_this():
    assert deepseek_grpc.__all__ == PUBLIC


@every_module
def test_every_module_and_everything_with_a_public_name_has_a_docstring(name):
    tree = TREES[name]
    bare = [] if ast.get_docstring(tree) else [name]
    for node in definitions(tree.body):
        members = definitions(node.body) if isinstance(node, ast.ClassDef) else ()
        bare += [inner.name for inner in (node, *members) if not ast.get_docstring(inner)]
    assert not bare


@every_module
def test_a_module_is_one_noun(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= 400, "over 400 lines: look for the second noun"


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString((ROOT / "generated" / "deepseek_rpc.binpb").read_bytes())


def test_every_method_names_the_permission_it_needs():
    methods = {
        f"{service.name}.{method.name}": method.options.Extensions[auth_pb2.permission]
        for file in descriptor_set().file
        for service in file.service
        for method in service.method
    }
    assert len(methods) == 19
    assert [name for name, permission in methods.items() if "." not in permission] == []


def test_the_descriptor_set_is_what_the_generated_modules_describe():
    served = {f"{s.name}.{m.name}" for file in descriptor_set().file for s in file.service for m in s.method}
    modules = (text_pb2, data_pb2, fine_tune_pb2)
    assert served == {
        f"{service.name}.{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def uncommented(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    """Yields what has no comment; numbers are the field numbers of descriptor.proto, which make up source paths."""
    comments = {tuple(at.path): at.leading_comments + at.trailing_comments for at in file.source_code_info.location}

    def visit(path: tuple[int, ...], name: str) -> Iterator[str]:
        if not comments.get(path, "").strip():
            yield name

    def enums(path: tuple[int, ...], enums_: object, prefix: str) -> Iterator[str]:
        for i, enum in enumerate(enums_):
            yield from visit((*path, i), prefix + enum.name)
            for j, value in enumerate(enum.value):
                yield from visit((*path, i, 2, j), f"{prefix}{enum.name}.{value.name}")

    def messages(path: tuple[int, ...], messages_: object, prefix: str) -> Iterator[str]:
        for i, message in enumerate(messages_):
            if message.options.map_entry:
                continue
            here, inner = (*path, i), f"{prefix}{message.name}."
            yield from visit(here, prefix + message.name)
            for j, field in enumerate(message.field):
                yield from visit((*here, 2, j), inner + field.name)
            yield from messages((*here, 3), message.nested_type, inner)
            yield from enums((*here, 4), message.enum_type, inner)
            synthetic = {f.oneof_index for f in message.field if f.proto3_optional}
            for j, oneof in enumerate(message.oneof_decl):
                if j not in synthetic:
                    yield from visit((*here, 8, j), inner + oneof.name)

    yield from messages((4,), file.message_type, "")
    yield from enums((5,), file.enum_type, "")
    for i, service in enumerate(file.service):
        yield from visit((6, i), service.name)
        for j, method in enumerate(service.method):
            yield from visit((6, i, 2, j), f"{service.name}.{method.name}")
    for i, extension in enumerate(file.extension):
        yield from visit((7, i), extension.name)


def test_protos_are_prose():
    buf = Path(sys.executable).parent / "buf"
    image = subprocess.run(
        [buf, "build", "protos", "-o", "-#format=binpb"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    files = [f for f in descriptor_pb2.FileDescriptorSet.FromString(image).file if f.name.startswith("deepseek_rpc/")]
    assert len(files) >= 5
    assert {file.name: list(uncommented(file)) for file in files} == {file.name: [] for file in files}


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == API_VERSION == importlib.metadata.version("deepseek-grpc")


HEAVY = (
    "jwt",
    "cryptography",
    "grpc_health.v1",  # grpc itself imports the empty package
    "grpc_status",
    "google.rpc.error_details_pb2",  # status_pb2 comes with the contract, which has a field of its type
    "pydantic",
    "jsonschema",
    "typer",
    "rich",
    "pytest",
    "deepseek_grpc.gateway",
    "deepseek_grpc.testing",
    "deepseek_grpc.cli",
)


@pytest.mark.parametrize("module", ["deepseek_grpc", "deepseek_grpc.testing.pytest_plugin"])
def test_importing_stays_light(module):
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    allowed = {"pytest", "deepseek_grpc.testing", "rich"} if "pytest" in module else set()
    unwanted = [heavy for heavy in HEAVY if heavy in loaded and heavy not in allowed]
    assert not unwanted


TEXTS = [
    path
    for pattern in (
        *("*.md", "*.toml", "Makefile", "deepseek_grpc/**/*", "protos/**/*", "scripts/**/*", "tests/**/*"),
        *("benchmarks/**/*", "examples/**/*", "docs/**/*", ".ci/**/*", ".github/**/*"),
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and (path.name == "Makefile" or path.suffix in (".md", ".py", ".proto", ".toml", ".txt", ".yml"))
]
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
UPWARD = re.compile(r"[\w./-]*\.\./[\w./-]*")
ABSOLUTE = re.compile(r"(?<![\w.:/}])/(?:home|root|Users|mnt|work|workspace|workspaces)/\w[\w./-]*")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_points_outside_the_tree(path):
    text = path.read_text()
    assert ABSOLUTE.findall(text) == []
    upward = [found for found in UPWARD.findall(text) if not (path.parent / found).resolve().is_relative_to(ROOT)]
    assert upward == []
    if path.suffix == ".md":
        assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("rest", ["home/somebody/notes.md", "root/x", "work/tree", "Users/me"])
def test_a_path_of_somebodys_machine_is_found(rest):
    assert ABSOLUTE.findall(f"see `/{rest}`") == [f"/{rest}"]
    assert ABSOLUTE.findall(f"see https://example.com/{rest}") == []


def test_files_that_texts_speak_of_are_there():
    """A document that a text names in capitals, such as README.md, is one of the tree."""
    named = {name for path in TEXTS for name in re.findall(r"\b[A-Z][A-Z_]+\.md\b", path.read_text())}
    assert "README.md" in named
    assert [name for name in sorted(named) if not [*ROOT.glob(name), *ROOT.glob(f"*/{name}")]] == []
