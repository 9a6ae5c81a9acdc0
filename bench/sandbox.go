package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// newSandboxes makes network namespaces, each held by a file in dir.
func newSandboxes(dir string, n int) ([]string, error) {
	var paths []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("netns-%d", i))
		if err := newSandbox(path); err != nil {
			return paths, fmt.Errorf("make a network namespace: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// newSandbox binds a new network namespace to a file.
func newSandbox(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	made := make(chan error)
	go func() {
		// The thread stays in the namespace and ends with the goroutine,
		// because it is never unlocked.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	return <-made
}

// removeSandboxes lets the namespaces go.
func removeSandboxes(paths []string) error {
	for _, path := range paths {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}
