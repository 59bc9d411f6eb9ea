# One image for every command: docs/how-to/docker.md has the lines. PyTorch's wheels bring CUDA, so a plain
# Python image is enough, and the host needs only the NVIDIA driver and container toolkit.
# The digest is of python:3.12-slim, all architectures, while requirements.lock is for x86_64. To renew it:
#   docker pull python:3.12-slim && docker images --digests python
ARG BASE=python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
FROM ${BASE}
WORKDIR /app

# Triton, which compiles the kernels of LRN for a GPU, calls a C compiler at run time, with Python's headers.
RUN command -v gcc > /dev/null \
    || (apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*)

# The large layer, built again only when `make lock` has changed the file. Every package is checked
# by its hash, also those that build the one package without a wheel (Hydra's parser), which are installed first.
COPY requirements.lock ./
RUN --mount=type=cache,target=/var/cache/pip \
    export PIP_CACHE_DIR=/var/cache/pip \
    && python3 -m venv /venv \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > /tmp/setuptools.lock \
    && /venv/bin/pip install --require-hashes --no-deps -r /tmp/setuptools.lock \
    && /venv/bin/pip install --require-hashes --no-deps --no-build-isolation -r requirements.lock \
    && rm /tmp/setuptools.lock \
    && install -d -m 1777 /runs /cache

# Any user id will do, without an entry in /etc/passwd: the home is writable to all, and the name is asked of LOGNAME.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 \
    HOME=/tmp LOGNAME=alexlab ALEXLAB_RUNS=/runs ALEXLAB_CACHE=/cache
USER 1000:1000

COPY docker-entrypoint.sh LICENSE ./
COPY conf conf
COPY src src

# What records have for the commit, as there is no .git here.
ARG COMMIT=
ENV ALEXLAB_COMMIT=$COMMIT

# Relative paths, such as reports/, are below the mounted folder of the records; /app is root's.
WORKDIR /runs

# The first process of a container takes over and reaps what others leave behind, and gets no signal that it does not
# handle. dumb-init does the one and passes on the other; `docker run --init` on top does no harm.
ENTRYPOINT ["dumb-init", "--", "/app/docker-entrypoint.sh"]
CMD ["--help"]
