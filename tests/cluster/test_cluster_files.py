"""The cluster files pass the checks of those who read them, and an error planted in any is caught."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import boto3
import click
import jsonschema  # type: ignore[import-untyped]  # comes with Ray
import pytest
import ray

from cluster.cluster_files_autoscaler import autoscaling_head
from cluster.cluster_files_checks import CLUSTER, HEALTH, ROOT, load, read
from cluster.cluster_files_manifests import check_pods
from cluster.cluster_files_plants import (
    CLOUDS,
    POD_PLANTS,
    RAY_PLANTS,
    RAY_UP,
    TEXT_PLANTS,
    Check,
    Path_,
    check_crd,
    check_google,
    planted,
)
from cluster.cluster_files_ray_up import (
    check_commands,
    check_ec2,
    check_ray,
    check_scaling,
    check_security,
)
from cluster.cluster_files_scripts import (
    check_dockerfile,
    check_environment,
    check_python,
    check_slurm,
)

MANIFESTS = {
    "kuberay/raycluster.yaml": ("spec",),
    "kuberay/rayjob.yaml": ("spec", "rayClusterSpec"),
}
FILES = sorted(str(p.relative_to(CLUSTER)) for p in CLUSTER.rglob("*") if p.is_file())
CAUGHT = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    click.ClickException,
    jsonschema.ValidationError,
)


@pytest.mark.parametrize("check", [check_ray, check_commands, check_security])
@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up(name: str, check: Check) -> None:
    check(load(name))


@pytest.mark.parametrize(
    ("name", "check"),
    [
        *((name, check_scaling) for name in CLOUDS),
        ("aws.yaml", check_ec2),
        ("gcp.yaml", check_google),
        *((name, check) for name in MANIFESTS for check in (check_crd, check_pods)),
    ],
)
def test_provider(name: str, check: Check) -> None:
    check(load(name))


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("slurm.sh", check_slurm),
        ("env.sh", check_environment),
        ("Dockerfile", check_dockerfile),
    ],
)
def test_script(name: str, check: Check) -> None:
    check(read(name))


@pytest.mark.parametrize(
    ("name", "check", "path", "value"),
    [(name, *plant) for names, *plant in RAY_PLANTS for name in names],
)
def test_error_in_ray_up(name: str, check: Check, path: Path_, value: object) -> None:
    with pytest.raises(CAUGHT):
        check(planted(load(name), path, value))


@pytest.mark.parametrize(("check", "path", "value"), POD_PLANTS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_error_in_manifest(name: str, check: Check, path: Path_, value: object) -> None:
    wrong = planted(load(name), (*MANIFESTS[name], *path), value)
    with pytest.raises(CAUGHT):
        check(wrong)


@pytest.mark.parametrize(("name", "check", "old", "new"), TEXT_PLANTS)
def test_error_in_script(name: str, check: Check, old: str, new: str) -> None:
    wrong = read(name).replace(old, new, 1)
    assert wrong != read(name)
    with pytest.raises(CAUGHT):
        check(wrong)


def test_ray_knows_the_health_checks() -> None:
    for name in HEALTH:
        assert callable(getattr(ray._config, f"health_check_{name}"))


def test_python_of_the_images() -> None:
    assert "Ubuntu 24.04" in read("aws.yaml")
    assert "ubuntu-2404" in read("gcp.yaml")
    check_python("3.12")  # Ubuntu's
    with pytest.raises(ValueError, match="needs Python"):
        check_python("3.10")


def test_ray_job_has_the_cluster_of_raycluster() -> None:
    job = load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]
    pod = job["headGroupSpec"]["template"]["spec"]
    mount = pod["containers"][0].pop("volumeMounts")[0]
    assert [volume["name"] for volume in pod.pop("volumes")] == [mount["name"]]
    assert job == load("kuberay/raycluster.yaml")["spec"]


def test_ray_job_has_one_plain_command() -> None:
    entrypoint = load("kuberay/rayjob.yaml")["spec"]["entrypoint"]
    assert not re.search(r"[;&|<>#\n$]", entrypoint)
    assert entrypoint.startswith("python /opt/cwerm/cluster/gpus.py 4 cwerm run /job/")


def test_head_of_ray_up_on_own_hosts_has_the_first_autoscaler() -> None:
    # Ray's second one, which `ray up` turns on, does not count hosts of this provider
    start = load("local.yaml")["head_start_ray_commands"][-1]
    assert start.index("export RAY_enable_autoscaler_v2=0;") < start.index("ray start")


@pytest.mark.parametrize("name", FILES)
def test_what_users_must_set_is_said(name: str) -> None:
    lines = read(name).splitlines()
    places = [i for i, line in enumerate(lines) if "CHANGE-ME" in line]
    if name == "README.md":
        return
    assert all("#" in lines[i] or "#" in lines[i - 1] for i in places)
    assert not places or f"`cluster/{name}`" in read("README.md"), "README does not say so"


def test_readme_names_what_is_there() -> None:
    text = read("README.md")
    for path in re.findall(r"(?:cluster|jobs)/[\w./-]+\.(?:yaml|sh|py)|cluster/Dockerfile", text):
        assert (ROOT / path).exists() or path == "jobs/x.yaml", path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (CLUSTER / link).exists(), link


def test_ec2_starts_what_the_file_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's bootstrap and node provider with the roles of aws-iam.yaml, against moto's EC2 and IAM."""
    moto = pytest.importorskip("moto", reason="moto is missing: install cwerm[dev]")
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the SSH key there
    tree = load("aws.yaml")
    with moto.mock_aws():
        stack = boto3.client("cloudformation", tree["provider"]["region"])
        stack.create_stack(
            StackName="cwerm",
            TemplateBody=read("aws-iam.yaml"),
            Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "bucket"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        detected = prepare_config(load("aws.yaml"))
        for node in detected["available_node_types"].values():
            node["resources"] = {}
        detected = AWSNodeProvider.fillout_available_node_types_resources(detected)
        found = detected["available_node_types"]["gpu"]["resources"]
        stated = tree["available_node_types"]["gpu"]["resources"]
        assert {key: found[key] for key in stated} == stated

        config = bootstrap_aws(prepare_config(tree))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        started = {}
        for name, node in config["available_node_types"].items():
            tags = {"ray-user-node-type": name}
            (started[name],) = provider.create_node(node["node_config"], tags, 1).values()
        roles = {"head": "cwerm-head", "gpu": "cwerm-node"}
        for name, instance in started.items():
            assert instance.iam_instance_profile["Arn"].endswith(f"/{roles[name]}")
            assert instance.metadata_options["HttpTokens"] == "required"
            node = tree["available_node_types"][name]["node_config"]
            assert instance.instance_type == node["InstanceType"]
        assert started["gpu"].instance_lifecycle == "spot"
        assert started["head"].instance_lifecycle is None


@pytest.mark.slow
def test_gpus_come_for_a_command_and_go_after() -> None:
    count = (
        "import ray, sys; ray.init(sys.argv[1]); print('GPUs', ray.cluster_resources().get('GPU'))"
    )
    with tempfile.TemporaryDirectory() as folder, autoscaling_head(Path(folder)) as head:
        seen = [sys.executable, "-c", count, head.address]
        assert "GPUs None" in head.run(*seen).stdout
        held = head.gpus("2", *seen)
        assert "GPUs 2.0" in held.stdout, held.stderr
        assert head.gpus("1", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
        too_many = head.gpus("--timeout", "5", "3")  # the autoscaler may start two
        assert too_many.returncode == 1
        assert "of 3 GPUs after 5 s" in too_many.stderr
        assert head.gpus("1").returncode == 0
        assert "all GPUs may go" in head.gpus("0").stdout
        for _ in range(15):
            if "GPUs None" in (last := head.run(*seen).stdout):
                break
        assert "GPUs None" in last
