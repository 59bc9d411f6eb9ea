# A run or a sweep in a container; the README has the commands.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 alexlab && mkdir /runs /cache && chown alexlab:alexlab /runs /cache
WORKDIR /app

# Dependencies first: this layer, the large one, is built again only when pyproject.toml changes.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir -p src/alexlab conf && touch src/alexlab/__init__.py \
    && pip install --no-cache-dir . && pip uninstall --yes alexlab
COPY conf conf
COPY src src
RUN pip install --no-cache-dir --no-deps --editable .

USER alexlab
ENV HOME=/tmp ALEXLAB_RUNS=/runs ALEXLAB_CACHE=/cache PYTHONUNBUFFERED=1
VOLUME ["/runs", "/cache"]
# exec form, for `docker run --init` to pass signals on
ENTRYPOINT ["python", "src/train.py"]
