package lease

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestBlockOfAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"10.6.168.96":            "10.6.168.96/28",
		"10.6.168.111":           "10.6.168.96/28",
		"10.6.168.112":           "10.6.168.112/28",
		"0.0.0.0":                "0.0.0.0/28",
		"255.255.255.255":        "255.255.255.240/28",
		"::ffff:10.6.168.97":     "10.6.168.96/28",
		"fd00::1f":               "fd00::10/124",
		"fe80::1%eth0":           "fe80::/124",
		"fd00:0:0:0:ffff:0:0:a0": "fd00::ffff:0:0:a0/124",
	} {
		if got := BlockOf(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s lies in %s, want %s", addr, got, want)
		}
	}
	if got := BlockOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address lies in %s", got)
	}
}

func TestNewBlockRefusesWhatIsNoBlock(t *testing.T) {
	for _, prefix := range []string{
		"10.0.0.0/24", "10.0.0.0/29", "10.0.0.1/28", "10.0.0.8/28",
		"fd00::/120", "fd00::1/124", "fd00::/28", "::ffff:10.0.0.0/124",
	} {
		if b, err := NewBlock(netip.MustParsePrefix(prefix)); err == nil {
			t.Errorf("%s became %v", prefix, b)
		}
	}
	if b, err := NewBlock(netip.Prefix{}); err == nil {
		t.Errorf("no prefix became %v", b)
	}
}

func TestNamesOfBlocks(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.6.168.96/28": "10.6.168.96-28",
		"0.0.0.0/28":     "0.0.0.0-28",
		"fd00::10/124":   "fd00-0000-0000-0000-0000-0000-0000-0010-124",
		"::/124":         "0000-0000-0000-0000-0000-0000-0000-0000-124",
	} {
		if got := Name(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("%s is called %q, want %q", prefix, got, want)
		}
		if got, err := ParseName(want); err != nil || got.String() != prefix {
			t.Errorf("%q is %s, %v, want %s", want, got, err, prefix)
		}
	}
}

func TestParseNameRefusesWhatNameDoesNotReturn(t *testing.T) {
	for _, name := range []string{
		"", "-", "28", "10.0.0.0", "10.0.0.0-", "10.0.0.0-29", "10.0.0.0/28", "10.0.0.1-28", "010.0.0.0-28",
		"10.0.0.0-028", "10.0.0.0-+28", " 10.0.0.0-28", "10.0.0.0-28 ", "10.0.0-28", "10-0-0-0-28",
		"fd00-0-0-0-0-0-0-10-124", "FD00-0000-0000-0000-0000-0000-0000-0010-124",
		"fd00-0000-0000-0000-0000-0000-0000-0011-124", "fd00-0000-0000-0000-0000-0000-0000-0010-128",
		"fd00::10-124", "fd00--10-124", "::ffff:10.0.0.0-124", "0000-0000-0000-0000-0000-ffff-0a00-0000-124",
		"fe80-0000-0000-0000-0000-0000-0000-0000%eth0-124",
	} {
		if prefix, err := ParseName(name); err == nil {
			t.Errorf("%q is %s", name, prefix)
		}
	}
}

// FuzzNameRoundTrip: every address has one block, every block one name, and
// the name is a DNS-1123 subdomain (RFC 1123, section 2.1).
func FuzzNameRoundTrip(f *testing.F) {
	f.Add([]byte{10, 6, 168, 97})
	f.Add(netip.MustParseAddr("fd00::1f").AsSlice())
	f.Add(netip.MustParseAddr("::ffff:1.2.3.4").AsSlice())
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		prefix := BlockOf(addr)
		if !prefix.Contains(addr.Unmap()) {
			t.Fatalf("%s does not contain %s", prefix, addr)
		}
		b, err := NewBlock(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Addr(Offset(addr)); got != addr.Unmap() {
			t.Fatalf("%s comes back as %s", addr, got)
		}
		name := b.Name()
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
				label[0] == '-' || label[len(label)-1] == '-' {
				t.Fatalf("%q is no name of an object", name)
			}
		}
		if back, err := ParseName(name); err != nil || back != prefix {
			t.Fatalf("%q is %s, %v", name, back, err)
		}
	})
}

// FuzzParseName: a name is accepted only if it is the one of what it means.
func FuzzParseName(f *testing.F) {
	f.Add("10.6.168.96-28")
	f.Add("fd00-0000-0000-0000-0000-0000-0000-0010-124")
	f.Add("::ffff:10.0.0.0-124")
	f.Fuzz(func(t *testing.T, name string) {
		if prefix, err := ParseName(name); err == nil && Name(prefix) != name {
			t.Fatalf("%q is %s, which is called %q", name, prefix, Name(prefix))
		}
	})
}

