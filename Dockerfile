# One image for every process of hyperbus: `hyperbus run consumers` by default, any other command as arguments.
# Behind a proxy: --build-arg HTTPS_PROXY=..., another package index: --build-arg PIP_INDEX_URL=...
ARG PYTHON_IMAGE=python:3.13-slim

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
ENTRYPOINT ["hyperbus"]
CMD ["run", "consumers"]
