"""What schemathesis is told besides the contract: streams are read as lists, and known ids are used now and then."""

import os
import zlib

import schemathesis

KNOWN = os.environ.get("TASKGATE_KNOWN_IDS", "").split()
# Waiting for nobody is cut short: no worker answers here.
SHORT = {"timeout": 0.1}


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path == "/v1/tasks/{id}/events":
        case.headers = {**(case.headers or {}), "Accept": "application/json"}
    if case.operation.path in ("/v1/inspect/{method}",) and (case.query or {}).get("timeout"):
        case.query = {**case.query, **SHORT}
    parameters = case.path_parameters or {}
    if KNOWN and "id" in parameters and "/v1/webhooks" not in case.operation.path:
        # Not by chance: the same case must have the same answer when it is tried again.
        number = zlib.crc32(str(parameters["id"]).encode("utf-8", "surrogatepass"))
        if number % 2:
            case.path_parameters = {**parameters, "id": KNOWN[number // 2 % len(KNOWN)]}
