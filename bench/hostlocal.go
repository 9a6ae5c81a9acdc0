package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// hostLocal is the plugin host-local of containernetworking: files of one
// node, under a lock, not synced to disk. It knows no cluster: this is what
// starting a process and writing a file costs.
type hostLocal struct {
	lab     *lab
	offered map[string]addresses
}

func (h *hostLocal) open(_ context.Context, l *lab) error {
	h.lab, h.offered = l, map[string]addresses{}
	return nil
}

func (h *hostLocal) offer(_ context.Context, name string, r addresses) error {
	h.offered[name] = r
	return nil
}

func (h *hostLocal) plugin(_ int, name string) (call, error) {
	r := h.offered[name]
	network, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": name, "type": "macvlan",
		"ipam": map[string]any{
			"type": "host-local", "dataDir": h.data(),
			"ranges": [][]map[string]string{{{
				"subnet": r.subnet.String(), "rangeStart": r.first.String(), "rangeEnd": r.last.String(),
			}}},
		},
	})
	return call{program: h.lab.program("host-local"), network: network}, err
}

func (h *hostLocal) data() string { return filepath.Join(h.lab.dir, "host-local") }

func (h *hostLocal) traffic(context.Context) (tally, error) { return tally{}, nil }

// held counts the files that begin with the container of a pod.
func (h *hostLocal) held(_ context.Context, pods []*pod) (int, error) {
	containers := map[string]bool{}
	for _, p := range pods {
		containers[p.container] = true
	}
	n := 0
	files, err := filepath.Glob(filepath.Join(h.data(), "*", "*"))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		if _, err := netip.ParseAddr(filepath.Base(file)); err != nil {
			continue // its lock, or its note of the last address
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		container, _, _ := strings.Cut(string(text), "\n")
		if containers[strings.TrimSpace(container)] {
			n++
		}
	}
	return n, nil
}

func (h *hostLocal) processes() []int { return nil }

func (h *hostLocal) close() {}
