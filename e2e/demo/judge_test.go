package main

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(name, addr string) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.PodStatus{PodIP: addr}}
}

func TestChangedAddressFailsTheDemo(t *testing.T) {
	for _, c := range []struct {
		name string
		pods []corev1.Pod
		want string // in the error, empty for none
	}{
		{"the same addresses", []corev1.Pod{pod("test-sts-0", "10.6.168.105"), pod("test-sts-1", "10.6.168.102")}, ""},
		{"a new pod with a free address", []corev1.Pod{pod("test-sts-2", "10.6.168.110")}, ""},
		{"a changed address", []corev1.Pod{pod("test-sts-0", "10.6.168.106")}, "test-sts-0 changed: it was 10.6.168.105 and is 10.6.168.106"},
		{"one address twice", []corev1.Pod{pod("test-sts-1", "10.6.168.102"), pod("test-sts-2", "10.6.168.102")}, "both have 10.6.168.102"},
		{"an address of another pool", []corev1.Pod{pod("test-sts-2", "10.6.168.111")}, "not of the pool"},
		{"no address", []corev1.Pod{pod("test-sts-2", "")}, "not of the pool"},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := map[string]netip.Addr{
				"test-sts-0": netip.MustParseAddr("10.6.168.105"),
				"test-sts-1": netip.MustParseAddr("10.6.168.102"),
			}
			err := hold(held, c.pods)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestWrongTableFailsTheDemo(t *testing.T) {
	const printed = `NAME          VERSION   SUBNET        ALLOCATED-IP-COUNT   TOTAL-IP-COUNT   DEFAULT
other         4         10.7.0.0/16   9                    20               true
test-ippool   4         10.6.0.0/16   2                    10               false
`
	const columns = "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT"
	for _, c := range []struct {
		name string
		is   func(table) error
		want string
	}{
		{"the document's row", wants(columns, "test-ippool", "4", "10.6.0.0/16", "2", "10", "false"), ""},
		{"a cell that may vary", wants(columns, "test-ippool", "*", "10.6.0.0/16"), ""},
		{"another count", wants(columns, "test-ippool", "4", "10.6.0.0/16", "3", "10", "false"), `ALLOCATED-IP-COUNT of test-ippool is "2"`},
		{"no such row", wants(columns, "absent"), "no absent"},
		{"other columns", wants("NAME AGE", "test-ippool"), "columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.is(parseTable(printed))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}
