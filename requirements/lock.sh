#!/bin/sh
# Write requirements/lock.txt anew from pyproject.toml: exact versions with hashes, for every platform.
# `torch===` asks for the published wheel by its exact name, so that a local build such as 2.13.0+cpu,
# whose hash is not listed here, is never picked.
set -eu
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --extra dev --constraint requirements/constraints.txt \
    --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links \
    --custom-compile-command requirements/lock.sh --output-file requirements/lock.txt.part
sed -i -e 's/^torch==/torch===/' requirements/lock.txt.part
# pip and hatchling build nothing but this package; they are locked as well.
uv pip compile requirements/build.in --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links \
    --custom-compile-command requirements/lock.sh --output-file requirements/build.txt.part
# The documentation is built in an environment of its own.
uv pip compile requirements/docs.in --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links \
    --custom-compile-command requirements/lock.sh --output-file requirements/docs.txt.part
mv requirements/lock.txt.part requirements/lock.txt
mv requirements/build.txt.part requirements/build.txt
mv requirements/docs.txt.part requirements/docs.txt
