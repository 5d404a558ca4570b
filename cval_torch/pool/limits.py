"""Limits of names. Imports no torch."""

MAX_FRAME_ID_LENGTH = 128
"""Characters of a frame's id, as the protocol bounds them."""
