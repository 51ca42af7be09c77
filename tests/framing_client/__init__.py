"""A client of Bugle's compact framing, written from docs/protocol.md alone.

It is the independent implementation that shows whether the document says enough: nothing here comes from reading the
Rust code. Python's standard library is all it needs.

    frames.py    bytes <-> frames (sections 3 and 13 to 15 of the document)
    session.py   the life of a session, without sockets and clocks (sections 4 to 12, 16)
    __main__.py  sockets, and a command line:  python3 -m framing_client --help
"""
