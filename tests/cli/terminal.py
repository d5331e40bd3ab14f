"""A terminal for tests: a pseudo-terminal, and what its user would see."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from codecs import getincrementaldecoder

from tests.cli.running import BARE, CLI

PATIENCE = 30.0  # seconds
# Makes the pseudo-terminal the one that Ctrl-C comes from.
_LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[=>]|[\x00-\x1a\x1c-\x1f]|[^\x00-\x1f]+")


class Screen:
    """Obeys the control sequences that rich and readline use, and fails on others."""

    def __init__(self, columns, rows):
        self.columns = columns
        self.rows = rows
        self.lines = [""]  # all there ever were; the screen is the last of them
        self.row = self.column = 0

    def feed(self, text):
        """Takes output; returns the incomplete sequence that it ends with."""
        end = text.rfind("\x1b", -12)
        rest = "" if end < 0 or _TOKEN.match(text, end) else text[end:]
        at = 0
        while at < len(text) - len(rest):
            found = _TOKEN.match(text, at)
            assert found, f"a control sequence that isn't known here: {text[at : at + 12]!r}"
            at = found.end()
            token, arguments, command = found[0], found[1], found[2]
            if command:
                self._obey(command, arguments)
            elif token == "\n":
                self._down()
            elif token == "\r":
                self.column = 0
            elif token == "\b":
                self.column -= 1
            elif token >= " ":
                for character in token:
                    self._write(character)
            else:
                assert token in ("\x07", "\x1b=", "\x1b>", "\x00"), repr(token)
        return rest

    def _write(self, character):
        if self.column == self.columns:
            self.column = 0
            self._down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _obey(self, command, arguments):
        count = int(arguments) if arguments.isdecimal() else 1
        line = self.lines[self.row]
        if command == "A":
            self.row = max(self.row - count, len(self.lines) - self.rows, 0)  # what has left the screen stays as it is
        elif command == "C":
            self.column += count
        elif command == "D":
            self.column -= count
        elif command == "K":
            self.lines[self.row] = "" if arguments == "2" else line[: self.column]
        elif command == "J":
            del self.lines[self.row + 1 :]
            self.lines[self.row] = line[: self.column]
        else:
            assert command in "mhl", (command, arguments)

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines)


class Terminal:
    """Runs a command of the command line on a terminal of its own."""

    def __init__(self, *args, env, columns=80, rows=24):
        self.raw = ""
        self.screen = Screen(columns, rows)
        self._decoder = getincrementaldecoder("utf-8")()
        self._rest = ""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environ = {k: v for k, v in BARE.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOGIN, *CLI, *args],
            env=environ | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | dict(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def type(self, text):
        os.write(self._master, text.encode())

    def enter(self, line):
        """Types a line once the prompt is there, and waits until it has been dealt with."""
        self.wait_for_prompt()
        row = self.screen.row
        self.type(line + "\r")
        self.wait(lambda: self.screen.row > row and self.at_prompt(), f"the prompt after {line!r}")

    def at_prompt(self):
        return self.screen.lines[-1].rstrip() in (">", "...")

    def wait_for_prompt(self):
        self.wait(self.at_prompt, "a prompt")

    def sees(self, text):
        """Waits until a text is there."""
        self.wait(lambda: text in self.screen.text(), repr(text))

    def interrupt(self, says):
        """Presses Ctrl-C, until the program says so: Python misses one between the prompt and its wait for a key."""
        deadline = time.monotonic() + PATIENCE
        while says not in self.screen.text():
            assert time.monotonic() < deadline, f"Ctrl-C did nothing; there was {self.screen.text()}"
            self.type("\x03")
            while says not in self.screen.text() and select.select([self._master], [], [], 2)[0]:
                assert self._read(), f"it ended; there was {self.screen.text()}"

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"waited for {what}; there was {self.screen.text()}"
            if select.select([self._master], [], [], min(left, 1))[0] and not self._read():
                assert condition(), f"it ended before {what}; there was {self.screen.text()}"

    def _read(self):
        try:
            piece = self._decoder.decode(os.read(self._master, 65536))
        except OSError:  # how Linux says that the other end is closed
            return False
        self.raw += piece
        self._rest = self.screen.feed(self._rest + piece)
        return True

    def end(self):
        """Reads until the program has ended; returns its exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.process.terminate()  # which can be measured, unlike one that is killed; it may miss one, see above
            while select.select([self._master], [], [], 1)[0] and self._read():
                pass
        self.process.kill()
        self.process.wait()
        os.close(self._master)
