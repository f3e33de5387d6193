#!/bin/sh
# Makes .venv with one of two stacks, exactly as its lock names it (hashes checked):
#   modern  Python 3.13 or 3.12, TensorFlow 2.21   requirements.lock         needs glibc 2.39
#   py310   Python 3.10, TensorFlow 2.16           requirements-py310.lock
# TOKENMILL_STACK=modern|py310 forces one. `setup.sh --which` only says which it would be.
# Needs: a POSIX shell, g++, and either uv or any Python 3 with venv. Run by the Makefile.
set -eu
# What would choose another directory or another Python: with UV_SYSTEM_PYTHON `uv pip sync` removes
# what the system's Python has beyond the lock, with CDPATH cd may find another clone.
unset CDPATH UV_SYSTEM_PYTHON UV_PYTHON PYTHONHOME PYTHONOPTIMIZE PYTHONPATH
cd "$(dirname "$0")/.."
venv=.venv

log() { printf 'setup: %s\n' "$*" >&2; }
fail() { log "$@"; exit 1; }

# A Python of one of the versions given, with the header files that pyfarmhash is built against:
# on PATH (a pyenv shim may exist and still fail, so each is tried) or under the pyenv root. Of an
# active environment's Python the one beneath: the environment may be .venv, and is about to go.
find_python() {
  for version in "$@"; do
    for candidate in "python$version" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/"python$version"; do
      if "$candidate" -c "import os, sys, sysconfig as s
assert '%d.%d' % sys.version_info[:2] == '$version'
assert os.path.exists(s.get_path('include') + '/Python.h')
assert not s.get_config_var('Py_GIL_DISABLED')  # free-threaded: there are no packages for it
base = sys.base_prefix + '/bin/python$version'
print(base if os.path.exists(base) else sys.executable)" 2>/dev/null; then
        return
      fi
    done
  done
}

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && [ -n "$glibc" ] ||
  fail "TFX has packages for Linux with glibc on x86-64 only; this is $(uname -s) on $(uname -m)."
minor=${glibc#*.}  # 42.9000 before a release
new_enough() { [ "${glibc%%.*}" -gt 2 ] || [ "${minor%%[!0-9]*}" -ge 39 ]; }

case "${TOKENMILL_STACK:-}" in
  modern)
    new_enough || fail "TOKENMILL_STACK=modern needs glibc 2.39 or newer (Debian 13, Ubuntu 24.04); this is $glibc. Leave it out for the stack of Python 3.10, or test the modern one in a Debian 13 root: make test-modern"
    stack=modern why="TOKENMILL_STACK" ;;
  py310) stack=py310 why="TOKENMILL_STACK" ;;
  "")
    if ! new_enough; then
      stack=py310 why="glibc $glibc, TFX 1.21 needs 2.39"
    elif [ -z "$(find_python 3.13 3.12)" ] && [ -n "$(find_python 3.10)" ]; then
      stack=py310 why="glibc $glibc, but no Python 3.12 or 3.13 with header files here"
    else
      stack=modern why="glibc $glibc"
    fi ;;
  *) fail "TOKENMILL_STACK=$TOKENMILL_STACK is not known: modern or py310." ;;
esac
if [ $stack = modern ]; then
  lock=requirements.lock versions="3.13 3.12" fetched=3.13
  by_hand="Debian 13, Ubuntu 24.04: apt-get install python3-dev"
else
  lock=requirements-py310.lock versions=3.10 fetched=3.10
  by_hand="Ubuntu 22.04: apt-get install python3-dev; Debian 12 has none, pyenv does"
fi
# shellcheck disable=SC2086
python=$(find_python $versions)
tensorflow=$(sed -n 's/^tensorflow==\([^ ]*\) .*/\1/p' $lock)
log "stack $stack: ${python:-Python $fetched, fetched}, TensorFlow $tensorflow ($why)"
[ "${1:-}" != --which ] || { echo $stack; exit; }

# Two at once would take .venv from each other.
if command -v flock >/dev/null 2>&1; then
  exec 9<tools/setup.sh
  flock -n 9 || { log "waiting for another make's set-up"; flock 9 || true; }
fi

# Scripts in .venv and the project's own entry name this directory: a copied clone needs its own,
# or it runs the original's code.
here=$(pwd -P)
usable() {
  [ "$(cat $venv/directory 2>/dev/null || echo "$here")" = "$here" ] &&
    $venv/bin/python -c "" 2>/dev/null
}

# What is installed already stays, if nothing has changed that it was made from.
state="$stack $(cat $lock pyproject.toml tools/setup.sh tools/uv.lock | cksum)"
[ "$(cat $venv/installed 2>/dev/null)" != "$state" ] || ! usable || exit 0

command -v g++ >/dev/null 2>&1 ||
  fail "g++ is missing: pyfarmhash, which TFX's data validation needs, comes as source (Debian: apt-get install g++)."

# uv from PATH if there is one, else a pinned one in a small environment of its own.
if uv --version >/dev/null 2>&1; then
  uv=uv
else
  uv=.uv/bin/uv
  if [ "$(cat .uv/lock 2>/dev/null)" != "$(cat tools/uv.lock)" ] || ! $uv --version >/dev/null 2>&1
  then
    base=""
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
      if "$candidate" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 8)' >/dev/null 2>&1; then
        base=$candidate
        break
      fi
    done
    [ -n "$base" ] ||
      fail "no uv and no Python 3 with the venv module was found. Install one of them (Debian: apt-get install python3-venv) and run make again."
    log "installing uv with $base"
    .uv/bin/python -m pip --version >/dev/null 2>&1 || "$base" -m venv --clear .uv
    .uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.lock
    cp tools/uv.lock .uv/lock
  fi
fi

if [ -z "$python" ]; then
  log "no Python $versions with its header files found here: uv fetches $fetched"
  "$uv" python install --quiet $fetched ||
    fail "Python $fetched could not be fetched. Install it with its header files ($by_hand) and run make again."
  python=$("$uv" python find --python-preference only-managed $fetched)
fi

rm -f $venv/installed
if [ "$(cat $venv/stack 2>/dev/null)" != "$stack" ] || ! usable; then
  rm -rf $venv
  "$uv" venv --quiet --python "$python" $venv
  echo $stack >$venv/stack
fi
echo "$here" >$venv/directory
log "installing what $lock names (about 3.5 GB, a minute or two)"
# Bytecode now, once: otherwise the first import of TFX takes 40 seconds.
export UV_COMPILE_BYTECODE=1
"$uv" pip sync --quiet --require-hashes --python $venv/bin/python $lock
# The project itself, without its dependencies (they are locked) and without build isolation
# (setuptools is in the lock).
"$uv" pip install --quiet --python $venv/bin/python --no-deps --no-build-isolation --editable .
echo "$state" >$venv/installed
log "done"
