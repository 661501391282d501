"""Memory of the receiver while large and many instances come."""
