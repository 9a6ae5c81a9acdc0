package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"time"
)

// pluginLimit is how long a runtime waits for a plugin: kubelet's default for
// requests to the runtime (runtimeRequestTimeout).
const pluginLimit = 2 * time.Minute

// execution is what came of one run of a plugin.
type execution struct {
	address netip.Addr
	took    time.Duration
	cpu     time.Duration
}

// pluginError is what a plugin said instead of an answer.
type pluginError struct{ said string }

func (e *pluginError) Error() string { return e.said }

// execute runs the plugin as a runtime does (CNI spec, section 2) and waits
// for its end. The time is that from before the process to after it.
func (c *call) execute(ctx context.Context, verb, netns string, p *pod) (execution, error) {
	ctx, cancel := context.WithTimeout(ctx, pluginLimit)
	defer cancel()
	command := exec.CommandContext(ctx, c.program)
	command.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.container,
		"CNI_NETNS=" + netns, "CNI_IFNAME=" + ifname, "CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=" + p.name +
			";K8S_POD_INFRA_CONTAINER_ID=" + p.container + ";K8S_POD_UID=" + p.uid,
	}, c.env...)
	command.Stdin = bytes.NewReader(c.network)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	began := time.Now()
	err := command.Run()
	e := execution{took: time.Since(began)}
	if command.ProcessState != nil {
		e.cpu = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	}
	if err != nil {
		return e, said(stdout.Bytes(), stderr.Bytes(), err)
	}
	if verb == "ADD" {
		e.address, err = answered(stdout.Bytes())
	}
	return e, err
}

// said returns the plugin's error result (CNI spec, section 5 "Error"), or
// what else there is.
func said(stdout, stderr []byte, err error) error {
	var result struct{ Msg, Details string }
	if json.Unmarshal(stdout, &result) == nil && result.Msg != "" {
		return &pluginError{result.Msg + " " + result.Details}
	}
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr[:min(len(stderr), 300)]))
}

// answered returns the address of a result (CNI spec, section 5 "Success").
func answered(stdout []byte) (netip.Addr, error) {
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(stdout, &result); err != nil {
		return netip.Addr{}, fmt.Errorf("the plugin printed no result: %w", err)
	}
	if len(result.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("the plugin gave %d addresses, and 1 was asked for", len(result.IPs))
	}
	return result.IPs[0].Address.Addr(), nil
}
