package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// sandbox is a network namespace, which is there while its file is open: it
// ends with this process, however that ends.
type sandbox struct{ file *os.File }

// path is where other processes find the namespace (CNI_NETNS).
func (s sandbox) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.file.Fd()) }

// newSandboxes makes network namespaces.
func newSandboxes(n int) ([]sandbox, error) {
	var all []sandbox
	for range n {
		s, err := newSandbox()
		if err != nil {
			return all, fmt.Errorf("make a network namespace: %w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

func newSandbox() (s sandbox, err error) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		// The thread stays in the namespace and ends with the goroutine,
		// because it is never unlocked.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.file, err = os.Open("/proc/thread-self/ns/net")
		}
	}()
	<-made
	return s, err
}

// removeSandboxes lets the namespaces go.
func removeSandboxes(all []sandbox) error {
	var errs []error
	for _, s := range all {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
