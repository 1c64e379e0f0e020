"""Where the ranks of a training meet: in a cluster at a port, in a session of our own at a file.

PyTorch's store of meeting places listens on every interface and asks nobody who they are. So on one
machine the ranks use a file instead, in the session's folder, which only its user can enter.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from cwerm.runtime.session.private_session import LOOPBACK


def torch_config(backend: str) -> Any:
    """Ray Train's settings of the process group for the session that is connected."""
    import ray
    from ray._private import worker
    from ray.train.torch import TorchConfig

    if not ray.get_runtime_context().gcs_address.startswith(f"{LOOPBACK}:"):
        return TorchConfig(backend=backend)
    return _at_file()(backend=backend, folder=worker._global_node.get_session_dir_path())


def _at_file() -> type[Any]:
    """The settings of ranks that meet at a file, below Ray's own, which is imported only where needed."""
    from dataclasses import dataclass

    import ray
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import (
        _set_torch_distributed_env_vars,
        _setup_torch_process_group,
        _TorchBackend,
    )

    class AtFile(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_set_torch_distributed_env_vars)
            path = os.path.join(backend_config.folder, f"ranks-{secrets.token_hex(8)}")
            size = len(worker_group)
            ray.get(
                [
                    worker_group.execute_single_async(
                        rank,
                        _setup_torch_process_group,
                        backend=backend_config.backend,
                        world_rank=rank,
                        world_size=size,
                        init_method=f"file://{path}",
                        timeout_s=backend_config.timeout_s,
                    )
                    for rank in range(size)
                ]
            )

    @dataclass
    class AtFileConfig(TorchConfig):
        folder: str = ""

        @property
        def backend_cls(self) -> type[Any]:
            return AtFile

    return AtFileConfig
