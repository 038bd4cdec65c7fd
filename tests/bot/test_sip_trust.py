"""Who reaches the phone: decided by the kernel, tried with real packets from several loopback addresses."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

import pytest

from bot.ingress.sip.trust import MAX_NETWORKS, attach, own_sockets, program


def send(source: str, to: tuple[str, int], text: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(text, to)


def test_packets_of_the_trusted_arrive_and_no_others() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(5)
        attach(phone, [IPv4Network("127.0.0.8/32"), IPv4Network("127.1.0.0/16")])
        for source in ("127.0.0.9", "127.0.0.8", "127.2.0.1", "127.1.2.3", "127.0.0.1"):
            send(source, phone.getsockname(), source.encode())
        assert [phone.recv(100), phone.recv(100)] == [b"127.0.0.8", b"127.1.2.3"]
        phone.settimeout(0.2)
        with pytest.raises(TimeoutError):
            phone.recv(100)


def test_nobody_trusted_is_nobody_let_in() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        attach(phone, [])
        send("127.0.0.1", phone.getsockname(), b"x")
        phone.settimeout(0.2)
        with pytest.raises(TimeoutError):
            phone.recv(100)


def test_a_stranger_cannot_even_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as phone:
        attach(phone, [IPv4Network("127.0.0.8/32")])
        socket.create_connection(phone.getsockname(), 5, source_address=("127.0.0.8", 0)).close()
        with pytest.raises(TimeoutError):
            socket.create_connection(phone.getsockname(), 0.5, source_address=("127.0.0.9", 0))


def test_sockets_on_a_port_are_found_and_what_is_set_on_the_copy_holds_for_them() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        found = 0
        for copy in own_sockets(phone.getsockname()[1]):
            attach(copy, [])
            found += 1
        assert found == 1
        send("127.0.0.1", phone.getsockname(), b"x")
        phone.settimeout(0.2)
        with pytest.raises(TimeoutError):
            phone.recv(100)


def test_there_is_a_limit() -> None:
    with pytest.raises(ValueError, match="at most"):
        program([IPv4Network("127.0.0.1/32")] * (MAX_NETWORKS + 1))
