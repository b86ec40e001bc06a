"""A small vhost-user network for tests: a host 10.9.0.1 that answers ARP and ping. Argument: the socket's path. One VM, then the end."""
import array
import mmap
import os
import select
import socket
import struct
import sys

GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, VRING_NUM, VRING_ADDR, VRING_BASE = 1, 2, 5, 8, 9, 10
GET_VRING_BASE, VRING_KICK, VRING_CALL, GET_PROTOCOL, GET_QUEUE_NUM = 11, 12, 13, 15, 17
FEATURES = 1 << 32 | 1 << 28 | 1 << 30
MAC = bytes.fromhex("020000000001")


class Ring:
    def __init__(self):
        self.size = self.desc = self.used = self.avail = self.next = self.done = 0
        self.kick = self.call = -1


class Server:
    def __init__(self, conn):
        self.conn, self.regions, self.rings = conn, [], [Ring(), Ring()]

    def view(self, addr, n, user=False):
        for gpa, size, user_addr, mem in self.regions:
            base = user_addr if user else gpa
            if base <= addr and addr + n <= base + size:
                return memoryview(mem)[addr - base : addr - base + n]
        raise ValueError(hex(addr))

    def map(self, body, fds):
        (n,) = struct.unpack_from("<I", body)
        for i in range(n):
            gpa, size, user, offset = struct.unpack_from("<QQQQ", body, 8 + 32 * i)
            self.regions.append((gpa, size, user, mmap.mmap(fds[i], size, offset=offset)))
            os.close(fds[i])

    def message(self):
        fds = array.array("i")
        head, anc, _, _ = self.conn.recvmsg(12, socket.CMSG_SPACE(32))
        if len(head) < 12:
            sys.exit(0)
        for _, _, data in anc:
            fds.frombytes(data)
        request, flags, size = struct.unpack("<III", head)
        body = self.conn.recv(size, socket.MSG_WAITALL) if size else b""
        reply = None
        if request == GET_FEATURES:
            reply = struct.pack("<Q", FEATURES)
        elif request == GET_PROTOCOL:
            reply = struct.pack("<Q", 1 << 0 | 1 << 3)
        elif request == GET_QUEUE_NUM:
            reply = struct.pack("<Q", 2)
        elif request == SET_MEM_TABLE:
            self.map(body, fds)
        elif request in (VRING_NUM, VRING_BASE, GET_VRING_BASE):
            index, num = struct.unpack("<II", body)
            ring = self.rings[index]
            if request == VRING_NUM:
                ring.size = num
            elif request == VRING_BASE:
                ring.next = ring.done = num
            else:
                reply = struct.pack("<II", index, ring.next)
        elif request == VRING_ADDR:
            index, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", body)
            ring = self.rings[index]
            ring.desc, ring.used, ring.avail = desc, used, avail
        elif request in (VRING_KICK, VRING_CALL):
            ring = self.rings[body[0]]
            if request == VRING_KICK:
                ring.kick = fds[0]
            else:
                ring.call = fds[0]
        if reply is None and flags & 8:
            reply = struct.pack("<Q", 0)
        if reply is not None:
            self.conn.sendall(struct.pack("<III", request, 5, len(reply)) + reply)

    def pop(self, ring):
        idx = struct.unpack("<H", self.view(ring.avail + 2, 2, True))[0]
        if ring.next == idx:
            return None, None
        head = struct.unpack("<H", self.view(ring.avail + 4 + 2 * (ring.next % ring.size), 2, True))[0]
        ring.next = (ring.next + 1) & 0xFFFF
        table, n, _, _ = struct.unpack("<QIHH", self.view(ring.desc + 16 * head, 16, True))
        chain = [struct.unpack("<QIHH", self.view(table + 16 * i, 16)) for i in range(n // 16)]
        return head, [self.view(a, length) for a, length, _, _ in chain]

    def push(self, ring, head, n):
        self.view(ring.used + 4 + 8 * (ring.done % ring.size), 8, True)[:] = struct.pack("<II", head, n)
        ring.done = (ring.done + 1) & 0xFFFF
        self.view(ring.used + 2, 2, True)[:] = struct.pack("<H", ring.done)
        os.eventfd_write(ring.call, 1)

    def transmit(self):
        rx, tx = self.rings
        while True:
            head, parts = self.pop(tx)
            if head is None:
                return
            answer = reply_to(b"".join(bytes(p) for p in parts)[12:])
            self.push(tx, head, 0)
            if not answer:
                continue
            data, at = bytes(10) + b"\x01\x00" + answer, 0
            head, parts = self.pop(rx)
            if head is None:
                continue
            for p in parts:
                now = data[at : at + len(p)]
                p[: len(now)] = now
                at += len(now)
            self.push(rx, head, len(data))

    def serve(self):
        while True:
            kick = self.rings[1].kick
            ready, _, _ = select.select([self.conn] + ([kick] if kick >= 0 else []), [], [])
            if kick in ready:
                os.eventfd_read(kick)
                self.transmit()
            if self.conn in ready:
                self.message()


def checksum(data):
    s = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])) + (data[-1] << 8 if len(data) & 1 else 0)
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return ~s & 0xFFFF


def reply_to(f):
    if f[12:14] == b"\x08\x06" and f[20:22] == b"\x00\x01" and f[38:42] == bytes([10, 9, 0, 1]):
        return f[6:12] + MAC + f[12:20] + b"\x00\x02" + MAC + f[38:42] + f[22:32]
    if f[12:14] == b"\x08\x00" and f[23] == 1 and f[34] == 8 and f[30:34] == bytes([10, 9, 0, 1]):
        end = 14 + struct.unpack(">H", f[16:18])[0]
        icmp = b"\x00\x00\x00\x00" + f[38:end]
        icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
        return f[6:12] + MAC + f[12:26] + f[30:34] + f[26:30] + icmp
    return None


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
Server(listener.accept()[0]).serve()
