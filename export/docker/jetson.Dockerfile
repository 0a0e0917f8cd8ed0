# A Jetson with JetPack 6.1 or 6.2: build an engine and read films. Linted, never built or run by the project's tests.
#
#   docker build -f export/docker/jetson.Dockerfile -t edgecxr-jetson .            (on the Jetson)
#   docker run --rm --runtime nvidia -v "$PWD/student-tiny-28-mlcak-vindr:/work/model" -v edgecxr-state:/work/state \
#       edgecxr-jetson build /work/model --target jetson-orin-nano
#
# NVIDIA's Linux for Tegra image with CUDA 12.6 and TensorRT 10.3. Its release must be that of the host's JetPack:
# r36.2.0 has TensorRT 8.6. Nothing here installs TensorRT with pip: wheels from PyPI are not for Tegra.
ARG L4T_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
# hadolint ignore=DL3006
FROM ${L4T_IMAGE}

ENV DEBIAN_FRONTEND=noninteractive \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    CUDA_HOME=/usr/local/cuda \
    PATH=/opt/edgecxr/bin:/usr/local/cuda/bin:$PATH

# The versions are those of the image's release of Ubuntu and JetPack: pinned here they would only go stale.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv python3-libnvinfer \
 && rm -rf /var/lib/apt/lists/*

# With the system's packages, so that the TensorRT bindings of JetPack are seen.
COPY pyproject.toml README.md LICENSE /src/
COPY edgecxr /src/edgecxr
COPY export/bundles /src/export/bundles
RUN python3 -m venv --system-site-packages /opt/edgecxr \
 && /opt/edgecxr/bin/pip install /src "pycuda>=2022.1" \
 && useradd --create-home --uid 1000 --groups video edgecxr \
 && install -d -o edgecxr /work/state

# The key that marks the engines built on this machine. In a volume, it outlives the container.
ENV EDGECXR_STATE=/work/state

USER 1000
WORKDIR /work
ENTRYPOINT ["edgecxr"]
CMD ["doctor"]
