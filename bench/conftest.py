"""One thread for BLAS and OpenMP, set before NumPy is loaded: helpers that spin would count as CPU time."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
