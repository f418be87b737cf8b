#!/bin/bash
# Installs the Debian parts and the one npm package that the integration tests start or use as customers; with the argument "bench", the
# relays that the benchmark measures beside this one instead.
# As root, or with a sudo that asks no password, it installs what is missing; otherwise it names what is missing and goes on
# (the tests and the benchmark skip those parts), or fails when CI=true. No service is started, and none that runs is touched.
set -euo pipefail

undici_version=6.29.1
cache="${MASKRELAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/maskrelay-test}"

# package=program that proves it is there
parts=(
  curl=curl wget=wget git=git openssl=openssl redis-server=redis-server ca-certificates=/etc/ssl/certs/ca-certificates.crt
  squid=squid tinyproxy=tinyproxy apache2-utils=htpasswd haproxy=haproxy nginx=nginx dante-server=danted microsocks=microsocks dnsmasq-base=dnsmasq
  libnginx-mod-stream=/usr/lib/nginx/modules/ngx_stream_module.so
  chromium=chromium buildah=buildah uidmap=newuidmap nodejs=node npm=npm
)
for_bench=
case "${1:-}" in
  '') ;;
  bench)
    for_bench=1
    parts=(
      haproxy=haproxy squid=squid tinyproxy=tinyproxy privoxy=privoxy nginx=nginx
      libnginx-mod-stream=/usr/lib/nginx/modules/ngx_stream_module.so
    )
    ;;
  *)
    echo "usage: ${0##*/} [bench]" >&2
    exit 2
    ;;
esac
PATH="$PATH:/usr/sbin:/sbin"

have() {
  case "$1" in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing=()
for part in "${parts[@]}"; do
  have "${part#*=}" || missing+=("${part%%=*}")
done
[ -n "$for_bench" ] || /usr/bin/python3 -c 'import requests' 2>/dev/null || missing+=(python3-requests)

as_root=()
can_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] && return 0
  sudo -n true 2>/dev/null && as_root=(sudo -n)
}

# invoke-rc.d asks policy-rc.d whether a freshly installed service may start: 101 is "no". An own policy of the machine is kept as it is.
policy=/usr/sbin/policy-rc.d
install_packages() {
  local own_policy=0 log status=0
  log=$(mktemp)
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    own_policy=1
  fi
  {
    "${as_root[@]}" apt-get update -qq &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@"
  } >"$log" 2>&1 </dev/null || status=$?
  [ "$own_policy" = 0 ] || "${as_root[@]}" rm -f "$policy"
  [ "$status" = 0 ] || tail -n 20 "$log" >&2
  rm -f "$log"
  return "$status"
}

lacking=()
if [ "${#missing[@]}" -gt 0 ]; then
  if can_install; then
    echo "installing: ${missing[*]}"
    install_packages "${missing[@]}" || lacking+=("${missing[@]}")
  else
    lacking+=("${missing[@]}")
  fi
fi

if [ -z "$for_bench" ] && ! grep -qs "\"version\": \"$undici_version\"" "$cache/node_modules/undici/package.json"; then
  mkdir -p "$cache" || true
  if command -v npm >/dev/null && npm install --prefix "$cache" --silent --no-audit --no-fund "undici@$undici_version" >/dev/null 2>"$cache/npm.log"; then
    echo "installed: undici $undici_version"
  else
    tail -n 5 "$cache/npm.log" >&2 || true
    lacking+=("undici (npm)")
  fi
fi

if [ "${#lacking[@]}" -gt 0 ]; then
  echo "missing parts: ${lacking[*]}" >&2
  if [ "${CI:-}" = true ]; then
    exit 1
  fi
  echo "what needs them will be skipped" >&2
fi
