"""The model repository as a contract: configs, manifests, golden cases, publishing and verification."""

from ._artifact import open_artifact
from ._compare import Difference, Tolerance, compare
from ._config import check_name, config_text, input_specs, model_config, output_specs, read_config
from ._errors import ArtifactError, ConfigError, GateError, GoldenError, ManifestError, PublishError
from ._golden import GoldenCases
from ._manifest import Manifest, file_sha256
from ._publish import Candidate, Published, publish
from ._repository import Repository
from ._verify import Verdict, check_version, golden_batches, has_manifest, load_golden, named_outputs, verify_server

__all__ = [
    "ArtifactError",
    "Candidate",
    "ConfigError",
    "Difference",
    "GateError",
    "GoldenCases",
    "GoldenError",
    "Manifest",
    "ManifestError",
    "PublishError",
    "Published",
    "Repository",
    "Tolerance",
    "Verdict",
    "check_name",
    "check_version",
    "compare",
    "config_text",
    "file_sha256",
    "golden_batches",
    "has_manifest",
    "input_specs",
    "load_golden",
    "model_config",
    "named_outputs",
    "open_artifact",
    "output_specs",
    "publish",
    "read_config",
    "verify_server",
]
