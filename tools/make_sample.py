"""Make cwerm/data/sample from Debian's package ``dataset-fashion-mnist``.

A class-balanced draw of 1,000 training and 200 test images a class, in random order, as lossless
WebP in Parquet. Running it again gives the same images in the same order.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cwerm.data.public.fashion_mnist import DEBIAN_FOLDER, FashionMnist

FOLDER = Path(__file__).parents[1] / "cwerm" / "data" / "sample"
IMAGES_PER_CLASS = {"train": 1000, "test": 200}
ROWS_PER_GROUP = 1000
SEED = 0


def draw(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of ``per_class`` random images of each class, shuffled."""
    generator = np.random.default_rng(SEED)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [generator.choice(members, per_class, replace=False) for members in classes]
    return generator.permutation(np.concatenate(chosen))


def encode(image: np.ndarray) -> bytes:
    """Lossless WebP, about an eighth smaller than PNG here."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def schema(class_names: list[str]) -> pa.Schema:
    """Columns as Hugging Face data sets write them, with the class names in the metadata."""
    label = {"names": class_names, "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)


def main() -> None:
    """Write train.parquet and test.parquet."""
    source = FashionMnist(str(DEBIAN_FOLDER))
    for split, per_class in IMAGES_PER_CLASS.items():
        images, labels = source.arrays(split)
        chosen = draw(labels, per_class)
        rows = [
            {
                "image": {"bytes": encode(images[index]), "path": f"{split}-images[{index}]"},
                "label": int(labels[index]),
            }
            for index in chosen
        ]
        table = pa.Table.from_pylist(rows, schema(source.class_names()))
        file = FOLDER / f"{split}.parquet"
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP, compression="zstd")
        print(f"{file}: {len(rows)} images, {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
