package apitest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parentOf is set for a copy of this test's program that plays the parent.
const parentOf = "APITEST_PARENT_OF_A_PROCESS"

// TestProcessDiesWithItsParent has a program start another one and then ends
// it the hard way.
func TestProcessDiesWithItsParent(t *testing.T) {
	if dir := os.Getenv(parentOf); dir != "" {
		playParent(t, dir)
	}
	parent := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	parent.Env = append(os.Environ(), parentOf+"="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !runs(child) {
		t.Fatalf("process %d ended before its parent", child)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait() // it was killed
	for deadline := time.Now().Add(10 * time.Second); runs(child); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its parent", child)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// playParent starts a process, prints its ID and waits for its own end.
func playParent(t *testing.T, dir string) {
	p, err := Run(dir, "/bin/sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(p.cmd.Process.Pid)
	<-p.Done()
}

// runs reports whether there is a process that has not ended.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// An interrupt at a terminal goes to the process group in the foreground.
func TestInterruptAtATerminalDoesNotReachAProcess(t *testing.T) {
	p, err := Run(t.TempDir(), "/bin/sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	own, err := unix.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	if group, err := unix.Getpgid(p.cmd.Process.Pid); err != nil || group == own {
		t.Errorf("it is in process group %d, as its parent (%v)", group, err)
	}
}
