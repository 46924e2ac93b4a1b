# Sourced by the scripts beside it: make_environment [EXTRA] puts losslab into .venv, once, and make_peers_environment puts
# it into .venv-peers beside litgpt and other trainers, whose pins (peers.txt) clash with those of constraints.txt.

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "losslab needs Python 3.11, 3.12 or 3.13, and found none" >&2
  return 1
}

make_environment() {
  local extra="${1:-}" python stamp
  # dev contains the plain installation, so it serves the quickstart too.
  stamp=$(cat pyproject.toml constraints.txt hatch_build.py | cksum | cut -d' ' -f1)
  [ -e ".venv/.installed-dev-$stamp" ] && return
  [ -z "$extra" ] && [ -e ".venv/.installed--$stamp" ] && return
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv
  fi
  echo "installing into .venv …"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extra:+[$extra]}"
  touch ".venv/.installed-$extra-$stamp"
}

make_peers_environment() {
  local stamp pins=.venv-peers/constraints.txt packages=(litgpt transformers accelerate)
  stamp=$(cat pyproject.toml constraints.txt hatch_build.py scripts/peers.txt | cksum | cut -d' ' -f1)
  [ -e ".venv-peers/.installed-$stamp" ] && return
  if [ ! -x .venv-peers/bin/python ]; then
    "$(find_python)" -m venv .venv-peers
  fi
  if command -v nvidia-smi >/dev/null 2>&1; then
    packages+=(liger-kernel cut-cross-entropy)
  fi
  grep -viEf <(sed -nE 's/^([^#=]+)==.*/^\1==/p' scripts/peers.txt) constraints.txt >"$pins"
  cat scripts/peers.txt >>"$pins"
  echo "installing into .venv-peers …"
  .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c "$pins" -e . "${packages[@]}"
  touch ".venv-peers/.installed-$stamp"
}
