"""A bundle: everything that a build needs, as one OCI artifact that can be carried, pushed and pulled.

::

    manifest               artifactType  application/vnd.pesto-repro.bundle.v1
      config               the empty one
      layers[0]            the lock
      layers[1:]           wheels, .debs, resources, sources, and the blobs of the base: what the lock pins

Each layer is named by the annotation org.opencontainers.image.title, a path such as ``wheels/numpy-2.3.1-....whl``, so
that other tools unpack it into folders. Equal locks give equal bundles, to the byte. What lies in the project itself
is not in it, for a build needs the project anyway. A wheel that was built from source is in it like any other, so a
build takes that; the sdist that it was built from is there too, but no tree of a git repository or folder.
"""
