package agent

import (
	"github.com/holdfast-ipam/holdfast/agent/selection"
	"github.com/holdfast-ipam/holdfast/cni"
)

// masterOf returns the master that an ADD tells of.
func masterOf(q *cni.AddRequest) *selection.Master {
	if q.Master == nil {
		return nil
	}
	return &selection.Master{Name: q.Master.Name, Addresses: q.Master.Addresses}
}
