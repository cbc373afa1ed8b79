# The workflow with all its packages: `docker build --tag loco .` for the CPU, and for NVIDIA GPUs
# `docker build --tag loco:cuda --build-arg DEVICE=cuda .`. Both install the versions in constraints.txt; PyPI has the build of
# PyTorch for CUDA, and PyTorch's own index that for the CPU. docs/clusters.md explains the use.
FROM python:3.12-slim-bookworm

# The libraries that open3d and opencv link against, as in the Makefile.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        libegl1 libgl1 libglib2.0-0 libgomp1 libusb-1.0-0 libx11-6 \
    && rm -rf /var/lib/apt/lists/*

ARG DEVICE=cpu
COPY constraints.txt /opt/loco/
RUN if [ "$DEVICE" = cpu ]; then index=https://download.pytorch.org/whl/cpu; fi \
    && pip install --no-cache-dir --requirement /opt/loco/constraints.txt ${index:+--extra-index-url "$index"}

COPY . /opt/loco
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable /opt/loco

# The Snakefile is /opt/loco/Snakefile; data and results are below this folder, which is to be mounted.
WORKDIR /work
