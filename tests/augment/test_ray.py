"""`engine: ray` on a local cluster of two nodes: the bytes of one process. Skipped without Ray."""

from __future__ import annotations

import os
import shutil

import pytest
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.errors import MiaError
from mia_augment.workers.worker import Job

pytest.importorskip("ray.data", reason="Ray is an extra, installed on its own")

SETTINGS = AugmentSettings.model_validate({"grid": {"cell": 48, "gap": 12, "label": 10}, "samples_per_row": 12})


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_make_the_bytes_of_one_process(data, tmp_path, tree, cluster):
    import ray

    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    one, out = tmp_path / "one", tmp_path / "out"
    whole = augment_dataset(data.source, data.root, one, SETTINGS)
    assert augment_dataset(data.source, data.root, out, SETTINGS, engine="ray", workers=None).counts == whole.counts
    assert tree(out) == tree(one)


def test_shards_of_ray_are_joined_by_one_process(data, tmp_path, tree, cluster):
    one, out = tmp_path / "one", tmp_path / "out"
    augment_dataset(data.source, data.root, one, SETTINGS)
    for number in (1, 2):
        augment_dataset(data.source, data.root, out, SETTINGS, engine="ray", workers=2, shard=f"{number}/2")
    augment_dataset(data.source, data.root, out, SETTINGS)
    assert tree(out) == tree(one)


def test_only_what_is_missing_is_asked_for(data, tmp_path, tree, cluster):
    from mia_augment.workers.ray_pool import RayPool

    one, out = tmp_path / "one", tmp_path / "out"
    augment_dataset(data.source, data.root, one, SETTINGS)
    augment_dataset(data.source, data.root, out, SETTINGS, engine="ray", workers=1, shard="1/2")
    asked = []

    class Watched(RayPool):
        def _made(self, missing):
            asked.extend(missing)
            return super()._made(missing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mia_augment.workers.ray_pool.RayPool", Watched)
        augment_dataset(data.source, data.root, out, SETTINGS, engine="ray", workers=1)
    assert 0 < len(asked) < 36
    assert asked[0]["name"] != "000-00000000"
    assert tree(out) == tree(one)


def test_a_folder_that_the_nodes_do_not_see_is_told(data, tmp_path, cluster):
    from mia_augment.workers.ray_pool import RayPool

    job = Job(out=tmp_path / "elsewhere", image_root=data.root, settings=SETTINGS, seed=0)
    with RayPool(job, 1) as pool, pytest.raises(MiaError, match="on a file system that they share"):
        list(pool.run([("000-00000000", [])]))


def test_what_one_machine_wrote_and_another_does_not_see_is_told(data, tmp_path, cluster, monkeypatch):
    from mia_augment.workers import ray_pool

    augment_dataset(data.source, data.root, tmp_path / "out", SETTINGS, shard="1/2")
    job = Job(out=tmp_path / "out", image_root=data.root, settings=SETTINGS, seed=0)
    pool = ray_pool.RayPool(job, 1)
    monkeypatch.setattr(ray_pool, "PATIENCE_FOR_FILES", 0.0)
    shutil.rmtree(job.scratch / "chunks")
    with pytest.raises(MiaError, match="is another folder there"):
        pool._see("000-00000000", "node-7")
