"""`chat`, on a terminal and in a pipe."""

import re
import stat

import pytest

from deepseek_grpc.cli.conversation import parse_messages
from deepseek_grpc.testing import Fail, Reasoning, Stall
from deepseek_grpc.types import Finished
from tests.cli.running import CLI, events, finish, run
from tests.cli.terminal import Terminal


@pytest.fixture
def chat(fake, tmp_path):
    """Starts a chat on a terminal."""
    terminals = []

    def start(*args, **options):
        env = dict(fake.environ) | {"XDG_STATE_HOME": str(tmp_path / "state")} | options.pop("env", {})
        terminals.append(Terminal("chat", *args, env=env, **options))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.__exit__()


def messages_of(recorded):
    return [(message.role, message.content) for message in recorded.request.messages]


# on a terminal


def test_an_answer_is_typeset_while_it_comes(fake, chat):
    fake.text.script(
        Reasoning("so it "), Reasoning("is\n"), "# Title\n\nsome **bo", "ld** text\n\n- one\n- tw", Stall()
    )
    talk = chat("--model", "m", "--system", "Be brief", "--temperature", "0", "--max-tokens", "9", "--thinking")
    talk.wait_for_prompt()
    talk.type("Why?\r")
    talk.sees(" • tw")  # while the rest never comes
    seen = talk.screen.text()
    assert seen[seen.index("> Why?") :].split("\n") == [
        *("> Why?", "so it is", "", " " * 37 + "Title", "", "some bold text", "", " • one", " • tw"),
    ]
    assert "\x1b[2mso it is" in talk.raw
    assert "\x1b[1mbold" in talk.raw
    request = fake.text.requests[0].request
    assert messages_of(fake.text.requests[0]) == [("system", "Be brief"), ("user", "Why?")]
    assert (request.model, request.temperature, request.max_tokens, request.thinking) == ("m", 0, 9, True)


def test_ctrl_c_cancels_the_answer_and_not_the_program(fake, chat):
    fake.text.script("The **first** half", Stall())
    talk = chat()
    talk.wait_for_prompt()
    talk.type("Why?\r")
    talk.sees("The first half")
    talk.type("\x03")
    talk.sees("(cancelled)")
    fake.text.wait_for_cancellations(1)
    talk.enter("And then?")
    talk.sees("Hello from the fake server.")
    assert messages_of(fake.text.requests[1]) == [
        *(("user", "Why?"), ("assistant", "The **first** half"), ("user", "And then?")),
    ]
    assert talk.screen.text().count("The first half") == 1
    assert talk.process.poll() is None


def test_a_cancelled_turn_without_an_answer_leaves_nothing(fake, chat):
    fake.text.script(Stall())
    talk = chat()
    talk.wait_for_prompt()
    talk.type("Why?\r")
    fake.text.wait_for_requests(1)
    talk.type("\x03")
    talk.sees("(cancelled)")
    talk.enter("Hello?")
    assert messages_of(fake.text.requests[1]) == [("user", "Hello?")]


def test_ctrl_c_at_the_prompt_says_how_to_leave_and_ctrl_d_leaves(chat):
    talk = chat()
    talk.wait_for_prompt()
    talk.interrupt("(Ctrl-D or /quit leaves)")
    talk.wait_for_prompt()
    talk.type("\x04")
    assert talk.end() == 0


def test_quit(chat):
    talk = chat()
    talk.wait_for_prompt()
    talk.type("/quit\r")
    assert talk.end() == 0


def test_what_is_longer_than_the_screen_is_shown_once(fake, chat):
    parts = ["Paragraph num", "ber {} with **some** words", ".\n\n"]
    pieces = [piece.format(i) for i in range(60) for piece in parts]
    code = ["```python\n", *(f"line_{i} = {i}\n" for i in range(60)), "```\n"]
    fake.text.script(
        Reasoning("thought one\n"), *(Reasoning(f"thought {i} x\n") for i in range(40)), *pieces, *code, "The end."
    )
    talk = chat(rows=12)
    talk.enter("Tell me all")
    seen = talk.screen.text()
    assert [int(i) for i in re.findall(r"^thought (\d+) x$", seen, re.MULTILINE)] == list(range(40))
    paragraphs = re.findall(r"^Paragraph number (\d+) with some words\.$", seen, re.MULTILINE)
    assert [int(i) for i in paragraphs] == list(range(60))
    assert [int(i) for i in re.findall(r"^ line_(\d+) = \1$", seen, re.MULTILINE)] == list(range(60))
    assert seen.rstrip().endswith("The end.\n>")
    assert len(seen.split("\n")) == 2 + 41 + 1 + 2 * 60 + 60 + 1 + 2


