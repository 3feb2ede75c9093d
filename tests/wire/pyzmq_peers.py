"""Peers of libzmq: REQ and DEALER, each with and without heartbeats, and both through libzmq's proxy.

Usage: pyzmq_peers.py tcp://HOST:PORT, or tls://HOST:PORT CERTIFICATES, with a request in hexadecimal digits on each line of stdin.
Ends with 0 when each request was accepted and no connection was lost that should have stayed.
"""

import sys
import threading
import time

import zmq
from tls_tunnel import open_tunnel
from zmq.utils.monitor import recv_monitor_message

PATIENCE_MS = 20_000


def watched(socket):
    """Counts the connections that the socket loses."""
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    lost = []

    def count():
        lost_events = 0
        while monitor.poll(0):
            recv_monitor_message(monitor)
            lost_events += 1
        lost.append(lost_events)
        return sum(lost)

    return count


def open_socket(context, kind, address, heartbeat_ms):
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvtimeo = socket.sndtimeo = PATIENCE_MS
    if heartbeat_ms:
        socket.heartbeat_ivl = heartbeat_ms
        socket.heartbeat_timeout = 10 * heartbeat_ms
        socket.heartbeat_ttl = 20 * heartbeat_ms
    losses = watched(socket)
    socket.connect(address)
    return socket, losses


def check(reply, what):
    # Magic and version; the id, which is small here; the ledger; the mark 0; accepted.
    assert reply[:5] == b"fogp\x02" and reply[22:24] == b"\0\0", f"{what}: {reply[:40]!r}"


def ask(socket, kind, request):
    if kind == zmq.REQ:
        socket.send(request)
        return socket.recv()
    socket.send_multipart([b"", request])
    delimiter, reply = socket.recv_multipart()
    assert delimiter == b""
    return reply


def main():
    address = open_tunnel(*sys.argv[1:]) if sys.argv[2:] else sys.argv[1]
    requests = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    context = zmq.Context()
    names = {zmq.REQ: "REQ", zmq.DEALER: "DEALER"}
    open_sockets = []
    for kind in names:
        for heartbeat_ms in (0, 100):
            socket, losses = open_socket(context, kind, address, heartbeat_ms)
            for request in requests:
                check(ask(socket, kind, request), f"{names[kind]}, heartbeat {heartbeat_ms} ms")
            open_sockets.append((socket, losses, kind, heartbeat_ms))
    # Many heartbeats, and nothing else.
    time.sleep(2)
    for socket, losses, kind, heartbeat_ms in open_sockets:
        check(ask(socket, kind, requests[0]), "after a pause")
        assert losses() == 0, f"{names[kind]} with heartbeat {heartbeat_ms} ms lost its connection"
        print(f"{names[kind]} with heartbeat {heartbeat_ms} ms: {len(requests) + 1} replies")
    # More at once than the server has in flight for a peer, with a PING between.
    socket, losses = open_socket(context, zmq.DEALER, address, 100)
    for _ in range(10):
        for request in requests:
            socket.send_multipart([b"", request])
    for _ in range(10 * len(requests)):
        check(socket.recv_multipart()[1], "a burst")
    assert losses() == 0

    # Through a proxy, which adds a part to the envelope.
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    port = front.bind_to_random_port("tcp://127.0.0.1")
    back.connect(address)
    threading.Thread(target=lambda: zmq.proxy(front, back), daemon=True).start()
    for kind in names:
        socket, _ = open_socket(context, kind, f"tcp://127.0.0.1:{port}", 100)
        for request in requests:
            check(ask(socket, kind, request), f"{names[kind]} through a proxy")
        print(f"{names[kind]} through a proxy: {len(requests)} replies")

    # One that promised more than it keeps: a PING with a time to live of 0.5 s, and silence.
    raw = context.socket(zmq.STREAM)
    raw.linger, raw.rcvtimeo = 0, PATIENCE_MS
    raw.connect(address)
    peer = raw.recv_multipart()[0]
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    ping = b"\x04PING\x00\x05hello"
    raw.send_multipart([peer, greeting + b"\x04" + bytes([len(ready)]) + ready + b"\x04" + bytes([len(ping)]) + ping])
    heard = b""
    began = time.monotonic()
    while True:
        part = raw.recv_multipart()[1]
        if part == b"":
            if heard:
                break
            continue
        heard += part
    assert heard.endswith(b"\x04\x0a\x04PONGhello"[:2] + b"\x04PONGhello"), heard
    assert time.monotonic() - began < 5, "its connection outlived what it promised"
    print("a PING of a peer that then falls silent: a PONG, and an end")
    sys.stdout.flush()


main()
# The proxy has no end.
import os

os._exit(0)
