package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// What comes to the pod from its node must be answered there, whatever address
// it is from: behind a NodePort it may be any of the internet's. So the
// connections that begin on veth0 are marked, and their answers with them:
//
//	table ip holdfast {
//		chain prerouting {
//			type filter hook prerouting priority mangle
//			iifname "veth0" ct state new ct mark set 0x1
//			iifname "veth0" ct mark 0x1 meta mark set 0x1
//		}
//		chain output {
//			type route hook output priority mangle
//			ct direction reply ct mark 0x1 meta mark set 0x1
//		}
//	}
//
// and the same of IPv6. A rule of policy routing leads what is marked to
// replyTable. An answer is routed once before the chain output marks it, and
// would be lost in a pod without a default route; the sysctls tcp_fwmark_accept
// and fwmark_reflect let it have the mark of what it answers from the start.

// ctDirectionReply is IP_CT_DIR_REPLY of the kernel.
const ctDirectionReply = 1

// chains are the table's chains of a family, without rules.
func chains(f family) (*nftables.Table, []*nftables.Chain) {
	table := tableOf(f)
	return table, []*nftables.Chain{
		{Table: table, Name: "prerouting", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle},
		{Table: table, Name: "output", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle},
	}
}

// markRule is a rule with the comment that it is known by.
type markRule struct {
	comment string
	exprs   []expr.Any
}

// markRules are the rules of a chain.
func markRules(chain string) []markRule {
	if chain == "output" {
		return []markRule{{"answers go back to the node", slices.Concat(
			match(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, []byte{ctDirectionReply}), marked(), setMark())}}
	}
	fromNode := match(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, ifname(podVeth))
	return []markRule{
		{"connections from the node", slices.Concat(fromNode, stateNew(), []expr.Any{
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(replyMark)},
			&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
		})},
		{"their packets", slices.Concat(fromNode, marked(), setMark())},
	}
}

func match(load expr.Any, value []byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func marked() []expr.Any {
	return match(&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, binaryutil.NativeEndian.PutUint32(replyMark))
}

func setMark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(replyMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

func stateNew() []expr.Any {
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
	}
}

// ifname is a name as the kernel compares it: all of its IFNAMSIZ bytes.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// applyMarks makes the tables of the families anew, in one step each.
func applyMarks(pod *space, families []family) error {
	if len(families) == 0 {
		return nil
	}
	conn, err := pod.nftables()
	if err != nil {
		return err
	}
	for _, f := range families {
		table, all := chains(f)
		conn.AddTable(table) // so that there is one to remove
		conn.DelTable(table)
		conn.AddTable(table)
		for _, chain := range all {
			conn.AddChain(chain)
			for _, r := range markRules(chain.Name) {
				conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs,
					UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
			}
		}
	}
	return flush(conn)
}

// missingMarks returns the comments of the rules that are not there.
func missingMarks(pod *space, families []family) ([]string, error) {
	if len(families) == 0 {
		return nil, nil
	}
	conn, err := pod.nftables()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, f := range families {
		table, all := chains(f)
		for _, chain := range all {
			rules, err := conn.GetRules(table, chain)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("list the rules of nftables: %w", err)
			}
			for _, wanted := range markRules(chain.Name) {
				if !slices.ContainsFunc(rules, func(r *nftables.Rule) bool {
					comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
					return comment == wanted.comment
				}) {
					missing = append(missing, fmt.Sprintf("nftables of IPv%d, chain %s of table %s: %s", f, chain.Name, nftTable, wanted.comment))
				}
			}
		}
	}
	return missing, nil
}
