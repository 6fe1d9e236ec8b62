"""The time series store: a head in memory, and SQLite behind it."""

import os

# Nothing here multiplies matrices: a pool of BLAS threads would only cost memory. Before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
