# One image for every process of hyperbus: `hyperbus run consumers` by default, any other command as arguments.
# Behind a proxy: --build-arg HTTPS_PROXY=..., another package index: --build-arg PIP_INDEX_URL=...
# The base is one image and not whatever its tag names today; docs/docker.md says how to renew it.
ARG PYTHON_IMAGE=python:3.13-slim@sha256:9662417aace5ae7b8e2609cce472b72a8958e134ba372808abe9cc1a0c0125e6

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY hyperbus hyperbus
COPY consumers consumers
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv --without-pip /opt/hyperbus \
 && python -m pip --python /opt/hyperbus install --no-cache-dir \
    "$(echo /wheels/hyperbus-*.whl)[cli,websocket,postgres,uvloop]"

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home hyperbus \
 && install --directory --owner=hyperbus --group=hyperbus /app /data
COPY --from=build /opt/hyperbus /opt/hyperbus
COPY consumers /app/consumers
ENV PATH=/opt/hyperbus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HYPERBUS_HOST=0.0.0.0 HYPERBUS_DATABASE_URL=sqlite:////data/hyperbus.db
# Modules to run are looked for here: mount your own over it, or copy them beside `consumers`.
WORKDIR /app
USER hyperbus
EXPOSE 9464 8765
STOPSIGNAL SIGTERM
# Only `hyperbus run` serves /healthz; whatever else runs here is well while it runs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
serves = b'\\0run\\0' in open('/proc/1/cmdline', 'rb').read(); \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('HYPERBUS_HTTP_PORT') or 9464), timeout=4); \
serves and server.request('GET', '/healthz'); \
sys.exit(serves and server.getresponse().status != 200)"]
ENTRYPOINT ["hyperbus"]
CMD ["run", "consumers"]
