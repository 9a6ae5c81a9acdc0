// Package inspect shows people what the agent of a node knows.
package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/holdfast-ipam/holdfast/lease"
)

// Journal writes the journal of the agent behind the socket to out, as a
// table, or as JSON as the agent answered it. now is for the ages.
func Journal(ctx context.Context, socket string, asJSON bool, now time.Time, out io.Writer) error {
	text, err := get(ctx, socket, "/v1/journal")
	if err != nil {
		return err
	}
	if asJSON {
		_, err := out.Write(text)
		return err
	}
	var entries []lease.Entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	return table(entries, now, out)
}

func get(ctx context.Context, socket, path string) (text []byte, err error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // it asks once
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://holdfast"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("no agent answers on %s: is it running on this node? %w", socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the agent on %s answered %s", socket, response.Status)
	}
	return io.ReadAll(response.Body)
}

func table(entries []lease.Entry, now time.Time, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tSTATE\tPOD\tINTERFACE\tSTICKY\tAGE\tCONTAINER")
	for _, e := range entries {
		pod := "-"
		if e.Pod != "" {
			pod = e.Namespace + "/" + e.Pod
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%t\t%s\t%s\n", e.Addr, e.State, pod,
			dash(e.Owner.Interface), e.Sticky, now.Sub(e.Since).Round(time.Second), dash(short(e.Container)))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short cuts a container ID to what other tools show of it.
func short(id string) string { return id[:min(len(id), 13)] }
