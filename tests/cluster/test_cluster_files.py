"""The cluster files pass the checks of those who read them, and an error planted in any is caught."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.cluster_files_checks import CLUSTER, HEALTH, ROOT, Tree, load, read
from cluster.cluster_files_manifests import check_manifest, check_pods
from cluster.cluster_files_ray_up import (
    check_commands,
    check_ec2,
    check_gce,
    check_ray,
    check_scaling,
    check_security,
)
from cluster.cluster_files_scripts import (
    check_dockerfile,
    check_environment,
    check_python,
    check_shell,
    check_slurm,
)

REMOVED = object()
CRDS = os.environ.get("CWERM_KUBERAY_CRDS")
needs_crds = pytest.mark.skipif(not CRDS, reason="CWERM_KUBERAY_CRDS names no folder of CRDs")


def crd(tree: Tree) -> None:
    check_manifest(tree, Path(CRDS or ""))


def gce(tree: Tree) -> None:
    spec = importlib.util.find_spec("googleapiclient")
    if spec is None or spec.origin is None:
        pytest.skip("google-api-python-client is missing: pip install google-api-python-client")
    documents = Path(spec.origin).parent / "discovery_cache" / "documents"
    check_gce(tree, documents / "compute.v1.json")


def planted(tree: Tree, path: str, value: Any) -> Tree:
    """A copy of the tree with one value replaced or removed; the path's parts are keys and indices."""
    result = copy.deepcopy(tree)
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("/"))
    place: Any = result
    for part in parents:
        place = place[part]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    assert result != tree
    return result


YAML_CHECKS: list[tuple[str, Callable[[Tree], None]]] = [
    *((f"{name}.yaml", check) for name in ("aws", "gcp", "local") for check in (check_ray,)),
    *((f"{name}.yaml", check_commands) for name in ("aws", "gcp", "local")),
    *((f"{name}.yaml", check_security) for name in ("aws", "gcp", "local")),
    ("aws.yaml", check_scaling),
    ("gcp.yaml", check_scaling),
    ("aws.yaml", check_ec2),
    ("gcp.yaml", gce),
    ("kuberay/raycluster.yaml", check_pods),
    ("kuberay/rayjob.yaml", check_pods),
]


@pytest.mark.parametrize(("name", "check"), YAML_CHECKS)
def test_yaml(name: str, check: Callable[[Tree], None]) -> None:
    check(load(name))


START = "source ~/cwerm/cluster/env.sh; ray start --head "
HEAD, GPU = "available_node_types/head", "available_node_types/gpu"
POD = "headGroupSpec/template/spec"
GROUP = "workerGroupSpecs/0"
WORKER = f"{GROUP}/template/spec"
RAY_PLANTS: list[tuple[Callable[[Tree], None], str, Any]] = [
    (check_ray, "max_worker", 3),
    (check_ray, "cluster_name", 3),
    (check_ray, "provider", REMOVED),
    (check_ray, "provider/type", REMOVED),
    (check_ray, "setup_commands", "one command"),
    (check_commands, "head_start_ray_commands/1", START + "--dashbord-host=127.0.0.1"),
    (check_commands, "head_start_ray_commands/1", START + "--dashboard-host=0.0.0.0"),
    (check_commands, "head_start_ray_commands", ["ray start --head"]),
    (check_commands, "worker_start_ray_commands", REMOVED),
    (check_security, "file_mounts/~~.ray~auth_token", REMOVED),
    (check_security, "file_mounts/~~cwerm~LICENSE", "LICENCE"),
    (check_security, "setup_commands/0", "export AWS_SECRET_ACCESS_KEY=abc"),
]
CLOUD_PLANTS: list[tuple[Callable[[Tree], None], str, Any]] = [
    (check_ray, "head_node_type", "haed"),
    (check_ray, f"{GPU}/min_workers", "0"),
    (check_ray, f"{GPU}/resources", REMOVED),
    (check_ray, f"{GPU}/resources/GPU", "one"),
    (check_scaling, f"{GPU}/min_workers", 1),
    (check_scaling, f"{HEAD}/resources/CPU", 8),
]
YAML_PLANTS = [
    *((f"{name}.yaml", *plant) for name in ("aws", "gcp", "local") for plant in RAY_PLANTS),
    *((f"{name}.yaml", *plant) for name in ("aws", "gcp") for plant in CLOUD_PLANTS),
    ("local.yaml", check_ray, "provider/worker_ips", REMOVED),
    ("local.yaml", check_ray, "provider/head_ip", REMOVED),
    ("local.yaml", check_ray, "auth/ssh_usr", "x"),
    ("aws.yaml", check_scaling, f"{GPU}/node_config/InstanceMarketOptions", REMOVED),
    ("gcp.yaml", check_scaling, f"{GPU}/node_config/scheduling/provisioningModel", "STANDARD"),
    ("aws.yaml", check_ec2, f"{GPU}/node_config/InstanceTyp", "g6.2xlarge"),
    ("aws.yaml", check_ec2, f"{GPU}/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", "150"),
    ("aws.yaml", check_ec2, f"{GPU}/node_config/IamInstanceProfile", REMOVED),
    ("aws.yaml", check_ec2, f"{HEAD}/node_config/ImageId", REMOVED),
    ("gcp.yaml", gce, f"{GPU}/node_config/machinetype", "g2-standard-8"),
    ("gcp.yaml", gce, f"{GPU}/node_config/disks/0/boot", "yes"),
    ("gcp.yaml", gce, f"{GPU}/node_config/scheduling/provisioningModel", "SPOTTY"),
    ("gcp.yaml", gce, "provider/availability_zone", "us-central1-b"),
]


@pytest.mark.parametrize(("name", "check", "path", "value"), YAML_PLANTS)
def test_error_in_yaml(name: str, check: Callable[[Tree], None], path: str, value: Any) -> None:
    keys = path.replace("/~~", "/\0").replace("~", "\1").replace("\0", "~/").replace("\1", "/")
    tree = load(name)
    if "file_mounts/" in path:
        mounts = {k: v for k, v in tree["file_mounts"].items() if k != keys.split("/", 1)[1]}
        mounts |= {} if value is REMOVED else {keys.split("/", 1)[1]: value}
        tree = {**tree, "file_mounts": mounts}
    else:
        tree = planted(tree, path, value)
    with pytest.raises(Exception):  # noqa: B017, PT011  # each reader has its own errors
        check(tree)
