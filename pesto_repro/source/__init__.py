"""Sources: packages that exist only as source, and the sealed room in which their wheels are built."""