def test_an_error_is_shown_and_the_chat_goes_on(fake, chat):
    fake.text.script(Fail("FAILED_PRECONDITION", "the account is empty", reason="INSUFFICIENT_BALANCE"))
    fake.text.script("Cut", Fail("UNAVAILABLE", "gone"))
    fake.text.script(Fail("UNIMPLEMENTED", "no prefixes"))
    fake.text.script("x", Finished("length"))
    talk = chat()
    talk.enter("one")
    talk.sees("error: the account is empty")
    talk.enter("two")
    talk.sees("error: gone")
    talk.enter("three")
    talk.sees("(ended by length)")
    assert messages_of(fake.text.requests[2]) == [("user", "two"), ("assistant", "Cut")]
    assert messages_of(fake.text.requests[3]) == [("user", "two"), ("assistant", "Cut"), ("user", "three")]


def test_a_model_cannot_control_the_terminal(fake, chat):
    fake.text.script(Reasoning("r\x1b]0;title\x07\n"), "a\x1b[31mb\x9b5m [click](https://evil.example) &#27;[7m")
    talk = chat()
    talk.enter("x")
    assert "r]0;title" in talk.screen.text()
    assert "a[31mb5m click (https://evil.example)" in talk.screen.text()
    assert not re.search(r"\x1b\]|\x1b\[31m|\x9b|\x1b\[7m", talk.raw)


def test_save_writes_what_was_said(fake, chat, tmp_path):
    fake.text.script("An **answer**.\n")
    talk = chat(columns=200)
    talk.enter("/save nothing.txt")
    talk.sees("ends neither with .md nor with .json")
    talk.enter("/system Be brief")
    talk.enter("Why?")
    talk.enter(f"/save {tmp_path}/chat.md")
    talk.enter(f"/save {tmp_path}/chat.json")
    assert (tmp_path / "chat.md").read_text() == (
        "## System\n\nBe brief\n\n## User\n\nWhy?\n\n## Assistant\n\nAn **answer**.\n"
    )
    saved = parse_messages("chat.json", (tmp_path / "chat.json").read_text())
    assert [(m.role, m.content) for m in saved] == [
        *(("system", "Be brief"), ("user", "Why?"), ("assistant", "An **answer**.\n")),
    ]
    (tmp_path / "chat.md").write_text("mine")
    talk.enter(f"/save {tmp_path}/chat.md")
    talk.sees("/save! overwrites it")
    assert (tmp_path / "chat.md").read_text() == "mine"
    talk.enter(f"/save! {tmp_path}/chat.md")
    assert (tmp_path / "chat.md").read_text().startswith("## System")
    (tmp_path / "folder.md").mkdir()
    talk.enter(f"/save! {tmp_path}/folder.md")
    talk.sees("Is a directory")
    talk.enter("/save /nowhere/chat.md")
    talk.sees("cannot write '/nowhere/chat.md': No such file or directory")
    talk.enter("/save ~nobody-of-that-name/chat.md")
    talk.enter("/save")
    talk.sees("give a file's name")
    talk.enter("And the chat goes on?")
    talk.sees("Hello from the fake server.")


def test_commands(fake, chat):
    talk = chat()
    for line, says in [
        ("/help", "Ctrl-C cancels an answer"),
        ("/history", "nothing has been said yet"),
        ("/system", "there is no system message"),
        ("/system Be kind", "the system message is set"),
        ("/system", "system message: Be kind"),
        ("/system -", "there is no system message any more"),
        ("/help", "- removes it"),
        ("unsystematic", "Hello from the fake server."),
        ("/reset", "the conversation begins anew"),
        ("/system Be kind", "the system message is set"),
        ("/model", "there are: fake"),
        ("/model other", "the model is other"),
        ("/nonsense", "there is no command '/nonsense'"),
        (" /slash", "Hello from the fake server."),
        ("/history", "assistant:"),
        ("/reset", "the conversation begins anew"),
        ("after", "Hello"),
        ("/mod\t", "model: other"),
    ]:
        talk.enter(line)
        talk.sees(says)
    assert [messages_of(request) for request in fake.text.requests] == [
        [("user", "unsystematic")],
        [("system", "Be kind"), ("user", " /slash")],
        [("system", "Be kind"), ("user", "after")],
    ]
    assert fake.text.requests[2].request.model == "other"


