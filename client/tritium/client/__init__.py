"""The Python SDK of Tritium: numpy in, numpy out, over HTTP or gRPC."""

from ._async_client import AsyncClient
from ._async_model import AsyncModel, AsyncPreparedCall, AsyncSequence
from ._client import Client
from ._errors import (
    AccessDeniedError,
    BulkError,
    CallError,
    ConnectFailedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    MissingExtraError,
    ModelNotFoundError,
    ModelNotReadyError,
    ProtocolError,
    RequestRejectedError,
    ServerBusyError,
    ServerError,
    TransportError,
    TritiumError,
)
from ._metadata import Classification, ModelMetadata, ModelStatus
from ._model import Model, PreparedCall, Sequence
from ._options import ApiKey, BearerToken, Limits, Retries, Tls
from ._shared_memory import SharedMemory
from ._tensors import Outputs, TensorSpec, numpy_dtype, triton_dtype
from ._trace import RequestRecord

__all__ = [
    "AccessDeniedError",
    "ApiKey",
    "AsyncClient",
    "AsyncModel",
    "AsyncPreparedCall",
    "AsyncSequence",
    "BearerToken",
    "BulkError",
    "CallError",
    "Classification",
    "Client",
    "ConnectFailedError",
    "DeadlineExceededError",
    "InferenceFailedError",
    "InputError",
    "Limits",
    "MissingExtraError",
    "Model",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "ModelStatus",
    "Outputs",
    "PreparedCall",
    "ProtocolError",
    "RequestRecord",
    "RequestRejectedError",
    "Retries",
    "Sequence",
    "ServerBusyError",
    "ServerError",
    "SharedMemory",
    "TensorSpec",
    "Tls",
    "TransportError",
    "TritiumError",
    "numpy_dtype",
    "triton_dtype",
]
