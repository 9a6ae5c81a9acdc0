package lease_test

import (
	"testing"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// launch creates a pod that runs a machine, beside those that run it already.
func (w *world) launch(machine, name string, n *node) pod {
	p := w.member(name, n)
	p.machine = machine
	return p
}

// A machine that moves has two pods for a while, and one address: the node that
// it leaves gives it to nobody, whichever pod ends first.
func TestMachineThatMovesKeepsItsAddressForBothPods(t *testing.T) {
	for _, sourceEndsFirst := range []bool{true, false} {
		history(t, func(w *world) {
			a, b := w.node("a"), w.node("b")
			p := pool("p", 0, "10.0.0.1-10.0.0.2")
			source := a.add(w.launch("vm", "launcher-1", a), p)
			w.launch("vm", "launcher-2", b)
			target := b.add(w.launch("vm", "launcher-2", b), p)
			w.wantAddrs(target.addrs, source.addrs)
			nobodyElse := func() {
				t.Helper()
				for _, n := range w.nodes {
					n.watch(0)
					n.tidy()
					w.pass(2 * coolDown)
					n.tidy()
					s, err := n.tryAdd(w.Context(), w.pod("other", n), p)
					if err == nil && s.addrs[0] == source.addrs[0] {
						t.Fatalf("%s gives the machine's address to another pod\n%s", n.id.Name, w)
					}
					n.del(s)
				}
			}
			nobodyElse()
			if sourceEndsFirst {
				a.del(source)
				nobodyElse()
				b.del(target)
			} else { // it did not move after all
				b.del(target)
				nobodyElse()
				again := source
				again.id = "sandbox-made-anew"
				if _, err := a.Acquire(w.Context(), source.request(again.id, p)); err != nil {
					t.Fatal(err)
				}
				a.del(source)
				a.del(again)
			}
			nobodyElse()
			w.wantAddrs(b.add(w.launch("vm", "launcher-3", b), p).addrs, source.addrs)
		})
	}
}

// The name of a machine may be that of a StatefulSet's pod as well.
func TestMachineAndPodOfOneNameHaveTwoAddresses(t *testing.T) {
	history(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		p := pool("p", 0, "10.0.0.1-10.0.0.9")
		machine := a.add(w.launch("web-0", "launcher-1", a), p)
		web := a.add(w.member("web-0", a), p)
		if machine.addrs[0] == web.addrs[0] {
			t.Fatalf("both have %s\n%s", web.addrs[0], w)
		}
		a.del(web)
		moved := b.add(w.member("web-0", b), p)
		again := b.add(w.launch("web-0", "launcher-2", b), p)
		if moved.addrs[0] == machine.addrs[0] || again.addrs[0] == moved.addrs[0] {
			t.Fatalf("the pod has %s, the machine %s and %s\n%s", moved.addrs[0], machine.addrs[0], again.addrs[0], w)
		}
	})
}

// A repeated ADD names the pod, and the journal knows of which machine it is.
func TestRecalledPodStaysItsMachines(t *testing.T) {
	history(t, func(w *world) {
		a := w.node("a")
		p := pool("p", 0, "10.0.0.1-10.0.0.9")
		vm := w.launch("vm", "launcher-1", a)
		s := a.add(vm, p)
		a.restart()
		entries, err := a.Recall(w.Context(), lease.Request{
			Owner: vm.owner(), Container: "later", Namespace: namespace, Pod: vm.name,
		})
		if err != nil || len(entries) != 1 || entries[0].Addr != s.addrs[0] {
			t.Fatalf("recalled %v, %v", entries, err)
		}
		e, _ := a.entry(s.addrs[0])
		if e.Identity() != vm.identity() || e.PodName() != vm.name {
			t.Errorf("the journal says that %s is of %s, for pod %s", e.Addr, e.Identity(), e.PodName())
		}
		if released, err := a.ReleasePod(vm.uid); err != nil || len(released) != 1 {
			t.Fatalf("released %v, %v", released, err)
		}
		w.pass(time.Minute)
		a.tidy()
		w.wantAddrs(a.add(w.launch("vm", "launcher-2", a), p).addrs, s.addrs)
	})
}
