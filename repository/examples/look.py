"""Show what is in a model repository, and where each model's latest version comes from."""

from __future__ import annotations

import sys

from tritium.repository import Manifest, Repository, check_version


def main(path: str) -> int:
    repository = Repository(path)
    for name in repository.models():
        folder = repository.version_folder(name)
        manifest = Manifest.load(folder)
        print(
            f"{name} {folder.name}: made by {manifest.source or 'hand'} on {manifest.created}, {dict(manifest.metrics)}"
        )
        # The gate again: checksums, golden cases, and the model file run in this process.
        for difference in check_version(folder, repository.config(name)):
            print(f"  {difference}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["model_repository"]))
