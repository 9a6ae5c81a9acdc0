package checker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/e2e/cluster"
	"github.com/holdfast-ipam/holdfast/lease"
)

// witness runs on a node and prints one JSON object a line for each network
// namespace, each pod sandbox, and the journal. A namespace or sandbox that
// goes away in between is no error. A journal that does not answer is not
// printed, which is not the same as an empty one.
const witness = `
for path in /var/run/netns/*; do
  [[ -e $path ]] || continue
  if links=$(nsenter --net="$path" ip -j addr); then
    printf '{"namespace": {"path": "%s", "links": %s}}\n' "$path" "$links"
  elif [[ -e $path ]]; then
    exit 1
  fi
done
for id in $(crictl pods -q --no-trunc); do
  if sandbox=$(crictl inspectp "$id"); then
    jq -c '{sandbox: {
      id: .status.id, namespace: .status.metadata.namespace, pod: .status.metadata.name, uid: .status.metadata.uid,
      path: ([.info.runtimeSpec.linux.namespaces[]? | select(.type == "network") | .path // ""] | first // "")
    }}' <<<"$sandbox"
  elif crictl pods -q --no-trunc | grep -q "$id"; then
    exit 1
  fi
done
if journal=$(curl -sS --fail --max-time 5 --unix-socket ` + cni.DefaultSocket + ` http://holdfast/v1/journal); then
  printf '{"journal": %s}\n' "$journal"
fi
`

// testimony is one line of a witness.
type testimony struct {
	Namespace *struct {
		Path  string
		Links []link
	}
	Sandbox *struct {
		ID, Path, Namespace, Pod, UID string
	}
	Journal *[]lease.Entry
}

// link is what `ip -j addr` says about an interface.
type link struct {
	Name  string `json:"ifname"`
	Addrs []struct {
		Local netip.Addr `json:"local"`
		Bits  int        `json:"prefixlen"`

		Scope string `json:"scope"`
	} `json:"addr_info"`
}

func hearNode(ctx context.Context, c *cluster.Cluster, from *corev1.Node) (Node, error) {
	node := Node{Name: from.Name, UID: string(from.UID)}
	text, err := c.OnNode(ctx, node.Name, witness)
	if err != nil {
		return node, err
	}
	return node, node.hear(text)
}

// hear fills in what a witness said.
func (n *Node) hear(text string) error {
	n.Namespaces = []Namespace{}
	byPath := map[string]int{}
	lines := json.NewDecoder(strings.NewReader(text))
	for {
		var t testimony
		if err := lines.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("what the node says is not understood: %w", err)
		}
		switch {
		case t.Namespace != nil:
			byPath[t.Namespace.Path] = len(n.Namespaces)
			n.Namespaces = append(n.Namespaces, Namespace{Path: t.Namespace.Path, Addresses: global(t.Namespace.Links)})
		case t.Sandbox != nil:
			if i, ok := byPath[t.Sandbox.Path]; ok {
				ns := &n.Namespaces[i]
				ns.Sandbox, ns.Namespace, ns.Pod, ns.PodUID = t.Sandbox.ID, t.Sandbox.Namespace, t.Sandbox.Pod, t.Sandbox.UID
			}
		case t.Journal != nil:
			n.Journal = append([]lease.Entry{}, *t.Journal...)
		}
	}
}

// global leaves out loopback and link-local addresses.
func global(links []link) []InterfaceAddress {
	var all []InterfaceAddress
	for _, l := range links {
		for _, a := range l.Addrs {
			if a.Scope == "global" {
				all = append(all, InterfaceAddress{l.Name, netip.PrefixFrom(a.Local, a.Bits)})
			}
		}
	}
	return all
}