def test_a_paste_of_several_lines_is_one_message(fake, chat):
    talk = chat()
    talk.wait_for_prompt()
    assert "\x1b[?2004h" in talk.raw  # the terminal marks where a paste begins and ends
    talk.type("\x1b[200~one\rtwo\n\nthree\n\x1b[201~")
    talk.sees("three")
    talk.type("\r")
    talk.sees("Hello from the fake server.")
    talk.enter("four")
    assert [messages_of(r)[-1][1] for r in fake.text.requests] == ["one\ntwo\n\nthree", "four"]


def test_messages_of_several_lines(fake, chat):
    talk = chat()
    talk.wait_for_prompt()
    talk.type("one\\\r")
    talk.sees("...")
    talk.enter("two")
    talk.type('"""three\r')
    talk.sees('"""three\n...')
    talk.type("\r")
    talk.sees('"""three\n...\n...')
    talk.enter('four"""')
    assert [messages_of(r)[-1][1] for r in fake.text.requests] == ["one\ntwo", "three\n\nfour"]


def test_what_is_typed_is_kept_for_its_owner_only(fake, chat, tmp_path):
    file = tmp_path / "state" / "deepseek-grpc" / "history"
    talk = chat()
    talk.enter("remember me")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().splitlines() == ["remember me"]
    talk.type("\x04")
    assert talk.end() == 0
    again = chat()
    again.wait_for_prompt()
    again.type("\x1b[A")
    again.sees("> remember me")
    again.type("\r")
    fake.text.wait_for_requests(2)
    assert messages_of(fake.text.requests[1]) == [("user", "remember me")]


def test_nothing_is_kept_where_that_is_not_wanted(chat, tmp_path):
    talk = chat("--no-history")
    talk.enter("forget me")
    assert not (tmp_path / "state").exists()


def test_a_history_that_cannot_be_kept_is_no_reason_to_end(chat):
    talk = chat(env={"XDG_STATE_HOME": "/dev/null"})
    talk.sees("the history isn't kept: /dev/null/deepseek-grpc/history: Not a directory")
    talk.enter("Hi")
    talk.sees("Hello from the fake server.")


# in a pipe


def test_each_line_of_a_pipe_is_a_turn(fake):
    fake.text.script("**One**")
    fake.text.script("Two\n")
    done = run("chat", "--system", "Be brief", env=fake.environ, stdin='first\n\nse\\\ncond\n"""\nthird\n')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "**One**\nTwo\nHello from the fake server.\n"
    assert messages_of(fake.text.requests[2]) == [
        *(("system", "Be brief"), ("user", "first"), ("assistant", "**One**")),
        *(("user", "se\ncond"), ("assistant", "Two\n"), ("user", "third")),
    ]


def test_a_pipe_as_json(fake):
    fake.text.script(Reasoning("hm"), "One")
    done = run("chat", "--json", env=fake.environ, stdin="first\n/history\n/system\n/quit\nnever\n")
    found = events(done)
    assert [each["type"] for each in found] == [
        *("started", "reasoning", "text", "finished", "message", "message", "note"),
    ]
    assert (found[4]["role"], found[5]["content"]) == ("user", "One")
    assert len(fake.text.requests) == 1


def test_a_pipe_goes_on_after_an_error_and_ends_with_its_code(fake):
    fake.text.script(Fail("NOT_FOUND", "no such model"))
    fake.text.script(Fail("INTERNAL", "oh"))
    done = run("chat", env=fake.environ, stdin="one\ntwo\nthree\n")
    assert (done.returncode, done.stdout) == (4, "Hello from the fake server.\n")
    assert done.stderr.startswith("error: no such model")
    assert "/model lists the models" in done.stderr
    assert "client.text" not in done.stderr
    assert done.stderr.count("\n") == 2
    fake.text.script(Fail("NOT_FOUND", "no such model"))
    done = run("chat", "--json", env=fake.environ, stdin="one\n/history\n")
    assert [each["type"] for each in events(done)] == ["error", "note"]


def test_a_pipe_with_commands(fake):
    done = run("chat", env=fake.environ, stdin="Hi\n/history\n/model\n")
    assert done.stdout.splitlines()[1:] == [
        *("user: Hi", "assistant: Hello from the fake server.", "model: the default of the gateway", "there are: fake"),
    ]


def test_a_pipe_with_what_is_no_text(fake):
    done = finish(["/bin/sh", "-c", f"printf '\\377\\nHi\\n' | '{CLI[0]}' chat"], env=fake.environ)
    assert (done.returncode, done.stdout) == (2, "Hello from the fake server.\n")
    assert "a line of standard input is no UTF-8" in done.stderr


def test_the_system_message_is_not_read_from_the_conversation(fake):
    done = run("chat", "--system", "-", env=fake.environ, stdin="Hi\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "@FILE" in done.stderr
