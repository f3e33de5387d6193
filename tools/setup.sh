#!/bin/sh
# Makes .venv with Python 3.10 and exactly what requirements.lock names (hashes checked).
# Needs: a POSIX shell and either uv or any Python 3 with venv. Run by the Makefile.
set -eu
cd "$(dirname "$0")/.."
venv=.venv

log() { printf 'setup: %s\n' "$*" >&2; }

# uv from PATH if there is one, else a pinned one in a small environment of its own.
if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  uv=.uv/bin/uv
  if [ ! -x "$uv" ]; then
    base=""
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
      if "$candidate" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 8)' >/dev/null 2>&1; then
        base=$candidate
        break
      fi
    done
    if [ -z "$base" ]; then
      log "no uv and no Python 3 with the venv module was found."
      log "Install one of them (Debian: apt-get install python3-venv) and run make again."
      exit 1
    fi
    log "installing uv with $base"
    "$base" -m venv .uv
    .uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.lock
  fi
fi

# Python 3.10: on PATH (a pyenv shim may exist and still fail, so each is tried), under the pyenv
# root, or else fetched by uv.
python=""
for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10*/bin/python3.10; do
  if "$candidate" -c 'import sys; assert sys.version_info[:2] == (3, 10)' >/dev/null 2>&1; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { log "no Python 3.10 found here: uv fetches one"; python=3.10; }

if ! "$venv/bin/python" -c 'import sys; assert sys.version_info[:2] == (3, 10)' >/dev/null 2>&1; then
  rm -rf "$venv"
  "$uv" venv --quiet --python "$python" "$venv"
fi
log "installing what requirements.lock names (about 3.4 GB, a minute or two)"
# Bytecode now, once: otherwise the first import of TFX takes 40 seconds.
export UV_COMPILE_BYTECODE=1 VIRTUAL_ENV="$PWD/$venv"
"$uv" pip sync --quiet --require-hashes requirements.lock
# The project itself, without its dependencies (they are locked) and without build isolation
# (setuptools is in the lock).
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
touch "$venv/installed"
log "done"
