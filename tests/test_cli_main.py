"""The frame of the command line: help, global options, and every way in which a command ends."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hepbridge
from hepbridge.cli.app import app
from hepbridge.cli.group import DEBUG_LOG
from hepbridge.cli.session import Session
from hepbridge.core import errors

COMMANDS = sorted(get_command(app).commands)
ERRORS = [getattr(errors, name) for name in errors.__all__]
run = CliRunner().invoke


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``hepbridge info`` end with ``error``."""

    def describe(name: str) -> dict[str, object]:
        raise error

    monkeypatch.setattr("hepbridge.cli.describe.describe", describe)


def test_commands() -> None:
    assert COMMANDS == [
        "bench",
        "cite",
        "compare",
        "demo",
        "detectors",
        "evaluate",
        "export",
        "generate",
        "info",
        "refine",
        "show",
        "simulate",
        "train",
        "unfold",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command: str) -> None:
    assert run(app, [command, "--help"]).exit_code == 0
    for parameter in get_command(app).commands[command].params:
        assert getattr(parameter, "help", None), f"{command}: {parameter.name} has no help"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["cite"]])
def test_help_does_not_import_heavy_libraries(words: list[str]) -> None:
    """Fails if a command file imports its implementation at the top."""
    code = f"""
import sys
from hepbridge.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "numpy", "scipy", "h5py", "sklearn", "matplotlib"}} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_version() -> None:
    assert run(app, ["--version"]).output == f"hepbridge {hepbridge.__version__}\n"


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_user_error_is_one_message(
    monkeypatch: pytest.MonkeyPatch, error: type[errors.HepbridgeError]
) -> None:
    """Fails if a HepbridgeError ends in a traceback, or with another exit code than its own."""
    raising(monkeypatch, error("x.h5: is odd; make it even"))
    done = run(app, ["info", "x.h5"])
    assert done.exit_code == error.exit_code
    assert done.stderr == "error: x.h5: is odd; make it even\n"
    assert done.stdout == ""


def test_error_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, errors.DataError("x.h5: is odd"))
    done = run(app, ["info", "x.h5", "--json"])
    assert json.loads(done.stdout) == {"error": "x.h5: is odd", "exit_code": 3}
    assert done.exit_code == 3


def test_bug_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raising(monkeypatch, RuntimeError("impossible"))
    done = run(app, ["info", "x.h5"])
    assert done.exit_code == 1
    assert "this is a bug in hepbridge" in done.stderr
    assert "RuntimeError: impossible" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / DEBUG_LOG).exists()


def test_debug_writes_the_details_of_a_bug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raising(monkeypatch, RuntimeError("impossible"))
    done = run(app, ["info", "x.h5", "--debug"])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    text = (tmp_path / DEBUG_LOG).read_text(encoding="utf-8")
    assert text.startswith("Traceback") and text.endswith("RuntimeError: impossible\n")


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    done = run(app, ["info", "x.h5"])
    assert done.exit_code == 130
    assert done.stderr == "error: interrupted; no output is half-written\n"


def test_interrupted_training_names_its_checkpoint_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hepbridge.systems.train.train", train)
    monkeypatch.setattr("hepbridge.cli.samples.joined", list)
    words = ["train", "quantile", "--fast", "f", "--full", "f", "-o", "m.safetensors"]
    assert "--resume" not in run(app, words).stderr
    (tmp_path / "m.safetensors.checkpoint").touch()
    done = run(app, words)
    assert done.exit_code == 130
    assert "m.safetensors.checkpoint: repeat the command with --resume" in done.stderr


@pytest.mark.parametrize(
    "asked",
    [
        "raise KeyboardInterrupt",
        "signal.raise_signal(signal.SIGTERM)",
        "signal.raise_signal(getattr(signal, 'SIGUSR1', signal.SIGTERM))",
    ],
)
def test_interrupt_while_libraries_are_imported(asked: str) -> None:
    """One line, no traceback; fails if something is imported outside the guard of `main`."""
    code = f"""
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            {asked}
sys.meta_path.insert(0, Finder())
from hepbridge.cli import main
main(["--version"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["--version"], ["cite"], ["--json", "cite"], ["cite", "--help"]])
def test_output_that_cannot_be_printed(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hepbridge", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    expected = "error: cannot write to standard output: no space left on device\n"
    assert (done.returncode, done.stderr) == (errors.OutputError.exit_code, expected)


def test_what_was_written_is_named_if_it_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(*args: object) -> None:
        raise errors.OutputError("cannot write to standard output: full")

    monkeypatch.setattr("typer.echo", echo)
    with pytest.raises(errors.OutputError, match=r"full \(but x\.h5 is complete\)"):
        Session().result({"output": Path("x.h5")}, "wrote x.h5")


@pytest.mark.parametrize(
    "words",
    [["no-such-command"], ["info"], ["refine", "m", "f.h5", "--no-such-option"], ["train", "r"]],
)
def test_usage_error(words: list[str]) -> None:
    done = run(app, words)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently on Windows")
def test_reader_that_goes_away() -> None:
    """``hepbridge cite | head -0`` says nothing on standard error."""
    command = [sys.executable, "-m", "hepbridge", "cite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("words", [["--json", "info", "x"], ["info", "x", "--json"]])
def test_global_options_stand_anywhere(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    record = {"kind": "model", "name": "x", "system": "squirels"}
    monkeypatch.setattr("hepbridge.cli.describe.describe", lambda name: record)
    monkeypatch.setattr("hepbridge.cli.describe.words", str)
    assert json.loads(run(app, words).stdout) == record


def test_words_after_two_dashes_are_no_options() -> None:
    done = run(app, ["info", "--", "--json.h5"])
    assert done.stdout == "" and done.stderr == "error: --json.h5: there is no such file\n"


def test_log_records_go_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Information and warnings, with ``--quiet`` no information; never on standard output."""

    def describe(name: str) -> dict[str, object]:
        log = logging.getLogger("hepbridge.somewhere")
        log.debug("detail")
        log.info("step 1")
        log.warning("careful")
        return {}

    monkeypatch.setattr("hepbridge.cli.describe.describe", describe)
    monkeypatch.setattr("hepbridge.cli.describe.words", lambda record: "x")
    normal, quiet, debug = (run(app, ["info", "x", *o]) for o in ([], ["--quiet"], ["--debug"]))
    assert normal.stderr == "step 1\nwarning: careful\n"
    assert quiet.stderr == "warning: careful\n"
    assert debug.stderr == "debug: detail\nstep 1\nwarning: careful\n"
    assert normal.stdout == quiet.stdout == debug.stdout == "x\n"


def test_exit_codes_are_documented() -> None:
    """The table in docs/cli.md names every error class with its exit code, and no other."""
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    table = text.partition("## Exit codes")[2]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    documented = {row[1].strip(" `"): int(row[2]) for row in rows}
    assert documented == {e.__name__: e.exit_code for e in ERRORS if e is not errors.HepbridgeError}


def test_every_command_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"## `hepbridge {command}" in text
        for parameter in get_command(app).commands[command].params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert option in text, f"docs/cli.md does not mention {command} {option}"
