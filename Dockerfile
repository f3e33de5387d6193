# The image of every step on Kubeflow Pipelines, Vertex AI and Kubernetes; docs/engines.md.
#   docker build -t tokenmill .                              CPU
#   docker build --build-arg VARIANT=gpu -t tokenmill:gpu .  with NVIDIA's CUDA 12.9 libraries
# On ARM, Apple's included, with --platform linux/amd64: TFX has packages for x86-64 only.
# Debian 13: ML Metadata and TFDV are built for glibc 2.39.
ARG BASE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pyfarmhash, which TFDV needs, comes as source.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock requirements-gpu.lock ./
RUN case "$VARIANT" in \
      cpu|gpu) ;; \
      *) echo "VARIANT=$VARIANT: expected cpu or gpu." >&2; exit 1 ;; \
    esac \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --require-hashes -r requirements.lock \
    && if [ "$VARIANT" = gpu ]; then \
         /opt/venv/bin/pip install --no-deps --require-hashes -r requirements-gpu.lock; \
       fi
COPY pyproject.toml README.md ./
COPY components components
COPY data data
COPY pipeline pipeline
COPY tokenmill tokenmill
COPY serving serving
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation .

FROM ${BASE}
RUN useradd --uid 65532 --user-group --create-home --shell /usr/sbin/nologin tokenmill
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /home/tokenmill
# A compiled spec and the manifests give their own command; this is what a TFX step runs.
ENTRYPOINT ["python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"]
