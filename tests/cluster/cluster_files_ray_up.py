"""Checks of the files for `ray up`: aws.yaml, gcp.yaml, local.yaml."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # comes with Ray
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.cluster_files_checks import (
    ROOT,
    Tree,
    check_head_options,
    closed,
    require,
    start_options,
)

SOURCED = "source ~/cwerm/cluster/env.sh;"


def check_ray(tree: Tree) -> None:
    """Ray's own validation of what `ray up` reads."""
    validate_config(prepare_config(copy.deepcopy(tree)))


def check_commands(tree: Tree) -> None:
    """Each `ray start` has options that Ray knows and the environment of cluster/env.sh."""
    install = '--constraint ~/cwerm/constraints.txt "$HOME/cwerm[quickstart]"'
    installed = [command.endswith(install) for command in tree["setup_commands"]]
    require(sum(installed) == 1, "cwerm with what the first job needs, as the lock has it")
    for role in ("head", "worker"):
        commands = [c for c in tree[f"{role}_start_ray_commands"] if "ray start" in c]
        require(len(commands) == 1, f"{role}: one `ray start`")
        require(commands[0].startswith(SOURCED), f"{role}: `ray start` without env.sh")
        options = start_options(commands[0])
        require(options["head"] == (role == "head"), f"{role}: --head")
        if role == "head":
            check_head_options(options)
            require(options["dashboard_host"] == "127.0.0.1", "the dashboard is open to others")
            require(options["autoscaling_config"], "no autoscaler")
        else:
            require(options["address"] == "$RAY_HEAD_IP:6379", "worker: address")


def check_security(tree: Tree) -> None:
    """The token is on every node, and no key is."""
    require("~/.ray/auth_token" in tree["file_mounts"], "no token on the nodes")
    require(not re.search(r"AKIA|SECRET_ACCESS_KEY", json.dumps(tree)), "a key in the file")
    for local in tree["file_mounts"].values():
        require(local.startswith("~") or (ROOT / local).exists(), f"{local} is not there to upload")


def check_scaling(tree: Tree) -> None:
    """A head without resources, and workers that start from none."""
    types = dict(tree["available_node_types"])
    head = types.pop(tree["head_node_type"])
    require(head["resources"] == {"CPU": 0, "GPU": 0}, "the head takes work")
    for name, node in types.items():
        require(node["min_workers"] == 0, f"{name}: does not scale from zero")
        require(node["resources"]["GPU"] > 0, f"{name}: no GPU")
        spot = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        preemptible = node["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
        require(spot or preemptible, f"{name}: not spot")


def check_ec2(tree: Tree) -> None:
    """Each node as botocore checks the parameters of RunInstances, and with a role."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape
    for name, node in tree["available_node_types"].items():
        report = ParamValidator().validate(
            {**node["node_config"], "MinCount": 1, "MaxCount": 1}, shape
        )
        require(not report.has_errors(), f"{name}: {report.generate_report()}")
        require("IamInstanceProfile" in node["node_config"], f"{name}: no role")
        require("ImageId" in node["node_config"], f"{name}: Ray's default image is too old")


def check_gce(tree: Tree, discovery: Path) -> None:
    """Each node against the Instance of Google's discovery document of Compute Engine."""
    schemas = json.loads(discovery.read_text())["schemas"]
    validator = jsonschema.Draft7Validator(
        {"$ref": "#/$defs/Instance", "$defs": closed_all(schemas)}
    )
    for name, node in tree["available_node_types"].items():
        errors = [e.message for e in validator.iter_errors(node["node_config"])]
        require(not errors, f"{name}: {errors}")
        for disk in node["node_config"]["disks"]:
            zone = f"zones/{tree['provider']['availability_zone']}/"
            require(disk["initializeParams"]["diskType"].startswith(zone), f"{name}: disk's zone")


def closed_all(schemas: Tree) -> Tree:
    """Google's schemas as JSON schemas: references within the document, unknown keys refused."""
    text = re.sub(r'"\$ref": "(\w+)"', r'"$ref": "#/$defs/\1"', json.dumps(schemas))
    text = re.sub(r'"type": "any"', '"title": "any"', text)
    return {name: closed(schema) for name, schema in json.loads(text).items()}
