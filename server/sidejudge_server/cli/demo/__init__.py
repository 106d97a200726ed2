"""`sidejudge demo`: the whole loop on one machine, with a sidecar of its own."""
