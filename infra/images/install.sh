#!/bin/sh
# Installs what extras of this project need into /opt/sluice, at the pinned versions: install.sh EXTRAS.
# The project itself is not among it, so that a change of its code does not make this layer anew.
set -eu
if [ -s /run/secrets/ca_certificate ]; then
    export PIP_CERT=/run/secrets/ca_certificate
fi
mkdir sluice
touch sluice/__init__.py
# pip stays outside of what goes into the image.
python3 -m venv /opt/pip
python3 -m venv --without-pip /opt/sluice
pip() { /opt/pip/bin/pip --python /opt/sluice/bin/python "$@"; }
pip install --constraint constraints.txt ".[$1]"
pip uninstall --yes --quiet sluice
# `python -m` looks here first.
rm -r sluice

# What no running service reads, a tenth of the image: tests, headers and stubs, botocore's descriptions of services
# other than S3, and the download client that `tokenizers` asks for and does not import.
packages=$(echo /opt/sluice/lib/python3*/site-packages)
find "$packages" -depth -type d -name tests -exec rm -r {} +
find "$packages" -type f \( -name '*.h' -o -name '*.a' -o -name '*.c' -o -name '*.p[xy][xdi]' \) -delete
if [ -d "$packages/botocore/data" ]; then
    find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name s3 -exec rm -r {} +
fi
if ! [ -d "$packages/transformers" ] && [ -d "$packages/huggingface_hub" ]; then
    pip uninstall --yes --quiet huggingface_hub hf_xet fsspec
fi
# It reports over the network that OpenVINO is used.
if [ -d "$packages/openvino_telemetry" ]; then
    pip uninstall --yes --quiet openvino-telemetry
fi
if [ -d "$packages/nvidia" ]; then
    echo "warning: this index gave PyTorch with CUDA, gigabytes that Sluice does not use. Name PyTorch's index of CPU" \
        "builds (its address is on pytorch.org, 'Get started') as PIP_EXTRA_INDEX_URL or in pip_configuration." >&2
fi
