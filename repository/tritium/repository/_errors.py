"""Every exception of the repository.

TritiumError
├── ConfigError                          a config.pbtxt cannot be read, or does not fit
├── GoldenError                          golden cases cannot be used
├── ManifestError                        a manifest cannot be read, or a file is not what it says
├── SignatureError                       a version is not signed by a key, or is not what was signed
├── ArtifactError                        a model file does not load or does not run
├── StoreError                           a repository in S3 cannot be used, or what lies there is not whole
│   └── StoreAccessError                 S3 did not answer, or refused; what lies there may be good
├── RepositoryError                      a repository could not be changed; it is as it was
└── PublishError                         a version was not published; nothing has changed
    └── GateError                        it does not give the golden outputs, or not as its config says
"""

from __future__ import annotations

from tritium.client import TritiumError


class ConfigError(TritiumError):
    """A ``config.pbtxt`` cannot be read, or does not fit what it configures."""


class GoldenError(TritiumError):
    """Golden cases are missing, not finite, too big or of the wrong form."""


class ManifestError(TritiumError):
    """A manifest cannot be read, or a file is not the one it names."""


class SignatureError(TritiumError):
    """A version is not signed by the key that was named, or is not what was signed."""


class ArtifactError(TritiumError):
    """A model file does not load or does not run."""


class StoreError(TritiumError):
    """A repository in S3 cannot be reached or used, or what lies there is not what was sent.

    Attributes:
        url: the object or the repository that it is about.
    """


class StoreAccessError(StoreError):
    """S3 did not answer, or refused. What lies there may be good: the same may work later, or with other credentials.

    Attributes:
        url: the object or the repository that it is about.
    """


class RepositoryError(TritiumError):
    """A repository was not changed. It is as it was."""


class PublishError(TritiumError):
    """A version was not published. The repository is as it was."""


class GateError(PublishError):
    """The version failed its verification. The repository is as it was.

    Attributes:
        model: the model that the version was meant for.
    """

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(f"{model!r} was not published: {message}", model=model)
