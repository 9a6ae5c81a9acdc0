package leasetest_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/holdfast-ipam/holdfast/lease"
	"github.com/holdfast-ipam/holdfast/lease/leasetest"
)

func TestFakeDiskIsADisk(t *testing.T) {
	leasetest.DiskSuite(t, func(*testing.T) leasetest.DiskSubject {
		return leasetest.NewDisk(nil).Subject()
	})
}

func TestDiskFaultDecidesWhatIsStored(t *testing.T) {
	for _, test := range []struct {
		fault   leasetest.DiskFault
		stored  int
		crashed bool
	}{
		{leasetest.Unsynced, 0, false},
		{leasetest.SyncedFailed, 2, false},
		{leasetest.CrashUnsynced, 0, true},
		{leasetest.CrashSynced, 2, true},
	} {
		d := leasetest.NewDisk(func(leasetest.DiskWrite) leasetest.DiskFault { return test.fault })
		process := d.Open()
		err := process.Write([]lease.Entry{
			{Addr: netip.MustParseAddr("192.0.2.1")}, {Addr: netip.MustParseAddr("192.0.2.2")},
		}, nil)
		if err == nil || errors.Is(err, leasetest.ErrCrashed) != test.crashed {
			t.Errorf("fault %d: error %v", test.fault, err)
		}
		if got := len(d.Entries()); got != test.stored {
			t.Errorf("fault %d: %d entries, want %d", test.fault, got, test.stored)
		}
		if _, err := process.Load(); errors.Is(err, leasetest.ErrCrashed) != test.crashed {
			t.Errorf("fault %d: load after it: %v", test.fault, err)
		}
	}
}

func TestCrashLosesTheWriteUnderWay(t *testing.T) {
	var d *leasetest.Disk
	crash := false
	d = leasetest.NewDisk(func(leasetest.DiskWrite) leasetest.DiskFault {
		if crash {
			d.Crash()
		}
		return leasetest.Synced
	})
	process := d.Open()
	if err := process.Write([]lease.Entry{{Addr: netip.MustParseAddr("192.0.2.1")}}, nil); err != nil {
		t.Fatal(err)
	}
	crash = true
	err := process.Write([]lease.Entry{{Addr: netip.MustParseAddr("192.0.2.2")}}, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if !errors.Is(err, leasetest.ErrCrashed) {
		t.Errorf("error %v, want a crash", err)
	}
	all, err := d.Open().Load()
	if err != nil || len(all) != 1 || all[0].Addr != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("after the crash: %v, %v", all, err)
	}
}

func TestReplacedDiskIsEmpty(t *testing.T) {
	d := leasetest.NewDisk(nil)
	process := d.Open()
	if err := process.Write([]lease.Entry{{Addr: netip.MustParseAddr("192.0.2.1")}}, nil); err != nil {
		t.Fatal(err)
	}
	d.Replace()
	if err := process.Write(nil, nil); !errors.Is(err, leasetest.ErrCrashed) {
		t.Errorf("the old process still writes: %v", err)
	}
	if all, err := d.Open().Load(); err != nil || len(all) != 0 {
		t.Errorf("the new disk holds %v, %v", all, err)
	}
}
