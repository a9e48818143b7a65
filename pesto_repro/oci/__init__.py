"""The OCI image-spec's words (v1.1), pure: descriptors, configs, manifests, indices; putting an image together.

An :class:`Image` is what everything before it works towards and every sink takes: documents as the exact bytes that
are hashed, and layers by descriptor. Whoever needs a layer's bytes asks the store for its digest.
"""

from pesto_repro.oci.image import HISTORY, Base, Image, Layer, PlatformImage, Recipe, assemble, assemble_index
from pesto_repro.oci.words import CPUS, MEDIA_TYPES, OCI_LAYERS, Descriptor, MediaType, Platform

__all__ = [
    "CPUS",
    "HISTORY",
    "MEDIA_TYPES",
    "OCI_LAYERS",
    "Base",
    "Descriptor",
    "Image",
    "Layer",
    "MediaType",
    "Platform",
    "PlatformImage",
    "Recipe",
    "assemble",
    "assemble_index",
]
