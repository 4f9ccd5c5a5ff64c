"""The Python SDK of Tritium: numpy in, numpy out, over HTTP or gRPC."""

from ._client import Client, ModelStatus
from ._errors import (
    AccessDeniedError,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    MissingExtraError,
    ModelNotFoundError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerBusyError,
    ServerError,
    TransportError,
    TritiumError,
)
from ._model import Model, ModelMetadata
from ._tensors import Outputs, TensorSpec, numpy_dtype, triton_dtype

__all__ = [
    "AccessDeniedError",
    "Client",
    "ConnectFailedError",
    "DeadlineExceededError",
    "InferenceFailedError",
    "InputError",
    "MissingExtraError",
    "Model",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "ModelStatus",
    "Outputs",
    "RequestRejectedError",
    "ServerBusyError",
    "ServerError",
    "TensorSpec",
    "TransportError",
    "TritiumError",
    "numpy_dtype",
    "triton_dtype",
]
