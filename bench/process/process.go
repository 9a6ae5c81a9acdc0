// Package process reads what Linux tells of running programs.
package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticks is the unit of CPU time in /proc, USER_HZ, in parts of a second: 100 on
// every Linux of today (proc(5)).
const ticks = 100

// CPUSeconds returns the CPU time that the processes have used, together, by
// their user and system time in /proc/PID/stat (proc(5), fields 14 and 15).
func CPUSeconds(pids []int) (float64, error) {
	total := 0
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name before may contain anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, i := range []int{11, 12} {
			n, err := strconv.Atoi(fields[i])
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			total += n
		}
	}
	return float64(total) / ticks, nil
}

// Memory is what a process has resident, in KiB.
type Memory struct {
	// Peak is the most it ever had (VmHWM in /proc/PID/status), the pages of
	// its program's file included, which it shares with others.
	Peak int
	// Own is what it has now apart from files (RssAnon).
	Own int
}

// MemoryOf returns the most of each of any of the processes.
func MemoryOf(pids []int) (Memory, error) {
	var most Memory
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return most, err
		}
		for key, to := range map[string]*int{"VmHWM:": &most.Peak, "RssAnon:": &most.Own} {
			_, rest, _ := strings.Cut(string(status), key)
			var kib int
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return most, fmt.Errorf("/proc/%d/status tells no %s %w", pid, key, err)
			}
			*to = max(*to, kib)
		}
	}
	return most, nil
}
