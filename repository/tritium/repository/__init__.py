"""The model repository as a contract: configs, manifests, golden cases, publishing and verification."""

from ._admission import check_loadable
from ._artifact import open_artifact
from ._cache import cache_dir
from ._compare import Difference, Tolerance, compare, is_float, rows_alike, rows_within
from ._config import check_name, config_text, input_specs, model_config, output_specs, read_config
from ._errors import (
    ArtifactError,
    ConfigError,
    GateError,
    GoldenError,
    ManifestError,
    PublishError,
    RepositoryError,
    SignatureError,
    StoreAccessError,
    StoreError,
)
from ._golden import GoldenCases
from ._manifest import Manifest, file_sha256
from ._operations import (
    VersionPolicy,
    restore,
    retire,
    roll_back,
    served_versions,
    set_version_policy,
    write_config,
)
from ._promote import promote
from ._publish import Candidate, Published, publish
from ._repository import Repository, opened, version_folders
from ._serving import Serving
from ._signing import sign, verify_signature
from ._store import Pushed, S3Repository, is_s3
from ._verify import (
    Verdict,
    check_version,
    golden_batches,
    has_golden,
    has_manifest,
    load_golden,
    measure,
    named_outputs,
    verify_server,
)
from ._warm_up import add_warm_up

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
    "Pushed",
    "Repository",
    "RepositoryError",
    "S3Repository",
    "Serving",
    "SignatureError",
    "StoreAccessError",
    "StoreError",
    "Tolerance",
    "Verdict",
    "VersionPolicy",
    "add_warm_up",
    "cache_dir",
    "check_loadable",
    "check_name",
    "check_version",
    "compare",
    "config_text",
    "file_sha256",
    "golden_batches",
    "has_golden",
    "has_manifest",
    "input_specs",
    "is_float",
    "is_s3",
    "load_golden",
    "measure",
    "model_config",
    "named_outputs",
    "open_artifact",
    "opened",
    "output_specs",
    "promote",
    "publish",
    "read_config",
    "restore",
    "retire",
    "roll_back",
    "rows_alike",
    "rows_within",
    "served_versions",
    "set_version_policy",
    "sign",
    "verify_server",
    "verify_signature",
    "version_folders",
    "write_config",
]
