"""`generate`, and the files that it takes."""

import json
import signal
import subprocess

import pytest

from deepseek_grpc.testing import Reasoning, Stall, ToolUse
from tests.cli.running import CLI, events, finish, on_a_terminal, run, run_here, started


def test_generate_prints_the_text_and_ends_the_line(fake):
    fake.text.script("Hel", "lo [b]there[/b] ", "{x} ", "漢字")
    done = run("generate", "Say hi", env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello [b]there[/b] {x} 漢字\n", "")


def test_generate_adds_no_second_line_end(fake):
    fake.text.script("one\n")
    assert run("generate", "x", env=fake.environ).stdout == "one\n"


@pytest.mark.parametrize("streamed", [True, False])
def test_generate_passes_every_option_on(fake, streamed):
    options = ["--model", "m", "--system", "Be brief", "--max-tokens", "7", "--temperature", "0", "--top-p", "0.5"]
    options += ["--stop", "a", "--stop", "b", "--seed", "-3", "--timeout", "9"]
    done = run("generate", "Why?", *options, *([] if streamed else ["--no-stream"]), env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "Hello from the fake server.\n")
    recorded = fake.text.requests[0]
    request = recorded.request
    assert recorded.streamed is streamed
    assert [(m.role, m.content) for m in request.messages] == [("system", "Be brief"), ("user", "Why?")]
    assert (request.model, request.max_tokens, request.temperature, request.top_p) == ("m", 7, 0, 0.5)
    assert (request.stop, request.seed) == (("a", "b"), -3)


def test_generate_streams_as_the_text_comes(fake):
    fake.text.script("first", Stall())
    with started("generate", "x", env=fake.environ) as process:
        assert process.stdout.read(5) == "first"  # while the rest never comes
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\n"
        assert process.wait(30) == 130
    fake.text.wait_for_cancellations(1)


def test_generate_as_json_is_an_object_a_line(fake):
    fake.text.script(Reasoning("hm"), "a\n", "b\u2028")
    done = run("generate", "x", "--json", env=fake.environ)
    start, *pieces, end = events(done)
    assert start["type"] == "started"
    assert start["model"] == "fake"
    assert pieces == [
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "a\n"},
        {"type": "text", "text": "b\u2028"},
    ]
    assert (end["type"], end["finish_reason"], end["usage"]["completion_tokens"]) == ("finished", "stop", 3)
    assert end["meta"]["request_id"]


def test_generate_as_json_without_streaming_has_the_same_shape(fake):
    fake.text.script(Reasoning("hm"), "a", "b")
    reasoning, text, end = events(run("generate", "x", "--json", "--no-stream", env=fake.environ))
    assert reasoning == {"type": "reasoning", "text": "hm"}
    assert text == {"type": "text", "text": "ab"}
    assert (end["type"], end["meta"]["model"]) == ("finished", "fake")


def test_generate_reads_the_prompt_from_standard_input(fake):
    assert run("generate", "-", env=fake.environ, stdin="Two\nlines ü\n").returncode == 0
    assert fake.text.requests[0].request.messages[0].content == "Two\nlines ü"


def test_generate_refuses_input_that_is_no_text(fake):
    done = finish(["/bin/sh", "-c", f"printf '\\377' | '{CLI[0]}' generate -"], env=fake.environ)
    assert done.returncode == 2
    assert "PROMPT: standard input is no UTF-8 (line 1, byte 0)" in done.stderr


@pytest.mark.parametrize("args", [["generate", ""], ["generate", "-"], ["generate", "x", "--temperature", "7"]])
def test_generate_refuses_what_is_wrong_before_it_calls(fake, args):
    done = run(*args, env=fake.environ, stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not fake.text.requests


def test_generate_ends_quietly_when_the_reader_goes_away(fake):
    fake.text.script(*["x" * 4096] * 64, Stall())
    with started("generate", "x", env=fake.environ, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(10) == "x" * 10
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141
    fake.text.wait_for_cancellations(1)


def test_generate_on_a_terminal_sums_up_and_obeys_no_control_characters(fake):
    fake.text.script("a\x1b[31m", "\x9bb\x07", "\tc")
    code, seen = on_a_terminal("generate", "x", env=fake.environ)
    text, summary, _ = seen.split("\r\n")
    assert (code, text) == (0, "a[31mb\tc")
    assert summary.startswith("\x1b[2mfirst token ")
    assert summary.endswith(" tokens/s, 1 + 3 tokens, fake\x1b[0m")


def test_output_that_is_no_terminal_gets_the_text_as_it_is(fake):
    fake.text.script("a\x1b[31m", "\x07")
    assert run("generate", "x", env=fake.environ).stdout == "a\x1b[31m\x07\n"


# files and standard input

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Looks it up", "parameters": {"type": "object"}, "strict": True},
    },
    {"type": "function", "function": {"name": "clock", "strict": True, "parameters": '{"type": "object"}'}},
]
CONVERSATION = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": [{"type": "text", "text": "Time?"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "noon"},
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return str(path)


