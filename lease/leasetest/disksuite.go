package leasetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// DiskSubject is a disk under test.
type DiskSubject struct {
	lease.Disk
	// Restart returns the disk as a process finds it that starts at this
	// moment, without the first one having been told to stop.
	Restart func() lease.Disk
}

// Subject returns a process's view of the disk as [DiskSuite] wants it.
func (d *Disk) Subject() DiskSubject {
	return DiskSubject{Disk: d.Open(), Restart: func() lease.Disk {
		d.Crash()
		return d.Open()
	}}
}

// DiskSuite checks what the lease protocol expects of a [lease.Disk]. Each
// test opens a disk that holds nothing.
func DiskSuite(t *testing.T, open func(t *testing.T) DiskSubject) {
	for name, test := range map[string]func(*testing.T, DiskSubject){
		"NewDiskHoldsNothing":             diskEmpty,
		"EntryReadsAsItWasWritten":        diskRoundTrip,
		"LastPutOfAnAddressCounts":        diskLastPut,
		"DropRemovesItsAddressOnly":       diskDrop,
		"DropOfWhatIsNotThereSucceeds":    diskDropMissing,
		"AnsweredWriteOutlivesTheProcess": diskDurable,
		"AddressesOfBothFamiliesDiffer":   diskFamilies,
		"EntryWithoutAddressIsAnError":    diskNoAddress,
		"ConcurrentWritesAreAllKept":      diskConcurrent,
		"LoadSeesWholeWritesOnly":         diskWhole,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func entry(addr string) lease.Entry {
	return lease.Entry{
		Addr:      netip.MustParseAddr(addr),
		State:     lease.Assigned,
		Since:     time.Date(2026, 11, 23, 4, 5, 6, 789_000_000, time.UTC),
		Owner:     lease.Owner{PodUID: "52e6f2a0-0000-4000-8000-00000000000a", Interface: "eth0"},
		Container: "c0ffee",
		Namespace: "default",
		Pod:       "web-0",
		Network:   "macvlan-ens192",
		Others:    []string{"decaf"},
		Sticky:    true,
		Detail:    json.RawMessage(`{"pool":"test","prefix":"192.0.2.7/24"}`),
	}
}

func load(t *testing.T, d lease.Disk) []lease.Entry {
	t.Helper()
	all, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b lease.Entry) int { return a.Addr.Compare(b.Addr) })
	return all
}

func write(t *testing.T, d lease.Disk, puts []lease.Entry, drops ...netip.Addr) {
	t.Helper()
	if err := d.Write(puts, drops); err != nil {
		t.Fatal(err)
	}
}

func diskEmpty(t *testing.T, d DiskSubject) {
	same(t, []lease.Entry{}, load(t, d))
	same(t, []lease.Entry{}, load(t, d.Restart()))
}

func diskRoundTrip(t *testing.T, d DiskSubject) {
	minimal := lease.Entry{Addr: netip.MustParseAddr("2001:db8::1"), State: lease.Yielding, Since: time.Unix(0, 1).UTC()}
	want := []lease.Entry{entry("192.0.2.7"), minimal}
	write(t, d, want)
	same(t, want, load(t, d))
}

func diskLastPut(t *testing.T, d DiskSubject) {
	e := entry("192.0.2.7")
	write(t, d, []lease.Entry{e})
	e = lease.Entry{Addr: e.Addr, State: lease.Cooling, Since: e.Since.Add(time.Second)}
	write(t, d, []lease.Entry{e})
	same(t, []lease.Entry{e}, load(t, d))
}

func diskDrop(t *testing.T, d DiskSubject) {
	a, b, c := entry("192.0.2.7"), entry("192.0.2.8"), entry("2001:db8::7")
	write(t, d, []lease.Entry{a, b})
	write(t, d, []lease.Entry{c}, a.Addr)
	same(t, []lease.Entry{b, c}, load(t, d))
	same(t, []lease.Entry{b, c}, load(t, d.Restart()))
}

func diskDropMissing(t *testing.T, d DiskSubject) {
	write(t, d, []lease.Entry{entry("192.0.2.7")})
	write(t, d, nil, netip.MustParseAddr("192.0.2.9"))
	write(t, d, nil)
	same(t, []lease.Entry{entry("192.0.2.7")}, load(t, d))
}

func diskDurable(t *testing.T, d DiskSubject) {
	want := []lease.Entry{entry("192.0.2.7"), entry("2001:db8::7")}
	write(t, d, want)
	same(t, want, load(t, d.Restart()))
}

func diskFamilies(t *testing.T, d DiskSubject) {
	want := []lease.Entry{entry("192.0.2.7"), entry("::c000:207"), entry("::ffff:192.0.2.7")}
	write(t, d, want)
	same(t, want, load(t, d))
}

func diskNoAddress(t *testing.T, d DiskSubject) {
	if err := d.Write([]lease.Entry{entry("192.0.2.7"), {State: lease.Cooling}}, nil); err == nil {
		t.Error("an entry without address was stored")
	}
	same(t, []lease.Entry{}, load(t, d))
}

func diskConcurrent(t *testing.T, d DiskSubject) {
	errs := make([]error, 50)
	atOnce(len(errs), func(i int) {
		for round := range 4 {
			e := entry(fmt.Sprintf("192.0.2.%d", i))
			e.Container = fmt.Sprint(round)
			var drops []netip.Addr
			if round > 0 {
				drops = append(drops, netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i)))
			}
			puts := []lease.Entry{e, entry(fmt.Sprintf("203.0.113.%d", i))}
			if round == 0 {
				puts = append(puts, entry(fmt.Sprintf("198.51.100.%d", i)))
			}
			errs[i] = cmp.Or(errs[i], d.Write(puts, drops))
		}
	})
	for i, err := range errs {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	all := load(t, d.Restart())
	if len(all) != 2*len(errs) {
		t.Errorf("%d entries, want %d", len(all), 2*len(errs))
	}
	for _, e := range all {
		if e.Addr.As4()[0] == 192 && e.Container != "3" {
			t.Errorf("%s holds the put of round %s, want the last", e.Addr, e.Container)
		}
	}
}

// diskWhole writes pairs that belong together while another goroutine loads.
func diskWhole(t *testing.T, d DiskSubject) {
	a, b := entry("192.0.2.7"), entry("2001:db8::7")
	atOnce(2, func(i int) {
		for round := range 50 {
			if i == 0 {
				a.Container, b.Container = fmt.Sprint(round), fmt.Sprint(round)
				if err := d.Write([]lease.Entry{a, b}, nil); err != nil {
					t.Error(err)
				}
				continue
			}
			all, err := d.Load()
			if err != nil {
				t.Error(err)
			}
			if len(all) == 1 || len(all) == 2 && all[0].Container != all[1].Container {
				t.Errorf("half of a write: %v", all)
			}
		}
	})
}
