"""A name server for tests: whatever the question, the answer is 192.0.2.77."""
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
while True:
    query, peer = s.recvfrom(2000)
    kind = query[-4:-2]
    answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x4d" if kind == b"\x00\x01" else b""
    s.sendto(query[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if answer else b"\x00\x00") + b"\x00\x00\x00\x00" + query[12:] + answer, peer)
