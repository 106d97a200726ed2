"""The gRPC face: protobuf in, one domain call, protobuf out."""
