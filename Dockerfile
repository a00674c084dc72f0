# fopro_lab with JupyterLab and the command `fopro`, on a CPU or an NVIDIA GPU:
#   docker build -t fopro_lab .                                  # CPU
#   docker build -t fopro_lab:cuda --build-arg TORCH=cuda .      # needs the NVIDIA container toolkit to run
# Results lie in the folder that is mounted, owned by who runs it:
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" fopro_lab report demo      # a GPU: --gpus all
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" fopro_lab init .           # notebooks and plans
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" -p 127.0.0.1:8888:8888 --entrypoint jupyter \
#     fopro_lab lab --ip=0.0.0.0                                                 # sliders: notebook 06
# `fopro explore` listens inside the container alone; notebook 06 shows the same.
FROM python:3.12-slim
ARG TORCH=cpu

RUN useradd --create-home lab && chmod 1777 /home/lab && mkdir /work && chown lab /work
WORKDIR /opt/fopro_lab
COPY requirements.lock ./
# The pinned set. For a CPU, torch and torchvision of the same versions come without CUDA's two
# gigabytes, from where uv knows PyTorch to offer them; all else is compared with its hash.
RUN set -eu; pip install --no-cache-dir uv; export UV_SYSTEM_PYTHON=1 UV_NO_CACHE=1; \
    if [ "$TORCH" = cpu ]; then \
        sed -nE 's/^((torch|torchvision)==.*[^ ]) *\\$/\1/p' requirements.lock > torch.txt; \
        uv pip install --torch-backend cpu -r torch.txt; \
        sed -E '/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/,/[^\\]$/d' requirements.lock > rest.lock; \
    elif [ "$TORCH" = cuda ]; then cp requirements.lock rest.lock; \
    else echo "TORCH: expected cpu or cuda, got $TORCH" >&2; exit 2; fi; \
    uv pip install --require-hashes --no-deps -r rest.lock
COPY pyproject.toml README.md LICENSE ./
COPY fopro_lab fopro_lab
COPY notebooks notebooks
COPY reports/plans reports/plans
RUN uv pip install --system --no-cache --no-deps --no-build-isolation .

USER lab
WORKDIR /work
# Also where --user names a number that has no account.
ENV HOME=/home/lab USER=lab FOPRO_CACHE=/home/lab/.cache/fopro_lab
ENTRYPOINT ["fopro"]
CMD ["--help"]