def test_generate_reads_files(fake, tmp_path):
    question, persona = write(tmp_path / "q", "\ufeffWhy?\n\n"), write(tmp_path / "p", "Be brief\n")
    assert run_here("generate", f"@{question}", "--system", f"@{persona}", env=fake.environ).returncode == 0
    assert (
        run_here("generate", "@@home", "--system", "-", "--thinking", env=fake.environ, stdin="Be kind").returncode == 0
    )
    assert run_here("generate", "x", "--no-thinking", env=fake.environ).returncode == 0
    first, second, third = (recorded.request for recorded in fake.text.requests)
    assert [message.content for message in first.messages] == ["Be brief", "Why?\n"]
    assert [message.content for message in second.messages] == ["Be kind", "@home"]
    assert (first.thinking, second.thinking, third.thinking) == (None, True, False)


@pytest.mark.parametrize("streamed", [True, False])
def test_generate_goes_on_with_a_conversation_and_tools(fake, tmp_path, streamed):
    options = ["--messages", write(tmp_path / "m.json", CONVERSATION), "--tools", write(tmp_path / "t.json", TOOLS)]
    flags = [] if streamed else ["--no-stream"]
    fake.text.script("Look: ", ToolUse("weather", '{"city": "Rome"}'))
    done = run_here("generate", *options, *flags, env=fake.environ)
    assert (done.returncode, done.stdout) == (0, 'Look: \nweather({"city": "Rome"})\n')
    fake.text.script(ToolUse("weather"))
    found = events(run_here("generate", "Thanks", *options, *flags, "--json", env=fake.environ))
    (name,) = {each["name"] for each in found if each["type"] == "tool_call" and each["name"]}
    assert (name, found[-1]["finish_reason"]) == ("weather", "tool_calls")
    first, second = (recorded.request for recorded in fake.text.requests)
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "tool"]
    assert first.messages[1].content[0].text == "Time?"
    assert first.messages[2].tool_calls[0].name == "clock"
    assert first.messages[2].reasoning_content == "hm"
    assert second.messages[4].content == "Thanks"
    assert [(tool.name, tool.strict) for tool in first.tools] == [("weather", True), ("clock", True)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[\n {oops}]", "no JSON: Expecting property name enclosed in double quotes (line 2, column 3)"),
        ("[" * 100_000, "no JSON"),
        ("[" + "9" * 5000 + "]", "no JSON"),
        ('{"role": "user"}', "a JSON object; give an array of messages"),
        ("null", "a JSON null; give an array of messages"),
        ('["Hi"]', "[0] is a JSON string; give an object"),
        ('[{"content": "x"}]', "[0].role is missing"),
        ('[{"role": "user", "text": "x"}]', "[0] has the unknown key 'text'"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', '[0].content[0].type is "image_url"'),
        ('[{"role": "assistant", "tool_calls": {}}]', "[0].tool_calls is a JSON object; give an array"),
        ('[{"role": "assistant", "tool_calls": [{"id": "a"}]}]', "[0].tool_calls[0].function is missing"),
        ('[{"role": "boss", "content": "x"}]', "messages[0].role is 'boss'"),
        ('[{"role": "user", "content": 3}]', "messages[0].content"),
        ("[]", "messages"),
    ],
)
def test_generate_says_what_is_wrong_with_a_conversation(fake, tmp_path, content, says):
    done = run_here("generate", "--messages", write(tmp_path / "m.json", content), env=fake.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not fake.text.requests


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[\n\n{]", "no JSON: Expecting property name enclosed in double quotes (line 3, column 2)"),
        ('[{"type": "plugin"}]', "[0].type is \"plugin\"; give 'function'"),
        ('[{"type": "function"}]', "[0].function is missing"),
        ('[{"function": {"description": "x"}}]', "[0].function.name is missing"),
        ('[{"name": "x"}]', "[0] has the unknown key 'name'"),
        ('[{"function": {"name": "x", "schema": {}}}]', "[0].function has the unknown key 'schema'"),
        ('[{"function": {"name": "x", "parameters": "{oops"}}]', "[0].function.parameters is text that is no JSON"),
        ('[{"function": {"name": "x", "parameters": 3}}]', "parameters"),
    ],
)
def test_generate_says_what_is_wrong_with_tools(fake, tmp_path, content, says):
    file = write(tmp_path / "t.json", content)
    done = run_here("generate", "x", "--tools", file, env=fake.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert file in done.stderr or "tools[0]" in done.stderr
    assert not fake.text.requests


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["@{}/none"], "PROMPT: cannot read '{}/none': No such file or directory"),
        (["@{}"], "PROMPT: cannot read '{}': Is a directory"),
        (["@"], "PROMPT: cannot read"),
        (["x", "--system", "@{}/none"], "--system: cannot read"),
        (["x", "--tools", "{}/none"], "--tools: cannot read"),
        (["x", "--messages", "{}/latin"], "--messages: '{}/latin' is no UTF-8 (line 2, byte 5)"),
        (["-", "--system", "-"], "PROMPT and --system can't both be read from standard input"),
        (["@-", "--tools", "-"], "PROMPT and --tools can't both be read"),
        ([], "PROMPT is missing"),
    ],
)
def test_generate_says_what_is_wrong_with_a_file(fake, tmp_path, args, says):
    (tmp_path / "latin").write_bytes(b"one\nM\xfcller")
    done = run_here("generate", *[arg.format(tmp_path) for arg in args], env=fake.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert says.format(tmp_path) in done.stderr
    assert not fake.text.requests


def test_generate_without_a_standard_input(fake):
    done = finish(["/bin/sh", "-c", f"'{CLI[0]}' generate - <&-"], env=fake.environ)
    assert done.returncode == 2
    assert "standard input" in done.stderr
