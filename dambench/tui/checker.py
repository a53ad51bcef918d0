"""Children with torch that the console asks: what a request would be, and how long it would take.

Both end with the form: a question that nobody waits for is not worth a core.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

Answer = dict[str, Any]
"""As `dambench run --check` prints it, or `error`, a sentence, and `field`, the option that it is about."""


class Checker:
    """Asks one `dambench checks` again and again; of several questions that wait, only the newest.

    Args:
        on_answer: called with each question and its answer, in this one's thread.
    """

    def __init__(self, on_answer: Callable[[list[str], Answer], None]):
        self._on_answer = on_answer
        self._question: list[str] | None = None
        self._wake = threading.Event()
        self._over = False
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        threading.Thread(target=self._work, name="checker", daemon=True).start()

    def ask(self, arguments: Sequence[str]) -> None:
        """Ask about `dambench run` with these arguments."""
        self._question = list(arguments)
        self._wake.set()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._over = True
        self._wake.set()
        if self._child is not None:
            self._child.kill()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._over:
                break
            question = self._question
            if question is None:
                continue
            answer = self._answer(question)
            if not self._over:
                self._on_answer(question, answer)
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        if self._errors is not None:
            self._errors.close()

    def _answer(self, question: list[str]) -> Answer:
        try:
            child = self._ready()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(question).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
            if line:
                answer: Answer = json.loads(line)
                return answer
            child.communicate()
        except (OSError, ValueError) as error:
            return {"error": f"The request could not be checked: {error}"}
        return {"error": f"The request could not be checked: the child that has torch ended. {self._last_words()}"}

    def _ready(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            if self._child is not None:
                self._child.communicate()
                self._child = None
            if self._errors is not None:  # of a child that has ended, or could not be started
                self._errors.close()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as the child lives)
            self._child = subprocess.Popen(
                [sys.executable, "-m", "dambench", "checks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
            if self._over:  # meanwhile
                self._child.kill()
        return self._child

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]


def outlooks(questions: Sequence[Sequence[str]]) -> list[Answer]:
    """Ask one `dambench checks` several questions, and wait for its answers."""
    if not questions:
        return []
    text = "".join(json.dumps(list(question)) + "\n" for question in questions)
    done = subprocess.run(
        [sys.executable, "-m", "dambench", "checks"], input=text, capture_output=True, text=True, check=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) < len(questions):
        last = done.stderr.strip().rpartition("\n")[2]
        return [{"error": f"The request could not be checked: the child that has torch ended. {last}"}] * len(questions)
    return answers


class Measurement:
    """`dambench run --dry-run`: a few measured steps.

    Args:
        on_answer: called with what it printed, or `error` and a sentence, in a thread of its own; never once stopped.
    """

    def __init__(self, arguments: Sequence[str], on_answer: Callable[[Answer], None]):
        self._stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        self._arguments, self._on_answer = list(arguments), on_answer
        threading.Thread(target=self._work, name="measurement", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()

    def _work(self) -> None:
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "dambench", "run", *self._arguments, "--dry-run", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            if self._stopped:
                self._child.kill()
            printed, complaint = self._child.communicate()
            if self._child.returncode:
                last = complaint.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("dambench: ")
                answer: Answer = {"error": last or f"The measurement ended with {self._child.returncode}."}
            else:
                answer = json.loads(printed)
        except (OSError, ValueError) as error:
            answer = {"error": f"It could not be measured: {error}"}
        if not self._stopped:
            self._on_answer(answer)
