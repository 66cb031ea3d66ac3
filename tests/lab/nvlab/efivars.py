# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The firmware's variables: adding one to the store that a machine has in its flash.

Source: MdeModulePkg/Include/Guid/VariableFormat.h and MdePkg/Include/Pi/PiFirmwareVolume.h of EDK II; the list of
certificates is UEFI 2.10, 32.4.1, and what shim does with it is in its README.tpm and MokVars.txt.
"""

from __future__ import annotations

import ssl
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import LabError, UsageError

VOLUME_SIGNATURE, VOLUME_SIGNATURE_AT, VOLUME_LENGTH_AT = b"_FVH", 40, 48
STORE = struct.Struct("<16sIBB6x")  # format, size with this header, and two bytes of state
AUTHENTICATED_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
VARIABLE = struct.Struct("<HBxIQ16sIII16s")  # id, state, attributes, count, time, key, name size, data size, vendor
VARIABLE_ID, ADDED = 0x55AA, 0x3F
NON_VOLATILE, BOOT_SERVICE = 1, 2
CERTIFICATES = struct.Struct("<16sIII16s")  # type, list size, header size, entry size, and the entry's owner
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
SHIM = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
MOK_LIST = "MokList"
DER_SEQUENCE = b"\x30\x82"


@dataclass(frozen=True)
class Variable:
    """A variable as it lies in the store."""

    name: str
    vendor: uuid.UUID
    attributes: int
    data: bytes
    state: int = ADDED


def _bounds(store: bytes) -> tuple[int, int]:
    """Return where the first variable begins and where the store ends. Raises LabError when this is none."""
    if store[VOLUME_SIGNATURE_AT:VOLUME_SIGNATURE_AT + 4] != VOLUME_SIGNATURE:
        raise LabError("The firmware's variables do not begin with a firmware volume.")
    start, = struct.unpack_from("<H", store, VOLUME_LENGTH_AT)
    kind, size, _, _ = STORE.unpack_from(store, start)
    if kind != AUTHENTICATED_STORE.bytes_le:
        raise LabError("The firmware volume has no store of authenticated variables.")
    return start + STORE.size, start + size


def _aligned(position: int) -> int:
    return position + -position % 4


def _walk(store: bytes) -> Iterator[tuple[int, Variable]]:
    """Yield each variable with the position after it, deleted ones too."""
    at, end = _bounds(store)
    while at + VARIABLE.size <= end:
        identifier, state, attributes, _, _, _, name_size, data_size, vendor = VARIABLE.unpack_from(store, at)
        if identifier != VARIABLE_ID:
            return
        name_at = at + VARIABLE.size
        data_at = name_at + name_size
        name = store[name_at:data_at].decode("utf-16-le").rstrip("\0")
        at = _aligned(data_at + data_size)
        yield at, Variable(name, uuid.UUID(bytes_le=vendor), attributes, store[data_at:data_at + data_size], state)


def variables(store: bytes) -> list[Variable]:
    """Return the variables that the firmware would find."""
    return [variable for _, variable in _walk(store) if variable.state == ADDED]


def with_variable(store: bytes, variable: Variable) -> bytes:
    """Return the store with one more variable; one of the same name and vendor is deleted as the firmware does it.

    Raises LabError when it does not fit.
    """
    changed = bytearray(store)
    at, end = _bounds(store)
    position = at
    for after, old in _walk(store):
        if old.state == ADDED and (old.name, old.vendor) == (variable.name, variable.vendor):
            changed[position + 2] = ADDED & ~0x02  # flash: a bit can only go from one to zero
        position = after
    name = variable.name.encode("utf-16-le") + b"\0\0"
    record = VARIABLE.pack(VARIABLE_ID, variable.state, variable.attributes, 0, bytes(16), 0, len(name),
                           len(variable.data), variable.vendor.bytes_le) + name + variable.data
    if position + len(record) > end:
        raise LabError(f"The variable {variable.name} of {len(variable.data)} bytes does not fit into the firmware's "
                       f"store, which has {end - position} left.")
    changed[position:position + len(record)] = record
    return bytes(changed)


def with_machine_owner_keys(store: bytes, certificates: Sequence[bytes]) -> bytes:
    """Return the store with certificates (DER) enrolled as the machine owner's, as after a walk through MokManager.

    What was enrolled before stays.
    """
    old = [variable.data for variable in variables(store) if (variable.name, variable.vendor) == (MOK_LIST, SHIM)]
    lists = [CERTIFICATES.pack(X509.bytes_le, CERTIFICATES.size + len(certificate), 0, 16 + len(certificate),
                               SHIM.bytes_le) + certificate for certificate in certificates]
    # No access for the running system: shim trusts no list that has it, and shows the system a copy.
    return with_variable(store, Variable(MOK_LIST, SHIM, NON_VOLATILE | BOOT_SERVICE, b"".join([*old, *lists])))


def certificate_der(data: bytes, name: str) -> bytes:
    """Return a certificate in DER, from DER or PEM. Raises UsageError when it is neither."""
    if data.startswith(DER_SEQUENCE):
        return data
    try:
        der = ssl.PEM_cert_to_DER_cert(data.decode("ascii").strip())
    except ValueError:
        der = b""
    if not der.startswith(DER_SEQUENCE):
        raise UsageError(f"{name} is no X.509 certificate in PEM or DER.")
    return der
