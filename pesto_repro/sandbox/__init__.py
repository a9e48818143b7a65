"""Commands run in a root file system of ours, without root and without a daemon (Linux).

Modules, from the bottom up: ``paths`` and ``users`` (names inside a root); ``unpack``, ``merge``, ``rootfs`` (layers
become a root); ``layout`` (what a cell consists of); ``kernel``, ``furnish``, ``enter`` (the process that makes the
cell and imports nothing else); ``engines`` (which way is open here); ``cell`` (what others use); ``forward`` (ports).
"""
