package sidejudge

import (
	"context"
	"crypto/rand"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// NewRequestID returns a random UUID, by which the sidecar knows a repeated request.
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// fillRequestIDs gives a request, and each request of a batch, an id where it has none, so that a
// retry does nothing twice.
func fillRequestIDs(request any) {
	message, ok := request.(proto.Message)
	if !ok {
		return
	}
	m := message.ProtoReflect()
	fields := m.Descriptor().Fields()
	field := fields.ByName("request_id")
	if field != nil && field.Kind() == protoreflect.StringKind && m.Get(field).String() == "" {
		m.Set(field, protoreflect.ValueOfString(NewRequestID()))
	}
	batch := fields.ByName("requests")
	if batch == nil || !batch.IsList() || batch.Kind() != protoreflect.MessageKind {
		return
	}
	list := m.Get(batch).List()
	for i := range list.Len() {
		fillRequestIDs(list.Get(i).Message().Interface())
	}
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

type trailer struct{ md metadata.MD }

func newTrailer() *trailer { return &trailer{} }

func (t *trailer) option() grpc.CallOption { return grpc.Trailer(&t.md) }
