"""The columns of a source beside images and labels, as a table by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from cwerm.data.extra import kept_names
from cwerm.data.source import Sample, Source
from cwerm.errors import shown

FEW = 8  # columns that are told by name


def extra_table(
    samples: Sequence[Sample], ids: np.ndarray, columns: Mapping[str, pa.DataType]
) -> pa.Table:
    """The values of those of the samples that have an id, 0 or more; null where one has none."""
    kept = np.flatnonzero(ids >= 0).tolist()
    names = kept_names(columns)
    fields = [pa.field("id", pa.int64(), nullable=False)]
    fields += [pa.field(names[name], kind) for name, kind in columns.items()]
    arrays = [pa.array(ids[kept], pa.int64())]
    for name, kind in columns.items():
        arrays.append(pa.array([samples[i].extra.get(name) for i in kept], kind))
    return pa.table(arrays, schema=pa.schema(fields))


def told_of_extra(source: Source) -> list[str]:
    """Which columns travel along, and under which names."""
    names = kept_names(source.extra_columns())
    if not names:
        return []
    told = [name if name == kept else f"{name} as {kept}" for name, kept in names.items()]
    more = f" and {len(told) - FEW} more" if len(told) > FEW else ""
    return [f"columns that travel along: {shown(', '.join(told[:FEW]))}{more}"]
