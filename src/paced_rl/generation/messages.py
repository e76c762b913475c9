"""JSON objects over a socket, each after its length; standard library only, since both ends of a pipe import it.

What a model says passes through here as data: nothing that is received is ever run or unpickled.
"""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

_HEADER = struct.Struct(">Q")
MAX_MESSAGE_BYTES = 2**32
"""More than any round's completions; a longer one means that the two ends have lost step."""
_CHUNK_BYTES = 2**20


class ProtocolError(Exception):
    """The other end is gone, or said something outside the protocol."""


def send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends one message.

    Raises:
        OSError: the other end is gone, or does not read within the channel's timeout.
    """
    data = json.dumps(message).encode()
    channel.sendall(_HEADER.pack(len(data)) + data)


def receive(channel: socket.socket) -> dict[str, Any]:
    """The next message.

    Raises:
        ProtocolError: the other end is gone, or sent no JSON object.
        TimeoutError: it is silent for longer than the channel's timeout.
    """
    (length,) = _HEADER.unpack(_receive_bytes(channel, _HEADER.size))
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes was announced; at most {MAX_MESSAGE_BYTES} are read")
    data = _receive_bytes(channel, length)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON was sent: {bytes(data[:80])!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"{bytes(data[:80])!r} was sent where an object was expected")
    return message


def _receive_bytes(channel: socket.socket, length: int) -> bytearray:
    received = bytearray()
    while len(received) < length:
        data = channel.recv(min(length - len(received), _CHUNK_BYTES))
        if not data:
            raise ProtocolError("the other end is gone")
        received += data
    return received
