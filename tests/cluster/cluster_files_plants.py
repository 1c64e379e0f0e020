"""Errors to plant in the files of ``cluster/``, each with the check that must catch it."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.cluster_files_checks import Tree
from cluster.cluster_files_manifests import check_manifest, check_pods
from cluster.cluster_files_ray_up import (
    check_commands,
    check_ec2,
    check_gce,
    check_ray,
    check_scaling,
    check_security,
)
from cluster.cluster_files_scripts import check_dockerfile, check_environment, check_slurm

REMOVED = object()
RAY_UP = ("aws.yaml", "gcp.yaml", "local.yaml")
CLOUDS = ("aws.yaml", "gcp.yaml")
Check = Callable[[Any], None]
Path_ = tuple[str | int, ...]


def check_crd(tree: Tree) -> None:
    """The manifest against the CRDs in the folder CWERM_KUBERAY_CRDS."""
    folder = os.environ.get("CWERM_KUBERAY_CRDS")
    if not folder:
        pytest.skip("CWERM_KUBERAY_CRDS names no folder with the YAML files of KubeRay's CRDs")
    check_manifest(tree, Path(folder))


def check_google(tree: Tree) -> None:
    """The nodes against the discovery document that comes with google-api-python-client."""
    spec = importlib.util.find_spec("googleapiclient")
    if spec is None or spec.origin is None:
        pytest.skip("google-api-python-client is missing: install cwerm[dev]")
    documents = Path(spec.origin).parent / "discovery_cache" / "documents"
    check_gce(tree, documents / "compute.v1.json")


def planted(tree: Tree, path: Path_, value: object) -> Tree:
    """A copy of the tree with one value replaced or removed."""
    result = copy.deepcopy(tree)
    place: Any = result
    for part in path[:-1]:
        place = place[part]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    assert result != tree
    return result


START = "source ~/cwerm/cluster/env.sh; ray start --head "
HEAD, GPU = ("available_node_types", "head"), ("available_node_types", "gpu")
MACHINE = (*GPU, "node_config")
RAY_PLANTS: list[tuple[tuple[str, ...], Check, Path_, object]] = [
    (RAY_UP, check_ray, ("max_worker",), 3),
    (RAY_UP, check_ray, ("cluster_name",), 3),
    (RAY_UP, check_ray, ("provider",), REMOVED),
    (RAY_UP, check_ray, ("provider", "type"), REMOVED),
    (RAY_UP, check_ray, ("auth", "ssh_usr"), "ubuntu"),
    (RAY_UP, check_ray, ("rsync_exclude",), 5),
    (RAY_UP, check_commands, ("head_start_ray_commands", 1), f"{START}--dashbord-host=127.0.0.1"),
    (RAY_UP, check_commands, ("head_start_ray_commands", 1), f"{START}--dashboard-host=0.0.0.0"),
    (
        RAY_UP,
        check_commands,
        ("worker_start_ray_commands", 1),
        "ray start --address=$RAY_HEAD_IP:6379",
    ),
    (RAY_UP, check_commands, ("worker_start_ray_commands",), REMOVED),
    (RAY_UP, check_security, ("file_mounts", "~/.ray/auth_token"), REMOVED),
    (RAY_UP, check_security, ("file_mounts", "~/cwerm/LICENSE"), "LICENCE"),
    (RAY_UP, check_commands, ("setup_commands", -1), "~/cwerm-venv/bin/pip install ~/cwerm"),
    (RAY_UP, check_security, ("setup_commands", 0), "export AWS_SECRET_ACCESS_KEY=abc"),
    (CLOUDS, check_ray, ("head_node_type",), "haed"),
    (CLOUDS, check_ray, (*GPU, "min_workers"), "0"),
    (CLOUDS, check_ray, (*GPU, "resources"), REMOVED),
    (CLOUDS, check_ray, (*GPU, "resources", "GPU"), "one"),
    (CLOUDS, check_scaling, (*GPU, "min_workers"), 1),
    (CLOUDS, check_scaling, (*HEAD, "resources", "CPU"), 8),
    (("local.yaml",), check_ray, ("provider", "worker_ips"), REMOVED),
    (("local.yaml",), check_ray, ("provider", "head_ip"), REMOVED),
    (("aws.yaml",), check_scaling, (*MACHINE, "InstanceMarketOptions"), REMOVED),
    (("aws.yaml",), check_ec2, (*MACHINE, "InstanceTyp"), "g6.2xlarge"),
    (("aws.yaml",), check_ec2, (*MACHINE, "MetadataOptions", "HttpTokens"), 1),
    (("aws.yaml",), check_ec2, (*MACHINE, "IamInstanceProfile"), REMOVED),
    (("aws.yaml",), check_ec2, (*HEAD, "node_config", "ImageId"), REMOVED),
    (("gcp.yaml",), check_scaling, (*MACHINE, "scheduling", "provisioningModel"), "STANDARD"),
    (("gcp.yaml",), check_google, (*MACHINE, "machinetype"), "g2-standard-8"),
    (("gcp.yaml",), check_google, (*MACHINE, "disks", 0, "boot"), "yes"),
    (("gcp.yaml",), check_google, (*MACHINE, "scheduling", "provisioningModel"), "SPOTTY"),
    (("gcp.yaml",), check_google, ("provider", "availability_zone"), "us-central1-b"),
]

POD = ("headGroupSpec", "template", "spec")
GROUP = ("workerGroupSpecs", 0)
WORKER = (*GROUP, "template", "spec")
RULE = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
TERMS = (*WORKER, *RULE, "nodeSelectorTerms")
POD_PLANTS: list[tuple[Check, Path_, object]] = [
    (check_crd, ("enableInTreeAutoscalin",), True),
    (check_crd, ("rayVersion",), 2.6),
    (check_crd, ("headGroupSpec", "template"), REMOVED),
    (check_crd, ("authOptions", "mode"), "tokens"),
    (check_crd, ("autoscalerOptions", "version"), "v3"),
    (check_crd, ("headGroupSpec", "rayStartParams", "num-cpus"), 0),
    (check_crd, (*GROUP, "minReplicas"), "0"),
    (check_crd, (*GROUP, "groupName"), REMOVED),
    (check_crd, (*WORKER, "containers", 0, "imag"), "x"),
    (check_crd, (*WORKER, "tolerations", 0, "key"), 1),
    (check_pods, ("authOptions", "mode"), "disabled"),
    (check_pods, ("rayVersion",), "2.59.0"),
    (check_pods, ("headGroupSpec", "serviceType"), "LoadBalancer"),
    (check_pods, ("headGroupSpec", "rayStartParams", "num-cpu"), "0"),
    (check_pods, ("headGroupSpec", "rayStartParams", "num-cpus"), REMOVED),
    (check_pods, (*POD, "containers", 0, "env", 0), REMOVED),
    (check_pods, (*GROUP, "minReplicas"), 1),
    (check_pods, (*WORKER, "affinity"), {}),
    (check_pods, (*TERMS, 0, "matchExpressions", 0, "values"), ["spot"]),
    (check_pods, (*TERMS, 1, "matchExpressions", 0, "operator"), "NotIn"),
    (check_pods, (*WORKER, "securityContext", "runAsNonRoot"), False),
]

TEXT_PLANTS: list[tuple[str, Check, str, str]] = [
    ("slurm.sh", check_slurm, "\nfi\n", "\n"),
    ("slurm.sh", check_slurm, "--nodes=1", "--node=1"),
    ("slurm.sh", check_slurm, "#SBATCH --mem=48G\n", ""),
    ("slurm.sh", check_slurm, "--num-gpus=0", "--num-gpu=0"),
    ("slurm.sh", check_slurm, "--num-cpus=0 ", ""),
    ("slurm.sh", check_slurm, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
    ("slurm.sh", check_slurm, "export RAY_AUTH_TOKEN", "export RAY_AUTH"),
    ("env.sh", check_environment, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ("env.sh", check_environment, "threshold=3", "threshold=three"),
    ("env.sh", check_environment, "export RAY_health_check_timeout_ms=1000", "export"),
    ("env.sh", check_environment, '"$HOME/', '"$HOME/${'),
    ("Dockerfile", check_dockerfile, "python:3.11-slim", "python:3.10-slim"),
    ("Dockerfile", check_dockerfile, "COPY jobs jobs", "COPY tests tests"),
    ("Dockerfile", check_dockerfile, "USER 1000", ""),
    ("Dockerfile", check_dockerfile, "WORKDIR /home", "WORKDR /home"),
    ("Dockerfile", check_dockerfile, "--constraint constraints.txt torch", "torch"),
    ("Dockerfile", check_dockerfile, "['quickstart']", "['dev']"),
]
