"""Where keys stand: against documents that were written with it in mind."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc.gateway.toml_lines import line_of, lines_of

EXAMPLE = '''# a comment = 1
top = 1
dotted.key = [  # with a comment ] in it
  "]", # and = another
  { x = 1, "y" = "}" },
]

[gateway]          # [not.this]
listen = "a # b"
text = """
[no.table]
key = 1
\\""" still """""
raw = \'\'\'
[[none]]
it's \\\'\'\'
"quo.ted" = \'#\'
"\\u0061\\n" . \'b c\'=1

[[clients]]
id = "a"
[clients.more]
x = 1
[[clients.deep]]
[[clients.deep]]
y = {a = 1, b = [1, 2]}
[[ "clients" ]]
id = "b"
last = 1979-05-27T07:32:00Z'''


def test_the_example():
    document = tomllib.loads(EXAMPLE)
    lines = lines_of(EXAMPLE)
    assert lines == {
        ("top",): 2,
        ("dotted",): 3,
        ("dotted", "key"): 3,
        ("gateway",): 8,
        ("gateway", "listen"): 9,
        ("gateway", "text"): 10,
        ("gateway", "raw"): 14,
        ("gateway", "quo.ted"): 17,
        ("gateway", "a\n"): 18,
        ("gateway", "a\n", "b c"): 18,
        ("clients",): 20,
        ("clients", 0): 20,
        ("clients", 0, "id"): 21,
        ("clients", 0, "more"): 22,
        ("clients", 0, "more", "x"): 23,
        ("clients", 0, "deep"): 24,
        ("clients", 0, "deep", 0): 24,
        ("clients", 0, "deep", 1): 25,
        ("clients", 0, "deep", 1, "y"): 26,
        ("clients", 1): 27,
        ("clients", 1, "id"): 28,
        ("clients", 1, "last"): 29,
    }
    for path in lines:
        found = document
        for part in path:
            found = found[part]


def test_what_is_missing_stands_where_its_table_does():
    lines = lines_of(EXAMPLE)
    assert line_of(lines, ("clients", 1, "secret_file")) == 27
    assert line_of(lines, ("clients", 0, "deep", 1, "y", "b", 1)) == 26
    assert line_of(lines, ("roles",)) is None
    assert line_of(lines, ()) is None


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n#\n", "\ufeff"[:0], "\r\n"])
def test_nothing(text):
    assert lines_of(text) == {}


@pytest.mark.parametrize(
    "value",
    [
        '""',
        "''",
        '""""""',
        "''''''",
        '"""a"""""',
        '""""a"""',
        "'''a'''''",
        "''''a'''",
        '"\\\\"',
        '"\\"#"',
        "'\\'",
        '"""\\\n  """',
        "[]",
        "[[], [[]]]",
        '[ "]", \']\', """]""", # ]\n ]',
        "{}",
        '{ a = "}", b = { c = [ 1 ] } }',
        "1_000.5e-3",
        "-inf",
        "1979-05-27 07:32:00",
        "true # = [",
    ],
)
def test_every_kind_of_value(value):
    text = f"a = {value}\nb = 1\n[c]\nd = {value}  \ne = 1"
    assert set(tomllib.loads(text)) == {"a", "b", "c"}
    lines = lines_of(text)
    height = value.count("\n")
    assert lines == {
        ("a",): 1,
        ("b",): 2 + height,
        ("c",): 3 + height,
        ("c", "d"): 4 + height,
        ("c", "e"): 5 + 2 * height,
    }
    assert lines_of(text.replace("\n", "\r\n")) == lines


BARE = "abcdefghijklmnopqrstuvwxyz-_0123456789"
NAMES = st.one_of(st.text(BARE, min_size=1, max_size=6), st.text(max_size=6).filter(lambda name: name.isprintable()))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)


def quoted(text):
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def written(name):
    return name if name and set(name) <= set(BARE) else quoted(name)


VALUES = st.recursive(
    st.one_of(
        st.integers(-(10**9), 10**9).map(str),
        st.sampled_from(["true", "false", "1.5", "nan", "07:32:00"]),
        TEXTS.map(quoted),
        TEXTS.filter(lambda text: "'" not in text).map(lambda text: f"'{text}'"),
        TEXTS.map(lambda text: '"""\n' + text.replace("\\", "").replace('"""', "") + ' \n"\n[x]\ny = 1 ""\n"""'),
        TEXTS.filter(lambda text: "'''" not in text).map(lambda text: f"'''\n{text} # \n[[z]]'''"),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda entries: "[ # [\n" + " , # ]\n".join([*entries, ""]) + "]"),
        st.lists(values.filter(lambda value: "\n" not in value), max_size=3).map(
            lambda entries: "{" + ", ".join(f"k{at} = {entry}" for at, entry in enumerate(entries)) + "}"
        ),
    ),
    max_leaves=5,
)
FILLING = st.sampled_from(["", "", "", "# [x]\n", "\n", "  # a = 1\n\n"])
KEYS = st.lists(st.tuples(FILLING, NAMES, VALUES), max_size=4, unique_by=lambda key: key[1])
TABLES = st.lists(st.tuples(FILLING, st.booleans(), NAMES, KEYS), max_size=5)


@settings(deadline=None, max_examples=200)
@given(KEYS, TABLES)
def test_documents_of_every_shape(first, tables):
    text, wanted, arrays = "", {}, {}

    def here():
        return text.count("\n") + 1

    def add(path, keys):
        nonlocal text
        for filling, name, value in keys:
            text += filling
            wanted[(*path, name)] = here()
            text += f"{written(name)} = {value}\n"

    add((), first)
    taken = {name for _, name, _ in first}
    for filling, several, name, keys in tables:
        if name in taken and not (several and name in arrays):
            continue
        taken.add(name)
        text += filling
        wanted.setdefault((name,), here())
        path = (name,)
        if several:
            arrays[name] = arrays.get(name, -1) + 1
            path = (name, arrays[name])
            wanted[path] = here()
        text += f"[[ {written(name)} ]] # [\n" if several else f"[{written(name)}]\n"
        add(path, keys)
    tomllib.loads(text)
    assert lines_of(text) == wanted
