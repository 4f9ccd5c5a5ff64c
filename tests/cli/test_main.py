"""The command as a whole: its help, what it loads, how it exits, and where its output goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as package_version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tritium.cli._main import COMMANDS, tritium
from tritium.repository import Repository
from tritium.server import TritonServer

ZOO_KEYS = {"name", "model", "data", "export", "version", "metrics", "baselines"}

HEAVY = (
    "boto3",
    "botocore",
    "torch",
    "sklearn",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "mlxtend",
    "locust",
    "gevent",
    "geventhttpclient",
    "model_signing",
)
NOWHERE = "http://127.0.0.1:1"

Run = Callable[..., Result]
Spawn = Callable[..., subprocess.CompletedProcess[str]]
Fill = Callable[[object, TritonServer, Repository], str]


def commands(
    group: click.Group = tritium, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and every group with the words that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL_COMMANDS = dict(commands())


def test_the_commands_are_these() -> None:
    assert COMMANDS == (
        "doctor",
        "runtime",
        "zoo",
        "add",
        "publish",
        "lint",
        "sign",
        "verify-signature",
        "push",
        "serve",
        "reload",
        "rollback",
        "models",
        "infer",
        "verify",
        "load",
        "compare",
        "tune",
    )
    assert [" ".join(path) for path in ALL_COMMANDS] == [
        "doctor",
        "runtime",
        "runtime info",
        "runtime install",
        "runtime remove",
        "zoo",
        "zoo list",
        "zoo train",
        "add",
        "publish",
        "lint",
        "sign",
        "verify-signature",
        "push",
        "serve",
        "reload",
        "rollback",
        "models",
        "infer",
        "verify",
        "load",
        "compare",
        "tune",
    ]


@pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
def test_each_command_has_help_with_a_summary_and_every_option_explained(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    command = ALL_COMMANDS[path]
    summary = (command.help or "").strip().partition("\n")[0]
    assert summary.endswith(".")
    assert summary in " ".join(result.stdout.split())
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert max(option.opts, key=len) in result.stdout


@pytest.mark.parametrize("group", [(), ("runtime",), ("zoo",)], ids=lambda path: " ".join(path) or "tritium")
def test_a_list_of_commands_shows_every_summary_whole(run: Run, group: tuple[str, ...]) -> None:
    listed = run(*group, "--help").stdout.partition("Commands:\n")[2]
    assert listed
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize(
    "path",
    [path for path, command in ALL_COMMANDS.items() if not isinstance(command, click.Group) and path != ("serve",)],
    ids=" ".join,
)
def test_each_command_can_speak_json(path: tuple[str, ...]) -> None:
    assert "--json" in [name for option in ALL_COMMANDS[path].params for name in option.opts]


def test_version_is_that_of_the_package(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"tritium, version {package_version('tritium')}\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["serv"], "There is no command 'serv'. Did you mean 'serve'?"),
        (["docter"], "There is no command 'docter'. Did you mean 'doctor'?"),
        (["xyz"], "There is no command 'xyz'. There are doctor, runtime, zoo, add, publish, lint, "),
        (["zoo", "trian"], "Did you mean 'train'?"),
        (["runtime", "instal"], "Did you mean 'install'?"),
        (["serve", "--http-prt", "0"], "--http-port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_misspelt_is_answered_with_the_closest(run: Run, arguments: list[str], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert hint in result.stderr


def test_without_arguments_it_shows_its_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def loaded(code: str) -> list[str]:
    program = f"import sys\n{code}\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([*path, "--help"] for path in ALL_COMMANDS)],
    ids=" ".join,
)
def test_help_loads_no_framework(arguments: list[str]) -> None:
    code = f"""
from tritium.cli import main
sys.argv = ["tritium", *{arguments!r}]
try:
    main()
except SystemExit as exc:
    assert not exc.code, exc.code
