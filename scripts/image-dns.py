#!/usr/bin/env python3
"""A name server for one name: image-dns.py LISTEN NAME ADDRESS. All other names do not exist.

Only what a resolver asks of it: one question per datagram, answered by an A record or by none.
"""

import socket
import struct
import sys

NO_SUCH_NAME = 3
A, IN = 1, 1


def question(query):
    """The name asked for, the type of record, and the question's bytes."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    (kind,) = struct.unpack_from(">H", query, at + 1)
    return ".".join(labels).lower(), kind, query[12:at + 5]


def answer(query, name, address):
    asked, kind, text = question(query)
    record = struct.pack(">HHHIH", 0xC00C, A, IN, 60, 4) + socket.inet_aton(address)
    known = asked == name
    records = record if known and kind == A else b""
    # A response, recursion available as asked for; the question once more, and what there is to say.
    flags = 0x8180 | (0 if known else NO_SUCH_NAME)
    return query[:2] + struct.pack(">HHHHH", flags, 1, 1 if records else 0, 0, 0) + text + records


def main():
    listen, name, address = sys.argv[1:]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((listen, 53))
    print("serving", flush=True)
    while True:
        query, client = server.recvfrom(512)
        server.sendto(answer(query, name, address), client)


main()
