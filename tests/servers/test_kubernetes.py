"""The example for Kubernetes is what Kubernetes takes, by its own schemas."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from scene.place import REPOSITORY

#: The first version with sidecars, and the last one whose schema is known.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def manifest() -> str:
    """Return the example."""
    return (REPOSITORY / "broker/kubernetes/sidecar.yml").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_part_of_the_manifest_is_valid(version: str) -> None:
    parts = list(yaml.safe_load_all(manifest()))
    assert [part["kind"] for part in parts] == ["Deployment", "PersistentVolumeClaim"]
    for part in parts:
        kubernetes_validate.validate(part, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_word_that_is_none_is_found(version: str) -> None:
    misspelt, _ = yaml.safe_load_all(manifest().replace("restartPolicy: Always", "restartPolice: Always"))
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolice"):
        kubernetes_validate.validate(misspelt, version, strict=True)
