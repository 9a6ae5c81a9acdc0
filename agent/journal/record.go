package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/holdfast-ipam/holdfast/lease"
)

// format is the version of the records. A change that an older agent cannot
// read, or would read wrongly, raises it.
const format = "1"

// key returns the key of an address.
func key(addr netip.Addr) ([]byte, error) {
	if !addr.IsValid() || addr.Zone() != "" {
		return nil, fmt.Errorf("%q is no address of a journal entry: want one without zone", addr)
	}
	return addr.AsSlice(), nil
}

// encode returns the record of an entry.
func encode(e lease.Entry) (k, v []byte, err error) {
	if k, err = key(e.Addr); err != nil {
		return nil, nil, err
	}
	if v, err = json.Marshal(e); err != nil {
		return nil, nil, fmt.Errorf("encode the entry of %s: %w", e.Addr, err)
	}
	return k, v, nil
}

// decode returns the entry of a record. Key and value are not kept.
func decode(k, v []byte) (lease.Entry, error) {
	addr, ok := netip.AddrFromSlice(k)
	if !ok {
		return lease.Entry{}, fmt.Errorf("key %x is no address", k)
	}
	var e lease.Entry
	if err := json.Unmarshal(v, &e); err != nil {
		return lease.Entry{}, fmt.Errorf("record of %s: %w", addr, err)
	}
	if e.Addr != addr {
		return lease.Entry{}, fmt.Errorf("record of %s speaks of %s", addr, e.Addr)
	}
	if e.State == "" {
		return lease.Entry{}, fmt.Errorf("record of %s: %w", addr, errNoState)
	}
	return e, nil
}

var errNoState = errors.New("it has no state")

// tally says which records the entries bucket should have. bbolt's checksums
// cover its two root pages only, and a page that lost records still reads
// like one; the tally is what notices. It cannot tell which records are wrong.
type tally struct {
	count uint64
	sum   uint64 // of the records' hashes, by exclusive or
}

func (t *tally) add(k, v []byte) {
	t.count++
	t.sum ^= hash(k, v)
}

func (t *tally) remove(k, v []byte) {
	t.count--
	t.sum ^= hash(k, v)
}

func hash(k, v []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(k) // a hash never fails
	_, _ = h.Write(v)
	return h.Sum64()
}

func (t *tally) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t.count), t.sum)
}

func decodeTally(b []byte) (tally, error) {
	if len(b) != 16 {
		return tally{}, fmt.Errorf("its tally has %d bytes, not 16", len(b))
	}
	return tally{count: binary.BigEndian.Uint64(b), sum: binary.BigEndian.Uint64(b[8:])}, nil
}
