"""The gateway beside other reverse proxies, against a mock engine and clients in C."""
