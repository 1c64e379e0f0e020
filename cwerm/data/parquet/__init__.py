"""Parquet files with a column of images and a column of labels."""

from cwerm.data.parquet.files import Parquet
from cwerm.data.parquet.names import has_parquet_name

__all__ = ["Parquet", "has_parquet_name"]
