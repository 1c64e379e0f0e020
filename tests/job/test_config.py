"""The job tree: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cwerm.errors import UserError
from cwerm.job.tree import SECTIONS, Job, load_job, parse_job
from cwerm.methods.choices import REWEIGHTING, SPREADING

SOURCE = {"source": "sample"}


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tree: dict[Any, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_job(tree)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "0.001", "1.0e-3", "10.e-4"])
def test_floats_of_every_spelling(tmp_path: Path, number: str) -> None:
    job = write(tmp_path, f"data: {{source: sample}}\ntrain: {{lr: {number}}}\n")
    assert load_job(job).train.lr == pytest.approx(0.001, rel=1e-12)


def test_an_integer_serves_as_a_float_but_not_the_reverse() -> None:
    assert parse_job({"data": SOURCE, "train": {"lr": 1}}).train.lr == 1.0
    assert "whole number" in refusal({"data": SOURCE, "train": {"epochs": 2.0}})


def test_sections_without_a_value_have_their_defaults(tmp_path: Path) -> None:
    job = write(tmp_path, "data: {source: sample}\ntrain:\n  # epochs: 3\ncoreset: null\n")
    assert load_job(job) == parse_job({"data": SOURCE})
    assert load_job(job, ["train.epochs=3"]).train.epochs == 3


def test_fewer_workers_are_no_more_than_all() -> None:
    tree = {"data": {"source": "sample"}, "resources": {"workers": 2, "min_workers": 3}}
    with pytest.raises(UserError, match="resources: min_workers is 3 and workers 2; ask for no"):
        parse_job(tree)


def test_resources_may_be_auto() -> None:
    tree = {"data": {"source": "sample"}}
    assert parse_job({**tree, "resources": "auto"}) == parse_job(tree)
    with pytest.raises(UserError, match="resources: got 'all', should be a section of keys"):
        parse_job({**tree, "resources": "all"})


def test_overrides_in_order_then_options(tmp_path: Path) -> None:
    job = write(tmp_path, "storage: a\ndata: {source: sample}\n")
    loaded = load_job(
        job,
        ["train.lr=1e-2", "train.lr=3e-2", "storage=b", "data.limit=null", "train.flip=false"],
        {"storage": "2026", "resources.address": "10.0.0.1:6379"},
    )
    assert loaded.train.lr == 0.03
    assert loaded.storage == "2026"  # an option is text as it stands
    assert loaded.resources.address == "10.0.0.1:6379"
    assert loaded.data.limit is None
    assert not loaded.train.flip


def test_an_alias_and_a_merge_are_no_duplicates(tmp_path: Path) -> None:
    text = "data: &d {source: sample, limit: 5}\n"
    assert load_job(write(tmp_path, text)).data.limit == 5
    job = write(tmp_path, "features: &f\n  image_size: 32\ntrain:\n  <<: *f\ndata: {source: é}\n")
    assert load_job(job).train.image_size == 32


def test_the_resolved_job_reads_back_the_same(tmp_path: Path) -> None:
    job = parse_job({"data": SOURCE, "train": {"lr": 1e-5}, "name": "2026"})
    assert load_job(write(tmp_path, job.to_yaml())) == job
    assert list(yaml.safe_load(job.to_yaml())) == list(Job.model_fields)


def test_every_key_is_described() -> None:
    schema = Job.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for name, field in section["properties"].items():
            assert "$ref" in field or field.get("description"), name


def fields() -> list[tuple[str, str]]:
    plain = [s for s in SECTIONS if s not in ("reweight", "broadcast")]
    found = [(s, name) for s in plain for name in Job.model_fields[s].annotation.model_fields]
    return found + [
        (section, f"{method}.{name}")
        for section, methods in (("reweight", REWEIGHTING), ("broadcast", SPREADING))
        for method, kind in methods.items()
        for name in kind.model_fields
        if name != "method"
    ]


@pytest.mark.parametrize(("section", "name"), fields())
def test_every_key_refuses_a_mapping_in_a_persons_words(section: str, name: str) -> None:
    tree: dict[str, Any] = {"data": dict(SOURCE)}
    method, _, name = name.rpartition(".")
    tree.setdefault(section, {"method": method} if method else {})[name] = {"a": 1}
    message = refusal(tree)
    assert message.startswith(f'{section}.{name}: got {{"a": 1}}, should be ')
    for jargon in ("Input", "valid", "instance", "dictionary", "None", "string", "integer"):
        assert jargon not in message.removeprefix(f"{section}.{name}")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "data.source: this key is required; add it to the job file"),
        ({"data": 3}, "data: got 3, should be a section of keys; indent them below 'data:'"),
        (
            {"train": [1]},
            "data.source: this key is required; add it to the job file",
        ),
        ({"name": "a b"}, "text of letters, digits, '.', '_' and '-'"),
        ({"name": 7}, "(put it in quotes)"),
        ({"seed": -1}, "seed: got -1, should be a whole number of at least 0"),
        ({"seed": 2**64}, "below 9223372036854775808"),
        ({"seed": True}, "seed: got true, should be a whole number"),
        ({"method": 3}, "method: got 3, should be 'erm' or 'w-erm' or 'c-random-erm'"),
        ({"method": "xyz"}, "method: unknown value 'xyz'; choose one of erm, w-erm, c-random-erm"),
        ({"trian": {}}, "trian: unknown key; did you mean 'train'"),
        ({"zzz": 1}, "zzz: unknown key (known: name, method, control, seed"),
        ({"train": {"ratio": 1}}, "train.ratio: unknown key; did you mean 'coreset.ratio'?"),
        ({"train": {"flip": "yes"}}, "train.flip: got 'yes', should be true or false"),
        ({"train": {"momentum": 1}}, "should be a number of at least 0 and below 1"),
        ({"train": {"lr": float("inf")}}, "train.lr: got inf, should be a number above 0"),
        ({"resources": {"workers": "many"}}, "got 'many', should be a whole number of at least 1 or 'auto'"),
        ({"features": {"dtype": "float61"}}, "did you mean 'float16'"),
        ({"features": {"image_size": 0}}, "should be a whole number of at least 1 or null"),
        ({"features": {"backbone": "x" * 500}, "reweight": "y" * 500}, "reweight: got 'yyy"),
        ({"reweight": {"method": "postrior"}}, "reweight.method: unknown value 'postrior'; did you mean"),
        ({"broadcast": {"method": 3}}, "broadcast.method: unknown value '3'; choose one of"),
        ({"reweight": {"hidden": 9}}, "reweight.hidden: a key of method metaweightnet; here it is posterior"),
        ({"reweight": {"preset": "paper"}}, "reweight.preset: a key of method l2r and metaweightnet; here"),
        ({"broadcast": {"power": 2.0}}, "broadcast.power: a key of method vote; here it is function"),
        ({"reweight": {"method": "vote"}}, "reweight.method: unknown value 'vote'"),
        ({"reweight": {"method": "l2r", "lr": 0}}, "reweight.lr: got 0, should be a number above 0"),
        ({"train": {"weight_lr": 1}}, "train.weight_lr: unknown key; did you mean 'reweight.weight_lr'?"),
    ],
)  # fmt: skip
def test_words(tree: dict[str, Any], message: str) -> None:
    given = tree if "data" in tree or tree in ({}, {"train": [1]}) else {"data": SOURCE, **tree}
    found = refusal(given)
    assert message in found
    assert len(found) < 200


def test_the_papers_preset_gives_way_to_what_is_asked() -> None:
    asked = {"method": "metaweightnet", "preset": "paper", "epochs": 3}
    paper: Any = parse_job({"data": SOURCE, "reweight": asked}).reweight
    assert (paper.input, paper.model, paper.weight_lr, paper.lr) == (
        "images",
        "resnet32",
        1e-5,
        0.1,
    )
    assert (paper.epochs, paper.average_last, paper.augment) == (3, 1, True)
    assert parse_job({"data": SOURCE, "reweight": paper.model_dump()}).reweight == paper


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("posterior", "function", 1, "random", None)),
        (
            {"reweight": {"method": "metaweightnet"}},
            ("metaweightnet", "agreement", 10, "moderate", 0.01),
        ),
        ({"broadcast": {"method": "nearest"}}, ("metaweightnet", "nearest", 1, "moderate", 0.01)),
        (
            {"broadcast": {"method": "vote", "neighbors": 4}},
            ("metaweightnet", "vote", 4, "moderate", 0.01),
        ),
        ({"reweight": {"method": "l2r"}}, ("l2r", "vote", 10, "moderate", 0.01)),
        ({"method": "w-erm"}, ("metaweightnet", "identity", 0, "all", 0.01)),
        ({"coreset": {"ratio": 0.2}}, ("posterior", "function", 1, "random", 0.2)),
        ({"method": "c-moderate-erm"}, ("posterior", "function", 1, "moderate", 0.01)),
    ],
)
def test_auto_is_resolved(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    job = parse_job({"data": SOURCE, **changes})
    found = (job.reweight.method, job.spreading.method, job.spreading.k)
    assert (*found, job.coreset_method, job.coreset_ratio) == expected


def test_another_method_leaves_out_the_keys_of_the_one_before(tmp_path: Path) -> None:
    """The resolved job of a run holds all keys of its method; what is set for the new one counts."""
    whole = parse_job(
        {"data": SOURCE, "reweight": {"method": "metaweightnet", "epochs": 4, "lr": 0.5}}
    )
    file, told = write(tmp_path, whole.to_yaml()), list[str]()
    changed: Any = load_job(
        file, ["reweight.epochs=7", "reweight.method=l2r"], note=told.append
    ).reweight
    assert (changed.method, changed.epochs, changed.lr) == ("l2r", 7, 0.5)
    assert told == [
        "reweight.method=l2r leaves out keys of the one before: reweight.hidden, reweight.meta_every, "
        "reweight.weight_lr"
    ]
    told.clear()
    assert load_job(file, ["reweight.method=metaweightnet"], note=told.append) == whole
    assert told == []
    with pytest.raises(UserError, match=r"^reweight\.epochs: a key of method"):
        load_job(file, ["reweight.epochs=7", "reweight.method=posterior"])


def test_a_meta_set_that_finds_itself_has_gone() -> None:
    found = refusal({"data": SOURCE, "coreset": {"meta": "auto"}})
    assert found.startswith("coreset.meta: 'auto' has gone")
    assert "none, the default" in found
