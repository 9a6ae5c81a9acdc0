package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/holdfast-ipam/holdfast/agent/apitest"
)

// versions tells which programs were measured, as they say themselves: their
// names and the versions of the modules that they were built from.
func versions(ctx context.Context, o *options) (map[string]string, error) {
	all := map[string]string{}
	for _, name := range append([]string{"kube-apiserver", "etcd"}, o.programs()...) {
		path := filepath.Join(o.bin, name)
		switch name {
		case "kube-apiserver", "etcd":
			path = filepath.Join(apitest.BinDir(), name)
		case "whereabouts-crds", "holdfast-cni":
			continue // no program of its own, and built with holdfast
		case holdfastName:
			said, err := exec.CommandContext(ctx, path, "--version").Output()
			if err != nil {
				return nil, fmt.Errorf("%s --version: %w", path, err)
			}
			fields := strings.Fields(string(said))
			all[name] = fields[len(fields)-1]
			continue
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("which version it is: %w", err)
		}
		all[name] = info.Main.Path + " " + info.Main.Version
	}
	return all, nil
}
