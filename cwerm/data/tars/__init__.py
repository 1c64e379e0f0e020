"""Tar shards as a source."""

from cwerm.data.tars.source import Tars as Tars