// slowBlock is a block as two maps by address: the obvious way.
type slowBlock struct {
	lessee map[int]Node
	pin    map[int]Pin
}

func slow(b *Block) slowBlock {
	s := slowBlock{map[int]Node{}, map[int]Pin{}}
	for _, l := range b.Leases {
		for o := range l.Addrs.Offsets() {
			s.lessee[o] = l.Node
		}
	}
	for _, p := range b.Pins {
		s.pin[Offset(p.Addr)] = p
	}
	return s
}

func (s slowBlock) claim(n Node, want Set) Set {
	var got Set
	for o := range want.Offsets() {
		_, leased := s.lessee[o]
		_, pinned := s.pin[o]
		if !leased && !pinned {
			s.lessee[o] = n
			got |= only(o)
		}
	}
	return got
}

func (s slowBlock) yield(uid string, give Set) Set {
	var gone Set
	for o := range give.Offsets() {
		if _, pinned := s.pin[o]; !pinned && s.lessee[o].UID == uid {
			delete(s.lessee, o)
			gone |= only(o)
		}
	}
	return gone
}

func (s slowBlock) fence(uid string, keep Set) Set {
	var gone Set
	maps.DeleteFunc(s.lessee, func(o int, n Node) bool {
		ends := n.UID == uid && !keep.Has(o)
		if ends {
			gone |= only(o)
		}
		return ends
	})
	return gone
}

// pinned changes the pin of the identity at o, or says why not.
func (s slowBlock) pinned(o int, id Identity, change func(*Pin) bool) error {
	p, ok := s.pin[o]
	if !ok || p.Identity != id || !change(&p) {
		return ErrNotPinned
	}
	s.pin[o] = p
	return nil
}

// turn does one random thing to both and returns what each made of it.
func turn(r *rand.Rand, b *Block, s slowBlock) (what string, got, want any) {
	n := Node{Name: "n", UID: fmt.Sprintf("uid-%d", r.IntN(4))}
	id := Identity{"default", fmt.Sprintf("web-%d", r.IntN(3)), "eth0", ""}
	set, o := Set(r.Uint32()&r.Uint32()), r.IntN(Size)
	addr := b.Addr(o)
	mark := func(on bool) func(*Pin) bool { return func(p *Pin) bool { p.Releasing = on; return true } }
	switch r.IntN(9) {
	case 0, 1:
		return fmt.Sprintf("claim %s by %s", set, n.UID), b.Claim(n, set), s.claim(n, set)
	case 2:
		return fmt.Sprintf("yield %s by %s", set, n.UID), b.Yield(n.UID, set), s.yield(n.UID, set)
	case 3:
		if r.IntN(4) > 0 {
			return "rest", nil, nil
		}
		held := map[netip.Addr]bool{}
		for offset := range set.Offsets() {
			held[b.Addr(offset)] = true
		}
		return fmt.Sprintf("fence %s but for %s", n.UID, set), b.Fence(n.UID, held), s.fence(n.UID, set)
	case 4:
		want := error(nil)
		switch p, pinned := s.pin[o]; {
		case s.lessee[o].UID != n.UID:
			want = ErrNotLeased
		case pinned && p.Identity != id:
			want = ErrNotPinned
		default:
			s.pin[o] = Pin{Addr: addr, Identity: id}
		}
		return fmt.Sprintf("pin %d for %s by %s", o, id, n.UID), sentinel(b.Pin(n.UID, addr, id)), want
	case 5:
		want := s.pinned(o, id, mark(false))
		if want == nil {
			s.lessee[o] = n
		}
		return fmt.Sprintf("take %d over for %s by %s", o, id, n.UID), sentinel(b.TakeOver(n, addr, id)), want
	case 6:
		return fmt.Sprintf("mark %d for %s", o, id), sentinel(b.MarkReleasing(addr, id)), s.pinned(o, id, mark(true))
	case 7:
		return fmt.Sprintf("unmark %d for %s", o, id), sentinel(b.Unmark(addr, id)), s.pinned(o, id, mark(false))
	default:
		want := s.pinned(o, id, func(p *Pin) bool { return p.Releasing })
		if want == nil {
			delete(s.pin, o)
		}
		return fmt.Sprintf("unpin %d for %s", o, id), sentinel(b.Unpin(addr, id)), want
	}
}

