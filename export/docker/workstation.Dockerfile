# A workstation: train, distil, export. Linted, never built or run by the project's tests.
#
#   docker build -f export/docker/workstation.Dockerfile -t edgecxr-workstation .
#   docker run --rm --gpus all --shm-size 2g -v "$PWD/runs:/work/runs" edgecxr-workstation doctor
#
# The driver comes from the host, through NVIDIA's container toolkit; CUDA comes with torch's wheels.
FROM python:3.11-slim-bookworm

# CUDA 12.6 is the last that torch is built with for a V100; it runs on what came after, up to Hopper.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu126

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/edgecxr/bin:$PATH

RUN python -m venv /opt/edgecxr \
 && /opt/edgecxr/bin/pip install "torch>=2.4" "torchvision>=0.19" --index-url "${TORCH_INDEX}"

COPY pyproject.toml README.md LICENSE /src/
COPY edgecxr /src/edgecxr
COPY export/bundles /src/export/bundles
RUN /opt/edgecxr/bin/pip install "/src[all]" \
 && useradd --create-home --uid 1000 edgecxr \
 && install -d -o edgecxr /work

USER 1000
WORKDIR /work
ENTRYPOINT ["edgecxr"]
CMD ["doctor"]
