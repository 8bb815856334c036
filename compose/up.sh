#!/usr/bin/env bash
# Brings up the cluster of compose/cpu.yaml and waits until it answers. `make up` calls it with
# MODEL (demo), WORKERS (1), ENGINE (vllm), PORT (8000), BIND (127.0.0.1) in the environment. With IMAGE it starts that image, which
# Docker has or pulls, and builds nothing; one for CUDA runs on its own on this machine's GPUs.
# Exit codes: 0 ready, 64 a value is wrong, 69 no such image or no Docker, otherwise the head's own or the step's.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() {
  local code=$1
  shift
  printf 'ray-serve-cai: error: %s\n' "$*" >&2
  exit "$code"
}
files=(-f compose/cpu.yaml)
compose() { docker compose "${files[@]}" "$@"; }
label() { docker image inspect --format "{{index .Config.Labels \"io.ray-serve-cai.$1\"}}" "$image"; }
head_id() { compose ps --all --quiet head; }

model=${MODEL:-demo} workers=${WORKERS:-1} engine=${ENGINE:-vllm} port=${PORT:-8000} bind=${BIND:-127.0.0.1}
timeout_s=${READY_TIMEOUT_S:-600} name=${MODEL_NAME:-} mount=""

[[ $workers =~ ^[0-9]{1,3}$ ]] || fail 64 "WORKERS is '$workers'; use a whole number, for example WORKERS=2."
[[ $port =~ ^[0-9]{1,5}$ ]] && [ "$port" -ge 1 ] && [ "$port" -le 65535 ] || fail 64 "PORT is '$port'; use 1 to 65535."
[[ $engine =~ ^[a-z0-9_-]+$ ]] || fail 64 "ENGINE is '$engine'; use vllm or sglang."
image=${IMAGE:-ray-serve-cai:$engine-cpu}
[ -n "${IMAGE:-}" ] || grep -q "\"$engine-cpu\"" images/versions.json ||
  fail 78 "ENGINE is '$engine', for which there is no CPU image; use ENGINE=vllm or ENGINE=sglang."

# A directory of this machine is mounted into every container; anything else is a shipped name or a hub id.
case $model in
  /* | ./* | ../* | ~*)
    [ -d "$model" ] || fail 66 "MODEL is '$model', and there is no such directory here; use MODEL=demo, a local path, or a Hugging Face id."
    mount=$(cd "$model" && pwd)
    [ -f "$mount/config.json" ] || compgen -G "$mount/*.gguf" >/dev/null ||
      fail 66 "MODEL is '$model', which holds no config.json; give the directory of a Hugging Face model."
    name=${name:-$(basename "$mount")}
    model=/models
    ;;
esac

if [ -z "${IMAGE:-}" ]; then
  compose/docker-engine.sh
  images/base.sh
  images/build.sh "$engine-cpu"
else
  docker compose version >/dev/null 2>&1 || fail 69 "there is no 'docker compose' here; install Docker Engine 24 or newer with Compose v2."
  docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" >/dev/null ||
    fail 69 "IMAGE is '$image', which Docker neither has nor can pull; load it (docker load), or build one: make image."
  engine=$(label engine)
  [ -n "$engine" ] || fail 64 "IMAGE is '$image', which is no image of ray-serve-cai: it has no label io.ray-serve-cai.engine."
  if [ "$(label device)" = cuda ]; then
    files+=(-f compose/cuda.yaml)
    workers=0
  fi
fi

# What another program listens on is found before anything that runs is touched.
if ! compose port head 8000 2>/dev/null | grep -q ":$port\$" && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  fail 71 "port $port on $bind is in use; choose another one: PORT=8080 ${START:-make up}."
fi

mkdir -p build
# A start that fails leaves the choices of the last good one behind.
if [ -f compose/.env ]; then cp compose/.env build/env.before; else rm -f build/env.before; fi
restore() {
  if [ -f build/env.before ]; then mv build/env.before compose/.env; else rm -f compose/.env; fi
}
trap restore EXIT
(umask 077 && rm -f compose/.env && : >compose/.env) # it may hold HF_TOKEN
cat >compose/.env <<ENV
IMAGE=$image
CUDA_IMAGE=$image
MODEL=$model
MODEL_NAME=$name
MODEL_MOUNT=${mount:-models}
ENGINE=$engine
ENGINE_ARGS='${ENGINE_ARGS:-}'
WORKERS=$workers
MIN_NODES=$((workers + 1))
PORT=$port
BIND=$bind
HF_TOKEN='${HF_TOKEN:-}'
HF_ENDPOINT='${HF_ENDPOINT:-}'
HF_HUB_OFFLINE='${HF_HUB_OFFLINE:-}'
ENV
# The file decides from here on, for this run and for every later `docker compose -f compose/cpu.yaml`.
unset IMAGE MODEL MODEL_NAME WORKERS ENGINE ENGINE_ARGS PORT BIND HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE

say "cluster: starting 1 head and $workers worker(s)"
started=$SECONDS
if ! compose up --detach --no-build --remove-orphans --quiet-pull >build/up.log 2>&1; then
  if grep -qE 'port is already allocated|address already in use' build/up.log; then
    fail 71 "port $port on $bind is in use; choose another one: PORT=8080 ${START:-make up}."
  fi
  tail -n 5 build/up.log >&2
  fail 70 "docker compose up failed; its last lines stand above."
fi

# The launcher says its phase; a head that left says why in its log.
said=""
while true; do
  id=$(head_id)
  read -r state restarts <<<"$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$id")"
  if [ "$restarts" != 0 ] || [ "$state" = exited ]; then
    docker update --restart=no "$id" >/dev/null
    code=$(timeout 60 docker wait "$id") || code=70
    line=$(docker logs "$id" 2>&1 | sed -n 's/^{.*"\(ray-serve-cai: error:.*\)"}$/\1/p; /^ray-serve-cai: error:/p' | tail -n 1)
    compose stop --timeout 5 >/dev/null 2>&1 || true
    say "${line:-ray-serve-cai: error: the head left with exit code $code; see: ${LOGS:-make logs}}"
    say "cluster: stopped; what ran before this start is stopped as well"
    exit "$code"
  fi
  phase=$(docker exec "$id" ray-serve-cai health 2>/dev/null) && break
  if [ -n "$phase" ] && [ "$phase" != "$said" ]; then
    said=$phase
    say "cluster: $((SECONDS - started)) s: $phase"
  fi
  case $phase in failed:*) docker update --restart=no "$id" >/dev/null ;; esac # it leaves by itself, with the code that says why
  if [ $((SECONDS - started)) -ge "$timeout_s" ]; then
    trap - EXIT # what was started goes on, so its choices stay
    rm -f build/env.before
    fail 69 "not ready after $timeout_s s; last seen: ${said:-nothing}; it goes on. See: ${LOGS:-make logs}, ${STATUS:-make status}, ${STOP:-make down}"
  fi
  sleep 1
done

trap - EXIT
rm -f build/env.before # it may hold a token
served=${name:-$model}
address=$bind
[ "$address" != 0.0.0.0 ] || address=127.0.0.1
say "cluster: ready after $((SECONDS - started)) s"
cat <<READY

Base URL   http://$address:$port/v1

  curl http://$address:$port/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "$served", "messages": [{"role": "user", "content": "What is ray-serve-cai?"}]}'

Stop it    ${STOP:-make down}
READY
