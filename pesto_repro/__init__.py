"""Reproducible OCI images of PESTO algorithm services, without Docker.

A project is resolved into a lock; the lock and the project's own files become a plan of steps; steps become
layers in a store; layers become an image; the image goes to a sink.
"""

__version__ = "0.1.0"
