"""What other servers send us and read from us: transactions of PDUs and EDUs, and the graph of rooms.

`transactions` judges and places what it can at once, `staged` does the rest later, `edus` hands EDUs on;
`reading` and `sight` answer what servers in a room may ask. The paths are in `federation.routes`.
"""
