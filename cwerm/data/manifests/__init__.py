"""Tables of paths and labels as a source."""

from cwerm.data.manifests.source import Manifest as Manifest
