"""Realises missing steps: one maker per kind, one canonical tar writer, one compressor."""
