# The sidecar with a provider's model. docker build -t sidejudge .
# BASE may be any Debian-like image with Python 3.11 or newer and pip; pin it by digest for production.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY deploy/build-requirements.txt requirements/server.txt ./
# The image's Python must be the one that the environment is made with: paths inside it are absolute.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r build-requirements.txt \
    && python3 -m venv /opt/sidejudge \
    && /opt/sidejudge/bin/python -m pip install --require-hashes -r server.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY clients/python clients/python
COPY storage storage
COPY server server
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /dist . \
    && /opt/sidejudge/bin/python -m pip install --no-deps --no-index /dist/*.whl \
    && /opt/sidejudge/bin/python -m pip check \
    && /opt/sidejudge/bin/python -m pip uninstall --yes pip setuptools

FROM ${BASE}
COPY --from=build /opt/sidejudge /opt/sidejudge
# /run/sidejudge is for a Unix socket, /data for the database; both must be writable for uid 10001.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin sidejudge \
    && install -d -o 10001 -g 10001 -m 0700 /data \
    && install -d -o 10001 -g 10001 -m 0770 /run/sidejudge
# Without the variable a library asks the network for a price list at the first call of a run.
ENV PATH=/opt/sidejudge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LITELLM_LOCAL_MODEL_COST_MAP=true \
    OMP_WAIT_POLICY=passive \
    SIDEJUDGE_DATABASE=/data/sidejudge.duckdb \
    SIDEJUDGE_MODEL_DIR=/data/models
USER 10001:10001
WORKDIR /data
VOLUME /data
# The server listens on loopback or a Unix socket only: share a network namespace
# (--network=container:AGENT) or a volume with SIDEJUDGE_ADDRESS=unix:/run/sidejudge/sidejudge.sock.
# It must be reachable at SIDEJUDGE_SERVER for the health check; the default is 127.0.0.1:50510.
EXPOSE 50510
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["sidejudge", "health"]
ENTRYPOINT ["sidejudge"]
CMD ["serve"]
