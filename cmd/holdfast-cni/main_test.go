package main

import (
	"debug/buildinfo"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestVersionIsPrintedUnderEveryName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"holdfast-cni", "spiderpool", "coordinator", "ifacer"} {
		output, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), "--version").Output()
		if err != nil || string(output) != "holdfast-cni v1.2.3\n" {
			t.Errorf("%s --version printed %q (%v), want the version that the linker was given", name, output, err)
		}
	}
}

func TestOtherNamesGetHelpHowToInstall(t *testing.T) {
	t.Parallel()
	got := runPlugin(t, "renamed", "")
	if got.Exit != 2 || got.Stdout != "" || !strings.Contains(got.Stderr, "install holdfast-cni /opt/cni/bin/spiderpool") {
		t.Errorf("called as renamed it ended with %+v, want exit code 2 and how to install on stderr", got)
	}
	output, err := exec.CommandContext(t.Context(), filepath.Join(bin, "holdfast-cni"), "--help").Output()
	if err != nil || !strings.Contains(string(output), "install holdfast-cni /opt/cni/bin/ifacer") {
		t.Errorf("--help printed %q (%v), want how to install", output, err)
	}
}

func TestARuntimeThatCallsAnotherNameGetsAnErrorResult(t *testing.T) {
	t.Parallel()
	printed := cniError(t, runPlugin(t, "renamed", chain("1.0.0", ""), environment("ADD")...))
	if printed.Code != types.ErrInvalidNetworkConfig || !strings.Contains(printed.Msg, "renamed") {
		t.Errorf("printed %+v, want code %d and the name", printed, types.ErrInvalidNetworkConfig)
	}
}

func TestRolesWithoutACommandSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"spiderpool", "coordinator", "ifacer"} {
		got := runPlugin(t, role, "")
		if want := "CNI plugin " + role + " of Holdfast v1.2.3\nCNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"; got.Exit != 0 || got.Stderr != want {
			t.Errorf("%s ended with %+v, want %q on stderr", role, got, want)
		}
	}
}

func TestVERSIONNamesTheSupportedVersions(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"spiderpool", "coordinator", "ifacer"} {
		got := runPlugin(t, role, "", "CNI_COMMAND=VERSION")
		mustSucceed(t, got)
		golden(t, "version.json", got.Stdout)
	}
}

// A plugin runs on whatever the node's system is, and starts for every
// interface of every pod.
func TestThePluginIsStaticAndHoldsNoKubernetesClient(t *testing.T) {
	t.Parallel()
	program := filepath.Join(bin, "holdfast-cni")
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("it needs a dynamic loader")
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) == 0 {
		t.Fatal("it names no modules: this test would see nothing")
	}
	for _, module := range info.Deps {
		if strings.HasPrefix(module.Path, "k8s.io/") || strings.HasPrefix(module.Path, "sigs.k8s.io/") {
			t.Errorf("it contains %s", module.Path)
		}
	}
}
