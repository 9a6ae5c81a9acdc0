package ifacer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kernels of small virtual machines often have no VLANs and no bonds. User
// Mode Linux, a kernel that is an ordinary program, has both: there the tests
// of node_test.go run once more, with the machine's files and with links of
// their own. (Debian: package user-mode-linux.)

const (
	// umlOutput names, in the environment of the test binary as the first
	// process of such a kernel, the file for what it prints.
	umlOutput = "HOLDFAST_UML_OUTPUT"
	// umlModules is where Debian has the kernel's modules, by release.
	umlModules = "/usr/lib/uml/modules"
	umlTime    = 2 * time.Minute
)

func TestMain(m *testing.M) {
	if output := os.Getenv(umlOutput); output != "" && os.Getpid() == 1 {
		inKernel(m, output)
	}
	os.Exit(m.Run())
}

func TestLinksOnAKernelWithVLANsAndBonds(t *testing.T) {
	kernel, err := exec.LookPath("linux.uml")
	if err != nil {
		t.Skip("there is no User Mode Linux on this machine (Debian: apt-get install user-mode-linux)")
	}
	dir := t.TempDir()
	program, output := filepath.Join(dir, "ifacer.test"), filepath.Join(dir, "output")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".") // without the race detector, which needs more of a kernel
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), umlTime)
	defer cancel()
	boot := exec.CommandContext(ctx, kernel, "mem=256M", "rootfstype=hostfs", "rootflags=/", "rw", "init="+program, umlOutput+"="+output,
		"con=null", "con0=null,fd:1", "quiet", "panic=-1", "umid=holdfast"+filepath.Base(filepath.Dir(dir)))
	boot.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	console, err := boot.CombinedOutput()
	said, readErr := os.ReadFile(output)
	if readErr != nil {
		t.Fatalf("the kernel ended (%v) before a test began: %v\n%s", err, readErr, console)
	}
	t.Log("on it:\n| " + strings.ReplaceAll(strings.TrimSpace(string(said)), "\n", "\n| ")) // no line may look like this test's own result
	if !bytes.HasSuffix(said, []byte("PASS\n")) {
		t.Errorf("the tests failed there; the console (%v):\n%s", err, console)
	}
	if bytes.Contains(said, []byte("--- SKIP")) {
		t.Error("tests were skipped there")
	}
}

// inKernel runs the tests that need such a kernel as its first process, and
// ends it.
func inKernel(m *testing.M, output string) {
	file, err := os.Create(output)
	if err == nil {
		os.Stdout, os.Stderr = file, file
		err = errors.Join(
			unix.Mount("proc", "/proc", "proc", 0, ""),
			unix.Mount("sysfs", "/sys", "sysfs", 0, ""),
			loadModules("veth", "8021q", "bonding"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		os.Args = append(os.Args[:1], "-test.v", "-test.run", "VLAN|Bond|Link|InTheWay|Lock", "-test.skip", "OnAKernel")
		m.Run()
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// loadModules loads modules of the running kernel and what they depend on
// (modules.dep: each line a module, a colon, and what is to be loaded before,
// the last of it first).
func loadModules(names ...string) error {
	var release unix.Utsname
	if err := unix.Uname(&release); err != nil {
		return err
	}
	dir := filepath.Join(umlModules, unix.ByteSliceToString(release.Release[:]))
	dependencies, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	for _, name := range names {
		for line := range strings.Lines(string(dependencies)) {
			module, before, _ := strings.Cut(strings.TrimSpace(line), ":")
			if filepath.Base(module) != name+".ko" {
				continue
			}
			needed := append([]string{module}, strings.Fields(before)...)
			for _, path := range slices.Backward(needed) {
				if err := loadModule(filepath.Join(dir, path)); err != nil {
					return fmt.Errorf("load %s: %w", path, err)
				}
			}
		}
	}
	return nil
}

func loadModule(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	options := ""
	if filepath.Base(path) == "bonding.ko" {
		options = "max_bonds=0" // or it makes a bond0 by itself
	}
	if err := unix.InitModule(content, options); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
