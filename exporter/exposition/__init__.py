"""The text formats, in and out: bytes ↔ samples, no I/O."""