"""
    assert loaded(code) == []


def test_importing_the_command_loads_no_framework_and_not_even_its_own_subcommands() -> None:
    code = "import tritium.cli, tritium.cli._main\nassert 'tritium.cli._serve' not in sys.modules"
    assert loaded(code) == []


def test_python_dash_m_is_the_command(spawn: Spawn) -> None:
    done = spawn("--version")
    assert (done.returncode, done.stdout) == (0, f"tritium, version {package_version('tritium')}\n")


def test_a_missing_click_is_named_with_the_command_that_brings_it() -> None:
    code = "import sys; sys.modules['click'] = None; from tritium.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.strip().endswith("pip install 'tritium[cli]'")


ERRORS = [
    (["infer", "digits_mlp"], 2, "InputError", "Give either --input"),
    (["infer", "nothing", "--input", "x=1", "--url", "{http}"], 1, "ModelNotFoundError", "There are digits_cnn"),
    (["models", "--url", "127.0.0.1:8000"], 2, "InputError", "'url' parameter must start with http://"),
    (["models", "--url", NOWHERE], 1, "ConnectFailedError", f"No connection to {NOWHERE}"),
    (["verify", "--url", NOWHERE], 1, "ConnectFailedError", f"No connection to {NOWHERE}"),
    (
        ["verify", "--url", "{http}", "--repository", "/nonexistent/models"],
        2,
        "InputError",
        "no model repository at /nonexistent/models",
    ),
    (["tune", "digits_mlp", "--budget", "10"], 2, "InputError", "Did you mean '10s' or '10m'"),
    (["tune", "digits_mlp", "--repository", "{repository}", "--slo", "p98<1ms"], 2, "InputError", "there are p50"),
    (["tune", "digits_mlq", "--repository", "{repository}"], 2, "InputError", "Did you mean 'digits_mlp'"),
    (["load", "smok"], 2, "InputError", "no suite 'smok'; there are smoke"),
    (["load", "smoke", "--users", "0"], 2, "InputError", "'users' parameter must be 1 or more"),
    (
        ["load", "smoke", "--repository", "/nonexistent/models"],
        2,
        "InputError",
        "no model repository at /nonexistent/models",
    ),
    (
        ["serve", "--repository", "/nonexistent/models"],
        2,
        "InputError",
        "no model repository at /nonexistent/models",
    ),
    (["serve", "--repository", "{repository}", "--model", "digits_cnm"], 2, "InputError", "digits_cnn"),
    (["zoo", "train", "digits_cnm"], 2, "InputError", "Did you mean 'digits_cnn'? There are digits_cnn, "),
]


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    ERRORS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_error_goes_to_standard_error_and_with_json_to_standard_output_as_well(
    run: Run,
    fill: Fill,
    server: TritonServer,
    zoo: Repository,
    arguments: list[str],
    code: int,
    kind: str,
    message: str,
    as_json: bool,
) -> None:
    result = run(*(fill(argument, server, zoo) for argument in arguments), *(["--json"] if as_json else []))
    assert result.exit_code == code
    assert message in result.stderr.partition("Error: ")[2]
    if as_json:
        document = json.loads(result.stdout)
        assert document["kind"] == kind
        assert message in document["error"]
    else:
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--nonsense"], "--nonsense"),
        (["load", "smoke", "--users", "many"], "'many' is not a valid integer"),
        (["infer"], "MODEL"),
        (["zoo", "trian"], "trian"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_a_json_document_too_where_json_was_asked_for(
    run: Run, arguments: list[str], message: str
) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert message in result.stderr
    assert message in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["doctor", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"], {"ok", "findings"}),
        (
            ["runtime", "info"],
            {"installed", "cache", "cache_bytes", "triton_version", "path", "wheels", "backends", "native"},
        ),
        (["zoo", "list", "--repository", "{repository}"], ZOO_KEYS),
        (
            ["zoo", "train", "digits_mlp", "--repository", "{repository}"],
            ZOO_KEYS | {"fresh", "parity"},
        ),
        (["models", "--url", "{http}"], {"name", "version", "state", "reason"}),
        (["models", "--url", "{grpc}"], {"name", "version", "state", "reason"}),
        (
            ["infer", "digits_svm", "--case", "0", "--url", "{http}", "--repository", "{repository}"],
            {"label", "probabilities"},
        ),
        (["verify", "--url", "{http}", "--repository", "{repository}"], {"ok", "url", "verdicts"}),
        (
            ["load", "smoke", "--users", "1", "--duration", "1", "--url", "{http}", "--repository", "{repository}"],
            {"format", "interrupted", "ok", "runs", "suite", "verdicts"},
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_json_is_one_document_on_standard_output(
    run: Run, fill: Fill, server: TritonServer, zoo: Repository, arguments: list[str], keys: set[str]
) -> None:
    result = run(*(fill(argument, server, zoo) for argument in arguments), "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    for item in document if isinstance(document, list) else [document]:
        assert item.keys() == keys


def test_json_is_kept_apart_from_what_people_read(server: TritonServer, zoo: Repository) -> None:
    """What `zoo train` says while it works must not end up between the brackets."""
    arguments = ["zoo", "train", "digits_svm", "--repository", str(zoo.path)]
    with_json = CliRunner().invoke(tritium, [*arguments, "--json"])
    without = CliRunner().invoke(tritium, arguments)
    assert [row["name"] for row in json.loads(with_json.stdout)] == ["digits_svm"]
    assert "up to date" in with_json.stderr
    assert [line.split()[0] for line in without.stdout.splitlines()] == ["name", "digits_svm"]


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_wrong_usage(run: Run, zoo: Repository, command: str, port: int) -> None:
    where = ["--repository", zoo.path] if command == "serve" else []
    result = run(command, *where, "--http-port", port)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "65535" in result.stderr
    assert str(port) in result.stderr


def test_errors_of_a_real_process_carry_no_traceback(spawn: Spawn, tmp_path: Path) -> None:
    done = spawn("serve", "--repository", tmp_path / "none", "--json")
    assert done.returncode == 2
    said = f"There is no model repository at {tmp_path / 'none'}; 'repository' must be a folder of models"
    assert done.stderr == f"Error: {said}\n"
    assert json.loads(done.stdout) == {
        "error": said,
        "kind": "InputError",
    }