// sentinel returns the error of the package that err is.
func sentinel(err error) error {
	for _, s := range []error{ErrNotPinned, ErrNotLeased} {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}

func TestTransitionsAgreeWithTheObviousWay(t *testing.T) {
	for _, prefix := range []string{"10.0.0.16/28", "fd00::20/124"} {
		for seed := range uint64(200) {
			b, err := NewBlock(netip.MustParsePrefix(prefix))
			if err != nil {
				t.Fatal(err)
			}
			r, s := rand.New(rand.NewPCG(seed, 2)), slow(&b)
			var log []string
			for range 100 {
				before := b.Clone()
				what, got, want := turn(r, &b, s)
				log = append(log, what)
				if got != want {
					t.Fatalf("seed %d: %s gave %v, want %v\n%s", seed, what, got, want, strings.Join(log, "\n"))
				}
				agree(t, &b, s, log)
				if refused, _ := got.(error); refused != nil && !b.Equal(&before) {
					t.Fatalf("seed %d: %s was refused and changed the block", seed, what)
				}
			}
		}
	}
}

// agree fails unless a block and its obvious counterpart say the same.
func agree(t *testing.T, b *Block, want slowBlock, log []string) {
	t.Helper()
	if err := b.Validate(); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(log, "\n"))
	}
	got := slow(b)
	var leased, pinned Set
	for o := range want.lessee {
		leased |= only(o)
	}
	for o := range want.pin {
		pinned |= only(o)
	}
	if !maps.Equal(got.lessee, want.lessee) || !maps.Equal(got.pin, want.pin) || b.Leased() != leased ||
		b.Pinned() != pinned || b.Claimable() != all&^leased&^pinned || b.Empty() != (leased|pinned == 0) {
		t.Fatalf("the block is %v, want %v\n%s", b, want, strings.Join(log, "\n"))
	}
	for o := range Size {
		lessee, ok := b.LesseeOf(b.Addr(o))
		if n, leased := want.lessee[o]; ok != leased || lessee != n || ok && !b.LeasedTo(n.UID).Has(o) {
			t.Fatalf("%d is leased to %v, want %v", o, lessee, n)
		}
		pin, ok := b.PinAt(b.Addr(o))
		if p, pinned := want.pin[o]; ok != pinned || pin != p {
			t.Fatalf("%d is pinned by %v, want %v", o, pin, p)
		}
	}
	if !slices.IsSortedFunc(b.Leases, func(x, y Lease) int { return strings.Compare(x.Node.UID, y.Node.UID) }) ||
		!slices.IsSortedFunc(b.Pins, func(x, y Pin) int { return x.Addr.Compare(y.Addr) }) {
		t.Fatalf("the block is out of order: %v", b)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/28"))
	if err != nil {
		t.Fatal(err)
	}
	n, id := Node{UID: "uid"}, Identity{"default", "web-0", "eth0", ""}
	b.Claim(n, 0b11)
	if err := b.Pin(n.UID, b.Addr(0), id); err != nil {
		t.Fatal(err)
	}
	before := b.Clone()
	c := b.Clone()
	c.Yield(n.UID, 0b10)
	if err := c.MarkReleasing(c.Addr(0), id); err != nil {
		t.Fatal(err)
	}
	if !b.Equal(&before) || b.Equal(&c) {
		t.Fatalf("the block became %v with its clone", b)
	}
}

func TestValidateFindsWhatCannotBe(t *testing.T) {
	x, y := Node{Name: "x", UID: "x"}, Node{Name: "y", UID: "y"}
	pin := func(addr string) Pin { return Pin{Addr: netip.MustParseAddr(addr)} }
	for name, test := range map[string]struct {
		leases []Lease
		pins   []Pin
	}{
		"a lease without addresses": {leases: []Lease{{x, 0}}},
		"a lease without a node":    {leases: []Lease{{Node{Name: "x"}, 1}}},
		"two lessees of an address": {leases: []Lease{{x, 0b11}, {y, 0b10}}},
		"two leases of a node":      {leases: []Lease{{x, 0b01}, {x, 0b10}}},
		"a pin outside":             {pins: []Pin{pin("10.0.0.16")}},
		"a pin of the other family": {pins: []Pin{pin("::10.0.0.1")}},
		"a pin twice":               {pins: []Pin{pin("10.0.0.1"), pin("10.0.0.1")}},
	} {
		b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/28"))
		if err != nil {
			t.Fatal(err)
		}
		b.Leases, b.Pins = test.leases, test.pins
		if err := b.Validate(); err == nil || !strings.Contains(err.Error(), "10.0.0.0-28") {
			t.Errorf("%s passes: %v", name, err)
		}
	}
}

func TestVersionsAreNumbersOfAnyLength(t *testing.T) {
	for _, test := range []struct {
		x, y string
		want bool
	}{
		{"10", "9", true}, {"9", "10", false}, {"9", "9", false}, {"1", "", true}, {"", "1", false},
		{"18446744073709551616", "18446744073709551615", true},
	} {
		if got := newer(test.x, test.y); got != test.want {
			t.Errorf("%q newer than %q: %t", test.x, test.y, got)
		}
	}
}
