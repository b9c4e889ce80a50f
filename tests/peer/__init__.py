"""A second client of the peer protocol, written from edge_agent/peers/PROTOCOL.md alone."""
