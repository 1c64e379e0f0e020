"""A run's weights as a file: what is computed, and what the source tells of each image beside its label."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.stages import common
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.schema import EXTRA


def weights_file(store: ArtifactStore, weights: pa.Table, images: Artifact) -> bytes:
    """Parquet, by id; of the source's columns one part at a time is held."""
    buffer = io.BytesIO()
    if EXTRA not in images.tables:
        pq.write_table(weights, buffer, compression="zstd")
        return buffer.getvalue()
    weights = weights.sort_by("id")
    ids = common.column(weights, "id")
    ends = np.searchsorted(ids, np.cumsum([part.rows for part in images.tables[EXTRA]])).tolist()
    writer: pq.ParquetWriter | None = None
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        rows, extra = (
            weights.slice(start, end - start),
            common.extra_of(store, images, ids[start:end]),
        )
        assert extra is not None, "its table is there"
        for name in extra.column_names:
            rows = rows.append_column(extra.schema.field(name), extra.column(name))
        writer = writer or pq.ParquetWriter(buffer, rows.schema, compression="zstd")
        writer.write_table(rows)
    assert writer, "an artifact's table has a part"
    writer.close()
    return buffer.getvalue()
