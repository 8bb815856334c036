#!/bin/sh
# The images' entrypoint, below tini: without arguments this container is a node; a command of ray-serve-cai needs no prefix
# (docker run IMAGE plan); everything else runs as it is given.
case "${1:-node}" in
  -* | node | plan | doctor | health | status | serve | deploy | fetch | gateway | upgrade | key | engines | cai) exec ray-serve-cai "${@:-node}" ;;
  *) exec "$@" ;;
esac
