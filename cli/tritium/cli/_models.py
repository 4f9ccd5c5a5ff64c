"""`tritium models`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ._shared import connect, json_option, print_json, print_table, url_option


@click.command("models")
@url_option
@json_option
def command(url: str, as_json: bool) -> None:
    """List the models of a running server."""
    with connect(url) as client:
        statuses = client.models()
        if as_json:
            print_json([asdict(status) for status in statuses])
            return
        rows = []
        for status in statuses:
            ready = status.state == "READY"
            metadata = client.model(status.name, status.version).metadata if ready else None
            inputs = ", ".join(map(str, metadata.inputs)) if metadata else "-"
            outputs = ", ".join(map(str, metadata.outputs)) if metadata else "-"
            state = status.state or "not loaded"
            rows.append((status.name, status.version or "-", state, inputs, outputs, status.reason))
        print_table(("model", "version", "state", "inputs", "outputs", ""), rows)
