"""Registries (distribution-spec v1.1): base images by digest, pushing, copying, the registry as a shared store.

The only room that imports oras, as a base class of its client and not as the pusher. What is asked for by digest is
only ever answered with those bytes; manifests travel byte-exact; credentials go to their own host only.
"""
