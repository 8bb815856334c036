#!/usr/bin/env bash
# Makes a root file system an ML Runtime of Cloudera AI, in a build stage: the user, and what the platform writes to at start.
# https://docs.cloudera.com/machine-learning/cloud/runtimes/topics/ml-creating-customized-runtimes.html
set -euo pipefail

venv=/opt/ray-serve-cai/venv
getent group cdsw >/dev/null || groupadd --gid 8536 cdsw
getent passwd cdsw >/dev/null || useradd --uid 8536 --gid 8536 --create-home --home-dir /home/cdsw --shell /bin/bash cdsw
# The project's file system covers the home directory: nothing is kept there.
find /home/cdsw -mindepth 1 -delete

# The platform calls both by these paths; a link to the environment's Python would not be in the environment.
# shellcheck disable=SC2016  # the script's own argument list
rm -f /usr/local/bin/python3 # of a base that has one there: a link would be written through
printf '#!/bin/sh\nexec %s/bin/python3 "$@"\n' "$venv" >/usr/local/bin/python3
chmod 755 /usr/local/bin/python3
ln -sf "$venv/bin/jupyter" /usr/local/bin/jupyter

# A user's ~/.local cannot hide what the image holds.
cat >"$venv/share/jupyter/kernels/python3/kernel.json" <<KERNEL
{
  "argv": ["$venv/bin/python3", "-s", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
  "display_name": "Python 3",
  "language": "python",
  "metadata": {"debugger": true}
}
KERNEL

mkdir -p /etc/pki/tls/certs
ln -sf /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
rm -rf /etc/krb5.conf /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /var/log/*
find /etc /opt /usr -xdev -type d -exec chown cdsw:cdsw {} +
chown cdsw:cdsw /var/lib/ray-serve-cai
chmod 777 /etc /etc/alternatives
