package coordinator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// dumps is how often a list of the kernel's is asked for that another process
// changes meanwhile.
const dumps = 20

// space is a network namespace: the node's, in which the plugin was started
// (CNI spec, section 2), or the pod's.
type space struct {
	*netlink.Handle
	file *os.File
	// own: the calling thread is in it.
	own bool
}

// openNode opens the namespace of the calling thread.
func openNode() (*space, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the node's network namespace: %w", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("talk to the kernel: %w", err), file.Close())
	}
	return &space{Handle: handle, file: file, own: true}, nil
}

// openPod opens the namespace at a path; fs.ErrNotExist if there is none.
func openPod(path string) (*space, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the pod's network namespace: %w", err)
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("talk to the kernel in %s: %w", path, err), file.Close())
	}
	return &space{Handle: handle, file: file}, nil
}

func (s *space) close() {
	s.Close()
	_ = s.file.Close() // opened for reading: nothing can be lost
}

// lock lets one process at a time change what all pods of the node share, and
// ends with close. It is on the namespace itself: there is no file that
// somebody would have to remove, and it ends with the process whatever happens.
func (s *space) lock() error {
	for {
		err := unix.Flock(int(s.file.Fd()), unix.LOCK_EX)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock the node's routes: %w", err)
		}
	}
}

// unlock ends what lock began, before close does.
func (s *space) unlock() error {
	if err := unix.Flock(int(s.file.Fd()), unix.LOCK_UN); err != nil {
		return fmt.Errorf("unlock the node's routes: %w", err)
	}
	return nil
}

// inside runs f on a thread that is in the namespace, as files below
// /proc/sys/net are of the thread that opens them.
func (s *space) inside(f func() error) error {
	if s.own {
		return f()
	}
	failed := make(chan error, 1)
	go func() {
		// A thread that does not find back ends with its goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			failed <- fmt.Errorf("open the own network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter the pod's network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		failed <- err
	}()
	return <-failed
}

// again asks for a list until the kernel could give it in one piece.
func again[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumps {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// look reads what the namespace has.
func (s *space) look() (*view, error) {
	v := &view{}
	names, err := s.lookLinks(v)
	if err != nil {
		return nil, err
	}
	if err := s.lookRoutes(v, names); err != nil {
		return nil, err
	}
	if err := s.lookRules(v); err != nil {
		return nil, err
	}
	return v, s.lookNeighbours(v, names)
}

// lookLinks reads the interfaces with their addresses, and returns their names
// by index.
func (s *space) lookLinks(v *view) (map[int]string, error) {
	links, err := again(s.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return s.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	names := make(map[int]string)
	for _, l := range links {
		attrs := l.Attrs()
		names[attrs.Index] = attrs.Name
		one := link{index: attrs.Index, name: attrs.Name, kind: l.Type(), mac: attrs.HardwareAddr.String(), alias: attrs.Alias}
		if one.kind == "veth" {
			one.peer = attrs.ParentIndex
		}
		for _, a := range addrs {
			if prefix, ok := netipx.FromStdIPNet(a.IPNet); ok && a.LinkIndex == attrs.Index {
				one.addrs = append(one.addrs, address{prefix, a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0})
			}
		}
		v.links = append(v.links, one)
	}
	return names, nil
}

// lookRoutes reads the routes to single machines and networks (RTN_UNICAST) of
// all tables but local.
func (s *space) lookRoutes(v *view, names map[int]string) error {
	all, err := again(func() ([]netlink.Route, error) {
		return s.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_UNICAST},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range all {
		if r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		one := route{table: r.Table, destination: destinationOf(r), source: addrOf(r.Src), metric: r.Priority,
			mtu: r.MTU, advMSS: r.AdvMSS, protocol: int(r.Protocol)}
		hops := r.MultiPath
		if len(hops) == 0 {
			hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
		}
		for _, hop := range hops {
			one.dev, one.gateway = names[hop.LinkIndex], addrOf(hop.Gw)
			v.routes = append(v.routes, one)
		}
	}
	return nil
}

func (s *space) lookRules(v *view) error {
	all, err := again(func() ([]netlink.Rule, error) { return s.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the rules: %w", err)
	}
	for _, r := range all {
		if r.Family != netlink.FAMILY_V4 && r.Family != netlink.FAMILY_V6 {
			continue // those of multicast routing
		}
		one := rule{family: ipv4, priority: r.Priority, mark: r.Mark, table: r.Table, protocol: int(r.Protocol)}
		if r.Family == netlink.FAMILY_V6 {
			one.family = ipv6
		}
		one.from = one.family.everything()
		if from, ok := netipx.FromStdIPNet(orEmpty(r.Src)); ok {
			one.from = from
		}
		one.other = r.Dst != nil || r.Invert || r.Tos != 0 || r.IifName != "" || r.OifName != "" || r.Goto >= 0 || r.IPProto != 0 ||
			r.Dport != nil || r.Sport != nil || r.UIDRange != nil || r.SuppressIfgroup >= 0 || r.SuppressPrefixlen >= 0 || r.TunID != 0 ||
			(r.Mask != nil && *r.Mask != ^uint32(0))
		v.rules = append(v.rules, one)
	}
	return nil
}

func (s *space) lookNeighbours(v *view, names map[int]string) error {
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := again(func() ([]netlink.Neigh, error) { return s.NeighList(0, f) })
		if err != nil {
			return fmt.Errorf("list the neighbours: %w", err)
		}
		for _, n := range all {
			if addr := addrOf(n.IP); addr.IsValid() && n.State != unix.NUD_NOARP {
				v.neighbours = append(v.neighbours, neighbour{names[n.LinkIndex], addr, n.HardwareAddr.String(), n.State&unix.NUD_PERMANENT != 0})
			}
		}
	}
	return nil
}

// destinationOf returns where a route leads; none in the message is everywhere.
func destinationOf(r netlink.Route) netip.Prefix {
	if prefix, ok := netipx.FromStdIPNet(orEmpty(r.Dst)); ok {
		return prefix.Masked()
	}
	if r.Family == netlink.FAMILY_V6 {
		return ipv6.everything()
	}
	return ipv4.everything()
}

func orEmpty(n *net.IPNet) *net.IPNet {
	if n == nil {
		return &net.IPNet{}
	}
	return n
}

// addrOf returns the zero Addr for none.
func addrOf(ip net.IP) netip.Addr {
	addr, _ := netipx.FromStdIP(ip)
	return addr
}
