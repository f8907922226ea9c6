# syntax=docker/dockerfile:1
# Two stages: the first builds the wheel and a virtual environment around it, the second holds only these.
# The RUN lines name their folders by variables, so that tests/packaging runs the same lines elsewhere.
ARG PYTHON_VERSION=3.13

# The whole image, not the slim one: it holds the C compiler for the fast path (setup.py).
FROM python:${PYTHON_VERSION} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 WHEELS=/wheels APP=/opt/backpressure BACKPRESSURE_COMPILE=1
WORKDIR /src
COPY pyproject.toml setup.py README.md constraints.txt ./
COPY proxy ./proxy
RUN python -m pip wheel --no-deps --wheel-dir "$WHEELS" .
RUN python -m venv "$APP" \
    && "$APP/bin/python" -m pip install --constraint constraints.txt "$WHEELS"/*.whl \
    && "$APP/bin/python" -m pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="backpressure" \
      org.opencontainers.image.description="A reverse proxy that tells AI agents the truth about the capacity of the model and tool APIs they call"

# A fixed number, so that Kubernetes can see without a look-up that it is not root.
RUN groupadd --gid 10001 backpressure \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin backpressure
COPY --from=build /opt/backpressure /opt/backpressure
ENV PATH=/opt/backpressure/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# Set it when `admin.listen` of the configuration is elsewhere.
ENV BACKPRESSURE_HEALTH_URL=http://127.0.0.1:8081/healthz

# The configuration; without a volume or a bind mount here the start fails and names the missing file.
# `listen` in it must be 0.0.0.0:8080 to be reached from outside the container.
VOLUME ["/etc/backpressure"]
EXPOSE 8080 8081
USER 10001:10001
STOPSIGNAL SIGTERM

# The slim image has no curl. A status of 400 and above, a refused connection and a silence of 2 s raise: exit 1.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.build_opener(urllib.request.ProxyHandler({})).open(os.environ['BACKPRESSURE_HEALTH_URL'], timeout=2)"]

ENTRYPOINT ["backpressure"]
CMD ["serve", "/etc/backpressure/backpressure.yaml"]
