package cni

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
)

// BenchmarkWire is what plugin and agent spend on JSON for one ADD: the request
// written and read, the answer written and read.
func BenchmarkWire(b *testing.B) {
	request := AddRequest{
		Attachment: Attachment{
			ContainerID: "53e29e1c4c1a0a3a4d1f0f0b9a4c6e8d53e29e1c4c1a0a3a4d1f0f0b9a4c6e8d", Interface: "eth0",
			Pod: Pod{Namespace: "default", Name: "web-0", UID: "0f2a4be0-3c76-4d0f-9c27-0d5b8a0e7f11"},
		},
		Network: "lan", DefaultIPv4Pools: []string{"lan-v4"}, DefaultIPv6Pools: []string{"lan-v6"},
	}
	answer := AddResult{Addresses: []Address{
		{Prefix: netip.MustParsePrefix("10.6.168.101/16"), Gateway: netip.MustParseAddr("10.6.0.1")},
		{Prefix: netip.MustParsePrefix("fd00:10:6::65/64"), Gateway: netip.MustParseAddr("fd00:10:6::1")},
	}}
	var wire bytes.Buffer
	b.ReportAllocs()
	for b.Loop() {
		var asked AddRequest
		over(b, &wire, request, &asked)
		var answered AddResult
		over(b, &wire, answer, &answered)
		if asked.Pod != request.Pod || len(answered.Addresses) != 2 {
			b.Fatalf("%+v and %+v came over", asked, answered)
		}
	}
}

// over writes a value and reads it again.
func over(b *testing.B, wire *bytes.Buffer, from, to any) {
	if err := json.NewEncoder(wire).Encode(from); err != nil {
		b.Fatal(err)
	}
	if err := json.NewDecoder(wire).Decode(to); err != nil {
		b.Fatal(err)
	}
}
