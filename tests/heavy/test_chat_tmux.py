"""`chat` in a real terminal emulator: tmux, against `serve` and its embedded engine."""

import os
import re
import shutil
import subprocess
import time

import pytest

from tests.cli.running import BARE, CLI, serving

pytestmark = pytest.mark.heavy

PATIENCE = 60.0  # seconds


class Tmux:
    """One window of a tmux server of its own."""

    def __init__(self, folder, env, *, columns=80, rows=15):
        program = shutil.which("tmux")
        assert program, "tmux is not installed"
        self._command = [program, "-S", str(folder / "tmux"), "-f", os.devnull]
        environ = {k: v for k, v in BARE.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "TMUX")} | env
        size = ["-x", str(columns), "-y", str(rows)]
        self._run("new-session", "-d", *size, "/bin/sh", env=environ | {"PS1": "$ ", "LANG": "C.UTF-8"})
        self._run("set-option", "history-limit", "10000")

    def _run(self, *args, env=None):
        done = subprocess.run([*self._command, *args], env=env, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def keys(self, *keys):
        self._run("send-keys", *keys)

    def line(self, text):
        self._run("send-keys", "-l", text)
        self.keys("Enter")

    def paste(self, text):
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p")  # marks the paste where the program asked for that

    def text(self, *options):
        """Returns all that the window has shown and still holds."""
        return self._run("capture-pane", "-p", "-S", "-", *options).rstrip("\n")

    def sees(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition(self.text()):
            assert time.monotonic() < deadline, f"waited for {what}; there was {self.text()}"
            time.sleep(0.05)

    def ends(self):
        """Waits until the program, and the window with it, is gone."""
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*self._command, "has-session"], capture_output=True, check=False).returncode == 0:
            assert time.monotonic() < deadline, "it didn't end"
            time.sleep(0.05)

    def ready(self):
        self.sees(lambda text: text.endswith("\n>"), "the prompt")

    def close(self):
        subprocess.run([*self._command, "kill-server"], capture_output=True, timeout=30, check=False)


@pytest.fixture
def tmux(tmp_path):
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": "0123456789abcdef0123456789abcdef"}
    with serving("--listen", "127.0.0.1:0", "--pace", "20", env=env, log=tmp_path / "log") as (_, said):
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        window = Tmux(tmp_path, env | {"XDG_STATE_HOME": str(tmp_path / "state")})
        try:
            window.line(f"exec '{CLI[0]}' chat --thinking --max-tokens 250")
            window.ready()
            yield window
        finally:
            window.close()


def answer(text, question):
    return text.partition(f"> {question}\n")[2].partition("\n>")[0]


def test_a_conversation(tmux, tmp_path):
    tmux.line("What is a deadline in gRPC?")
    tmux.sees(lambda text: len(answer(text, "What is a deadline in gRPC?").split()) > 5, "words")
    early = answer(tmux.text(), "What is a deadline in gRPC?")
    tmux.ready()
    whole = answer(tmux.text(), "What is a deadline in gRPC?")
    assert len(early.split()) < len(whole.split())  # it came bit by bit
    assert "\x1b[2m" in tmux.text("-e")  # the reasoning, dim

    tmux.line("Tell me about streams")
    tmux.sees(lambda text: len(answer(text, "Tell me about streams").partition("\n\n")[2].split()) > 5, "words")
    tmux.keys("C-c")
    tmux.sees(lambda text: "(cancelled)" in text, "the end of the turn")
    tmux.ready()

    tmux.line(f"/save {tmp_path}/chat.md")
    tmux.sees(lambda text: "saved 4 messages" in text, "the file")
    saved = (tmp_path / "chat.md").read_text()
    assert saved.count("## User") == saved.count("## Assistant") == 2
    text = " ".join(saved.rpartition("## Assistant\n")[2].split())
    assert text
    assert text in " ".join(tmux.text().split())

    tmux.keys("C-d")
    tmux.ends()


def test_a_paste_of_several_lines_is_one_message(tmux, tmp_path):
    tmux.paste("What is a retry?\nAnd what is\n\na deadline?")
    tmux.sees(lambda text: text.endswith("a deadline?"), "the paste")
    tmux.keys("Enter")
    tmux.sees(lambda text: "a deadline?\n" in text, "the turn")
    tmux.ready()
    tmux.line(f"/save {tmp_path}/chat.md")
    tmux.sees(lambda text: "saved 2 messages" in text, "the file")
    assert "## User\n\nWhat is a retry?\nAnd what is\n\na deadline?\n" in (tmp_path / "chat.md").read_text()


def test_what_is_higher_than_the_screen_is_there_once(tmux, tmp_path):
    """Many answers, each of which scrolls the window: every paragraph that was saved is on the record exactly once."""
    questions = [f"What is a retry, number {i}?" for i in range(3)]
    for question in questions:
        tmux.line(question)
        tmux.sees(lambda text, question=question: f"> {question}" in text, "the question")
        tmux.ready()
    tmux.line(f"/save {tmp_path}/chat.md")
    tmux.sees(lambda text: "saved 6 messages" in text, "the file")
    shown = tmux.text()
    assert len(shown.split("\n")) > 15
    for question in questions:
        lines = [line for line in answer(shown, question).split("\n") if len(line) > 40]
        assert lines
        assert len(lines) == len(set(lines))
    saved = re.sub(r"\s+", " ", (tmp_path / "chat.md").read_text())
    for said in re.findall(r"## Assistant (.*?)(?= ## |$)", saved):
        assert re.sub(r"\s+", " ", shown).count(said.strip()) == 1
