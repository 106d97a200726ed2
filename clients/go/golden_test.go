package sidejudge_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// records returns the encoded fields of a message in the order of their numbers. Protobuf does not fix
// the order between fields, and Go writes oneofs last.
func records(t *testing.T, data []byte) [][]byte {
	t.Helper()
	type record struct {
		number protowire.Number
		bytes  []byte
	}
	var found []record
	for len(data) > 0 {
		number, _, n := protowire.ConsumeField(data)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		found = append(found, record{number, data[:n]})
		data = data[n:]
	}
	slices.SortStableFunc(found, func(a, b record) int { return int(a.number - b.number) })
	sorted := make([][]byte, len(found))
	for i, r := range found {
		sorted[i] = r.bytes
	}
	return sorted
}

func TestGoldenMessagesComeBackByteByByte(t *testing.T) {
	text, err := os.ReadFile("../conformance/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Message, Hex string
		JSON               json.RawMessage
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(c.Message))
			if err != nil {
				t.Fatal(err)
			}
			data, err := hex.DecodeString(c.Hex)
			if err != nil {
				t.Fatal(err)
			}
			message := kind.New().Interface()
			if err := proto.Unmarshal(data, message); err != nil {
				t.Fatal(err)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(records(t, data), records(t, again), bytes.Equal) {
				t.Errorf("%x became %x", data, again)
			}
			said := kind.New().Interface()
			if err := protojson.Unmarshal(c.JSON, said); err != nil {
				t.Fatal(err)
			}
			message.ProtoReflect().SetUnknown(nil) // JSON has no place for them
			if !proto.Equal(message, said) {
				t.Errorf("%v is not %v", message, said)
			}
		})
	}
}
