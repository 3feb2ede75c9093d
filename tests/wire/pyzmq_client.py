"""A peer that knows fogpost only from its documentation.

It speaks to a server through libzmq with a plain REQ socket, which adds and strips the empty delimiter by itself. Every
byte is built by hand from three pages: src/messaging/wire.rs (request, reply), src/messaging/page.rs (page) and
src/parking/stored.rs (event). Nothing of it is shared with the Rust code: where the two disagree, the documentation
is wrong or the protocol has changed.

Usage: pyzmq_client.py tcp://HOST:PORT SITE. Ends with 0 and prints the epoch when every answer was as documented.
"""

import sys
import uuid

import blake3
import zmq

MAGIC = b"fogp"
VERSION = b"\x02"
ACCEPTED, GAP, CONFLICT, REFUSED, OTHER_LEDGER, MOVE = range(6)


# --- postcard, as far as it is used.


def varint(number):
    """Little-endian base 128: seven bits a byte, the highest bit says that more follow."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number):
    return varint(2 * number if number >= 0 else -2 * number - 1)


def counted(data):
    """Bytes or text with their length before them."""
    return varint(len(data)) + data


def some(encoded):
    return b"\x01" + encoded


NONE = b"\x00"
BOOT = uuid.uuid4().bytes
INSTANCE = 4711


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), f"the message breaks off: {self.data.hex(' ')}"
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    def counted(self):
        return self.take(self.varint())


# --- What the three pages describe.


def entry(plate, at_ms, offset_minutes):
    """An event: version 1, kind 0 (entry) with an optional plate, the moment, and no sighting."""
    return b"\x01" + varint(0) + some(counted(plate.encode())) + zigzag(at_ms) + zigzag(offset_minutes) + NONE


def digest(page):
    return blake3.blake3(page).digest()[:16]


def page(epoch, first, payloads, previous=NONE):
    """Version 2; epoch, first sequence, the digest of the page before, not moved, the clocks when begun, content 0 (records)."""
    records = b"".join(NONE + varint(0) + counted(payload) for payload in payloads)
    begun = zigzag(1_795_418_100_000) + varint(86_400_000) + BOOT + b"\x01"
    head = b"\x02" + epoch + varint(first) + previous + NONE + begun
    return head + varint(0) + varint(len(payloads)) + records


def request(number, site, epoch, oldest, pages, version=VERSION, ledger=NONE):
    sealed = b"".join(digest(page) + counted(page) for page in pages)
    body = varint(number) + counted(site.encode()) + epoch + varint(oldest) + ledger
    body += varint(INSTANCE) + zigzag(1_795_418_100_000) + varint(len(pages)) + sealed
    return MAGIC + version + body + NONE + NONE


def read_reply(data):
    """(id, ledger, mark, verdict and its field, pause_ms, answer)"""
    assert data[:5] == MAGIC + VERSION, f"no reply of version 2: {data.hex(' ')}"
    reader = Reader(data[5:])
    number, ledger, mark, verdict = reader.varint(), reader.take(16), reader.varint(), reader.varint()
    assert verdict in range(6), verdict
    field = None
    if verdict in (CONFLICT, MOVE):
        field = reader.varint()
    if verdict == REFUSED:
        field = reader.counted().decode()
    pause_ms = reader.varint()
    reader.varint()  # the server's clock
    if reader.take(1) == b"\x01":
        reader.counted()  # a notice for people
    answer = reader.counted() if reader.take(1) == b"\x01" else None
    assert reader.at == len(reader.data), f"bytes follow the reply's end: {data.hex(' ')}"
    return number, ledger, mark, (verdict, field), pause_ms, answer


def main(address, site):
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(address)

    def exchange(message):
        socket.send(message)
        return socket.recv()

    epoch = uuid.uuid4().bytes
    first = page(epoch, 1, [entry("PY1", 1_795_418_100_000, 60), entry("PY2", 1_795_418_101_500, -210)])

    # A page is applied: the mark is its last sequence.
    number, ledger, mark, verdict, _, answer = read_reply(exchange(request(1, site, epoch, 1, [first])))
    assert (number, mark, verdict, answer) == (1, 2, (ACCEPTED, None), None), (number, mark, verdict, answer)
    assert len(ledger) == 16 and any(ledger)

    # The same again: a duplicate is acknowledged, too.
    number, same_ledger, mark, verdict, _, _ = read_reply(exchange(request(2, site, epoch, 1, [first])))
    assert (number, same_ledger, mark, verdict) == (2, ledger, 2, (ACCEPTED, None)), (number, mark, verdict)

    # One that comes too early: a gap, and mark + 1 is expected.
    early = page(epoch, 300, [entry("PY300", 1_795_418_200_000, 0)])
    number, _, mark, verdict, _, _ = read_reply(exchange(request(3, site, epoch, 3, [early])))
    assert (number, mark, verdict) == (3, 2, (GAP, None)), (number, mark, verdict)

    # Another content at an applied place: a conflict at its first sequence.
    other = page(epoch, 1, [entry("PY9", 1_795_418_100_000, 60), entry("PY2", 1_795_418_101_500, -210)])
    number, _, mark, verdict, _, _ = read_reply(exchange(request(4, site, epoch, 1, [other])))
    assert (number, mark, verdict) == (4, 2, (CONFLICT, 1)), (number, mark, verdict)

    # A digest that does not belong to its page: refused, with a reason.
    damaged = request(5, site, epoch, 3, [page(epoch, 3, [entry("PY3", 1_795_418_102_000, 60)])])
    damaged = damaged.replace(b"PY3", b"PX3")
    number, _, mark, verdict, _, _ = read_reply(exchange(damaged))
    assert (number, mark, verdict[0]) == (5, 2, REFUSED) and verdict[1], (number, mark, verdict)

    # No message of ours: refused with the id 0.
    number, _, _, verdict, _, _ = read_reply(exchange(b"GET / HTTP/1.1"))
    assert (number, verdict[0]) == (0, REFUSED), (number, verdict)

    # A version that the server does not know: the answer whose form never changes.
    answer = exchange(request(6, site, epoch, 3, [], version=b"\xfe"))
    assert answer == MAGIC + b"\x00" + VERSION + VERSION, answer.hex(" ")

    # The next sequence, but the continuation of another page: a conflict.
    foreign = page(epoch, 3, [entry("PY3", 1_795_418_102_000, 60)], some(digest(other)))
    number, _, mark, verdict, _, _ = read_reply(exchange(request(7, site, epoch, 3, [foreign])))
    assert (number, mark, verdict) == (7, 2, (CONFLICT, 3)), (number, mark, verdict)

    # Pages for another ledger: nothing is applied.
    third = page(epoch, 3, [entry("PY3", 1_795_418_102_000, 60)], some(digest(first)))
    elsewhere = request(8, site, epoch, 3, [third], ledger=some(uuid.uuid4().bytes))
    number, _, mark, verdict, _, _ = read_reply(exchange(elsewhere))
    assert (number, mark, verdict) == (8, 0, (OTHER_LEDGER, None)), (number, mark, verdict)

    # After all that it still serves: the next page is applied, and several pages go in one request.
    third = page(epoch, 3, [entry("PY3", 1_795_418_102_000, 60)], some(digest(first)))
    fourth = page(epoch, 4, [entry("PY4", 1_795_418_103_000, 60)], some(digest(third)))
    number, _, mark, verdict, _, _ = read_reply(exchange(request(2**64 - 1, site, epoch, 3, [third, fourth])))
    assert (number, mark, verdict) == (2**64 - 1, 4, (ACCEPTED, None)), (number, mark, verdict)

    print(uuid.UUID(bytes=epoch))


if __name__ == "__main__":
    main(*sys.argv[1:])
