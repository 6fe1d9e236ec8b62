"""The data plane: bytes of clients to engines and back, on one event loop."""
