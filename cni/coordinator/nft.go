package coordinator

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// nftTable is the coordinator's table of nftables, in the pod (marks.go) and
// on the node (masquerade.go).
const nftTable = "holdfast"

// nftables returns a connection to nftables of the namespace.
func (s *space) nftables() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(s.file.Fd())))
	if err != nil {
		return nil, fmt.Errorf("talk to nftables: %w", err)
	}
	return conn, nil
}

// isUnsupported reports whether the kernel has no nftables, or a part not.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

// flush carries a transaction out.
func flush(conn *nftables.Conn) error {
	err := conn.Flush()
	if isUnsupported(err) || errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("set nftables up: %w (the node's kernel must have nf_tables, nft_ct, nft_masq and nf_conntrack: try `modprobe -a nf_tables nft_ct nft_masq` there)", err)
	}
	if err != nil {
		return fmt.Errorf("set nftables up: %w", err)
	}
	return nil
}

// tableOf is the table of a family.
func tableOf(f family) *nftables.Table {
	if f == ipv4 {
		return &nftables.Table{Name: nftTable, Family: nftables.TableFamilyIPv4}
	}
	return &nftables.Table{Name: nftTable, Family: nftables.TableFamilyIPv6}
}
