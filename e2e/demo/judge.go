package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-ipam/holdfast/e2e/cluster"
)

// hold compares the addresses of pods with those that are held for their
// names, and holds those of new names. Every address must lie in the
// document's pool, and no two pods may have the same.
func hold(held map[string]netip.Addr, pods []corev1.Pod) error {
	pool := netipx.MustParseIPRange("10.6.168.101-10.6.168.110")
	taken := map[netip.Addr]string{}
	var wrong []error
	for i := range pods {
		name, addr := pods[i].Name, cluster.Address(&pods[i])
		if !pool.Contains(addr) {
			wrong = append(wrong, fmt.Errorf("%s has %s, which is not of the pool %s", name, addr, pool))
		}
		if other, twice := taken[addr]; twice {
			wrong = append(wrong, fmt.Errorf("%s and %s both have %s", other, name, addr))
		}
		if before, known := held[name]; known && before != addr {
			wrong = append(wrong, fmt.Errorf("the address of %s changed: it was %s and is %s", name, before, addr))
		}
		taken[addr] = name
		held[name] = addr
	}
	return errors.Join(wrong...)
}

// table is what kubectl prints: the columns, and the cells of each row by its
// NAME and the name of the column.
type table struct {
	columns []string
	rows    map[string]map[string]string
}

// parseTable understands tables without empty cells and with no blanks in
// their cells.
func parseTable(printed string) table {
	t := table{rows: map[string]map[string]string{}}
	for i, line := range strings.Split(strings.TrimSpace(printed), "\n") {
		cells := strings.Fields(line)
		if i == 0 {
			t.columns = cells
			continue
		}
		row := map[string]string{}
		for j, c := range cells {
			if j < len(t.columns) {
				row[t.columns[j]] = c
			}
		}
		t.rows[row["NAME"]] = row
	}
	return t
}

// wants returns a judge of tables that wants these columns, in this order,
// and a row with the cells. Cells of columns that may vary are "*".
func wants(columns string, cells ...string) func(table) error {
	return func(t table) error {
		if got := strings.Join(t.columns, " "); got != columns {
			return fmt.Errorf("the columns are %q, want %q", got, columns)
		}
		row, ok := t.rows[cells[0]]
		if !ok {
			return fmt.Errorf("there is no %s", cells[0])
		}
		for i, want := range cells {
			if got := row[t.columns[i]]; want != "*" && got != want {
				return fmt.Errorf("%s of %s is %q, want %q", t.columns[i], cells[0], got, want)
			}
		}
		return nil
	}
}
