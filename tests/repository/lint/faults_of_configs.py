"""Faults of names, folders and configs, and what is to be found of each."""

from __future__ import annotations

from tritonclient.grpc.model_config_pb2 import ModelConfig

from .planting import (
    aged,
    both,
    config,
    fault,
    file,
    folder,
    gone,
    instead,
    more,
    renamed,
    warm_up,
)


def _note(found: ModelConfig, text: str) -> None:
    found.parameters["note"].string_value = text


NAMES = [
    fault("no models", both(*map(gone, ("bare", "pair", "plus_one", "script"))), "repository-empty"),
    fault("name with a space", renamed("bare", "my model"), "model-name", "name-differs"),
    fault("another name in the config", config(lambda found: setattr(found, "name", "other")), "name-differs"),
    fault("folder without anything", folder("notes"), "config-missing", "no-version"),
    fault("no version", gone("bare/1"), "no-version"),
    fault("leading zero", renamed("bare/1", "bare/01"), "no-version", "version-name"),
    fault("leading zero beside a version", folder("bare/02"), "version-name"),
    fault("number with a letter", folder("bare/2a"), "version-name"),
    fault("negative version", folder("bare/-1"), "version-name"),
    fault("version with a sign", folder("bare/+2"), "version-name"),
    fault("fraction", folder("bare/1.5"), "version-name"),
    fault("version 0", renamed("bare/1", "bare/0"), "no-version", "version-zero"),
    fault("version too big", folder("bare/9223372036854775808"), "version-too-big", "version-empty"),
    fault("file like a version", file("bare/2"), "version-file"),
    fault("empty version", folder("bare/2"), "version-empty"),
    fault("hidden folder between the models", folder(".git"), "hidden-folder"),
    fault("what a killed publisher left", aged("bare/.bare-staging-x"), "staging-left"),
    fault("the same, beside the repository", aged("../.bare-staging-x"), "staging-left"),
    fault(
        "policy names an absent version",
        more("version_policy { specific { versions: [1, 7] } }"),
        "policy-version-missing",
    ),
    fault(
        "policy names only absent versions",
        more("version_policy { specific { versions: 7 } }"),
        "policy-serves-nothing",
        "policy-version-missing",
    ),
    fault(
        "policy names no version",
        config(lambda found: found.version_policy.specific.SetInParent()),
        "policy-serves-nothing",
    ),
    fault(
        "policy serves 0",
        config(lambda found: setattr(found.version_policy.latest, "num_versions", 0)),
        "policy-serves-nothing",
    ),
    fault("no policy", config(lambda found: found.ClearField("version_policy")), "policy-missing"),
    fault("no config", gone("bare/config.pbtxt"), "config-missing"),
]
CONFIGS = [
    fault("config cut off", instead("count: 1 }", "count: 1"), "config-unreadable"),
    fault("unknown field", instead("max_batch_size: 8", "max_batch_size: 8 nonsense: 1"), "config-unreadable"),
    fault("config of other bytes", file("bare/config.pbtxt", b"\xff\xfe\x00"), "config-unreadable"),
    fault("field newer than the server", more("model_metrics { }"), "config-newer"),
    fault("no backend", config(lambda found: found.ClearField("backend")), "backend-missing"),
    fault("unknown backend", more('backend: "onnx"'), "backend-unknown"),
    fault(
        "backend of the container",
        more('backend: "tensorrt" default_model_filename: "model.onnx"'),
        "backend-elsewhere",
    ),
    fault("platform that is another backend's", more('platform: "pytorch_libtorch"'), "backend-conflict"),
    fault(
        "ensemble without steps",
        config(lambda found: found.ClearField("ensemble_scheduling"), "pair"),
        "ensemble-platform",
    ),
    fault(
        "steps without being an ensemble",
        more("ensemble_scheduling { }"),
        "ensemble-platform",
    ),
    fault("no outputs", config(lambda found: found.ClearField("output")), "config-incomplete"),
    fault("negative batch", more("max_batch_size: -1"), "batch-size", "tensor-shape-differs"),
    fault("absurd batch", more("max_batch_size: 2000000000"), "batch-size"),
    fault("input without a name", more("input { data_type: TYPE_FP32 dims: 1 }"), "tensor-name", "tensor-unknown"),
    fault("two inputs of one name", more('input { name: "x" data_type: TYPE_FP32 dims: 2 }'), "tensor-name"),
    fault(
        "no data type",
        config(lambda found: found.output[0].ClearField("data_type")),
        "tensor-dtype",
        "tensor-dtype-differs",
    ),
    fault("no dims", config(lambda found: found.input[0].ClearField("dims")), "tensor-dims", "tensor-shape-differs"),
    fault("dims 0", config(lambda found: found.input[0].dims.__setitem__(0, 0)), "tensor-dims", "tensor-shape-differs"),
    fault(
        "dims -2", config(lambda found: found.output[0].dims.__setitem__(0, -2)), "tensor-dims", "tensor-shape-differs"
    ),
    fault(
        "reshape to other elements",
        config(lambda found: found.input[0].reshape.shape.append(3)),
        "tensor-reshape",
        "tensor-shape-differs",
    ),
    fault(
        "reshape that does not say what is open",
        instead("dims: 2 }\noutput", "dims: -1 reshape { shape: [-1, -1] } }\noutput"),
        "tensor-reshape",
        "tensor-shape-differs",
    ),
    fault("format of an image", config(lambda found: setattr(found.input[0], "format", 1)), "tensor-flag"),
    fault("shape tensor", config(lambda found: setattr(found.input[0], "is_shape_tensor", True)), "tensor-flag"),
    fault(
        "optional in a batch",
        config(lambda found: setattr(found.input[0], "optional", True)),
        "tensor-flag",
        "input-not-optional",
    ),
    fault("ragged", config(lambda found: setattr(found.input[0], "allow_ragged_batch", True)), "tensor-flag"),
    fault("model file elsewhere", more('default_model_filename: "x.onnx"'), "model-file-missing"),
    fault(
        "label file that is not there",
        config(lambda found: setattr(found.output[0], "label_filename", "none.txt")),
        "label-missing",
    ),
    fault("a label too few", file("plus_one/labels.txt", "first\n"), "label-count"),
    fault("agent", more('model_repository_agents { agents { name: "x" } }'), "runs-code"),
    fault(
        "environment to unpack",
        more("parameters { key: 'EXECUTION_ENV_PATH' value { string_value: 'e' } }"),
        "runs-code",
    ),
    fault(
        "extension to load", more("parameters { key: 'CPU_EXTENSION_PATH' value { string_value: 'x' } }"), "runs-code"
    ),
    fault("control character in a note", config(lambda found: _note(found, "a\x1b[2J")), "odd-text"),
    fault("note of a book", config(lambda found: _note(found, "x" * 70_000)), "odd-text"),
    fault("library of operators", more('model_operations { op_library_filename: "x.so" }'), "runs-code"),
]
SCHEDULING = [
    fault(
        "CPU and GPUs",
        instead("count: 1", "count: 1 kind: KIND_CPU gpus: 0"),
        "instance-group",
    ),
    fault("automatic and GPUs", config(lambda found: found.instance_group[0].gpus.append(0)), "instance-group"),
    fault(
        "GPUs that cannot be",
        instead("count: 1", "count: 1 kind: KIND_GPU gpus: -1"),
        "instance-group",
        "gpu-only",
    ),
    fault("profile", config(lambda found: found.instance_group[0].profile.append("x")), "instance-group"),
    fault("all passive", config(lambda found: setattr(found.instance_group[0], "passive", True)), "instance-group"),
    fault("GPU only", config(lambda found: setattr(found.instance_group[0], "kind", 1)), "gpu-only"),
    fault("negative count", config(lambda found: setattr(found.instance_group[0], "count", -1)), "instance-count"),
    fault("absurd count", config(lambda found: setattr(found.instance_group[0], "count", 100_000)), "instance-count"),
    fault(
        "absurd threads", more("parameters { key: 'intra_op_thread_count' value { string_value: '1025' } }"), "threads"
    ),
    fault(
        "absurd threads of all instances",
        more("instance_group { count: 200 } parameters { key: 'intra_op_thread_count' value { string_value: '64' } }"),
        "threads",
    ),
    fault(
        "threads in words",
        more("parameters { key: 'intra_op_thread_count' value { string_value: 'two' } }"),
        "parameter",
    ),
    fault(
        "parameter in other letters",
        more("parameters { key: 'INTRA_OP_THREAD_COUNT' value { string_value: '1' } }"),
        "parameter",
    ),
    fault("graph level", more("optimization { graph { level: 9 } }"), "parameter"),
    fault(
        "unknown accelerator",
        more('optimization { execution_accelerators { gpu_execution_accelerator { name: "x" } } }'),
        "accelerator",
    ),
    fault(
        "unknown precision",
        more(
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
            'parameters { key: "precision_mode" value: "FP8" } } } }'
        ),
        "accelerator",
    ),
    fault(
        "batching without a batch axis",
        both(
            more("max_batch_size: 0 dynamic_batching { }"),
            config(lambda found: [tensor.dims.insert(0, -1) for tensor in (found.input[0], found.output[0])]),
        ),
        "batching-without-batch",
    ),
    fault("preferred above the most", more("dynamic_batching { preferred_batch_size: 9 }"), "preferred-batch-size"),
    fault("preferred 0", more("dynamic_batching { preferred_batch_size: 0 }"), "preferred-batch-size"),
    fault(
        "default priority", more("dynamic_batching { priority_levels: 2 default_priority_level: 3 }"), "queue-priority"
    ),
    fault("no default priority", more("dynamic_batching { priority_levels: 2 }"), "queue-priority"),
    fault(
        "priorities in order",
        more("dynamic_batching { priority_levels: 2 default_priority_level: 1 preserve_ordering: true }"),
        "queue-priority",
    ),
    fault(
        "policy of no level",
        more(
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 "
            "priority_queue_policy { key: 5 value { } } }"
        ),
        "queue-priority",
    ),
    fault(
        "absurd priorities",
        more("dynamic_batching { priority_levels: 4000000000 default_priority_level: 1 }"),
        "queue-priority",
    ),
    fault(
        "timeout that never counts",
        more("dynamic_batching { default_queue_policy { allow_timeout_override: true } }"),
        "queue-policy",
        "queue-stall",
    ),
    fault(
        "timeout of a microsecond",
        more("dynamic_batching { default_queue_policy { default_timeout_microseconds: 1 } }"),
        "queue-timeout",
        "queue-stall",
    ),
    fault(
        "timeout beyond the clock",
        more("dynamic_batching { default_queue_policy { default_timeout_microseconds: 4611686018427387904 } }"),
        "queue-timeout",
        "queue-stall",
    ),
    fault("sequences that nothing reads", more("sequence_batching { }"), "sequence-unread"),
    fault(
        "delay of nothing",
        more("dynamic_batching { default_queue_policy { timeout_action: DELAY } }"),
        "queue-policy",
        "queue-stall",
    ),
    fault("bounded queue", more("dynamic_batching { default_queue_policy { max_queue_size: 8 } }"), "queue-stall"),
    fault("absurd delay", more("dynamic_batching { max_queue_delay_microseconds: 60000000 }"), "queue-delay"),
    fault(
        "control without values",
        more("sequence_batching { control_input { name: 'x' control { kind: CONTROL_SEQUENCE_START } } }"),
        "sequence",
    ),
    fault("control without a name", more("sequence_batching { control_input { } }"), "sequence", "tensor-unknown"),
    fault(
        "control that the file has not",
        more(
            "sequence_batching { control_input { name: 'START' "
            "control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] } } }"
        ),
        "tensor-unknown",
    ),
    fault(
        "state without dims",
        more("sequence_batching { state { input_name: 'x' output_name: 'y' data_type: TYPE_FP32 } }"),
        "sequence",
    ),
    fault(
        "batch input",
        more("batch_input { kind: BATCH_ELEMENT_COUNT target_name: 'q' data_type: TYPE_FP32 source_input: 'x' }"),
        "batch-io",
    ),
    fault("decoupled", more("model_transaction_policy { decoupled: true }"), "decoupled"),
    fault("warm-up of another input", more(warm_up("q")), "warm-up"),
    fault("warm-up of another type", more(warm_up(dtype="TYPE_INT64")), "warm-up"),
    fault("warm-up of another shape", more(warm_up(dims=3)), "warm-up"),
    fault("warm-up of an open shape", more(warm_up(dims=-1)), "warm-up"),
    fault("warm-up of nothing", more(warm_up(data="")), "warm-up"),
    fault("warm-up without inputs", more("model_warmup { name: 'w' batch_size: 1 }"), "warm-up"),
    fault(
        "warm-up for ever", more(warm_up().replace("batch_size: 1", "batch_size: 1 count: 4000000000")), "warm-up-size"
    ),
    fault("warm-up above the batch", more(warm_up().replace("batch_size: 1", "batch_size: 9")), "warm-up-size"),
    fault("warm-up file that is not there", more(warm_up(data="input_data_file: 'none'")), "warm-up-file"),
    fault(
        "warm-up file too short",
        both(file("bare/warmup/x", b"1234"), more(warm_up(data="input_data_file: 'x'"))),
        "warm-up-file",
    ),
]
