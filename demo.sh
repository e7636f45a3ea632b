#!/usr/bin/env bash
# Shows Tessera answering questions about pictures: installs what is missing (apt-get), builds,
# starts tesserad on loopback with the embedded demo model, asks, stops. Fails on a wrong answer.
#
#   ./demo.sh          build, ask, stop
#   ./demo.sh --keep   leave the server running and say how to reach and stop it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=cmake/prepare.sh
source cmake/prepare.sh

keep=false
while (($# > 0)); do
  case $1 in
    --keep) keep=true ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) fail "Unknown argument $1; see ./demo.sh --help" ;;
  esac
  shift
done

preset=$(demo_preset)
bin=build/$preset/bin
log=build/demo/tesserad.log
pictures=models/demo/pictures
start_limit_seconds=60
answer_limit_seconds=120
stop_limit_seconds=60
server=0  # Process id while the daemon is ours to stop.

# Some free ports of loopback, one a line: refused connections, asked in a random order.
free_ports() {
  local port
  while read -r port; do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || echo "$port"
  done < <(shuf -i 20000-32000 -n 20) | head -n "$1"
}

show_log() {
  echo "The last lines of $log:" >&2
  tail -n 30 "$log" >&2
}

# SIGTERM drains the daemon: it must end by itself, with status 0.
stop_server() {
  local pid=$server status=0 i
  server=0
  kill -TERM "$pid" 2>/dev/null || true
  for ((i = 0; i < stop_limit_seconds * 10; ++i)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" || status=$?
  return "$status"
}
cleanup() { if ((server != 0)); then stop_server || true; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_server() {
  local ports info i
  mapfile -t ports < <(free_ports 4)
  address=127.0.0.1:${ports[0]} admin=127.0.0.1:${ports[1]} metrics=127.0.0.1:${ports[2]}
  http=127.0.0.1:${ports[3]}
  mkdir -p "$(dirname "$log")"
  # Detached: neither a closing terminal nor Ctrl-C is meant for it.
  setsid "$bin/tesserad" --model models/demo --kv_cache_bytes=1GiB --listen "$address" \
    --admin_listen "$admin" --metrics_listen "$metrics" --http_listen "$http" \
    >"$log" 2>&1 </dev/null &
  server=$!
  for ((i = 0; i < start_limit_seconds * 10; ++i)); do
    # Told by the operator's service: the admin listener is up before the model is.
    if info=$(timeout 5 "$bin/tessera" info --admin_address "$admin" 2>&1) &&
      grep -qE '^ *state +SERVING *$' <<<"$info"; then
      return
    fi
    if ! kill -0 "$server" 2>/dev/null; then
      show_log
      fail "tesserad ended before it was ready"
    fi
    sleep 0.1
  done
  show_log
  fail "tesserad was not ready after $start_limit_seconds s; tessera info said: $info"
}

# ask WORD EXPECTED QUESTION PICTURE...: one prompt in the form the demo model was trained on, which
# begins with a secret word. --raw: the text is the whole prompt, and each <image> in it stands for
# the next picture.
wrong=0
ask() {
  local word=$1 expected=$2 question=$3 prompt images=() i=0 picture
  shift 3
  prompt="USER: The secret word is $word."
  for picture in "$@"; do
    images+=(--image "$pictures/$picture.png")
    prompt+=$'\n'"Image $((++i)): <image>"
  done
  prompt+=$'\n'"$question ASSISTANT:"
  printf '\n%s%s%s  %s(%s)%s\n' "$bold" "$question" "$plain" "$dim" "$pictures: ${*/%/.png}" "$plain"
  if ! timeout "$answer_limit_seconds" "$bin/tessera" chat --address "$address" "${images[@]}" \
    --message "$prompt" --raw --expect "$expected" --temperature 0 --max_tokens 16; then
    printf '%sWrong or no answer; "%s" is right.%s\n' "$red" "$expected" "$plain"
    wrong=$((wrong + 1))
  fi
}

# The body of GET /metrics, without needing curl.
read_metrics() {
  exec 4<>"/dev/tcp/${metrics%:*}/${metrics#*:}"
  printf 'GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n' "$metrics" >&4
  timeout 10 cat <&4
  exec 4>&-
}

install_packages "${BUILD_PACKAGES[@]}"
build_preset "$preset" tesserad tessera

heading "Starting tesserad on $(nproc) cores"
start_server
echo "tesserad (process $server) serves models/demo at $address; its log: $log"

heading "Asking about pictures"
eight=(1 2 3 4 5 6 7 8)
ask kettle "purple triangle" "What is at the top right of image 1?" shapes
ask island "5391" "What number is written in image 3?" "${eight[@]}"
ask island "5" "Which image shows a yellow ring?" "${eight[@]}"
ask island "blue" "What color is the bar in image 4?" "${eight[@]}"

heading "Metrics: http://$metrics/metrics"
read_metrics | tr -d '\r' | awk '
  /^tessera_(prompt|image|generation)_tokens_total|^tessera_prefix_cache_hit_tokens_total/ ||
  /^tessera_time_to_first_token_seconds_(sum|count)|^tessera_requests_finished_total.* [^0]/ {
    print; ++lines }
  END { exit lines == 0 }' || fail "No metrics at http://$metrics/metrics"

if $keep; then
  pid=$server
  server=0
  heading "Left running"
  echo "Ask it:   $bin/tessera chat --address $address --image FILE --message TEXT"
  echo "OpenAI clients: base URL http://$http/v1, any API key, model demo"
  echo "Its load: $bin/tessera info --admin_address $admin"
  echo "Stop it:  kill $pid"
else
  heading "Stopping tesserad"
  if ! stop_server; then
    show_log
    fail "tesserad did not stop cleanly"
  fi
  echo "Drained and gone, status 0"
fi
if ((wrong > 0)); then fail "$wrong answers were wrong"; fi
printf '\n%sAll answers were right%s\n' "$green" "$plain"
