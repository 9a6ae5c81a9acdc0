// Command holdfast-cni is Holdfast's CNI plugins in one static binary. It is
// installed under the names of its roles, and takes the role of the name it
// is called by: "spiderpool", the IPAM plugin (package cni), "coordinator", the
// chained plugin between pod and node (package cni/coordinator), or "ifacer", which makes VLAN
// interfaces and bonds on the node (package cni/ifacer).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/holdfast-ipam/holdfast/cni"
	"github.com/holdfast-ipam/holdfast/cni/coordinator"
	"github.com/holdfast-ipam/holdfast/cni/ifacer"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version = "dev"

const help = `holdfast-cni is Holdfast's CNI plugins. A container runtime starts it; install
it into the runtime's plugin directory (usually /opt/cni/bin) under the names
of its roles:

    spiderpool     the IPAM plugin: {"ipam": {"type": "spiderpool"}}
    coordinator    the chained plugin: {"type": "coordinator"}
    ifacer         makes VLANs and bonds on the node: {"type": "ifacer"}

Holdfast's DaemonSet does so on every node ("holdfast install-cni"). By hand:

    install holdfast-cni /opt/cni/bin/spiderpool
    install holdfast-cni /opt/cni/bin/coordinator
    install holdfast-cni /opt/cni/bin/ifacer
`

func main() {
	os.Exit(run(os.Args))
}

// run takes the role that args[0] names and returns the exit code.
func run(args []string) int {
	role := filepath.Base(args[0])
	called := os.Getenv("CNI_COMMAND") != ""
	if !called && len(args) > 1 && args[1] == "--version" {
		fmt.Println("holdfast-cni", version)
		return 0
	}
	switch role {
	case "spiderpool":
		return plugin(role, ipam(context.Background()))
	case "coordinator":
		return plugin(role, chained(context.Background()))
	case "ifacer":
		return plugin(role, skel.CNIFuncs{Add: ifacer.Add, Del: ifacer.Del, Check: ifacer.Check, GC: ifacer.GC, Status: ifacer.Ready})
	}
	if called {
		return fail(types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("Holdfast has no CNI plugin %q", role),
			"the type in the network configuration must be spiderpool (as ipam), coordinator or ifacer (chained), and the plugin be installed under that name"))
	}
	if len(args) > 1 && (args[1] == "--help" || args[1] == "-h") {
		fmt.Print(help)
		return 0
	}
	fmt.Fprint(os.Stderr, help)
	return 2
}

// ipam returns the verbs of the role "spiderpool".
func ipam(ctx context.Context) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    func(args *skel.CmdArgs) error { return cni.Add(ctx, args) },
		Del:    func(args *skel.CmdArgs) error { return cni.Del(ctx, args) },
		Check:  func(args *skel.CmdArgs) error { return cni.Check(ctx, args) },
		GC:     func(args *skel.CmdArgs) error { return cni.GC(ctx, args) },
		Status: func(args *skel.CmdArgs) error { return cni.Ready(ctx, args) },
	}
}

// chained returns the verbs of the role "coordinator".
func chained(ctx context.Context) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    func(args *skel.CmdArgs) error { return coordinator.Add(ctx, args) },
		Del:    coordinator.Del,
		Check:  func(args *skel.CmdArgs) error { return coordinator.Check(ctx, args) },
		GC:     coordinator.GC,
		Status: func(args *skel.CmdArgs) error { return coordinator.Ready(ctx, args) },
	}
}

// plugin serves the one request that environment and stdin hold.
func plugin(role string, verbs skel.CNIFuncs) int {
	about := fmt.Sprintf("CNI plugin %s of Holdfast %s", role, version)
	if err := skel.PluginMainFuncsWithError(verbs, cni.Versions(), about); err != nil {
		return fail(err)
	}
	return 0
}

// fail prints a CNI error result on stdout (CNI spec, section 5 "Error").
func fail(err *types.Error) int {
	if printErr := err.Print(); printErr != nil {
		fmt.Fprintln(os.Stderr, "print the error result:", printErr)
	}
	return 1
}
