"""`python sniff.py LINK WORD`: counts frames on a link, and those that hold a word, until SIGTERM."""

import signal
import socket
import sys

ALL = 3  # ETH_P_ALL


def main(link: str, word: bytes) -> None:
    """Count until the signal comes."""
    seen = found = 0
    stop = False

    def end(number: int, frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, end)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as link_:
        link_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        link_.bind((link, 0))
        link_.settimeout(0.2)
        print("ready", flush=True)
        while not stop:
            try:
                frame = link_.recv(70000)
            except TimeoutError:
                continue
            seen += 1
            found += word in frame
    print(seen, found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].encode())
