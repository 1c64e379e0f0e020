"""Checks of the Kubernetes manifests in ``cluster/kuberay``."""

from __future__ import annotations

import functools
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # comes with Ray
import yaml

from cluster.cluster_files_checks import (
    HEALTH,
    Tree,
    check_head_options,
    closed,
    constraints,
    require,
    start_options,
)

SPOT = {  # what managed node groups of EKS, Karpenter and GKE write on their spot nodes
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
}


@functools.cache
def custom_resources(folder: Path) -> dict[str, jsonschema.Draft7Validator]:
    """The validator of each kind and version that the folder's CRDs define."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # megabytes
    found: dict[str, jsonschema.Draft7Validator] = {}
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), loader):
            spec = document["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']} {spec['names']['kind']}"
                schema = closed(version["schema"]["openAPIV3Schema"])
                found[key] = jsonschema.Draft7Validator(schema)
    return found


def check_manifest(tree: Tree, folder: Path) -> None:
    """The manifest against its CRD."""
    custom_resources(folder)[f"{tree['apiVersion']} {tree['kind']}"].validate(tree)


def check_pods(tree: Tree) -> None:
    """Token, versions, a head without work and not reachable from outside, spot workers from none."""
    spec = tree["spec"].get("rayClusterSpec", tree["spec"])
    head = spec["headGroupSpec"]
    require(spec["authOptions"]["mode"] == "token", "no token")
    require(spec["rayVersion"] == constraints()["ray"], "Ray's version is not the locked one")
    require(head["serviceType"] == "ClusterIP", "the dashboard is open to others")
    require(spec["enableInTreeAutoscaling"], "no autoscaler")
    check_head_options(start_options(ray_start(head["rayStartParams"])))
    pod = head["template"]["spec"]
    names = {variable["name"] for variable in pod["containers"][0]["env"]}
    require(names >= {f"RAY_health_check_{name}" for name in HEALTH}, "no health checks")
    for group in spec["workerGroupSpecs"]:
        start_options(ray_start(group["rayStartParams"]))
        require(group["replicas"] == group["minReplicas"] == 0, "does not scale from zero")
        worker = group["template"]["spec"]
        require(spot_labels(worker) == SPOT, "not spot")
        require(worker["restartPolicy"] == "Never", "the second autoscaler asks for Never")
        limits = worker["containers"][0]["resources"]["limits"]
        require(int(limits["nvidia.com/gpu"]) > 0, "no GPU")
        require(worker["serviceAccountName"] == pod["serviceAccountName"] == "cwerm", "no identity")
        for part in (pod, worker):
            require(part["securityContext"]["runAsNonRoot"], "runs as root")


def spot_labels(pod: Tree) -> dict[str, str]:
    """The labels of nodes that the pod may run on, any one of which is enough."""
    rule = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    found = {}
    for term in rule["nodeSelectorTerms"]:
        (condition,) = term["matchExpressions"]
        require(condition["operator"] == "In", "another operator")
        (found[condition["key"]],) = condition["values"]
    return found


def ray_start(parameters: Tree) -> str:
    return "ray start " + " ".join(f"--{key}={value}" for key, value in parameters.items())
