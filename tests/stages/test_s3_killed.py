"""The S3 server is killed and away for 30 s in the middle of a stage: the run waits and ends whole."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cli.commands import start, write_job
from object_store import BUCKET, Server, mortal_server  # noqa: F401
from safetensors.numpy import load

from cwerm.job.tree import load_job
from stages.conftest import Chain, chain_tree, run_stages
from stages.test_kill import assert_same_weights

DOWN_SECONDS = 30.0  # and some 20 more until it answers again


class Killer(threading.Thread):
    """Kills the server once an object below ``folder`` ends as told, and starts it again later."""

    def __init__(self, server: Server, folder: str, ending: str) -> None:
        super().__init__(daemon=True)
        self.server, self.folder, self.ending = server, folder, ending
        self.struck = 0

    def run(self) -> None:
        client = self.server.client()
        while not self.struck:
            found = client.list_objects_v2(Bucket=BUCKET, Prefix=self.folder).get("Contents", [])
            self.struck = sum(entry["Key"].endswith(self.ending) for entry in found)
            time.sleep(0.02)
        self.server.kill()
        time.sleep(DOWN_SECONDS)
        self.server.start()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        pytest.param("store/artifacts/extract/", ".json", id="extract"),
        pytest.param("store/runs/small/checkpoints/", "state.pt", id="train"),
    ],
)
def test_an_outage_of_30_s(
    folder: str,
    ending: str,
    mortal_server: Server,  # noqa: F811
    trained: Chain,
    parted_data: Path,
    tmp_path: Path,
) -> None:
    tree = chain_tree(parted_data, tmp_path)
    tree["storage"] = f"s3://{BUCKET}/store"
    job = write_job(tmp_path, tree)
    killer = Killer(mortal_server, folder, ending)
    killer.start()
    with start("run", job) as running:
        out, err = running.communicate(timeout=500)
    assert (running.returncode, err) == (0, ""), (out, err)
    assert killer.struck
    mine = run_stages(load_job(job), "train")
    assert_same_weights(mine, trained)
    assert mine.made["train"].info["test_accuracy"] == trained.made["train"].info["test_accuracy"]
    history = json.loads(mine.store.read_file(mine.made["train"], "history.json"))
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    found, expected = (
        load(c.store.read_file(c.made["train"], "model.safetensors")) for c in (mine, trained)
    )
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
