"""What lint says of a mutant, and what the server makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tritium.client import Client, ServerError, TritiumError
from tritium.repository import (
    Repository,
    compare,
    golden_batches,
    input_specs,
    named_outputs,
    output_specs,
    verify_server,
)
from tritium.repository.lint import Finding, Severity, lint
from tritium.server import TritonServer

from .kinds import Mutation, make
from .subjects import Subject

# Loading and answering take milliseconds; a backend process that imports torch takes a few seconds.
_PATIENCE_S = 60.0
_ANSWER_S = 5.0


@dataclass(frozen=True)
class Judgement:
    """A mutation, what was found, and what happened.

    Attributes:
        outcome: ``good`` if the mutant answers as the model does; else ``refused``, ``died`` (Triton did), ``wrong``
            (another answer, or an error for one), ``metadata`` (other inputs or outputs) or ``unverified`` (it answers,
            and its own golden cases or manifest say otherwise).
        reason: what the server said.
    """

    mutation: Mutation
    findings: Sequence[Finding]
    outcome: str
    reason: str

    @property
    def said(self) -> bool:
        """Whether lint found an error or a warning."""
        return any(finding.severity != Severity.NOTE for finding in self.findings)

    @property
    def missed(self) -> bool:
        """Whether lint said nothing of what the server refused or misread."""
        return self.outcome != "good" and not self.said

    @property
    def mistaken(self) -> bool:
        """Whether lint found an error where the server did as ever."""
        return self.outcome == "good" and any(finding.severity == Severity.ERROR for finding in self.findings)


def judge(numbers: Iterable[int], seed: int, subjects: Sequence[Subject], folder: Path) -> Iterator[Judgement]:
    """Make mutants, look them over, and have them served one by one."""
    served = folder / "served"
    served.mkdir()
    # Something must be there when a server starts.
    shutil.copytree(subjects[0].folder, served / subjects[0].name)
    with ExitStack() as stack:
        server: TritonServer | None = None
        for number in numbers:
            alone = folder / "alone"
            alone.mkdir()
            mutation = make(number, seed, subjects, alone)
            findings = lint(alone)
            mutant = (alone / mutation.name).rename(served / mutation.name)
            if server is None:
                server = stack.enter_context(
                    TritonServer(served, models=[subjects[0].name], onnx_backend="native", shutdown_timeout_s=2.0)
                )
            outcome, reason = _serve(server, mutation)
            if server.wait(0.0) is not None:
                outcome, server = "died", None
                stack.close()
            shutil.rmtree(mutant)
            alone.rmdir()
            yield Judgement(mutation, findings, outcome, reason)


def _serve(server: TritonServer, mutation: Mutation) -> tuple[str, str]:
    try:
        with server.client(protocol="grpc") as client:
            client.load(mutation.name, timeout_s=_PATIENCE_S)
    except ServerError as exc:
        return "refused", str(exc)
    except TritiumError as exc:
        return "died", str(exc)
    try:
        with server.client(timeout_s=_ANSWER_S) as client:
            return _ask(client, server.repository, mutation)
    except (TritiumError, ValueError, TypeError) as exc:
        return "wrong", str(exc)
    finally:
        if server.wait(0.0) is None:
            server.unload(mutation.name)


def _ask(client: Client, repository: Repository, mutation: Mutation) -> tuple[str, str]:
    subject = mutation.subject
    model = client.model(mutation.name)
    metadata = model.metadata
    if (list(metadata.inputs), list(metadata.outputs)) != (input_specs(subject.config), output_specs(subject.config)):
        return "metadata", f"{list(map(str, metadata.inputs))} and {list(map(str, metadata.outputs))}"
    if list(metadata.versions) != ["1"]:
        return "metadata", f"it serves the versions {list(metadata.versions)}"
    most = int(model.config.get("max_batch_size", 0))
    for batch in golden_batches(subject.golden, subject.config, rows=max(1, min(most, len(subject.golden)))):
        answer = named_outputs(model(dict(batch.inputs)), list(batch.outputs))
        wrong = [difference for difference in compare(batch.outputs, answer, subject.tolerance) if not difference.ok]
        if wrong:
            return "wrong", str(wrong[0])
    if (repository.path / mutation.name / "1/manifest.json").exists():
        (verdict,) = verify_server(client, repository, [mutation.name])
        if not verdict.ok:
            return "unverified", str(verdict)
    return "good", ""
