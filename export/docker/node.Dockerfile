# A node: receives films, files their results. Linted, never built or run by the project's tests; docs/node.md says how
# it is configured.
#
#   docker build -f export/docker/node.Dockerfile -t edgecxr-node .
#   docker buildx build --platform linux/amd64,linux/arm64 -f export/docker/node.Dockerfile -t edgecxr-node .
#   docker run --rm edgecxr-node serve --demo
FROM python:3.11-slim-bookworm

# State lies in EDGECXR_STATE/node, unless node.toml says otherwise.
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    EDGECXR_STATE=/var/lib/edgecxr \
    EDGECXR_RUNS=/var/lib/edgecxr/runs \
    PATH=/opt/edgecxr/bin:$PATH

COPY pyproject.toml README.md LICENSE /src/
COPY edgecxr /src/edgecxr
COPY export/bundles /src/export/bundles
RUN python -m venv /opt/edgecxr \
 && /opt/edgecxr/bin/pip install "/src[node]" \
 && useradd --no-create-home --home-dir /var/lib/edgecxr --uid 1000 edgecxr \
 && install -d -o edgecxr -g edgecxr -m 0700 /var/lib/edgecxr

USER 1000
WORKDIR /var/lib/edgecxr
VOLUME /var/lib/edgecxr
EXPOSE 11112
# The node answers at the DICOM address and port of its node.toml.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import pathlib, socket; from edgecxr.node.node_config import read_config; node = read_config(pathlib.Path('/etc/edgecxr/node.toml')); socket.create_connection(({'0.0.0.0': '127.0.0.1', '::': '::1'}.get(node.address, node.address), node.port), 5)"]
ENTRYPOINT ["edgecxr"]
CMD ["serve", "--config", "/etc/edgecxr/node.toml"]
