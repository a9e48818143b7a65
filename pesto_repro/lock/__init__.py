"""What the world is pinned to: the model of a lock, its canonical text, and how a project may drift from it."""
