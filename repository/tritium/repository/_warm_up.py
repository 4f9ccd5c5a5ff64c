"""A warm-up from golden cases: Triton runs one before it says that a model is ready."""

from __future__ import annotations

import hashlib

from tritonclient.grpc.model_config_pb2 import ModelConfig

from ._golden import GoldenCases, packed

WARM_UP_FOLDER = "warmup"


def add_warm_up(config: ModelConfig, golden: GoldenCases) -> dict[str, bytes]:
    """Let a model be warmed up with its first golden case.

    Args:
        config: gets the warm-up.
        golden: the cases, as `config` takes them.

    Returns:
        The files that the config now names, by name. The names hold a checksum of the content, so that no version ever
        changes another's.
    """
    files = {}
    warm_up = config.model_warmup.add(name="golden case", batch_size=1 if config.max_batch_size else 0)
    for place, tensor in enumerate(config.input):
        row = golden.inputs[tensor.name][:1]
        content = packed(row)
        # By its place: a tensor may be called anything.
        name = f"input{place}-{hashlib.sha256(content).hexdigest()[:12]}"
        data = warm_up.inputs[tensor.name]
        data.data_type = tensor.data_type
        data.dims.extend(row.shape[1:])
        data.input_data_file = name
        files[name] = content
    return files
